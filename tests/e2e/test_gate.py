"""The gate in front of clouds, with the daemon that runs it: clients come to the endpoint only while
the cloud is whole, whatever dies. What the gate does with bytes is in test_gateway.py."""

import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

from fleet import H2OFLEETD, SLOW, WRAPPER, halt, has_ipv6, listeners, pid_alive, read, until

GATE = str(pathlib.Path(H2OFLEETD).parent / "h2ofleet-gate")
whole_image = pytest.mark.skipif(bool(WRAPPER), reason="the image would be the wrapper's")


def ask(port, path="/3/Cloud", timeout=20, host="127.0.0.1"):
    """(status, body) of a new connection."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout * SLOW)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()


def held(port, path="/3/Cloud"):
    """A connection that has sent its request."""
    s = socket.create_connection(("127.0.0.1", port), timeout=30 * SLOW)
    s.sendall(f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
    return s


def whole_answer(s):
    data = b""
    while chunk := s.recv(65536):
        data += chunk
    return data


def size_of(data):
    return json.loads(data[data.index(b"{"):])["cloud_size"]


def gate_of(fleet, name="c"):
    return fleet.cloud(name)["gate"]


def door(fleet, word, name="c"):
    return until(f"the door of {name} is {word}", 20, lambda: gate_of(fleet, name)["door"] == word)


def events(fleet, kind):
    lines = fleet.cli("events", "--json").stdout.splitlines()
    return [e for e in map(json.loads, lines) if e["type"] == kind]


def same(before, after):
    for key in ("generation", "h2o_name", "endpoint", "restarts"):
        assert after[key] == before[key], key
    assert [n["pid"] for n in after["nodes"]] == [n["pid"] for n in before["nodes"]]


# --- what clients see -----------------------------------------------------------------------------


def test_endpoint(fake):
    """The endpoint is the first port, the members have those above; bytes pass, are counted, and over
    IPv6 as well."""
    fleet = fake(nodes=2)
    cloud = fleet.ready()
    port = cloud["endpoint_port"]
    assert port == fleet.ports.base
    assert [n["api_port"] for n in cloud["nodes"]] == [port + 1, port + 3]
    hosts = ["127.0.0.1", "::1" if has_ipv6() else "localhost"]
    for host in hosts:
        status, body = ask(port, host=host)
        assert status == 200 and json.loads(body)["cloud_size"] == 2
    # A client has its answer before the gate has counted it.
    until("nobody is inside", 5, lambda: gate_of(fleet)["connections"] == 0)
    gate = gate_of(fleet)
    assert gate["door"] == "open" and gate["port"] == port
    assert gate["passed_total"] == 2 and gate["accepted_total"] == 2 and gate["held_total"] == 0
    assert gate["bytes_out"] > 2 * len(body) and gate["bytes_in"] > 0


def test_early_clients_wait(fake):
    """Clients that ask what locks a cloud, from before its first node answers: each gets a whole
    cloud, from generation to generation, and none is formed twice."""
    fleet = fake(nodes=3, knobs="-Dfake.heartbeat_ms=600", start=False, autostart="no")
    fleet.start()
    port, sizes, stop = fleet.ports.base, [], threading.Event()

    def client():
        while not stop.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                if ask(port, "/3/Ping", timeout=2)[0] == 200:
                    sizes.append(json.loads(ask(port, timeout=2)[1])["cloud_size"])
            stop.wait(0.01)

    clients = [threading.Thread(target=client) for _ in range(4)]
    for c in clients:
        c.start()
    try:
        fleet.cli("start", "c")
        for generation in (1, 2, 3):
            fleet.ready(generation=generation)
            seen = len(sizes)
            until("clients come in", 10, lambda: len(sizes) > seen + 5)
            fleet.kill_member(generation % 3)
            fleet.wait("recovering", "starting", "forming")
        cloud = fleet.ready(generation=4)
    finally:
        stop.set()
        for c in clients:
            c.join()
    assert set(sizes) == {3} and cloud["short_locks"] == 0
    assert cloud["generation"] == 4, "no formation was abandoned"


def test_lost_and_back(fake):
    """A connection is cut at once when the cloud is lost; one that comes then is answered by the next
    generation."""
    fleet = fake(nodes=2, knobs="-Dfake.ready_ms=1500")
    cloud = fleet.ready()
    port = cloud["endpoint_port"]
    old = socket.create_connection(("127.0.0.1", port), timeout=10 * SLOW)
    until("it is inside", 5, lambda: gate_of(fleet)["connections"] == 1)
    fleet.kill_member(1)
    with contextlib.suppress(ConnectionError):
        assert old.recv(1) == b""
    assert fleet.cloud()["state"] != "ready"
    new = held(port)
    until("it waits", 5, lambda: gate_of(fleet)["held"] == 1)
    assert size_of(whole_answer(new)) == 2
    after = fleet.cloud()
    assert after["generation"] == cloud["generation"] + 1
    assert gate_of(fleet)["closed_total"] >= 1 and gate_of(fleet)["held_total"] >= 1


def test_hold_ends(fake):
    """Nobody waits longer than gate_hold, which a reload changes at once."""
    fleet = fake(nodes=1, knobs="-Dfake.ready_ms=60000", gate_hold="300ms", start=False)
    fleet.start()
    door(fleet, "hold")
    began = time.monotonic()
    with contextlib.suppress(ConnectionError):
        assert held(fleet.ports.base).recv(1) == b""
    assert 0.25 < time.monotonic() - began < 10 * SLOW
    fleet.clouds["c"]["gate_hold"] = "1h"
    fleet.write_config()
    fleet.cli("reload")
    waiting = held(fleet.ports.base)
    until("it waits", 5, lambda: gate_of(fleet)["held"] == 1)
    fleet.clouds["c"]["gate_hold"] = "100ms"
    fleet.write_config()
    fleet.cli("reload")
    with contextlib.suppress(ConnectionError):
        assert waiting.recv(1) == b""
    until("it is counted", 5, lambda: gate_of(fleet)["expired_total"] == 2)


def test_refuse(fake):
    """gate_mode = refuse: connection refused until the cloud is whole, and again when it is lost."""
    fleet = fake(nodes=2, knobs="-Dfake.ready_ms=1500", gate_mode="refuse")
    port = fleet.ports.base
    fleet.wait("forming")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    fleet.ready()
    assert ask(port)[0] == 200
    fleet.kill_member(0)
    fleet.wait("recovering", "starting", "forming")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    assert gate_of(fleet)["door"] == "refuse"
    fleet.ready(generation=2)
    assert ask(port)[0] == 200


def test_ports_in_order(fleets, fake_keys):
    """Clouds get their endpoints in the order of the configuration, also when one starts with the
    daemon, which takes its time, and the next waits for a connection."""
    fleet = fleets({"a": fake_keys(2), "b": fake_keys(1, autostart="no", start_on="connect"),
                    "c": fake_keys(1)}).start()
    fleet.ready("a"), fleet.ready("c")
    ports = [gate_of(fleet, name)["port"] for name in "abc"]
    assert ports == sorted(ports) and ports[0] == fleet.ports.base
    assert fleet.cloud("a")["endpoint_port"] == ports[0]


def test_off(fake):
    """gate_mode = off: the endpoint is member 0 itself, and there is no gate process."""
    fleet = fake(nodes=2, gate_mode="off")
    cloud = fleet.ready()
    assert cloud["endpoint_port"] == cloud["nodes"][0]["api_port"] == fleet.ports.base
    assert cloud["gate"] is None and fleet.gate() is None


def test_stop_shuts(fake):
    """A stopped cloud has no port; the gate stays for the next start and ends with the daemon."""
    fleet = fake(nodes=1)
    port = fleet.ready()["endpoint_port"]
    gate = fleet.gate()
    client = socket.create_connection(("127.0.0.1", port), timeout=10 * SLOW)
    fleet.cli("stop", "c", "--wait")
    with contextlib.suppress(ConnectionError):
        assert client.recv(1) == b""
    assert not listeners(port, port + 63) and gate_of(fleet)["door"] == "shut"
    fleet.cli("start", "c", "--wait")
    assert fleet.cloud()["endpoint_port"] == port and ask(port)[0] == 200
    assert fleet.gate() == gate
    assert fleet.stop() == 0
    assert not pid_alive(gate) and not (fleet.state_dir / "gate").exists()


def test_gate_comes_and_goes_with_the_configuration(fake):
    """gate_mode off and on by reload: with the next life of the cloud, on the ports that follow from
    it."""
    fleet = fake(nodes=1)
    base = fleet.ports.base
    fleet.ready()
    for mode, ports in (("off", (base, base)), ("hold", (base, base + 1))):
        fleet.clouds["c"]["gate_mode"] = mode
        fleet.write_config()
        before = fleet.cloud()
        fleet.cli("reload")
        assert fleet.cloud()["restart_needed"] and ask(before["endpoint_port"])[0] == 200
        fleet.cli("restart", "c", "--wait")
        cloud = fleet.cloud()
        assert (cloud["endpoint_port"], cloud["nodes"][0]["api_port"]) == ports
        assert (cloud["gate"] is None) == (mode == "off")
        assert ask(cloud["endpoint_port"])[0] == 200


# --- who may come in ------------------------------------------------------------------------------


def as_user(uid, port):
    """What a client of another user gets: "answered", or the name of the error."""
    code = f"""
