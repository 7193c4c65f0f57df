"""h2ofleetd as process 1 of a container, made with bubblewrap: a pid namespace of its own, a root file
system that nobody can write to, and exit_when. Each test says what it proves."""

import contextlib
import http.client
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest

from fleet import FAKEJAVA, H2OFLEET, H2OFLEETD, REPO, Fleet, read, until

QUICK = {"start_limit": "60 in 1m", "restart_delay_max": "0s"}
CONTAINER = REPO / "contrib" / "container"


def bwrap():
    """bubblewrap is among the packages of contrib/check; some sandboxes have no namespaces."""
    path = shutil.which("bwrap")
    assert path, "bubblewrap is not installed (apt-get install bubblewrap)"
    works = subprocess.run([path, "--unshare-pid", "--ro-bind", "/", "/", "--proc", "/proc", "true"],
                           stderr=subprocess.PIPE, text=True, check=False)
    if works.returncode:
        pytest.skip(f"no namespaces here: {works.stderr.strip()}")
    return path


def stat_of(pid):
    """(state, ppid); None when it is gone."""
    fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (fields[0], int(fields[1])) if fields else None


def children(pid):
    found = {}
    for proc in pathlib.Path("/proc").glob("[0-9]*"):
        stat = stat_of(proc.name)
        if stat and stat[1] == pid:
            found[int(proc.name)] = stat[0]
    return found


class Container(Fleet):
    """Its daemon is process 1. `options`: more for bwrap; `shell`: runs first, in the same process."""

    def __init__(self, clouds, options=(), shell="", **kwargs):
        super().__init__(clouds, **kwargs)
        self.options = list(options)
        self.shell = shell
        self.first = None  # its pid outside

    def spawn(self, *args):
        for directory in (self.state_dir, self.log_dir, self.dir / "cache", self.dir / "run"):
            directory.mkdir(exist_ok=True)
        command = [H2OFLEETD, "--config", str(self.config), *args]
        if self.shell:
            command = ["/bin/sh", "-c", f'{self.shell}\nexec "$0" "$@"', *command]
        with open(self.daemon_log, "ab") as log:
            outer = subprocess.Popen(
                [bwrap(), "--unshare-pid", "--as-pid-1", "--die-with-parent", "--ro-bind", "/", "/",
                 "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--tmpfs", "/run",
                 *[word for program in (H2OFLEETD, FAKEJAVA)
                   for word in ("--ro-bind", program, program)],
                 # read-only, but for what a volume or a tmpfs would be
                 "--ro-bind", self.dir, self.dir,
                 *[word for name in ("state", "log", "cache", "run")
                   for word in ("--bind", self.dir / name, self.dir / name)],
                 *self.options, "--", *command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env(), cwd="/")
        self.daemons.append(outer)
        self.first = until("process 1", 5, lambda: next(iter(children(outer.pid)), None))
        return outer

    def send(self, sig):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.first, sig)

    def _processes(self):
        found = super()._processes()
        found.pop(self.first, None)
        return found

    def outer_pid(self, pid):
        """What a pid in there is out here."""
        for proc in pathlib.Path("/proc").glob("[0-9]*/status"):
            spaces = re.search(r"^NSpid:\s+(\d+)\s+(\d+)$", read(proc), re.M)
            if spaces and int(spaces[2]) == pid and int(spaces[1]) in self.members():
                return int(spaces[1])
        raise AssertionError(f"no process {pid} in there")

    def kill_member(self, index, sig=signal.SIGKILL, name="c"):
        pid = self.outer_pid(self.nodes(name)[index]["pid"])
        os.kill(pid, sig)
        return pid


@pytest.fixture
def container(request, fleets, fake_keys):
    """container(nodes=2, options=(), shell="", fleet=None, key=value...): a started one."""
    made = []
    request.node.fleets = made

    def make(nodes=2, options=(), shell="", fleet=None, clouds=None, jar_dir=None, **keys):
        clouds = clouds or {"c": fake_keys(nodes, **{**QUICK, **keys})}
        one = Container(clouds, options=options, shell=shell, fleet=fleet)
        one.fleet["socket"] = one.socket = one.dir / "run" / "s"
        # /tmp is hidden in there
        jar = one.dir / "h2o.jar"
        for cloud in clouds.values():
            shutil.copy(cloud["jar_path"], jar)
            cloud["jar_path"] = jar
        one.write_config()
        made.append(one)
        return one.start()

    yield make
    wrong = [sentence for one in made for sentence in one.close()]
    for one in made:
        one.remove()
    assert not wrong, "\n".join(wrong)


