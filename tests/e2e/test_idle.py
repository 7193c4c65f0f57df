"""Idle stop, and start on demand: ten clouds may be configured, and only those in use run. The
deadlines are seconds here; the state machine's own tests (tests/unit/test_idle.c, tests/sim) have hours."""

import contextlib
import http.client
import json
import os
import pathlib
import signal
import socket
import threading
import time

import pytest

from fleet import SLOW, listeners, read, until

REASON = "without use (max_idle_duration)"


def ask(port, path="/3/Cloud", method="GET", timeout=30):
    """(status, body) of a new connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout * SLOW)
    with contextlib.closing(connection):
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()


def knob(fleet, key, value=1, name="c"):
    assert ask(fleet.nodes(name)[0]["api_port"], f"/fake/{key}?value={value}", "POST")[0] == 200


def events(fleet, *kinds, name="c"):
    lines = fleet.cli("events", name, "--json").stdout.splitlines()
    return [e for e in map(json.loads, lines) if e["type"] in kinds]


def idle_stopped(fleet, name="c", timeout=30):
    cloud = fleet.wait("stopped", name=name, timeout=timeout)
    assert cloud["wanted"] == "stopped" and REASON in cloud["reason"], cloud["reason"]
    return cloud


def stays(fleet, seconds, *states, name="c", touch=None):
    """Over that time of the daemon's own clock it is in these states."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        cloud = fleet.cloud(name)
        assert cloud["state"] in states, (cloud["state"], cloud["reason"])
        if touch:
            touch()
        time.sleep(0.05)


def locks(fleet, name="c"):
    """Members' log lines about the cloud being locked."""
    logs = (fleet.log_dir / name).glob("*.log")
    return [line for log in logs for line in read(log).splitlines() if "Locking cloud" in line]


# --- idle stop ------------------------------------------------------------------------------------


def test_unused(fake):
    """A cloud that nobody has used is announced to be stopped, then stopped, with the reason in
    status; restart = always does not bring it back, nor does the daemon. Our questions have not locked
    it: a cloud that is not locked was never used."""
    fleet = fake(nodes=2, max_idle_duration="2s", restart="always")
    ready = fleet.ready()
    assert 0 <= ready["idle_ms"] <= 2000 and 0 <= ready["idle_stop_ms"] <= 2000
    stopped = idle_stopped(fleet)
    assert stopped["idle_ms"] is None and stopped["idle_stop_ms"] is None
    assert fleet.members() == {} and not locks(fleet)
    said, = events(fleet, "cloud-idle")
    assert 0 < said["stop_in_ms"] <= 2000 and "nobody uses it" in said["message"]
    stopping, = [e for e in events(fleet, "cloud-state") if e["to"] == "stopping"]
    assert said["seq"] < stopping["seq"] and REASON in stopping["reason"]
    assert REASON in fleet.cli("status", "c", code=3).stdout
    fleet.kill_daemon()
    fleet.start()
    assert REASON in idle_stopped(fleet)["reason"]
    fleet.cli("start", "c", "--wait")
    assert fleet.cloud()["reason"] is None
    idle_stopped(fleet)


def test_touch(fake):
    """`h2ofleet touch` postpones the stop; without it the cloud is stopped. What does not run cannot
    be touched, which says why."""
    fleet = fake(nodes=1, max_idle_duration="2s")
    fleet.ready()
    stays(fleet, 6, "ready", touch=lambda: fleet.cli("touch", "c"))
    idle_stopped(fleet)
    failed = fleet.cli("touch", "c", code=3)
    assert REASON in failed.stderr
    status, problem = fleet.api("POST", "/v1/clouds/c/touch")
    assert status == 409 and problem["type"] == "urn:h2ofleet:problem:cloud-stopped"