import encodings.idna, http.client, os, sys
os.setgroups([]); os.setgid({uid}); os.setuid({uid})
c = http.client.HTTPConnection("127.0.0.1", {port}, timeout=20)
try:
    c.request("GET", "/3/Cloud"); print("answered" if c.getresponse().status == 200 else "status")
except (OSError, http.client.HTTPException) as e:
    print(type(e).__name__)
"""
    done = subprocess.run(["python3", "-c", code], capture_output=True, text=True, cwd="/",
                          timeout=60 * SLOW)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")
def test_other_users(fake):
    """By default another user of this machine gets nothing, before one byte reaches H2O, which is an
    event; the daemon's own user does. gate_allow lets others in, and out again, without a restart."""
    fleet = fake(nodes=1)
    cloud = fleet.ready()
    port = cloud["endpoint_port"]
    assert as_user(1, port) in ("ConnectionResetError", "RemoteDisconnected")
    assert ask(port)[0] == 200
    event = until("an event", 10, lambda: events(fleet, "gate-refused"))[0]
    assert event["uid"] == 1 and event["cloud"] == "c"
    assert gate_of(fleet)["refused_total"] == 1 and gate_of(fleet)["passed_total"] == 1
    for allow, uid, answer in (("anyone", 1, True), ("1", 1, True), ("1", 2, False),
                               ("user:daemon", 1, True), ("group:daemon", 1, True),
                               ("group:daemon 2", 2, True), ("user", 1, False)):
        fleet.clouds["c"]["gate_allow"] = allow
        fleet.write_config()
        fleet.cli("reload")
        assert (as_user(uid, port) == "answered") == answer, (allow, uid)
        assert ask(port)[0] == 200, "root may always"
    same(cloud, fleet.cloud())


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")
def test_open_to_the_network(fake):
    """bind_to_localhost = no: the gate listens everywhere and lets anyone in, with a warning; the
    members stay on localhost."""
    fleet = fake(nodes=1, bind_to_localhost="no")
    cloud = fleet.ready()
    table = {line.split()[1] for path in ("/proc/net/tcp", "/proc/net/tcp6")
             for line in read(path).splitlines()[1:] if line.split()[3] == "0A"}
    port, member = cloud["endpoint_port"], cloud["nodes"][0]["api_port"]
    assert f"00000000:{port:04X}" in table
    assert f"0100007F:{member:04X}" in table and f"00000000:{member:04X}" not in table
    assert as_user(1, port) == "answered"
    assert "anyone" in read(fleet.daemon_log)