def test_process_1(container):
    """As process 1 on a read-only root: a cloud boots and comes back after a loss, with the status of its
    dead member known; the nodes' output is the container's; orphans that fall to it are reaped, be
    they of a node or of a shell before it; SIGTERM ends all in order with exit code 0."""
    fleet = container(shell="(sleep 1 & sleep 0.1) & sleep 0.2", knobs="-Dfake.fork_child=2",
                      log_to="inherit")
    fleet.ready()
    fleet.kill_member(1)
    cloud = fleet.ready(generation=2)
    assert cloud["nodes"][1]["last_exit"]["signal"] == "SIGKILL", cloud["nodes"][1]
    assert "Open H2O Flow" in read(fleet.daemon_log)

    def none_is_a_zombie():
        return "Z" not in children(fleet.first).values()

    until("strangers reaped", 10, lambda: read(fleet.daemon_log).count("none of ours") >= 2)
    until("no zombie", 10, none_is_a_zombie)
    assert fleet.stop() == 0
    assert "c: stopping -> stopped" in read(fleet.daemon_log)


def test_stop_within_the_grace_period(container):
    """docker stop: SIGTERM, and SIGKILL after 10 s. Process 1 has ended by then, in order as far as that
    goes, although its nodes hear no SIGTERM and their own stop_timeout is the default, 10 s."""
    fleet = container(nodes=2, knobs="-Dfake.ignore_term=1", stop_timeout="10s")
    fleet.ready()
    begun = time.monotonic()
    assert fleet.stop() == 0
    assert 7 < time.monotonic() - begun < 10
    assert "(shutdown_timeout); killing them" in read(fleet.daemon_log)
    assert "c: stopping -> stopped" in read(fleet.daemon_log)


def test_any_user(container):
    """A user without an entry in the user database, as OpenShift chooses them."""
    assert not re.search(r":1000650000:", read("/etc/passwd"))
    fleet = container(options=("--unshare-user", "--uid", "1000650000", "--gid", "0",
                               "--unsetenv", "HOME"))
    fleet.ready()
    fleet.kill_member(0)
    assert fleet.ready(generation=2)["nodes"][0]["last_exit"]["signal"] == "SIGKILL"
    assert fleet.stop() == 0


def test_healthcheck(container):
    """The Containerfile's HEALTHCHECK: 0 when all is ready; 1, as docker wants it, when a cloud is not, and
    when there is no daemon."""
    line = re.search(r"^HEALTHCHECK .*? CMD (.+)$", read(CONTAINER / "Containerfile"), re.M)[1]
    fleet = container(nodes=1)
    env = {**fleet.env(), "H2OFLEET_SOCKET": str(fleet.socket),
           "PATH": f"{os.path.dirname(H2OFLEET)}:{os.environ['PATH']}"}

    def check():
        return subprocess.run(["/bin/sh", "-c", line], env=env, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, check=False).returncode

    fleet.ready()
    assert check() == 0
    fleet.cli("stop", "c", "--wait")
    assert check() == 1
    fleet.stop()
    assert check() == 1


def test_configuration_of_the_image():
    """The configuration that the image ships is a good one."""
    subprocess.run([H2OFLEETD, "--config", CONTAINER / "h2ofleet.conf", "--check-config"], check=True)


