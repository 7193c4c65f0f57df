"""Faults that the real H2O does not show on demand, with fake nodes: each test says what it proves."""

import contextlib
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time

import pytest

from fleet import FAKEJAVA, H2OFLEETD, REPO, SLOW, halt, read, until

QUICK = {"start_limit": "60 in 1m", "restart_delay_max": "0s"}


@contextlib.contextmanager
def small_disk(fleet):
    """The state directory is a file system of 2 MB; what lives is killed in the end, for it is in use."""
    fleet.clouds["c"]["ice_root"] = fleet.dir / "ice"  # elsewhere: cleaning it frees nothing here
    fleet.write_config()
    fleet.state_dir.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(fleet.state_dir)], check=False).returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        yield
    finally:
        for pid in fleet.members():
            with contextlib.suppress(OSError):
                os.kill(pid, 9)
        subprocess.run(["umount", "-l", str(fleet.state_dir)], check=False)


def fill_disk(fleet):
    """To the last byte. The file that is to be removed."""
    ballast = fleet.state_dir / "ballast"
    with open(ballast, "ab", buffering=0) as f:
        for size in (65536, 1024, 1):
            with contextlib.suppress(OSError):
                while f.write(b"x" * size) == size:
                    pass
    return ballast


def ask(port, method, path, timeout=2):
    """Status of a node's answer; None when there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def set_knob(fleet, index, key, value):
    port = fleet.nodes()[index]["api_port"]
    assert ask(port, "POST", f"/fake/{key}?value={value}") == 200


def recovery_dir(fleet):
    return fleet.state_dir / "clouds" / "c" / "recovery"


# --- recovery of grid searches --------------------------------------------------------------------


def test_grid_search_is_resumed(fake):
    """After a loss the interrupted grid search is resumed: H2O empties its directory at the end."""
    fleet = fake(nodes=3, knobs="-Dfake.resume_ms=300", **QUICK)
    fleet.ready()
    set_knob(fleet, 0, "grid_ms", 600000)
    until("recovery.json", 5, (recovery_dir(fleet) / "recovery.json").exists)
    fleet.kill_member(1)
    fleet.ready(generation=2)
    until("the resumed search to end", 10, lambda: not list(recovery_dir(fleet).iterdir()))
    assert "resumes the interrupted grid search" in read(fleet.daemon_log)


def test_operators_start_resumes_only_when_asked(fake):
    """A start by the operator leaves an interrupted search alone, also when a member dies later; with
    --resume it is taken up."""
    fleet = fake(nodes=2, knobs="-Dfake.resume_ms=100", **QUICK)
    fleet.ready()
    set_knob(fleet, 0, "grid_ms", 600000)
    left = recovery_dir(fleet) / "recovery.json"
    until("recovery.json", 5, left.exists)
    fleet.cli("restart", "c", "--wait")
    fleet.kill_member(1)
    fleet.ready(generation=3)
    assert left.exists() and "resumes" not in read(fleet.daemon_log)
    fleet.cli("restart", "c", "--wait", "--resume")
    until("the resumed search to end", 10, lambda: not left.exists())


@pytest.mark.parametrize("version,able", [("3.30.1.3", False), ("3.32.0.5", False), ("3.32.1.1", True)])
def test_recovery_of_an_old_h2o(fake, tmp_path, version, able):
    """H2O before 3.32.1 refuses -auto_recovery_dir, so it is not given one; where one is configured, that is
    said. (Found with the real 3.30.1.3, of which no cloud came up.)"""
    jar = tmp_path / "h2o.jar"
    subprocess.run([REPO / "tests/fake/make-fake-jar", jar, version], check=True)
    fleet = fake(nodes=1, jar_path=jar)
    pid = fleet.ready()["nodes"][0]["pid"]
    assert (b"-auto_recovery_dir" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()) == able
    assert ("cannot resume grid searches" in fleet.log_tail(200)) != able
    if not able:
        told = fake(nodes=1, jar_path=jar, auto_recovery_dir=tmp_path / "recovery")
        assert f"H2O {version} cannot resume" in told.wait("failed")["reason"]


def test_deadly_recovery_is_set_aside(fake):
    """A resume that brings the cloud down twice without progress is set aside, kept, and said."""
    fleet = fake(nodes=2, knobs="-Dfake.resume_crash=1", **QUICK)
    fleet.ready()
    set_knob(fleet, 0, "grid_ms", 600000)
    until("recovery.json", 5, (recovery_dir(fleet) / "recovery.json").exists)
    fleet.kill_member(1)
    fleet.ready(generation=4, timeout=60)
    aside = list(recovery_dir(fleet).parent.glob("recovery.set-aside-*"))
    assert len(aside) == 1 and (aside[0] / "recovery.json").exists()
    assert "has brought the cloud down twice" in read(fleet.daemon_log)
    assert fleet.cloud()["state"] == "ready"


# --- early clients --------------------------------------------------------------------------------


def test_short_lock(fake):
    """Where no gate is wanted: a client that locks the cloud while it is too small is noticed, the
    formation abandoned within a second, nothing counted as a failure, and a whole cloud comes once the client lets it."""
    fleet = fake(nodes=2, knobs="-Dfake.heartbeat_ms=600", start=False, autostart="no",
                 start_limit="2 in 10m", gate_mode="off")
    fleet.start()
    port = fleet.ports.base
    stop = threading.Event()

    def hammer():
        while not stop.is_set():
            ask(port, "GET", "/3/Jobs", timeout=1)
            time.sleep(0.01)

    client = threading.Thread(target=hammer)
    client.start()
    try:
        fleet.cli("start", "c")
        until("three short locks", 60, lambda: fleet.cloud()["short_locks"] >= 3)
    finally:
        stop.set()
        client.join()
    cloud = fleet.ready(timeout=60)
    assert cloud["generation"] >= 4
    assert ask(port, "GET", "/3/Cloud") == 200


# --- lies and wrong answers -----------------------------------------------------------------------


@pytest.mark.parametrize("knob, word", [("lie_pid=1", "pid 1"), ("lie_name=other", "another cloud"),
                                        ("lie_size=9", "stranger")])
def test_liars(fake, knob, word):
    """Who answers for another process or cloud never makes this cloud ready, and is named."""
    fleet = fake(nodes=2, knobs=f"-Dfake.1.{knob}", start_limit="2 in 10m", restart_delay_max="0s")
    cloud = fleet.wait("failed", timeout=30)
    assert word in cloud["reason"], cloud["reason"]
    assert cloud["endpoint"] is None


def test_unhealthy(fake):
    """H2O's own "unhealthy" degrades the cloud and keeps the endpoint; for longer than hang_timeout it
    is a loss."""
    fleet = fake(nodes=2, late_after="500ms", hang_timeout="2s", health_interval="200ms", **QUICK)
    first = fleet.ready()
    set_knob(fleet, 1, "unhealthy", 1)
    degraded = fleet.wait("degraded", timeout=20)
    assert degraded["endpoint"] == first["endpoint"] and degraded["reason"]
    set_knob(fleet, 1, "unhealthy", 0)
    fleet.ready()
    assert fleet.cloud()["generation"] == 1
    set_knob(fleet, 1, "unhealthy", 1)
    assert fleet.ready(generation=2, timeout=60)["restarts"] == 1


@pytest.mark.parametrize("knob", ["garbage=500", "http_status=500", "http_status=401"])
def test_broken_answers(fake, knob):
    """Garbage, half answers and errors are no answers: the member is late, and in the end hung."""
    fleet = fake(nodes=2, late_after="500ms", hang_timeout="2s", health_interval="200ms", **QUICK)
    fleet.ready()
    key, _, value = knob.partition("=")
    set_knob(fleet, 1, key, value)
    fleet.wait("degraded", timeout=10)
    cloud = fleet.ready(generation=2, timeout=30)
    assert cloud["nodes"][1]["last_exit"]["signal"] == "SIGKILL"


def test_half_answers(fake):
    """A member that answers HEAD but no whole GET does not pass for well."""
    fleet = fake(nodes=2, late_after="500ms", hang_timeout="2s", health_interval="200ms", **QUICK)
    fleet.ready()
    set_knob(fleet, 1, "unhealthy", 1)  # in the header: the daemon asks in full
    set_knob(fleet, 1, "truncate", 1)
    assert fleet.ready(generation=2, timeout=30)["restarts"] == 1


def test_lost_consensus(fake):
    """Members that no longer agree are a loss, at once."""
    fleet = fake(nodes=2, health_interval="200ms", **QUICK)
    fleet.ready()
    set_knob(fleet, 0, "no_consensus", 1)
    set_knob(fleet, 0, "unhealthy", 1)  # makes the daemon ask in full
    assert fleet.ready(generation=2)["restarts"] == 1


# --- ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("knob, cause, words", [
    ("hs_err=1", "jvm-crash", "hs_err_pid"),
    ("oom=1", "java-oom", "max_mem_size"),
    ("exit_code_now=255", "unknown", "exited with code 255"),
    ("crash=SEGV", "signal", "SIGSEGV"),
])
def test_causes(fake, knob, cause, words):
    """Why a node ended is worked out and said in words, with the last lines of its log."""
    fleet = fake(nodes=2, **QUICK)
    fleet.ready()
    key, _, value = knob.partition("=")
    with contextlib.suppress(AssertionError):  # it may die before it answers
        set_knob(fleet, 1, key, value)
    last = fleet.ready(generation=2)["nodes"][1]["last_exit"]
    assert last["cause"] == cause and words in last["why"], last
    assert last["log_tail"]
    shown = fleet.cli("status", "c").stdout
    assert words in " ".join(shown.split()), shown


def test_killed_by_nobody_we_know(fake):
    """SIGKILL from outside: not by us, and whether the kernel's OOM killer ran is said."""
    fleet = fake(nodes=1, **QUICK)
    fleet.ready()
    fleet.kill_member(0)
    why = fleet.ready(generation=2)["nodes"][0]["last_exit"]["why"]
    assert "killed by SIGKILL, not by us" in why and "OOM killer" in why


