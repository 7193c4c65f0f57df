"""Why clouds were lost: what is kept of it, for how long, and how it is shown. With fake nodes."""

import contextlib
import http.client
import json
import os
import re
import signal

import pytest

from fleet import REPO, pid_alive, until

ID = re.compile(r"\d{8}-\d{6}-\d{3}")


def incidents(fleet, **query):
    """Summaries, the newest first."""
    tail = "&".join(f"{k}={v}" for k, v in query.items())
    status, body = fleet.api("GET", f"/v1/incidents{'?' + tail if tail else ''}")
    assert status == 200, body
    return body["incidents"]


def incident(fleet, id):
    status, body = fleet.api("GET", f"/v1/incidents/{id}")
    assert status == 200, body
    return body


def concluded(fleet, n=1):
    """The newest of exactly n incidents, in full, once it is known what was done then."""

    def probe():
        found = incidents(fleet)
        assert len(found) <= n, found
        return len(found) == n and found[0]["outcome"] and found[0]

    return incident(fleet, until(lambda: f"{n} incidents\n{fleet.log_tail()}", 20, probe)["id"])


def events(fleet, kind):
    lines = fleet.cli("events", "--json").stdout.splitlines()
    return [e for e in map(json.loads, lines) if e["type"] == kind]


def post(port, path):
    """What it does may be to end before it answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("POST", path)
        connection.getresponse().read()


def knob(fleet, index, key, value=1):
    post(fleet.nodes()[index]["api_port"], f"/fake/{key}?value={value}")


def files(fleet):
    return sorted(p.name for p in (fleet.state_dir / "incidents").iterdir())


# --- what is kept ---------------------------------------------------------------------------------


def test_killed(fake):
    """A member that somebody kills is one incident, not three: its members are all there, an event
    and the node tell its id, and what the node printed last is in it, harmless."""
    fleet = fake(nodes=3)
    fleet.ready()
    with open(fleet.log_dir / "c" / "1.log", "ab") as log:
        log.write(b"\x1b[2Jevil \xff bytes\n")
    pid = fleet.kill_member(1)
    fleet.ready(generation=2)
    one = concluded(fleet)
    assert ID.fullmatch(one["id"]) and one["time"].endswith("Z")
    assert (one["cloud"], one["node"], one["generation"]) == ("c", 1, 1)
    assert (one["kind"], one["cause"], one["signal"], one["code"]) == ("exit", "signal", "SIGKILL", None)
    assert "SIGKILL" in one["summary"] and one["pid"] == pid
    assert (one["outcome"], one["restart_delay_ms"]) == ("restarted", 0)
    assert one["oom"]["kernel"] in (False, None) and one["oom"]["java"] is False
    assert one["cloud_state"] == "ready" and one["ready_for_ms"] >= 0 and one["h2o_name"]
    assert "\x1b[2Jevil \ufffd bytes" in one["log_tail"]
    assert len(one["log_tail"].splitlines()) <= 50
    assert one["machine"]["memory_bytes"] > 0 and len(one["machine"]["load"]) == 3
    assert [n["index"] for n in one["nodes"]] == [0, 1, 2]
    assert [n["pid"] is None for n in one["nodes"]] == [False, True, False]
    assert one["hs_err"] is None and one["thread_dump"] is None

    told = events(fleet, "incident")
    assert [e["incident"] for e in told] == [one["id"]]
    assert told[0]["node"] == 1 and told[0]["cause"] == "signal" and one["id"] in told[0]["message"]
    nodes = fleet.nodes()
    assert nodes[1]["last_exit"]["incident"] == one["id"]
    assert [nodes[i]["last_exit"]["incident"] for i in (0, 2)] == [None, None]
    assert fleet.cloud()["incident"] == one["id"]
    mode = (fleet.state_dir / "incidents" / f"{one['id']}.json").stat().st_mode
    assert mode & 0o777 == 0o640

    shown = fleet.cli("incidents", "last").stdout
    assert "\x1b" not in shown and "\\x1b[2Jevil" in shown


def test_exit_code(fake):
    """A member that ends by itself: its code, and what the operator's restart policy made of it."""
    fleet = fake(nodes=1, restart="never")
    fleet.ready()
    knob(fleet, 0, "exit_code_now", 7)
    fleet.wait("failed")
    one = concluded(fleet)
    assert (one["code"], one["signal"], one["cause"]) == (7, None, "unknown")
    assert one["outcome"] == "given-up" and one["restart_delay_ms"] is None
    shown = fleet.cli("status", "c", code=6).stdout
    assert f"h2ofleet incidents {one['id']}" in shown, "where the evidence is, while it is not well"


