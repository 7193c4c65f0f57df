"""Clocks: a sleeping laptop, a stopped daemon, a wall clock that jumps cause no restart. Each test says
what it proves."""

import contextlib
import glob
import os
import signal
import time

import pytest

from fleet import read, until
from test_faults import QUICK, set_knob

SHORT = {"late_after": "300ms", "hang_timeout": "1s", "health_interval": "200ms", **QUICK}


def send(pids, sig):
    for pid in pids:
        os.kill(pid, sig)


def assert_untouched(fleet, before):
    cloud = fleet.ready()
    assert cloud["generation"] == before["generation"] and cloud["restarts"] == 0, fleet.story(cloud)
    assert [n["pid"] for n in cloud["nodes"]] == [n["pid"] for n in before["nodes"]]


@pytest.mark.parametrize("seconds", [0.7, 1.2, 1.9, 4])
def test_stopped_daemon(fake, seconds):
    """The daemon is stopped, for less, a little more and much more than hang_timeout, at different
    moments of its polls: nothing is restarted, nothing is even late."""
    fleet = fake(nodes=2, **SHORT)
    before = fleet.ready()
    for i in range(4):
        time.sleep(0.07 * i)
        fleet.send(signal.SIGSTOP)
        time.sleep(seconds)
        fleet.send(signal.SIGCONT)
        time.sleep(0.3)  # with what it finds when it wakes
    assert_untouched(fleet, before)
    assert "recovering" not in read(fleet.daemon_log)


def test_stopped_daemon_while_forming(fake):
    """Nor does ready_timeout pass while it is stopped."""
    fleet = fake(nodes=2, knobs="-Dfake.ready_ms=1000", ready_timeout="3s", **SHORT)
    until("a process", 10, fleet.pids)
    fleet.send(signal.SIGSTOP)
    time.sleep(5)
    fleet.send(signal.SIGCONT)
    assert fleet.ready()["generation"] == 1


@pytest.mark.parametrize("daemon_first", [True, False])
def test_all_stopped(fake, daemon_first):
    """As in a sleep: the daemon and all members stand still, for several times hang_timeout, and go on
    one after the other."""
    fleet = fake(nodes=2, **{**SHORT, "hang_timeout": "2s"})
    before = fleet.ready()
    members = [n["pid"] for n in before["nodes"]]
    for _ in range(2):
        order = [fleet.daemon.pid, *members]
        send(order, signal.SIGSTOP)
        time.sleep(5)
        for pid in order if daemon_first else reversed(order):
            send([pid], signal.SIGCONT)
            time.sleep(0.2)
        assert_untouched(fleet, before)


def test_waiting_client_of_a_stopped_daemon(fake):
    """The time for which the daemon was stopped is not the client's timeout: the answer comes."""
    fleet = fake(nodes=1, knobs="-Dfake.ready_ms=1500", autostart="no")
    fleet.cli("start", "c")
    fleet.send(signal.SIGSTOP)
    pid = os.fork()
    if pid == 0:
        time.sleep(4)
        os.kill(fleet.daemon.pid, signal.SIGCONT)
        os._exit(0)
    try:
        fleet.cli("wait", "c", "--for", "ready", "--timeout", "20s")
    finally:
        os.waitpid(pid, 0)


def crash(fleet, index):
    with contextlib.suppress(AssertionError):  # it may die before it answers
        set_knob(fleet, index, "hs_err", 1)


def libfaketime():
    found = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
    assert found, "libfaketime is not installed (apt-get install libfaketime)"
    return found[0]


def test_wall_clock_jumps(fake, tmp_path, under_valgrind):
    """The wall clock jumps by days, forwards and backwards, also while all stand still as in a laptop's
    sleep: no restart, no late node; only stamps tell. A loss is then recovered as ever."""
    if under_valgrind:
        pytest.skip("two preloaded libraries")
    offset = tmp_path / "offset"
    offset.write_text("+0\n")
    fleet = fake(nodes=2, env={
        "LD_PRELOAD": libfaketime(), "FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
    }, **{**SHORT, "hang_timeout": "2s"})
    before = fleet.ready()
    everything = [fleet.daemon.pid, *(n["pid"] for n in before["nodes"])]
    for jump in ("+3d", "-400d", "+0"):
        offset.write_text(f"{jump}\n")
        time.sleep(1)
        assert_untouched(fleet, before)
    send(everything, signal.SIGSTOP)
    time.sleep(3)
    offset.write_text("+500d\n")
    send(everything, signal.SIGCONT)
    time.sleep(1)
    assert_untouched(fleet, before)
    assert "degraded" not in read(fleet.daemon_log)
    crash(fleet, 1)
    last = fleet.ready(generation=2)["nodes"][1]["last_exit"]
    assert last["cause"] == "jvm-crash"
    jumped = time.gmtime(time.time() + 500 * 86400)
    assert last["at"].startswith(time.strftime("%Y-%m", jumped)), last["at"]  # the jump was real
    offset.write_text("-500d\n")
    crash(fleet, 0)
    assert fleet.ready(generation=3)["nodes"][0]["last_exit"]["cause"] == "jvm-crash"
