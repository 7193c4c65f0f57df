"""The client's commands that talk to H2O. Jobs come by way of the daemon, with fake nodes; what api and
the others say over HTTP is seen by a stand-in for both daemon and H2O, which can also say what no real
one would."""

import http.server
import json
import os
import pty
import re
import select
import signal
import socket
import socketserver
import ssl
import struct
import subprocess
import threading
import time
import urllib.parse

import pytest

from fleet import FINDINGS, H2OFLEET, SLOW, halt, until

# --- jobs, with the daemon and fake nodes ---------------------------------------------------------


def jobs(fleet, *args, **kwargs):
    return json.loads(fleet.cli("jobs", "c", "--json", *args, **kwargs).stdout)



@pytest.mark.parametrize("nodes", [1, 3])
def test_unlocked_has_none(fake, nodes):
    """A cloud that is not locked is not asked for its jobs: it stays so."""
    fleet = fake(nodes=nodes)
    fleet.ready()
    assert jobs(fleet) == {"cloud": "c", "locked": False, "total": 0, "jobs": []}
    assert "not locked" in fleet.cli("jobs", "c").stdout
    assert "0 jobs cancelled" in fleet.cli("jobs", "c", "cancel", "--all").stdout
    assert json.loads(fleet.cli("info", "c", "--json").stdout)["locked"] is False


def test_jobs_of_a_fake(fake):
    """A job that runs is seen, followed without a terminal line by line, and cancelled."""
    fleet = fake(nodes=1, knobs="-Dfake.r100.grid_ms=60000 -Dfake.locked=1")
    fleet.ready()
    running = until("a job", 10, lambda: jobs(fleet)["jobs"])
    assert running[0]["running"] and running[0]["description"] == "gbm Grid Build"
    assert set(running[0]) == {"id", "description", "status", "running", "progress", "message", "started_at",
                               "duration_ms", "dest", "dest_type", "warnings", "error"}
    shown = fleet.cli("jobs", "c").stdout
    assert re.search(r"^\[[=> ]{20}\] +\d+% \S+ gbm Grid Build$", shown, re.M), shown
    follower = subprocess.Popen([H2OFLEET, "--socket", str(fleet.socket), "jobs", "c", "-f"], text=True,
                                stdout=subprocess.PIPE, env=fleet.env())
    assert follower.stdout.readline().startswith("running ")
    assert "1 job cancelled" in fleet.cli("jobs", "c", "cancel", "--all").stdout
    said = follower.communicate(timeout=20 * SLOW)[0]
    assert follower.returncode == 0 and said.splitlines()[-1].startswith("cancelled ")
    assert jobs(fleet)["jobs"][0]["status"] == "CANCELLED"
    assert " makes " in shown and "made" not in fleet.cli("jobs", "c").stdout
    late = fleet.cli("jobs", "c", "cancel", running[0]["id"])
    assert "had ended already" in late.stderr and late.stdout == "0 jobs cancelled\n"
    late = fleet.cli("jobs", "c", "cancel", running[0]["id"], "--json")
    assert json.loads(late.stdout) == {"cancelled": []}
    assert "no job 'nix'" in fleet.cli("jobs", "c", "cancel", "nix", code=1).stderr


def test_follower_interrupted(fake):
    """Ctrl-C ends the follower, in a terminal too, and not the job."""
    fleet = fake(nodes=1, knobs="-Dfake.r100.grid_ms=60000 -Dfake.locked=1")
    fleet.ready()
    until("a job", 10, lambda: jobs(fleet)["jobs"])
    master, slave = pty.openpty()
    watcher = subprocess.Popen([H2OFLEET, "--socket", str(fleet.socket), "jobs", "c", "-f"], stdin=slave,
                               stdout=slave, stderr=slave, env={**fleet.env(), "TERM": "xterm"},
                               start_new_session=True)
    os.close(slave)
    said = b""
    deadline = time.monotonic() + 20 * SLOW
    while said.count(b"\x1b[J") < 3 and time.monotonic() < deadline:
        if select.select([master], [], [], 0.1)[0]:
            said += os.read(master, 65536)
    assert said.count(b"\x1b[J") >= 3, said
    watcher.send_signal(signal.SIGINT)
    assert watcher.wait(20 * SLOW) == 130
    os.close(master)
    assert jobs(fleet)["jobs"][0]["running"]


def test_follower_outlasts_daemon(fake):
    """A daemon that is killed is waited for, and the job followed by way of the next one to its end."""
    fleet = fake(nodes=1, knobs="-Dfake.r100.grid_ms=60000 -Dfake.locked=1")
    fleet.ready()
    until("a job", 10, lambda: jobs(fleet)["jobs"])
    follower = subprocess.Popen([H2OFLEET, "--socket", str(fleet.socket), "jobs", "c", "-f"], text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=fleet.env())
    assert follower.stdout.readline().startswith("running ")
    fleet.kill_daemon()
    assert follower.stderr.readline().endswith("; waiting for it\n")
    fleet.start()
    assert follower.stderr.readline().endswith("is there again\n")
    fleet.ready()
    fleet.cli("jobs", "c", "cancel", "--all")
    said, wrong = follower.communicate(timeout=20 * SLOW)
    assert follower.returncode == 0 and said.splitlines()[-1].startswith("cancelled ") and not wrong
    fleet.stop()
    fleet.cli("jobs", "c", "-f", code=4)