def test_hang(fake):
    """A node that does not answer: it is asked for a thread dump, which is in the incident, with
    /proc of before, and then killed."""
    fleet = fake(nodes=2, hang_timeout="2s", late_after="500ms", health_interval="200ms")
    fleet.ready()
    pid = fleet.nodes()[1]["pid"]
    knob(fleet, 1, "hang")
    fleet.ready(generation=2)
    one = concluded(fleet)
    assert (one["kind"], one["cause"], one["node"], one["pid"]) == ("hang", None, 1, pid)
    assert one["signal"] == "SIGKILL" and not pid_alive(pid)
    assert "hangs" in one["summary"]
    assert one["thread_dump"].startswith("Full thread dump OpenJDK")
    assert "JNI global refs" in one["thread_dump"] and one["thread_dump_note"] is None
    assert "Full thread dump" not in one["log_tail"], "those lines are of before"
    assert f"process {pid}" in one["proc"] and "VmRSS" in one["proc"] and "threads" in one["proc"]
    assert one["nodes"][1]["silent_ms"] >= 2000 > one["nodes"][0]["silent_ms"]
    assert fleet.nodes()[1]["last_exit"]["incident"] == one["id"]


def test_stopped_process(fake):
    """One that stands still by SIGSTOP cannot write a dump: that is said."""
    fleet = fake(nodes=1, hang_timeout="1s", late_after="500ms", health_interval="200ms")
    fleet.ready()
    fleet.kill_member(0, signal.SIGSTOP)
    fleet.ready(generation=2)
    one = concluded(fleet)
    assert one["kind"] == "hang" and one["thread_dump"] is None
    assert "stands still" in one["thread_dump_note"] and "state T" in one["proc"]
    assert "stands still" in fleet.cli("incidents", "last").stdout


def test_output_elsewhere(fake):
    """With log_to = inherit what it printed, and its dump, are not in our hands: where they are is
    said, and that nothing is known of an OutOfMemoryError."""
    fleet = fake(nodes=1, hang_timeout="1s", late_after="500ms", health_interval="200ms",
                 log_to="inherit")
    fleet.ready()
    knob(fleet, 0, "hang")
    fleet.ready(generation=2)
    one = concluded(fleet)
    assert one["log_tail"] is None and one["log_file"] is None and one["thread_dump"] is None
    assert "standard output" in one["log_elsewhere"]
    assert one["thread_dump_note"] == one["log_elsewhere"] and one["oom"]["java"] is None
    assert one["log_elsewhere"] in fleet.cli("incidents", "last").stdout


def test_crash_report(fake):
    """The JVM's own report of a crash: where it is, and its head, without the command line: more people may read an
    incident than the configuration."""
    fleet = fake(nodes=1, knobs="-Ddb.password=hunter2")
    fleet.ready()
    knob(fleet, 0, "hs_err")
    fleet.ready(generation=2)
    one = concluded(fleet)
    assert one["cause"] == "jvm-crash" and one["signal"] == "SIGABRT"
    assert os.path.exists(one["hs_err"]["path"])
    report = open(one["hs_err"]["path"]).read()
    assert report.startswith(one["hs_err"]["head"][:200])
    assert "Command Line: ***\n" in one["hs_err"]["head"]
    assert "hunter2" in report and "hunter2" not in one["hs_err"]["head"]
    assert one["hs_err"]["path"] in fleet.cli("incidents", "last").stdout


