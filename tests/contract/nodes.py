"""H2O nodes without h2ofleet: launched as src/model/plan.c would, and asked as src/drv/http.c would.

Two kinds of them, `real` and `fake`, with one face, so that one suite states what both do."""

import contextlib
import ctypes
import functools
import glob
import http.client
import json
import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.parse
import zipfile

from fleet import FAKEJAVA, REPO, PortBlock, halt, listeners, processes, read, until

LOCALHOST = "127.0.0.1"
PERF_DIR = "/tmp/hsperfdata_" + pwd.getpwuid(os.geteuid()).pw_name
# As model/plan.c drops them: they change what a node does behind our back.
DROPPED = re.compile("JAVA_TOOL_OPTIONS$|JDK_JAVA_OPTIONS$|_JAVA_OPTIONS$|CLASSPATH$|H2O_|H2OFLEET_TOKEN$")
LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1
OPENS = ["java.lang", "java.util", "java.lang.reflect"]


class Kind:
    """What is launched: a java, a jar, and how long a second of H2O's is in it."""

    def __init__(self, name, java, jar, second, jvm=()):
        self.name, self.java, self.jar, self.second, self.jvm = name, str(java), str(jar), second, list(jvm)
        self.is_fake = name == "fake"
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="h2ofleet-contract."))

    def env(self, **more):
        env = {k: v for k, v in os.environ.items() if not DROPPED.match(k)}
        return {**env, "DO_NOT_TRACK": "1", **more}

    def run(self, *args, timeout=60, java=None, **env):
        """A JVM that ends by itself, with a tmpdir of its own; returns (exit code, all it printed)."""
        with tempfile.TemporaryDirectory(dir=self.dir) as tmp:
            done = subprocess.run([java or self.java, f"-Djava.io.tmpdir={tmp}", *args], env=self.env(**env),
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True, errors="replace", timeout=timeout)
        return done.returncode, done.stdout

    @functools.cached_property
    def major(self):
        """Of the Java: 8, 11, 17, ..."""
        said = self.run("-version")[1]
        version = re.search(r' version "(?:1\.)?(\d+)', said)
        assert version, said
        return int(version[1])

    def refuses(self, java):
        """Does H2O refuse this Java?"""
        return self.run("-jar", self.jar, "-version", java=java)[0] == 3

    @functools.cached_property
    def is_refused(self):
        return self.refuses(self.java)

    def refused_java(self):
        """(path, major) of one that H2O refuses; None: there is none here."""
        if self.is_refused:
            return self.java, self.major
        for java in {os.path.realpath(p) for p in glob.glob("/usr/lib/jvm/*/bin/java")} - {os.path.realpath(self.java)}:
            version = re.search(r'^JAVA_VERSION="(?:1\.)?(\d+)', read(f"{java[:-len('/bin/java')]}/release"), re.M)
            if version and self.refuses(java):
                return java, int(version[1])
        return None

    def allow(self):
        """What plan.c adds where allow_unsupported_java = yes is needed."""
        return [f"-Dsys.ai.h2o.debug.allowJavaVersions={self.major}"] if self.is_refused else []

    @functools.cached_property
    def libraries(self):
        """A directory with the native libraries of the jar, as the boot cache has it."""
        to = self.dir / "native"
        to.mkdir()
        with zipfile.ZipFile(self.jar) as jar:
            for name in jar.namelist():
                if name.startswith("lib/linux_64/") and name.endswith(".so"):
                    with jar.open(name) as source, open(to / os.path.basename(name), "wb") as copy:
                        shutil.copyfileobj(source, copy, 1 << 20)
        return to

    @functools.cached_property
    def version(self):
        """What the jar says it is, in the class that src/drv/jar.c reads."""
        with zipfile.ZipFile(self.jar) as jar:
            constants = jar.read("water/init/BuildVersion.class")  # of text: 1, the length, the text
        return re.search(rb"\x01\0[\7-\x20](\d+\.\d+\.\d+\.\d+)", constants)[1].decode()

    @functools.cached_property
    def can_recover(self):
        """Does it know -auto_recovery_dir? As src/core/recovery.c has it."""
        return [int(n) for n in self.version.split(".")][:3] >= [3, 32, 1]

    def close(self):
        shutil.rmtree(self.dir, ignore_errors=True)


