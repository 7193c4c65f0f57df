"""Followers of events and logs: whatever ends or hangs, they lose nothing, double nothing, and hold
nobody up."""

import contextlib
import http.client
import json
import os
import re
import selectors
import shutil
import signal
import socket
import subprocess
import threading
import time

from fleet import FINDINGS, H2OFLEET, SLOW, read, until


class Follower:
    """`h2ofleet ... -f` in the background; its output goes to files."""

    def __init__(self, fleet, *args, env=None):
        self.out = fleet.dir / f"follow-{len(list(fleet.dir.glob('follow-*')))}"
        self.err = self.out.with_suffix(".err")
        self.out.touch()
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.process = subprocess.Popen(
                [H2OFLEET, "--socket", str(fleet.socket), *args], stdin=subprocess.DEVNULL,
                stdout=out, stderr=err, env={**fleet.env(), **(env or {})},
            )

    def text(self):
        return self.out.read_text(errors="replace")

    def lines(self):
        """Those that have ended."""
        return self.text().split("\n")[:-1]

    def records(self):
        return [json.loads(line) for line in self.lines()]

    def until_has(self, text, seconds=20):
        until(lambda: f"'{text}' in\n{self.text()[-3000:]}{read(self.err)}", seconds,
              lambda: text in self.text())

    def end(self):
        """Ctrl-C ends it at once."""
        assert self.process.poll() is None, read(self.err)
        begun = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(10) == 130
        assert time.monotonic() - begun < 1 * SLOW
        assert not FINDINGS.search(read(self.err)), read(self.err)


class Writer:
    """Appends numbered lines to a node's log, as the JVM does, until it is told to end."""

    def __init__(self, fleet, node=0, pause=0.001, size=60):
        self.n = 0
        self.ended = threading.Event()
        self.fd = os.open(fleet.log_dir / "c" / f"{node}.log", os.O_WRONLY | os.O_APPEND)
        self.thread = threading.Thread(target=self._write, args=(pause, "x" * size))
        self.thread.start()

    def _write(self, pause, text):
        while not self.ended.is_set():
            os.write(self.fd, f"SEQ {self.n} {text}\n".encode())
            self.n += 1
            if pause:
                time.sleep(pause)

    def end(self):
        """Returns how many lines there are."""
        self.ended.set()
        self.thread.join()
        os.close(self.fd)
        return self.n


def numbers(lines):
    """Of the numbered lines."""
    return [int(m.group(1)) for m in (re.search(r"\bSEQ (\d+) x*(\"}|$)", line) for line in lines) if m]


def raw(fleet, target, read_some=True):
    """A connection that has asked for a stream, with HTTP/1.0: without chunks."""
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(10 * SLOW)
    s.connect(str(fleet.socket))
    s.sendall(f"GET {target} HTTP/1.0\r\nHost: h\r\n\r\n".encode())
    if read_some:
        assert s.recv(15, socket.MSG_PEEK).startswith(b"HTTP/1.1 200 OK")
    return s


def events(fleet, *args):
    """All that there are: `h2ofleet events --json`."""
    return [json.loads(line) for line in fleet.cli("events", "--json", *args).stdout.splitlines()]


