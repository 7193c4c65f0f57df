"""Resource trouble of the daemon itself, with fake nodes: said once, listed while it lasts, retried, and
nothing that runs is harmed. Each test says what it proves."""

import contextlib
import json
import os
import pathlib
import resource
import shutil
import time

import pytest

from fleet import UnixHTTP, read, until
from test_faults import QUICK, ask, fill_disk, small_disk


def troubles(fleet):
    """kind -> sentence."""
    status, body = fleet.api("GET", "/v1/clouds")
    assert status == 200
    return {t["kind"]: t["detail"] for t in body["troubles"]}


def said(fleet, words):
    """How often, to who does not ask for debug messages."""
    return sum(words in line and " debug: " not in line
               for line in read(fleet.daemon_log).splitlines())


# --- descriptors ----------------------------------------------------------------------------------


@contextlib.contextmanager
def no_descriptors(fleet):
    """Lowers the daemon's limit to what it has open, and takes what is left, holes and the reserve of the
    control socket, with connections that say nothing. Yields api(method, path), over a connection
    that was made before. Afterwards all is as it was."""
    pid = fleet.daemon.pid
    old = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    line = UnixHTTP(fleet.socket, 10)
    hogs = []

    def api(method, path):
        line.request(method, path)
        answer = line.getresponse()
        body = answer.read()
        assert answer.status in (200, 202), body
        return json.loads(body)

    def used():
        return sorted(int(fd) for fd in os.listdir(f"/proc/{pid}/fd"))

    try:
        api("GET", "/v1/clouds")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used()[-1] + 1, old[1]))

        def full():
            hog = UnixHTTP(fleet.socket, 10)
            hog.connect()
            hogs.append(hog)
            return used() == list(range(used()[-1] + 1))

        until("no free descriptor", 20, full, 0.01)
        for _ in range(12):  # the reserve, and some who wait
            hogs.append(UnixHTTP(fleet.socket, 10))
            hogs[-1].connect()
        yield api
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, old)
        for hog in hogs:
            hog.close()
        line.close()


@pytest.mark.skipif(os.getuid() != 0, reason="changes another process's limits")
def test_unasked_nodes_are_not_silent(fake):
    """Without descriptors nodes cannot be asked. However long that lasts (here twice hang_timeout) it is
    no silence of theirs: nothing is restarted. It is said once, and once that it is over."""
    fleet = fake(nodes=2, late_after="500ms", hang_timeout="3s", health_interval="200ms", **QUICK)
    first = fleet.ready()
    pids = [n["pid"] for n in first["nodes"]]
    with no_descriptors(fleet) as api:
        for node in first["nodes"]:  # their connections break, so that new ones are needed
            ask(node["api_port"], "POST", "/fake/refuse?value=1")
        time.sleep(0.5)
        for i in range(2):
            (fleet.node_dir(i) / "fake.ctl").write_text("refuse=0\n")

        def noticed():
            return [t for t in api("GET", "/v1/clouds")["troubles"] if t["kind"] == "polls"]

        until("the trouble", 10, noticed)
        time.sleep(6)  # twice the hang_timeout itself
        cloud = api("GET", "/v1/clouds/c")
        assert cloud["state"] in ("ready", "degraded") and cloud["generation"] == 1, cloud
        assert "Too many open files" in noticed()[0]["detail"]
    until("no trouble", 20, lambda: not troubles(fleet))
    cloud = fleet.ready()
    assert cloud["restarts"] == 0 and [n["pid"] for n in cloud["nodes"]] == pids
    assert said(fleet, "nodes cannot be asked") == 1 and said(fleet, "well again: nodes are") == 1


@pytest.mark.skipif(os.getuid() != 0, reason="changes another process's limits")
def test_launch_without_descriptors(fleets, fake_keys):
    """A member dies while there are no descriptors: its cloud waits, tries again, is said to wait once,
    and comes back; the other cloud goes on; the client is answered all the while."""
    fleet = fleets({"a": fake_keys(1, **QUICK), "b": fake_keys(2, **QUICK)}).start()
    fleet.ready("a")
    before = fleet.ready("b")
    with no_descriptors(fleet) as api:
        os.kill(before["nodes"][0]["pid"], 9)

        def waits():
            return [t for t in api("GET", "/v1/clouds")["troubles"]
                    if t["kind"] == "launch" and t["cloud"] == "b"]

        until("the trouble", 20, waits)
        assert "Too many open files" in waits()[0]["detail"]
        time.sleep(4)  # some more attempts
        assert api("GET", "/v1/clouds/b")["state"] in ("recovering", "backoff", "starting")
        assert api("GET", "/v1/clouds/a")["state"] == "ready"
    cloud = fleet.ready("b", generation=2)
    assert cloud["nodes"][0]["last_exit"]["signal"] == "SIGKILL"
    until("no trouble", 20, lambda: not troubles(fleet))
    assert said(fleet, "its nodes cannot be launched") == 1
    assert said(fleet, "b: backoff -> starting") <= 1
    assert fleet.cloud("a")["generation"] == 1