# --- what dies ------------------------------------------------------------------------------------


def test_killed_gate(fake):
    """SIGKILL of the gate: another one is there at once, on the same port; who connects in between is
    not refused; the cloud notices nothing."""
    fleet = fake(nodes=2)
    before = fleet.ready()
    port = before["endpoint_port"]
    ask(port)
    took = []
    for _ in range(12):
        gate = fleet.gate()
        began = time.monotonic()
        os.kill(gate, signal.SIGKILL)
        assert ask(port)[0] == 200
        took.append(time.monotonic() - began)
        assert until("another gate", 5, fleet.gate) != gate
    print("answered again after ms:", sorted(round(t * 1000) for t in took))
    assert sorted(took)[6] < SLOW, "back at once, and not later each time"
    same(before, fleet.cloud())
    assert len(events(fleet, "gate-exited")) == 12
    assert gate_of(fleet)["passed_total"] == 13, "counts go on"


@whole_image
def test_daemon_goes(fake, tmp_path):
    """Through kill -9 of the daemon, detach and reexec: the gate stays the same process, and a
    client's connection goes on in mid-conversation, as do new ones while no daemon is there."""
    fleet = fake(nodes=2)
    before = fleet.ready()
    port, gate = before["endpoint_port"], fleet.gate()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10 * SLOW)
    connection.request("GET", "/3/Cloud")
    connection.getresponse().read()
    local = connection.sock.getsockname()

    def goes_on():
        connection.request("GET", "/3/Cloud")
        answer = connection.getresponse()
        assert answer.status == 200 and len(answer.read()) > 100
        assert connection.sock.getsockname() == local
        assert ask(port)[0] == 200 and fleet.gate() == gate

    fleet.kill_daemon()
    goes_on()
    fleet.start()
    goes_on()
    assert fleet.stop(signal.SIGUSR2) == 0
    goes_on()
    fleet.start()
    fleet.cli("reexec")
    until("the new image", 20, lambda: fleet.api("GET", "/v1/version")[1].get("reexecs") == 1)
    goes_on()
    same(before, fleet.cloud())
    assert gate_of(fleet)["connections"] == 1
    fleet.kill_member(0)
    with contextlib.suppress(ConnectionError):
        assert connection.sock.recv(1) == b"", "the new daemon steers the gate"


