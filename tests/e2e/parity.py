"""Side by side: every public member of the h2o package's H2OLocalServer, H2OConnection and H2OCluster,
and what of h2ofleet does the same. `python parity.py` prints contrib/PARITY.md; test_real_parity.py runs
every row against a real cloud."""

import inspect
import json
import re
import subprocess
import sys

from fleet import until

ROWS = []


def row(members, ours):
    """`members`: "Class.member ..."; the function proves it: row(p) of a Parity."""

    def add(check):
        for member in members.split():
            ROWS.append((member, ours, check))
        return check

    return add


def public_members():
    """{"Class.member"}, by introspection, so that a new one of a new h2o is missed in the table."""
    from h2o.backend import H2OCluster, H2OConnection, H2OLocalServer

    return {
        f"{cls.__name__}.{name}" for cls in (H2OLocalServer, H2OConnection, H2OCluster)
        for base in inspect.getmro(cls) if base is not object
        for name in vars(base) if not name.startswith("_")
    }


def table():
    lines = [
        "# What the h2o package's backend classes do, from a shell",
        "",
        "Written by `python tests/e2e/parity.py >contrib/PARITY.md`; `tests/e2e/test_real_parity.py` holds it",
        "to the h2o package, and runs every row against a real cloud.",
        "",
        "| Python | h2ofleet |",
        "|-|-|",
    ]
    return "\n".join(lines + [f"| `{m}` | {ours} |" for m, ours, _ in sorted(
        ROWS, key=lambda r: r[0])]) + "\n"


class Parity:
    """A fleet with one cloud, "c", and Python's connection to it."""

    def __init__(self, fleet, directory):
        self.fleet, self.dir = fleet, directory
        self.connect()

    def connect(self):
        import h2o

        self.h2o = h2o
        if hasattr(self, "connection"):
            self.connection.close()
        self.url = self.fleet.cli("connect", "c", "--url").stdout.strip()
        h2o.connect(url=self.url, verbose=False)
        self.connection = h2o.connection()
        self.cluster = self.connection.cluster

    def cli(self, *args, **kwargs):
        return self.fleet.cli(*args, **kwargs).stdout

    def json(self, *args):
        return json.loads(self.cli(*args, "--json"))

    def info(self):
        return self.json("info", "c")

    def api(self, *args):
        return json.loads(self.cli("api", "c", "-q", *args))


# --- the server -----------------------------------------------------------------------------------


@row("H2OLocalServer.start", "`start CLOUD --wait`, with the keys of its section; `run`")
def start(p):
    p.cli("start", "c", "--wait")  # it runs: well, and nothing happens
    assert p.cluster.cloud_size == len(p.fleet.pids()) == 2


@row("H2OLocalServer.is_running H2OCluster.is_running H2OConnection.connected",
     "`status CLOUD`: exit code 0; of the process behind: `nodes` of its `--json`")
def is_running(p):
    assert p.cluster.is_running() and p.connection.connected
    p.fleet.cli("status", "c", code=0)


@row("H2OLocalServer.ip H2OLocalServer.port H2OLocalServer.scheme",
     "`connect CLOUD --env`, or `endpoint`, `endpoint_address`, `endpoint_port` of `status --json`")
def place(p):
    env = dict(re.findall(r"export (\w+)='?([^'\n]*)", p.cli("connect", "c", "--env")))
    scheme, ip, port = re.fullmatch(r"(\w+)://([^:]+):(\d+)", p.connection.base_url).groups()
    assert (env["H2O_IP"], env["H2O_PORT"]) == (ip, port)
    assert env["H2O_URL"].startswith(scheme + ":")


@row("H2OLocalServer.name H2OConnection.name", "`info CLOUD`: H2O_cluster_name")
def name(p):
    assert p.info()["name"] == p.cluster.cloud_name
    named = type(p.connection).open(url=p.url, name=p.info()["name"], verbose=False,
                                    strict_version_check=False)
    assert named.name == p.info()["name"]
    named.close()


# --- the connection -------------------------------------------------------------------------------


@row("H2OConnection.open", "`connect CLOUD --python`, or `--r`, `--h2oconfig`")
def opened(p):
    snippet = p.cli("connect", "c", "--python")
    done = subprocess.run([sys.executable, "-c", snippet + "\nprint('SIZE', h2o.cluster().cloud_size)"],
                          capture_output=True, text=True, timeout=60, check=True)
    assert "SIZE 2" in done.stdout


@row("H2OConnection.request", "`api CLOUD METHOD PATH`")
def request(p):
    theirs = p.connection.request("GET /3/About")
    assert p.api("GET", "/3/About")["entries"] == [dict(e) for e in theirs["entries"]]
    theirs = p.connection.request("POST /3/LogAndEcho", data={"message": "a b&c=ü"})
    ours = p.api("POST", "/3/LogAndEcho", "-d", "message=a b&c=ü")
    assert ours["message"] == theirs["message"] == "a b&c=ü"


@row("H2OConnection.session_id", "`api CLOUD POST /4/sessions`")
def session(p):
    pattern = r"_sid_[0-9a-f]+"
    assert re.fullmatch(pattern, p.connection.session_id)
    assert re.fullmatch(pattern, p.api("POST", "/4/sessions")["session_key"])


