"""What a single node answers: src/model/verdict.c, src/drv/http.c, src/core/idle.c, src/core/jobs.c, the client."""

import http.client
import json
import re
import time

import pytest

from fleet import REPO, read, until
from nodes import LOCALHOST

# --- /3/Cloud -------------------------------------------------------------------------------------

TEXT, NUMBER, WHOLE, BOOL = str, (int, float, str), int, bool

CLOUD = {
    "version": TEXT, "cloud_name": TEXT, "cloud_size": WHOLE, "node_idx": WHOLE, "bad_nodes": WHOLE,
    "cloud_uptime_millis": WHOLE, "consensus": BOOL, "locked": BOOL, "cloud_healthy": BOOL, "nodes": list,
    # For the client alone:
    "cloud_internal_timezone": TEXT, "datafile_parser_timezone": TEXT, "build_age": TEXT, "build_too_old": BOOL,
    "internal_security_enabled": BOOL,
}
NODE = {
    "ip_port": TEXT, "pid": WHOLE, "healthy": BOOL, "last_ping": WHOLE, "free_mem": WHOLE, "max_mem": WHOLE,
    "mem_value_size": WHOLE, "pojo_mem": WHOLE, "num_cpus": WHOLE, "nthreads": WHOLE, "sys_load": NUMBER,
    "num_keys": WHOLE,
    # For the client alone:
    "cpus_allowed": WHOLE, "swap_mem": WHOLE, "free_disk": WHOLE, "max_disk": WHOLE, "open_fds": WHOLE,
    "tcps_active": WHOLE, "rpcs_active": WHOLE, "my_cpu_pct": WHOLE,
}


def wrong(fields, of):
    return {k: of.get(k, "missing") for k, t in fields.items()
            if not isinstance(of.get(k), t) or (t is int and isinstance(of.get(k), bool))}


@pytest.mark.relies("src/model/verdict.c: cloud_uptime_millis", "src/model/verdict.c: number_of", "src/cli/info.c: tcps_active")
def test_cloud(rig):
    """GET /3/Cloud?skip_ticks=true has the fields that we read, of these types; numbers of one node's load may be
    texts ("NaN"). A lone node is number 0 of a healthy cloud of one, with its own pid and port."""
    node = rig.fresh()
    view = until("its first heartbeat", 10, lambda: (lambda v: v["nodes"][0]["pid"] and v)(node.cloud()))
    assert not wrong(CLOUD, view) and not wrong(NODE, view["nodes"][0])
    assert [view[k] for k in ("cloud_name", "cloud_size", "node_idx", "consensus", "cloud_healthy", "bad_nodes",
                              "locked")] == ["cloud", 1, 0, True, True, 0, False]
    me = view["nodes"][0]
    assert (me["ip_port"], me["pid"], me["healthy"]) == (node.ip_port, node.pid, True)
    assert view["version"] == node.kind.version
    assert me["max_mem"] > 0 and abs(me["last_ping"] - time.time() * 1000) < 120_000


@pytest.mark.relies("src/drv/http.c: X-h2o-cluster-id:", "src/drv/http.c: X-h2o-cluster-good:")
def test_head(rig):
    """HEAD /3/Cloud is 200 without a body, with X-h2o-cluster-good and X-h2o-cluster-id, which is the time of this
    node's boot in ms and the same in each answer, and with H2O's version."""
    node = rig.fresh()
    head, again = (node.ask("/3/Cloud?skip_ticks=true", "HEAD") for _ in range(2))
    assert head.status == 200 and head.body == b"" and head.headers["X-h2o-cluster-good"] == "true"
    assert abs(int(head.headers["X-h2o-cluster-id"]) - time.time() * 1000) < 600_000
    assert again.headers["X-h2o-cluster-id"] == head.headers["X-h2o-cluster-id"]
    assert head.headers["X-h2o-build-project-version"] == node.kind.version
    assert node.ask("/3/Cloud").headers["X-h2o-cluster-id"] == head.headers["X-h2o-cluster-id"]


