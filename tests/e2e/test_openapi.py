"""src/api/openapi.json against the daemon: schemathesis asks all routes, with data that fits the
description and with data that does not, and each answer must be one that is described: no 5xx but
those that are, no other status, no other media type, no body that does not fit its schema. Fixed
seed. The schemas are also held to what clouds in every state look like."""

import contextlib
import http.client
import io
import json
import os
import re
import signal

import pytest

from conftest import finish
from fleet import REPO, SLOW, Fleet, UnixHTTP, halt, until

schemathesis = pytest.importorskip("schemathesis")
jsonschema = pytest.importorskip("jsonschema")

import hypothesis  # noqa: E402
import requests  # noqa: E402 (these come with schemathesis)
import urllib3  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402
from schemathesis.config import SchemathesisConfig  # noqa: E402

DOCUMENT = json.loads((REPO / "src/api/openapi.json").read_text())
BASE_URL = "http://localhost"
CLOUDS = ["dev", "lone", "dud", "door"]
# A stream that is silent for so long is taken for what it was.
SILENCE = 0.3
# These end the daemon, or cut us off: they get what is to be refused, and one good request at the end.
FATAL = {"/v1/shutdown", "/v1/reexec"}

# --- how schemathesis reaches the daemon ----------------------------------------------------------


