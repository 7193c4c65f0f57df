#!/usr/bin/env python3
"""Self-test of fakejava: that it keeps the rules which the end-to-end tests rely on.

    pytest tests/fake/selftest.py

The program is $FAKEJAVA, or tests/fake/fakejava of the current directory, or it is compiled. No
test leaves a process, a port or a file; every wait has a deadline.
"""
import ctypes
import glob
import http.client
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import time

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../e2e"))

from fleet import PortBlock  # noqa: E402

block = None  # this process' ports, until it ends
HEARTBEAT = 30  # ms; everything of H2O's clock scales with it
PERF_DIR = "/tmp/hsperfdata_" + pwd.getpwuid(os.geteuid()).pw_name


def until(what, seconds=20):
    """Calls what() until it returns something true, and returns that."""
    end = time.monotonic() + seconds
    while True:
        value = what()
        if value:
            return value
        assert time.monotonic() < end, "deadline: " + (what.__doc__ or what.__name__)
        time.sleep(0.005)


def free_ports(n):
    """The first of 2n ports in a row that are free for TCP and UDP, and no other worker's or test's."""
    global block
    block = block or PortBlock(256)  # some are not free again for a minute
    for base in range(block.base, block.base + block.size - 2 * n + 1, 2):
        held = []
        try:
            for p in range(base, base + 2 * n):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    s = socket.socket(socket.AF_INET, kind)
                    held.append(s)
                    s.bind(("127.0.0.1", p))
            return base
        except OSError:
            continue
        finally:
            for s in held:
                s.close()
    raise AssertionError("no free ports")


class Node:
    def __init__(self, rig, index, port, flatfile, name, fakes=(), jvm=(), h2o=(), env=(), **kw):
        self.port, self.dir = port, rig.dir / f"n{index}"
        self.tmp, self.ice = self.dir / "tmp", self.dir / "ice"
        self.tmp.mkdir(parents=True, exist_ok=True)
        self.out, self.err = self.dir / "out", self.dir / "err"
        argv = [rig.java, "-Xmx64m", f"-Djava.io.tmpdir={self.tmp}", f"-Dfake.heartbeat_ms={HEARTBEAT}",
                "-Dfake.boot_ms=5", "-Dfake.ready_ms=5",
                *[f"-Dfake.{f}" for f in fakes], *jvm, "-jar", rig.jar, "-ip", "127.0.0.1", "-web_ip",
                "127.0.0.1", "-port", str(port), "-name", name, "-ice_root", str(self.ice), *h2o]
        if flatfile is not None:
            ff = self.dir / "flatfile"
            ff.write_text("".join(f"127.0.0.1:{p}\n" for p in flatfile))
            argv += ["-flatfile", str(ff)]
        self.proc = subprocess.Popen(argv, stdout=open(self.out, "ab"), stderr=open(self.err, "ab"),
                                     stdin=subprocess.DEVNULL, env={**os.environ, **dict(env)}, **kw)

    def ask(self, path, method="GET", timeout=20, body=None):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            c.request(method, path, body=body)
            r = c.getresponse()
            return r.status, r.read(), r.headers
        finally:
            c.close()

    def cloud(self):
        try:
            return json.loads(self.ask("/3/Cloud?skip_ticks=true")[1])
        except OSError:
            return None

    def fake(self, key, value=1):
        assert self.ask(f"/fake/{key}?value={value}", "POST")[0] == 200

    def ctl(self, line):
        with open(self.ice / "fake.ctl", "a") as f:
            f.write(line + "\n")

    def whole(self, n):
        c = self.cloud()
        return c and c["cloud_size"] == n and c["consensus"] and c["cloud_healthy"] and c

    def exit(self, seconds=20):
        return self.proc.wait(seconds)

    def text(self):
        return self.out.read_text()

    def perf(self):
        return f"{PERF_DIR}/{self.proc.pid}"

    def libs(self):
        return glob.glob(f"{self.tmp}/libxgboost4j_gpu*.so")


class Rig:
    def __init__(self, java, jar, path):
        self.java, self.jar, self.dir, self.nodes = java, jar, path, []

    def node(self, index=0, port=None, flatfile=None, name="cloud", **kw):
        node = Node(self, index, port or free_ports(1), flatfile, name, **kw)
        self.nodes.append(node)
        return node

    def cloud(self, n, **kw):
        """n nodes with triangular flatfiles, whole."""
        base = free_ports(n)
        ports = [base + 2 * i for i in range(n)]
        nodes = [self.node(i, ports[i], ports[i:], **kw) for i in reversed(range(n))][::-1]
        for x in nodes:
            until(lambda x=x: x.whole(n))
        return nodes

    def close(self):
        for x in self.nodes:
            if x.proc.poll() is None:
                x.proc.kill()
                x.proc.wait()
            if os.path.exists(x.perf()):
                os.unlink(x.perf())


