"""What is seen of a fleet from outside, all along: its processes, its endpoint, its control socket. Each watcher is a
thread; what must never be goes to Findings.add()."""

import collections
import contextlib
import http.client
import json
import os
import pathlib
import re
import threading
import time

from fleet import H2OFLEETD, MARK, SLOW, pid_alive, read

TOKEN = re.compile(rb"(?:^|\0)H2OFLEET_TOKEN=([0-9a-f]+)/([^/\0]+)/(\d+)/(\d+)(?:\0|$)")
# In no more time than this an endpoint is withdrawn whose cloud has lost a member, and the status says so.
WITHDRAWN_S = 2 * SLOW
# A probe that takes longer found nobody.
PROBE_S = 1.0

Member = collections.namedtuple("Member", "pid ticks cloud index generation name port")


class Findings:
    """What must never be; of each kind the first few are said, all are kept."""

    SAID = 5

    def __init__(self, log):
        self.log, self.all, self.lock = log, [], threading.Lock()

    def add(self, kind, sentence):
        with self.lock:
            self.all.append({"at": time.monotonic(), "kind": kind, "sentence": sentence})
            if sum(f["kind"] == kind for f in self.all) <= self.SAID:
                self.log(f"WRONG  {kind}: {sentence}")


class Spans:
    """Stretches of time, of which the last one may be under way."""

    def __init__(self):
        self.spans = []  # [begin, end or None, what]

    def begin(self, what):
        span = [time.monotonic(), None, what]
        self.spans.append(span)
        return span

    @contextlib.contextmanager
    def during(self, what):
        span = self.begin(what)
        try:
            yield span
        finally:
            span[1] = time.monotonic()

    def touching(self, begin, end, slack=0.0):
        """What was in [begin, end], or up to `slack` seconds before."""
        return [what for b, e, what in self.spans if b <= end and (e is None or e + slack >= begin)]


def identity(pid):
    """(start time in ticks, alive, its parent) of a process; None: there is none."""
    stat = read(f"/proc/{pid}/stat")
    if not stat:
        return None
    fields = stat.rpartition(")")[2].split()
    return int(fields[19]), fields[0] not in "ZX", int(fields[1])


def lives(member):
    return (identity(member.pid) or ())[:2] == (member.ticks, True)


class Watcher(threading.Thread):
    interval = 0.2

    def __init__(self, world):
        super().__init__(daemon=True)
        self.world, self.over = world, threading.Event()

    def run(self):
        while not self.over.is_set():
            begun = time.monotonic()
            self.look()
            self.over.wait(max(0.0, begun + self.interval - time.monotonic()))

    def end(self):
        self.over.set()
        self.join()


class Scanner(Watcher):
    """Who is alive, by /proc. One generation at a time, one life in each slot."""

    interval = 0.1

    def __init__(self, world):
        super().__init__(world)
        self.foreign = set()  # pids of others, which no scan has missed since
        self.known = {}  # pid -> Member
        self.alive = {}  # pid -> Member
        self.lives = {}  # (pid, ticks) -> [Member, first seen, last seen]
        self.lost = {}  # (cloud, generation) -> when it first lacked a member that it had had
        self.scans = 0

    def look(self):
        now, alive = time.monotonic(), {}
        pids = {int(name) for name in os.listdir("/proc") if name.isdigit()}
        self.foreign &= pids
        for pid in pids - self.foreign:
            seen = identity(pid)
            if not seen or not seen[1]:
                continue
            member = self.known.get(pid)
            if seen[2] in self.known and seen[2] in pids:
                continue  # what a member starts looks like itself until it has executed something
            if not member or member.ticks != seen[0]:
                member = self._ask(pid, seen[0])
            if member:
                self.known[pid] = alive[pid] = member
        for member in alive.values():
            self.lives.setdefault((member.pid, member.ticks), [member, now, now])[2] = now
        for pid, member in self.alive.items():
            if alive.get(pid) != member:
                self.lost.setdefault((member.cloud, member.generation), time.monotonic())
        self.alive = alive
        self.scans += 1
        self._judge(list(alive.values()))

    def _ask(self, pid, ticks):
        """A Member or None."""
        try:
            argv = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
            env = pathlib.Path(f"/proc/{pid}/environ").read_bytes()  # after it: that of what was executed meanwhile
        except OSError:
            return None
        token = TOKEN.search(env)
        if f"{MARK}={self.world.fleet.dir}".encode() in env and token and "-name" in argv:
            return Member(pid, ticks, token[2].decode(), int(token[3]), int(token[4]),
                          argv[argv.index("-name") + 1], int(argv[argv.index("-port") + 1]))
        # A copy of the daemon may be about to become one, or be in the midst of that.
        if argv[0] not in ("", H2OFLEETD):
            self.foreign.add(pid)
        return None

    def _judge(self, members):
        """The first of two may have been dead when the second was begun: so both are looked at again."""
        for i, one in enumerate(members):
            for two in members[i + 1:]:
                if one.cloud != two.cloud:
                    continue
                if one.index != two.index and (one.generation, one.name) == (two.generation, two.name):
                    continue
                if all(lives(m) for m in (one, two)):
                    self.world.findings.add("two generations", f"{one} lives beside {two}")

    def of(self, cloud):
        """index -> Member of those alive; the newest generation's."""
        members = [m for m in self.alive.values() if m.cloud == cloud]
        newest = max((m.generation for m in members), default=0)
        return {m.index: m for m in members if m.generation == newest}

    def lost_at(self, cloud, generation):
        return self.lost.get((cloud, generation))