def test_touch_calls_it_off(fake):
    """A stop that was announced is called off by a touch, which is an event, and announced again."""
    fleet = fake(nodes=1, max_idle_duration="30s")
    fleet.ready()
    until("it is announced", 60, lambda: events(fleet, "cloud-idle"))
    fleet.cli("touch", "c")
    kinds = [e["type"] for e in events(fleet, "cloud-idle", "cloud-active")]
    assert kinds == ["cloud-idle", "cloud-active"]
    assert fleet.cloud()["state"] == "ready" and fleet.cloud()["idle_stop_ms"] > 15000


@pytest.mark.parametrize("lie", [-1, 3600000])
def test_job(fake, lie):
    """A running job keeps the cloud, also when H2O's idle clock says otherwise; once it has ended the
    time begins."""
    fleet = fake(nodes=2, max_idle_duration="1s", knobs=f"-Dfake.r100.grid_ms=6000 -Dfake.lie_idle_ms={lie}")
    port = fleet.ready()["nodes"][0]["api_port"]
    ask(port, "/3/Jobs")  # a job locks
    began = time.monotonic()
    idle_stopped(fleet)
    assert time.monotonic() - began > 5


def test_locked_and_idle(fake):
    """A cloud that was used is stopped so long after the end of its last Rapids expression."""
    fleet = fake(nodes=2, max_idle_duration="3s")
    port = fleet.ready()["nodes"][0]["api_port"]
    stays(fleet, 7, "ready", touch=lambda: ask(port, "/99/Rapids", "POST"))
    began = time.monotonic()
    idle_stopped(fleet)
    assert time.monotonic() - began > 2


def test_no_answer(fake):
    """When it cannot be told whether the cloud is used it is not stopped; once it can, it is."""
    fleet = fake(nodes=1, max_idle_duration="1s")
    port = fleet.ready()["nodes"][0]["api_port"]
    knob(fleet, "steam_status", 500)
    ask(port, "/3/Ping")  # locks
    stays(fleet, 5, "ready")
    knob(fleet, "steam_status", 0)
    idle_stopped(fleet)


def test_broken_cloud(fake):
    """Nor is one that has no good answer to anything."""
    fleet = fake(nodes=1, max_idle_duration="2s", late_after="500ms")
    fleet.ready()
    knob(fleet, "http_status", 500)
    stays(fleet, 6, "ready", "degraded")
    knob(fleet, "http_status", 0)
    idle_stopped(fleet)


def test_reload(fake):
    """max_idle_duration can be changed while the cloud runs: off, longer, and so short that it is
    over already."""
    fleet = fake(nodes=1, max_idle_duration="1h")
    assert fleet.ready()["idle_stop_ms"] > 3500000
    for value in ("off", "2h", "1s"):
        fleet.clouds["c"]["max_idle_duration"] = value
        fleet.write_config()
        fleet.cli("reload")
        if value == "off":
            assert fleet.cloud()["idle_stop_ms"] is None
        elif value == "2h":
            assert fleet.cloud()["idle_stop_ms"] > 7100000
    assert fleet.cloud()["generation"] == 1
    idle_stopped(fleet)
    assert len(events(fleet, "cloud-idle")) == 1


def test_daemon_killed(fake):
    """The time goes on over the death of the daemon, and an announcement is not made twice."""
    fleet = fake(nodes=1, max_idle_duration="20s")
    fleet.ready()
    until("it is announced", 60, lambda: events(fleet, "cloud-idle"))
    fleet.kill_daemon()
    fleet.start()
    assert fleet.cloud()["idle_stop_ms"] < 5000
    idle_stopped(fleet)
    assert len(events(fleet, "cloud-idle")) == 1 and not events(fleet, "cloud-active")


# --- with the gate --------------------------------------------------------------------------------


def armed(fleet, name="c"):
    """Its port, once a connection would start it."""
    def probe():
        cloud = fleet.cloud(name)
        return cloud["armed"] and cloud["gate"] and cloud["gate"]["port"] and cloud
    cloud = until(f"{name} waits for a connection", 20, probe)
    return cloud["gate"]["port"]