@pytest.fixture(scope="session")
def java(tmp_path_factory):
    given = os.environ.get("FAKEJAVA", os.path.abspath("tests/fake/fakejava"))
    if os.access(given, os.X_OK):
        return given
    top, out = os.path.join(HERE, "../.."), str(tmp_path_factory.mktemp("bin") / "fakejava")
    subprocess.run(["cc", "-std=gnu17", "-D_GNU_SOURCE", "-O1", f"-I{top}/src", "-o", out,
                    *glob.glob(f"{HERE}/*.c"), *glob.glob(f"{top}/src/base/*.c"), f"{top}/src/drv/procinfo.c"], check=True)
    return out


@pytest.fixture(scope="session")
def jar(tmp_path_factory):
    out = str(tmp_path_factory.mktemp("jar") / "h2o.jar")
    subprocess.run([sys.executable, f"{HERE}/make-fake-jar", out], check=True)
    return out


@pytest.fixture
def rig(java, jar, tmp_path):
    r = Rig(java, jar, tmp_path)
    yield r
    r.close()


def run(rig, *args, **env):
    return subprocess.run([rig.java, *args], capture_output=True, text=True, timeout=60,
                          env={**os.environ, **env})


# The cloud


def test_three_nodes_form(rig):
    """Triangular flatfiles suffice; all fields and the right pids are in the answer of each."""
    nodes = rig.cloud(3)
    for i, x in enumerate(nodes):
        c = x.cloud()
        assert c["node_idx"] == i and not c["locked"] and c["leader_idx"] == 0
        assert [m["pid"] for m in c["nodes"]] == [y.proc.pid for y in nodes]
        assert [m["ip_port"] for m in c["nodes"]] == [f"127.0.0.1:{y.port}" for y in nodes]
        assert len(c["nodes"][0]["fjthrds"]) == 127 and c["nodes"][0]["gflops"] == "NaN"
        until(lambda x=x: "Cloud of size 3 formed" in x.text())
        assert x.text().index("Cloud of size 1 formed") < x.text().index("Cloud of size 3 formed")


@pytest.mark.skipif(not os.path.exists("/tmp/rec/ready.json"), reason="no recording here")
def test_same_fields_as_recorded(rig):
    """Names, order and types of all fields are those of a real 3.46.0.12."""
    real, ours = json.load(open("/tmp/rec/ready.json")), rig.cloud(3)[0].cloud()
    kinds = lambda d: [(k, int if type(v) is float else type(v)) for k, v in d.items() if k != "gflops"]
    assert kinds(real) == kinds(ours) and kinds(real["nodes"][0]) == kinds(ours["nodes"][0])


def test_intermediate_size(rig):
    """Two of three are announced as a cloud of size 2 with consensus; the third makes it 3."""
    base = free_ports(3)
    ports = [base, base + 2, base + 4]
    a, b = rig.node(1, ports[1], ports[:1] + ports[1:2]), rig.node(0, ports[0], ports[:1])
    for x in (a, b):
        until(lambda x=x: x.whole(2))
    c = rig.node(2, ports[2], ports)
    for x in (a, b, c):
        until(lambda x=x: x.whole(3))
    assert "Cloud of size 2 formed" in a.text() and "Cloud of size 2 formed" not in c.text()


def test_all_sizes_seen_during_formation(rig):
    """Before consensus a member answers size 1 with consensus, or size n without."""
    base = free_ports(2)
    a = rig.node(0, base, [base], fakes=["heartbeat_ms=100"])
    b = rig.node(1, base + 2, [base, base + 2], fakes=["heartbeat_ms=100"])
    seen = set()

    def formed():
        c = a.cloud()
        if c:
            seen.add((c["cloud_size"], c["consensus"]))
        return b.whole(2) and a.whole(2)
    until(formed)
    assert (1, True) in seen and ((1, False) in seen or (2, False) in seen)


def test_full_flatfiles_cost_a_refused_connect(rig):
    """A first connect that fails mutes that link for a while, although the peer is up long since."""
    base = free_ports(2)
    ports = [base, base + 2]
    start = time.monotonic()
    a = rig.node(0, ports[0], ports, fakes=["connect_sleep_ms=600"])
    until(lambda: a.whole(1) and a.cloud()["nodes"][0]["pid"])  # its first heartbeat went out
    b = rig.node(1, ports[1], [ports[1]])
    until(lambda: b.whole(2) and a.whole(2))
    assert time.monotonic() - start > 0.6


def test_other_name_is_ignored(rig):
    """A node of another name in the flatfile neither joins nor disturbs."""
    base = free_ports(2)
    ports = [base, base + 2]
    a, b = rig.node(0, ports[0], ports, name="a"), rig.node(1, ports[1], ports, name="b")
    for x in (a, b):
        until(lambda x=x: x.whole(1))
    time.sleep(8 * HEARTBEAT / 1000)
    assert a.whole(1) and b.whole(1)


