"""State files that are damaged, foreign or lie, under live members: the next daemon never obeys one,
never dies of one and says what it does; it ends what it cannot take back, found by its token, leaves
strangers alone, and comes up ready."""

import concurrent.futures
import json
import os
import pathlib
import random
import re
import signal
import time
import zlib

import pytest

from crash import READY_S, Bystander, CrashFleet, start_ticks
from fleet import read, until
from test_points import JOBS, SEED

SECONDS = float(os.environ.get("H2OFLEET_CRASH_SECONDS", "90")) / 9

AT_REST = {"autostart": "no"}


def checksum(state):
    """As state.c makes it, so that what a test changes is believed."""
    text = json.dumps(state, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"crc32:{zlib.crc32(text.encode()):08x}"


def edit(path, change):
    whole = json.loads(path.read_text())
    assert whole["checksum"] == checksum(whole["state"])
    change(whole)
    whole["checksum"] = checksum(whole["state"])
    path.write_text(json.dumps(whole))


def first_node(**members):
    def change(whole):
        whole["state"]["cloud"]["nodes"][0].update(members)
        if "pid" in members:
            whole["state"]["members"][0]["last_pid"] = members["pid"]
    return change


def cloud(**members):
    return lambda whole: whole["state"]["cloud"].update(members)


def state(**members):
    return lambda whole: whole["state"].update(members)


def replace_by_link(path):
    """To a copy elsewhere, which nobody may write to."""
    copy = path.parent / "copy.json"
    path.rename(copy)
    path.symlink_to(copy)


def replace_by_directory(path):
    path.unlink()
    path.mkdir()
    (path / "within").write_text("x")


# Torn and foreign ones: (what is done to the file, must it be set aside with a message?)
DAMAGE = {
    "empty": (lambda p: p.write_text(""), True),
    "half": (lambda p: os.truncate(p, p.stat().st_size // 2), True),
    "last byte gone": (lambda p: os.truncate(p, p.stat().st_size - 1), True),
    "zeros": (lambda p: p.write_bytes(bytes(p.stat().st_size)), True),
    "garbage": (lambda p: p.write_bytes(random.Random(1).randbytes(3000)), True),
    "deep": (lambda p: p.write_text("[" * 100000), True),
    "huge": (lambda p: os.truncate(p, 64 << 20), True),
    "list": (lambda p: p.write_text("[]"), True),
    "wrong checksum": (lambda p: p.write_text(p.read_text().replace('"running"', '"stopped"')), True),
    "newer version": (lambda p: edit(p, lambda w: w.update(version=99)), True),
    "no version": (lambda p: edit(p, lambda w: w.pop("version")), True),
    "no state": (lambda p: p.write_text('{"version": 2, "checksum": "crc32:00000000"}'), True),
    "other fleet": (lambda p: edit(p, state(fleet="0123456789abcdef")), True),
    "no cloud": (lambda p: edit(p, lambda w: w["state"].pop("cloud")), False),
    "other boot": (lambda p: edit(p, state(boot_id="00000000-0000-0000-0000-000000000000")), False),
    "no boot": (lambda p: edit(p, lambda w: w["state"].pop("boot_id")), False),
    "directory": (replace_by_directory, True),
    "removed": (lambda p: p.unlink(), False),
    "dangling link": (lambda p: (p.unlink(), p.symlink_to("/nonexistent/x")), False),
    "pid 0": (lambda p: edit(p, first_node(pid=0)), False),
    "pid -1": (lambda p: edit(p, first_node(pid=-1)), False),
    "pid too big": (lambda p: edit(p, first_node(pid=1 << 40)), False),
    "init's pid": (lambda p: edit(p, first_node(pid=1)), False),
    "init": (lambda p: edit(p, first_node(pid=1, start_ticks=start_ticks(1))), False),
    "generation -1": (lambda p: edit(p, cloud(generation=-1)), False),
    "unknown state": (lambda p: edit(p, cloud(state="dancing")), False),
    "state is a list": (lambda p: edit(p, cloud(state=[])), False),
    "port 0": (lambda p: edit(p, first_node(api_port=0)), False),
    "port too big": (lambda p: edit(p, first_node(api_port=65536)), False),
    "three members": (lambda p: edit(p, lambda w: w["state"]["members"].append({})), False),
    "three nodes": (lambda p: edit(p, lambda w: w["state"]["cloud"]["nodes"].append({})), False),
    "times": (lambda p: edit(p, state(monotonic_ms=1 << 60)), False),
    "null": (lambda p: edit(p, lambda w: w["state"].update(dict.fromkeys(w["state"]))), False),
}


@pytest.fixture
def fleet(request, jar, crasher):
    """A ready cloud, its daemon killed, and a bystander; all is ended, checked and removed after."""
    made = CrashFleet(jar)
    bystander = Bystander(made, jar)
    made.bystander = bystander
    made.forgiven = False
    wrong = []
    try:
        made.start()
        made.ready()
        made.before = {n["pid"] for n in made.nodes()}
        made.kill_daemon()
        yield made
    finally:
        wrong += bystander.close()
        made.seen_pids |= made.journal().pids()
        made.killed = made.ended()
        wrong += made.close()
        # Where the state was lost, numbers of generations begin again; their lives must not meet.
        wrong += [w for w in made.journal().violations() if "was started while" in w]
        if wrong:
            made.save(crasher.keep / re.sub(r"\W+", "-", request.node.name))
        made.remove()
    assert not wrong or made.forgiven, "\n".join(wrong)


def goes_on(fleet):
    """A new daemon brings the cloud up; True if with its old members."""
    mark = len(read(fleet.daemon_log))
    fleet.start()
    cloud_ = fleet.ready(timeout=READY_S)
    fleet.said = read(fleet.daemon_log)[mark:]
    pids = {n["pid"] for n in cloud_["nodes"]}
    if pids != fleet.before:
        until("the old members' end", READY_S, lambda: not fleet.before & {
            s.pid for s in fleet.journal().alive()})
    return pids == fleet.before


# Not yet so.
KNOWN = {}


def known(name):
    return pytest.param(name, marks=pytest.mark.xfail(reason=KNOWN[name])) if name in KNOWN else name


@pytest.mark.parametrize("name", list(map(known, DAMAGE)))
def test_damaged_state(fleet, name):
    """Whatever is in the file: the daemon comes up, and so does its cloud, which is either adopted by
    what is true, or ended and begun anew; what is torn or foreign is kept aside, and it is said."""
    damage, aside = DAMAGE[name]
    damage(fleet.state_path())
    adopted = goes_on(fleet)
    if aside:
        assert not adopted
        assert re.search(r"state\.json is not used: .*; it is kept as", fleet.said), fleet.said
        assert list(fleet.state_path().parent.glob("state.json.unusable*"))
    assert fleet.state()["state"] == "ready"


def test_undamaged_state(fleet):
    """What edit() writes is believed: so the cases above are not refused for its form."""
    edit(fleet.state_path(), lambda w: None)
    assert goes_on(fleet)


def test_state_behind_a_link(fleet):
    """A link in the file's place is not written through."""
    path = fleet.state_path()
    replace_by_link(path)
    before = path.read_text()
    goes_on(fleet)
    assert (path.parent / "copy.json").read_text() == before
    assert not path.is_symlink()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_state(fleet):
    """As a torn one."""
    fleet.state_path().chmod(0)
    assert not goes_on(fleet)


@pytest.mark.parametrize("ticks", ["its own", "another's", "none"])
def test_foreign_pid(fleet, ticks):
    """A pid that is another process's by now, even with that one's start time: it is no member, is
    never signalled (the fixture asks it) and keeps its files; the cloud is begun anew."""
    pid = fleet.bystander.pid
    edit(fleet.state_path(), first_node(pid=pid, start_ticks={
        "its own": start_ticks(pid), "another's": start_ticks(pid) - 7, "none": 0}[ticks]))
    perf = pathlib.Path(f"/tmp/hsperfdata_root/{pid}") if os.geteuid() == 0 else None
    if perf:
        perf.parent.mkdir(exist_ok=True)
        perf.write_text("of the bystander")
    try:
        assert not goes_on(fleet)
        assert not perf or perf.exists(), "the perf file of a living stranger was removed"
    finally:
        if perf:
            perf.unlink(missing_ok=True)


def test_dead_members(fleet):
    """All have died meanwhile: begun anew."""
    for pid in fleet.before:
        os.kill(pid, signal.SIGKILL)
    assert not goes_on(fleet)
    assert fleet.cloud()["generation"] == 2


@pytest.mark.parametrize("what", list(map(known, ["fleet-id", "session", "lock"])))
@pytest.mark.parametrize("damage", ["empty", "garbage", "removed"])
def test_other_files(fleet, what, damage):
    """The other files of the state directory: never fatal, and no member is left beside new ones."""
    fleet.forgiven = what in KNOWN
    path = fleet.state_dir / what
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(b"" if damage == "empty" else b"\xff\0not what was written\n" * 9)
    goes_on(fleet)


# --- each length, each byte -----------------------------------------------------------------------


def damages(text):
    """name -> torn or changed content: each length, and each bit of each byte."""
    for n in range(len(text)):
        yield f"cut to {n}", text[:n]
    for i, byte in enumerate(text):
        for bit in range(8):
            yield f"bit {bit} of byte {i}", text[:i] + bytes([byte ^ 1 << bit]) + text[i + 1:]


def refuses(fleet, contents):
    """Starts a daemon on each of them; sentences about those that were not refused."""
    wrong, n = [], 0
    for name, content in contents:
        for path in fleet.state_path().parent.glob("state.json*"):
            path.unlink()
        fleet.state_path().write_bytes(content)
        fleet.daemon_log.write_text("")
        fleet.daemon = fleet.spawn()
        until(lambda: f"the daemon on {name}", 10, lambda: fleet.ended() or fleet.says("control socket"))
        if fleet.ended() or not fleet.says(r"state\.json is not used"):
            wrong.append(f"{name}: {fleet.log_tail()}")
        fleet.daemon.kill()
        fleet.daemon.wait()
        fleet.daemons.clear()
        n += 1
    return n, wrong


def test_torn_anywhere(jar, report):
    """Each length to which the file may be cut, each bit that may flip: it is refused, and the daemon
    comes up all the same. As many as the time allows."""
    first = CrashFleet(jar)
    first.start()
    first.ready()
    first.kill_daemon()
    text = first.state_path().read_bytes()
    fleet_id = read(first.state_dir / "fleet-id")
    first.start()
    assert not first.close()
    first.remove()

    todo = list(damages(text))
    total = len(todo)
    random.Random(SEED).shuffle(todo)
    end = time.monotonic() + SECONDS if SECONDS else None
    contents = iter(todo)

    def take():
        while not end or time.monotonic() < end:
            try:
                yield next(contents)
            except StopIteration:
                return

    def work(_):
        fleet = CrashFleet(jar, **AT_REST)
        try:
            fleet.state_path().parent.mkdir(parents=True)
            (fleet.state_dir / "fleet-id").write_text(fleet_id)
            return refuses(fleet, take())
        finally:
            fleet.killed = True
            fleet.daemon = None
            fleet.close()
            fleet.remove()

    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        done = list(pool.map(work, range(JOBS)))
    wrong = [sentence for _, sentences in done for sentence in sentences]
    report(f"state file of {len(text)} bytes: {sum(n for n, _ in done)} of {total} ways to damage it tried, "
           f"{len(wrong)} not refused")
    assert not wrong, "\n".join(wrong[:20])