@pytest.mark.relies("src/drv/http.c: CURLOPT_NOBODY")
def test_keep_alive(rig):
    """A connection serves one request after the other."""
    connection = http.client.HTTPConnection(LOCALHOST, rig.any().port, timeout=30)
    for method in ("GET", "HEAD", "GET"):
        connection.request(method, "/3/Cloud?skip_ticks=true")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200 and not answer.will_close
    connection.close()


# --- what locks -----------------------------------------------------------------------------------

SAMPLES = {"/flow/*": "/flow/index.html", "/3/Typeahead/files": "/3/Typeahead/files?src=/tmp&limit=1",
           "/3/NodePersistentStorage/*": "/3/NodePersistentStorage/categories/notebook/exists"}


def harmless():
    """The table of src/cli/h2o_locks.c."""
    table = re.findall(r'\{"([A-Z ]+)", "([^"]+)"\}', read(REPO / "src/cli/h2o_locks.c"))
    assert len(table) >= 7
    return [(method, SAMPLES.get(path, path)) for methods, path in table for method in methods.split()
            if method in ("GET", "POST")]


@pytest.mark.relies("src/cli/h2o_locks.c: harmless", "src/core/polls.c: /3/Cloud?skip_ticks=true")
def test_what_does_not_lock(rig):
    """Nothing in our table of what is harmless locks a cloud, nor does HEAD (404 but of / and /3/Cloud), nor what
    does not exist."""
    node = rig.fresh()
    for method, path in [*harmless(), ("HEAD", "/"), ("HEAD", "/3/Jobs"), ("GET", "/3/Frobnicate"),
                         ("GET", "/3/Jobs/frobnicate")]:
        status = node.ask(path, method).status
        assert not node.cloud()["locked"], f"{method} {path} ({status}) locks"
        if method == "GET" and "frobnicate" not in path.lower() and "Storage" not in path:
            assert status in (200, 301, 302), (method, path, status)
        if path == "/3/Jobs":
            assert status == 404


LOCKING = ["GET /3/Jobs", "POST /4/sessions", "GET /3/SteamMetrics", "GET /3/Ping", "POST /3/CloudLock", "GET /3/Frames",
           "POST /99/Rapids ast=1", "GET /3/ModelBuilders", "GET /3/Metadata/endpoints", "GET /3/Capabilities",
           "GET /3/Models", "POST /3/CreateFrame dest=f", "GET /3/Logs/download", "DELETE /3/DKV"]


def ask_line(node, line):
    method, path, *form = line.split()
    return node.ask(path, method, form=dict(f.split("=") for f in form) if form else None)


@pytest.mark.relies("src/core/idle.c: A cloud that is not has never been used", "src/cli/h2o_locks.c: nearly everything")
@pytest.mark.parametrize("line", [line if i < 1 else pytest.param(line, marks=pytest.mark.long)
                                  for i, line in enumerate(LOCKING)])
def test_what_locks(rig, line):
    """Whatever uses a cloud locks it; so one that is not locked has never been used."""
    node = rig.fresh()
    assert ask_line(node, line).status == 200
    assert node.cloud()["locked"]


# --- is it in use? --------------------------------------------------------------------------------


@pytest.mark.relies("src/core/idle.c: idle_millis", "src/core/idle.c: has_status")
def test_idle(rig):
    """/3/SteamMetrics says for how long nothing has been computed, by H2O's own clock; a Rapids expression begins
    that anew."""
    node = rig.any()
    session = node.good("/4/sessions", "POST")["session_key"]
    node.good("/99/Rapids", "POST", form={"ast": "(+ 1 1)", "session_id": session})
    begun = time.time()
    until("idle time", 5, lambda: node.good("/3/SteamMetrics")["idle_millis"] >= 300)
    assert node.good("/3/SteamMetrics")["idle_millis"] <= (time.time() - begun) * 1000 + 500
    node.good("/99/Rapids", "POST", form={"ast": "(+ 1 1)", "session_id": session})
    assert node.good("/3/SteamMetrics")["idle_millis"] < 300


# --- work -----------------------------------------------------------------------------------------


def make_frame(node):
    made = node.good("/3/CreateFrame", "POST", form={
        "dest": "boot_frame", "rows": 100, "cols": 3, "seed": 1, "has_response": "true", "response_factors": 2,
        "categorical_fraction": 0, "integer_fraction": 0, "binary_fraction": 0, "string_fraction": 0, "time_fraction": 0,
        "missing_fraction": 0})
    node.await_job(made["key"]["name"])


