"""The real daemon and client around fake nodes: quick, and faults can be had on demand."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time

import pytest

from fleet import H2OFLEET, SLOW, pid_alive, read, until


def get(url, path="/3/Cloud", method="GET"):
    host = url.removeprefix("http://").rstrip("/")
    connection = http.client.HTTPConnection(host, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


# --- the life of a cloud --------------------------------------------------------------------------


@pytest.mark.cycle
def test_start_kill_restart_stop(fake):
    """A whole life: ready, a member killed, a new generation on the same URL, an orderly stop."""
    fleet = fake(nodes=3)
    first = fleet.ready()
    assert first["generation"] == 1 and first["size"] == 3 and first["wanted"] == "running"
    assert sorted(n["state"] for n in first["nodes"]) == ["up"] * 3
    assert get(first["endpoint"])[0] == 200
    old = fleet.pids()

    fleet.kill_member(1)
    until("the endpoint is withdrawn", 1, lambda: fleet.cloud()["endpoint"] is None, 0.005)
    second = fleet.ready(generation=2)
    assert second["endpoint"] == first["endpoint"]
    assert second["restarts"] == 1
    assert not set(old) & set(fleet.pids()), "no member outlives its generation"
    last = second["nodes"][1]["last_exit"]
    assert last["signal"] == "SIGKILL" and last["cause"] == "signal", last
    assert "not by us" in last["why"]

    fleet.cli("restart", "c")
    third = fleet.ready(generation=3)
    assert third["endpoint"] == first["endpoint"]

    fleet.cli("stop", "c")
    stopped = fleet.wait("stopped")
    assert stopped["endpoint"] is None and stopped["wanted"] == "stopped"
    assert fleet.members() == {}
    assert fleet.stop() == 0
    fleet.assert_clean()


def test_members_are_isolated(fake):
    """Each in a session of its own, /dev/null as input, the mark in its environment, and none of
    the daemon's descriptors."""
    fleet = fake(nodes=2)
    fleet.ready()
    daemon = fleet.daemon.pid
    daemons_own = {
        os.readlink(f"/proc/{daemon}/fd/{fd}") for fd in os.listdir(f"/proc/{daemon}/fd")
    }
    for node in fleet.nodes():
        pid = node["pid"]
        assert os.getsid(pid) == pid and os.getpgid(pid) == pid
        assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
        for fd in ("1", "2"):
            assert os.readlink(f"/proc/{pid}/fd/{fd}").startswith(str(fleet.log_dir))
        theirs = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        assert not {x for x in theirs & daemons_own if x.startswith(("socket:", "pipe:"))}
        environment = read(f"/proc/{pid}/environ").split("\0")
        assert any(e.startswith("H2OFLEET_TOKEN=") and "/c/" in e for e in environment)
        ignored = re.search(r"^SigIgn:\s*(\S+)", read(f"/proc/{pid}/status"), re.M).group(1)
        assert int(ignored, 16) & (1 << (signal.SIGHUP - 1)) == 0


def test_every_member_in_turn(fake):
    """Whichever member dies, the whole cloud is replaced: a dead one is never filled in."""
    fleet = fake(nodes=3)
    generation = fleet.ready()["generation"]
    for victim in range(3):
        before = fleet.pids()
        fleet.kill_member(victim)
        generation += 1
        cloud = fleet.ready(generation=generation)
        assert cloud["generation"] == generation
        assert not set(before) & set(fleet.pids())


def test_killed_while_forming(fake):
    """A member that dies before the cloud was ever whole: again, from the beginning."""
    fleet = fake(nodes=3, knobs="-Dfake.ready_ms=1500")
    until("a first pid", 5, lambda: fleet.pids())
    fleet.kill_member(2)
    assert fleet.ready(generation=2)["restarts"] == 1


def test_two_clouds_do_not_disturb_each_other(fleets, fake_keys):
    fleet = fleets({"a": fake_keys(2), "b": fake_keys(2)}).start()
    a, b = fleet.ready("a"), fleet.ready("b")
    assert a["endpoint"] != b["endpoint"]
    pids = fleet.pids("b")
    fleet.kill_member(0, name="a")
    fleet.ready("a", generation=2)
    assert fleet.pids("b") == pids and fleet.cloud("b")["state"] == "ready"
    fleet.cli("stop", "a")
    fleet.wait("stopped", name="a")
    assert fleet.pids("b") == pids