def test_thousands_of_jobs(fake):
    """A long list is parsed in pieces, so that the daemon's loop is held up no longer than it may be; the
    newest 500 come; what H2O says reaches no terminal as it is."""
    fleet = fake(nodes=1, knobs="-Dfake.old_jobs=12000 -Dfake.locked=1")
    fleet.ready()
    answer = jobs(fleet)
    assert answer["total"] == 12000 and len(answer["jobs"]) == 500
    job = answer["jobs"][0]
    assert job["id"] == "$03old$_11999" and job["description"] == 'a "quoted}]" one'
    assert job["error"] and job["started_at"].startswith("2023-11-14T") and job["dest"] is None
    lags = []
    for _ in range(5):  # a new image measures anew; the best counts, for the machine has other work
        fleet.cli("reexec")
        jobs(fleet)
        lags.append(fleet.api("GET", "/v1/version")[1]["loop_lag_ms"])
        if lags[-1] < 150 * SLOW:  # in one piece it takes 600, without sanitizers
            break
    assert min(lags) < 150 * SLOW, lags
    shown = fleet.cli("jobs", "c", "-n", "2").stdout
    assert "\x1b" not in shown and "w\\x1b" in shown and shown.count("failed after") == 2


def test_asked_once_for_all(fake):
    """Fifty who ask at once wait for one and the same answer, which takes 0.5 s; and a node that sleeps
    holds nobody up for ever."""
    fleet = fake(nodes=1, knobs="-Dfake.locked=1 -Dfake.r100.slow_ms=250")
    node = fleet.ready()["nodes"][0]
    answers = []

    def ask():
        answers.append(fleet.api("GET", "/v1/clouds/c/jobs"))

    begun = time.monotonic()
    threads = [threading.Thread(target=ask) for _ in range(50)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert [s for s, _ in answers] == [200] * 50
    assert time.monotonic() - begun < 5 * SLOW
    halt(node["pid"])
    try:
        begun = time.monotonic()
        status, body = until("no answer", 20, lambda: (lambda r: r if r[0] != 200 else None)(
            fleet.api("GET", "/v1/clouds/c/jobs")))
        assert status == 502 and body["type"].endswith(":h2o-unreachable"), body
        assert time.monotonic() - begun < 10 * SLOW
    finally:
        os.kill(node["pid"], signal.SIGCONT)
    until("it answers again", 10, lambda: fleet.api("GET", "/v1/clouds/c/jobs")[0] == 200)


def test_cloud_that_is_not_there(fake):
    """As `connect` says it, with its exit codes; a question that waits ends with the cloud."""
    fleet = fake(nodes=1, autostart="no")
    for command in (["jobs", "c"], ["info", "c"], ["clean", "c"], ["timezone", "c"], ["network-test", "c"],
                    ["api", "c", "GET", "/3/Cloud"]):
        done = fleet.cli(*command, code=3)
        assert "stopped" in done.stderr, command
        fleet.cli(command[0], "d", *command[2:], code=4)
        assert json.loads(fleet.cli(*command, "--json", code=3).stdout)["error"]
    fleet.cli("start", "c", "--wait")
    fleet.cli("info", "c")


# --- what goes over the wire, with a stand-in -----------------------------------------------------


class H2O(http.server.BaseHTTPRequestHandler):
    """Tells what it was asked, or says what the path says."""

    protocol_version = "HTTP/1.1"
    seen = None
    locked = False
    nodes = ()
    idle = ()
    table = True

    def log_message(self, *args):
        pass

    def reply(self, status, body, type_="application/json", **headers):
        self.send_response(status)
        self.send_header("Content-Type", type_)
        self.send_header("Content-Length", str(len(body)))
        for k, v in headers.items():
            self.send_header(k.replace("_", "-"), v)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.seen.append((self.command, self.path, dict(self.headers), body))
        path = self.path.partition("?")[0].removeprefix("/ctx")
        if path == "/3/Cloud":
            self.reply(200, json.dumps({"locked": self.locked, "nodes": self.nodes}).encode())
        elif path == "/3/SteamMetrics":
            self.reply(200, json.dumps({"idle_millis": self.idle.pop(0)}).encode())
        elif path == "/3/Broken":
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.send_header("Content-Disposition", "attachment; filename=x.bin")
            self.end_headers()
            self.wfile.write(b"x" * 5000)
            self.close_connection = True
        elif path == "/3/Evil":
            self.reply(200, b"evil", "text/plain", Content_Disposition='attachment; filename="../../e vil"')
        elif path == "/3/Bell":
            self.reply(200, b"\x07\x1b[31mred\n", "text/plain")
        elif path == "/3/Html":
            self.reply(500, b"<html>\x1b[31m</html>", "text/html")
        elif path == "/3/Error":
            self.reply(412, json.dumps({"msg": "\n\nERROR MESSAGE:\n\nbad \x1b thing\n\n",
                                        "stacktrace": ["at x"]}).encode())
        elif path == "/3/Login":
            ok = self.headers.get("Authorization") == "Basic dTpw"
            self.reply(200 if ok else 401, b"{}")
        elif path == "/3/Cookie":
            self.reply(302, b"", Location="/ctx/3/About", Set_Cookie="S=secret; Path=/; HttpOnly")
        elif path == "/3/NetworkTest" and self.table:
            self.reply(200, b'{"table": {"columns": [{"description": "To"}], "data": [["a/127.0.0.1:1"]]}}')
        elif path == "/3/Moved":
            self.reply(302, b"", Location="/ctx/3/About")
        elif path == "/3/Reset":  # as a gate turns people away
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif path == "/3/Sleep":
            time.sleep(5)
            self.reply(200, b"{}")
        else:
            self.reply(200, b'{"raw":  [1, "\\u00fc"]}')

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = handle_any


class StandIn:
    """A daemon that has one cloud, "c", and that cloud's H2O."""

    def __init__(self, directory, tls=None):
        self.socket = directory / "s"
        handler = type("Seen", (H2O,), {"seen": []})
        self.seen = handler.seen
        self.handler = handler
        self.h2o = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        url = f"{'https' if tls else 'http'}://127.0.0.1:{self.h2o.server_address[1]}/ctx"
        if tls:
            self.h2o.socket = tls.wrap_socket(self.h2o.socket, server_side=True)
            self.h2o.handle_error = lambda *args: None

        class Daemon(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def address_string(self):
                return "unix"

            def log_message(self, *args):
                pass

            def do_GET(self):
                body = json.dumps({"name": "c", "state": "ready", "endpoint": url, "endpoint_address": "127.0.0.1",
                                   "endpoint_port": 1, "size": 1, "nodes": []}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        class Unix(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True

        self.daemon = Unix(str(self.socket), Daemon)
        for server in (self.h2o, self.daemon):
            threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.05}).start()

    def close(self):
        for server in (self.h2o, self.daemon):
            server.shutdown()
            server.server_close()

    def cli(self, *args, code=0, env=None, **kwargs):
        done = subprocess.run(
            [H2OFLEET, "--socket", str(self.socket), *map(str, args)], capture_output=True, timeout=30 * SLOW,
            env={**os.environ, "http_proxy": "http://127.0.0.1:9", **(env or {})},
            **{"stdin": subprocess.DEVNULL, **kwargs})
        done.stdout, done.stderr = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        assert not FINDINGS.search(done.stderr), done.stderr
        assert done.returncode == code, (args, done)
        return done

    def api(self, *args, **kwargs):
        """What H2O saw of it."""
        del self.seen[:]
        self.cli("api", "c", "-q", *args, **kwargs)
        return self.seen[-1]


@pytest.fixture
def stand_in(tmp_path):
    made = StandIn(tmp_path)
    yield made
    made.close()


def test_data(stand_in, tmp_path):
    """-d: the query of GET, HEAD and DELETE, a form of the others; JSON from a file or standard input; each
    below the context path."""
    for method in ("GET", "DELETE"):
        seen = stand_in.api(method, "/3/X?z=1", "-d", "a=b c&d", "-d", "e==ü", "-dk=")
        assert seen[:2] == (method, "/ctx/3/X?z=1&a=b%20c%26d&e=%3D%C3%BC&k=") and not seen[3]
    for method in ("POST", "PUT", "PATCH"):
        seen = stand_in.api(method, "/3/X", "-d", "a=b c&d", "-d", "e=ü")
        assert seen[1] == "/ctx/3/X" and seen[3] == b"a=b%20c%26d&e=%C3%BC"
        assert seen[2]["Content-Type"] == "application/x-www-form-urlencoded"
    assert stand_in.api("POST", "/3/X")[3] == b""
    assert stand_in.api("HEAD", "/3/X")[0] == "HEAD"
    body = tmp_path / "body"
    body.write_text('{"a": 1}')
    for args in ({"stdin": open(body)}, {}):
        seen = stand_in.api("POST", "/4/X", "--json-body", "-" if args else body, **args)
        assert seen[3] == b'{"a": 1}' and seen[2]["Content-Type"] == "application/json"


def test_upload(stand_in, tmp_path):
    """A multipart form with one file, byte for byte, its parameters in the query."""
    file = tmp_path / 'a "b".csv'
    file.write_bytes(os.urandom(300_000))
    method, path, headers, body = stand_in.api("POST", "/3/PostFile", "--file", file, "-d", "destination_frame=x")
    assert (method, path) == ("POST", "/ctx/3/PostFile?destination_frame=x")
    assert headers["Content-Type"].startswith("multipart/form-data; boundary=")
    assert body.split(b"\r\n\r\n", 1)[1].rpartition(b"\r\n--")[0] == file.read_bytes()
    assert "cannot read" in stand_in.cli("api", "c", "POST", "/3/PostFile", "--file", "/nix", code=1).stderr
    assert "no plain file" in stand_in.cli("api", "c", "POST", "/3/PostFile", "--file", tmp_path, code=1).stderr


def test_download(stand_in, tmp_path):
    """Into a file or, under a harmless name, a folder; what breaks off leaves nothing, and what was there."""
    target = tmp_path / "new" / "folder"
    done = stand_in.cli("api", "c", "-q", "GET", "/3/Evil", "-o", f"{target}/")
    assert done.stdout == f"{target}/e vil\n" and (target / "e vil").read_bytes() == b"evil"
    old = target / "old"
    old.write_text("old")
    done = stand_in.cli("api", "c", "-q", "GET", "/3/Broken", "-o", old, code=1)
    assert old.read_text() == "old" and sorted(f.name for f in target.iterdir()) == ["e vil", "old"]
    done = stand_in.cli("api", "c", "-q", "GET", "/3/Error", "-o", old, code=1)
    assert old.read_text() == "old" and "bad" in done.stderr
    saved = json.loads(stand_in.cli("api", "c", "-q", "GET", "/3/X", "-o", old, "--json").stdout)
    assert saved == {"status": 200, "saved_as": str(old)} and b"raw" in old.read_bytes()
    assert "cannot write" in stand_in.cli("api", "c", "-q", "GET", "/3/X", "-o", "/proc/nix", code=1).stderr
    assert stand_in.cli("api", "c", "-q", "GET", "/3/Evil", "-o", "-", cwd=tmp_path).stdout == "evil"
    assert stand_in.cli("api", "c", "-q", "GET", "/3/Evil", "-o", "/dev/stdout").stdout == "evil"
    stand_in.cli("api", "c", "GET", "/3/Evil", "-o", "-", "--json", code=2)
    assert not (tmp_path / "-").exists()


def test_interrupted_download(stand_in, tmp_path):
    """Ctrl-C leaves no part of a file behind."""
    client = subprocess.Popen([H2OFLEET, "--socket", str(stand_in.socket), "api", "c", "-q", "GET", "/3/Sleep", "-o",
                               str(tmp_path / "x")], stderr=subprocess.PIPE, text=True)
    until("the request", 10, lambda: stand_in.seen)
    client.send_signal(signal.SIGINT)
    assert client.wait(20) == 130 and not [f for f in tmp_path.iterdir() if f.name != "s"]
    assert "interrupted" in client.communicate()[1]


def test_output(stand_in):
    """Piped the very bytes; with --json always JSON; on a terminal indented, and nothing that it obeys."""
    assert stand_in.cli("api", "c", "-q", "GET", "/3/X").stdout == '{"raw":  [1, "\\u00fc"]}'
    assert json.loads(stand_in.cli("api", "c", "-q", "GET", "/3/Bell", "--json").stdout) == {
        "status": 200, "text": "\x07\x1b[31mred\n"}
    for path, wanted in (("/3/X", b'{\r\n  "raw": ['), ("/3/Bell", b"\\x07\\x1b[31mred\r\n")):
        master, slave = pty.openpty()
        subprocess.run([H2OFLEET, "--socket", str(stand_in.socket), "api", "c", "-q", "GET", path], stdout=slave,
                       check=True, timeout=30)
        assert os.read(master, 10000).startswith(wanted)
        os.close(slave)
        os.close(master)


def test_errors(stand_in):
    """A sentence with the HTTP status, whatever H2O or Jetty says; nothing on standard output, or, with
    --json, an object."""
    done = stand_in.cli("api", "c", "-q", "GET", "/3/Error", code=1)
    assert done.stderr == "h2ofleet: H2O answered with HTTP status 412: bad \\x1b thing\n" and not done.stdout
    done = stand_in.cli("api", "c", "-q", "GET", "/3/Html", "--json", code=1)
    assert json.loads(done.stdout) == {"error": "H2O answered with HTTP status 500", "status": 500,
                                       "answer": "<html>\x1b[31m</html>"}
    done = stand_in.cli("api", "c", "-q", "GET", "/3/Html", code=1)
    assert done.stderr == "h2ofleet: H2O answered with HTTP status 500\n<html>\\x1b[31m</html>\n" and not done.stdout
    done = stand_in.cli("api", "c", "-q", "GET", "/3/Error", "--json", code=1)
    said = json.loads(done.stdout)
    assert said["status"] == 412 and said["answer"]["stacktrace"] == ["at x"] and "bad" in said["error"]
    assert "did not answer in time" in stand_in.cli(
        "api", "c", "-q", "GET", "/3/Sleep", "--timeout", "100ms", code=1).stderr
    assert stand_in.api("GET", "/3/Moved")[1] == "/ctx/3/About"
    assert "gate does not let you in" in stand_in.cli("api", "c", "-q", "GET", "/3/Reset", code=1).stderr
    assert "gate_allow" not in stand_in.cli("api", "c", "-q", "GET", "/3/Broken", code=1).stderr
    stand_in.h2o.shutdown()
    stand_in.h2o.socket.close()
    assert "cannot be reached" in stand_in.cli("info", "c", code=1).stderr


def test_login_and_cookies(stand_in, tmp_path):
    """A login comes from a file, standard input or the environment; it is in no argument, nor in the
    trace."""
    secret = tmp_path / "secret"
    secret.write_text("u:p\n")
    trace = tmp_path / "trace"
    seen = stand_in.api("GET", "/3/Login", "--auth-file", secret, "-b", "a=1", "-b", "b=2", "--trace", trace)
    assert seen[2]["Cookie"] == "a=1; b=2" and "u:p" not in trace.read_text() and "dTpw" not in trace.read_text()
    stand_in.api("GET", "/3/Login", env={"H2OFLEET_H2O_AUTH": "u:p"})
    stand_in.api("GET", "/3/Login", "--auth-file", "-", stdin=open(secret))
    assert "login" in stand_in.cli("api", "c", "-q", "GET", "/3/Login", code=1).stderr
    secret.write_text("nothing")
    assert "USER:PASSWORD" in stand_in.cli("api", "c", "GET", "/3/Login", "--auth-file", secret, code=1).stderr


def test_trace(stand_in, tmp_path):
    """As H2OConnection.start_logging() has it, appended; readable by nobody else."""
    trace = tmp_path / "trace"
    stand_in.cli("api", "c", "-q", "POST", "/3/X", "-d", "a=1", "-d", "b=2", "--trace", trace)
    stand_in.cli("api", "c", "-q", "GET", "/3/Error", "--trace", trace, code=1)
    said = trace.read_text()
    assert re.search(r"---- 1 -{50,}\n\[\d\d:\d\d:\d\d\] POST /3/X\n     body: {a:1, b:2}\n\n    > POST /ctx/3/X HTTP/1.1\n"
                     r"(    > .*\n)+    < HTTP/1.1 200 OK\n(    < .*\n)*    < Content-Type: application/json\n"
                     r"(    < .*\n)*\n<<< HTTP 200   \(\d+ ms\)\n\{\"raw\"", said), said
    assert "<<< HTTP 412" in said and trace.stat().st_mode & 0o777 == 0o600


def test_cookies_kept(stand_in, tmp_path):
    """A cookie that is set where we are sent on is sent there; neither it, nor ours, nor a login is in the
    trace."""
    trace = tmp_path / "trace"
    seen = stand_in.api("GET", "/3/Cookie", "-b", "a=hidden", "-b", "b=hidden", "--trace", trace,
                        env={"H2OFLEET_H2O_AUTH": "u:p"})
    assert seen[1] == "/ctx/3/About" and "S=secret" in seen[2]["Cookie"] and "a=hidden" in seen[2]["Cookie"]
    said = trace.read_text()
    assert "    > Authorization: ***\n" in said and "    > Cookie: a=***; b=***\n" in said
    assert "    < Set-Cookie: S=***; Path=/; HttpOnly\n" in said
    assert not re.search("hidden|secret|dTpw", said), said


def test_https(tmp_path):
    """A certificate of nobody's is refused, unless it is named, or nobody is to be trusted anyway."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-subj", "/CN=h2o", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2", "-keyout", key, "-out",
                    cert], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    made = StandIn(tmp_path, tls)
    try:
        refused = made.cli("api", "c", "-q", "GET", "/3/X", code=1)
        assert "cannot be trusted" in refused.stderr and "--cacert" in refused.stderr and not made.seen
        assert made.api("GET", "/3/X", "--cacert", cert)[1] == "/ctx/3/X"
        assert made.api("GET", "/3/X", "--insecure")[1] == "/ctx/3/X"
        made.cli("api", "c", "GET", "/3/X", "--insecure", "--cacert", cert, code=2)
        assert "cannot read" in made.cli("api", "c", "GET", "/3/X", "--cacert", tmp_path / "no", code=1).stderr
    finally:
        made.close()


def test_head(stand_in):
    """The status line and headers are all there is of it."""
    said = stand_in.cli("api", "c", "-q", "HEAD", "/3/X").stdout
    assert said.startswith("HTTP/1.1 200 OK\n") and "\nContent-Type: application/json\n" in said and "\r" not in said
    said = json.loads(stand_in.cli("api", "c", "-q", "HEAD", "/3/X", "--json").stdout)
    assert said["status"] == 200 and said["headers"]["Content-Type"] == "application/json"


def test_lock_warning(stand_in):
    """Once, before what locks; never with -q, and never before what does not."""
    assert "GET /3/X locks cloud 'c'" in stand_in.cli("api", "c", "GET", "/3/X").stderr
    assert not stand_in.cli("api", "c", "GET", "/3/X", "-q").stderr
    del stand_in.seen[:]
    assert not stand_in.cli("api", "c", "GET", "/3/About").stderr and len(stand_in.seen) == 1
    assert "locks" in stand_in.cli("network-test", "c").stderr
    assert "locks" in stand_in.cli("timezone", "c", "set", "UTC").stderr


def test_network_test(stand_in):
    """Its table, or that there is none."""
    assert "127.0.0.1:1" in stand_in.cli("network-test", "c", "-q").stdout
    stand_in.handler.table = False
    assert "no table" in stand_in.cli("network-test", "c", "-q", code=1).stderr
    assert "no table" in json.loads(stand_in.cli("network-test", "c", "-q", "--json", code=1).stdout)["error"]


def test_info_fits(stand_in):
    """A terminal of 80 columns, with all that a busy machine may say."""
    stand_in.handler.nodes = [{
        "ip_port": "127.0.0.1:54321", "healthy": True, "pid": 1234567, "num_cpus": 64, "cpus_allowed": 64,
        "sys_load": 12.34, "max_mem": int(15.6 * 2**30), "free_mem": 2**30, "num_keys": 12345, "open_fds": 1234,
        "my_cpu_pct": 100, "last_ping": int(time.time() * 1000) - 1000}]
    said = stand_in.cli("info", "c", "--nodes").stdout
    assert " 15/16G " in said and all(len(line) <= 80 for line in said.splitlines()), said


@pytest.mark.parametrize("idle, code", [(10_000_000, 0), (0, 1)])
def test_clean_asks_again(stand_in, idle, code):
    """Whether somebody computes is asked once more when the answer came, which may have taken long."""
    stand_in.handler.locked = True
    stand_in.handler.idle = [10_000_000, idle]
    master, slave = pty.openpty()
    client = subprocess.Popen([H2OFLEET, "--socket", str(stand_in.socket), "clean", "c", "--models"], stdin=slave,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    os.close(slave)
    until("the question", 10, lambda: any(path.startswith("/ctx/3/Models") for _, path, _, _ in stand_in.seen))
    time.sleep(1.5)  # of thought: more than the clocks' slack
    os.write(master, b"yes\n")
    said = client.communicate(timeout=20 * SLOW)[1]
    os.close(master)
    assert client.returncode == code and ("since you were asked" in said) == bool(code), said


def test_usage(stand_in):
    """What cannot be meant is refused, before anything is asked."""
    for args in (["c"], ["c", "GET"], ["c", "GRAB", "/3/X"], ["c", "GET", "3/X"], ["c", "GET", "/3/X Y"],
                 ["c", "GET", "/3/X\r\nHost: y"], ["c", "GET", "/3/X", "-d", "novalue"],
                 ["c", "GET", "/3/X", "--file", "/dev/null"], ["c", "GET", "/3/X", "--json-body", "-"],
                 ["c", "POST", "/3/X", "--json-body", "-", "-d", "a=b"], ["../x", "GET", "/3/X"],
                 ["c", "GET", "/3/X", "--timeout", "soon"], ["c", "GET", "/3/X", "-b", "a\r\nX: y=z"],
                 ["c", "GET", "/3/X", "-b", "nothing"], ["c", "HEAD", "/3/X", "-o", "x"]):
        assert stand_in.cli("api", *args, code=2).stderr
    for args in (["jobs"], ["jobs", "c", "stop"], ["jobs", "c", "cancel"], ["jobs", "c", "cancel", "x", "--all"],
                 ["jobs", "c", "-n", "-1"], ["info"], ["clean"], ["clean", "c", "--idle", "x"],
                 ["timezone", "c", "set"], ["timezone", "c", "turn"], ["timezone", "c", "set", '")(x'],
                 ["network-test"]):
        assert stand_in.cli(*args, code=2).stderr, args
    assert not stand_in.seen
    for command in ("api", "jobs", "info", "clean", "timezone", "network-test"):
        said = stand_in.cli(command, "--help").stdout
        assert "example:" in said and all(len(line) <= 80 for line in said.splitlines()), said


# --- what clients have left, with a stand-in that has some ----------------------------------------


class Left:
    """Frames, models and jobs of a locked cloud. `broken`: paths whose DELETE fails, with what status."""

    def __init__(self, stand_in, frames=(), models=(), jobs=(), idle=10_000_000, broken=()):
        self.frames, self.models, self.jobs, self.idle = dict(frames), list(models), list(jobs), idle
        self.broken, self.removed = dict(broken), []
        left = self

        def get(handler):
            body = left.view(left.path_of(handler))
            handler.reply(404 if body is None else 200, json.dumps(body or {"msg": "nothing there"}).encode())

        def delete(handler):
            path = left.path_of(handler)
            left.removed.append(path)
            status = left.broken.get(path, 200)
            if status == 200:
                left.remove(path)
            handler.reply(status, b'{"msg": "it cannot be removed"}')

        stand_in.handler.do_GET, stand_in.handler.do_DELETE = get, delete

    @staticmethod
    def path_of(handler):
        return urllib.parse.unquote(handler.path.partition("?")[0].removeprefix("/ctx"))

    def view(self, path):
        return {
            "/3/Cloud": {"locked": True, "nodes": [
                {"max_mem": 2**30, "free_mem": 2**29, "mem_value_size": sum(self.frames.values())}]},
            "/3/SteamMetrics": {"idle_millis": self.idle},
            "/3/Jobs": {"jobs": [{"status": s} for s in self.jobs]},
            "/3/Frames": {"frames": [{"frame_id": {"name": n}, "byte_size": b, "rows": 3, "columns": 2}
                                     for n, b in self.frames.items()] + [{"frame_id": {}}]},
            "/3/Models": {"models": [{"model_id": {"name": n}, "algo": "gbm"} for n in self.models] + [{}]},
        }.get(path)

    def remove(self, path):
        """As H2O does: the end of a session takes what Rapids has made in it."""
        what, name = path.rsplit("/", 1)
        if what == "/4/sessions":
            self.frames = {n: b for n, b in self.frames.items() if name not in n or n.startswith("csv")}
        elif what == "/3/Frames":
            del self.frames[name]
        elif what == "/3/Models":
            self.models.remove(name)
        else:
            self.frames, self.models = {}, []


FRAMES = {"py_1_sid_a1": 100, "py_2_sid_a1": 200, "csv_sid_a1": 1000, "RTMP_sid_b2_3": 50, "mine": 2048, "my own/2": 1}


def test_clean_shows(stand_in):
    """What is left, by session; what belongs to none is named, up to a number; nothing is removed."""
    left = Left(stand_in, {**FRAMES, **{f"f{i}": 1 for i in range(30)}}, [f"m{i}" for i in range(21)])
    said = stand_in.cli("clean", "c").stdout
    assert re.search(r"^_sid_a1 +3 +1\.3 kB$", said, re.M), said
    assert re.search(r"^_sid_b2 +1 +50 ", said, re.M), said
    assert re.search(r"^mine +frame +2\.0 kB$", said, re.M) and re.search(r"^m19 +model", said, re.M), said
    assert "py_1" not in said and "\nm20" not in said and "\nand 13 more\n" in said, said
    assert "512 MB of 1.0 GB free; nothing was computed for 2h 46m" in said, said
    shown = json.loads(stand_in.cli("clean", "c", "--json").stdout)
    assert [s["id"] for s in shown["sessions"]] == ["_sid_a1", "_sid_b2"] and shown["sessions"][0]["bytes"] == 1300
    assert len(shown["frames"]) == 36 and len(shown["models"]) == 21 and shown["removed"] is None
    assert shown["memory"] == {"max_bytes": 2**30, "free_bytes": 2**29, "data_bytes": 3399 + 30}
    left.jobs = ["RUNNING", "DONE", "CANCEL_PENDING"]
    assert "2 jobs running" in stand_in.cli("clean", "c").stdout
    left.jobs = ["RUNNING"]
    assert "1 job running" in stand_in.cli("clean", "c").stdout
    assert not left.removed


@pytest.mark.parametrize("args, gone, removed", [
    (["--session", "_sid_a1"], {"py_1_sid_a1", "py_2_sid_a1", "csv_sid_a1"}, ["/4/sessions/_sid_a1", "/3/Frames/csv_sid_a1"]),
    (["--sessions"], {"py_1_sid_a1", "py_2_sid_a1", "csv_sid_a1", "RTMP_sid_b2_3"},
     ["/4/sessions/_sid_a1", "/4/sessions/_sid_b2", "/3/Frames/csv_sid_a1"]),
    (["--frames"], set(FRAMES), ["/4/sessions/_sid_a1", "/4/sessions/_sid_b2", "/3/Frames/csv_sid_a1",
                                 "/3/Frames/mine", "/3/Frames/my own/2"]),
    (["--models"], set(), ["/3/Models/m1", "/3/Models/m2"]),
    (["--all"], set(FRAMES), ["/3/DKV"]),
])
def test_clean_removes(stand_in, args, gone, removed):
    """Exactly what is named, and it is told what that was."""
    left = Left(stand_in, FRAMES, ["m1", "m2"])
    left.remove = (lambda real: lambda path: real(path.replace("my own/2", "my own%2F2")))(left.remove)
    left.frames = {n.replace("my own/2", "my own%2F2"): b for n, b in left.frames.items()}
    left.view = (lambda real: lambda path: json.loads(json.dumps(real(path)).replace("%2F", "/")))(left.view)
    said = json.loads(stand_in.cli("clean", "c", *args, "--yes", "--json").stdout)
    assert left.removed == removed
    assert {n.replace("%2F", "/") for n in left.frames} == set(FRAMES) - gone
    assert said["removed"] == {
        "sessions": sum(p.startswith("/4/") for p in removed) if "--all" not in args else 2, "frames": len(gone),
        "models": 2 if args[0] in ("--models", "--all") else 0, "bytes": sum(FRAMES[n] for n in gone)}


def test_clean_refuses(stand_in):
    """A session that has left nothing, a job that runs, recent use, nobody to ask, somebody who says no: nothing
    is removed, and it is said why."""
    left = Left(stand_in, FRAMES, ["m1"])
    assert "no session '_sid_x'" in stand_in.cli("clean", "c", "--session", "_sid_x", "-y", code=1).stderr
    left.jobs = ["RUNNING"]
    assert "a job runs" in stand_in.cli("clean", "c", "--all", "-y", code=1).stderr
    left.jobs, left.idle = [], 599_000
    assert "9m 59s ago" in stand_in.cli("clean", "c", "--all", "-y", code=1).stderr
    left.idle = 600_000
    assert "nobody to ask" in stand_in.cli("clean", "c", "--all", code=1).stderr
    for args, what in ((["--frames", "--models"], "these frames and all models"), (["--frames"], "all frames"),
                       (["--sessions"], "the frames of these sessions"), (["--all"], "everything in the cloud")):
        master, slave = pty.openpty()
        os.write(master, b"yess\n")
        assert f"Remove {what}? [y/N]" in stand_in.cli("clean", "c", *args, stdin=slave, code=1).stderr
        os.close(slave)
        os.close(master)
    assert not left.removed
    left.jobs, left.idle = ["RUNNING"], 0
    assert "removed: sessions 0, frames 0 (0 bytes), models 1" in stand_in.cli(
        "clean", "c", "--models", "--idle", "0", "-y").stdout


def test_clean_in_part(stand_in):
    """What cannot be removed is told and fails, the rest is removed; what is gone already is no failure; what
    was not removed is not counted."""
    left = Left(stand_in, FRAMES, ["m1", "m2"], broken={"/3/Models/m1": 500, "/4/sessions/_sid_b2": 404})
    done = stand_in.cli("clean", "c", "--models", "--sessions", "-y", code=1)
    assert "it cannot be removed" in done.stderr and done.stderr.count("\n") == 1
    assert done.stdout == "removed: sessions 1, frames 4 (1.3 kB), models 1\n"
    assert left.models == ["m1"] and set(left.frames) == {"mine", "my own/2"}
    left = Left(stand_in, FRAMES, ["m1", "m2"], broken={"/3/DKV": 500})
    done = stand_in.cli("clean", "c", "--all", "-y", code=1)
    assert done.stdout == "removed: sessions 0, frames 0 (0 bytes), models 0\n", done


def test_time_zones(stand_in):
    """The list is that of H2O without its heading, one a line, and harmless to a terminal; it is made in a
    session of its own, which is ended whatever comes of it. A cloud whose time zone is not known has none."""
    ended = []
    zones = {"frames": [{"columns": [{"domain": ["StandardOffset CanonicalID, Aliases", "+01:00 Europe/Berlin",
                                                 "a\x1b[31m", 7]}]}]}

    def get(handler):
        light = handler.path.startswith("/ctx/3/Frames/h2ofleet_timezones/light")
        handler.reply(200, json.dumps(zones if light else {}).encode())

    def delete(handler):
        ended.append(handler.path)
        handler.reply(404, b"{}")

    stand_in.handler.do_GET, stand_in.handler.do_DELETE = get, delete
    assert stand_in.cli("timezone", "c", "list", "-q").stdout == "+01:00 Europe/Berlin\na\\x1b[31m\n"
    assert json.loads(stand_in.cli("timezone", "c", "list", "-q", "--json").stdout)["timezones"][0] == \
        "+01:00 Europe/Berlin"
    assert ended == ["/ctx/4/sessions/_sid_h2ofleet"] * 2
    assert stand_in.cli("timezone", "c").stdout == "-\n"
    assert json.loads(stand_in.cli("timezone", "c", "--json").stdout) == {"timezone": None}
    zones["frames"] = "odd"
    assert stand_in.cli("timezone", "c", "list", "-q").stdout == ""


def test_wide_table(stand_in):
    """A table that is wider than the screen is told row by row; cells that are none are dashes."""
    columns = [{"description": d} for d in ("To", "1 byte", "1 MB " * 20)] + [{}]
    data = [["remote localhost/127.0.0.1:54321", "all - collective"], ["  1 us", None], ["2 ms", "3 ms"], ["4", "5"]]
    stand_in.handler.do_GET = lambda handler: handler.reply(200, json.dumps(
        {"locked": True, "table": {"columns": columns, "data": data}}).encode())
    said = stand_in.cli("network-test", "c", "-q").stdout.splitlines()
    assert said[0] == "remote 127.0.0.1:54321" and said[1].split() == ["1", "byte", "1", "us"], said
    assert said[4] == "all - collective" and said[5].split() == ["1", "byte", "-"], said
    assert said[3].split() == ["-", "4"], said