def test_start_on_connect(fake):
    """A stopped cloud that is armed starts when somebody connects, who just waits; it is seen in
    status, and `connect` tells where to go though nothing runs."""
    fleet = fake(nodes=2, start_on="connect", autostart="no", gate_hold="1m")
    port = armed(fleet)
    assert fleet.members() == {} and listeners(port, port)
    assert "stopped (starts on connect)" in fleet.cli("status", code=3).stdout
    assert fleet.cli("connect", "c", "--url").stdout.strip() == f"http://127.0.0.1:{port}"
    status, body = ask(port)
    assert status == 200 and json.loads(body)["cloud_size"] == 2
    cloud = fleet.cloud()
    assert cloud["state"] == "ready" and cloud["generation"] == 1 and not cloud["armed"]
    assert cloud["endpoint_port"] == port


def test_stop_and_disarm(fake):
    """The operator's stop leaves the cloud armed, and says so; --disarm does not, also over the death of
    the daemon; start arms it again."""
    fleet = fake(nodes=1, start_on="connect", gate_hold="1m")
    port = fleet.ready()["endpoint_port"]
    said = fleet.cli("stop", "c", "--wait").stdout
    assert "next connection" in said and "--disarm" in said
    assert armed(fleet) == port and ask(port)[0] == 200
    assert fleet.cloud()["generation"] == 2
    assert "next connection" not in fleet.cli("stop", "c", "--disarm", "--wait").stdout
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        cloud = fleet.cloud()
        assert cloud["state"] == "stopped" and not cloud["armed"]
        fleet.kill_daemon()
        fleet.start()
    fleet.cli("start", "c", "--wait")
    fleet.cli("stop", "c", "--wait")
    assert armed(fleet) == port


def test_connect_while_stopping(fake):
    """Who comes while an armed cloud is being stopped waits, and has it started once, after that."""
    fleet = fake(nodes=1, start_on="connect", gate_hold="1m", stop_timeout="20s",
                 knobs="-Dfake.g1.term_ms=1500")
    port = fleet.ready()["endpoint_port"]
    fleet.cli("stop", "c")
    assert fleet.cloud()["state"] == "stopping"
    assert ask(port)[0] == 200
    assert fleet.cloud()["generation"] == 2 and fleet.cloud()["state"] == "ready"


def test_failed_is_not_started(fake):
    """A cloud that has failed is not started by a connection: nobody listens until somebody looks."""
    fleet = fake(nodes=1, start_on="connect", autostart="no", start=False, gate_hold="1m",
                 knobs="-Dfake.exit_at_boot_ms=20", start_limit="1 in 1h")
    fleet.start()
    port = armed(fleet)
    with contextlib.suppress(OSError, http.client.HTTPException):
        ask(port)
    fleet.wait("failed")
    until("the door is shut", 10, lambda: not listeners(port, port))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    assert fleet.cloud()["state"] == "failed"


def test_traffic_keeps_it(fake):
    """Bytes through the gate are use, though nothing of them locks the cloud; an open connection
    without a byte is none."""
    fleet = fake(nodes=1, max_idle_duration="2s")
    port = fleet.ready()["endpoint_port"]
    silent = socket.create_connection(("127.0.0.1", port))
    stays(fleet, 6, "ready", touch=lambda: ask(port))
    cloud = fleet.cloud()
    assert cloud["idle_ms"] < 1500 * SLOW and cloud["gate"]["connections"] >= 1
    idle_stopped(fleet)
    assert not locks(fleet)
    silent.close()


