"""The client's commands that talk to H2O, with a real cloud of two: every member of the h2o package's
backend classes beside the command that does the same (parity.py), and what each is for. One cloud for
all; the tests run in their order, and the last rows end it."""

import hashlib
import json
import os
import pathlib
import pty
import random
import re
import select
import subprocess
import time

import pytest

import parity
from clients import FRAME, client, get, port_of
from conftest import ready_cloud
from fleet import H2OFLEET, REPO, until

pytest.importorskip("h2o", reason="the h2o package is not in this environment")
# Before anybody connects: then H2OCluster gets the fields of /3/Cloud, too.
MEMBERS = parity.public_members()

GBM = FRAME.replace("60000", "20000") + """
from h2o.estimators import H2OGradientBoostingEstimator
model = H2OGradientBoostingEstimator(ntrees=%d, max_depth=6, seed=1, model_id="parity_gbm",
                                     score_each_iteration=True)
print("BEGUN", flush=True)
try:
    model.train(y="y", training_frame=frame)
except Exception as e:
    print("ENDED", type(e).__name__, e)
"""


@pytest.fixture(scope="module")
def cloud(request, real_keys):
    """A cloud of two, ready and not locked."""
    with ready_cloud(request, real_keys(2)) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def connected(cloud, tmp_path_factory):
    """The same, with Python's connection (which locks it)."""
    p = parity.Parity(cloud, tmp_path_factory.mktemp("parity"))
    yield p
    p.connection.close()  # or it tries to, when Python ends


def locked(fleet):
    return get(port_of(fleet.cloud()), "/3/Cloud?skip_ticks=true")[1]["locked"]