def test_out_of_java_heap(fake):
    """OutOfMemoryError in the log is evidence by itself, with the line that says it."""
    fleet = fake(nodes=1)
    fleet.ready()
    knob(fleet, 0, "oom")
    fleet.ready(generation=2)
    one = concluded(fleet)
    assert (one["cause"], one["code"]) == ("java-oom", 3)
    assert one["oom"]["java"] is True and "OutOfMemoryError" in one["oom"]["java_line"]


def test_never_ready(fake):
    """A formation that takes too long: what is known of the node that has not answered."""
    fleet = fake(nodes=2, knobs="-Dfake.1.g1.never_ready=1", ready_timeout="2s")
    fleet.ready(generation=2)
    one = concluded(fleet)
    assert (one["kind"], one["cause"], one["node"]) == ("not-ready", None, 1)
    assert "ready_timeout" in one["summary"] and one["cloud_state"] in ("starting", "forming")
    assert one["log_tail"] and "VmRSS" in one["proc"]
    assert one["nodes"][1]["silent_ms"] is None


def test_what_is_none(fake):
    """The operator's stop and restart, a client's /3/Shutdown, a formation begun anew because a
    client came too early: none of these is an incident."""
    fleet = fake(nodes=2, knobs="-Dfake.g4.0.locked=1 -Dfake.g4.1.isolate=1",
                 gate_mode="off")
    fleet.ready()
    fleet.cli("restart", "c", "--wait")
    fleet.cli("stop", "c", "--wait")
    fleet.cli("start", "c", "--wait")
    post(fleet.cloud()["endpoint_port"], "/3/Shutdown")
    fleet.wait("stopped")
    fleet.cli("start", "c", "--wait")
    assert fleet.cloud()["short_locks"] == 1
    assert incidents(fleet) == [] and events(fleet, "incident") == []
    assert fleet.cli("incidents").stdout == "no incidents\n"
    assert fleet.cli("incidents", "c").stdout == "no incidents of c\n"
    assert fleet.cloud()["incident"] is None


# --- for how long ---------------------------------------------------------------------------------


def made_up(id, cloud="old"):
    """As the daemon writes it."""
    first = {"id": id, "time": "2020-01-01T00:00:00.000Z", "cloud": cloud, "node": 0, "generation": 1,
             "kind": "exit", "cause": "signal", "summary": "made up", "code": None,
             "signal": "SIGKILL", "outcome": "restarted", "restart_delay_ms": 0}
    return json.dumps(first, separators=(",", ":"))[:-1] + ',\n"log_tail":"x"}\n'


def test_bounded(fake):
    """A hundred are kept, the oldest go first; what is damaged, half written, or of the form of
    earlier versions is removed; foreign files stay."""
    fleet = fake(nodes=1, start=False)
    where = fleet.state_dir / "incidents"
    where.mkdir(parents=True)
    ids = [f"20200101-000000-{i:03}" for i in range(105)]
    for id in ids:
        (where / f"{id}.json").write_text(made_up(id))
    (where / "20200102-000000-000.json").write_text('{"id":"20200102-0000')
    (where / "20200103-000000-000.json.new").write_text("half")
    (where / "1700000000000-c-0.txt").write_text("of an earlier version")
    (where / "README").write_text("somebody's")
    fleet.start()
    fleet.ready()
    assert files(fleet) == [f"{id}.json" for id in ids[5:]] + ["README"]
    assert [i["id"] for i in incidents(fleet)] == ids[:4:-1]
    fleet.kill_member(0)
    fleet.ready(generation=2)
    until("the new one, in place of the oldest", 10, lambda: incidents(fleet)[0]["cloud"] == "c")
    assert [i["id"] for i in incidents(fleet)[1:]] == ids[:5:-1]
    assert len(files(fleet)) == 101
    assert len(incidents(fleet, limit=3)) == 3
    assert [i["cloud"] for i in incidents(fleet, cloud="c")] == ["c"]
    assert fleet.api("GET", f"/v1/incidents/{ids[5]}")[0] == 404