# --- ports ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0, 1], ids=["api", "internal"])
def test_thief_between_generations(fake, offset):
    """A server with SO_REUSEADDR can listen on a port that is held for a member between two
    generations. The cloud keeps its ports, waits, names the thief, counts no failure, and comes
    back once the port is free."""
    fleet = fake(nodes=2, restart_delay="2s", start_limit="2 in 10m")
    first = fleet.ready()
    port = first["nodes"][1]["api_port"] + offset
    fleet.kill_member(1)
    fleet.wait("backoff")
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind(("127.0.0.1", port))
        thief.listen()
        named = f"port {port} is taken by pid {os.getpid()}"
        until("the thief is named", 15, lambda: named in (fleet.cloud()["reason"] or ""))
        time.sleep(1.5)
        until("it waits on", 15, lambda: fleet.cloud()["state"] == "backoff")  # else: it is trying again
    again = fleet.ready(generation=2, timeout=30)
    assert again["endpoint"] == first["endpoint"]
    assert [n["api_port"] for n in again["nodes"]] == [n["api_port"] for n in first["nodes"]]


def test_ports_are_held(fake):
    """While a cloud lives, nobody else gets its ports: not even in between two generations."""
    fleet = fake(nodes=2, restart_delay="1s")
    ports = [n["api_port"] for n in fleet.ready()["nodes"]]
    fleet.kill_member(0)
    fleet.wait("backoff")
    for port in ports:
        for p in (port, port + 1):
            with socket.socket() as other, pytest.raises(OSError):
                other.bind(("127.0.0.1", p))
    fleet.ready(generation=2)


