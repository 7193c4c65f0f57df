"""The daemon is killed at every system call with effect that it makes during launch, adoption, restart,
stop, ..., and started again: each scenario of crash.py is a test. It proves that whatever the moment
of a daemon's death, no slot ever has two JVMs, no generation lives beside another, a cloud that
served is adopted as it is, what the operator was told has been done stays done, no other process is
signalled, and the next daemon brings all into order and leaves nothing.

H2OFLEET_CRASH_SECONDS (90)  so long for all scenarios together, with points chosen by
H2OFLEET_CRASH_SEED          this number; 0 seconds: every point
H2OFLEET_CRASH_POINT         only this one, as the message of a failure names it
H2OFLEET_CRASH_EVERY=1       every call, also those without effect (hours)
H2OFLEET_CRASH_JOBS (10)     at once"""

import collections
import concurrent.futures
import os
import random
import subprocess
import time

import pytest

import crash
from crash import CRASHPOINT, SCENARIOS, Journal, Point, Tracer

pytestmark = pytest.mark.xdist_group("points")  # one process, whose threads share the time

SECONDS = float(os.environ.get("H2OFLEET_CRASH_SECONDS", "90"))
SEED = int(os.environ.get("H2OFLEET_CRASH_SEED") or time.time())
ONE = os.environ.get("H2OFLEET_CRASH_POINT")
EVERY = bool(os.environ.get("H2OFLEET_CRASH_EVERY"))
STRIDE = 60
JOBS = int(os.environ.get("H2OFLEET_CRASH_JOBS", "10"))


def points_of(name, calls, total):
    if EVERY:
        return [Point(name, "every", n) for n in range(1, total + 1)]
    # The world moves by itself while the daemon waits: some moments in between, too.
    between = [Point(name, "every", n) for n in range(STRIDE, total + 1, STRIDE)]
    releases = sum(c.detail.startswith("release") for c in calls)
    return [Point(name, when, c.n) for c in calls for when in ("entry", "exit")] + between + [
        Point(name, "hold", n) for n in range(1, releases + 1)]


@pytest.fixture(scope="module")
def lists(crasher):
    """(calls with effect, number of all) by scenario."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return dict(zip(SCENARIOS, pool.map(crasher.list, SCENARIOS)))


def try_points(crasher, points, seconds):
    """The results, as far as the time went."""
    end = time.monotonic() + seconds if seconds else None

    def one(point):
        return crasher.run(point) if not end or time.monotonic() < end else None

    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        return [result for result in pool.map(one, points) if result]


def verdict(results):
    """What is to be said about those that are not as they should be."""
    return "\n".join(
        f"{r.point}: killed at {r.call and ' '.join(r.call[2:])}, then {r.outcome}:\n  " +
        "\n  ".join(r.wrong) for r in results if r.wrong)


@pytest.mark.parametrize("name", SCENARIOS)
def test_points(name, crasher, lists, report):
    if ONE:
        if Point.parse(ONE).scenario != name:
            pytest.skip("of another scenario")
        wrong = verdict([crasher.run(Point.parse(ONE))])
        assert not wrong, wrong
        return
    calls, total = lists[name]
    points = points_of(name, calls, total)
    random.Random(SEED).shuffle(points)
    share = len(points) / sum(len(points_of(n, *lists[n])) for n in lists)
    results = try_points(crasher, points, SECONDS * share)
    reached = [r for r in results if r.call]
    outcomes = collections.Counter(r.outcome for r in reached)
    report(f"{name}: {total} system calls, {len(calls)} with effect; {len(results)} of {len(points)} "
           f"points tried, {len(reached)} reached (" +
           ", ".join(f"{n} {o}" for o, n in outcomes.most_common()) +
           f"), {sum(bool(r.wrong) for r in results)} violate an invariant")
    wrong = verdict(results)
    assert not wrong, f"seed {SEED}; one of them again: H2OFLEET_CRASH_POINT=POINT\n{wrong}"
    assert reached


# --- that the instruments measure -----------------------------------------------------------------


@pytest.mark.parametrize("when", ["entry", "exit"])
def test_kill_before_and_after_a_call(tmp_path, when):
    """At its entry a call is not executed any more, at its exit it is."""
    made = tmp_path / "made"
    victim = subprocess.Popen([CRASHPOINT, "run", "/bin/mkdir", made])
    tracer = Tracer(victim.pid, "--exec", "--at", "1", *Point.OPTIONS[when])
    assert victim.wait(20) == -9
    assert tracer.process.wait(20) == 0  # says what it did after it has done it
    assert tracer.finish().calls[0].name.startswith("mkdir")
    assert made.is_dir() == (when == "exit")


def test_journal_shows_overlaps(tmp_path):
    """Members of one generation may live at once, nothing else of that cloud may."""
    path = tmp_path / "journal"
    lives = ["1 start 10 7 f/c/0/1", "2 start 11 7 f/c/1/1", "3 beside 11 10 f/c/0/1",
             "4 start 12 7 g/c/0/1", "4 beside 12 10 f/c/0/1", "5 signal 10 15", "6 end 10 143"]
    path.write_text("\n".join(lives) + "\n")
    assert not Journal(path).violations()
    for more in (["7 start 13 8 f/c/0/2", "7 beside 13 11 f/c/1/1"],
                 ["7 start 13 8 f/c/1/2", "7 beside 13 11 f/c/1/1"], ["7 start 13 8 f/c/0/1"]):
        path.write_text("\n".join(lives + more) + "\n")
        assert len(Journal(path).violations()) == 1, more


def test_bystander_tells(jar, tmp_path):
    """The process that must not be signalled notices when it is."""
    class Place:
        dir = tmp_path
        ports = crash.Ports()

    for sig in (0, 15, 9):
        bystander = crash.Bystander(Place, jar)
        os.kill(bystander.pid, sig)
        if sig:
            bystander.process.wait(20)
        assert bool(bystander.close()) == bool(sig)
        bystander.path.unlink()