def test_operator_stop_and_start(fake):
    fleet = fake(nodes=2)
    fleet.ready()
    fleet.cli("stop", "c")
    fleet.wait("stopped")
    assert fleet.members() == {}
    fleet.cli("stop", "c")  # again: nothing to do, no error
    fleet.cli("start", "c")
    second = fleet.ready(generation=2)
    assert second["restarts"] == 0
    fleet.cli("start", "c")
    assert fleet.cloud()["generation"] == 2


def test_autostart_no(fake):
    fleet = fake(nodes=1, autostart="no")
    assert fleet.cloud()["state"] == "stopped"
    assert fleet.cli("status", "c", code=3).stdout
    fleet.cli("start", "c", "--wait")
    assert fleet.cloud()["state"] == "ready"


def test_client_shutdown_is_no_failure(fake):
    """POST /3/Shutdown by a client: stopped, not restarted, and the status says who it was."""
    fleet = fake(nodes=3)
    url = fleet.ready()["endpoint"]
    assert get(url, "/3/Shutdown", "POST")[0] == 200
    cloud = fleet.wait("stopped")
    assert cloud["generation"] == 1 and "client" in cloud["reason"]
    time.sleep(1)
    assert fleet.cloud()["state"] == "stopped" and fleet.members() == {}


def test_client_shutdown_with_restart_always(fake):
    fleet = fake(nodes=2, restart="always")
    url = fleet.ready()["endpoint"]
    get(url, "/3/Shutdown", "POST")
    fleet.ready(generation=2)


def test_restart_never(fake):
    fleet = fake(nodes=2, restart="never")
    fleet.ready()
    fleet.kill_member(0)
    cloud = fleet.wait("failed")
    assert cloud["generation"] == 1 and "SIGKILL" in cloud["reason"]


# --- pauses and hangs -----------------------------------------------------------------------------


def test_hang(fake):
    """A member that stands still for hang_timeout: evidence is kept and the cloud restarted."""
    fleet = fake(nodes=2, hang_timeout="2s", late_after="500ms", health_interval="200ms")
    first = fleet.ready()
    begun = time.monotonic()
    pid = fleet.kill_member(1, signal.SIGSTOP)
    degraded = fleet.wait("degraded", timeout=5)
    assert degraded["endpoint"] == first["endpoint"], "lateness does not withdraw the endpoint"
    fleet.ready(generation=2)
    assert time.monotonic() - begun > 2
    assert not pid_alive(pid)
    incidents = list((fleet.state_dir / "incidents").iterdir())
    assert incidents, "an incident is kept"
    assert f"pid {pid}" in fleet.log_tail(200)


def test_pause(fake):
    """Shorter than hang_timeout: late for a while, then as before. Nothing is killed."""
    fleet = fake(nodes=2, hang_timeout="30s", late_after="300ms", health_interval="100ms")
    first = fleet.ready()
    pids = fleet.pids()
    fleet.kill_member(0, signal.SIGSTOP)
    try:
        late = fleet.wait("degraded", timeout=5)
        assert late["endpoint"] == first["endpoint"]
        assert "late" in [n["state"] for n in late["nodes"]]
        assert fleet.cli("status", "c").returncode == 0
    finally:
        os.kill(pids[0], signal.SIGCONT)
    assert fleet.ready(timeout=10)["generation"] == 1
    assert fleet.pids() == pids


def test_always_late(fake):
    """A member that answers, always late, for much longer than hang_timeout: degraded, with its
    endpoint; nothing is restarted, and once it answers in time all is well."""
    fleet = fake(nodes=2, hang_timeout="4s", late_after="300ms", health_interval="200ms")
    first = fleet.ready()
    pids = fleet.pids()
    port = fleet.nodes()[1]["api_port"]

    def set_delay(ms):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("POST", f"/fake/slow_ms?value={ms}")
        assert connection.getresponse().status == 200
        connection.close()

    set_delay(900)
    fleet.wait("degraded", timeout=10)
    end = time.monotonic() + 10
    while time.monotonic() < end:
        cloud = fleet.cloud()
        assert cloud["state"] == "degraded" and cloud["endpoint"] == first["endpoint"]
        assert cloud["nodes"][1]["state"] == "late" and "late_after" in cloud["reason"]
        time.sleep(0.1)
    set_delay(0)
    cloud = fleet.ready(timeout=10)
    assert cloud["generation"] == 1 and fleet.pids() == pids


