"""Where the nodes' output goes, and that rotation loses and doubles no line of it, with fake nodes."""

import contextlib
import gzip
import http.client
import os
import pathlib
import re
import shutil
import socket
import subprocess
import threading

import pytest

import fleet as fleet_module
from fleet import read, until

SPAM = 260_000  # bytes of one burst; its lines are numbered downwards by 260
SMALL = {"log_max_size": "256k", "log_max_total": "64m", "log_compress": "gzip"}


def spam(fleet, index=0, times=1):
    port = fleet.nodes()[index]["api_port"]
    for _ in range(times):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("POST", f"/fake/log_spam?value={SPAM}")
        assert connection.getresponse().status == 200
        connection.close()


def parts(fleet, index=0):
    return sorted((fleet.log_dir / "c").glob(f"{index}.log.0*-0*"))


def live_bytes(path):
    """Without the hole that a rotation leaves on file systems that cannot cut it off."""
    with open(path, "rb") as f:
        try:
            f.seek(os.lseek(f.fileno(), 0, os.SEEK_DATA))
        except OSError:
            return b""
        return f.read()


def rotation_runs(fleet):
    return any("--rotate-logs" in cmd for cmd in fleet.members().values())


def whole_log(fleet, index=0):
    """What the files hold while nothing is rotated: parts in order, then the live file."""
    until("the rotation has ended", 30, lambda: not rotation_runs(fleet))
    text = b"".join(gzip.decompress(p.read_bytes()) for p in parts(fleet, index))
    return (text + live_bytes(fleet.log_dir / "c" / f"{index}.log")).decode()


def assert_spam(text, bursts):
    """All lines of all bursts, each once and in order."""
    numbers = [int(n) for n in re.findall(r"^.* (\d{200}) spam$", text, re.M)]
    assert numbers == list(range(SPAM, 0, -260)) * bursts
    assert text.count("spam") == len(numbers)


# --- rotation -------------------------------------------------------------------------------------


def test_rotation_loses_no_line(fake):
    """The node writes on, undisturbed, while its log is rotated several times; parts and live file
    together have each line once; `h2ofleet logs` goes back into the parts."""
    fleet = fake(nodes=1, **SMALL)
    fleet.ready()
    pid = fleet.pids()
    bursts = 0
    while len(parts(fleet)) < 4:
        spam(fleet)
        bursts += 1
        until("the log is small again", 30,
              lambda: len(live_bytes(fleet.log_dir / "c" / "0.log")) < 256 * 1024)
    text = whole_log(fleet)
    assert_spam(text, bursts)
    assert text.startswith("--- h2ofleet: cloud c, node 0, generation 1, ")
    shown = fleet.cli("logs", "c", "-n", "3000").stdout
    assert len(shown.splitlines()) == 3000 and shown == text[-len(shown):]
    assert fleet.pids() == pid
    assert fleet.ready()["generation"] == 1


def test_cause_of_death_after_rotation(fake):
    """Where a life begins in its log is remembered as a position: after a rotation the end of the
    output is found, and what an earlier life has printed is not taken for this one's."""
    fleet = fake(nodes=1, restart_delay_max="0s", **SMALL)
    fleet.ready()
    spam(fleet, times=2)
    until("a part", 30, lambda: parts(fleet))
    until("the rotation has ended", 30, lambda: not rotation_runs(fleet))
    set_knob(fleet, "oom")
    cloud = fleet.ready(generation=2)
    assert cloud["nodes"][0]["last_exit"]["cause"] == "java-oom"
    assert "OutOfMemoryError" in cloud["nodes"][0]["last_exit"]["log_tail"]
    set_knob(fleet, "exit_code_now", 9)
    last = fleet.ready(generation=3)["nodes"][0]["last_exit"]
    assert last["cause"] == "unknown" and last["code"] == 9


def set_knob(fleet, key, value=1):
    connection = http.client.HTTPConnection("127.0.0.1", fleet.nodes()[0]["api_port"], timeout=5)
    connection.request("POST", f"/fake/{key}?value={value}")
    try:
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        pass  # it ends before it answers
    connection.close()


def test_rotation_over_killed_daemons(fake):
    """Daemons are killed while logs grow and are rotated; the rotation that outlives one and that of
    the next never meet, and no line is lost or twice."""
    fleet = fake(nodes=1, **SMALL)
    fleet.ready()
    pid = fleet.pids()
    bursts = 0
    for _ in range(4):
        spam(fleet, times=3)
        bursts += 3
        until("a rotation, or its end", 30, lambda: rotation_runs(fleet) or parts(fleet))
        fleet.kill_daemon()
        fleet.start()
        assert fleet.ready()["generation"] == 1
    until("the log is small again", 60,
          lambda: len(live_bytes(fleet.log_dir / "c" / "0.log")) < 256 * 1024)
    assert fleet.pids() == pid
    assert_spam(whole_log(fleet), bursts)


