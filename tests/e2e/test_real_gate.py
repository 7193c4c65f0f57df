"""The gate before real H2O nodes: whoever comes when, in whatever way, finds a whole cloud."""

import contextlib
import hashlib
import http.client
import json
import os
import random
import statistics
import time
import urllib.parse

import pytest

from clients import FRAME, Tab, Visitor, browser, client, finish, get, hammer, pings, port_of
from fleet import halt, until

BOOTS = int(os.environ.get("H2OFLEET_BOOTS", "10"))


# --- coming at any moment -------------------------------------------------------------------------


class Tally:
    """What became of boots and recoveries while clients came at random moments."""

    HEAD = ("gate  nodes  boots  recoveries  connects  tried again  connects to a short cloud  "
            "short pings  short locks  longest connect  ready (median, most)")

    def __init__(self, fleet, nodes):
        self.fleet, self.nodes = fleet, nodes
        self.boots = self.recoveries = self.short_locks = self.generations = 0
        self.visits, self.took = [], []
        self.pings = []

    def short(self):
        return sum(v["size"] < self.nodes for v in self.visits)

    def short_pings(self):
        return sum(size < self.nodes for _, size in self.pings)

    def __str__(self):
        return (f"{self.fleet.clouds['c']['gate_mode']:4}  {self.nodes:5}  {self.boots:5}  "
                f"{self.recoveries:10}  {len(self.visits):8}  "
                f"{sum(bool(v['failed']) for v in self.visits):11}  {self.short():25}  "
                f"{self.short_pings():11}  {self.short_locks:11}  "
                f"{max(v['seconds'] for v in self.visits):13.1f} s  "
                f"{statistics.median(self.took):.1f} s, {max(self.took):.1f} s")


def whole(fleet, nodes, generation):
    """Ready, and by each member's own word one cloud."""
    cloud = fleet.ready(timeout=180, generation=generation)
    for node in cloud["nodes"]:
        view = get(node["api_port"], "/3/Cloud?skip_ticks=true")[1]
        assert view["cloud_size"] == nodes and view["consensus"] and view["cloud_healthy"]
        assert {n["pid"] for n in view["nodes"]} == {n["pid"] for n in cloud["nodes"]}
    return cloud


def come_and_go(fleet, nodes, boots):
    """Boots the cloud and kills a member of it, `boots` times, under clients that come at any moment."""
    url = f"http://127.0.0.1:{fleet.ports.base}"
    tally = Tally(fleet, nodes)
    with Visitor(url) as one, Visitor(url) as two, hammer(fleet.ports.base) as jobs, \
            pings(fleet.ports.base) as pinging:
        def round_of(begin, within):
            generation, begun = fleet.cloud()["generation"], time.monotonic()
            one.connect(random.uniform(0, within))
            two.connect(random.uniform(0, within))
            begin()
            cloud = fleet.ready(timeout=180, generation=generation + 1)
            tally.took.append(time.monotonic() - begun)
            tally.visits += [one.result(), two.result()]
            cloud = whole(fleet, nodes, generation + 1)
            tally.generations += cloud["generation"] - generation

        def kill():
            time.sleep(random.uniform(0, 0.5))
            fleet.kill_member(random.randrange(nodes))

        for _ in range(boots):
            within = statistics.median(tally.took) if tally.took else 6
            round_of(lambda: fleet.cli("start", "c"), within)
            tally.boots += 1
            round_of(kill, within)
            tally.recoveries += 1
            fleet.cli("stop", "c", "--wait")
        tally.short_locks = fleet.cloud()["short_locks"]
        tally.pings = pinging.seen
        assert jobs.seen and pinging.seen, "they were heard"
    return tally


def never_short(tally):
    assert tally.short() == 0 and tally.short_pings() == 0 and tally.short_locks == 0
    assert all(v["locked"] for v in tally.visits)
    assert tally.generations == tally.boots + tally.recoveries, "no formation was abandoned"


@pytest.mark.parametrize("nodes, boots", [(2, 2), (3, 1)])
def test_at_any_moment(real, nodes, boots):
    """h2o.connect at random moments of boot and of recovery from a kill, beside impatient pollers and
    Sparkling Water's pings: each client comes into a whole cloud, which is locked when it has all its
    members, and no formation is lost."""
    fleet = real(nodes=nodes, autostart="no", gate_mode="hold")
    tally = come_and_go(fleet, nodes, boots)
    print(f"\n{Tally.HEAD}\n{tally}")
    never_short(tally)


