"""h2ofleetd as a service of the systemd that runs here: system's or a user's."""

import contextlib
import ctypes
import glob
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

REPO = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "tests/e2e"))

from fleet import pid_alive, read, until  # noqa: E402,F401

UNITS = ("h2ofleetd.service", "h2ofleetd-stop.service", "h2ofleetd.socket")
ENDPOINTS = "h2ofleet-endpoints.socket"
TOKEN = b"H2OFLEET_TOKEN="
JAVA = "/usr/local/lib/h2ofleet-test/java"
JAR = "/usr/local/lib/h2ofleet-test/h2o.jar"
REAL_JAR = "/usr/local/lib/h2ofleet-test/real.jar"


def run(*command, code=0, timeout=60, **kwargs):
    """stdout; `code`: the wanted exit status, or None for any (then (status, stdout + stderr))."""
    done = subprocess.run(
        [str(c) for c in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, errors="replace", timeout=timeout, check=False, **kwargs,
    )
    if code is None:
        return done.returncode, done.stdout + done.stderr
    assert done.returncode == code, (
        f"{' '.join(map(str, command))}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
    )
    return done.stdout


def environment(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return []


def launched():
    """pid -> token of all processes that a daemon launched, whichever daemon."""
    found = {}
    for path in glob.glob("/proc/[0-9]*"):
        pid = int(path[6:])
        for entry in environment(pid):
            if entry.startswith(TOKEN) and pid_alive(pid):
                found[pid] = entry[len(TOKEN):].decode()
    return found


def jvms():
    return sorted(pid for pid, token in launched().items() if not token.endswith(("/@gate", "/@boot")))


def gates():
    return sorted(pid for pid, token in launched().items() if token.endswith("/@gate"))


def builders():
    """Who makes the boot cache."""
    return sorted(pid for pid, token in launched().items() if token.endswith("/@boot"))


def wedge(pid):
    """Stops a process so that SIGCONT, which systemd sends with every other signal, does not let it
    go on: it is held by a debugger, which only SIGKILL ends."""
    ready, said = os.pipe()
    if os.fork() == 0:
        with contextlib.suppress(BaseException):
            PTRACE_ATTACH = 16
            attached = ctypes.CDLL(None).ptrace(PTRACE_ATTACH, pid, None, None) == 0
            os.waitpid(pid, 0)
            os.write(said, b"y" if attached else b"n")
            while os.WIFSTOPPED(os.waitpid(pid, 0)[1]):
                pass
        os._exit(0)
    os.close(said)
    assert os.read(ready, 1) == b"y", f"cannot stop process {pid}"
    os.close(ready)


class Service:
    def __init__(self, user=None):
        self.user = user
        if user:
            uid = run("id", "-u", user).strip()
            self.runtime = pathlib.Path("/run/user", uid)
            home = pathlib.Path("/home", user)
            self.config = home / ".config/h2ofleet/h2ofleet.conf"
            self.state = home / ".local/state/h2ofleet"
            self.units = pathlib.Path("/etc/systemd/user")
        else:
            self.runtime = pathlib.Path("/run")
            self.config = pathlib.Path("/etc/h2ofleet/h2ofleet.conf")
            self.state = pathlib.Path("/var/lib/h2ofleet")
            self.units = pathlib.Path("/etc/systemd/system")
        self.socket = self.runtime / "h2ofleet/control.sock"

    # --- systemctl ------------------------------------------------------------------------------

    def as_user(self):
        if not self.user:
            return []
        return ["runuser", "-u", self.user, "--", "env", f"XDG_RUNTIME_DIR={self.runtime}",
                f"HOME=/home/{self.user}"]

    def ctl(self, *args, code=0, **kwargs):
        flag = ["--user"] if self.user else []
        return run(*self.as_user(), "systemctl", *flag, "--no-pager", *args, code=code, **kwargs)

    def start(self, unit="h2ofleetd.service"):
        status, said = self.ctl("start", unit, code=None)
        assert status == 0, f"{said}\n{self.story()}"

    def stop(self):
        self.ctl("stop", "h2ofleetd.service")

    def restart(self):
        status, said = self.ctl("restart", "h2ofleetd.service", code=None)
        assert status == 0, f"{said}\n{self.story()}"

    def show(self, name, unit="h2ofleetd.service"):
        return self.ctl("show", "-P", name, unit).strip()

    def pid(self):
        return int(self.show("MainPID"))

    def journal(self, lines=60):
        return run("journalctl", "--no-pager", "-n", lines, "-o", "short-monotonic")

    def story(self):
        return f"{self.ctl('status', *UNITS[:2], code=None)[1]}\n{self.journal()}"

    def wait_until(self, what, probe, seconds=20):
        return until(lambda: f"{what}\n{self.story()}", seconds, probe)

    def wait_new_daemon(self, old):
        """After a crash: another one, which has said that it is ready."""
        def probe():
            return self.pid() not in (0, old) and self.show("SubState") == "running"

        self.wait_until("a new daemon", probe)
        return self.pid()

    # --- configuration --------------------------------------------------------------------------

    def configure(self, nodes=2, knobs="", fleet=None, **keys):
        cloud = {
            "nodes": nodes, "java": JAVA, "jar_path": JAR, "max_mem_size": "64m",
            "jvm_custom_args": f"-Dfake.heartbeat_ms=100 {knobs}".strip(),
            "restart_delay": "0s", "stop_timeout": "3s", **keys,
        }
        # Nothing is made in the background, unless a test asks for it.
        fleet = {"fast_boot_delay": "1d", **(fleet or {})}
        lines = ["[fleet]", *(f"{k} = {v}" for k, v in fleet.items()), "[cloud c]",
                 *(f"{k} = {v}" for k, v in cloud.items() if v is not None)]
        self.write(self.config, "\n".join(lines) + "\n")

    def write(self, path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if self.user:
            run("chown", "-R", self.user, f"/home/{self.user}")

    def drop_in(self, unit="h2ofleetd.service", **keys):
        """Changes settings of the unit for this test: Section_Key=value, or Key=value of [Service]."""
        lines = []
        for key, value in keys.items():
            section, _, name = key.rpartition("_")
            lines += [f"[{section or 'Service'}]", f"{name}={value}"]
        directory = self.units / f"{unit}.d"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "test.conf").write_text("\n".join(lines) + "\n")
        self.ctl("daemon-reload")

    # --- its clouds -----------------------------------------------------------------------------

    def client(self, *args, code=0, **kwargs):
        return run("h2ofleet", "--socket", self.socket, *args, code=code, **kwargs)

    def cloud(self):
        """As `h2ofleet status` shows it; None when nobody answers."""
        status, said = self.client("--json", "status", "c", code=None)
        return None if status == 4 else json.loads(said)["clouds"][0]

    def ready(self):
        self.client("wait", "c", "--for", "ready", "--timeout", "30s")

    def generation(self):
        """What must be the same as before for clients to have noticed nothing."""
        cloud = self.cloud()
        assert cloud and cloud["state"] in ("ready", "degraded"), cloud
        return cloud["generation"], cloud["h2o_name"], sorted(n["pid"] for n in cloud["nodes"])

    # --- the end --------------------------------------------------------------------------------

    def clean(self):
        """Everything as before the test; returns the JVMs that a stop has left."""
        for unit in (ENDPOINTS, "h2ofleetd.socket", "h2ofleetd.service"):
            self.ctl("stop", unit, code=None)
        (self.units / ENDPOINTS).unlink(missing_ok=True)
        left = sorted(launched())
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.ctl("reset-failed", code=None)
        for unit in UNITS:
            shutil.rmtree(self.units / f"{unit}.d", ignore_errors=True)
        self.ctl("daemon-reload")
        for path in [*self.state.glob("*"), *pathlib.Path("/var/log/h2ofleet").glob("*"),
                     *pathlib.Path("/var/cache/h2ofleet").glob("*")]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        return left