def test_outlives_the_daemon(fake):
    """After kill -9 the next daemon lists what there was, the same to the letter; what died while
    there was none is an incident of its own, with what is still known."""
    fleet = fake(nodes=2)
    fleet.ready()
    fleet.kill_member(1)
    fleet.ready(generation=2)
    first = concluded(fleet)
    fleet.kill_daemon()
    pid = next(pid for pid, cmd in fleet.members().items() if "/0/" in cmd or "-0" in cmd)
    os.kill(pid, signal.SIGKILL)
    until("its death", 5, lambda: not pid_alive(pid))
    fleet.start()
    fleet.ready(generation=3)
    second = concluded(fleet, 2)
    assert second["id"] > first["id"] and second["generation"] == 2 and second["pid"] == pid
    assert second["kind"] == "exit" and second["log_tail"]
    assert incident(fleet, first["id"]) == first
    assert [e["incident"] for e in events(fleet, "incident")] == [first["id"], second["id"]]


def test_taken_up(fake):
    """A daemon that is killed between the loss and what follows: the incident is there, and the next
    daemon adds what was done then; it makes no other of the same loss."""
    fleet = fake(nodes=2, knobs="-Dfake.0.ignore_term=1", stop_timeout="10s")
    fleet.ready()
    fleet.kill_member(1)
    first = until("an incident", 10, lambda: incidents(fleet))[0]
    fleet.kill_daemon()
    assert first["outcome"] is None
    assert fleet.members(), "the other member takes its time"
    fleet.start()
    fleet.ready(generation=2)
    one = concluded(fleet)
    assert (one["id"], one["outcome"], one["signal"]) == (first["id"], "restarted", "SIGKILL")
    assert [e["incident"] for e in events(fleet, "incident")] == [one["id"]]


def test_removed_while_open(fake):
    """One that is removed before it is known what came of it does not come back."""
    fleet = fake(nodes=1, restart_delay="2s")
    fleet.ready()
    fleet.kill_member(0)
    newest = until("there is one", 20, lambda: incidents(fleet))[0]["id"]
    assert fleet.api("DELETE", f"/v1/incidents/{newest}")[0] == 200
    fleet.ready(generation=2)
    assert incidents(fleet) == []


def test_a_cloud_called_2026(fleets, fake_keys):
    """Where a word may be a cloud's name or the beginning of an id, it is the cloud's."""
    fleet = fleets({"2026": fake_keys(1)}).start()
    fleet.ready("2026")
    fleet.kill_member(0, name="2026")
    fleet.ready("2026", generation=2)
    id = concluded(fleet)["id"]
    assert fleet.cli("incidents", "2026").stdout.startswith("ID ")
    assert fleet.cli("incidents", "2026", "last").stdout.startswith(f"incident {id}: 2026/0")


def test_cannot_be_kept(fake):
    """Where the incident cannot be written the cloud comes back all the same, and the log says so."""
    fleet = fake(nodes=1, start=False)
    fleet.state_dir.mkdir(parents=True)
    (fleet.state_dir / "incidents").write_text("in the way")
    fleet.start()
    fleet.ready()
    fleet.kill_member(0)
    fleet.ready(generation=2)
    assert "an incident is not kept" in fleet.log_tail(400)
    assert incidents(fleet) == [] and events(fleet, "incident") == []
    (fleet.state_dir / "incidents").unlink()


def test_too_much(fake):
    """Pages of what JSON has to escape, and pages of output: the file stays within 256 KiB, and the
    daemon's loop is not held up by it."""
    fleet = fake(nodes=1)
    fleet.ready()
    with open(fleet.log_dir / "c" / "0.log", "ab") as log:
        log.write((b"\x01\x02\x1b\xff" * 2000 + b"\n") * 60)
    fleet.kill_member(0)
    fleet.ready(generation=2)
    one = concluded(fleet)
    size = (fleet.state_dir / "incidents" / f"{one['id']}.json").stat().st_size
    assert size <= 256 * 1024
    assert one["log_tail"]


# --- how it is shown ------------------------------------------------------------------------------