def test_internal_port_is_never_touched(fake):
    """Over a boot, watching, a loss and a stop nobody connects to an internal port: that would brick a
    node for ever (the fake says so)."""
    fleet = fake(nodes=3, health_interval="100ms", **QUICK)
    fleet.ready()
    fleet.kill_member(0)
    fleet.ready(generation=2)
    fleet.cli("logs", "c")
    fleet.cli("doctor", code=None)
    fleet.cli("stop", "c", "--wait")
    assert not list(fleet.dir.rglob("bricked"))
    for log in fleet.log_dir.rglob("*.log"):
        assert "BRICKED" not in read(log)


# --- surroundings ---------------------------------------------------------------------------------


def test_proxy_in_the_environment(fleets, fake_keys):
    """http_proxy is never used for the nodes (libcurl would, even for 127.0.0.1)."""
    with socket.socket() as proxy:
        proxy.bind(("127.0.0.1", 0))
        proxy.listen()
        url = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        names = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
        fleet = fleets({"c": fake_keys(2)}, env={name: url for name in names}).start()
        fleet.ready()
        assert fleet.cli("status", "c").returncode == 0
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):
            proxy.accept()


def test_java_without_release_file_is_asked(fake, tmp_path):
    """A java that is a script of its own (no release file beside it) is asked for its version without
    holding up anything; stop in the middle of that is obeyed."""
    java = tmp_path / "java"
    java.write_text(f'#!/bin/sh\n[ "$1" = -version ] && sleep 1\nexec "{FAKEJAVA}" "$@"\n')
    java.chmod(0o755)
    fleet = fake(nodes=1, java=java)
    until("starting", 5, lambda: fleet.cloud()["state"] == "starting")
    begun = time.monotonic()
    assert fleet.api("GET", "/v1/clouds")[0] == 200
    assert time.monotonic() - begun < 0.5
    fleet.cli("stop", "c")
    fleet.wait("stopped", timeout=10)
    fleet.cli("start", "c")
    fleet.ready(timeout=20)