def fake_kind():
    kind = Kind("fake", FAKEJAVA, None, 0.05, ["-Dfake.heartbeat_ms=50", "-Dfake.boot_ms=20"])
    kind.jar = str(kind.dir / "h2o.jar")
    subprocess.run([REPO / "tests/fake/make-fake-jar", kind.jar], check=True)
    return kind


def real_kind():
    jar, java = os.environ.get("H2OFLEET_JAR"), os.environ.get("H2OFLEET_JAVA") or shutil.which("java")
    if not jar:
        found = glob.glob(str(REPO / ".cache/venv/lib/python3*/site-packages/h2o/backend/bin/h2o.jar"))
        jar = found[0] if found else None
    return Kind("real", java, jar, 1.0) if jar and java else None


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)


class Node:
    """One JVM. Its flatfile is a named pipe, as core/flatfile.c makes it: see join()."""

    def __init__(self, kind, port, name="cloud", jvm=(), h2o=(), context="", libraries=True, classpath=False):
        self.kind, self.port, self.context = kind, port, context
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix=f"n{self.port}.", dir=kind.dir))
        self.tmp, self.ice, self.logs = (self.dir / x for x in ("tmp", "ice", "logs"))
        self.tmp.mkdir()
        self.output = self.dir / "output"
        self.flatfile = self.dir / "flatfile"
        os.mkfifo(self.flatfile)
        self.given = None
        with open(self.output, "ab") as output:
            self.process = subprocess.Popen(
                self.argv(name, list(jvm), list(h2o), libraries, classpath), stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, env=kind.env(), start_new_session=True,
                preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL))  # no JVM outlives us

    def argv(self, name, jvm, h2o, libraries, classpath):
        """The order and the options of plan_argv()."""
        kind = self.kind
        args = [kind.java, "-Xmx512m", f"-Djava.io.tmpdir={self.tmp}",
                f"-XX:ErrorFile={self.logs}/hs_err_pid%p.log", "-Dsys.ai.h2o.telemetry.disabled=true",
                *kind.allow()]
        if libraries:
            args += [f"-Djava.library.path={kind.libraries}"]
        args += ["-Dsys.ai.h2o.heartbeat.benchmark.enabled=false"]
        if kind.major >= 9:
            args += ["-XX:CompileThresholdScaling=4"]
        args += kind.jvm + jvm
        if classpath:
            args += [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in OPENS if kind.major >= 9]
            args += ["-cp", f"{kind.jar}:{self.dir}", "water.H2OApp"]
        else:
            args += ["-jar", kind.jar]
        args += ["-name", name, "-ip", LOCALHOST, "-web_ip", LOCALHOST, "-port", str(self.port),
                 "-flatfile", str(self.flatfile), "-ice_root", str(self.ice), "-log_dir", str(self.logs),
                 "-log_level", "INFO", "-max_log_file_size", "3MB", "-nthreads", "2"]
        if self.context:
            args += ["-context_path", self.context]
        return args + h2o

    @property
    def pid(self):
        return self.process.pid

    @property
    def ip_port(self):
        return f"{LOCALHOST}:{self.port}"

    def said(self):
        return read(self.output)

    def story(self):
        return f"node {self.port}: exit {self.process.poll()}\n" + "\n".join(self.said().splitlines()[-40:])

    # --- meeting others ---------------------------------------------------------------------------

    def listens_to_peers(self):
        return self.port + 1 in listeners(self.port + 1, self.port + 1)

    def give_flatfile(self, members):
        """False: it does not read yet."""
        try:
            fd = os.open(self.flatfile, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return False
        with os.fdopen(fd, "w") as pipe:
            pipe.write("".join(f"{m.ip_port}\n" for m in members))
        self.given = [m.port for m in members]
        return True

    def join(self, members):
        """Reads who its peers are, once it listens."""
        until(lambda: f"a listener on {self.port + 1}\n{self.story()}", 60, self.listens_to_peers)
        until(lambda: f"a reader of the flatfile\n{self.story()}", 60, lambda: self.give_flatfile(members))
        return self

    # --- asking -----------------------------------------------------------------------------------

    def ask(self, path, method="GET", timeout=30, form=None, headers=None):
        connection = http.client.HTTPConnection(LOCALHOST, self.port, timeout=timeout)
        headers = {**({"Content-Type": "application/x-www-form-urlencoded"} if form else {}), **(headers or {})}
        try:
            connection.request(method, self.context + path, urllib.parse.urlencode(form) if form else None, headers)
            rsp = connection.getresponse()
            return Answer(rsp.status, rsp.headers, rsp.read())
        finally:
            connection.close()

    def good(self, path, method="GET", **more):
        """The JSON of an answer that is to be good."""
        answer = self.ask(path, method, **more)
        assert answer.status == 200, f"{method} {path}: {answer.status}: {answer.body[:2000]}"
        return answer.json()

    def knob(self, key, value):
        """Of the fake: its remote control, which knows no context path."""
        context, self.context = self.context, ""
        assert self.ask(f"/fake/{key}?value={value}", "POST").status == 200
        self.context = context

    def hangs(self, path, method="GET", seconds=2):
        """Is there no answer for so long?"""
        with contextlib.suppress(TimeoutError):
            self.ask(path, method, timeout=seconds)
            return False
        return True

    def cloud(self):
        """/3/Cloud as the daemon polls it; None: no answer."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.good("/3/Cloud?skip_ticks=true")
        return None

    def await_answer(self, seconds=90):
        until(lambda: f"an answer\n{self.story()}", seconds, self.cloud)
        return self

    def is_whole(self, members):
        view = self.cloud()
        return (view and view["cloud_size"] == len(members) and view["consensus"] and view["cloud_healthy"]
                and [n["pid"] for n in view["nodes"]] == [m.pid for m in members] and view)

    def job(self, key):
        """None: it does not know it."""
        answer = self.ask("/3/Jobs/" + urllib.parse.quote(key))
        assert answer.status in (200, 400, 404), answer.body
        return answer.json()["jobs"][0] if answer.status == 200 else None

    def await_job(self, key, status="DONE", seconds=60):
        return until(lambda: f"job {key} being {status}: {self.job(key)}\n{self.story()}", seconds, lambda: (
            lambda job: job and job["status"] == status and job)(self.job(key)))

    # --- the end ----------------------------------------------------------------------------------

    def exit(self, seconds=30):
        """Its exit code."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(seconds)
        raise AssertionError(f"not ended within {seconds} s\n{self.story()}")

    def alive(self):
        return self.process.poll() is None

    def kill(self, sig=signal.SIGKILL):
        halt(self.pid) if sig == signal.SIGSTOP else self.process.send_signal(sig)
        return self.exit() if sig == signal.SIGKILL else None

    def perf_file(self):
        return pathlib.Path(PERF_DIR, str(self.pid))

    def native_files(self):
        return list(self.tmp.glob("libxgboost*"))

    def close(self):
        if self.alive():
            self.kill()
        with contextlib.suppress(OSError):
            self.perf_file().unlink()  # what SIGKILL leaves, the daemon removes
        shutil.rmtree(self.dir, ignore_errors=True)


class Rig:
    """Nodes of one kind, at most three at a time, kept from test to test where they can serve again."""

    MOST = 3

    def __init__(self, kind):
        self.kind, self.ports = kind, PortBlock(256)
        self.nodes, self.kept = [], []
        self.next_port = self.ports.base
        self.recovery = kind.dir / "recovery"

    def port(self):
        """A pair of ports that no node had lately."""
        port = self.next_port
        self.next_port += 2
        if self.next_port >= self.ports.base + self.ports.size:
            self.next_port = self.ports.base
        return port

    def drop(self, nodes):
        for node in list(nodes):
            node.close()
            self.nodes.remove(node)
        self.kept = [x for x in self.kept if x in self.nodes]

    def start(self, port=None, **how):
        """A node that waits for its flatfile."""
        if len(self.nodes) >= self.MOST:
            self.drop(self.kept)
        node = Node(self.kind, port or self.port(), **how)
        self.nodes.append(node)
        return node

    def lone(self, **how):
        """A node of its own that answers, new."""
        node = self.start(**how)
        return node.join([node]).await_answer()

    def keep(self, *nodes):
        """They are as good as new, but for a lock: the next test may go on with them."""
        self.kept = list(nodes)

    def any(self):
        """A lone node, locked or not."""
        for node in self.kept:
            if node.alive() and node.given == [node.port] and not node.context:
                return node
        self.drop(self.kept)
        self.keep(self.lone())
        return self.kept[0]

    def fresh(self):
        """A lone node that was never locked."""
        if self.any().cloud()["locked"]:
            self.drop(self.kept)
        return self.any()

    def special(self):
        """A lone node for what needs no node of its own: with -cp, a context path, -auto_recovery_dir (the directory
        `recovery`) where there is such a thing, and without the libraries on its path."""
        for node in self.kept:
            if node.alive() and node.context:
                return node
        self.drop(self.kept)
        self.recovery.mkdir(exist_ok=True)
        self.keep(self.lone(context="/some/where", classpath=True, libraries=False,
                            h2o=["-auto_recovery_dir", str(self.recovery)] if self.kind.can_recover else []))
        return self.kept[0]

    def form(self, n, **how):
        """n members, new, which know one another but need not answer yet."""
        self.drop(self.kept)
        nodes = [self.start(**how) for _ in range(n)]
        for node in nodes:
            until(lambda node=node: f"a listener\n{node.story()}", 90, node.listens_to_peers)
        for node in nodes[::-1]:
            node.join(nodes)
        return nodes

    def cloud(self, n=3):
        """n members, whole; locked or not. The same as before if nothing has happened to them."""
        if len(self.kept) == n and all(x.alive() and len(x.given) == n for x in self.kept):
            return await_whole(list(self.kept))
        nodes = await_whole(self.form(n))
        self.keep(*nodes)
        return nodes

    def end_test(self):
        """What is not kept is ended, and what is kept, if a part of it is gone."""
        if not all(x.alive() for x in self.kept):
            self.kept = []
        self.drop([x for x in self.nodes if x not in self.kept])

    def close(self):
        """Ends all; says what is left."""
        self.drop(self.nodes)
        last = self.ports.base + self.ports.size - 1
        left = [*processes(str(self.kind.dir)).values(), *(f"port {p}" for p in listeners(self.ports.base, last))]
        self.ports.release()
        return left


def await_whole(nodes, seconds=90):
    for node in nodes:
        until(lambda node=node: f"a whole cloud, says {node.port}: {node.cloud()}\n{node.story()}", seconds,
              lambda node=node: node.is_whole(nodes))
    return nodes


def listens_on(address, port):
    """Is that a listening socket, as /proc has it?"""
    ours = "0100007F" if address == LOCALHOST else address
    ends = {f"{ours}:{port:04X}", f"0000000000000000FFFF0000{ours}:{port:04X}"}
    return any(line.split()[1] in ends and line.split()[3] == "0A"
               for table in ("/proc/net/tcp", "/proc/net/tcp6") for line in read(table).splitlines()[1:])


def hold(port):
    """As src/drv/ports.c holds one for a node."""
    s = socket.socket()
    s.bind((LOCALHOST, port))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return s