def test_traffic_while_no_daemon(fake):
    """The gate counts on while there is no daemon: the next one knows of it."""
    fleet = fake(nodes=1, max_idle_duration="6s")
    port = fleet.ready()["endpoint_port"]
    fleet.kill_daemon()
    for _ in range(16):
        assert ask(port)[0] == 200
        time.sleep(0.5)
    fleet.start()
    assert fleet.cloud()["state"] == "ready" and fleet.cloud()["idle_ms"] < 4000 * SLOW
    stays(fleet, 2, "ready")
    idle_stopped(fleet)


def test_gate_lost_while_no_daemon(fleets, fake_keys):
    """With the gate goes when the clouds were last used: they count as used when the next daemon comes, also one
    that clients may start, whose port is open before the daemon looks at the cloud."""
    fleet = fleets({"c": fake_keys(1, max_idle_duration="6s"),
                    "d": fake_keys(1, max_idle_duration="6s", start_on="connect")})
    fleet.start()
    fleet.cli("start", "d")
    ports = [fleet.ready(name)["endpoint_port"] for name in "cd"]
    fleet.kill_daemon()
    assert [ask(port)[0] for port in ports] == [200, 200]
    os.kill(fleet.gate(), signal.SIGKILL)
    time.sleep(7)  # longer than max_idle_duration
    fleet.start()
    for name in "cd":
        assert fleet.cloud(name)["state"] == "ready" and fleet.cloud(name)["idle_ms"] < 3000 * SLOW
    stays(fleet, 3, "ready", touch=lambda: fleet.cloud("d")["state"] == "ready" or pytest.fail("d has stopped"))
    for name in "cd":
        idle_stopped(fleet, name)


def test_idle_stop_and_back(fake):
    """Stopped for want of use, started by the next connection, several times."""
    fleet = fake(nodes=2, start_on="connect", autostart="no", max_idle_duration="1s", gate_hold="1m")
    for generation in (1, 2, 3):
        port = armed(fleet)
        assert ask(port)[0] == 200
        assert fleet.cloud()["generation"] == generation
        idle_stopped(fleet)
    assert fleet.members() == {}


def test_ten_clouds(fleets, fake_keys):
    """Ten clouds are configured, one is used: the others cost nothing, however long."""
    keys = {"start_on": "connect", "autostart": "no", "max_idle_duration": "3s", "gate_hold": "1m"}
    fleet = fleets({f"c{i}": fake_keys(1, **keys) for i in range(10)}).start()
    ports = [armed(fleet, f"c{i}") for i in range(10)]
    assert len(set(ports)) == 10
    threads = [threading.Thread(target=ask, args=(ports[i],)) for i in (3, 7)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert {fleet.cloud(f"c{i}")["state"] for i in (3, 7)} == {"ready"}
    until("the unused one is stopped", 60,
          lambda: ask(ports[7])[0] == 200 and fleet.cloud("c3")["state"] == "stopped")
    assert fleet.cloud("c7")["generation"] == 1 and len(fleet.members()) == 1
    for i in (0, 1, 2, 4, 5, 6, 8, 9):
        cloud = fleet.cloud(f"c{i}")
        assert cloud["state"] == "stopped" and cloud["generation"] == 0


def test_exit_when_stopped(fake):
    """In a container (exit_when = stopped) the daemon stays for a cloud that starts on a connection; it
    ends once that is stopped for good."""
    fleet = fake(nodes=1, start_on="connect", max_idle_duration="1s", gate_hold="1m",
                 fleet={"exit_when": "stopped"})
    fleet.ready()
    idle_stopped(fleet)
    stays(fleet, 1.5, "stopped")
    assert ask(armed(fleet))[0] == 200
    fleet.cli("stop", "c", "--disarm")
    assert fleet.wait_exit() == 0


def test_disarmed_by_nobody(fake):
    """The daemon's end takes the door with it: no connection starts anything any more."""
    fleet = fake(nodes=1, start_on="connect", autostart="no")
    port = armed(fleet)
    assert fleet.stop(signal.SIGTERM) == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    assert not pathlib.Path(fleet.state_dir, "gate").exists()
