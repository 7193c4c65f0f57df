"""A real h2ofleetd with a directory, ports and a mark of its own, and the check that nothing is left."""

import contextlib
import fcntl
import fnmatch
import glob
import http.client
import json
import os
import pathlib
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time

REPO = pathlib.Path(__file__).resolve().parents[2]
BUILD = REPO / ".cache" / "build"
H2OFLEETD = os.environ.get("H2OFLEETD", str(BUILD / "h2ofleetd"))
H2OFLEET = os.environ.get("H2OFLEET", str(BUILD / "h2ofleet"))
FAKEJAVA = os.environ.get("FAKEJAVA", str(BUILD / "tests/fake/fakejava"))
WRAPPER = shlex.split(os.environ.get("H2OFLEETD_WRAPPER", ""))
# Under valgrind everything takes longer; multiplies the deadlines, not what is measured.
SLOW = float(os.environ.get("H2OFLEET_SLOW", "1"))
# What the tests start must not ignore what we may have been told to ignore (nohup, a job in the background).
for _signal in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_signal) == signal.SIG_IGN:
        signal.signal(_signal, signal.SIG_DFL)

# In the environment of the daemon, and so of all that it starts.
MARK = "H2OFLEET_E2E"

# Where nodes look for a boot cache besides cache_dir.
SYSTEM_CACHE = "H2OFLEET_SYSTEM_CACHE_DIR"

FINDINGS = re.compile(
    r"AddressSanitizer|LeakSanitizer|UndefinedBehavior|runtime error:|^==\d+==", re.M
)


def until(what, seconds, probe, interval=0.02):
    """Calls probe() until it returns something true, which is returned; fails after `seconds`."""
    deadline = time.monotonic() + seconds * SLOW
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds * SLOW:g} s: {what() if callable(what) else what}")
        time.sleep(interval)


def halt(pid):
    """SIGSTOP, and all threads stand still: on a busy machine some go on for a while."""

    def still():
        stats = [read(path).rpartition(")")[2].split() for path in glob.glob(f"/proc/{pid}/task/*/stat")]
        return all(stat[0] in "TtZX" for stat in stats if stat)

    os.kill(pid, signal.SIGSTOP)
    until(f"process {pid} is stopped", 30, still, 0.001)


def has_ipv6():
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as s:
        s.bind(("::1", 0))
        return True
    return False


def read(path):
    with contextlib.suppress(OSError):
        return pathlib.Path(path).read_text(errors="replace")
    return ""


def pid_alive(pid):
    """Runs, that is: neither gone nor a zombie."""
    stat = read(f"/proc/{pid}/stat")
    return bool(stat) and stat.rpartition(")")[2].split()[0] not in "ZX"


def is_gate(command):
    return command.split(" ")[0].endswith("/h2ofleet-gate")


def processes(needle):
    """pid -> command line of all processes with `needle` in environment or command line."""
    needle = needle.encode()
    found = {}
    for proc in glob.glob("/proc/[0-9]*"):
        pid = int(proc[6:])
        if pid == os.getpid():
            continue
        with contextlib.suppress(OSError):
            command = pathlib.Path(proc, "cmdline").read_bytes()
            if needle in command or needle in pathlib.Path(proc, "environ").read_bytes():
                if pid_alive(pid):
                    found[pid] = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def files_below(directory, pattern):
    """As rglob(), which fails when somebody removes what it is walking through."""
    return [pathlib.Path(top, name) for top, dirs, files in os.walk(directory)
            for name in fnmatch.filter(dirs + files, pattern)]


def in_use(path):
    """Does a process have it open or mapped? Then it is somebody else's: ours are dead by then."""
    for proc in glob.glob("/proc/[0-9]*"):
        with contextlib.suppress(OSError):
            if str(path) in pathlib.Path(proc, "maps").read_text(errors="replace"):
                return True
        for fd in glob.glob(f"{proc}/fd/*"):
            with contextlib.suppress(OSError):
                if os.readlink(fd) == str(path):
                    return True
    return False


def listeners(first, last):
    """TCP ports within [first, last] on which anybody listens."""
    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in read(table).splitlines()[1:]:
            fields = line.split()
            port = int(fields[1].rpartition(":")[2], 16)
            if fields[3] == "0A" and first <= port <= last:
                ports.add(port)
    return ports


def ports_of(cloud):
    """Of a cloud that runs: its endpoint's and its nodes'."""
    nodes = {n["api_port"] + i for n in cloud["nodes"] for i in (0, 1)}
    return nodes | {cloud["endpoint_port"]}