class Prober(Watcher):
    """Asks the endpoint, as any client would, some times a second: available or not, and whether it is a whole
    cloud, of the newest generation."""

    interval = 0.2

    def __init__(self, world):
        super().__init__(world)
        self.samples = []  # (begun, seconds, generation or None, error or None)
        self.newest = None  # (generation, name)
        self.pids = {}  # name -> pids of its members
        self.changed = threading.Condition()

    def look(self):
        begun, name, error = time.monotonic(), None, None
        try:
            name = self._ask(begun)
        except (OSError, http.client.HTTPException, ValueError, KeyError) as e:
            error = f"{type(e).__name__} {e}"
        generation = name and generation_of(name)
        with self.changed:
            self.samples.append((begun, time.monotonic() - begun, generation, error))
            self.changed.notify_all()

    def _ask(self, begun):
        connection = http.client.HTTPConnection("127.0.0.1", self.world.port, timeout=PROBE_S)
        with contextlib.closing(connection):
            connection.request("GET", "/3/Cloud?skip_ticks=true", headers={"X-Chaos": "prober"})
            answer = connection.getresponse()
            body = answer.read()
        if answer.status != 200:
            raise ValueError(f"{answer.status} {body[:200]!r}")
        view = json.loads(body)
        self._judge(view, begun)
        return view["cloud_name"]

    def _judge(self, view, begun):
        wrong = self.world.findings.add
        name, n = view["cloud_name"], self.world.nodes
        short = {k: view[k] for k in ("cloud_name", "cloud_size", "consensus", "cloud_healthy", "bad_nodes")}
        # A member that is paused is not healthy to the others, after a minute: nothing is paused for so long.
        if view["cloud_size"] != n or len(view["nodes"]) != n or not view["consensus"] or not view["cloud_healthy"]:
            wrong("not a whole cloud", f"the endpoint answered {short} at {begun:.2f}")
        generation = generation_of(name)
        if self.newest and generation < self.newest[0]:
            wrong("an old generation", f"{name} answered after {self.newest[1]}")
        if self.newest and generation == self.newest[0] and name != self.newest[1]:
            wrong("two of a generation", f"{name} answered after {self.newest[1]}")
        self.newest = (generation, name)
        pids = {node["pid"] for node in view["nodes"]}
        if self.pids.setdefault(name, pids) != pids:
            wrong("other members", f"{name} had {self.pids[name]}, then {pids}")
        if self.world.overdue(generation, begun):
            wrong("not withdrawn", f"{name} answered at {begun:.2f} through the endpoint, but had lost a member at "
                  f"{self.world.scanner.lost_at('c', generation):.2f}")

    def answered(self, after, generation, seconds):
        """Waits for an answer to a question put after `after` by a generation of at least this; returns when it
        was complete, or None."""
        deadline = time.monotonic() + seconds
        with self.changed:
            while True:
                for begun, took, who, _ in reversed(self.samples):
                    if begun < after:
                        break
                    if who and who >= generation:
                        return begun + took
                if time.monotonic() > deadline:
                    return None
                self.changed.wait(0.5)

    def availability(self):
        """(seconds available, seconds watched): each sample stands for the time to the next."""
        up = total = 0.0
        for this, after in zip(self.samples, self.samples[1:]):
            total += after[0] - this[0]
            up += after[0] - this[0] if this[2] else 0
        return up, total