@pytest.mark.slow
@pytest.mark.timeout(100 * BOOTS + 240)
@pytest.mark.parametrize("nodes", [2, 3])
@pytest.mark.parametrize("mode", ["hold", "refuse", "off"])
def test_many_boots(real, nodes, mode):
    """The same H2OFLEET_BOOTS times over; without a gate it is only counted how often it goes wrong."""
    fleet = real(nodes=nodes, autostart="no", gate_mode=mode)
    tally = come_and_go(fleet, nodes, BOOTS)
    print(f"\n{Tally.HEAD}\n{tally}")
    if mode != "off":
        never_short(tally)


def test_short_lock_without_gate(real):
    """gate_mode = off: a client that locks a cloud of one is seen, the formation is abandoned at once,
    counted, and the next one is whole."""
    fleet = real(nodes=2, autostart="no", gate_mode="off")
    with hammer(fleet.ports.base):
        fleet.cli("start", "c")
        # The other one comes late, for whatever reason: it is stopped before it can say anything.
        late = until("node 1", 10, lambda: fleet.nodes()[1]["pid"], 0.005)
        halt(late)
        until("a short lock is noticed", 60, lambda: fleet.cloud()["short_locks"] == 1)
        cloud = whole(fleet, 2, 2)
    assert cloud["short_locks"] >= 1 and cloud["generation"] == 1 + cloud["short_locks"]
    assert "came too early" in fleet.cli("events").stdout


@pytest.mark.skipif(not browser(), reason="no Chromium here (Debian: chromium-headless-shell)")
def test_flow(real):
    """Flow, open in a browser's tab over boot and recovery, with the cloud's status and the jobs
    refreshing themselves: it shows a whole cloud each time."""
    fleet = real(nodes=2, autostart="no")
    with Tab(fleet.ports.base) as tab:
        fleet.cli("start", "c")
        for generation in (1, 2):
            cloud = whole(fleet, 2, generation)
            begun = time.monotonic()

            def polled():
                paths = [path for when, path in tab.seen if when > begun]
                return "/3/Jobs" in paths and paths.count("/3/Cloud") >= 2

            until(lambda: f"Flow polls; it shows:\n{tab.text()}\n{tab.seen}", 40, polled, 0.1)
            said = tab.text()
            assert cloud["h2o_name"] in said and "2 / 2" in said, said
            assert "HEALTHY" in said and "LOCKED" in said, said
            if generation == 1:
                fleet.kill_member(0)
    cloud = fleet.cloud()
    assert cloud["short_locks"] == 0 and cloud["generation"] == 2


# --- bytes ----------------------------------------------------------------------------------------


NAMES = (",".join(f'"C{i}"' for i in range(1, 17)) + "\n").encode()


def table_of(mb):
    """Blocks of a CSV file, written as H2O writes it, but without the names."""
    some = random.Random(1)
    # The same rows over and over, in another order each time: making them is not to take long.
    rows = [",".join(str(some.randrange(10**8, 2 * 10**9)) for _ in range(16)).encode() + b"\n"
            for _ in range(8000)]
    made = 0
    while made < mb << 20:
        some.shuffle(rows)
        block = b"".join(rows)
        made += len(block)
        yield block


class Halfway:
    """Passes blocks on, and does something once, with half of `size` gone by; keeps a checksum."""

    def __init__(self, size, do):
        self.size, self.do, self.passed, self.hash = size, do, 0, hashlib.sha256()

    def over(self, blocks):
        for block in blocks:
            self.passed += len(block)
            self.hash.update(block)
            if self.do and self.passed >= self.size / 2:
                self.do()
                self.do = None
            yield block


def upload(port, blocks, size, key):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    with contextlib.closing(connection):
        connection.request("POST", f"/3/PostFile?destination_frame={key}", body=blocks,
                           headers={"Content-Length": str(size)})
        answer = connection.getresponse()
        said = json.loads(answer.read())
        assert answer.status == 200, said
        return said


def download(port, key):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    with contextlib.closing(connection):
        connection.request("GET", f"/3/DownloadDataset.bin?frame_id={key}")
        answer = connection.getresponse()
        assert answer.status == 200
        while block := answer.read(1 << 20):
            yield block


