"""H2O clouds for tests, made by `h2ofleet run`.

Each cloud is held by a child process, `h2ofleet run -- sh -c ...`, that waits for the end of its
standard input. Whatever ends pytest closes that pipe, and with it everything goes.
"""

import http.client
import json
import os
import select
import socket
import subprocess
import tempfile
import time

import pytest

# What the cloud is known by, a line each; then until the end of input. "failed": let the logs be kept.
HOLD = (
    'printf "%s\\n" "$H2O_URL" "$H2O_IP" "$H2O_PORT" "$H2OFLEET_SOCKET" "$H2OFLEET_CLOUD"; '
    'read -r word; [ "$word" != failed ]'
)
VARIABLES = ("H2O_URL", "H2O_IP", "H2O_PORT", "H2OFLEET_SOCKET", "H2OFLEET_CLOUD")
LOG_LINES = 20
END_SECONDS = 60


class CloudError(Exception):
    """A cloud that cannot be started, or a request that its daemon refused."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Cloud:
    """One cloud, which is ready."""

    def __init__(self, env):
        self.env = env
        self.url = env["H2O_URL"]
        self.ip = env["H2O_IP"]
        self.port = int(env["H2O_PORT"])
        self.socket = env["H2OFLEET_SOCKET"]
        self.name = env["H2OFLEET_CLOUD"]
        self._generation = self.info()["generation"]

    def __repr__(self):
        return f"<h2o cloud {self.name} at {self.url}>"

    def request(self, method, path, timeout=60):
        """The daemon's answer: decoded JSON, or text."""
        connection = _UnixConnection(self.socket, timeout)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            body = answer.read().decode(errors="replace")
        finally:
            connection.close()
        if "json" in (answer.getheader("Content-Type") or ""):
            body = json.loads(body)
        if answer.status >= 400:
            detail = body.get("detail") if isinstance(body, dict) else body
            raise CloudError(f"{method} {path}: {detail}")
        return body

    def info(self):
        """What the daemon knows of the cloud: state, reason, nodes, restarts, ..."""
        return self.request("GET", f"/v1/clouds/{self.name}")

    @property
    def state(self):
        return self.info()["state"]

    def logs(self, node=None, tail=100):
        """The last lines of one node, or of all of them."""
        nodes = [node] if node is not None else range(self.info()["size"])
        return "".join(
            self.request("GET", f"/v1/clouds/{self.name}/nodes/{i}/log?tail={tail}") for i in nodes
        )

    def wait_ready(self, timeout=180):
        return self.request(
            "GET", f"/v1/clouds/{self.name}?wait=ready&timeout={timeout}s", timeout + 10)

    def restart(self, timeout=180):
        """A new cloud at the same URL; all data is gone. It is ready when this returns."""
        cloud = self.request(
            "POST", f"/v1/clouds/{self.name}/restart?wait=ready&timeout={timeout}s", timeout + 10)
        self._generation = cloud["generation"]
        return cloud

    def trouble(self):
        """Sentences for people if the cloud is not well, or was lost since the last look; or ""."""
        try:
            cloud = self.info()
            well = cloud["state"] in ("ready", "degraded") and cloud["generation"] == self._generation
            self._generation = cloud["generation"]
            if well:
                return ""
            lines = [f"{cloud['name']} is {cloud['state']}: {cloud['reason']}"]
            for node in cloud["nodes"]:
                why = (node.get("last_exit") or {}).get("why")
                lines += [why] if why else []
            for i in range(cloud["size"]):
                lines += [f"--- last lines of node {i}:", self.logs(i, LOG_LINES).rstrip("\n")]
            return "\n".join(lines)
        except (OSError, http.client.HTTPException, ValueError, CloudError) as e:
            return f"the daemon of {self!r} cannot be asked: {e}"