def test_client(fake):
    """The list, one by a unique beginning of its id or as `last`, per cloud, as JSON, and removed;
    wrong words are answered with what would be right."""
    fleet = fake(nodes=1, knobs="-Dfake.log_spam=3000")
    fleet.ready()
    for generation in (2, 3):
        fleet.kill_member(0)
        fleet.ready(generation=generation)
    concluded(fleet, 2)
    newest, oldest = (i["id"] for i in incidents(fleet))
    table = fleet.cli("incidents").stdout.splitlines()
    assert re.fullmatch(r"ID +TIME +NODE +WHAT", table[0])
    assert table[1].startswith(newest) and re.search(r"  c/0 +signal, SIGKILL$", table[1])
    assert table[2].startswith("    node 0 was killed by SIGKILL")
    assert all(len(line) <= 80 for line in table)
    assert fleet.cli("incidents", "-n", "1").stdout.count("c/0") == 1
    assert fleet.cli("incidents", "c").stdout == fleet.cli("incidents").stdout
    assert [i["id"] for i in json.loads(fleet.cli("incidents", "--json").stdout)["incidents"]] == [
        newest, oldest]

    report = fleet.cli("incidents", oldest).stdout
    assert report.startswith(f"incident {oldest}: c/0, generation 1\n")
    for title in ("process", "memory and load", "last lines of its log"):
        assert re.search(rf"^{title}", report, re.M), report
    assert "\x1b" not in report
    assert fleet.cli("incidents", "last").stdout.startswith(f"incident {newest}")
    assert fleet.cli("incidents", "c", "last").stdout.startswith(f"incident {newest}")
    unique = os.path.commonprefix([newest, oldest])
    unique = oldest[:len(unique) + 1]
    assert fleet.cli("incidents", unique).stdout == report
    assert json.loads(fleet.cli("incidents", unique, "--json").stdout) == incident(fleet, oldest)

    said = fleet.cli("incidents", unique[:-1], code=1).stderr
    assert f"2 incidents begin with '{unique[:-1]}': {newest}, {oldest}" in said
    assert "no incident begins with '1999'" in fleet.cli("incidents", "1999", code=4).stderr
    assert "no cloud 'd'" in fleet.cli("incidents", "d", code=4).stderr
    assert "usage:" in fleet.cli("incidents", "--delete", code=2).stderr
    assert fleet.api("GET", "/v1/incidents/..%2f..%2ffleet-id")[0] == 400
    assert fleet.api("GET", "/v1/incidents?limit=0")[0] == 400

    assert fleet.cli("incidents", "--delete", unique).stdout == f"incident {oldest} is removed\n"
    assert fleet.cli("incidents", oldest, code=4).stdout == ""
    status, body = fleet.api("DELETE", f"/v1/incidents/{oldest}")
    assert status == 404 and body["type"].endswith(":no-such-incident")
    assert files(fleet) == [f"{newest}.json"]
    assert fleet.cli("incidents", "c", "last").stdout.startswith(f"incident {newest}")
    (fleet.state_dir / "incidents" / f"{newest}.json").write_text("[]")
    status, body = fleet.api("GET", f"/v1/incidents/{newest}")
    assert status == 500 and body["type"].endswith(":cannot-use-incident") and "damaged" in body["detail"]


def test_as_described(fake):
    """Incidents of a hang, a formation that took too long and a crash are what openapi.json says."""
    jsonschema = pytest.importorskip("jsonschema")
    components = json.loads((REPO / "src/api/openapi.json").read_text())["components"]

    def valid(it, name):
        schema = {"$ref": f"#/components/schemas/{name}", "components": components}
        jsonschema.Draft202012Validator(schema).validate(it)

    fleet = fake(nodes=2, knobs="-Dfake.1.g3.never_ready=1", ready_timeout="3s", hang_timeout="1s",
                 late_after="500ms", health_interval="200ms")
    fleet.ready()
    knob(fleet, 1, "hang")
    fleet.ready(generation=2)
    knob(fleet, 0, "hs_err")
    fleet.ready(generation=4)
    concluded(fleet, 3)
    listed = incidents(fleet)
    assert [i["kind"] for i in listed] == ["not-ready", "exit", "hang"]
    valid({"incidents": listed}, "Incidents")
    for one in listed:
        valid(incident(fleet, one["id"]), "Incident")
    valid(fleet.cloud(), "Cloud")
