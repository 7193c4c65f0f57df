"""Who uses a real cloud: programs with the h2o package, Sparkling Water's pings, impatient pollers, and
Flow in a browser's tab."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

CONNECT = """
import sys, warnings
warnings.simplefilter("ignore")
import h2o
h2o.connect(url=sys.argv[1], verbose=False)
h2o.no_progress()
"""

FRAME = """
frame = h2o.create_frame(rows=60000, cols=8, seed=1, seed_for_column_types=1, integer_fraction=0,
    categorical_fraction=0, binary_fraction=0, time_fraction=0, string_fraction=0, missing_fraction=0)
frame["y"] = ((frame["C1"] + frame["C2"] * 2) > 0).ifelse("yes", "no").asfactor()
frame = h2o.assign(frame, "training")
"""


def python(script, *args, **kwargs):
    env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    return subprocess.Popen(
        [sys.executable, "-u", "-c", script, *args], env=env, text=True, stdout=subprocess.PIPE,
        **{"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT, **kwargs},
    )


def client(script, url, *args):
    """A Python program that uses the h2o package, in a process of its own."""
    return python(CONNECT + script, url, *args)


def finish(process, timeout=120):
    try:
        said, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"the client did not end:\n{process.communicate()[0]}") from None
    assert process.returncode == 0, said
    return said


def get(port, path, timeout=10):
    """(status, decoded body) of a node's REST API."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")
    finally:
        connection.close()


def port_of(cloud):
    return int(cloud["endpoint"].rstrip("/").rpartition(":")[2])


class Poller(threading.Thread):
    """Asks for `path` every `interval` seconds, each time on a new connection, and keeps what `look`
    makes of the answers in `seen`: [(when, value)]."""

    def __init__(self, port, path="/3/Jobs", interval=0.05, timeout=2, look=lambda body: True):
        super().__init__(daemon=True)
        self.port, self.path, self.interval, self.timeout = port, path, interval, timeout
        self.look, self.seen, self.over = look, [], threading.Event()

    def run(self):
        while not self.over.wait(self.interval):
            # The ports of a test lie outside of the range for outgoing connections, so this never
            # connects to itself.
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError):
                status, body = get(self.port, self.path, self.timeout)
                if status == 200:
                    self.seen.append((time.monotonic(), self.look(body)))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()


def hammer(port, interval=0.05):
    """GET /3/Jobs, which locks a cloud, as a waiting client does, but more often."""
    return Poller(port, interval=interval)


def pings(port):
    """As Sparkling Water does, but more often. `seen`: the numbers of nodes."""
    return Poller(port, "/3/Ping", 0.5, 10, lambda body: len(body["nodes"]))


VISITOR = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import h2o
from h2o.exceptions import H2OConnectionError, H2OServerError
print("VISITOR", flush=True)
for line in sys.stdin:
    time.sleep(float(line))
    begun, failed = time.monotonic(), []
    while True:
        try:
            h2o.connect(url=sys.argv[1], verbose=False)
            break
        except (H2OConnectionError, H2OServerError) as e:
            failed.append(str(e)[:300])
    cloud = h2o.cluster()
    print("VISITOR", json.dumps({"size": cloud.cloud_size, "locked": cloud.locked, "name":
        cloud.cloud_name, "seconds": time.monotonic() - begun, "failed": failed}), flush=True)
    try:
        h2o.connection().close()
    except (H2OConnectionError, H2OServerError):
        pass
