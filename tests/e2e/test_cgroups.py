"""Clouds in control groups of their own, without systemd: directories below the daemon's own group.
What systemd does is in test_scopes.py."""

import os
import pathlib
import signal
import subprocess
import urllib.request

import pytest

from fleet import cgroup_of, pid_alive, processes, read, until

QUICK = {"start_limit": "60 in 1m", "restart_delay_max": "0s"}


@pytest.fixture
def box(request):
    """A control group for a daemon, so that these tests meet nobody else's."""
    own = cgroup_of()
    if pathlib.Path("/run/systemd/system").exists():
        pytest.skip("systemd runs here: see test_scopes.py")
    if not own or not os.access(own, os.W_OK) or not os.access(own / "cgroup.procs", os.W_OK):
        pytest.skip("no cgroup v2 that we may write to")
    path = own / f"h2ofleet-e2e-{os.getpid()}"
    path.mkdir()
    yield path
    for sub in [*path.glob("*/"), path]:
        until(lambda: f"{sub} to be empty", 5, lambda: not members_of(sub))
        sub.rmdir()


@pytest.fixture
def boxed(box, fake):
    """fake(), with the daemon in the box."""

    def make(**keys):
        fleet = fake(start=False, **keys)
        fleet.cgroup = box
        return fleet.start()

    return make


def members_of(group):
    return sorted(int(p) for p in read(group / "cgroup.procs").split())


def tell(fleet, index, knob, value):
    url = f"http://127.0.0.1:{fleet.nodes()[index]['api_port']}/fake/{knob}?value={value}"
    with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=5) as answer:
        assert answer.status == 200


def group_of(fleet, generation=1):
    names = fleet.cgroups()
    assert len(names) == 1 and names[0].endswith(f"-c.{generation}"), names
    return fleet.cgroup / names[0]


def disguised(fleet):
    """What -Dfake.fork_child=3 has left: neither our environment nor our session tells whose it is."""
    return [p for p, cmd in processes(str(fleet.state_dir)).items()
            if cmd.endswith(" 120") and not read(f"/proc/{p}/environ")]


def test_each_generation_has_its_own(boxed):
    """The group of a generation holds exactly its members, from before they execute on; the next
    generation has another, and after a stop there is none. The daemon is in none of them."""
    fleet = boxed(nodes=3, **QUICK)
    fleet.ready()
    assert members_of(group_of(fleet)) == sorted(fleet.pids())
    assert fleet.daemon.pid in members_of(fleet.cgroup)
    fleet.kill_member(1)
    fleet.ready(generation=2)
    assert members_of(group_of(fleet, 2)) == sorted(fleet.pids())
    fleet.cli("stop", "c", "--wait")
    assert fleet.cgroups() == []


def test_placed_before_exec(boxed):
    """A node that asks at once finds itself in the group: it never ran outside."""
    fleet = boxed(nodes=1, autostart="no")
    java = fleet.dir / "java"
    java.write_text(f"#!/bin/sh\ncat /proc/self/cgroup >>{fleet.dir}/seen\n"
                    f"exec {fleet.clouds['c']['java']} \"$@\"\n")
    java.chmod(0o755)
    fleet.stop()
    fleet.clouds["c"].update(java=java, autostart="yes")
    fleet.write_config()
    fleet.start()
    fleet.ready()
    seen = [line for line in read(fleet.dir / "seen").splitlines() if line.startswith("0::")]
    assert seen and seen[-1].endswith(f"/{group_of(fleet).name}"), seen


def test_pressure(boxed):
    """The status tells the pressure of the cloud's own group while it has one, else the machine's."""
    if not pathlib.Path("/proc/pressure/cpu").exists():
        pytest.skip("this kernel tells no pressure")
    fleet = boxed(nodes=1)
    assert fleet.ready()["pressure"]["of"] == "cloud"
    assert fleet.cloud()["pressure"]["cpu"] >= 0
    fleet.cli("stop", "c", "--wait")
    assert fleet.cloud()["pressure"]["of"] == "machine"


def test_disguised_process_ends_with_its_cloud(boxed):
    """What has left process group and session and has an empty environment is found all the same."""
    fleet = boxed(nodes=2, knobs="-Dfake.0.fork_child=3")
    fleet.ready()
    until("the child", 5, lambda: len(disguised(fleet)) == 1)
    fleet.cli("stop", "c", "--wait")
    assert disguised(fleet) == [] and fleet.cgroups() == []
    assert "processes without our token were left" in read(fleet.daemon_log)


def test_disguised_process_ends_before_the_next_generation(boxed):
    """Nothing of an old generation runs beside a newer one."""
    fleet = boxed(nodes=2, knobs="-Dfake.0.g1.fork_child=3", **QUICK)
    fleet.ready()
    child = until("the child", 5, lambda: disguised(fleet))[0]
    fleet.kill_member(1)
    fleet.ready(generation=2)
    assert not pid_alive(child)
    assert members_of(group_of(fleet, 2)) == sorted(fleet.pids())