def sockets_on(pid, port):
    """How many listening sockets of that port the process has."""
    inodes = {line.split()[9] for path in ("/proc/net/tcp", "/proc/net/tcp6")
              for line in read(path).splitlines()[1:]
              if line.split()[3] == "0A" and line.split()[1].endswith(f":{port:04X}")}
    links = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            links.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return sum(links.count(f"socket:[{inode}]") for inode in inodes)


@whole_image
def test_adopted_sockets(fake):
    """The next daemon has the endpoint's sockets, each once, over IPv4 and IPv6, and lets go of them
    with the cloud: after a stop nobody has the port any more, and anybody can."""
    fleet = fake(nodes=1)
    port = fleet.ready()["endpoint_port"]
    families = 2 if has_ipv6() else 1
    assert sockets_on(fleet.daemon.pid, port) == sockets_on(fleet.gate(), port) == families
    fleet.kill_daemon()
    fleet.start()
    assert sockets_on(fleet.daemon.pid, port) == sockets_on(fleet.gate(), port) == families
    fleet.cli("stop", "c", "--wait")
    assert not listeners(port, port)
    with socket.socket() as anybody:
        anybody.bind(("127.0.0.1", port))


@whole_image
def test_gate_and_daemon_killed(fake):
    """Both gone: the next daemon has the same endpoint, and the cloud was not touched."""
    fleet = fake(nodes=2)
    before = fleet.ready()
    gate = fleet.gate()
    ask(before["endpoint_port"])
    fleet.kill_daemon()
    os.kill(gate, signal.SIGKILL)
    until("it is dead", 5, lambda: not pid_alive(gate))
    with pytest.raises(ConnectionRefusedError):
        ask(before["endpoint_port"])
    fleet.start()
    same(before, fleet.cloud())
    assert ask(before["endpoint_port"])[0] == 200 and fleet.gate() != gate


@whole_image
def test_endpoint_stolen_meanwhile(fake):
    """As above, and somebody takes the port before the next daemon comes: it says who, the cloud runs
    on, and its endpoint is back once he goes."""
    fleet = fake(nodes=1)
    before = fleet.ready()
    port, gate = before["endpoint_port"], fleet.gate()
    fleet.kill_daemon()
    os.kill(gate, signal.SIGKILL)
    until("it is dead", 5, lambda: not pid_alive(gate))
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind(("127.0.0.1", port))
        thief.listen()
        fleet.start()
        same(before, fleet.cloud())
        trouble = until("a trouble", 10, lambda: [
            t for t in fleet.api("GET", "/v1/clouds")[1]["troubles"] if t["kind"] == "gate"])[0]
        assert f"pid {os.getpid()}" in trouble["detail"] and str(port) in trouble["detail"]
    until("the endpoint", 10, lambda: not fleet.api("GET", "/v1/clouds")[1]["troubles"])
    assert ask(port)[0] == 200
    same(before, fleet.cloud())