class Adapter(requests.adapters.HTTPAdapter):
    """requests over the unix socket. An answer that goes on is read until it is silent."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def send(self, request, **_):
        connection = UnixHTTP(self.path, 20 * SLOW)
        try:
            connection.request(request.method, request.path_url, body=request.body,
                               headers={**request.headers, "Connection": "close"})
            sock = connection.sock
            raw = connection.getresponse()
            data = self.read(sock, raw, "follow=yes" in request.path_url)
        finally:
            connection.close()
        return self.build_response(request, urllib3.HTTPResponse(
            io.BytesIO(data), raw.getheaders(), raw.status, version=11, reason=raw.reason,
            preload_content=False))

    @staticmethod
    def read(sock, raw, endless):
        if not endless or raw.status != 200:
            return raw.read()
        sock.settimeout(SILENCE)
        data = b""
        try:
            while len(data) < 1 << 20 and (piece := raw.read1(65536)):
                data += piece
        except TimeoutError:
            pass
        return data[: data.rfind(b"\n") + 1]


@schemathesis.deserializer("application/x-ndjson")
def ndjson(_, response):
    return [json.loads(line) for line in response.content.decode().splitlines()]


config = SchemathesisConfig.from_dict({
    "seed": 20261122,
    "generation": {"deterministic": True, "max-examples": 25, "allow-x00": True},
    "phases": {"coverage": {"generate-duplicate-query-parameters": True}},
    "checks": {
        # What keys may be set to what, and beside which others, is for the key table to say.
        "positive_data_acceptance": {"expected-statuses": [
            "2xx", "400", "403", "404", "409", "410", "412", "422", "428", "504"]},
        "missing_required_header": {"expected-statuses": [400, 403, 404, 409, 422, 428]},
    },
})
schema = schemathesis.openapi.from_dict(DOCUMENT, config=config)
schema.config.update(base_url=BASE_URL)


def is_name(value):
    return isinstance(value, str) and re.fullmatch("[A-Za-z0-9][A-Za-z0-9_-]{0,31}", value)


def sensible(case):
    """What the description cannot say, and a test has no time for. What does not fit the description
    is left as it is."""
    name, query = (case.path_parameters or {}).get("name"), case.query
    if case.path == "/v1/clouds" and isinstance(case.body, dict):
        case.body.pop("start", None)  # it would be real Java
    if is_name(name):  # two in three are clouds that there are
        choice = sum(name.encode()) % (len(CLOUDS) * 3 // 2)
        case.path_parameters["name"] = (CLOUDS + ["nobody"] * 2)[choice]
    if not query:
        return
    if is_name(query.get("cloud")):
        query["cloud"] = CLOUDS[len(query["cloud"]) % len(CLOUDS)]
    if re.fullmatch("0|[0-9]+(ms|s|m|h|d)", str(query.get("timeout", "0"))):
        query.pop("timeout", None)
        if query.get("wait") in ("ready", "stopped"):
            query["timeout"] = "50ms"
    if re.fullmatch("[0-9]+", str(query.get("from"))):
        query.pop("tail", None)
    elif str(query.get("tail")) == "0" and query.get("follow") != "yes":
        query["tail"] = 1


@schemathesis.hook
def before_call(context, case, kwargs):
    sensible(case)


# --- a fleet with clouds in many states -----------------------------------------------------------


@pytest.fixture(scope="module")
def fleet(request, fake_keys):
    made = Fleet({
        "dev": fake_keys(2),
        "lone": fake_keys(1, autostart="no", gate_mode="off"),
        "dud": fake_keys(1, jar_path="/nonexistent/h2o.jar"),
        "door": fake_keys(1, autostart="no", start_on="connect", max_idle_duration="1h"),
    })
    request.node.fleets = [made]
    try:
        made.start()
        made.ready("dev")
        yield made
    finally:
        if made.daemon and made.daemon.poll() is None:
            made.stop()
        finish([made])


@pytest.fixture
def session(fleet):
    made = requests.Session()
    made.trust_env = False
    made.mount("http://", Adapter(fleet.socket))
    yield made
    # Asked for anything, it is as it was.
    assert fleet.daemon.poll() is None, fleet.log_tail()
    assert fleet.api("GET", "/v1/healthz")[0] == 200


def check(case, response):
    """Of the 5xx only the one that a waiting client asks for may come."""
    case.validate_response(response, excluded_checks=[schemathesis.checks.not_a_server_error])
    assert response.status_code < 500 or response.json()["type"].endswith(":wait-timeout"), response.text


SETTINGS = settings(deadline=None, suppress_health_check=list(HealthCheck), database=None,
                    derandomize=True, max_examples=30)


@schema.exclude(path=list(FATAL)).parametrize()
@SETTINGS
def test_conforms(case, session):
    """Each route, asked well and badly, answers as it is described."""
    check(case, case.call(session=session, base_url=BASE_URL))


@schema.include(path=list(FATAL)).parametrize()
@SETTINGS
def test_what_must_be_refused(case, session):
    """Of the routes that end the daemon: whatever does not fit the description does nothing."""
    request = requests.Request(**case.as_transport_kwargs(base_url=BASE_URL)).prepare()
    query = request.path_url.partition("?")[2]
    if request.method == "POST" and not request.body and query in ("", "at_once=yes", "at_once=no"):
        return  # it fits, whatever it was meant to be
    check(case, case.call(session=session, base_url=BASE_URL))


def test_sequences(session):
    """What one answer tells is used in the next question: commands and reads in any order."""
    failures, answers = [], []

    class Sequences(schema.exclude(path=list(FATAL)).as_state_machine()):
        def get_call_kwargs(self, case):
            return {"session": session, "base_url": BASE_URL}

        def validate_response(self, response, case, **_):
            answers.append(response.status_code)
            try:
                check(case, response)
            except Exception as e:
                failures.append(str(e))

    for seed in range(12):
        # Clouds go on meanwhile, so that the same steps do not have the same answers: hypothesis calls
        # that flaky, and ends this run.
        with contextlib.suppress(hypothesis.errors.Flaky):
            hypothesis.seed(seed)(Sequences).run(settings=settings(
                SETTINGS, derandomize=False, max_examples=4, stateful_step_count=10,
                phases=[hypothesis.Phase.generate]))
    assert not failures, failures[0]
    assert len(answers) > 100 and {200, 202} <= set(answers), answers


# --- the schemas against clouds in every state ----------------------------------------------------


def fits(value, name):
    """`value` fits components/schemas/`name`."""
    validator = jsonschema.Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]},
        format_checker=jsonschema.FormatChecker())
    errors = [f"{list(e.absolute_path)}: {e.message}" for e in validator.iter_errors(value)]
    assert not errors, errors
    return value


def test_clouds_in_every_state(fake):
    """Stopped, starting, forming, ready, degraded, in backoff, failed, stopping, armed, behind a gate
    and without one: CLOUD is what it is said to be, and so are the fleet and the nodes."""
    fleet = fake(nodes=2, start=False, autostart="no", restart_delay="30s", max_idle_duration="1h", start_on="connect", late_after="500ms", health_interval="200ms")
    fleet.clouds["d"] = {**fleet.clouds["c"], "gate_mode": "off", "start_on": "command"}
    fleet.clouds["f"] = {**fleet.clouds["d"], "jar_path": "/nonexistent/h2o.jar"}
    fleet.write_config()
    fleet.start()
    seen = set()

    def look(name):
        cloud = fits(fleet.cloud(name), "Cloud")
        for node in fits(fleet.api("GET", f"/v1/clouds/{name}/nodes")[1], "Nodes")["nodes"]:
            fits(fleet.api("GET", f"/v1/clouds/{name}/nodes/{node['index']}")[1], "Node")
        fits(fleet.api("GET", "/v1/clouds")[1], "Clouds")
        fits(fleet.api("GET", "/v1/fleet")[1], "Fleet")
        seen.add(cloud["state"])
        return cloud

    def until_state(name, state, seconds=20):
        return until(f"{name} is {state}", seconds, lambda: (c := look(name))["state"] == state and c, 0)

    assert look("c")["armed"] and look("c")["gate"]["door"] == "hold"
    assert look("d")["gate"] is None
    for name in ("c", "d"):
        fleet.api("POST", f"/v1/clouds/{name}/start")
        assert until_state(name, "ready")["idle_stop_ms"]
    halt(fleet.pids("d")[1])
    until_state("d", "degraded")
    os.kill(fleet.pids("d")[1], signal.SIGCONT)
    until_state("d", "ready")
    fleet.kill_member(1, name="d")
    cloud = until_state("d", "backoff")
    assert cloud["reason"] and cloud["next_start_ms"] > 0
    assert any(n["last_exit"] for n in cloud["nodes"])
    fleet.api("POST", "/v1/clouds/f/start")
    until_state("f", "failed")
    status, problem = fleet.api("GET", "/v1/clouds/f?wait=ready")
    assert status == 409 and fits(problem, "Problem")["cloud"]["state"] == "failed"
    fleet.api("POST", "/v1/clouds/c/stop")
    until_state("c", "stopped")
    assert {"stopped", "starting", "forming", "ready", "degraded", "backoff", "failed"} <= seen, seen
    connection = UnixHTTP(fleet.socket, 20 * SLOW)
    connection.request("GET", "/v1/events")
    lines = connection.getresponse().read().splitlines()
    connection.close()
    assert len(lines) > 20
    for line in lines:
        fits(json.loads(line), "EventLine")


def test_the_end(fake):
    """Replacing the image and ending the daemon, asked well: the answers fit, and it is done."""
    fleet = fake(nodes=1)
    fleet.ready()
    status, answer = fleet.api("POST", "/v1/reexec")
    assert status == 202 and fits(answer, "Reexec")
    until("the new image answers", 20, lambda: version(fleet).get("reexecs") == 1)
    fits(version(fleet), "Version")
    fits(fleet.api("GET", "/v1/healthz")[1], "Health")
    status, answer = fleet.api("POST", "/v1/shutdown")
    assert status == 202 and not fits(answer, "Shutdown")["at_once"]
    assert fleet.wait_exit() == 0
    fleet.assert_clean()


def version(fleet):
    """{} in the moment between two images."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return fleet.api("GET", "/v1/version")[1]
    return {}


def test_shutdown_at_once(fake):
    """A node that heeds no SIGTERM holds an orderly end up for stop_timeout; at once it does not."""
    fleet = fake(nodes=1, knobs="-Dfake.ignore_term=1", stop_timeout="60s")
    fleet.ready()
    status, answer = fleet.api("POST", "/v1/shutdown")
    assert status == 202
    status, problem = fleet.api("GET", "/v1/healthz")
    assert status == 503 and fits(problem, "Problem")["type"].endswith(":shutting-down")
    status, answer = fleet.api("POST", "/v1/shutdown?at_once=yes")
    assert status == 202 and fits(answer, "Shutdown")["at_once"]
    assert fleet.wait_exit(20) == 0
    fleet.assert_clean()