class Terminal:
    """The client in a pseudo-terminal."""

    def __init__(self, fleet, *args):
        master, slave = pty.openpty()
        env = {**fleet.env(), "TERM": "xterm"}
        self.master = master
        self.process = subprocess.Popen([H2OFLEET, "--socket", str(fleet.socket), *args], stdin=slave,
                                        stdout=slave, stderr=slave, env=env, start_new_session=True)
        os.close(slave)
        self.said = ""

    def read(self, seconds):
        """What has come after that time, or when it has ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if select.select([self.master], [], [], 0.05)[0]:
                try:
                    data = os.read(self.master, 65536)
                except OSError:
                    break
                if not data:
                    break
                self.said += data.decode(errors="replace")
        return self.said

    def wait(self, what, seconds):
        until(lambda: f"{what!r} in {self.said!r}", seconds,
              lambda: re.search(what, self.read(0.05)), 0.01)

    def end(self, seconds=20):
        until(lambda: f"its end, after {self.said!r}", seconds,
              lambda: self.read(0.05) is not None and self.process.poll() is not None)
        self.read(0.2)
        os.close(self.master)
        return self.process.returncode


# --- before it is locked --------------------------------------------------------------------------


def test_what_does_not_lock(cloud):
    """info, jobs, clean, timezone, and what the table of h2o_locks.c says of api, leave it unlocked."""
    assert not cloud.cli("info", "c", "--nodes").stderr
    assert "not locked" in cloud.cli("jobs", "c").stdout
    assert json.loads(cloud.cli("jobs", "c", "--json").stdout) == {
        "cloud": "c", "locked": False, "total": 0, "jobs": []}
    assert "not locked" in cloud.cli("clean", "c").stdout
    cloud.cli("clean", "c", "--all", "--yes", "--idle", "0")
    assert cloud.cli("timezone", "c").stdout.strip() == "UTC"
    for path in ("/3/Cloud", "/3/About", "/", "/flow/index.html", "/3/Typeahead/files?src=/tmp&limit=1",
                 "/3/NodePersistentStorage/notebook"):
        assert not cloud.cli("api", "c", "GET", path).stderr, path
    assert "HTTP status 404" in cloud.cli("api", "c", "HEAD", "/3/Jobs", code=1).stderr
    assert not locked(cloud)


def test_lock_warning(cloud):
    """Before what locks an unlocked cloud there is a warning; afterwards there is none."""
    done = cloud.cli("api", "c", "GET", "/3/ModelBuilders")
    assert "GET /3/ModelBuilders locks cloud 'c'" in done.stderr and "-q" in done.stderr
    assert "gbm" in done.stdout and locked(cloud)
    assert not cloud.cli("api", "c", "GET", "/3/ModelBuilders").stderr


# --- what each is for -----------------------------------------------------------------------------


def checksum(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def test_upload_and_download(cloud, tmp_path):
    """A file goes up as it is, and comes down again: its checksum is the same; numbers, too."""
    rows = ["a,b"] + [f"{i},{i * 0.5}" for i in range(20000)]
    sent = tmp_path / "sent me.csv"
    sent.write_text("\n".join(rows) + "\n")
    said = json.loads(cloud.cli("api", "c", "POST", "/3/PostFile", "--file", str(sent), "-d",
                                "destination_frame=raw upload").stdout)
    assert said == {"destination_frame": "raw upload", "total_bytes": sent.stat().st_size}
    noise = tmp_path / "noise"
    noise.write_bytes(random.Random(1).randbytes(3_000_000))
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"value": noise.read_bytes().hex()[:100000]}))
    setup = json.loads(cloud.cli("api", "c", "POST", "/3/ParseSetup", "-d", 'source_frames=["raw upload"]').stdout)
    cloud.cli("api", "c", "POST", "/3/Parse", "-d", 'source_frames=["raw upload"]', "-d",
              "destination_frame=numbers", "-d", f"parse_type={setup['parse_type']}", "-d", "separator=44", "-d",
              "number_columns=2", "-d", 'column_types=["Numeric","Numeric"]', "-d", 'column_names=["a","b"]', "-d",
              "check_header=1", "-d", f"chunk_size={setup['chunk_size']}", "-d", "delete_on_done=true", "-d",
              "blocking=true")
    got = tmp_path / "got"
    cloud.cli("api", "c", "GET", "/3/DownloadDataset", "-d", "frame_id=numbers", "-o", str(got))
    back = [tuple(map(float, r.split(","))) for r in got.read_text().splitlines()[1:]]
    assert back == [tuple(map(float, r.split(","))) for r in rows[1:]]
    again = tmp_path / "again"
    with open(again, "wb") as f:  # piped, the very bytes
        subprocess.run([H2OFLEET, "--socket", str(cloud.socket), "api", "c", "GET",
                        "/3/DownloadDataset?frame_id=numbers"], stdout=f, check=True, env=cloud.env())
    assert checksum(again) == checksum(got)
    cloud.cli("api", "c", "DELETE", "/3/Frames/numbers")


def test_jobs_follow_and_cancel(cloud, connected):
    """`jobs -f` in a terminal draws the progress of a real GBM over and over; piped it is plain lines;
    `jobs cancel` ends the job, the client sees it cancelled, and both followers end by themselves."""
    trainer = client(GBM % 3000, cloud.cloud()["endpoint"])
    try:
        running = until("the job", 60, lambda: [
            j for j in json.loads(cloud.cli("jobs", "c", "--json").stdout)["jobs"]
            if j["running"] and j["description"] == "GBM"])
        assert running[0]["dest"] == "parity_gbm" and running[0]["status"] == "RUNNING"
        watcher = Terminal(cloud, "jobs", "c", "-f")
        watcher.wait(r"\[[=> ]{20}\] +\d+% .*GBM", 10)
        watcher.wait(r"\x1b\[\d+A\r\x1b\[J\[", 10)  # drawn over
        piped = subprocess.Popen([H2OFLEET, "--socket", str(cloud.socket), "jobs", "c", "-f"], text=True,
                                 stdout=subprocess.PIPE, env=cloud.env())
        time.sleep(1)
        assert "1 job cancelled" in cloud.cli("jobs", "c", "cancel", running[0]["id"]).stdout
        assert watcher.end() == 0 and "cancelled after" in watcher.said
        lines = piped.communicate(timeout=20)[0].splitlines()
        assert piped.returncode == 0 and re.match(r"running \d+% .*: GBM, parity_gbm", lines[0])
        assert "\x1b" not in "".join(lines) and lines[-1].startswith("cancelled ")
        said, _ = trainer.communicate(timeout=60)
        assert "ENDED" in said
        assert "had ended already" in cloud.cli("jobs", "c", "cancel", running[0]["id"]).stderr
        assert "no job 'nix'" in cloud.cli("jobs", "c", "cancel", "nix", code=1).stderr
    finally:
        trainer.kill()
        trainer.communicate()


def test_clean_after_a_killed_client(cloud, connected):
    """A client that is killed leaves its session's frames: shown, kept while somebody may be at work,
    and removed when asked; another session's are not touched, nor what has a name."""
    killed = client("""
frame = h2o.create_frame(rows=20000, cols=5, seed=1)
h2o.assign(frame[0:2], "precious")
total = frame[0] * 2 + frame[1]
total.refresh()
print("SESSION", h2o.connection().session_id, flush=True)
import os, signal
os.kill(os.getpid(), signal.SIGKILL)
""", cloud.cloud()["endpoint"])
    said, _ = killed.communicate(timeout=60)
    session = re.search(r"SESSION (\S+)", said).group(1)
    h2o = connected.h2o
    mine = h2o.create_frame(rows=100, cols=2, seed=1)
    own = connected.connection.session_id

    shown = json.loads(cloud.cli("clean", "c", "--json").stdout)
    sizes = {s["id"]: s["bytes"] for s in shown["sessions"]}
    assert sizes[session] > 100_000 and own in sizes and shown["removed"] is None
    assert session in cloud.cli("clean", "c").stdout and "precious" in cloud.cli("clean", "c").stdout
    refused = cloud.cli("clean", "c", "--session", session, "--yes", code=1)
    assert "may be at work" in refused.stderr
    assert "nobody to ask" in cloud.cli("clean", "c", "--session", session, "--idle", "0", code=1).stderr
    assert "no session" in cloud.cli("clean", "c", "--session", "_sid_nix", "--yes", code=1).stderr

    asked = Terminal(cloud, "clean", "c", "--session", session, "--idle", "0")
    asked.wait(r"\[y/N\]", 20)
    os.write(asked.master, b"n\n")
    assert asked.end() == 1 and "nothing was removed" in asked.said
    assert session in cloud.cli("clean", "c").stdout

    done = json.loads(cloud.cli("clean", "c", "--session", session, "--idle", "0", "--yes", "--json").stdout)
    assert done["removed"]["sessions"] == 1 and done["removed"]["bytes"] > 100_000
    left = [s["id"] for s in done["sessions"]]
    assert session not in left and own in left
    assert "precious" in [f["name"] for f in done["frames"]]
    assert mine.nrow == 100 and mine.mean(return_frame=True).nrow == 1  # its vectors are there
    cloud.cli("clean", "c", "--frames", "--models", "--idle", "0", "--yes")
    left = json.loads(cloud.cli("clean", "c", "--json").stdout)
    assert (left["frames"], left["models"], left["sessions"]) == ([], [], [])


def test_errors_of_h2o(cloud):
    """H2O's error becomes one sentence, without its stack trace."""
    done = cloud.cli("api", "c", "GET", "/3/Frames/nix", code=1)
    assert done.stderr == (
        "h2ofleet: H2O answered with HTTP status 404: Object 'nix' not found for argument: key\n")
    assert not done.stdout
    done = cloud.cli("timezone", "c", "set", "Mars/Olympus", code=1)
    assert "Unacceptable timezone Mars/Olympus" in done.stderr


# --- side by side ---------------------------------------------------------------------------------


def test_table_is_whole():
    """Every public member of the three classes of this h2o is in the table, and nothing else; and
    contrib/PARITY.md is that table."""
    assert {m for m, _, _ in parity.ROWS} == MEMBERS
    assert (REPO / "contrib/PARITY.md").read_text() == parity.table()


@pytest.mark.parametrize("check", list(dict.fromkeys(c for _, _, c in parity.ROWS)), ids=lambda c: c.__name__)
def test_row(connected, check):
    """What the command says is what the Python object says."""
    check(connected)