def test_bound_to_all_interfaces(fake):
    """bind_to_localhost = no: the API listens on every address, and is held so."""
    fleet = fake(nodes=1, bind_to_localhost="no")
    port = fleet.ready()["nodes"][0]["api_port"]
    assert ask(port, "GET", "/3/Cloud") == 200
    with socket.socket() as other, pytest.raises(OSError):
        other.bind(("0.0.0.0", port))


def test_context_path(fake):
    """context_path: in the polls, the endpoint and the recovery, too."""
    fleet = fake(nodes=2, context_path="some/where", **QUICK)
    cloud = fleet.ready()
    assert cloud["endpoint"].endswith("/some/where")
    assert ask(cloud["nodes"][0]["api_port"], "GET", "/some/where/3/Cloud") == 200
    assert ask(cloud["nodes"][0]["api_port"], "GET", "/3/Cloud") == 404
    fleet.kill_member(1)
    fleet.ready(generation=2)


@pytest.mark.skipif(os.getuid() != 0, reason="mounts a file system")
def test_full_disk(fake):
    """A full state directory: a clear reason, nothing launched that is not on record, tried again, and
    all is well once there is room; a running cloud goes on."""
    fleet = fake(nodes=2, start=False, **QUICK)

    def blamed():
        fill_disk(fleet)  # whatever our own cleaning has freed
        return "No space left" in (fleet.cloud()["reason"] or "")

    with small_disk(fleet):
        fleet.start()
        fleet.ready()
        ballast = fill_disk(fleet)
        assert fleet.cloud()["state"] == "ready"
        fleet.kill_member(0)
        until("a reason that names the disk", 20, blamed, 0.001)
        fleet.wait("backoff")
        assert fleet.pids() == []
        ballast.unlink()
        fleet.ready(generation=2, timeout=30)
        fleet.stop()
        fleet.assert_clean()


@pytest.mark.skipif(os.getuid() != 0, reason="mounts a file system")
@pytest.mark.parametrize("end", ["killed", "ended"])
def test_an_end_is_told_once(fake, end):
    """A member's end that is in the journal, but for want of room not in the state file, is not told again by the
    next daemon, whether the last one was killed or ended in order."""
    fleet = fake(nodes=2, start=False, **{**QUICK, "restart_delay": f"{int(10 * SLOW)}s", "restart_delay_max": "1m"})

    def told():
        events = [json.loads(line) for line in fleet.cli("events", "--json").stdout.splitlines()]
        return sorted((e["node"], e["generation"]) for e in events if e.get("type") == "node-exited")

    with small_disk(fleet):
        fleet.start()
        fleet.ready()
        ballast = fill_disk(fleet)
        fleet.kill_member(0)
        fleet.wait("backoff")
        until("the trouble", 10, lambda: "its state cannot be written" in fleet.log_tail())
        assert told() == [(0, 1), (1, 1)]
        assert read(fleet.state_dir / "events/current.ndjson").count('"node-exited"') == 2
        if end == "killed":
            fleet.kill_daemon()
            ballast.unlink()
        else:
            ballast.unlink()
            fleet.stop()
        fleet.start()
        fleet.ready(generation=2)
        assert told() == [(0, 1), (1, 1)]
        fleet.stop()
        fleet.assert_clean()