def test_short_lock(rig):
    """A client that asks /3/Jobs of a lone member locks size 1; the latecomer is killed with 255."""
    base = free_ports(2)
    ports = [base, base + 2]
    a = rig.node(0, ports[0], ports[:1])
    until(lambda: a.whole(1))
    assert a.ask("/3/Jobs")[0] == 200 and a.cloud()["locked"]
    b = rig.node(1, ports[1], ports)
    assert b.exit() == 255
    assert "no longer accepting new H2O nodes from /127.0.0.1" in b.text()
    assert "FATAL water.default: Exiting." in b.text() and "Exiting." in b.err.read_text()
    assert "Killing /127.0.0.1:%d because" % b.port in a.text()
    assert a.cloud()["cloud_size"] == 1


@pytest.mark.parametrize("method,path,locks", [
    ("GET", "/3/Ping", True), ("GET", "/3/Jobs", True), ("POST", "/4/sessions", True),
    ("POST", "/3/CloudLock?reason=x", True), ("GET", "/3/SteamMetrics", True),
    ("GET", "/3/Metadata/endpoints", True), ("GET", "/3/Capabilities", True),
    ("GET", "/3/Cloud", False), ("GET", "/3/About", False), ("HEAD", "/", False), ("HEAD", "/3/Cloud", False),
    ("GET", "/3/Nope", False), ("GET", "/3/Jobs/nope", False)])
def test_what_locks(rig, method, path, locks):
    """The endpoints lock, or do not, as measured."""
    a = rig.node()
    until(lambda: a.whole(1))
    status = a.ask(path, method)[0]
    assert status == {"/3/Nope": 404, "/3/Jobs/nope": 400}.get(path, 200)
    assert a.cloud()["locked"] == locks


def test_lock_waits_for_consensus_and_is_per_node(rig):
    """Without consensus a locking request waits; a follower that took no part stays unlocked."""
    a, b, c = rig.cloud(3)
    b.fake("no_consensus")
    with pytest.raises(TimeoutError):
        b.ask("/3/Jobs", timeout=0.2)
    assert not b.cloud()["locked"]
    b.fake("no_consensus", 0)
    assert b.ask("/3/Jobs")[0] == 200
    assert b.cloud()["locked"] and a.cloud()["locked"]  # the leader handed out the type id
    assert not c.cloud()["locked"]


def test_silent_rejoin(rig):
    """A member restarted on its address is accepted by a locked cloud, under its new pid."""
    nodes = rig.cloud(3)
    assert nodes[0].ask("/3/Jobs")[0] == 200
    nodes[2].proc.kill()
    nodes[2].proc.wait()
    again = rig.node(2, nodes[2].port, [x.port for x in nodes])
    until(lambda: again.whole(3))
    until(lambda: nodes[0].whole(3)["nodes"][2]["pid"] == again.proc.pid)
    assert "Killing" not in nodes[0].text()


def test_unhealthy_after_timeout(rig):
    """A dead member is unhealthy after the timeout, in body and header; it is never evicted."""
    a, b = rig.cloud(2, fakes=["heartbeat_timeout_ms=300"])
    assert a.ask("/3/Cloud", "HEAD")[2]["X-h2o-cluster-good"] == "true"
    b.proc.kill()
    dead = time.monotonic()
    c = until(lambda: (lambda x: not x["cloud_healthy"] and x)(a.cloud()))
    assert time.monotonic() - dead > 0.2
    assert c["bad_nodes"] == 1 and c["cloud_size"] == 2 and c["consensus"]
    assert [m["healthy"] for m in c["nodes"]] == [True, False]
    assert a.ask("/3/Cloud", "HEAD")[2]["X-h2o-cluster-good"] == "false"


def test_pause_is_survived(rig):
    """SIGSTOP makes a member unhealthy; SIGCONT heals it and what waited goes on."""
    a, b = rig.cloud(2, fakes=["heartbeat_timeout_ms=200"])
    b.proc.send_signal(signal.SIGSTOP)
    until(lambda: not a.cloud()["cloud_healthy"])
    b.proc.send_signal(signal.SIGCONT)
    until(lambda: a.whole(2) and b.whole(2))


def test_md5_mismatch(rig):
    """Another jar in the same cloud: the newcomer dies."""
    a, b = rig.cloud(2)
    c = rig.node(2, None, [a.port, b.port], fakes=["md5=7"])
    assert c.exit() == 255
    assert "version" in c.text() and a.whole(2)


def test_internal_port_bricks(rig):
    """Connect and close on API+1: a mark, a line, and no new peer ever; old peers stay."""
    a, b = rig.cloud(2)
    socket.create_connection(("127.0.0.1", a.port + 1)).close()
    until(lambda: (a.ice / "bricked").exists())
    assert "BRICKED: connection to the internal port" in a.text()
    c = rig.node(2, None, [a.port, b.port])
    until(lambda: c.cloud())
    time.sleep(8 * HEARTBEAT / 1000)
    assert a.cloud()["cloud_size"] == 2 and not c.whole(3)
    assert not (b.ice / "bricked").exists()


# Boot