def rss_kb(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", read(f"/proc/{pid}/status")).group(1))


def lag(fleet):
    return fleet.api("GET", "/v1/version")[1]["loop_lag_ms"]


# --- events ---------------------------------------------------------------------------------------


def test_what_an_event_says(fake):
    """All members, the order of cause and effect, and the same from all ways to ask."""
    fleet = fake(nodes=2)
    fleet.ready()
    pid = fleet.kill_member(1)
    fleet.ready(generation=2)
    all_events = events(fleet)
    for i, e in enumerate(all_events):
        assert list(e)[:9] == ["epoch", "seq", "time", "mono_ms", "type", "cloud", "node",
                               "generation", "message"]
        assert e["seq"] == i + 1 and re.fullmatch("[0-9a-f]{16}", e["epoch"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", e["time"])
        assert e["cloud"] in (None, "c") and (e["node"] is None or e["cloud"])
    assert all_events[0]["type"] == "daemon-started" and all_events[0]["pid"] == fleet.daemon.pid
    states = [e["to"] for e in all_events if e["type"] == "cloud-state"]
    assert states == ["starting", "forming", "ready", "recovering", "starting", "forming", "ready"]
    launched = [e["pid"] for e in all_events if e["type"] == "node-launched"]
    assert pid in launched and set(fleet.pids()) < set(launched) and len(launched) == 4
    died = next(e for e in all_events if e["type"] == "node-exited")
    assert died["node"] == 1 and died["signal"] == "SIGKILL" and died["code"] is None
    assert died["cause"] == "signal" and "not by us" in died["why"] and died["generation"] == 1
    after = all_events[died["seq"]]
    assert after["type"] == "cloud-state" and after["to"] == "recovering", "first the cause"
    assert events(fleet, "c") == [e for e in all_events if e["cloud"]]
    assert events(fleet, "-n", "2") == all_events[-2:]
    assert events(fleet, "--since", "3") == all_events[3:]
    text = fleet.cli("events").stdout.splitlines()
    assert len(text) == len(all_events)
    assert any(line.endswith("cloud c: forming -> ready") for line in text)
    assert "\033" not in "".join(text)
    assert fleet.cli("events", "d", code=4).stderr.count("no cloud 'd'") == 1
    assert "no time and no event" in fleet.cli("events", "--since", "yesterday", code=2).stderr
    assert "since" in fleet.cli("events", "--since", "0123456789abcdeg:1", code=1).stderr


def test_events_over_kill_9(fake):
    """The daemon is killed and started again, at odd moments and in order: followers see each event
    once, with numbers that go on."""
    fleet = fake(nodes=2)
    follower = Follower(fleet, "events", "-f", "--json", "--since", "0")
    person = Follower(fleet, "events", "-f", "-n", "1000")
    fleet.ready()
    for life in range(4):
        if life % 2:
            fleet.kill_member(0)
            time.sleep(0.1 * life)  # somewhere within the recovery
        if life == 2:
            assert fleet.stop() == 0
        else:
            fleet.kill_daemon()
        if life == 3:
            time.sleep(1.5)  # a follower that has to ask more than once
        fleet.start()
        fleet.ready(timeout=60)
    fleet.cli("restart", "c", "--wait")
    written = events(fleet)
    follower.until_has(f'"seq":{written[-1]["seq"]},')
    seen = follower.records()
    assert [e["seq"] for e in seen] == list(range(1, len(written) + 1))
    assert seen == written and len({e["epoch"] for e in seen}) == 1
    assert not {"lost", "epoch"} & {e["type"] for e in seen}, "no gap"
    assert [e["type"] for e in seen].count("daemon-started") == 5
    until("the other one has all, too", 5, lambda: len(person.lines()) == len(written))
    for f in (follower, person):
        f.end()
        said = read(f.err)
        assert said.count("waiting for it") == said.count("there again") <= 4, said


def test_events_over_reexec(fake):
    """A new image in the same process: the same again, and streams end in order before it."""
    fleet = fake(nodes=2)
    fleet.ready()
    follower = Follower(fleet, "events", "-f", "--json", "--since", "0")
    plain = raw(fleet, "/v1/events?follow=yes&since=0")
    for _ in range(4):
        fleet.cli("reexec")
        fleet.cli("restart", "c", "--wait")
    written = events(fleet)
    follower.until_has(f'"seq":{written[-1]["seq"]},')
    assert follower.records() == written
    assert [e["seq"] for e in written] == list(range(1, len(written) + 1))
    assert not {"lost", "epoch"} & {e["type"] for e in written}
    body = b"".join(iter(lambda: plain.recv(1 << 20), b"")).split(b"\r\n\r\n", 1)[1]
    first = [json.loads(line) for line in body.splitlines()]
    assert first == written[:len(first)] and first[-1]["type"] == "daemon-reexec"
    plain.close()
    follower.end()


def test_a_lost_journal(fake):
    """Somebody removes the journal: numbers begin anew, and followers are told."""
    fleet = fake(nodes=1)
    fleet.ready()
    follower = Follower(fleet, "events", "-f", "--json")
    follower.until_has('"to":"ready"')
    first = follower.records()[0]["epoch"]
    assert fleet.stop() == 0
    shutil.rmtree(fleet.state_dir / "events")
    fleet.start()
    fleet.ready()
    follower.until_has('"type":"epoch"')
    until("all of the new epoch", 10, lambda: follower.records()[-1].get("to") == "ready")
    records = follower.records()
    at = next(i for i, r in enumerate(records) if r["type"] == "epoch")
    assert records[at]["asked"].startswith(first)
    assert {r["epoch"] for r in records[:at]} == {first}
    assert [r["seq"] for r in records[at + 1:]] == list(range(1, len(records) - at))
    follower.end()


def test_200_followers(fake):
    """Each sees every event once and in order, while a cloud recovers as quickly as ever."""
    fleet = fake(nodes=2)
    fleet.ready()
    selector = selectors.DefaultSelector()
    data = {}
    for _ in range(200):
        s = raw(fleet, "/v1/events?follow=yes&since=0")
        data[s] = b""
        selector.register(s, selectors.EVENT_READ)
    for generation in (2, 3):
        fleet.kill_member(generation % 2)
        fleet.ready(generation=generation)
    want = events(fleet)
    last = f'"seq":{want[-1]["seq"]},'.encode()
    waiting = set(data)
    deadline = time.monotonic() + 20 * SLOW
    while waiting:
        assert time.monotonic() < deadline, f"{len(waiting)} of 200 do not have all"
        for key, _ in selector.select(1):
            data[key.fileobj] += key.fileobj.recv(65536)
            if last in data[key.fileobj]:
                waiting.discard(key.fileobj)
    for s, text in data.items():
        body = text.split(b"\r\n\r\n", 1)[1]
        assert [json.loads(line) for line in body.splitlines()] == want
        s.close()
    assert lag(fleet) < 500 * SLOW


# --- readers that do not read ---------------------------------------------------------------------


def test_stuck_readers_hold_nobody_up(fake):
    """They take no memory, and a cloud is restarted as if they were not there."""
    fleet = fake(nodes=2)
    fleet.ready()
    begun = time.monotonic()
    fleet.cli("restart", "c", "--wait")
    usual = time.monotonic() - begun
    stuck = [raw(fleet, "/v1/events?follow=yes&since=0") for _ in range(20)]
    stuck += [raw(fleet, f"/v1/clouds/c/nodes/{i % 2}/log?follow=yes") for i in range(40)]
    before = rss_kb(fleet.daemon.pid)
    port = fleet.nodes()[0]["api_port"]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", "/fake/log_spam?value=30000000")
    connection.getresponse().read()
    connection.close()
    fleet.kill_member(1)
    begun = time.monotonic()
    fleet.ready(generation=3)
    assert time.monotonic() - begun < usual + 2 * SLOW
    grown = rss_kb(fleet.daemon.pid) - before
    assert grown < 8 << 10 or SLOW > 1, f"{grown} KB more"
    assert lag(fleet) < 500 * SLOW
    # One that reads on has it all the same.
    s = stuck[20]
    text = b""
    want = (fleet.log_dir / "c" / "0.log").stat().st_size
    while len(text) < 30000000:
        piece = s.recv(1 << 20)
        assert piece, f"ended after {len(text)} of {want} bytes"
        text += piece
    for s in stuck:
        s.close()


# --- logs -----------------------------------------------------------------------------------------


def test_log_over_restarts(fake):
    """Numbered lines while the daemon dies, is restarted in order, and the node gives way to the
    next: each line once."""
    fleet = fake(nodes=2)
    fleet.ready()
    one = Follower(fleet, "logs", "c/0", "-f", "-n", "0")
    both = Follower(fleet, "logs", "c", "-f", "-n", "0", "--json")
    for f in (one, both):
        until("it follows", 10, lambda: "SEQ -1" in f.text() or probe(fleet))
    writers = [Writer(fleet, node) for node in range(2)]
    for life in range(3):
        if life == 1:
            fleet.cli("reexec")
        else:
            fleet.kill_daemon()
            fleet.start()
        fleet.ready(timeout=60)
        fleet.kill_member(0)
        fleet.ready(timeout=60, generation=2 + 2 * life)
        fleet.cli("restart", "c", "--wait")
    count = [w.end() for w in writers]
    one.until_has(f"SEQ {count[0] - 1} ")
    assert numbers(one.lines()) == list(range(count[0]))
    file = read(fleet.log_dir / "c" / "0.log").split("\n")[:-1]
    until("the very lines of the file", 10, lambda: one.lines() == file[-len(one.lines()):])
    for node in range(2):
        def mine():
            return [r["line"] for r in both.records() if r["index"] == node]
        until("all lines of each node", 20, lambda: numbers(mine())[-1:] == [count[node] - 1])
        assert numbers(mine()) == list(range(count[node]))
    one.end()
    both.end()


def probe(fleet):
    """Writes a line that is waited for, so that what comes after it is followed for certain."""
    for log in (fleet.log_dir / "c").glob("?.log"):
        with open(log, "a") as f:
            f.write("SEQ -1\n")


def test_log_over_rotation(fake):
    """Written at full speed while it is rotated and parts are dropped: nothing is doubled, and what
    was lost, because the bound dropped it before it was read, is told."""
    fleet = fake(nodes=1, log_max_size="1m", log_max_total="8m")
    fleet.ready()
    follower = Follower(fleet, "logs", "c/0", "-f", "-n", "0")
    until("it follows", 10, lambda: "SEQ -1" in follower.text() or probe(fleet))
    writer = Writer(fleet, pause=0.0001, size=2000)
    until("some parts", 60, lambda: len(list((fleet.log_dir / "c").glob("0.log.*"))) >= 3)
    fleet.kill_daemon()
    fleet.start()
    time.sleep(3)
    count = writer.end()
    follower.until_has(f"SEQ {count - 1} ")
    seen = numbers(follower.lines())
    assert seen == sorted(set(seen)), "none twice, and in order"
    if "were dropped" not in read(follower.err):
        assert seen == list(range(count))
    follower.end()


class Cutting:
    """In the daemon's place: answers requests with what is given, and closes."""

    def __init__(self, fleet, *answers):
        self.requests = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(fleet.socket))
        self.listener.listen()
        self.thread = threading.Thread(target=self._serve, args=(answers,))
        self.thread.start()

    def _serve(self, answers):
        for answer in answers:
            s = self.listener.accept()[0]
            self.requests.append(s.makefile().readline().split()[1])
            head = "HTTP/1.1 200 OK\r\n"
            if isinstance(answer, tuple):
                head += f"h2ofleet-Log-Position: {answer[0]}\r\n"
                answer = answer[1]
            # Announced is more: so it is cut off.
            more = 0 if answer.startswith("{") or answer == "all" else 1000
            s.sendall(f"{head}Content-Length: {len(answer) + more}\r\n\r\n{answer}".encode())
            s.close()
        self.listener.close()


def test_events_cut_in_the_middle(fleets):
    """A connection that ends within a line: the line comes again, as a whole and once."""
    fleet = fleets({})

    def line(seq):
        return json.dumps({"epoch": "0123456789abcdef", "seq": seq, "type": "x", "message": "m"}) + "\n"

    # (A space in front: cut off.)
    there = Cutting(fleet, line(1) + line(2), " " + line(3) + line(4)[:40], " " + line(4) + line(5)[:-1],
                    " " + line(5) + line(6))
    follower = Follower(fleet, "events", "-f", "--json")
    follower.until_has('"seq": 6')
    there.thread.join()
    assert [r["seq"] for r in follower.records()] == [1, 2, 3, 4, 5, 6]
    since = "since=0123456789abcdef%3A"
    assert [r.partition("follow=")[2] for r in there.requests] == [
        "no", f"yes&{since}2", f"yes&{since}3", f"yes&{since}4"]
    fleet.socket.unlink()
    follower.end()


def test_log_cut_in_the_middle(fleets):
    """Bytes are counted, so a line that was cut is put together; what the bound has dropped is
    told, and what was begun before it is shown."""
    fleet = fleets({})
    there = Cutting(fleet, '{"name": "c", "size": 1}', (100, "one\ntw"), (106, "o\nth"), (110, "ree\nfo"),
                    (1000, "ten\n"), (500, "five\n"))
    follower = Follower(fleet, "logs", "c", "-f", "-n", "7")
    follower.until_has("five\n")
    there.thread.join()
    assert follower.lines() == ["one", "two", "three", "fo", "ten", "five"]
    assert [r.rpartition("&")[2] for r in there.requests[1:]] == [
        "tail=7", "from=106", "from=110", "from=116", "from=1004"]
    said = read(follower.err)
    assert "c/0: 884 bytes were dropped before they could be read" in said
    assert "c/0: the log was cut" in said
    fleet.socket.unlink()
    follower.end()


def test_lines_of_people(fake):
    """One line of text for each of a node's, named when there are several, harmless whatever it
    wrote; colours only where they were wanted."""
    fleet = fake(nodes=2)
    fleet.ready()
    both = Follower(fleet, "logs", "c", "-f", "-n", "3")
    one = Follower(fleet, "logs", "c/1", "-f", "-n", "0")
    until("it follows", 10, lambda: "SEQ -1" in one.text() or probe(fleet))
    with open(fleet.log_dir / "c" / "1.log", "ab", buffering=0) as log:
        log.write(b"\033[31mred\033[0m \x07 \xff")
        time.sleep(0.3)  # half a line is not shown
        log.write(b" \x9b2J end\n")
    both.until_has("end\n")
    one.until_has("end\n")
    harmless = r"\x1b[31mred\x1b[0m \x07 \xff \x9b2J end"
    assert one.lines()[-1] == harmless
    assert both.lines()[-1] == "c/1  " + harmless
    assert all(re.match("c/[01]  ", line) for line in both.lines())
    one.end()
    both.end()


def test_ends(fleets, fake, fake_keys):
    """Without a daemon, without such a cloud or node, and into a pipe that closes."""
    fleet = fleets({"c": fake_keys(1)})
    for args in (("events",), ("events", "-f"), ("logs", "c", "-f")):
        assert "not running" in fleet.cli(*args, code=4).stderr
    fleet.start()
    fleet.ready()
    assert "no cloud 'd'" in fleet.cli("logs", "d", "-f", code=4).stderr
    assert "no node '5'" in fleet.cli("logs", "c/5", "-f", code=1).stderr
    with contextlib.closing(subprocess.Popen(
        [H2OFLEET, "--socket", str(fleet.socket), "events", "-f"],
        stdout=subprocess.PIPE, env=fleet.env(), text=True,
    ).stdout) as out:
        assert "has started" in out.readline()
    # It ends when it next writes; that it may do so in peace, and leaves nothing:
    fleet.cli("restart", "c", "--wait")


def test_a_missing_daemon_is_said_once(fake):
    """Also when it is away for long; then what has happened is caught up with."""
    fleet = fake(nodes=1)
    fleet.ready()
    follower = Follower(fleet, "events", "-f")
    follower.until_has("-> ready")
    assert fleet.stop() == 0
    time.sleep(3)
    assert read(follower.err).count("\n") == 1
    assert "h2ofleetd has gone; waiting for it" in read(follower.err)
    fleet.start()
    follower.until_has("has started, pid %d" % fleet.daemon.pid)
    assert "there again" in read(follower.err)
    fleet.ready()
    follower.end()