def test_last_rung(boxed):
    """Nodes that ignore SIGTERM end by SIGKILL, and what they hid with them, at once."""
    fleet = boxed(nodes=2, knobs="-Dfake.ignore_term=1 -Dfake.0.fork_child=3", stop_timeout="300ms")
    fleet.ready()
    until("the child", 5, lambda: len(disguised(fleet)) == 1)
    fleet.cli("stop", "c", "--wait")
    assert disguised(fleet) == [] and fleet.cgroups() == []
    assert "SIGKILL to all in" in read(fleet.daemon_log)
    assert "processes without our token" not in read(fleet.daemon_log)


def test_daemon_killed(boxed):
    """The daemon's death touches no group; the next one finds them again, and what is hidden there."""
    fleet = boxed(nodes=2, knobs="-Dfake.0.fork_child=3", **QUICK)
    before = fleet.ready()
    until("the child", 5, lambda: len(disguised(fleet)) == 1)
    group = group_of(fleet)
    fleet.kill_daemon()
    assert len(members_of(group)) == 3
    fleet.start()
    after = fleet.ready()
    assert [n["pid"] for n in after["nodes"]] == [n["pid"] for n in before["nodes"]]
    assert group_of(fleet) == group and len(members_of(group)) == 3
    assert after["pressure"] is None or after["pressure"]["of"] == "cloud"
    fleet.cli("stop", "c", "--wait")
    assert disguised(fleet) == [] and fleet.cgroups() == []


def test_left_by_a_dead_fleet(boxed):
    """Daemon and members dead, something hidden left: the next daemon ends it before it starts
    anything, and touches no group but ours."""
    fleet = boxed(nodes=1, knobs="-Dfake.g1.fork_child=3", **QUICK)
    fleet.ready()
    child = until("the child", 5, lambda: disguised(fleet))[0]
    others = [fleet.cgroup / name for name in ("h2ofleet-00000000-c.1", "foreign")]
    sleeps = []
    for other in others:
        other.mkdir()
        sleeps.append(subprocess.Popen(["sleep", "100"]))
        (other / "cgroup.procs").write_text(str(sleeps[-1].pid))
    try:
        pids = fleet.pids()
        fleet.kill_daemon()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        fleet.start()
        fleet.ready(generation=2)
        assert not pid_alive(child)
        assert members_of(group_of(fleet, 2)) == fleet.pids()
        assert [s.poll() for s in sleeps] == [None, None]
    finally:
        for s in sleeps:
            s.kill()
            s.wait()


def test_one_hung_node_is_no_reason_to_kill_all(boxed):
    """A hung node is killed at once, the others are asked first: the group is not killed then."""
    fleet = boxed(nodes=2, knobs="-Dfake.term_ms=200", hang_timeout="1s", late_after="300ms",
                  health_interval="100ms", **QUICK)
    fleet.ready()
    tell(fleet, 1, "hang", 1)
    fleet.ready(generation=2)
    log = read(fleet.daemon_log)
    assert "SIGKILL to pid" in log and "SIGTERM to pid" in log and "SIGKILL to all in" not in log


def test_limits_without_their_controller(boxed):
    """A limit that cannot be had is said, once, and the cloud runs."""
    fleet = boxed(nodes=1, memory_max="8g", cpu_quota="150%", **QUICK)
    group = fleet.ready() and group_of(fleet)
    if (group / "memory.max").exists() and (group / "cpu.max").exists():
        pytest.skip("both controllers are there")
    fleet.kill_member(0)
    fleet.ready(generation=2)
    assert read(fleet.daemon_log).count("is not in force") == 1


def test_limits(boxed, box):
    """memory_max and cpu_quota are in force on the cloud's group."""
    fleet = boxed(nodes=1, memory_max="8g", cpu_quota="150%", oom_policy="kill")
    group = fleet.ready() and group_of(fleet)
    if not (group / "memory.max").exists() or not (group / "cpu.max").exists():
        pytest.skip("the controllers memory and cpu are not on cgroup v2 here, or not for us")
    assert read(group / "memory.max").strip() == str(8 << 30)
    assert read(group / "cpu.max").split() == ["150000", "100000"]
    assert read(group / "memory.oom.group").strip() == "1"


def test_turned_off(boxed):
    """scopes = no: no groups, and the token alone tells what is ours."""
    fleet = boxed(nodes=1, fleet={"scopes": "no"}, knobs="-Dfake.fork_child=2")
    fleet.ready()
    assert fleet.cgroups() == []
    until("the child", 5, lambda: len(fleet.members()) == 2)
    fleet.cli("stop", "c", "--wait")
    assert fleet.members() == {}


def test_group_that_cannot_be_made(boxed):
    """Where no group can be made the cloud runs without; that is said once."""
    fleet = boxed(nodes=1, autostart="no", **QUICK)
    (fleet.cgroup / "cgroup.max.descendants").write_text("0")
    fleet.cli("start", "c", "--wait")
    fleet.kill_member(0)
    fleet.ready(generation=2)
    assert fleet.cgroups() == []
    assert read(fleet.daemon_log).count("without control groups of their own") == 1