class Teller(Watcher):
    """What the daemon says of the cloud, held against the processes."""

    interval = 0.25
    # Longer than a write to a disk that is full or a machine that is busy should take.
    ANSWER_S = 10 * SLOW

    def __init__(self, world):
        super().__init__(world)
        self.withdrawn_since = None  # the status has had no endpoint since then
        self.last = None
        self.told = 0

    def look(self):
        begun = time.monotonic()
        try:
            status, cloud = self.world.fleet.api("GET", "/v1/clouds/c", timeout=self.ANSWER_S / SLOW)
        except (OSError, http.client.HTTPException, ValueError) as e:
            self.withdrawn_since = None
            if not self.world.absent.touching(begun, time.monotonic(), 1):
                self.world.findings.add("no status", f"asked at {begun:.2f}: {type(e).__name__} {e}")
            return
        if status != 200:
            self.world.findings.add("no status", f"{status} {cloud}")
            return
        self.told += 1
        self.last = cloud
        if cloud["endpoint"]:
            self.withdrawn_since = None
            self._judge(cloud, begun)
        elif not self.withdrawn_since:
            self.withdrawn_since = time.monotonic()
        else:
            self._judge_silence(cloud, begun)

    def _judge_silence(self, cloud, now):
        """There has been no endpoint since `withdrawn_since`, and still there is none; did it answer meanwhile?"""
        sample = next((s for s in reversed(self.world.prober.samples) if s[0] + s[1] < now), None)
        if sample and sample[2] == cloud["generation"] and sample[0] > self.withdrawn_since + WITHDRAWN_S and \
                cloud["state"] != "stopping" and not self.world.scanner.lost_at("c", cloud["generation"]):
            self.world.findings.add("not withdrawn", f"generation {sample[2]} answered at {sample[0]:.2f}; by the "
                                    f"status there is no endpoint since {self.withdrawn_since:.2f}, nor at {now:.2f}")

    def _judge(self, cloud, begun):
        generation = cloud["generation"]
        if self.world.overdue(generation, begun):
            lost = self.world.scanner.lost_at("c", generation)
            self.world.findings.add("status lies", f"generation {generation} is {cloud['state']} at {begun:.2f}, but "
                                    f"had lost a member at {lost:.2f}")
        for node in cloud["nodes"]:
            life = next((m for m in list(self.world.scanner.alive.values()) if m.pid == node["pid"]), None)
            if life and (life.cloud, life.index, life.generation) != ("c", node["index"], generation):
                self.world.findings.add("status lies", f"node {node['index']} of generation {generation} is said to be "
                                        f"pid {node['pid']}, which is {life}")


class World:
    def __init__(self, fleet, nodes, log):
        self.fleet, self.nodes, self.port = fleet, nodes, fleet.ports.base
        self.findings = Findings(log)
        self.absent = Spans()  # the daemon was dead, stopped or being started
        self.full = Spans()  # so was the disk
        self.scanner, self.teller, self.prober = Scanner(self), Teller(self), Prober(self)
        self.watchers = [self.scanner]

    def watch(self):
        self.scanner.start()

    def watch_cloud(self):
        """Once it is ready for the first time."""
        for watcher in (self.teller, self.prober):
            watcher.start()
            self.watchers.append(watcher)

    def end(self):
        while self.watchers:
            self.watchers.pop().end()

    def overdue(self, generation, now):
        """Has it lacked a member for so long that the daemon, had it been there, would have withdrawn it?"""
        lost = self.scanner.lost_at("c", generation)
        return lost and now > lost + WITHDRAWN_S and not self.absent.touching(lost, now, 5 * SLOW)


def generation_of(name):
    """Of a generation's -name."""
    return int(name.split("-")[-2])


# --- at the end -------------------------------------------------------------------------------------


def judge_events(world, events, disk_was_full):
    """The journal, held against what was seen: nothing is lacking, nobody was launched or ended twice."""
    wrong = world.findings.add
    numbers = [(e["epoch"], e["seq"]) for e in events if "message" in e]
    for (epoch, seq), (epoch2, seq2) in zip(numbers, numbers[1:]):
        if epoch != epoch2 or seq2 != seq + 1 and not disk_was_full:
            wrong("journal", f"after {epoch}:{seq} follows {epoch2}:{seq2}")
    launched, exited = (collections.Counter(
        (e["cloud"], e["node"], e["generation"]) for e in events if e.get("type") == kind
    ) for kind in ("node-launched", "node-exited"))
    for what, counts in (("launched", launched), ("ended", exited)):
        for slot, n in counts.items():
            if n > 1:
                wrong("journal", f"{slot} has {what} {n} times")
    pids = {e["pid"] for e in events if e.get("type") == "node-launched"}
    for member, first, last in list(world.scanner.lives.values()):
        if disk_was_full or last - first < 0.5:
            continue
        slot = (member.cloud, member.index, member.generation)
        if member.pid not in pids or not launched[slot]:
            wrong("journal", f"no launch of {member}")
        if not pid_alive(member.pid) and not exited[slot]:
            wrong("journal", f"no end of {member}")


def fds_of(pid):
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/fd"))
    return None