# --- memory ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def memory_limit(mebibytes):
    """A control group, version 1 or 2, whose processes may use so much; its file for their pids."""
    v1, v2 = pathlib.Path("/sys/fs/cgroup/memory"), pathlib.Path("/sys/fs/cgroup")
    group = (v1 if v1.is_dir() else v2) / f"h2ofleet-test-{os.getpid()}-{time.monotonic_ns()}"
    try:
        group.mkdir()
        limit = group / ("memory.limit_in_bytes" if v1.is_dir() else "memory.max")
        limit.write_text(str(mebibytes << 20))
    except OSError as e:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"no control group can be given a memory limit here: {e}")
    try:
        yield group / "cgroup.procs"
    finally:
        until("an empty control group", 10, lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


def test_heap_from_the_memory_limit(fleets, fake_keys):
    """Percentages are of what the container may use, not of what the machine has."""
    with memory_limit(1024) as procs:
        fleet = fleets({"c": fake_keys(2, max_mem_size="50%")})
        with open(fleet.daemon_log, "ab") as log:
            fleet.daemon = subprocess.Popen(
                ["/bin/sh", "-c", 'echo $$ >"$0" && exec "$@"', procs, H2OFLEETD, "--config",
                 fleet.config],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=fleet.env(), cwd=fleet.dir,
                start_new_session=True)
        fleet.daemons.append(fleet.daemon)
        until("the daemon", 10, fleet._answers)
        for pid in {node["pid"] for node in fleet.ready()["nodes"]}:
            heap = re.search(r"-Xmx(\d+)m", read(f"/proc/{pid}/cmdline"))
            assert 250 <= int(heap[1]) <= 256, heap[0]
        assert fleet.stop() == 0


# --- exit_when ------------------------------------------------------------------------------------


def shutdown_by_a_client(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("POST", "/3/Shutdown")
        connection.getresponse()
    connection.close()


@pytest.mark.parametrize("by", ["operator", "client"])
def test_exit_when_stopped(fleets, fake_keys, by):
    """exit_when = stopped: the daemon ends with 0 once the last cloud was stopped, by the operator or by
    a client, and not before; a cloud that nobody wanted is not waited for."""
    fleet = fleets({"a": fake_keys(1), "b": fake_keys(1), "never": fake_keys(1, autostart="no")},
                   fleet={"exit_when": "stopped"}).start()
    fleet.ready("a")
    port = fleet.ready("b")["nodes"][0]["api_port"]
    fleet.cli("stop", "a", "--wait")
    fleet.cli("restart", "b", "--wait")
    assert fleet.daemon.poll() is None
    if by == "client":
        shutdown_by_a_client(port)
    else:
        fleet.cli("stop", "b")
    assert fleet.wait_exit(20) == 0


def test_exit_when_stopped_after_a_failure(fleets, fake_keys):
    """exit_when = stopped: a failed cloud has come to rest, too, but then the exit code is 6."""
    fleet = fleets({"a": fake_keys(1), "bad": fake_keys(1, knobs="-Dfake.exit_at_boot_ms=10",
                                                        start_limit="1 in 10m")},
                   fleet={"exit_when": "stopped"}).start()
    fleet.ready("a")
    fleet.wait("failed", name="bad")
    fleet.cli("stop", "a")
    assert fleet.wait_exit(20) == 6


def test_exit_when_failed(fleets, fake_keys):
    """exit_when = failed: one failed cloud ends the daemon with 6, the others are stopped in order."""
    fleet = fleets({"a": fake_keys(2), "bad": fake_keys(1, autostart="no",
                                                        knobs="-Dfake.exit_at_boot_ms=10",
                                                        start_limit="1 in 10m")},
                   fleet={"exit_when": "failed"}).start()
    fleet.ready("a")
    fleet.cli("start", "bad")
    assert fleet.wait_exit(20) == 6
    log = read(fleet.daemon_log)
    assert "cloud bad has failed; ending" in log and "cloud a: stopping -> stopped" in log


def test_shutdown_timeout(fleets, fake_keys):
    """shutdown_timeout bounds the end of the daemon, not the stop of a cloud."""
    fleet = fleets({"c": fake_keys(2, knobs="-Dfake.ignore_term=1", stop_timeout="30s")},
                   fleet={"shutdown_timeout": "1s"}).start()
    fleet.ready()
    fleet.cli("stop", "c")
    time.sleep(1.5)  # longer than the limit that is not this one's
    assert fleet.cloud()["state"] == "stopping"
    begun = time.monotonic()
    assert fleet.stop() == 0
    assert 0.8 < time.monotonic() - begun < 8