# --- found by a review: each of these went wrong once ---------------------------------------------


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "moving"])
def test_same_ports_after_a_stop(fake, exact):
    """A stopped cloud gets its ports back at once, although a client has not closed its connection
    (FIN_WAIT) and others ended a moment ago (TIME_WAIT)."""
    fleet = fake(nodes=2, start=False, autostart="no")
    base = fleet.ports.base
    fleet.clouds["c"]["port"] = f"{base}{'' if exact else '+'}"
    fleet.write_config()
    fleet.start()
    clients = []
    try:
        for _ in range(3):
            fleet.cli("start", "c", "--wait")
            assert fleet.cloud()["endpoint_port"] == base
            assert [n["api_port"] for n in fleet.nodes()] == [base + 1, base + 3]
            clients.append(socket.create_connection(("127.0.0.1", base)))
            clients[-1].sendall(b"GET /3/Cloud HTTP/1.1\r\nHost: x\r\n\r\n")
            assert clients[-1].recv(10)
            fleet.cli("stop", "c", "--wait")
    finally:
        for client in clients:
            client.close()


def test_listener_on_another_address(fake):
    """Somebody who listens on the same port of another local address is no thief."""
    fleet = fake(nodes=1, **QUICK)
    port = fleet.ready()["nodes"][0]["api_port"]
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.2", port))
        other.listen()
        fleet.kill_member(0)
        assert fleet.ready(generation=2)["nodes"][0]["api_port"] == port


def test_stopped_daemon_and_late_member(fake):
    """A member that is late when the daemon itself is stopped gets its whole hang_timeout of awake time,
    and the daemon's clock goes on at once afterwards."""
    fleet = fake(nodes=2, late_after="500ms", hang_timeout="6s", health_interval="200ms", **QUICK)
    fleet.ready()
    set_knob(fleet, 1, "hang", 1)
    fleet.wait("degraded")
    halt(fleet.daemon.pid)
    time.sleep(9)  # the stall itself: longer than hang_timeout
    os.kill(fleet.daemon.pid, signal.SIGCONT)
    woken = time.monotonic()
    assert fleet.cloud()["state"] == "degraded"
    cloud = fleet.ready(generation=2, timeout=30)
    assert 3 < time.monotonic() - woken < 20
    assert cloud["nodes"][1]["last_exit"]["signal"] == "SIGKILL"


def test_old_crash_report(fake):
    """A crash report of an older process with the same pid does not make an orderly end a crash."""
    fleet = fake(nodes=1)
    pid = fleet.ready()["nodes"][0]["pid"]
    old = fleet.log_dir / "c" / f"hs_err_pid{pid}.log"
    old.write_text("# A fatal error, long ago\n")
    os.utime(old, (time.time() - 1e6,) * 2)
    assert ask(fleet.nodes()[0]["api_port"], "POST", "/fake/exit_code_now?value=0") in (200, None)
    assert fleet.wait("stopped")["nodes"][0]["last_exit"]["cause"] == "orderly"