def test_stopped_daemon_blames_nobody(fake):
    """The daemon itself stood still for longer than hang_timeout: no member is at fault."""
    fleet = fake(nodes=2, hang_timeout="2s", late_after="500ms", health_interval="200ms")
    fleet.ready()
    pids = fleet.pids()
    fleet.send(signal.SIGSTOP)
    time.sleep(3)
    fleet.send(signal.SIGCONT)
    time.sleep(1)
    cloud = fleet.ready(timeout=5)
    assert cloud["generation"] == 1 and fleet.pids() == pids


# --- what cannot work -----------------------------------------------------------------------------


def test_start_limit(fake):
    """Members that always die: given up after the limit, with the last reason."""
    fleet = fake(
        nodes=2, knobs="-Dfake.exit_at_boot_ms=100 -Dfake.exit_code=7", start_limit="3 in 1m"
    )
    cloud = fleet.wait("failed")
    assert cloud["generation"] == 3
    assert "given up" in cloud["reason"] and "code 7" in cloud["reason"]
    assert fleet.members() == {}
    fleet.cli("status", "c", code=6)
    fleet.cli("wait", "c", "--for", "ready", "--timeout", "10s", code=6)
    fleet.cli("start", "c")
    again = fleet.wait("failed", generation=6)
    assert again["generation"] == 6, "the operator's start begins to count anew"


def test_unknown_option(fake):
    """Refused by H2O itself: permanent, so failed at once, with H2O's own words."""
    fleet = fake(nodes=2, h2o_args="-frobnicate")
    cloud = fleet.wait("failed")
    assert cloud["generation"] == 1
    assert "frobnicate" in cloud["reason"]
    causes = {n["last_exit"]["cause"] for n in cloud["nodes"] if n["last_exit"]}
    assert "arguments" in causes


@pytest.mark.parametrize("key", ["java", "jar_path"])
def test_missing_runtime(fake, key):
    fleet = fake(nodes=2, **{key: f"/nonexistent/{key}"})
    cloud = fleet.wait("failed")
    assert f"/nonexistent/{key}" in cloud["reason"]
    assert fleet.members() == {}


def test_java_that_cannot_be_executed(fake, tmp_path):
    java = tmp_path / "java"
    java.write_text("this is no program\n")
    java.chmod(0o755)
    cloud = fake(nodes=1, java=java).wait("failed")
    assert str(java) in cloud["reason"]


def test_jar_that_is_none(fake, tmp_path):
    jar = tmp_path / "h2o.jar"
    jar.write_text("this is no jar\n")
    cloud = fake(nodes=1, jar_path=jar).wait("failed")
    assert str(jar) in cloud["reason"]


# --- ports ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def listener(port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", port))
        s.listen()
        yield


@pytest.mark.parametrize("offset, ports", [(0, (1, 2)), (1, (0, 3)), (2, (0, 3))],
                         ids=["endpoint", "api", "internal"])
def test_taken_port_moves_on(fake, offset, ports):
    fleet = fake(nodes=2, start=False)
    with listener(fleet.ports.base + offset):
        fleet.start()
        cloud = fleet.ready()
        found = cloud["endpoint_port"], cloud["nodes"][0]["api_port"]
        assert found == tuple(fleet.ports.base + p for p in ports)
        fleet.stop()


def test_taken_exact_port(fake):
    """Says who has it, and leaves him alone."""
    fleet = fake(nodes=2, start=False, start_limit="2 in 1m")
    fleet.clouds["c"]["port"] = fleet.ports.base
    fleet.write_config()
    with listener(fleet.ports.base):
        fleet.start()
        cloud = fleet.wait("failed", "backoff")
        assert str(fleet.ports.base) in cloud["reason"]
        assert f"pid {os.getpid()}" in cloud["reason"]
        fleet.stop()