@row("H2OConnection.close", "`api CLOUD DELETE /4/sessions/ID`; `clean CLOUD --session ID`")
def close(p):
    made = p.api("POST", "/4/sessions")["session_key"]
    p.api("POST", "/99/Rapids", "-d", "ast=(tmp= parity_tmp (listTimeZones))", "-d", f"session_id={made}")
    assert "parity_tmp" in json.dumps(p.api("GET", "/3/Frames"))
    p.api("DELETE", f"/4/sessions/{made}")
    assert "parity_tmp" not in json.dumps(p.api("GET", "/3/Frames"))


@row("H2OConnection.base_url", "`connect CLOUD --url`")
def base_url(p):
    assert p.cli("connect", "c", "--url").strip().rstrip("/") == p.connection.base_url


@row("H2OConnection.url_pattern", "`connect CLOUD --url` prints what it takes")
def url_pattern(p):
    assert re.match(type(p.connection).url_pattern, p.url)


@row("H2OConnection.proxy", "none is ever used, whatever the environment says")
def proxy(p):
    for command in (["api", "c", "GET", "/3/About"], ["info", "c"], ["jobs", "c"]):
        p.cli(*command, env={"http_proxy": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"})


@row("H2OConnection.local_server", "`status CLOUD`, `logs CLOUD`: the processes that the daemon has")
def local_server(p):
    assert {n["pid"] for n in p.cluster.nodes} == set(p.fleet.pids())


@row("H2OConnection.start_logging H2OConnection.stop_logging H2OConnection.requests_count",
     "`api --trace FILE` appends requests and answers")
def logging(p):
    ours, theirs = p.dir / "ours", p.dir / "theirs"
    p.connection.start_logging(str(theirs))
    before = p.connection.requests_count
    p.connection.request("GET /3/About")
    p.connection.stop_logging()
    assert p.connection.requests_count == before + 1
    for _ in range(2):
        p.cli("api", "c", "GET", "/3/About", "--trace", str(ours))
    shape = r"\[\d\d:\d\d:\d\d\] GET /3/About\n"
    assert len(re.findall(shape, theirs.read_text())) == 1
    assert len(re.findall(shape, ours.read_text())) == 2
    assert "<<< HTTP 200" in ours.read_text() and "Content-Type: application/json" in ours.read_text()
    size = ours.stat().st_size
    p.cli("api", "c", "GET", "/3/About")
    assert ours.stat().st_size == size


@row("H2OConnection.timeout_interval", "`api --timeout T`")
def timeout(p):
    done = p.fleet.cli("api", "c", "-q", "GET", "/3/NetworkTest", "--timeout", "1ms", code=1)
    assert "did not answer in time" in done.stderr


@row("H2OConnection.save_to_detect", "`api -o FOLDER/`: under the name that the answer has")
def save_to(p):
    p.api("POST", "/99/Rapids", "-d", "ast=(assign parity_zones (listTimeZones))")
    target = p.dir / "downloads"
    saved = p.cli("api", "c", "GET", "/3/DownloadDataset", "-d", "frame_id=parity_zones", "-o", f"{target}/")
    path = target / "parity_zones.csv"
    assert saved.strip() == str(path)
    theirs = p.connection.request("GET /3/DownloadDataset?frame_id=parity_zones", save_to=str(p.dir) + "/py.csv")
    assert path.read_bytes() == open(theirs, "rb").read()
    assert [f.name for f in target.iterdir()] == ["parity_zones.csv"]
    p.api("DELETE", "/3/Frames/parity_zones")


# --- the cluster ----------------------------------------------------------------------------------


@row("H2OConnection.cluster H2OCluster.show_status H2OCluster.get_status", "`info CLOUD`")
def status(p):
    theirs = p.cluster.get_status()
    theirs = dict(zip(theirs.col_header, theirs.cell_values[0]))
    ours = dict(re.findall(r"^(\w+): +(.*)$", p.cli("info", "c"), re.M))
    for key in ("timezone", "version", "version_age", "name", "total_nodes", "total_cores",
                "allowed_cores", "status"):
        assert ours[f"H2O_cluster_{key}"] == str(theirs[f"H2O_cluster_{key}"]), key
    assert ours["H2O_data_parsing_timezone"] == theirs["H2O_data_parsing_timezone"]
    assert ours["H2O_connection_url"] == theirs["H2O_connection_url"]
    assert set(theirs) - set(ours) == {"H2O_connection_proxy", "Python_version", "H2O_telemetry_client"}


@row("H2OCluster.node H2OCluster.get_status_details", "`info CLOUD --nodes`")
def nodes(p):
    ours = p.info()["nodes"]
    for i, node in enumerate(ours):
        theirs = p.cluster.node(i)
        assert (node["pid"], node["ip_port"], node["cores"], node["allowed_cores"], node["healthy"]) == (
            theirs["pid"], theirs["ip_port"], theirs["num_cpus"], theirs["cpus_allowed"], theirs["healthy"])
        assert node["heap_max_bytes"] == theirs["max_mem"]
    rows = p.cli("info", "c", "--nodes").split("\n\n")[1].splitlines()
    assert len(rows) == 1 + len(p.cluster.get_status_details().cell_values)
    assert [r.split()[1] for r in rows[1:]] == [str(n["pid"]) for n in ours]


@row("H2OCluster.make H2OCluster.define_from_schema H2OCluster.instantiate_from_json",
     "`info CLOUD --json`, the same answer of H2O as typed JSON")
def fields(p):
    ours = p.info()
    assert ours["version"] == p.cluster.version and ours["total_nodes"] == p.cluster.cloud_size
    assert (ours["locked"], ours["consensus"], ours["healthy"]) == (
        p.cluster.locked, p.cluster.consensus, p.cluster.cloud_healthy)
    assert ours["version_too_old"] == p.cluster.build_too_old
    assert ours["internal_security"] == p.cluster.internal_security_enabled
    raw = p.api("GET", "/3/Cloud")  # what it gets from H2O when it connects
    made = {m.partition(".")[2] for m in public_members()} - {m.partition(".")[2] for m, _, _ in ROWS}
    assert made and made <= set(raw), made - set(raw)


@row("H2OCluster.REFRESH_INTERVAL", "every command asks anew; only lists of jobs may be 1 s old")
def refresh(p):
    assert p.info()["uptime_ms"] < p.info()["uptime_ms"]


@row("H2OCluster.network_test", "`network-test CLOUD`")
def network_test(p):
    theirs = p.connection.request("GET /3/NetworkTest")["table"]
    ours = p.json("network-test", "c")["table"]
    assert ours["data"][0] == [r[0] for r in theirs.cell_values]
    shown = p.cli("network-test", "c")
    assert all(d.split("/")[-1] in shown for d in ours["data"][0][1:])
    assert all(len(line) <= 80 for line in shown.splitlines())


@row("H2OCluster.list_jobs", "`jobs CLOUD`, `jobs CLOUD -f`, `jobs CLOUD cancel`")
def list_jobs(p):
    p.h2o.create_frame(frame_id="parity_frame", rows=10, cols=2, seed=1)
    types, dests, descriptions, states = (c[1:] for c in p.cluster.list_jobs())
    theirs = sorted(zip(dests, descriptions, states))
    answer = {}

    def same():  # ours may be 1 s old
        answer.update(p.json("jobs", "c"))
        return theirs == sorted((j["dest"], j["description"], j["status"]) for j in answer["jobs"])

    until(lambda: f"{theirs}; the last answer was {answer}", 10, same, 0.2)
    assert answer["total"] == len(types) > 0 and "parity_frame" in p.cli("jobs", "c")
    p.h2o.remove("parity_frame")


@row("H2OCluster.list_all_extensions H2OCluster.list_core_extensions H2OCluster.list_api_extensions",
     "`api CLOUD GET /3/Capabilities`, `.../Core`, `.../API`")
def extensions(p):
    for path, theirs in (("", p.cluster.list_all_extensions()), ("/Core", p.cluster.list_core_extensions()),
                         ("/API", p.cluster.list_api_extensions())):
        ours = p.api("GET", f"/3/Capabilities{path}")["capabilities"]
        assert [c["name"] for c in ours] == theirs and theirs


@row("H2OCluster.timezone", "`timezone CLOUD`, `timezone CLOUD set ZONE`")
def timezone(p):
    p.cli("timezone", "c", "set", "America/Los_Angeles")
    assert p.cluster.timezone == "America/Los_Angeles"
    p.cluster.timezone = "UTC"
    assert p.cli("timezone", "c").strip() == "UTC"


@row("H2OCluster.list_timezones", "`timezone CLOUD list`")
def list_timezones(p):
    theirs = p.cluster.list_timezones()
    ours = p.json("timezone", "c", "list")["timezones"]
    assert len(ours) == theirs.nrow - 1  # the first is a heading
    levels = theirs.levels()[0]
    assert set(ours) == {z for z in levels if not z.startswith("StandardOffset")}
    assert not [f for f in p.api("GET", "/3/Frames")["frames"] if "h2ofleet" in f["frame_id"]["name"]]


@row("H2OCluster.check_version", "`doctor`; `info CLOUD`: H2O_cluster_version, H2O_cluster_version_age")
def check_version(p):
    p.cluster.check_version(strict=True)
    assert p.info()["version"] == p.h2o.__version__


# --- its end: the last rows -----------------------------------------------------------------------


@row("H2OCluster.shutdown", "`stop CLOUD`, or `api CLOUD POST /3/Shutdown`, after which it stays stopped")
def shutdown(p):
    p.api("POST", "/3/Shutdown")
    assert "client" in p.fleet.wait("stopped")["reason"]
    p.cli("start", "c", "--wait")
    p.connect()


@row("H2OLocalServer.shutdown", "`stop CLOUD --wait`")
def stop(p):
    p.cli("stop", "c", "--wait")
    assert not p.cluster.is_running() and not p.fleet.members()
    p.fleet.cli("status", "c", code=3)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    sys.stdout.write(table())
