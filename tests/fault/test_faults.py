"""Each call that the daemon makes and that can fail (memory, processes, files, sockets, libcurl,
libmicrohttpd) is made to fail once, during launch, adoption, restart, stop, ...: each scenario of
fault.py is a test. It proves that whatever fails, the daemon goes on (only an allocation may abort
it, and what it needs at its start may keep it from starting, with a sentence), what was asked for comes
about, if need be when it is asked for again, the cloud serves, is watched and its state is on the disk, no
invariant of tests/crash is violated, and no process, port, descriptor or file is left over. With
the sanitizers' build also no memory.

H2OFLEET_FAULT_SECONDS (30)  so long for all scenarios together, with points chosen by
H2OFLEET_FAULT_SEED          this number; 0 seconds: every point
H2OFLEET_FAULT_POINT         only this one, as the message of a failure names it
H2OFLEET_FAULT_KINDS         only points whose call matches this (a regular expression)
H2OFLEET_FAULT_EVERY=1       in each scenario also what another one has, and each time, not the first two
H2OFLEET_FAULT_JOBS (10)     at once"""

import collections
import concurrent.futures
import multiprocessing
import os
import pathlib
import random
import re
import subprocess
import sys
import time

import pytest

import fault
from fault import SCENARIOS, Faults, Plan, Point, Site, points_of

SECONDS = float(os.environ.get("H2OFLEET_FAULT_SECONDS", "30"))
SEED = int(os.environ.get("H2OFLEET_FAULT_SEED") or time.time())
ONE = os.environ.get("H2OFLEET_FAULT_POINT")
KINDS = re.compile(os.environ.get("H2OFLEET_FAULT_KINDS", ""))
EVERY = bool(os.environ.get("H2OFLEET_FAULT_EVERY"))
JOBS = int(os.environ.get("H2OFLEET_FAULT_JOBS", "10"))

# What once failed, by the functions on the way to the call; tried each time.
REGRESSIONS = [
    # java could not be executed for want of something: the cloud had failed for good
    ("launch", "execve", "ENOMEM", "java_ask", 1),
    ("launch", "dup2", "EMFILE", "spawn_member", 1),
    # a child that could not be released waited for ever
    ("launch", "send", "ENOBUFS", "launch_release", 1),
    # /tmp/hsperfdata_NAME was never looked into again
    ("launch", "getpwuid", "EMFILE", "fleet_user", 1),
    # no gate as long as the daemon lived
    ("launch", "readlink", "ENOMEM", "find_program", 1),
    # "is not executable", for good
    ("launch", "faccessat", "EIO", "check_java_file", 1),
    # "this machine has 0 bytes", for good
    ("launch", "open", "EMFILE", "read_number.*prepare_rest", 1),
    # it crashed
    ("launch", "epoll_create1", "EMFILE", "begin_libraries", 1),
    # a good state file was set aside as a damaged one, and a second generation 1 was begun
    ("adopt", "malloc", "ENOMEM", "parse_state", 1),
    # "gate_allow is too long"
    ("restart", "malloc", "ENOMEM", "door_message", 1),
    # the gate's link was lost with a door in it, which was never told again
    ("gate-serve", "epoll_ctl", "ENOSPC", "on_listener .control.c", 1),
]


# --- many at once: a process each, for they are busy with looking into /proc ------------------------

worker = None


def begin_worker(jar, keep, baselines):
    global worker
    worker = Faults(jar, keep)
    worker.baselines = baselines


def try_one(point, end):
    return worker.run(point) if not end or time.monotonic() < end else None


@pytest.fixture(scope="module")
def lists(faults):
    """The sites by scenario."""
    names = [Point.parse(ONE).scenario] if ONE else list(SCENARIOS)
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        return dict(zip(names, pool.map(faults.list, names)))


@pytest.fixture(scope="module")
def pool(faults, lists):
    with concurrent.futures.ProcessPoolExecutor(
            JOBS, multiprocessing.get_context("spawn"), begin_worker,
            (faults.jar, faults.keep, faults.baselines)) as pool:
        concurrent.futures.wait([pool.submit(time.sleep, 0.2) for _ in range(JOBS)])  # all are there
        yield pool