@pytest.mark.relies("src/drv/bootcheck.c: boot_exercise", "src/drv/bootcheck.c: routes")
def test_what_the_boot_cache_tries(rig):
    """The endpoints are listed with their handlers and schemas; a session, a frame, an expression and a model are
    answered as the boot cache's check wants it."""
    node = rig.any()
    routes = node.good("/3/Metadata/endpoints")["routes"]
    assert all(isinstance(r[k], str) for r in routes for k in (
        "http_method", "url_pattern", "handler_class", "handler_method", "input_schema", "output_schema"))
    for path in ("/3/Metadata/schemas/CloudV3", "/3/Metadata/schemas/H2OErrorV3",
                 "/3/Metadata/schemas/H2OModelBuilderErrorV3", "/3/About", "/3/Capabilities/API"):
        node.good(path)
    session = node.good("/4/sessions", "POST")["session_key"]
    make_frame(node)
    answer = node.good("/99/Rapids", "POST", form={"ast": "(+ (nrow boot_frame) 1)", "session_id": session})
    assert answer["scalar"] == 101
    model = node.good("/3/ModelBuilders/gbm", "POST", form={
        "model_id": "boot_model", "training_frame": "boot_frame", "response_column": "response", "ntrees": 1,
        "max_depth": 2, "min_rows": 1, "seed": 1})
    node.await_job(model["job"]["key"]["name"])
    node.good("/3/Models/boot_model")
    node.good(f"/4/sessions/{session}", "DELETE")


JOB = {"key": dict, "description": TEXT, "status": TEXT, "progress": (int, float), "start_time": WHOLE, "msec": WHOLE,
       "dest": dict}


@pytest.mark.relies("src/core/jobs.c: \"jobs\\\":[", "src/core/jobs.c: _exclude_fields=jobs/stacktrace", "src/cli/clean.c: /3/Jobs?_exclude_fields")
def test_jobs(rig):
    """/3/Jobs begins its list with `"jobs":[`, without a blank; each job has what we show, and can be asked for
    alone, with its key in percent encoding."""
    node = rig.any()
    make_frame(node)
    answer = node.ask("/3/Jobs?_exclude_fields=jobs/stacktrace")
    assert b'"jobs":[' in answer.body
    job = answer.json()["jobs"][-1]
    assert not wrong(JOB, job) and isinstance(job["dest"]["name"], str) and isinstance(job["dest"]["type"], str)
    assert job["status"] == "DONE" and job["progress"] == 1
    assert abs(job["start_time"] - time.time() * 1000) < 600_000
    assert node.job(job["key"]["name"])["key"] == job["key"]


@pytest.mark.relies("src/core/jobs.c: CANCEL_PENDING", "src/core/jobs.c: /cancel")
def test_cancel(rig):
    """A job that runs is RUNNING, SteamMetrics says no idle time then, and POST .../cancel makes it CANCELLED."""
    node = rig.any()
    key = begin_grid(node)
    job = until("the job runs", 20, lambda: (lambda j: j["status"] == "RUNNING" and j)(node.job(key)))
    assert job["progress"] < 1 and node.good("/3/SteamMetrics")["idle_millis"] < 1000
    assert node.ask(f"/3/Jobs/{key.replace('$', '%24')}/cancel", "POST").status == 200
    node.await_job(key, "CANCELLED")


def begin_grid(node, trees=(20, 30), depths=(5, 6, 7, 8)):
    """A grid search that takes a while, of a model for each of trees and depths; its job's key."""
    if node.kind.is_fake:
        before = {j["key"]["name"] for j in node.good("/3/Jobs")["jobs"]}
        node.knob("grid_ms", 60000)
        return next(j["key"]["name"] for j in node.good("/3/Jobs")["jobs"] if j["key"]["name"] not in before)
    node.await_job(node.good("/3/CreateFrame", "POST", form={
        "dest": "grid_frame", "rows": 5000, "cols": 10, "seed": 1, "has_response": "true", "response_factors": 2,
        "missing_fraction": 0})["key"]["name"])
    return node.good("/99/Grid/gbm", "POST", form={
        "training_frame": "grid_frame", "response_column": "response", "seed": 1,
        "hyper_parameters": json.dumps({"ntrees": trees, "max_depth": depths})})["job"]["key"]["name"]