def test_full_log_pipe(fleets, fake_keys):
    """Nobody reads the daemon's log: lines are lost, supervision goes on."""
    fleet = fleets({"c": fake_keys(1, **QUICK)}, fleet={"log_level": "debug"})
    read_end, write_end = os.pipe()
    fleet.daemon = subprocess.Popen(
        [H2OFLEETD, "--config", str(fleet.config)], stdin=subprocess.DEVNULL, stdout=write_end,
        stderr=write_end, env=fleet.env(), cwd=fleet.dir, start_new_session=True)
    fleet.daemons.append(fleet.daemon)
    os.set_blocking(write_end, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write_end, b"x" * 65536)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write_end, b"x")
    os.set_blocking(write_end, True)  # the descriptor is shared: as the daemon would find it
    until("the control socket", 10, fleet.socket.exists)
    fleet.ready()
    fleet.kill_member(0)
    fleet.ready(generation=2)
    os.close(write_end)
    os.close(read_end)


def test_without_stdio(fleets, fake_keys):
    """Started with no descriptors at all, it does not take its own sockets for a log."""
    fleet = fleets({"c": fake_keys(1)})
    fleet.daemon = subprocess.Popen(
        ["/bin/sh", "-c", 'exec "$0" --config "$1" <&- >&- 2>&-', H2OFLEETD, str(fleet.config)],
        env=fleet.env(), cwd=fleet.dir, start_new_session=True)
    fleet.daemons.append(fleet.daemon)
    until("the control socket", 10, fleet.socket.exists)
    fleet.ready()
    assert fleet.stop() == 0


def test_clouds_wait_for_strays(fleets, fake_keys):
    """What a killed daemon left of a cloud that is no longer configured is ended, with its files,
    before anything is started: a cloud may want the same exact port. A second SIGTERM ends even
    those at once that ignore the first."""
    keys = fake_keys(1, knobs="-Dfake.ignore_term=1")
    fleet = fleets({"old": keys})
    keys["port"] = str(fleet.ports.base)
    fleet.write_config()
    fleet.start()
    fleet.ready("old")
    fleet.kill_daemon()
    fleet.clouds = {"new": keys}
    fleet.write_config()
    fleet.start()
    assert fleet.ready("new", timeout=30)["endpoint_port"] == fleet.ports.base
    assert len(fleet.members()) == 1
    assert not list(fleet.state_dir.glob("clouds/old/0/tmp/*"))
    fleet.kill_daemon()
    fleet.clouds = {"old": keys}
    fleet.write_config()
    fleet.start()
    assert len(fleet.members()) == 1 and fleet.cloud("old")["state"] == "starting"
    assert fleet.cloud("old")["generation"] == 0
    fleet.send(signal.SIGTERM)
    time.sleep(0.2)
    fleet.send(signal.SIGTERM)
    assert fleet.wait_exit(5) == 0


def test_files_that_no_daemon_knows_of(fleets, fake_keys):
    """What members of an earlier boot, or of a cloud that is not configured any more, have left is
    removed by the next daemon, whether it starts that cloud or not; what may be of use to people
    stays, and so does all of a cloud that runs."""
    fleet = fleets({"c": fake_keys(1), "rests": fake_keys(2, autostart="no")})
    fleet.start()
    fleet.ready("c")
    fleet.kill_daemon()
    runs = sorted(fleet.state_dir.glob("clouds/c/0/**"))
    left = [fleet.state_dir / "clouds" / path for path in (
        "rests/1/tmp/lib.so", "rests/1/ice54321/x", "gone/0/tmp/d/lib.so", "gone/12/ice54323/x")]
    kept = [fleet.state_dir / "clouds" / path for path in ("gone/0/core", "gone/recovery/tmp/x")]
    for path in left + kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    fleet.start()
    fleet.ready("c", generation=1)
    assert [path for path in left if path.exists()] == []
    assert not list(fleet.state_dir.glob("clouds/*/*/ice*/x"))
    assert all(path.exists() for path in kept)
    assert sorted(fleet.state_dir.glob("clouds/c/0/**")) == runs


@pytest.mark.parametrize("kind", [1, 2], ids=["same group", "own session"])
def test_nothing_that_a_node_started_stays(fake, kind):
    """What a node has started itself, in its group or not, is gone when the cloud is stopped."""
    fleet = fake(nodes=1, knobs=f"-Dfake.fork_child={kind}")
    fleet.ready()
    until("the child", 5, lambda: len(fleet.members()) == 2)
    fleet.cli("stop", "c", "--wait")
    assert fleet.members() == {}