def test_holds_requests_until_ready(rig):
    """Ports open early; a request made then is answered once the node is ready, not before."""
    a = rig.node(fakes=["ready_ms=400"])

    def open_port():
        s = socket.socket()
        return s if s.connect_ex(("127.0.0.1", a.port)) == 0 else s.close()
    s = until(open_port)
    s.sendall(b"GET /3/Cloud HTTP/1.1\r\nHost: x\r\n\r\n")
    s.settimeout(0.15)
    with pytest.raises(TimeoutError):
        s.recv(1)
    s.settimeout(20)
    assert s.recv(15) == b"HTTP/1.1 200 OK"
    s.close()
    assert "Open H2O Flow in your web browser: http://127.0.0.1:%d\n" % a.port in a.text()


@pytest.mark.parametrize("offset", [0, 1])
def test_taken_port(rig, offset):
    """API or internal port taken: FATAL on both outputs, exit 255."""
    port = free_ports(1)
    with socket.socket() as s:
        s.bind(("127.0.0.1", port + offset))
        s.listen()
        a = rig.node(port=port)
        assert a.exit() == 255
    line = f"On /127.0.0.1 some of the required ports {port}, {port + 1} are not available"
    assert line in a.text() and line in a.err.read_text()


def test_held_port_can_be_bound(rig):
    """A port held the way the daemon does (no SO_REUSEADDR at the bind, set after) is usable."""
    port, held = free_ports(1), []
    for p in (port, port + 1):
        s = socket.socket()
        s.bind(("127.0.0.1", p))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.append(s)
    a = rig.node(port=port)
    until(lambda: a.whole(1))
    for s in held:
        s.close()


def test_baseport_steps_over(rig, java, jar):
    """-baseport takes the next free pair."""
    a = rig.node()
    until(lambda: a.whole(1))
    b = rig.node(1, 0, h2o=["-baseport", str(a.port)])
    b.port = int(until(lambda: "Open H2O Flow" in b.text() and b.text().split("Open H2O Flow")[1]
                       .split(":")[3].split()[0]))
    assert b.port > a.port and b.whole(1)


def test_java_version_output(rig):
    """-version as OpenJDK prints it, on stderr."""
    r = run(rig, "-version")
    assert r.returncode == 0 and r.stderr.startswith('openjdk version "17.0.15" 2025-04-15\n')
    shown = run(rig, "-XshowSettings:properties", "-version").stderr
    assert "\n    java.library.path = /usr/java/packages/lib\n        /fake/jni\n" in shown
    assert 'version "21.0.2"' in run(rig, "-version", FAKE_JAVA_VERSION="21.0.2").stderr


def test_wrong_java(rig):
    """Java outside 8-17 is refused with exit 3 unless allowed."""
    args = ["-jar", rig.jar, "-bogus"]
    r = run(rig, *args, FAKE_JAVA_VERSION="21.0.2")
    assert r.returncode == 3
    assert r.stderr == "Only Java versions 8-17 are supported, system version is 21.0.2\n"
    allowed = "-Dsys.ai.h2o.debug.allowJavaVersions=20,21"
    tmp = f"-Djava.io.tmpdir={rig.dir}"
    assert run(rig, tmp, allowed, *args, FAKE_JAVA_VERSION="21.0.2").returncode == 1
    assert run(rig, tmp, *args, FAKE_JAVA_VERSION="1.8.0_392").returncode == 1


@pytest.mark.parametrize("option,stream,text", [
    ("-Xmx999999g", "stdout", "Could not reserve enough space for 1048574951424KB object heap\n"),
    ("-Xmx1m", "stdout", "Too small maximum heap\n"),
    ("-Xmxfoo", "stderr", "Invalid maximum heap size: -Xmxfoo\n"),
    ("-XX:+Unrecognized", "stderr", "Unrecognized VM option 'Unrecognized'\n"),
    ("--bogus", "stderr", "Unrecognized option: --bogus\n")])
def test_jvm_option_errors(rig, option, stream, text):
    """The JVM's own refusals: exit 1, its words, on the stream it uses."""
    r = run(rig, option, "-jar", rig.jar)
    assert r.returncode == 1 and text in getattr(r, stream)


def test_bad_arguments(rig):
    """H2O's refusals: on stdout with the help, exit 1, and no file left."""
    tmp = f"-Djava.io.tmpdir={rig.dir}"
    r = run(rig, tmp, "-jar", rig.jar, "-nope")
    assert r.returncode == 1 and "\nERROR: Unknown argument (-nope)\n\n\nUsage:" in r.stdout
    assert "ERROR: port not specified" in run(rig, tmp, "-jar", rig.jar, "-port").stdout
    assert run(rig, "-jar", "/nonexistent.jar").stderr == "Error: Unable to access jarfile /nonexistent.jar\n"
    assert not os.listdir(rig.dir)