@pytest.fixture(scope="module")
def points(lists):
    """By scenario. What several come by in the same way is tried in the first one."""
    found, seen = {}, set()
    for name, sites in lists.items():
        mine = [s for s in sites if EVERY or s.id not in seen]
        seen |= {s.id for s in sites}
        found[name] = [p for p in points_of(name, mine, EVERY) if KINDS.search(p.call)]
    return found


@pytest.fixture(scope="module")
def tally():
    """How many points all scenarios together tried, and reached."""
    return collections.Counter()


def shuffled(points):
    points = list(points)
    random.Random(SEED).shuffle(points)
    return points


def try_points(pool, points, seconds, sites):
    """The results, as far as the time went. What is wrong is said at once, too: all points take hours."""
    end = time.monotonic() + seconds if seconds else None
    results = []
    for future in [pool.submit(try_one, point, end) for point in points]:
        if result := future.result():
            results.append(result)
            if result.wrong:
                print(verdict([result], sites), flush=True)
    return results


def verdict(results, sites):
    """What is to be said about those that are not as they should be."""
    stories = {s.id: s for s in sites}
    return "\n".join(
        f"{r.point}: {r.outcome}; {stories[r.point.site].story(r.point.scenario)}\n  " + "\n  ".join(r.wrong)
        for r in results if r.wrong)


@pytest.mark.parametrize("name", SCENARIOS)
def test_points(name, lists, points, pool, report, tally):
    if ONE:
        if Point.parse(ONE).scenario != name:
            pytest.skip("of another scenario")
        results = try_points(pool, [Point.parse(ONE)], 0, lists[name])
        wrong = verdict(results, lists[name])
        assert not wrong, wrong
        assert results[0].fired, "there is no such point (any more): its number is that of one build"
        return
    mine = shuffled(points[name])
    share = len(mine) / max(1, sum(map(len, points.values())))
    results = try_points(pool, mine, SECONDS * share, lists[name])
    reached = [r for r in results if r.fired]
    outcomes = collections.Counter(r.outcome for r in reached)
    report(f"{name}: {sum(s.count for s in lists[name])} calls at {len(lists[name])} sites; {len(results)} of "
           f"{len(mine)} points tried, {len(reached)} reached (" +
           ", ".join(f"{n} {o}" for o, n in outcomes.most_common()) +
           f"), {sum(bool(r.wrong) for r in results)} violate an invariant")
    tally.update(tried=len(results), reached=len(reached))
    wrong = verdict(results, lists[name])
    assert not wrong, f"seed {SEED}; one of them again: contrib/fault-points --again POINT\n{wrong}"


def test_points_are_reached(lists, points, pool, tally):
    """Most of what was tried has failed as it was to. Of one scenario alone that cannot be said: what only
    its list has, the others' not, may be what came about because something was slow that time."""
    if ONE:
        pytest.skip("only one point")
    if not tally:  # it runs alone
        for name in SCENARIOS:
            results = try_points(pool, shuffled(points[name])[:3], 0, lists[name])
            tally.update(tried=len(results), reached=sum(bool(r.fired) for r in results))
    assert 2 * tally["reached"] >= tally["tried"], tally


@pytest.mark.parametrize("name, call, error, way, nth", REGRESSIONS)
def test_regressions(name, call, error, way, nth, faults, lists, pool):
    """What has failed before does not any more."""
    if ONE:
        pytest.skip("only one point")
    def places(sites):
        return [s for s in sites if s.call == call and re.search(way, s.story(name))]

    found = places(lists[name])
    for _ in range(3):  # as below
        found = found or places(faults.list(name))
    assert found, "nobody comes by there"
    attempts = 0
    while True:  # whether anybody comes by again depends on what is quick
        attempts += 1
        results = try_points(pool, [Point(name, call, error, s.id, nth) for s in found[:3]], 0, found)
        wrong = verdict(results, found)
        assert not wrong, wrong
        if any(r.fired for r in results):
            return
        assert attempts < 10, f"of {len(found)} places none was come by, {attempts} times"


