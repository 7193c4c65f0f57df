"""Who else keeps processes running: each is given commands, starts them in a Place (bench.py), and is asked
which processes are its own. As Debian 12 has them."""

import os
import shlex
import shutil
import signal
import subprocess

from bench import read, wait_until


class Peer:
    """Launched by hand, and not supervised by anybody; the others are this and somebody."""

    name = "by hand"
    needs = ()  # programs

    def __init__(self, place, commands, stop_wait=10):
        """`commands`: {name: argv}; `stop_wait`: seconds from SIGTERM to SIGKILL."""
        self.place, self.commands, self.stop_wait = place, commands, stop_wait
        self.root = None

    @classmethod
    def lacks(cls):
        """A sentence if it is not there."""
        missing = [p for p in cls.needs if not shutil.which(p)]
        return f"no {', '.join(missing)} here" if missing else None

    def start(self):
        for argv in self.commands.values():
            self.place.run(*argv)

    def stop(self):
        """Asks for the end of all, as its manual says; does not wait for it."""
        for process in self.place.started:
            process.send_signal(signal.SIGTERM)

    def children(self):
        """Those it was told to run."""
        program = os.path.basename(str(next(iter(self.commands.values()))[0]))
        return [pid for pid in self.place.processes() if read(f"/proc/{pid}/comm").strip() == program[:15]]

    def own(self):
        """All others: the supervisor, its helpers, its loggers."""
        children = self.children()
        return [pid for pid in self.place.processes() if pid not in children]

    def until_up(self):
        wait_until(f"{len(self.commands)} children of {self.name}", lambda: len(self.children()) == len(self.commands))

    def script(self, name, text):
        """An executable file below its directory."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o700)

    @property
    def directory(self):
        path = self.place.directory / type(self).__name__
        path.mkdir(exist_ok=True)
        return path


class Supervisord(Peer):
    """All of them in one group, or it would end them one after another."""

    name = "supervisord"
    needs = ("supervisord", "supervisorctl")

    def start(self):
        d = self.directory
        programs = "".join(f"""
[program:{name}]
command={shlex.join(map(str, argv)).replace("%", "%%")}
autorestart=true
startsecs=0
stopwaitsecs={self.stop_wait}
""" for name, argv in self.commands.items())
        self.configuration = d / "supervisord.conf"
        self.configuration.write_text(f"""[supervisord]
nodaemon=true
logfile={d}/log
pidfile={d}/pid
childlogdir={d}
[unix_http_server]
file={d}/s
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{d}/s
[group:all]
programs={",".join(self.commands)}
{programs}""")
        self.root = self.place.run("supervisord", "-c", self.configuration)

    def ctl(self, *arguments):
        return ["supervisorctl", "-c", str(self.configuration), *arguments]

    def stop(self):
        self.root.terminate()


class Runit(Peer):
    """With a logger for each, as is its custom."""

    name = "runit + svlogd"
    needs = ("runsvdir", "svlogd")

    def start(self):
        for name, argv in self.commands.items():
            self.script(f"sv/{name}/run", f"#!/bin/sh\nexec {shlex.join(map(str, argv))} 2>&1\n")
            self.script(f"sv/{name}/log/run", "#!/bin/sh\nmkdir -p main && exec svlogd main\n")
        self.root = self.place.run("runsvdir", self.directory / "sv")

    def stop(self):
        self.root.send_signal(signal.SIGHUP)


class S6(Peer):
    """With a logger for each."""

    name = "s6 + s6-log"
    needs = ("s6-svscan", "s6-log")

    def start(self):
        for name, argv in self.commands.items():
            self.script(f"sv/{name}/run", f"#!/bin/sh\nexec {shlex.join(map(str, argv))} 2>&1\n")
            self.script(f"sv/{name}/log/run", "#!/bin/sh\nexec s6-log -b n5 s1000000 ./main\n")
            (self.directory / f"sv/{name}/timeout-kill").write_text(f"{1000 * self.stop_wait}\n")
        self.root = self.place.run("s6-svscan", self.directory / "sv")

    def stop(self):
        self.root.terminate()


class Monit(Peer):
    """Watches processes that are not its children, by their pid files, here each second as the daemon does."""

    name = "monit"
    needs = ("monit",)

    def start(self):
        d = self.directory
        for name, argv in self.commands.items():
            self.script(f"{name}.start", f"#!/bin/sh\n{shlex.join(map(str, argv))} &\necho $! >{d}/{name}.pid\n")
        checks = "".join(f"""
check process {name} with pidfile {d}/{name}.pid
    start program = "{d}/{name}.start"
    stop program = "/bin/sh -c 'kill $(cat {d}/{name}.pid)'"
""" for name in self.commands)
        configuration = d / "monitrc"
        configuration.write_text(f"""set daemon 1
set log {d}/log
set pidfile {d}/pid
set idfile {d}/id
set statefile {d}/state
set httpd unixsocket {d}/s
    allow user:pass
{checks}""")
        configuration.chmod(0o600)
        self.root = self.place.run("monit", "-I", "-c", configuration)


class Systemd(Peer):
    """A unit for each, Restart=always; where systemd is process 1, as tests/systemd/systemd-ns makes it."""

    name = "systemd"
    needs = ("systemd-run", "systemctl")

    @classmethod
    def lacks(cls):
        return super().lacks() or (None if os.path.isdir("/run/systemd/system") else "systemd is not process 1 here")

    def start(self):
        self.units = [f"bench-{name}.service" for name in self.commands]
        for unit, argv in zip(self.units, self.commands.values()):
            subprocess.run(["systemd-run", "--quiet", f"--unit={unit}", "--property=Restart=always",
                            "--property=RestartSec=100ms", f"--property=TimeoutStopSec={self.stop_wait}",
                            "--property=StandardOutput=null",
                            *(f"--setenv={k}={self.place.env[k]}" for k in (self.place.MARK, "DO_NOT_TRACK", "PATH")),
                            *map(str, argv)], check=True)

    def stop(self):
        subprocess.run(["systemctl", "stop", "--no-block", *self.units], check=True)


# Of whom an idle daemon is compared with.
IDLE = (Supervisord, Runit, S6, Monit)
NOT_IN_DEBIAN_12 = ("dinit",)