@pytest.mark.skipif(os.getuid() != 0, reason="changes another process's limits")
def test_status_without_descriptors(fake):
    """`h2ofleet status` and `stop` still work: some descriptors are kept for them. And the daemon, which
    cannot accept more, does not spin."""
    fleet = fake(nodes=1, **QUICK)
    fleet.ready()
    pid = fleet.daemon.pid
    old = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    hogs = []
    try:
        fds = sorted(int(fd) for fd in os.listdir(f"/proc/{pid}/fd"))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (fds[-1] + 1, old[1]))
        holes = fds[-1] + 1 - len(fds)
        for _ in range(holes + 2):
            hogs.append(UnixHTTP(fleet.socket, 10))
            hogs[-1].connect()
        until("the trouble", 10, lambda: "socket" in troubles(fleet))
        shown = " ".join(fleet.cli("status").stdout.split())
        assert "trouble for" in shown and "Too many open files" in shown, shown
        for _ in range(30):
            hogs.append(UnixHTTP(fleet.socket, 10))
            hogs[-1].connect()
        time.sleep(0.5)

        def ticks():
            fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
            return int(fields[11]) + int(fields[12])

        begun = ticks()
        time.sleep(2)
        assert ticks() - begun < 60, "it spins"  # of 200
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, old)
        for hog in hogs:
            hog.close()
    fleet.cli("stop", "c", "--wait")
    until("no trouble", 20, lambda: not troubles(fleet))


# --- processes ------------------------------------------------------------------------------------


@contextlib.contextmanager
def pids_limit():
    """A control group, version 1 or 2: (file for pids, function that sets the limit)."""
    v1, v2 = pathlib.Path("/sys/fs/cgroup/pids"), pathlib.Path("/sys/fs/cgroup")
    group = (v1 if v1.is_dir() else v2) / f"h2ofleet-test-{os.getpid()}-{time.monotonic_ns()}"
    try:
        group.mkdir()
        (group / "pids.max").write_text("max")
    except OSError as e:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"no control group can be given a limit of processes here: {e}")
    try:
        yield group / "cgroup.procs", lambda n: (group / "pids.max").write_text(str(n))
    finally:
        until("an empty control group", 10, lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


def test_no_processes(fake):
    """EAGAIN of fork: the cloud waits and tries again, which is said once, and comes back."""
    with pids_limit() as (procs, limit):
        fleet = fake(nodes=2, **QUICK)
        fleet.ready()
        procs.write_text(str(fleet.daemon.pid))
        limit(1)
        fleet.kill_member(1)
        fleet.wait("backoff")
        assert "Resource temporarily unavailable" in fleet.cloud()["reason"]
        shown = " ".join(fleet.cli("status", code=None).stdout.split())
        assert "trouble for" in shown and "allow more processes" in shown, shown
        time.sleep(3)
        limit("max")
        cloud = fleet.ready(generation=2)
        assert not troubles(fleet)
        assert said(fleet, "its nodes cannot be launched") == 1
        assert said(fleet, "well again: its nodes can be launched") == 1
        assert cloud["nodes"][1]["last_exit"]["signal"] == "SIGKILL"
        fleet.stop()
        fleet.assert_clean()


# --- disks and directories ------------------------------------------------------------------------


@pytest.mark.skipif(os.getuid() != 0, reason="mounts a file system")
def test_state_is_written_once_there_is_room(fake):
    """A state that could not be written is written as soon as there is room, without anything else
    happening; it was said once, and the full file system was named."""
    fleet = fake(nodes=1, start=False, **QUICK)
    state = fleet.state_dir / "clouds" / "c" / "state.json"
    with small_disk(fleet):
        fleet.start()
        fleet.ready()
        ballast = fill_disk(fleet)
        fleet.cli("stop", "c")
        fleet.wait("stopped")
        until("both troubles", 25, lambda: {"state", "disk"} <= set(troubles(fleet)), 0.2)
        assert '"wanted": "stopped"' not in read(state)
        assert "make room" in troubles(fleet)["state"]
        ballast.unlink()
        until("the state", 40, lambda: '"wanted": "stopped"' in read(state))
        until("no trouble", 25, lambda: not troubles(fleet), 0.2)
        assert said(fleet, "its state cannot be written") == 1
        assert said(fleet, "well again: its state is written") == 1
        fleet.stop()
        fleet.assert_clean()


def test_session_is_written_once_it_can_be(fake):
    """That a daemon is up could not be noted down: it is said, and done as soon as it can be. What was stopped
    stays so after a crash, whatever autostart says."""
    fleet = fake(nodes=1, start=False)
    in_the_way = fleet.state_dir / "session.new"
    in_the_way.mkdir(parents=True)
    fleet.start()
    fleet.ready()
    assert "session" in troubles(fleet)["state"]
    in_the_way.rmdir()
    until("no trouble", 20, lambda: not troubles(fleet))
    fleet.cli("stop", "c")
    fleet.wait("stopped")
    fleet.kill_daemon()
    fleet.start()
    assert fleet.cloud()["state"] == "stopped" and fleet.cloud()["generation"] == 1


def test_run_directory_vanishes(fake):
    """Somebody removes the run directory, control socket and all: both are made anew, said once; a
    client that waits is answered all the same."""
    fleet = fake(nodes=2, knobs="-Dfake.ready_ms=1500", start=False, autostart="no")
    fleet.socket = fleet.fleet["socket"] = fleet.dir / "run" / "s"
    fleet.write_config()
    fleet.start()
    waiting = UnixHTTP(fleet.socket, 30)
    waiting.request("POST", "/v1/clouds/c/start?wait=ready&timeout=30s")
    until("the start", 10, lambda: fleet.cloud()["state"] in ("starting", "forming"))
    shutil.rmtree(fleet.socket.parent)
    assert waiting.getresponse().status == 200
    waiting.close()
    until("the socket", 10, fleet.socket.exists)
    assert fleet.cli("status", "c").returncode == 0
    assert said(fleet, "it is made anew") == 1