class PortBlock:
    """Free ports outside of the kernel's range for outgoing connections, at least as many as asked for,
    ours by a lock file for each 64: other tests, workers and runs keep out."""

    UNIT = 64
    FIRST, LAST = 10240, 32000
    FIRST_OF_MANY = 2048  # below FIRST nobody has a part of what is wanted in one piece

    def __init__(self, size=UNIT):
        self.locks = []
        self.size = -(-size // self.UNIT) * self.UNIT
        first = self.FIRST if self.size <= 8 * self.UNIT else self.FIRST_OF_MANY
        bases = list(range(first, self.LAST - self.size, self.UNIT))
        random.shuffle(bases)
        for base in bases:
            if self.lock_all(base) and self.all_free(base, self.size):
                self.base = base
                return
            self.release()
        raise RuntimeError(f"no {self.size} free ports in a row")

    def lock_all(self, base):
        directory = pathlib.Path(tempfile.gettempdir(), f"h2ofleet-test-ports-{os.getuid()}")
        directory.mkdir(exist_ok=True)
        for unit in range(base, base + self.size, self.UNIT):
            self.locks.append(open(directory / str(unit), "w"))
            try:
                fcntl.flock(self.locks[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
        return True

    @staticmethod
    def all_free(base, size):
        for port in range(base, base + size):
            with socket.socket() as s:
                try:
                    s.bind(("127.0.0.1", port))
                except OSError:
                    return False
        return True

    def release(self):
        while self.locks:
            self.locks.pop().close()


def cgroup_of(pid="self"):
    """Directory of the process' control group (version 2); None: there is none."""
    path = re.search(r"^0::(/.*)$", read(f"/proc/{pid}/cgroup"), re.M)
    for line in read("/proc/self/mountinfo").splitlines():
        fields = line.split()
        if path and " - cgroup2 " in line and fields[3] == "/" and not path[1].startswith("/.."):
            return pathlib.Path(fields[4] + path[1].rstrip("/"))
    return None


def unsupported_java():
    """Keys for a Java that this H2O does not support: contrib/h2o-matrix tries such pairs, too."""
    return {"allow_unsupported_java": "yes"} if os.environ.get("H2OFLEET_ALLOW_UNSUPPORTED_JAVA") else {}


def prepare_boot_cache(jar, java):
    """One for all tests with real nodes, which then start in half the time; returns where."""
    cache = REPO / ".cache" / "check" / "boot-cache"
    cache.mkdir(parents=True, exist_ok=True)
    config = cache / "h2ofleet.conf"
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        config.write_text(f"[fleet]\ncache_dir = {cache}\n[cloud c]\njar_path = {jar}\n"
                          + (f"java = {java}\n" if java else "")
                          + "".join(f"{k} = {v}\n" for k, v in unsupported_java().items()))
        subprocess.run([H2OFLEET, "prepare", "--config", config], check=True, timeout=300 * SLOW,
                       stdin=subprocess.DEVNULL, env={**os.environ, SYSTEM_CACHE: str(cache / "none")})
    return cache


class UnixHTTP(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class Fleet:
    """clouds: {name: {key: value}}; a value of None leaves a key out."""

    def __init__(self, clouds, fleet=None, config=None, env=None, ports=None):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="h2ofleet-e2e."))
        self.ports = ports or PortBlock()
        self.socket = self.dir / "s"
        self.state_dir = self.dir / "state"
        self.log_dir = self.dir / "log"
        self.daemon_log = self.dir / "daemon.log"
        self.config = self.dir / "h2ofleet.conf"
        self.fleet = {
            "socket": self.socket, "state_dir": self.state_dir, "cache_dir": self.dir / "cache",
            "log_dir": self.log_dir, "baseport": self.ports.base, "log_level": "debug",
            # Nothing is made in the background, unless a test asks for it.
            "fast_boot_delay": "1d", **(fleet or {}),
        }
        self.clouds = clouds
        self.env_extra = env or {}
        self.cgroup = None  # the daemon is started in this one; None: in ours
        self.daemon = None
        self.daemons = []
        self.seen_pids = set()
        self.exit_status = None
        self.killed = False  # a test killed a daemon with SIGKILL
        self.since = time.time()
        self.write_config(config)

    # --- configuration and environment ------------------------------------------------------------

    def write_config(self, text=None):
        if text is None:
            lines = ["[fleet]"] + [f"{k} = {v}" for k, v in self.fleet.items() if v is not None]
            for name, keys in self.clouds.items():
                lines += ["", f"[cloud {name}]"]
                lines += [f"{k} = {v}" for k, v in keys.items() if v is not None]
            text = "\n".join(lines) + "\n"
        self.config.write_text(text)

    def env(self):
        env = {
            k: v for k, v in os.environ.items()
            if k not in ("NOTIFY_SOCKET", "H2OFLEET_SOCKET", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS")
            and not k.lower().endswith("_proxy")
        }
        env.setdefault(SYSTEM_CACHE, str(self.dir / "no-cache"))
        env.update({MARK: str(self.dir), "NO_COLOR": "1", **self.env_extra})
        return env

    # --- the daemon -------------------------------------------------------------------------------

    def spawn(self, *args):
        """Starts a daemon and does not wait for anything."""
        with open(self.daemon_log, "ab") as log:
            daemon = subprocess.Popen(
                [*self._into_cgroup(), *WRAPPER, H2OFLEETD, "--config", str(self.config), *args],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env(),
                cwd=self.dir, start_new_session=True,
            )
        self.daemons.append(daemon)
        return daemon

    def _into_cgroup(self):
        if not self.cgroup:
            return []
        return ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(self.cgroup)]

    def cgroups(self, parent=None):
        """Names of the control groups of our clouds in the directory where they should be."""
        parent = parent or self.cgroup or cgroup_of()
        fleet_id = read(self.state_dir / "fleet-id")[:8]
        if not parent or not fleet_id:
            return []
        return sorted(p.name for p in parent.glob(f"h2ofleet-{fleet_id}-*"))

    def start(self):
        self.daemon = self.spawn()
        self.exit_status = None
        until(lambda: f"an answer on the control socket\n{self.log_tail()}", 10, self._answers)
        return self

    def _answers(self):
        status = self.daemon.poll()
        if status is not None:
            raise AssertionError(f"h2ofleetd ended with {status}:\n{self.log_tail()}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.api("GET", "/v1/version")[0] == 200
        return False

    def run_daemon(self, *args, timeout=20):
        """A daemon that is expected to end by itself; returns (exit status, what it printed)."""
        done = subprocess.run(
            [*WRAPPER, H2OFLEETD, "--config", str(self.config), *args], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            env=self.env(), timeout=timeout * SLOW,
        )
        return done.returncode, done.stdout

    def send(self, sig):
        if sig == signal.SIGSTOP and self.daemon.poll() is None:
            halt(self.daemon.pid)
        else:
            self.daemon.send_signal(sig)

    def wait_exit(self, timeout=40):
        try:
            self.exit_status = self.daemon.wait(timeout * SLOW)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"h2ofleetd did not end in {timeout} s\n{self.log_tail()}") from None
        return self.exit_status

    def stop(self, sig=signal.SIGTERM, timeout=40):
        if self.daemon and self.daemon.poll() is None:
            self.note_pids()
            self.send(sig)
        return self.wait_exit(timeout)

    def kill_daemon(self):
        """SIGKILL: what it supervises lives on."""
        self.note_pids()
        self.killed = True
        self.daemon.kill()
        self.daemon.wait()

    def log_tail(self, lines=40):
        return "\n".join(read(self.daemon_log).splitlines()[-lines:])

    # --- talking to it ----------------------------------------------------------------------------

    def api(self, method, path, body=None, timeout=60):
        """(status, decoded body)"""
        connection = UnixHTTP(self.socket, timeout * SLOW)
        try:
            headers = {"Content-Type": "application/json"} if body else {}
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            data = answer.read().decode(errors="replace")
            if "json" in (answer.getheader("Content-Type") or ""):
                data = json.loads(data)
            return answer.status, data
        finally:
            connection.close()

    def cli(self, *args, code=0, timeout=60, env=None):
        """Runs h2ofleet; `code`: the wanted exit code, or None for any."""
        done = subprocess.run(
            [H2OFLEET, "--socket", str(self.socket), *args], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
            env={**self.env(), **(env or {})}, timeout=timeout * SLOW,
        )
        assert not FINDINGS.search(done.stderr), done.stderr
        if code is not None:
            assert done.returncode == code, (
                f"h2ofleet {' '.join(args)}: exit code {done.returncode} instead of {code}\n"
                f"{done.stdout}{done.stderr}"
            )
        return done

    def cloud(self, name="c"):
        status, body = self.api("GET", f"/v1/clouds/{name}")
        assert status == 200, body
        for node in body["nodes"]:
            if node["pid"]:
                self.seen_pids.add(node["pid"])
        return body

    def note_pids(self):
        for name in self.clouds:
            with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
                self.cloud(name)

    def nodes(self, name="c"):
        return self.cloud(name)["nodes"]

    def pids(self, name="c"):
        return [n["pid"] for n in self.nodes(name) if n["pid"]]

    def wait(self, *states, name="c", timeout=30, generation=None, fatal=("failed",)):
        """Waits for one of the states, in generation `generation` or a later one."""
        last = {}

        def probe():
            last.update(self.cloud(name))
            if last["state"] in states and last["generation"] >= (generation or 0):
                return last
            assert last["state"] not in set(fatal) - set(states), self.story(last)
            return None

        return until(lambda: f"{name} in {states}\n{self.story(last)}", timeout, probe)

    def ready(self, name="c", timeout=30, generation=None):
        return self.wait("ready", name=name, timeout=timeout, generation=generation)

    def story(self, cloud):
        """What people would want to know when a cloud is not as it should be."""
        lines = [f"cloud {cloud.get('name')}: {cloud.get('state')}, generation "
                 f"{cloud.get('generation')}, reason: {cloud.get('reason')}"]
        for node in cloud.get("nodes", ()):
            lines.append(f"  node {node['index']}: {node['state']}, pid {node['pid']}, "
                         f"last exit {node['last_exit']}")
        return "\n".join(lines + ["daemon:", self.log_tail()])

    def kill_member(self, index, sig=signal.SIGKILL, name="c"):
        """Returns the pid that it had."""
        pid = self.nodes(name)[index]["pid"]
        halt(pid) if sig == signal.SIGSTOP else os.kill(pid, sig)
        return pid

    def node_dir(self, index, name="c"):
        return self.state_dir / "clouds" / name / str(index)

    # --- nothing is left --------------------------------------------------------------------------

    def _processes(self):
        """Processes of this fleet other than the daemons."""
        ours = {d.pid for d in self.daemons}
        return {pid: cmd for pid, cmd in processes(f"{MARK}={self.dir}").items() if pid not in ours}

    def members(self):
        """Processes of this fleet other than the daemons and the gate, which just after its fork still
        looks like its daemon."""
        daemon = f"{H2OFLEETD} --config {self.config}"
        return {pid: cmd for pid, cmd in self._processes().items()
                if not is_gate(cmd) and cmd != daemon}

    def gate(self):
        """The pid of the gate; None where there is none."""
        pids = [pid for pid, cmd in self._processes().items() if is_gate(cmd)]
        assert len(pids) <= 1, pids
        return pids[0] if pids else None

    def leftovers(self):
        """Sentences about what a stopped fleet has left behind; should be none."""
        left = [f"process {pid}: {cmd[:200]}" for pid, cmd in self._processes().items()]
        for pid, cmd in processes(str(self.state_dir)).items():
            if pid not in {d.pid for d in self.daemons}:
                left.append(f"process {pid} names our state directory: {cmd[:200]}")
        left += [
            f"port {p} is listened on"
            for p in sorted(listeners(self.ports.base, self.ports.base + self.ports.size - 1))
        ]
        left += [f"control group {name}" for name in self.cgroups()]
        left += [f"file {p}" for p in files_below(self.dir, "libxgboost*")
                 if not p.is_relative_to(self.dir / "cache")]
        for path in pathlib.Path(tempfile.gettempdir()).glob("libxgboost*"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime >= self.since and not in_use(path):
                    left.append(f"file {path}")
        for path in glob.glob("/tmp/hsperfdata_*/*"):
            pid = int(os.path.basename(path))
            if pid in self.seen_pids and not pid_alive(pid):
                left.append(f"file {path}")
        if self.socket.exists() and not self.killed:
            left.append(f"socket {self.socket}")
        return left

    def assert_clean(self):
        """The daemon has ended; so must have all else, within a moment."""
        last = []

        def probe():
            last[:] = self.leftovers()
            return not last

        until(lambda: "nothing left behind, but there is:\n" + "\n".join(last), 3, probe, 0.1)

    def findings(self):
        """Of sanitizers and valgrind in the daemon's output."""
        log = read(self.daemon_log)
        found = FINDINGS.search(log)
        return log[max(0, found.start() - 200):found.start() + 6000] if found else None

    def close(self):
        """Ends everything and says what was wrong: a list of sentences."""
        wrong = []
        try:
            if self.daemon and self.daemon.poll() is None:
                status = self.stop()
                if status != 0:
                    wrong.append(f"h2ofleetd ended with {status} after SIGTERM\n{self.log_tail()}")
            if self.daemon:
                self.assert_clean()
        except (AssertionError, OSError) as e:
            wrong.append(str(e))
        finally:
            for daemon in self.daemons:
                if daemon.poll() is None:
                    daemon.kill()
                    daemon.wait()
            for pid in self._processes():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            self.ports.release()
        found = self.findings()
        if found:
            wrong.append(f"findings in the daemon's output:\n{found}")
        return wrong

    def save(self, to):
        """Keeps what helps to understand a failure: configuration, logs, state files; not the ice."""
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(
            self.dir, to, symlinks=True, ignore_dangling_symlinks=True,
            ignore=lambda d, names: [
                n for n in names
                if n.startswith(("ice", "tmp", "recovery")) or not (
                    os.path.isdir(os.path.join(d, n)) or os.path.isfile(os.path.join(d, n)))
            ],
        )

    def remove(self):
        shutil.rmtree(self.dir, ignore_errors=True)
