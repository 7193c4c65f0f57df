"""Clouds in control groups that systemd makes, on a machine that systemd runs (tests/systemd boots one
in namespaces): transient scopes of the system's and of a user's manager, and the unit
h2ofleet-clouds.service, for a daemon that is neither root nor a user's."""

import contextlib
import os
import pathlib
import pwd
import shutil
import signal
import subprocess

import pytest

from fleet import H2OFLEETD, REPO, cgroup_of, pid_alive, processes, read, until

QUICK = {"start_limit": "60 in 1m", "restart_delay_max": "0s"}
UNITS = pathlib.Path("/run/systemd/system")

pytestmark = pytest.mark.skipif(
    not UNITS.exists() or os.getuid() != 0, reason="needs root under a running systemd")


def sh(*args, check=True):
    return subprocess.run(args, check=check, stdout=subprocess.PIPE, text=True).stdout.strip()


def show(unit, what, *manager):
    return sh("systemctl", *manager, "show", "-P", what, unit)


class Service:
    """The fleet's daemon as a unit of its own; its clouds' units."""

    def __init__(self, fleet, lines="", manager=(), env=None):
        self.fleet, self.manager = fleet, manager
        self.name = f"h2ofleet-e2e-{fleet.ports.base}.service"
        self.path = UNITS / self.name
        self.lines = lines
        if manager:
            self.path = pathlib.Path(f"/run/user/{env['uid']}/systemd/user") / self.name

    def text(self, restart):
        env = " ".join(f'"{k}={v}"' for k, v in self.fleet.env().items() if k.startswith("H2OFLEET_E2E"))
        log = self.fleet.daemon_log
        return (f"[Unit]\nStartLimitIntervalSec=0\n{self.lines.partition('---')[0]}\n[Service]\n"
                f"Type=notify\nExecStart={H2OFLEETD} --config {self.fleet.config}\nKillMode=process\n"
                f"RestartKillSignal=SIGKILL\nRestart={restart}\nRestartSec=100ms\nEnvironment={env}\n"
                f"StandardOutput=append:{log}\nStandardError=append:{log}\n"
                f"{self.lines.partition('---')[2]}\n")

    def write(self, restart="no"):
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_text(self.text(restart))
        self.ctl("daemon-reload")

    def ctl(self, *args, check=True):
        return sh(*self.manager, "systemctl", *(["--user"] if self.manager else []), *args, check=check)

    def start(self):
        self.ctl("start", self.name)
        self.fleet.killed = True  # the socket's end is the service's business
        return self.fleet

    def scopes(self):
        fleet_id = read(self.fleet.state_dir / "fleet-id")[:8]
        lines = self.ctl("list-units", "--all", "--no-legend", "--plain", f"h2ofleet-{fleet_id}-*.scope")
        return sorted(line.split()[0] for line in lines.splitlines())

    def pid(self):
        return int(self.ctl("show", "-P", "MainPID", self.name))

    def remove(self):
        self.ctl("stop", self.name, check=False)
        self.ctl("reset-failed", self.name, check=False)
        with contextlib.suppress(OSError):
            self.path.unlink()
        self.ctl("daemon-reload", check=False)


@pytest.fixture
def service(fake):
    made = []

    def make(lines="", manager=(), env=None, restart="no", **keys):
        s = Service(fake(start=False, **{**QUICK, **keys}), lines, manager, env)
        made.append(s)
        s.write(restart)
        return s

    yield make
    for s in made:
        s.remove()
        left = s.fleet.leftovers()
        assert not left, left


def groups(fleet):
    """The control groups that the cloud's members are in."""
    return {cgroup_of(pid) for pid in fleet.pids()}


def members_of(group):
    return sorted(int(p) for p in read(group / "cgroup.procs").split())


def disguised(fleet):
    return [p for p, cmd in processes(str(fleet.state_dir)).items()
            if cmd.endswith(" 120") and not read(f"/proc/{p}/environ")]


def the_group(fleet, generation, suffix=".scope"):
    found = groups(fleet)
    assert len(found) == 1, found
    group = found.pop()
    fleet_id = read(fleet.state_dir / "fleet-id")[:8]
    assert group.name == f"h2ofleet-{fleet_id}-c.{generation}{suffix}"
    assert members_of(group) == sorted(fleet.pids())
    return group