# --- that the instruments measure -----------------------------------------------------------------

EXAMPLE = """
import os, sys
def one(): os.open("/dev/null", os.O_RDONLY)
for _ in range(3):
    try: one(); print("opened")
    except OSError as e: print(e.strerror)
"""


def run_preloaded(tmp_path, plan):
    """A program under the daemon's name that opens a file three times at the same place."""
    program = tmp_path / "h2ofleetd"
    if not program.exists():
        program.symlink_to(sys.executable)
    plan.arm()
    return subprocess.run([program, "-c", EXAMPLE], stdout=subprocess.PIPE, text=True, check=True, env={
        **os.environ, "LD_PRELOAD": fault.LIBRARY, "H2OFLEET_FAULT": str(tmp_path / "plan")}).stdout.splitlines()


def test_fails_once(tmp_path):
    """The call at that site fails the time it is told to, with that errno, and at no other time."""
    plan = Plan(tmp_path / "plan", fault.DAEMON)
    assert run_preloaded(tmp_path, plan) == ["opened"] * 3
    site = next(s for s in plan.sites() if s.call == "open" and s.detail == "/dev/null" and s.count == 3)
    for nth in (1, 2, 3):
        plan = Plan(tmp_path / "plan", fault.DAEMON, Point("launch", "open", "ENFILE", site.id, nth))
        assert run_preloaded(tmp_path, plan) == [
            "Too many open files in system" if n == nth else "opened" for n in (1, 2, 3)]
        assert plan.fired


def test_names_are_whole():
    """A point is found again by what a failure calls it."""
    point = Point("launch", "write", "short", 0xfedcba9876543210, 2)
    assert Point.parse(str(point)) == point and point.code == fault.SHORT
    assert Point.parse("stop:open:EMFILE:1:1").code == 24


def test_all_calls_can_fail():
    """Each call that the library counts has a way to fail; what it does not know would never be tried."""
    source = (fault.HERE / "calls.c").read_text()
    counted = set(re.findall(r'^CALL(?:_PATH|_CODE)?\([^,]+,\s*[^,]+,\s*(\w+)', source, re.M))
    counted |= set(re.findall(r"^CALL_PART\((\w+)", source, re.M)) | set(re.findall(r'"([a-z]+-other|create)"', source))
    counted |= set(re.findall(r"^CALL_DATABASE\([^,]+, (\w+)", source, re.M))
    assert len(counted) > 80
    assert counted <= set(fault.ERRORS), counted - set(fault.ERRORS)
    assert isinstance(Site(1, 1, 0, "open", "", "", []), tuple)


def symbols(option, file):
    said = subprocess.run(["nm", "-D", option, file], stdout=subprocess.PIPE, text=True, check=True).stdout
    return {line.split()[-1].partition("@")[0] for line in said.splitlines()}


def test_no_call_goes_by():
    """_FORTIFY_SOURCE gives calls other names, in Debian's libraries, too; the library knows those that can fail."""
    gate = pathlib.Path(fault.H2OFLEETD).with_name("h2ofleet-gate")
    said = subprocess.run(["ldd", fault.H2OFLEETD], stdout=subprocess.PIPE, text=True, check=True).stdout
    ours = re.findall(r"=> (\S*/lib(?:uv|curl|microhttpd|systemd|jansson|zip|inih)\.so\S*)", said)
    assert len(ours) > 4
    called = set().union(*(symbols("--undefined-only", file) for file in (fault.H2OFLEETD, gate, *ours)))
    fortified = {s for s in called if re.fullmatch(r"__(?!.*printf|mem|str|stack|fdelt|explicit)\w+(_chk|64_2|open_2|openat_2)", s)}
    assert fortified
    assert fortified <= symbols("--defined-only", fault.LIBRARY)