"""


class Visitor:
    """A program that has imported h2o already and issues h2o.connect when told. Where that raises, it
    tries again, as people do."""

    def __init__(self, url):
        self.process = python(VISITOR, url, stdin=subprocess.PIPE)
        self._said()

    def _said(self):
        other = []
        for line in iter(self.process.stdout.readline, ""):
            if line.startswith("VISITOR"):
                return line.removeprefix("VISITOR").strip()
            other.append(line)
        raise AssertionError(f"the visitor ended:\n{''.join(other)}")

    def connect(self, delay=0):
        """Begins in `delay` seconds; what came of it: result()."""
        self.process.stdin.write(f"{delay}\n")
        self.process.stdin.flush()

    def result(self):
        return json.loads(self._said())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


def browser():
    """Path of a Chromium that can run without a screen; None: there is none."""
    for name in ("chromium-headless-shell", "chromium", "google-chrome"):
        if shutil.which(name):
            return shutil.which(name)
    return None


# Executes a program that speaks on descriptors 3 and 4.
PIPE = """
import os, sys
os.dup2(int(sys.argv[1]), 100, False)
os.dup2(int(sys.argv[2]), 101, False)
os.dup2(100, 3)
os.dup2(101, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""

# Shows the cloud and the jobs, and lets both refresh themselves every 2 s.
WATCH_CLOUD = """
(async () => {
    const buttons = () => [...document.querySelectorAll("button[data-bind*=toggleRefresh]")];
    for (const cell of ["getCloud", "getJobs"])
        window.flow.context.insertAndExecuteCell("cs", cell);
    while (buttons().length < 2)
        await new Promise(done => setTimeout(done, 50));
    buttons().forEach(button => button.click());
})()
"""


class Tab:
    """Flow in a tab of a headless browser, steered over a pipe (the DevTools protocol). A tab that shows
    nothing new for a while is loaded again, as people do."""

    STALE = 3

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}/flow/index.html"
        self.profile = tempfile.mkdtemp(prefix="h2ofleet-tab.")
        theirs_in, self.out = os.pipe()
        self.input, theirs_out = os.pipe()
        self.browser = subprocess.Popen(
            [sys.executable, "-c", PIPE, str(theirs_in), str(theirs_out), browser(), "--headless",
             "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server",
             "--remote-debugging-pipe", f"--user-data-dir={self.profile}", "about:blank"],
            pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.changed, self.answers, self.calls, self.session = threading.Condition(), {}, 0, None
        self.seen = []  # (when, path) of what was answered with 200
        self.over, self.gone = threading.Event(), False
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Network.enable")
        self._call("Page.enable")
        self.watch = threading.Thread(target=self._watch, daemon=True)
        self.watch.start()

    def _read(self):
        data = b""
        while chunk := os.read(self.input, 65536):
            *messages, data = (data + chunk).split(b"\0")
            for message in map(json.loads, messages):
                with self.changed:
                    if "id" in message:
                        self.answers[message["id"]] = message
                    self._note(message)
                    self.changed.notify_all()
        with self.changed:
            self.gone = True
            self.changed.notify_all()

    def _note(self, message):
        if message.get("method") == "Network.responseReceived":
            response = message["params"]["response"]
            if response["status"] == 200 and response["url"].startswith("http"):
                self.seen.append((time.monotonic(), "/" + response["url"].split("/", 3)[3]))

    def _call(self, method, **params):
        self.calls += 1
        call = {"id": self.calls, "method": method, "params": params}
        if self.session:
            call["sessionId"] = self.session
        with self.changed:
            os.write(self.out, json.dumps(call).encode() + b"\0")
            self.changed.wait_for(lambda: call["id"] in self.answers or self.gone, 60)
            return self.answers.pop(call["id"], {}).get("result", {})

    def evaluate(self, expression):
        answer = self._call("Runtime.evaluate", expression=expression, awaitPromise=True,
                            returnByValue=True)
        return answer.get("result", {}).get("value")

    def text(self):
        return self.evaluate("document.body.innerText") or ""

    def _watch(self):
        loaded = 0
        while not self.over.wait(0.1) and not self.gone:
            last = self.seen[-1][0] if self.seen else 0
            if time.monotonic() > max(last, loaded) + self.STALE:
                self._call("Page.navigate", url=self.url)  # returns once there is an answer
                loaded, watched = time.monotonic(), False
            if loaded and not watched and self.evaluate(
                    "!!(window.flow && document.querySelector('.flow-cell'))"):
                watched = True
                self._call("Runtime.evaluate", expression=WATCH_CLOUD)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.over.set()
        os.killpg(self.browser.pid, signal.SIGKILL)
        self.browser.wait()
        self.watch.join()
        self.reader.join()
        os.close(self.out)
        os.close(self.input)
        shutil.rmtree(self.profile, ignore_errors=True)