def test_bound_on_all_logs(fake):
    """All logs of a cloud together stay within log_max_total, the newest lines being there; the
    fleet's stop leaves no rotation behind."""
    total = 2 << 20
    fleet = fake(nodes=2, log_max_size="16m", log_max_total="2m", log_compress="none")
    fleet.ready()

    def size():
        with contextlib.suppress(FileNotFoundError):  # removed just now
            return sum(p.stat().st_blocks * 512 for p in (fleet.log_dir / "c").glob("[01].log*"))
        return total

    for _ in range(8):
        spam(fleet, 0)
        spam(fleet, 1)
        until(lambda: f"at most {total} bytes, not {size()}", 30,
              lambda: size() < total and not rotation_runs(fleet))
    assert parts(fleet, 0) and parts(fleet, 1)
    assert fleet.cli("logs", "c/0", "-n", "1").stdout.rstrip().endswith("000260 spam")


# --- log_to ---------------------------------------------------------------------------------------


def test_inherit(fake):
    """log_to = inherit: the output is in the daemon's own, none is in a file, and whoever asks for it
    is told where it is."""
    fleet = fake(nodes=1, log_to="inherit", restart="never")
    fleet.ready()
    assert "FJ-1-1" not in read(fleet.daemon_log)
    spam(fleet)
    until("the node's line", 10, lambda: "000260 spam" in read(fleet.daemon_log))
    assert not (fleet.log_dir / "c" / "0.log").exists()
    status, body = fleet.api("GET", "/v1/clouds/c/nodes/0/log")
    assert status == 404 and body["type"] == "urn:h2ofleet:problem:log-elsewhere"
    told = fleet.cli("logs", "c", code=None)
    assert told.returncode != 0 and "the daemon's own standard output" in told.stderr
    set_knob(fleet, "exit_code_now", 9)
    cloud = fleet.wait("failed", "stopped")
    last = cloud["nodes"][0]["last_exit"]
    assert "exited with code 9; its output went to the daemon's own" in last["why"]
    assert "standard output" in last["log_tail"]


class Journald:
    """Stands in for journald: takes streams, and remembers header and lines of each."""

    def __init__(self, directory):
        self.path = pathlib.Path(directory, "stdout")
        self.streams = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            stream = bytearray()
            self.streams.append(stream)
            threading.Thread(target=self.take, args=(connection, stream), daemon=True).start()

    @staticmethod
    def take(connection, stream):
        with connection:
            while data := connection.recv(65536):
                stream += data

    def text(self, identifier):
        """What came under an identifier, without the seven lines of the header."""
        texts = [bytes(s).decode() for s in list(self.streams)]
        return "".join(t.split("\n", 7)[7] for t in texts
                       if t.split("\n", 1)[0] == identifier and t.count("\n") >= 7)

    def close(self):
        self.listener.close()


@pytest.fixture
def journald(tmp_path_factory, monkeypatch):
    """A stand-in, seen by daemons at /run/systemd/journal, in a mount namespace of their own."""
    directory = tmp_path_factory.mktemp("j")
    script = ('mount -t tmpfs none /run && mkdir -p /run/systemd/journal && '
              f'mount --bind {directory} /run/systemd/journal && exec "$@"')
    wrapper = ["unshare", "-m", "sh", "-c", script, "sh"]
    if os.geteuid() != 0 or subprocess.run([*wrapper, "true"], check=False).returncode != 0:
        pytest.skip("needs a mount namespace")
    monkeypatch.setattr(fleet_module, "WRAPPER", [*wrapper, *fleet_module.WRAPPER])
    stand_in = Journald(directory)
    yield stand_in
    stand_in.close()
    shutil.rmtree(directory, ignore_errors=True)


def test_journal(fake, journald):
    """log_to = journal: each node has a stream of its own under h2o-CLOUD-N, straight from the JVM:
    it goes on when the daemon is killed."""
    fleet = fake(nodes=2, log_to="journal", restart="never")
    fleet.ready()
    for i in range(2):
        assert f"--- h2ofleet: cloud c, node {i}, generation 1" in journald.text(f"h2o-c-{i}")
    assert not (fleet.log_dir / "c" / "0.log").exists()
    told = fleet.cli("logs", "c/1", code=None)
    assert "journalctl -t h2o-c-1" in told.stderr
    port = fleet.nodes()[1]["api_port"]
    fleet.kill_daemon()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", f"/fake/log_spam?value={SPAM}")
    assert connection.getresponse().status == 200
    until("all lines", 20, lambda: "000260 spam\n" in journald.text("h2o-c-1"))
    assert_spam(journald.text("h2o-c-1"), 1)
    assert "spam" not in journald.text("h2o-c-0")
    fleet.start()
    fleet.ready()
    fleet.kill_member(1)
    last = fleet.wait("failed", "stopped")["nodes"][1]["last_exit"]
    assert "journalctl -t h2o-c-1" in last["log_tail"]


def test_journal_without_journald(fake, journald):
    """No journald: the launch is refused with a sentence that says what to do."""
    journald.path.unlink()
    fleet = fake(nodes=1, log_to="journal")
    cloud = fleet.wait("failed")
    assert "there is no journald to write to" in cloud["reason"]
    assert "log_to = file" in cloud["reason"]