def test_two_fleets_from_the_same_port(fleets, fake_keys):
    """They hold what they have: neither gets the other's."""
    one = fleets({"c": fake_keys(2)})
    two = fleets({"c": fake_keys(2)}, fleet={"baseport": one.ports.base})
    one.start()
    two.start()
    used = [n["api_port"] for f in (one, two) for n in f.ready()["nodes"]]
    used += [f.cloud()["endpoint_port"] for f in (one, two)]
    assert len(set(used)) == 6
    one.stop()
    two.stop()


# --- the daemon -----------------------------------------------------------------------------------


def test_second_daemon_on_the_same_state(fake):
    fleet = fake(nodes=1)
    fleet.ready()
    pids = fleet.pids()
    status, said = fleet.run_daemon()
    assert status not in (0, None)
    assert str(fleet.daemon.pid) in said and str(fleet.state_dir) in said, said
    assert fleet.pids() == pids and fleet.cloud()["state"] == "ready"


def test_second_daemon_on_the_same_socket(fleets, fake_keys):
    one = fleets({"c": fake_keys(1)}).start()
    one.ready()
    two = fleets({"c": fake_keys(1)}, fleet={"socket": one.socket})
    status, said = two.run_daemon()
    assert status != 0 and str(one.socket) in said
    assert one.cloud()["state"] == "ready", "its socket still answers"
    assert two.members() == {}


def test_stale_socket(fake):
    fleet = fake(nodes=1, start=False)
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(fleet.socket))
        s.listen()
    fleet.start()
    fleet.ready()


def test_no_socket_in_the_way(fake):
    """A file that is no socket is not removed."""
    fleet = fake(nodes=1, start=False)
    fleet.socket.write_text("mine\n")
    status, said = fleet.run_daemon()
    assert status != 0 and str(fleet.socket) in said
    assert fleet.socket.read_text() == "mine\n"


def test_unwritable_state_dir(fake):
    fleet = fake(nodes=1, start=False)
    (fleet.dir / "file").write_text("")
    fleet.fleet["state_dir"] = fleet.dir / "file" / "state"
    fleet.write_config()
    status, said = fleet.run_daemon()
    assert status != 0
    assert str(fleet.dir / "file") in said and "Traceback" not in said


def test_ignored_sigterm(fake):
    """The ladder: SIGKILL once stop_timeout has passed."""
    fleet = fake(nodes=2, knobs="-Dfake.ignore_term=1", stop_timeout="1s")
    fleet.ready()
    begun = time.monotonic()
    fleet.cli("stop", "c")
    fleet.wait("stopped", timeout=10)
    assert 1 <= time.monotonic() - begun < 5 * SLOW
    assert fleet.members() == {}


def test_stop_a_stopped_process(fake):
    """SIGSTOPped members hear no SIGTERM; SIGKILL they do."""
    fleet = fake(nodes=2, stop_timeout="1s")
    fleet.ready()
    fleet.kill_member(0, signal.SIGSTOP)
    assert fleet.stop() == 0
    fleet.assert_clean()


def test_stop_by_rest(fake):
    fleet = fake(nodes=3, stop_method="rest")
    fleet.ready()
    fleet.cli("stop", "c")
    cloud = fleet.wait("stopped")
    assert {n["last_exit"]["code"] for n in cloud["nodes"]} == {0}


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_daemon_stops_in_order(fake, sig):
    fleet = fake(nodes=3)
    fleet.ready()
    assert fleet.stop(sig) == 0
    fleet.assert_clean()


def test_daemon_stops_while_forming(fake):
    fleet = fake(nodes=3, knobs="-Dfake.never_ready=1")
    until("three processes", 10, lambda: len(fleet.members()) == 3)
    assert fleet.stop() == 0
    fleet.assert_clean()


def test_second_sigterm(fake):
    """The first one waits for members that take their time; the second does not."""
    fleet = fake(nodes=2, knobs="-Dfake.ignore_term=1", stop_timeout="1m")
    fleet.ready()
    fleet.send(signal.SIGTERM)
    time.sleep(1)
    assert fleet.daemon.poll() is None and len(fleet.members()) == 2
    begun = time.monotonic()
    fleet.send(signal.SIGTERM)
    fleet.wait_exit()
    assert time.monotonic() - begun < 5 * SLOW
    fleet.assert_clean()