# --- what only the client asks --------------------------------------------------------------------

REAL_DATA = "it has no data: the client's commands are tested with a stand-in (tests/e2e/test_h2ocmds.py)"


@pytest.mark.not_fake(REAL_DATA)
@pytest.mark.relies("src/cli/clean.c: /3/Frames", "src/cli/clean.c: byte_size", "src/cli/clean.c: /3/DKV")
def test_frames_and_models(rig):
    """/3/Frames and /3/Models list what there is as we read it; each is removed by its name, all by /3/DKV."""
    node = rig.any()
    make_frame(node)
    frame = next(f for f in node.good("/3/Frames")["frames"] if f["frame_id"]["name"] == "boot_frame")
    assert frame["byte_size"] > 0 and frame["rows"] == 100 and frame["columns"] >= 3
    assert isinstance(node.good("/3/Models")["models"], list)
    node.good("/3/Frames/boot_frame", "DELETE")
    assert "boot_frame" not in json.dumps(node.good("/3/Frames"))
    make_frame(node)
    node.good("/3/DKV", "DELETE")
    assert node.good("/3/Frames")["frames"] == []


@pytest.mark.not_fake(REAL_DATA)
@pytest.mark.relies("src/cli/timezone.c: setTimeZone", "src/cli/timezone.c: /light?row_count=")
def test_time_zones(rig):
    """(setTimeZone "...") and (listTimeZones) work as we use them."""
    node = rig.any()
    session = node.good("/4/sessions", "POST")["session_key"]
    node.good("/99/Rapids", "POST", form={"ast": '(setTimeZone "Europe/Paris")', "session_id": session})
    assert node.cloud()["datafile_parser_timezone"] == "Europe/Paris"
    node.good("/99/Rapids", "POST", form={"ast": '(setTimeZone "UTC")', "session_id": session})
    node.good("/99/Rapids", "POST", form={"ast": "(tmp= zones (listTimeZones))", "session_id": session})
    column = node.good("/3/Frames/zones/light?row_count=10")["frames"][0]["columns"][0]
    assert len(column["domain"]) > 300
    node.good(f"/4/sessions/{session}", "DELETE")


@pytest.mark.not_fake(REAL_DATA)
@pytest.mark.relies("src/cli/timezone.c: /3/NetworkTest", "src/cli/h2o.c: Content-Disposition:")
def test_downloads(rig):
    """The logs come as an attachment with a name; the network test is a table."""
    node = rig.any()
    logs = node.ask("/3/Logs/download")
    assert logs.status == 200 and "filename=" in logs.headers["Content-Disposition"] and logs.body[:2] == b"PK"
    table = node.good("/3/NetworkTest")["table"]
    assert table["columns"] and table["data"]


@pytest.mark.relies("doc/security.md: no check of `Origin` or `Host`")
def test_any_origin(rig):
    """H2O asks nobody where a request comes from: what a web page of another origin sends, or sends by a name of its own
    that leads to this machine, is answered as ours is. If it did otherwise, the threat would be smaller than we say."""
    node = rig.any()
    page = {"Origin": "http://a.page.example", "Referer": "http://a.page.example/", "Sec-Fetch-Site": "cross-site",
            "Host": "a.name.example:54321"}
    assert node.ask("/3/Cloud", headers=page).json()["cloud_name"] == node.cloud()["cloud_name"]
    # A form is what a page may send without asking first.
    node.good("/99/Rapids", "POST", form={"ast": "(+ 1 2)", "session_id": "s"}, headers=page)


@pytest.mark.relies("src/cli/h2o.c: H2OErrorV3")
def test_errors(rig):
    """An error is JSON with `msg`, `exception_msg` and `http_status`; what does not exist is 404."""
    node = rig.any()
    answer = node.ask("/3/Frobnicate")
    error = answer.json()
    assert (answer.status, error["http_status"]) == (404, 404) and isinstance(error["msg"], str)
    assert isinstance(error["exception_msg"], str) and error["__meta"]["schema_name"] == "H2OErrorV3"