def test_refusals_leave_no_perf_file(rig):
    """However the JVM gives up, its file in /tmp/hsperfdata_USER is gone."""
    for args in (["-jar", "/nonexistent.jar"], ["-jar", __file__], ["Nope"], ["-jar", rig.jar, "-x"]):
        p = subprocess.Popen([rig.java, f"-Djava.io.tmpdir={rig.dir}", *args],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert p.wait(5) == 1
        assert not os.path.exists(f"{PERF_DIR}/{p.pid}")


def test_starts_fast(rig):
    """Below 5 ms to its first line, or a big fleet of them would be a test of the machine."""
    best = 1.0
    for _ in range(10):
        start = time.monotonic()
        run(rig, "-version")
        best = min(best, time.monotonic() - start)
    assert best < 0.02  # with the fork of Python


# REST


def test_http_details(rig):
    """Keep-alive, HEAD without body, headers, 404 as H2OErrorV3, 301 of /, context path."""
    a = rig.node(h2o=["-context_path", "ctx"])
    until(lambda: "Open H2O Flow" in a.text())
    c = http.client.HTTPConnection("127.0.0.1", a.port, timeout=20)
    c.request("HEAD", "/ctx/3/Cloud")
    r = c.getresponse()
    assert r.read() == b"" and int(r.headers["Content-Length"]) > 1000
    assert r.headers["X-h2o-build-project-version"] == "3.46.0.12"
    assert r.headers["X-h2o-cluster-id"].isdigit() and r.headers["X-h2o-rest-api-version-max"] == "3"
    c.request("GET", "/ctx/3/Nope")
    r = c.getresponse()
    e = json.loads(r.read())
    assert r.status == 404 and e["__meta"]["schema_name"] == "H2OErrorV3" and e["http_status"] == 404
    c.request("HEAD", "/ctx/3/About")
    r = c.getresponse()
    r.read()
    assert r.status == 404
    c.request("GET", "/3/Cloud")
    r = c.getresponse()
    assert r.status == 404 and b"<html>" in r.read()
    c.request("GET", "/ctx/")
    r = c.getresponse()
    r.read()
    assert r.status == 301
    c.close()


# The end


def test_shutdown_of_the_whole_cloud(rig):
    """POST /3/Shutdown on any member: 200, all exit 0, the ice directories are gone."""
    nodes = rig.cloud(3)
    assert nodes[1].ask("/3/Shutdown", "POST")[0] == 200
    assert [x.exit() for x in nodes] == [0, 0, 0]
    assert not any((x.ice / f"ice{x.port}").exists() or x.libs() for x in nodes)


def test_shutdown_counts_the_unconfirmed(rig):
    """A dead follower: the receiver exits with 1."""
    nodes = rig.cloud(3)
    nodes[2].proc.kill()
    nodes[0].ask("/3/Shutdown", "POST")
    assert nodes[0].exit() == 1 and nodes[1].exit() == 0


def test_shutdown_hangs_without_the_leader(rig):
    """A dead leader: no answer, nobody exits."""
    nodes = rig.cloud(3)
    nodes[0].proc.kill()
    with pytest.raises(TimeoutError):
        nodes[1].ask("/3/Shutdown", "POST", timeout=0.5)
    assert nodes[1].proc.poll() is None and nodes[2].proc.poll() is None


@pytest.mark.parametrize("sig,code", [("TERM", 143), ("INT", 130), ("HUP", 129)])
def test_stop_signals(rig, sig, code):
    """Exit code of each; the JVM's files go, the ice directory stays."""
    a = rig.node()
    until(lambda: a.whole(1))
    assert os.path.exists(a.perf()) and len(a.libs()) == 1
    a.proc.send_signal(getattr(signal, "SIG" + sig))
    assert a.exit() == code
    assert not os.path.exists(a.perf()) and not a.libs() and (a.ice / f"ice{a.port}").is_dir()


def test_kill_leaks(rig):
    """SIGKILL leaves the native library and the perf file behind."""
    a = rig.node()
    until(lambda: a.whole(1))
    a.proc.kill()
    assert a.exit() == -9 and os.path.exists(a.perf()) and len(a.libs()) == 1


def test_quit_dumps_threads(rig):
    """SIGQUIT: a thread dump on stdout, and it lives."""
    a = rig.node()
    until(lambda: a.whole(1))
    a.proc.send_signal(signal.SIGQUIT)
    until(lambda: "Full thread dump OpenJDK 64-Bit Server VM" in a.text())
    assert a.whole(1)


def test_inherited_ignored_signals(rig):
    """SIGHUP and SIGINT ignored at exec stay ignored; TERM still works."""
    a = rig.node(preexec_fn=lambda: [signal.signal(s, signal.SIG_IGN) for s in (signal.SIGHUP, signal.SIGINT)],
                 restore_signals=False)
    until(lambda: a.whole(1))
    a.proc.send_signal(signal.SIGHUP)
    a.proc.send_signal(signal.SIGINT)
    assert a.whole(1)
    a.proc.terminate()
    assert a.exit() == 143


# Recovery


def test_recovery(rig):
    """A grid's state outlives SIGKILL; resume keeps the job's key and empties the directory."""
    rec = rig.dir / "rec"
    a = rig.node(fakes=["r1.grid_ms=60000"], h2o=["-auto_recovery_dir", str(rec)])
    until(lambda: (rec / "recovery.json").exists())
    job = json.loads(a.ask("/3/Jobs")[1])["jobs"][0]
    assert job["status"] == "RUNNING" and job["auto_recoverable"]
    a.proc.kill()
    a.exit()
    b = rig.node(1, fakes=["resume_ms=100"], h2o=["-auto_recovery_dir", str(rec)])
    until(lambda: b.whole(1))
    assert b.ask("/3/Recovery/resume", "POST", body=f"recovery_dir={rec}")[0] == 200
    url = "/3/Jobs/" + job["key"]["name"].replace("$", "%24")
    until(lambda: json.loads(b.ask(url)[1])["jobs"][0]["status"] == "DONE")
    assert os.listdir(rec) == []


@pytest.mark.parametrize("value,code", [("1", 255), ("SEGV", -signal.SIGSEGV)])
def test_resume_crash(rig, value, code):
    """resume_crash: the resume takes the node down, the state stays."""
    rec = rig.dir / "rec"
    rec.mkdir()
    (rec / "recovery.json").write_text('{"jobKey":"k"}')
    a = rig.node(fakes=["resume_crash=" + value])
    until(lambda: a.whole(1))
    with pytest.raises((OSError, http.client.HTTPException)):
        a.ask("/3/Recovery/resume", "POST", body=f"recovery_dir={rec}")
    assert a.exit() == code and (rec / "recovery.json").exists()


# Knobs


@pytest.mark.parametrize("knobs,code", [
    (["exit_at_boot_ms=20", "exit_code=7"], 7), (["exit_code_now=9"], 9), (["crash=SEGV"], -signal.SIGSEGV),
    (["r10.crash=ABRT"], -signal.SIGABRT), (["t30.exit_code_now=4"], 4), (["r5.oom=1"], 3)])
def test_deadly_knobs(rig, knobs, code):
    """Each ends the node as it says, at the time it says."""
    a = rig.node(fakes=knobs)
    assert a.exit() == code
    if "oom" in knobs[0]:
        assert "Terminating due to java.lang.OutOfMemoryError: Java heap space\n" in a.text()


def test_selectors(rig):
    """A knob for another index or generation does nothing; the daemon's token names both."""
    a = rig.node(env={"H2OFLEET_TOKEN": "f/cloud/2/5"},
                 fakes=["2.g4.lie_name=x", "3.lie_name=x", "g5.2.lie_size=8"])
    c = until(a.cloud)
    assert c["cloud_size"] == 8 and c["cloud_name"] == "cloud"


@pytest.mark.parametrize("key,value,field,expected", [
    ("lie_pid", 4, lambda c: c["nodes"][0]["pid"], 4), ("lie_size", 5, lambda c: c["cloud_size"], 5),
    ("lie_name", "x", lambda c: c["cloud_name"], "x"), ("unhealthy", 1, lambda c: c["bad_nodes"], 1),
    ("no_consensus", 1, lambda c: c["consensus"], False), ("locked", 1, lambda c: c["locked"], True)])
def test_lies(rig, key, value, field, expected):
    """What /3/Cloud says can be bent at run time, and is straight again after."""
    a = rig.node()
    until(lambda: a.whole(1) and a.cloud()["nodes"][0]["pid"])
    before = field(a.cloud())
    a.fake(key, value)
    assert field(a.cloud()) == expected
    a.fake(key, "" if key == "lie_name" else 0)
    assert field(a.cloud()) == before


def test_answer_knobs(rig):
    """hang, slow_ms, http_status, garbage, truncate, refuse, each undone after."""
    a = rig.node()
    until(lambda: a.whole(1))
    a.fake("hang")
    with pytest.raises(TimeoutError):
        a.ask("/3/Cloud", timeout=0.1)
    a.fake("hang", 0)
    a.fake("slow_ms", 150)
    start = time.monotonic()
    assert a.ask("/3/Cloud")[0] == 200 and time.monotonic() - start >= 0.14
    a.fake("slow_ms", 0)
    for status in (500, 401):
        a.fake("http_status", status)
        assert a.ask("/3/Cloud")[0] == status
    a.fake("http_status", 0)
    a.fake("garbage", 2000)
    with pytest.raises(http.client.HTTPException):
        a.ask("/3/Cloud")
    a.fake("garbage", 0)
    a.fake("truncate")
    assert not _answers(a)
    a.fake("truncate", 0)
    assert _answers(a)
    a.ctl("refuse=1")
    until(lambda: socket.socket().connect_ex(("127.0.0.1", a.port)) != 0)
    a.ctl("refuse=0")
    until(lambda: a.whole(1))


def _answers(node):
    try:
        return node.ask("/3/Cloud")[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def test_ctl_before_the_ports(rig):
    """fake.ctl works before the node listens, and only new lines act."""
    a = rig.node(fakes=["boot_ms=60000"])
    until(a.ice.is_dir)
    a.ctl("lie_size=3")
    a.ctl("exit_code_now=11")
    assert a.exit() == 11


def test_never_ready_and_ignore_term(rig):
    """never_ready keeps holding; ignore_term survives TERM but not KILL."""
    a = rig.node(fakes=["never_ready=1", "ignore_term=1"])
    until(lambda: "Cloud of size 1 formed" in a.text())
    with pytest.raises(TimeoutError):
        a.ask("/3/Cloud", timeout=0.1)
    a.proc.terminate()
    a.fake("never_ready", 0)
    until(lambda: a.whole(1))
    a.proc.kill()
    assert a.exit() == -9


def test_isolate(rig):
    """A partition: unhealthy on both sides, whole again after."""
    a, b = rig.cloud(2, fakes=["heartbeat_timeout_ms=200"])
    b.fake("isolate")
    until(lambda: not a.cloud()["cloud_healthy"] and not b.cloud()["cloud_healthy"])
    b.fake("isolate", 0)
    until(lambda: a.whole(2) and b.whole(2))


def test_hs_err(rig):
    """A JVM crash: the file of -XX:ErrorFile with the pid in its name, SIGABRT, things leaked."""
    a = rig.node(jvm=[f"-XX:ErrorFile={rig.dir}/hs_err_%p.log"])
    until(lambda: a.whole(1))
    a.ctl("hs_err=1")
    assert a.exit() == -signal.SIGABRT
    text = (rig.dir / f"hs_err_{a.proc.pid}.log").read_text()
    assert "fatal error has been detected by the Java Runtime Environment" in text and a.libs()


def test_spin_spam_rss(rig):
    """spin burns CPU, log_spam writes that much, rss_mb is resident; it answers all the while."""
    a = rig.node()
    until(lambda: a.whole(1))
    ticks = lambda: int(open(f"/proc/{a.proc.pid}/stat").read().split()[13]) + int(
        open(f"/proc/{a.proc.pid}/stat").read().split()[14])
    before = ticks()
    a.fake("spin")
    until(lambda: ticks() > before + 10)
    a.fake("spin", 0)
    a.fake("log_spam", 300000)
    assert a.out.stat().st_size > 290000
    a.fake("rss_mb", 50)
    assert int(open(f"/proc/{a.proc.pid}/statm").read().split()[1]) * 4096 > 50 << 20
    assert a.whole(1)


@pytest.mark.parametrize("how", [1, 2])
def test_fork_child(rig, how):
    """A child stays behind: in the node's group, or in a session of its own; with its environment."""
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: so that we can reap the orphan
    a = rig.node(start_new_session=True, env={"H2OFLEET_TOKEN": "t/c/0/1"})
    until(lambda: a.whole(1))
    a.fake("fork_child", how)
    children = lambda: open(f"/proc/{a.proc.pid}/task/{a.proc.pid}/children").read().split()
    child = int(until(children)[0])
    try:
        until(lambda: (os.getpgid(child) == a.proc.pid) == (how == 1))
        a.proc.terminate()
        assert a.exit() == 143
        assert b"H2OFLEET_TOKEN=t/c/0/1" in open(f"/proc/{child}/environ", "rb").read()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_steal_port(rig):
    """steal_port listens on another port, as a foreign JVM would."""
    port = free_ports(2)
    a = rig.node(port=port + 2)
    until(lambda: a.whole(1))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    a.fake("steal_port", port)
    socket.create_connection(("127.0.0.1", port)).close()


def test_rest_ping_timeout(rig):
    """-rest_api_ping_timeout: locked and never pinged, the leader takes all down with 255."""
    nodes = rig.cloud(2, h2o=["-rest_api_ping_timeout", "100"])
    nodes[0].ask("/3/Jobs")
    assert [x.exit() for x in nodes] == [255, 255]


def test_notify_local(rig):
    """-notify_local is written at size 1 already, without a newline."""
    a = rig.node(h2o=["-notify_local", str(rig.dir / "d" / "notify")])
    until(lambda: a.whole(1))
    assert (rig.dir / "d" / "notify").read_text() == f"127.0.0.1:{a.port}"


def test_archive_is_mapped(rig):
    """-Xshare:dump makes an archive, which then is seen in /proc/PID/maps."""
    jsa = f"{rig.dir}/x.jsa"
    assert run(rig, "-Xshare:dump", f"-XX:SharedArchiveFile={jsa}", "-cp", rig.jar).returncode == 0
    a = rig.node(jvm=[f"-XX:SharedArchiveFile={jsa}", "-Xshare:auto", "-Xlog:cds=off"])
    until(lambda: a.whole(1))
    assert jsa in open(f"/proc/{a.proc.pid}/maps").read()


def dump(rig, jsa, *flags, **env):
    return run(rig, "-Xshare:dump", f"-XX:SharedArchiveFile={jsa}", "-cp", rig.jar, *flags, **env)


def test_archive_of_another_jar(rig):
    """An archive is not mapped when the jar has changed; -Xshare:on then refuses to start."""
    jsa = f"{rig.dir}/x.jsa"
    assert dump(rig, jsa).returncode == 0
    on = ("-Xshare:on", f"-XX:SharedArchiveFile={jsa}", "-cp", rig.jar, "-version")
    assert run(rig, *on).returncode == 0
    before = os.stat(rig.jar)
    os.utime(rig.jar, (1, 1))
    try:
        refused = run(rig, *on)
        assert refused.returncode == 1 and "is not the one used while building" in refused.stdout
        a = rig.node(jvm=[f"-XX:SharedArchiveFile={jsa}"])
        until(lambda: a.whole(1))
        assert jsa not in open(f"/proc/{a.proc.pid}/maps").read()
    finally:
        os.utime(rig.jar, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_dump_faults(rig):
    """A missing class list and dump_fail make no archive; FAKE_KNOBS sets knobs."""
    jsa = f"{rig.dir}/x.jsa"
    assert dump(rig, jsa, f"-XX:SharedClassListFile={rig.dir}/none").returncode == 1
    failed = dump(rig, jsa, FAKE_KNOBS="dump_fail=1")
    assert failed.returncode == 1 and "Unable to allocate metaspace" in failed.stdout
    assert not os.path.exists(jsa)


def test_aot_cache(rig):
    """JDK 24 and later: recorded at the end of a run, made of that, mapped; 17 knows no such flag."""
    env = {"FAKE_JAVA_VERSION": "25.0.3"}
    conf, aot = f"{rig.dir}/x.conf", f"{rig.dir}/x.aot"
    assert run(rig, f"-XX:AOTCache={aot}", "-version").returncode == 1
    a = rig.node(jvm=["-XX:AOTMode=record", f"-XX:AOTConfiguration={conf}", "-Dsys.ai.h2o.debug.allowJavaVersions=25"],
                 env=env)
    until(lambda: a.whole(1))
    assert not os.path.exists(conf)
    a.proc.terminate()
    assert a.exit() == 143 and os.path.exists(conf)
    assert run(rig, "-XX:AOTMode=create", f"-XX:AOTConfiguration={conf}", f"-XX:AOTCache={aot}", "-cp", rig.jar,
               **env).returncode == 0
    b = rig.node(1, jvm=[f"-XX:AOTCache={aot}", "-Dsys.ai.h2o.debug.allowJavaVersions=25"], env=env)
    until(lambda: b.whole(1))
    assert aot in open(f"/proc/{b.proc.pid}/maps").read()


def test_bad_archives(rig):
    """What an archive can do wrong: other endpoints, a session that fails or kills, a model that fails."""
    jsa = f"{rig.dir}/x.jsa"
    assert dump(rig, jsa).returncode == 0
    use = [f"-XX:SharedArchiveFile={jsa}"]
    base = free_ports(3)
    good = rig.node(0, base, fakes=["archive_endpoints=2", "archive_session=500"])
    bad = rig.node(1, base + 2, fakes=["archive_endpoints=2", "archive_session=500", "archive_model=1"], jvm=use)
    until(lambda: good.whole(1) and bad.whole(1))
    routes = [json.loads(x.ask("/3/Metadata/endpoints")[1])["routes"] for x in (good, bad)]
    assert sum(a != b for a, b in zip(*routes)) == 2
    assert (good.ask("/4/sessions", "POST")[0], bad.ask("/4/sessions", "POST")[0]) == (200, 500)
    assert good.ask("/3/CreateFrame", "POST", body="dest=f&rows=100")[0] == 200
    rapids = good.ask("/99/Rapids", "POST", body="ast=(%2B%20(nrow%20f)%201)")[1]
    assert json.loads(rapids)["scalar"] == 101
    for node, status in ((good, "DONE"), (bad, "FAILED")):
        node.ask("/3/CreateFrame", "POST", body="dest=f&rows=100")
        job = json.loads(node.ask("/3/ModelBuilders/gbm", "POST", body="training_frame=f")[1])["job"]["key"]["name"]
        until(lambda: json.loads(node.ask(f"/3/Jobs/{job}")[1])["jobs"][0]["status"] == status)
    dead = rig.node(2, base + 4, fakes=["archive_session=1"], jvm=use)
    until(lambda: dead.whole(1))
    with pytest.raises((OSError, http.client.HTTPException)):
        dead.ask("/4/sessions", "POST")
    assert dead.exit() == 255


def test_library_path_saves_the_unpacking(rig):
    """With the library on java.library.path nothing is unpacked."""
    (rig.dir / "libxgboost4j_gpu.so").touch()
    a = rig.node(jvm=[f"-Djava.library.path=/none:{rig.dir}"])
    until(lambda: a.whole(1))
    assert a.libs() == []


def test_readme_names_every_knob(rig):
    """The table in README is the table in the program."""
    readme = open(f"{HERE}/README").read()
    for line in run(rig, "--fake-knobs").stdout.splitlines():
        assert f"\n    {line.split()[0]} " in readme, line


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", *sys.argv[1:]]))