@whole_image
def test_lost_while_no_daemon_was_there(fake):
    """A member dies between two daemons: the next one closes the door before anything else, so nobody
    comes into the broken cloud."""
    fleet = fake(nodes=2)
    before = fleet.ready()
    port = before["endpoint_port"]
    client = socket.create_connection(("127.0.0.1", port), timeout=20 * SLOW)
    until("it is inside", 5, lambda: gate_of(fleet)["connections"] == 1)
    fleet.kill_daemon()
    os.kill(before["nodes"][1]["pid"], signal.SIGKILL)
    fleet.start()
    with contextlib.suppress(ConnectionError):
        assert client.recv(1) == b""
    assert size_of(whole_answer(held(port))) == 2
    assert fleet.cloud()["generation"] == before["generation"] + 1


@whole_image
def test_hanging_gate_is_replaced_by_the_next_daemon(fake):
    """A gate that does not answer a new daemon (SIGSTOP) is killed and replaced, on the same port."""
    fleet = fake(nodes=1)
    before = fleet.ready()
    gate = fleet.gate()
    halt(gate)
    fleet.kill_daemon()
    fleet.start()
    assert not pid_alive(gate)
    same(before, fleet.cloud())
    assert ask(before["endpoint_port"])[0] == 200


@whole_image
def test_lost_socket_of_the_gate(fake):
    """Somebody removed the gate's socket file: the next daemon cannot talk to that gate, ends it, and
    has another; there are never two."""
    fleet = fake(nodes=1)
    before = fleet.ready()
    gate = fleet.gate()
    fleet.kill_daemon()
    (fleet.state_dir / "gate").unlink()
    fleet.start()
    until("the old one is gone", 10, lambda: not pid_alive(gate))
    until("the endpoint", 10, lambda: fleet.gate() and not fleet.api("GET", "/v1/clouds")[1]["troubles"])
    same(before, fleet.cloud())
    assert ask(before["endpoint_port"])[0] == 200


@whole_image
def test_no_gate_program(fleets, fake_keys, tmp_path):
    """Without its program the daemon says so and looks after the cloud; when it is there the endpoint
    works."""
    shutil.copy(H2OFLEETD, tmp_path / "h2ofleetd")
    fleet = fleets({"c": fake_keys(1)})
    fleet.daemon = subprocess.Popen(
        [str(tmp_path / "h2ofleetd"), "--config", str(fleet.config)], env=fleet.env(),
        stdin=subprocess.DEVNULL, stdout=open(fleet.daemon_log, "ab"), stderr=subprocess.STDOUT,
        start_new_session=True)
    fleet.daemons.append(fleet.daemon)
    until("an answer", 10, fleet._answers)
    cloud = fleet.ready()
    trouble = until("a trouble", 10, lambda: [
        t for t in fleet.api("GET", "/v1/clouds")[1]["troubles"] if t["kind"] == "gate"])[0]
    assert "h2ofleet-gate" in trouble["detail"]
    shutil.copy(GATE, tmp_path / "h2ofleet-gate")
    until("a gate", 15, fleet.gate)
    assert ask(cloud["endpoint_port"])[0] == 200
    until("all is well", 5, lambda: not fleet.api("GET", "/v1/clouds")[1]["troubles"])


# --- sockets of systemd ---------------------------------------------------------------------------