def test_killed_daemon(fake):
    """kill -9 of the daemon kills no node; the next daemon has exactly its n nodes, none twice."""
    fleet = fake(nodes=3)
    url = fleet.ready()["endpoint"]
    fleet.kill_daemon()
    assert len(fleet.members()) == 3
    assert get(url)[0] == 200, "clients work on"
    fleet.start()
    cloud = fleet.ready()
    assert cloud["endpoint"] == url
    until("exactly three processes", 5, lambda: len(fleet.members()) == 3)
    assert sorted(fleet.pids()) == sorted(fleet.members())
    assert fleet.stop() == 0
    fleet.assert_clean()


def test_killed_daemon_while_forming(fake):
    """Killed at any moment of a launch: no process is lost, none is there twice."""
    fleet = fake(nodes=3, knobs="-Dfake.ready_ms=1000")
    for delay in (0.05, 0.3, 0.7):
        time.sleep(delay)
        fleet.kill_daemon()
        fleet.start()
    fleet.ready()
    until("exactly three processes", 5, lambda: len(fleet.members()) == 3)
    assert sorted(fleet.pids()) == sorted(fleet.members())


def test_stragglers(fake):
    """What a node leaves in its process group ends with it."""
    fleet = fake(nodes=1, knobs="-Dfake.fork_child=1")
    fleet.ready()
    until("the child", 5, lambda: len(fleet.members()) == 2)
    fleet.cli("stop", "c")
    fleet.wait("stopped")
    until("no process", 3, lambda: not fleet.members())


# --- configuration --------------------------------------------------------------------------------

BAD = [
    # (line of the configuration that is wrong, a word of the sentence)
    ("[cloud c]\nnodes = 0\n", 2, "nodes"),
    ("[cloud c]\nnodes = 1025\n", 2, "1024"),
    ("[cloud c]\nnodes = three\n", 2, "three"),
    ("[cloud c]\nnods = 3\n", 2, "did you mean 'nodes'"),
    ("[cloud c]\nport = 99999\n", 2, "65533"),
    ("[cloud c]\nport = 80-90\n", 2, "80-90"),
    ("[cloud c]\nmax_mem_size = 5\n", 2, "max_mem_size"),
    ("[cloud c]\nmax_mem_size = 1m\n", 2, "32"),
    ("[cloud c]\nmax_mem_size = 200%\n", 2, "100%"),
    ("[cloud c]\nnthreads = -2\n", 2, "-1"),
    ("[cloud c]\nrestart = sometimes\n", 2, "on-failure"),
    ("[cloud c]\nrestart = allways\n", 2, "did you mean 'always'"),
    ("[cloud c]\nautostart = maybe\n", 2, "maybe"),
    ("[cloud c]\nhang_timeout = 10\n", 2, "hang_timeout"),
    ("[cloud c]\nhang_timeout = 10 parsecs\n", 2, "parsecs"),
    ("[cloud c]\nstart_limit = often\n", 2, "start_limit"),
    ("[cloud c]\njar_path = h2o.jar\n", 2, "absolute"),
    ("[cloud c]\nh2o_args = -port 80\n", 2, "use the key 'port'"),
    ("[cloud c]\nh2o_args = -hash_login\n", 2, "not supported"),
    ("[cloud c]\njvm_custom_args = -Xmx4g\n", 2, "max_mem_size"),
    ("[cloud c]\njvm_custom_args = -Dai.h2o.port=80\n", 2, "port"),
    ("[cloud c]\nenv = JAVA_TOOL_OPTIONS=-Xmx4g\n", 2, "JAVA_TOOL_OPTIONS"),
    ("[cloud c]\ncolour = blue\n", 2, "colour"),
    ("[cloud c]\nnodes = 1\nnodes = 2\n", 3, "nodes"),
    ("[cloud c]\n[cloud c]\n", 2, "c"),
    ("[cloud]\n", 1, "name"),
    ("[cloud a b]\n", 1, "a b"),
    ("[clod c]\n", 1, "cloud"),
    ("[fleet]\nnodes = 3\n", 2, "nodes"),
    ("[fleet]\nbaseport = 70000\n", 2, "65533"),
    ("nodes = 3\n", 1, "section"),
    ("[cloud c]\nlate_after = 60s\nhang_timeout = 10s\n", 0, "hang_timeout"),
]