def test_scope_of_each_generation(service):
    """root: a scope of the system's manager, in our slice, for each generation; it holds exactly the
    members; the next generation has its own, and a stopped cloud none, failed or not."""
    s = service(nodes=3)
    java = s.fleet.dir / "java"
    java.write_text(f"#!/bin/sh\ngrep -h ^0:: /proc/self/cgroup >>{s.fleet.dir}/seen\n"
                    f"exec {s.fleet.clouds['c']['java']} \"$@\"\n")
    java.chmod(0o755)
    s.fleet.clouds["c"]["java"] = java
    s.fleet.write_config()
    fleet = s.start()
    fleet.ready()
    group = the_group(fleet, 1)
    # Never outside, not even for a moment. (The first line is of `java -version`.)
    seen = read(fleet.dir / "seen").splitlines()
    assert len(seen) == 4 and all(line.endswith(group.name) for line in seen[1:]), seen
    assert group.parent.name == "h2ofleet.slice"
    assert s.scopes() == [group.name]
    assert "H2O cloud c, generation 1" in show(group.name, "Description")
    fleet.kill_member(1)
    fleet.ready(generation=2)
    group = the_group(fleet, 2)
    until(lambda: f"only the new scope: {s.scopes()}", 5, lambda: s.scopes() == [group.name])
    fleet.cli("stop", "c", "--wait")
    until(lambda: f"no scope: {s.scopes()}", 5, lambda: s.scopes() == [])


def test_limits_are_properties_of_the_scope(service):
    """memory_max and cpu_quota reach systemd (in force only where the controllers are on v2)."""
    s = service(nodes=1, memory_max="8g", cpu_quota="150%")
    fleet = s.start()
    fleet.ready()
    name = the_group(fleet, 1).name
    assert show(name, "MemoryMax") == str(8 << 30)
    assert show(name, "CPUQuotaPerSecUSec") == "1.500000s"
    assert show(name, "TasksMax") == "infinity"
    assert show(name, "PartOf") == s.name


def test_disguised_process_ends_with_its_cloud(service):
    s = service(nodes=2, knobs="-Dfake.0.g1.fork_child=3")
    fleet = s.start()
    fleet.ready()
    child = until("the child", 5, lambda: disguised(fleet))[0]
    fleet.kill_member(1)
    fleet.ready(generation=2)
    assert not pid_alive(child)
    the_group(fleet, 2)


def test_restart_keeps_stop_ends(service):
    """`systemctl restart` and a crash of the daemon leave the scope alone, and the next daemon finds it
    again; `systemctl stop` ends it, after the daemon, which ended the cloud in order."""
    s = service(nodes=2, restart="on-failure")
    fleet = s.start()
    pids = [n["pid"] for n in fleet.ready()["nodes"]]
    group = the_group(fleet, 1)
    s.ctl("restart", s.name)
    assert [n["pid"] for n in fleet.ready()["nodes"]] == pids
    old = s.pid()
    os.kill(old, signal.SIGKILL)
    until("another daemon", 10, lambda: s.pid() not in (0, old))
    until("an answer", 10, fleet_answers(fleet))
    assert [n["pid"] for n in fleet.ready()["nodes"]] == pids
    assert the_group(fleet, 1) == group
    s.ctl("stop", s.name)
    assert not any(pid_alive(p) for p in pids)
    assert read(fleet.daemon_log).count("ended by us with SIGTERM") == 2
    until(lambda: f"no scope: {s.scopes()}", 5, lambda: s.scopes() == [])


def fleet_answers(fleet):
    def probe():
        with contextlib.suppress(OSError):
            return fleet.api("GET", "/v1/version")[0] == 200
        return False

    return probe


def test_stop_after_a_crash_ends_the_scope(service):
    """The daemon has crashed and stays down: the scope lives on, `systemctl stop` ends it."""
    s = service(nodes=2, knobs="-Dfake.0.fork_child=3")
    fleet = s.start()
    fleet.ready()
    until("the child", 5, lambda: disguised(fleet))
    group = the_group_with(fleet, 3)
    os.kill(s.pid(), signal.SIGKILL)
    until("the crash to be seen", 5, lambda: s.ctl("show", "-P", "ActiveState", s.name) == "failed")
    assert len(members_of(group)) == 3
    s.ctl("stop", s.name)
    until(lambda: f"an end of {members_of(group)}", 15, lambda: not members_of(group))


def the_group_with(fleet, n):
    found = groups(fleet)
    assert len(found) == 1 and len(members_of(list(found)[0])) == n
    return found.pop()


def test_systemd_does_not_answer(service):
    """With the bus gone a generation goes without a scope, at once, and says so once."""
    s = service(nodes=1, lines="---Environment=DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nonexistent")
    fleet = s.start()
    fleet.ready()
    fleet.kill_member(0)
    fleet.ready(generation=2)
    assert s.scopes() == []
    assert read(fleet.daemon_log).count("without control groups of their own") == 1


# --- neither root nor a user's manager ------------------------------------------------------------


@pytest.fixture
def user():
    """An unprivileged user, and what it needs of what the tests made."""
    name = "h2ofleet"
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(name)
    subprocess.run(["useradd", "--system", name], check=True)
    return pwd.getpwnam(name)