def spawn_activated(fleet, sockets):
    """A daemon that gets these listening sockets as systemd passes them."""
    keep = [os.dup(s.fileno()) for s in sockets]
    script = """
import os, sys
fds = [int(fd) for fd in sys.argv[1].split(",")]
high = [os.dup2(fd, 100 + i) for i, fd in enumerate(fds)]
for i, fd in enumerate(high):
    os.dup2(fd, 3 + i)
os.closerange(3 + len(fds), 200)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)),
                  LISTEN_FDNAMES=":".join(["endpoint"] * len(fds)))
os.execv(sys.argv[2], sys.argv[2:])
"""
    with open(fleet.daemon_log, "ab") as log:
        fleet.daemon = subprocess.Popen(
            ["python3", "-c", script, ",".join(map(str, keep)), H2OFLEETD, "--config",
             str(fleet.config)], env=fleet.env(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            pass_fds=keep, start_new_session=True)
    for fd in keep:
        os.close(fd)
    fleet.daemons.append(fleet.daemon)
    until("an answer", 10, fleet._answers)


@whole_image
def test_socket_activation(fleets, fake_keys):
    """systemd listens on the endpoint, and its socket never stops listening: a client that came before
    the daemon was there is answered, the port is not bound twice, connections to a stopped cloud are
    closed at once, and the next daemon goes on with it."""
    fleet = fleets({"c": fake_keys(1)})
    fleet.clouds["c"]["port"] = fleet.ports.base
    fleet.write_config()
    with socket.socket() as systemds:
        systemds.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        systemds.bind(("127.0.0.1", fleet.ports.base))
        systemds.listen(64)
        early = held(fleet.ports.base)
        spawn_activated(fleet, [systemds])
        assert size_of(whole_answer(early)) == 1
        before = fleet.ready()
        assert before["endpoint_port"] == fleet.ports.base
        fleet.kill_daemon()
        assert ask(fleet.ports.base)[0] == 200
        spawn_activated(fleet, [systemds])
        same(before, fleet.cloud())
        assert ask(fleet.ports.base)[0] == 200
        fleet.cli("stop", "c", "--wait")
        with contextlib.suppress(ConnectionError):
            assert held(fleet.ports.base).recv(1) == b""
        fleet.cli("start", "c", "--wait")
        assert ask(fleet.ports.base)[0] == 200
        assert fleet.stop() == 0
        assert listeners(fleet.ports.base, fleet.ports.base) == {fleet.ports.base}


# --- ports ----------------------------------------------------------------------------------------


def test_taken_port_is_said_once(fake):
    """Somebody has the port of a cloud that waits for a connection: that is one trouble, not one a
    second."""
    fleet = fake(nodes=1, start=False, autostart="no", start_on="connect")
    port = fleet.ports.base
    fleet.clouds["c"]["port"] = port
    fleet.write_config()
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", port))
        thief.listen()
        fleet.start()
        until("a trouble", 10, lambda: events(fleet, "trouble"))
        time.sleep(3)
        assert len(events(fleet, "trouble")) == 1 and not events(fleet, "trouble-over")
    until("the trouble is over", 10, lambda: events(fleet, "trouble-over"))
    assert gate_of(fleet)["port"] == port


def test_new_ports_while_the_gate_is_busy(fake):
    """The endpoint's port is taken anew with other ports above it while the gate, which is paused, still has
    its old socket: that is in nobody's way, and the port is not listened on meanwhile."""
    fleet = fake(nodes=1)
    port = fleet.ports.base
    fleet.clouds["c"]["port"] = port
    fleet.write_config()
    fleet.cli("reload")
    fleet.cli("restart", "c", "--wait")
    client = socket.create_connection(("127.0.0.1", port), timeout=20 * SLOW)
    until("it is inside", 5, lambda: gate_of(fleet)["connections"] == 1)
    gate = fleet.gate()
    halt(gate)
    try:
        fleet.cli("stop", "c", "--wait")
        assert not listeners(port, port + 63)
        fleet.clouds["c"]["nodes"] = 2
        fleet.write_config()
        fleet.cli("reload")
        fleet.cli("start", "c", "--wait")
    finally:
        os.kill(gate, signal.SIGCONT)
    assert fleet.cloud()["endpoint_port"] == port and ask(port)[0] == 200
    with contextlib.suppress(ConnectionError):
        assert client.recv(1) == b""
    assert fleet.gate() == gate


def test_door_keeps_off_exact_ports(fleets, fake_keys):
    """A cloud that may move on does not take a port that another one insists on and does not use yet."""
    lazy = {"autostart": "no", "start_on": "connect"}
    fleet = fleets({"exact": {**fake_keys(1), **lazy}, "c": {**fake_keys(1), **lazy}})
    fleet.clouds["exact"]["port"] = fleet.ports.base
    fleet.write_config()
    fleet.start()
    until("both are armed", 10, lambda: gate_of(fleet)["port"] and gate_of(fleet, "exact")["port"])
    assert gate_of(fleet, "exact")["port"] == fleet.ports.base
    assert ask(fleet.ports.base)[0] == 200
    assert ask(gate_of(fleet)["port"])[0] == 200


@whole_image
def test_other_address_while_no_daemon_was_there(fake):
    """bind_to_localhost is set anew between two daemons: a door of a cloud at rest that listens
    everywhere is not taken over."""
    fleet = fake(nodes=1, start=False, autostart="no", start_on="connect", bind_to_localhost="no")
    fleet.start()
    port = until("a door", 10, lambda: gate_of(fleet)["port"])
    fleet.kill_daemon()
    fleet.clouds["c"]["bind_to_localhost"] = "yes"
    fleet.write_config()
    fleet.start()
    until("a door", 10, lambda: gate_of(fleet)["port"] == port)

    def everywhere():
        return any(line.split()[1] == f"00000000:{port:04X}" and line.split()[3] == "0A"
                   for line in read("/proc/net/tcp").splitlines()[1:])

    until("it listens on localhost", 5, lambda: not everywhere() and listeners(port, port))
    assert ask(port)[0] == 200


@whole_image
def test_socket_activation_of_a_stopped_cloud(fleets, fake_keys):
    """systemd listens on the endpoint of a cloud that nobody has started: connections are closed, also
    by the next image of the daemon, which has the socket when the ports are taken anew."""
    fleet = fleets({"c": {**fake_keys(1), "autostart": "no"}})
    fleet.clouds["c"]["port"] = port = fleet.ports.base
    fleet.write_config()
    with socket.socket() as systemds:
        systemds.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        systemds.bind(("127.0.0.1", port))
        systemds.listen(64)
        spawn_activated(fleet, [systemds])
        with contextlib.suppress(ConnectionError), held(port) as early:
            early.settimeout(5 * SLOW)
            assert early.recv(1) == b""
        fleet.cli("start", "c", "--wait")
        assert ask(port)[0] == 200
        fleet.cli("reexec")
        until("the new image", 20, lambda: fleet.api("GET", "/v1/version")[1].get("reexecs") == 1)
        assert ask(port)[0] == 200
        fleet.clouds["c"]["nodes"] = 2
        fleet.write_config()
        fleet.cli("reload")
        fleet.cli("restart", "c", "--wait")
        assert fleet.cloud()["endpoint_port"] == port and ask(port)[0] == 200
        assert fleet.stop() == 0


def test_port_after_remains_of_connections(fake):
    """What is left of connections over IPv4 and IPv6 (TIME_WAIT) does not keep the cloud off its port."""
    fleet = fake(nodes=1, start=False)
    fleet.clouds["c"]["port"] = port = fleet.ports.base
    fleet.write_config()
    fleet.start()
    fleet.ready()
    families = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")][:2 if has_ipv6() else 1]
    for family, host in families:
        with socket.socket(family) as s:
            s.connect((host, port))
            s.sendall(b"GET /3/Cloud HTTP/1.0\r\n\r\n")
            assert size_of(whole_answer(s)) == 1
    fleet.cli("stop", "c", "--wait")
    fleet.cli("start", "c", "--wait")
    assert fleet.cloud()["endpoint_port"] == port
    assert all(ask(port, host=host)[0] == 200 for _, host in families)


def test_restart_with_other_nodes_keeps_who_waits(fake):
    """A restart that takes other ports for the nodes leaves the endpoint, and who waits at it, as they
    are."""
    fleet = fake(nodes=1, knobs="-Dfake.ready_ms=500")
    port = fleet.ready()["endpoint_port"]
    fleet.clouds["c"]["nodes"] = 2
    fleet.clouds["c"]["jvm_custom_args"] += " -Dfake.x=1"
    fleet.write_config()
    fleet.cli("reload")
    halt(fleet.pids()[0])
    fleet.cli("restart", "c")
    door(fleet, "hold")
    waiting = held(port)
    until("it waits", 5, lambda: gate_of(fleet)["held"] == 1)
    assert fleet.cloud()["state"] == "stopping"
    assert size_of(whole_answer(waiting)) == 2
    assert fleet.cloud()["endpoint_port"] == port