PARSE = """
frame = h2o.parse_raw(h2o.parse_setup(["raw"], header=-1, destination_frame="table"))
print("ROWS", frame.nrow, frame.ncol)
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mb", [200, pytest.param(1024, marks=pytest.mark.slow)])
def test_transfer(real, mb):
    """A large file goes in through the gate, is parsed, and comes out again, the same to the last byte,
    though the daemon is killed in the midst of both, and there is none in between."""
    fleet = real(nodes=1, max_mem_size="3g")
    before = fleet.ready(timeout=60)
    port, size = port_of(before), sum(map(len, table_of(mb)))
    there = Halfway(size, fleet.kill_daemon)
    begun = time.monotonic()
    assert upload(port, there.over(table_of(mb)), size, "raw")["total_bytes"] == size
    print(f"\n{size >> 20} MB in: {time.monotonic() - begun:.1f} s")
    finish(client(PARSE, before["endpoint"]), timeout=300)
    fleet.start()
    back = Halfway(size, fleet.kill_daemon)
    begun = time.monotonic()
    came = back.over(download(port, "table"))
    first = next(came)
    back.hash = hashlib.sha256(first.removeprefix(NAMES))
    for _ in came:
        pass
    print(f"and out: {time.monotonic() - begun:.1f} s")
    fleet.start()
    assert there.passed == size and back.passed == len(NAMES) + size
    assert back.hash.digest() == there.hash.digest()
    after = fleet.cloud()
    assert after["generation"] == 1 and after["nodes"][0]["pid"] == before["nodes"][0]["pid"]
    assert after["gate"]["bytes_in"] > size and after["gate"]["bytes_out"] > size


# --- on demand ------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_start_on_connect(real, nodes):
    """A plain h2o.connect, in a program that knows of nothing, boots the cloud and just works."""
    fleet = real(nodes=nodes, autostart="no", start_on="connect")
    url = f"http://127.0.0.1:{fleet.ports.base}"
    with Visitor(url) as visitor:
        until("the door is held", 10, lambda: fleet.cloud()["gate"]["door"] == "hold")
        assert not fleet.members()
        visitor.connect()
        said = visitor.result()
    print(f"\n{nodes} nodes from nothing: h2o.connect took {said['seconds']:.1f} s")
    assert said["size"] == nodes and said["locked"] and not said["failed"]
    cloud = fleet.cloud()
    assert cloud["state"] == "ready" and cloud["generation"] == 1 and cloud["short_locks"] == 0


ENDLESS = """
from h2o.estimators import H2OGradientBoostingEstimator
model = H2OGradientBoostingEstimator(ntrees=100000, max_depth=3, seed=1)
model.start(y="y", x=["C1", "C2"], training_frame=frame)
"""


def test_idle(real):
    """max_idle_duration: a cloud in which a job runs is not stopped though nobody asks for anything; when
    the job has ended it is, announced beforehand; and the next client starts it again."""
    fleet = real(nodes=1, start_on="connect", max_idle_duration="5s")
    url = fleet.ready(timeout=60)["endpoint"]
    finish(client(FRAME.replace("60000", "2000") + ENDLESS, url))
    left = time.monotonic()
    cloud = fleet.cloud()
    member = cloud["nodes"][0]["api_port"]  # not through the gate: that would be use

    def running():
        return [j["key"]["name"] for j in get(member, "/3/Jobs")[1]["jobs"] if j["status"] == "RUNNING"]

    assert running()
    while time.monotonic() < left + 9:
        assert fleet.cloud()["state"] == "ready", "a job runs"
        time.sleep(0.2)
    for job in running():
        connection = http.client.HTTPConnection("127.0.0.1", member, timeout=20)
        with contextlib.closing(connection):
            connection.request("POST", f"/3/Jobs/{urllib.parse.quote(job)}/cancel")
            assert connection.getresponse().status == 200
    begun = time.monotonic()
    fleet.wait("stopped", timeout=30)
    print(f"\nstopped {time.monotonic() - begun:.1f} s after its last job")
    assert time.monotonic() - begun > 4
    assert fleet.cloud()["generation"] == 1
    events = [json.loads(line) for line in fleet.cli("events", "--json").stdout.splitlines()]
    kinds = [e["type"] for e in events]
    assert "cloud-idle" in kinds, "it was announced"
    stopping = next(i for i, e in enumerate(events) if e.get("to") == "stopping")
    assert kinds.index("cloud-idle") < stopping
    with Visitor(url) as visitor:
        visitor.connect()
        assert visitor.result()["size"] == 1
    assert fleet.cloud()["generation"] == 2