def give(fleet, user):
    fleet.daemon_log.touch()
    for path in (fleet.dir, *fleet.dir.rglob("*")):
        shutil.chown(path, user.pw_uid, user.pw_gid)
    jar = pathlib.Path(fleet.clouds["c"]["jar_path"])
    for path in jar.parents:
        if str(path).startswith("/tmp/"):
            path.chmod(path.stat().st_mode | 0o055)


@pytest.fixture
def delegated():
    """The units as shipped."""
    made = []
    for name in ("h2ofleet-clouds.service", "h2ofleet-clouds.target"):
        text = (REPO / "systemd" / name).read_text().replace("h2ofleetd.service", "@daemon@")
        made.append((UNITS / name, text))

    def install(service):
        for path, text in made:
            path.write_text(text.replace("@daemon@", service.name))
        sh("systemctl", "daemon-reload")

    yield install
    sh("systemctl", "stop", "h2ofleet-clouds.service", "h2ofleet-clouds.target", check=False)
    for path, _ in made:
        with contextlib.suppress(OSError):
            path.unlink()
    sh("systemctl", "daemon-reload")


SANDBOX = """Wants=h2ofleet-clouds.service
After=h2ofleet-clouds.service
---User=h2ofleet
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectControlGroups=yes
ReadWritePaths=-/sys/fs/cgroup/system.slice/h2ofleet-clouds.service
"""


def test_delegated_unit(service, delegated, user):
    """A sandboxed daemon without privileges: systemd puts the members into subgroups of the unit that is
    delegated to its user. Restart and crash leave them alone, stop ends all, also after a crash."""
    s = service(nodes=2, lines=SANDBOX, restart="on-failure", knobs="-Dfake.0.g1.fork_child=3")
    delegated(s)
    give(s.fleet, user)
    fleet = s.start()
    pids = [n["pid"] for n in fleet.ready()["nodes"]]
    until("the child", 5, lambda: disguised(fleet))
    group = the_group_with(fleet, 3)
    assert group.parent.name == "h2ofleet-clouds.service" and group.name.endswith("-c.1")
    s.ctl("restart", s.name)
    assert [n["pid"] for n in fleet.ready()["nodes"]] == pids
    old = s.pid()
    os.kill(old, signal.SIGKILL)
    until("another daemon", 10, lambda: s.pid() not in (0, old))
    until("an answer", 10, fleet_answers(fleet))
    assert [n["pid"] for n in fleet.ready()["nodes"]] == pids
    fleet.kill_member(1)
    fleet.ready(generation=2)
    assert not group.exists()
    group = the_group(fleet, 2, suffix="")
    s.write(restart="no")
    os.kill(s.pid(), signal.SIGKILL)
    until("the crash to be seen", 5, lambda: s.ctl("show", "-P", "ActiveState", s.name) == "failed")
    assert len(members_of(group)) == 2
    s.ctl("stop", s.name)
    until("the end of all", 15, lambda: not any(pid_alive(p) for p in fleet.seen_pids))
    assert show("h2ofleet-clouds.service", "ActiveState") == "inactive"


def test_without_the_delegated_unit(service, user):
    """Nothing to be had: said once, and the clouds run."""
    s = service(nodes=1, lines="---User=h2ofleet")
    give(s.fleet, user)
    fleet = s.start()
    fleet.ready()
    fleet.kill_member(0)
    fleet.ready(generation=2)
    assert read(fleet.daemon_log).count("without control groups of their own") == 1
    assert read(fleet.daemon_log).count("h2ofleet-clouds.service") == 1


# --- a user's manager -----------------------------------------------------------------------------


def test_user_manager(service, user):
    """A user's daemon: scopes of that user's manager."""
    run = pathlib.Path(f"/run/user/{user.pw_uid}")
    run.mkdir(parents=True, exist_ok=True)
    shutil.chown(run, user.pw_uid, user.pw_gid)
    run.chmod(0o700)
    sh("systemctl", "start", f"user@{user.pw_uid}.service", check=False)
    if not (run / "systemd/private").exists():
        pytest.skip("no user's manager can be had here")
    try:
        as_user = ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups",
                   "env", f"XDG_RUNTIME_DIR={run}")
        s = service(nodes=2, manager=as_user, env={"uid": user.pw_uid})
        give(s.fleet, user)
        fleet = s.start()
        fleet.ready()
        group = the_group(fleet, 1)
        assert f"user@{user.pw_uid}.service" in str(group)
        assert s.scopes() == [group.name]
        pids = fleet.pids()
        s.ctl("restart", s.name)
        assert fleet.ready() and fleet.pids() == pids
        s.ctl("stop", s.name)
        assert not any(pid_alive(p) for p in pids)
        s.remove()
    finally:
        sh("systemctl", "stop", f"user@{user.pw_uid}.service", check=False)