@pytest.mark.parametrize("text, line, word", BAD, ids=[repr(b[0][:40]) for b in BAD])
def test_bad_config(fleets, text, line, word):
    """Each is one clear sentence with file and line, and the daemon does not start."""
    fleet = fleets({}, config=text)
    status, said = fleet.run_daemon()
    assert status not in (0, None) and status > 0, said
    sentences = [s for s in said.splitlines() if f"{fleet.config}:" in s]
    assert len(sentences) == 1, said
    assert word in sentences[0]
    if line:
        assert f"{fleet.config}:{line}: " in sentences[0]


def test_all_errors_at_once(fleets):
    fleet = fleets({}, config="[cloud c]\nnodes = 0\nport = x\nrestart = y\n")
    status, said = fleet.run_daemon()
    assert status > 0
    assert [n for n in (2, 3, 4) if f"{fleet.config}:{n}: " in said] == [2, 3, 4], said


def test_config_file_missing(fake):
    fleet = fake(start=False)
    fleet.config.unlink()
    status, said = fleet.run_daemon()
    assert status > 0 and str(fleet.config) in said


def test_more_memory_than_there_is(fake):
    """Both nodes together: refused before anything is launched."""
    fleet = fake(nodes=2, max_mem_size="32g" if os.sysconf("SC_PHYS_PAGES") < 2**24 else "32t")
    cloud = fleet.wait("failed")
    assert "memory" in cloud["reason"] or "max_mem_size" in cloud["reason"]
    assert cloud["generation"] <= 1 and fleet.members() == {}


# --- the client -----------------------------------------------------------------------------------


def test_exit_codes(fake):
    fleet = fake(nodes=2, knobs="-Dfake.ready_ms=800")
    fleet.cli("status", "c", code=5)
    fleet.cli("wait", "c", "--for", "ready", "--timeout", "30s")
    fleet.cli("status", "c")
    fleet.cli("status")
    fleet.cli("status", "nosuch", code=4)
    fleet.cli("status", "--nonsense", code=2)
    fleet.cli("frobnicate", code=2)
    fleet.cli(code=2)
    fleet.cli("version")
    fleet.cli("--help")
    late = fleet.cli("wait", "c", "--for", "stopped", "--timeout", "200ms", code=None)
    assert late.returncode not in (0, 2), "the time is over, and that is no success"
    fleet.cli("stop", "c")
    fleet.cli("wait", "c", "--for", "stopped", "--timeout", "30s")
    fleet.cli("status", "c", code=3)
    idle = fleet.cli("wait", "c", "--for", "ready", code=3)
    assert "nobody has started it" in idle.stderr
    for args in (("status", "c/0"), ("status", ""), ("logs", "c/")):
        fleet.cli(*args, code=2)
    fleet.stop()
    gone = fleet.cli("status", "--json", code=4)
    assert "not running" in json.loads(gone.stdout)["error"] and "not running" in gone.stderr
    gone = fleet.cli("status", "c", code=4)
    assert str(fleet.socket) in gone.stderr


def test_did_you_mean(fleets, fake_keys):
    fleet = fleets({"development": fake_keys(1)}).start()
    said = fleet.cli("status", "developmnt", code=4).stderr
    assert "development" in said


def test_status(fake):
    """For people plain without colours when piped, for programs the documented JSON."""
    fleet = fake(nodes=2)
    fleet.ready()
    table = fleet.cli("status").stdout
    assert "c" in table and "ready" in table and "\033" not in table
    for args in (("status", "--json"), ("--json", "status"), ("status", "c", "--json")):
        clouds = json.loads(fleet.cli(*args).stdout)["clouds"]
        assert [c["name"] for c in clouds] == ["c"]
    cloud = clouds[0]
    assert cloud["state"] == "ready" and cloud["wanted"] == "running" and cloud["size"] == 2
    assert cloud["generation"] == 1 and cloud["restarts"] == 0 and cloud["reason"] is None
    assert cloud["state_ms"] >= 0 and "uptime_ms" in cloud
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", cloud["endpoint"])
    for i, node in enumerate(cloud["nodes"]):
        assert node["index"] == i and node["state"] == "up" and pid_alive(node["pid"])
        assert node["ip"] == "127.0.0.1" and node["uptime_ms"] > 0 and node["last_exit"] is None
    ports = [n["api_port"] for n in cloud["nodes"]]
    assert ports == [cloud["endpoint_port"] + 1, cloud["endpoint_port"] + 3]
    assert f":{cloud['endpoint_port']}" in cloud["endpoint"]