class _Run:
    """The process that holds a cloud."""

    def __init__(self, command, start_timeout):
        self.errors = tempfile.TemporaryFile("w+", errors="replace")
        # A session of its own: Ctrl-C is pytest's, whose fixtures still need the cloud.
        self.process = subprocess.Popen(
            [*command, "--", "sh", "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.errors, start_new_session=True,
        )
        try:
            self.cloud = Cloud(self._read_place(start_timeout))
        except BaseException:
            self.close(failed=False)
            raise

    def said(self):
        self.errors.seek(0)
        return self.errors.read().strip()

    def _read_place(self, timeout):
        deadline = time.monotonic() + timeout
        stdout, text = self.process.stdout.fileno(), b""
        while text.count(b"\n") < len(VARIABLES):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([stdout], [], [], left)[0]:
                raise CloudError(f"the cloud was not ready within {timeout:g} s")
            piece = os.read(stdout, 65536)
            if not piece:
                self.process.wait()
                raise CloudError(self.said() or f"{self.process.args[0]} ended with exit status "
                                 f"{self.process.returncode}")
            text += piece
        return dict(zip(VARIABLES, text.decode().split("\n")))

    def close(self, failed):
        """Ends it; what it had to say."""
        try:
            if failed:
                self.process.stdin.write(b"failed\n")
            self.process.stdin.close()
        except OSError:
            pass  # it has ended already
        for end in (lambda: None, self.process.terminate, self.process.kill):
            end()
            try:
                self.process.wait(END_SECONDS)
                break
            except subprocess.TimeoutExpired:
                continue
        self.process.stdout.close()
        return self.said()


class Plugin:
    """Of one session (one worker of pytest-xdist)."""

    def __init__(self, config):
        self.config = config
        self.clouds = []  # that are there now
        self.failed = False

    def get(self, name):
        return self.config.getoption(f"h2ofleet_{name}") or self.config.getini(f"h2ofleet_{name}")

    def command(self, nodes, memory, settings):
        command = [self.get("bin"), "run", "--quiet", "--nodes", str(nodes or self.get("nodes"))]
        memory = memory or self.get("memory")
        if memory:
            command += ["--memory", memory]
        if self.config.getoption("h2ofleet_keep"):
            command.append("--keep-on-failure")
        more = [f"{key}={value}" for key, value in (settings or {}).items()]
        settings = [*self.config.getini("h2ofleet_set"), *self.config.getoption("h2ofleet_set")]
        for setting in [*settings, *more]:
            command += ["--set", setting]
        return command

    def start(self, nodes=None, memory=None, settings=None):
        command = self.command(nodes, memory, settings)
        try:
            return _Run(command, float(self.config.getini("h2ofleet_start_timeout")))
        except FileNotFoundError:
            raise CloudError(f"there is no {command[0]}; see --h2ofleet-bin") from None

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item):
        outcome = yield
        report = outcome.get_result()
        if not report.failed:
            return
        self.failed = True
        for cloud in self.clouds:
            trouble = cloud.trouble()
            if trouble:
                report.sections.append((f"H2O cloud at {cloud.url}", trouble))


def pytest_addoption(parser):
    group = parser.getgroup("h2ofleet", "H2O clouds of h2ofleet")
    group.addoption("--h2ofleet-nodes", metavar="N", help="nodes of the cloud")
    group.addoption("--h2ofleet-memory", metavar="SIZE", help="heap of each node: 512m, 2g")
    group.addoption("--h2ofleet-set", metavar="KEY=VALUE", action="append", default=[],
                    help="any key of a [cloud] section; may be given again")
    group.addoption("--h2ofleet-scope", choices=("session", "module"),
                    help="how long a cloud lives")
    group.addoption("--h2ofleet-bin", metavar="FILE", help="the program h2ofleet")
    group.addoption("--h2ofleet-keep", action="store_true",
                    help="keep the clouds' logs when a test failed")
    group.addoption("--h2ofleet-shared", action="store_true",
                    help="use the cloud of the `h2ofleet run` that pytest runs in")
    parser.addini("h2ofleet_nodes", "nodes of the cloud", default="1")
    parser.addini("h2ofleet_memory", "heap of each node: 512m, 2g", default="")
    parser.addini("h2ofleet_set", "KEY=VALUE of a [cloud] section, a line each", "linelist", [])
    parser.addini("h2ofleet_scope", "session or module: how long a cloud lives", default="session")
    parser.addini("h2ofleet_bin", "the program h2ofleet", default="h2ofleet")
    parser.addini("h2ofleet_start_timeout", "seconds that a start may take", default="180")


def pytest_configure(config):
    config.pluginmanager.register(Plugin(config), "h2ofleet-session")
    scope = _scope("h2o_cloud", config)
    if scope not in ("session", "module"):
        raise pytest.UsageError(f"h2ofleet_scope is session or module, not '{scope}'")


def _scope(fixture_name, config):
    return config.getoption("h2ofleet_scope") or config.getini("h2ofleet_scope")


def _terminal_line(config, text):
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter and text:
        reporter.ensure_newline()
        reporter.write_line(text)


@pytest.fixture(scope=_scope)
def h2o_cloud_factory(pytestconfig):
    """A function that starts clouds: (nodes=, memory=, settings={key: value}) -> cloud."""
    plugin = pytestconfig.pluginmanager.get_plugin("h2ofleet-session")
    runs = []

    def start(nodes=None, memory=None, settings=None):
        try:
            run = plugin.start(nodes, memory, settings)
        except CloudError as e:
            pytest.fail(f"no H2O cloud: {e}", pytrace=False)
        runs.append(run)
        plugin.clouds.append(run.cloud)
        return run.cloud

    yield start
    for run in runs:
        plugin.clouds.remove(run.cloud)
        said = run.close(plugin.failed)
        _terminal_line(pytestconfig, said)


@pytest.fixture(scope=_scope)
def h2o_cloud(request, pytestconfig):
    """The cloud of this session, or module: ready, with url, ip, port, socket, name, ..."""
    plugin = pytestconfig.pluginmanager.get_plugin("h2ofleet-session")
    if not pytestconfig.getoption("h2ofleet_shared"):
        yield request.getfixturevalue("h2o_cloud_factory")()
        return
    missing = [name for name in VARIABLES if not os.environ.get(name)]
    if missing:
        pytest.fail("--h2ofleet-shared is for a pytest within `h2ofleet run`: there is no "
                    f"{missing[0]} in the environment", pytrace=False)
    cloud = Cloud({name: os.environ[name] for name in VARIABLES})
    plugin.clouds.append(cloud)
    yield cloud
    plugin.clouds.remove(cloud)


@pytest.fixture(scope=_scope)
def h2o_url(h2o_cloud):
    """URL of h2o_cloud."""
    return h2o_cloud.url
