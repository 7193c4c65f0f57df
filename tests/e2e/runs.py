"""`h2ofleet run` in a directory and with a mark of its own, and the check that nothing is left."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

from fleet import FINDINGS, H2OFLEET, MARK, SLOW, SYSTEM_CACHE, pid_alive, processes, read, until

# Of these only `run` itself may be asked for by name: the others say what they are.
GUARDIAN = "h2ofleet-guardian "
DAEMON = "h2ofleetd --config "


def listening(pids):
    """TCP ports on which these processes listen."""
    inodes = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    link = os.readlink(f"/proc/{pid}/fd/{fd}")
                    inodes.update(re.findall(r"^socket:\[(\d+)\]$", link))
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in read(table).splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.add(int(fields[1].rpartition(":")[2], 16))
    return found


class Runs:
    """options: what each `run` gets; tmpdir: below `dir`."""

    def __init__(self, options, tmpdir="t"):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="h2ofleet-e2e."))
        self.tmp = self.dir / tmpdir
        self.tmp.mkdir(parents=True)
        self.options = [str(o) for o in options]
        self.started = []
        self.bystanders = set()  # pids that a test started around them

    def env(self, **more):
        env = {
            k: v for k, v in os.environ.items()
            if k not in ("NOTIFY_SOCKET", "H2OFLEET_SOCKET", "XDG_RUNTIME_DIR",
                         "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS")
            and not k.lower().endswith("_proxy")
        }
        # Findings of sanitizers would go with the directory that holds the daemon's log.
        for options in ("ASAN_OPTIONS", "UBSAN_OPTIONS"):
            env[options] = f"{env.get(options, '')}:log_path={self.dir}/finding"
        env.setdefault(SYSTEM_CACHE, str(self.dir / "no-cache"))
        return {**env, MARK: str(self.dir), "TMPDIR": str(self.tmp), "NO_COLOR": "1", **more}

    def command(self, *args):
        """`args` with "--" before the command."""
        return [H2OFLEET, "run", *self.options, *(str(a) for a in args)]

    def start(self, *args, **popen):
        env = self.env(**popen.pop("env", {}))
        popen = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
                 "text": True, "errors": "replace", "start_new_session": True, **popen}
        run = subprocess.Popen(self.command(*args), env=env, **popen)
        self.started.append(run)
        return run

    def finish(self, run, timeout=40):
        """-> (exit status, stdout, stderr)"""
        out, err = run.communicate(timeout=timeout * SLOW)
        return run.returncode, out, err

    def __call__(self, *args, code=0, timeout=40, **popen):
        got, out, err = self.finish(self.start(*args, **popen), timeout)
        assert got == code, f"exit status {got} instead of {code}\n{out}{err}"
        return out, err

    def processes(self):
        found = processes(f"{MARK}={self.dir}")
        return {pid: command for pid, command in found.items() if pid not in self.bystanders}

    def _one(self, beginning):
        pids = [pid for pid, command in self.processes().items() if command.startswith(beginning)]
        return pids[0] if pids else None

    def guardian(self):
        return self._one(GUARDIAN)

    def daemon(self):
        return self._one(DAEMON)

    def nodes(self):
        return [pid for pid, command in self.processes().items() if " -flatfile " in command]

    def files(self):
        return [os.path.join(d, name) for d, _, names in os.walk(self.tmp) for name in names + [""]
                if d != str(self.tmp) or name]

    def leftovers(self):
        pids = self.processes()
        left = [f"process {pid}: {command[:200]}" for pid, command in pids.items()]
        left += [f"port {port}" for port in listening(pids)]
        return left + [f"file {name}" for name in self.files()]

    def assert_clean(self, timeout=30):
        last = []

        def probe():
            last[:] = self.leftovers()
            return not last

        until(lambda: "nothing is left, but there is:\n" + "\n".join(last), timeout, probe, 0.05)

    def assert_clean_now(self):
        """`run` returned: nobody needs to wait any more."""
        assert not self.leftovers(), "\n".join(self.leftovers())

    def close(self):
        """Ends everything; sentences about what was wrong."""
        wrong = []
        for run in self.started:
            if run.poll() is None:
                wrong.append(f"a run was left: {run.args}")
                run.kill()
            run.wait()
            for stream in (run.stdin, run.stdout, run.stderr):
                if stream:
                    stream.close()
        try:
            self.assert_clean()
        except AssertionError as e:
            wrong.append(str(e))
            for pid in self.processes():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        for path in self.dir.glob("finding*"):
            text = read(path)
            if FINDINGS.search(text):
                wrong.append(text[:6000])
        shutil.rmtree(self.dir, ignore_errors=True)
        return wrong


def wait_gone(pid, timeout=20):
    until(lambda: f"process {pid} is gone", timeout, lambda: not pid_alive(pid))


def age(path, seconds=3600):
    """Makes a directory look as if nothing had happened in it for so long."""
    then = time.time() - seconds
    os.utime(path, (then, then))