def test_connect(fake):
    fleet = fake(nodes=1)
    url = fleet.ready()["endpoint"]
    assert fleet.cli("connect", "c", "--url").stdout.strip() == url
    python = fleet.cli("connect", "c", "--python").stdout
    compile(python, "connect", "exec")
    assert "h2o.connect(" in python and url in python
    r = fleet.cli("connect", "c", "--r").stdout
    assert "h2o.init(" in r or "h2o.connect(" in r
    assert str(fleet.cloud()["endpoint_port"]) in r
    assert url in fleet.cli("connect", "c", "--env").stdout
    assert url in fleet.cli("connect", "c", "--h2oconfig").stdout
    fleet.cli("stop", "c")
    fleet.wait("stopped")
    said = fleet.cli("connect", "c", "--url", code=None)
    assert said.returncode != 0 and said.stdout == "", "no URL of a cloud that is not there"


def test_logs(fake):
    fleet = fake(nodes=2)
    fleet.ready()
    log = read(fleet.log_dir / "c" / "1.log")
    assert log
    shown = fleet.cli("logs", "c/1", "-n", "3").stdout.splitlines()
    assert shown and len(shown) <= 4
    assert shown[-1] in log
    status, text = fleet.api("GET", "/v1/clouds/c/nodes/0/log?tail=2")
    assert status == 200 and len(text.splitlines()) == 2
    nosuch = fleet.cli("logs", "c/7", code=None)
    assert nosuch.returncode != 0 and "node" in nosuch.stderr
    assert fleet.api("GET", "/v1/clouds/c/nodes/7/log")[0] == 404


def test_doctor(fake):
    fleet = fake(nodes=1)
    fleet.ready()
    said = fleet.cli("doctor", code=None)
    assert said.returncode in (0, 1), said.stderr
    assert "java" in said.stdout.lower() and "h2o.jar" in said.stdout.lower()


# --- the control protocol -------------------------------------------------------------------------


def test_problems(fake):
    """Errors are RFC 9457 problem+json, and harmless."""
    fleet = fake(nodes=1)
    fleet.ready()
    for method, path, want in (
        ("GET", "/", 404), ("GET", "/v1/nothing", 404), ("GET", "/v1/clouds/nosuch", 404),
        ("PUT", "/v1/clouds", 405), ("GET", "/v1/clouds/c/start", 405),
        ("POST", "/v1/clouds/c/start?wait=nonsense", 400),
        ("POST", "/v1/clouds/c/start?wait=ready&timeout=x", 400),
        ("GET", "/v1/clouds/%2e%2e", 404), ("GET", "/v1/clouds/%2e%2e%2f", 400),
    ):
        status, body = fleet.api(method, path)
        assert status == want, (method, path, status, body)
        assert body["status"] == want and body["type"] and body["title"], body
    assert fleet.cloud()["state"] == "ready"


def test_socket_mode(fake):
    fleet = fake(nodes=1)
    assert fleet.socket.stat().st_mode & 0o777 == 0o660


def test_stuck_clients(fake):
    """Connections that say nothing, or half a request, hold nobody up."""
    fleet = fake(nodes=2)
    stuck = []
    for i in range(50):
        s = socket.socket(socket.AF_UNIX)
        s.connect(str(fleet.socket))
        if i % 2:
            s.send(b"GET /v1/clouds HTTP/1.1\r\nHost: x\r\n")
        stuck.append(s)
    try:
        fleet.ready()
        fleet.kill_member(0)
        fleet.ready(generation=2)
        assert fleet.stop() == 0
    finally:
        for s in stuck:
            s.close()


def test_wait_ends_when_the_daemon_does(fake):
    """Who waits for a cloud hears of the daemon's end, and does not hang."""
    fleet = fake(nodes=1, knobs="-Dfake.never_ready=1")
    waiting = subprocess.Popen(
        [H2OFLEET, "--socket", str(fleet.socket), "wait", "c", "--for", "ready", "--timeout", "1m"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=fleet.env(), text=True,
    )
    time.sleep(0.5)
    assert waiting.poll() is None
    fleet.stop()
    said, _ = waiting.communicate(timeout=10 * SLOW)
    assert waiting.returncode != 0 and said.strip()
