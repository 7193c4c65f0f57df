"""Ways to a cloud of real H2O nodes, for tests/bench/ready, recover and stop: each starts one, measures until
every node says that the cloud is whole (the same question for all), and ends it.

    with Way(n) as cloud:
        cloud.seconds    from the first exec to a whole cloud
        cloud.cpu        what all of its processes took until then, in seconds
        cloud.ports      API ports of the members
"""

import contextlib
import http.client
import json
import math
import subprocess
import sys
import tempfile
import time
import urllib.parse

from bench import (
    H2OFLEET, HEAP, Place, cpu_seconds, end, fleet_of, jar, marked, tree_bytes, wait_until)
from fleet import listeners, pid_alive


# --- asking nodes -------------------------------------------------------------------------------------


def ask(port, method, path, timeout=5, **parameters):
    """(status, decoded answer); an error of HTTP or of the socket is raised."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        form = urllib.parse.urlencode(parameters) if parameters else None
        connection.request(method, path, form, {"Content-Type": "application/x-www-form-urlencoded"} if form else {})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def whole(port, size):
    """Does this node say that the cloud is whole?"""
    try:
        _, cloud = ask(port, "GET", "/3/Cloud?skip_ticks=true")
    except (OSError, http.client.HTTPException, ValueError):
        return False
    return cloud.get("cloud_size") == size and cloud["consensus"] and cloud["cloud_healthy"]


def until_whole(ports, limit=300):
    missing = list(ports)

    def seen():
        missing[:] = [p for p in missing if not whole(p, len(ports))]
        return not missing

    wait_until("a whole cloud", seen, limit, 0.02)


def run_job(port, method, path, timeout, **parameters):
    """Until it is done; what goes wrong is raised."""
    status, answer = ask(port, method, path, timeout, **parameters)
    assert status == 200, f"{path}: {status} {answer.get('msg', '')}"
    key = (answer.get("job") or answer)["key"]["name"]

    def done():
        job = ask(port, "GET", f"/3/Jobs/{urllib.parse.quote(key)}", timeout)[1]["jobs"][0]
        assert job["status"] not in ("FAILED", "CANCELLED"), f"{path}: {job['exception'] or job['status']}"
        return job["status"] == "DONE"

    wait_until(path, done, timeout, 0.05)


def load_frame(port, name, nodes, timeout=20):
    """Of random numbers; a part of it on each node."""
    run_job(port, "POST", "/3/CreateFrame", timeout, dest=name, rows=200000, cols=10, categorical_fraction=0,
            integer_fraction=0, binary_fraction=0, time_fraction=0, string_fraction=0, missing_fraction=0, seed=1)
    _, answer = ask(port, "GET", f"/3/Frames/{name}?row_count=1", 20)
    rows = answer["frames"][0]["distribution_summary"]["data"][2]
    assert sum(int(r) > 0 for r in rows[:nodes]) == nodes, f"not on all nodes: {rows}"


def compute(port, name, timeout=20):
    """A sum for which each node must look at its part: of the column alone it would be remembered."""
    _, session = ask(port, "POST", "/4/sessions", timeout)
    status, answer = ask(port, "POST", "/99/Rapids", timeout, ast=f"(sumNA (* (cols {name} [0]) 2))",
                         session_id=session["session_key"])
    assert status == 200, " ".join(f"{status}: {answer.get('exception_msg') or answer.get('msg')}".split())
    return answer["scalar"]


def unsound(ports, right):
    """What is wrong with a cloud that says that it is whole, in a sentence; None: nothing. With each frame that it
    lists, and with a new one, each member must be able to compute, and come to the same sum."""
    doing = "a new frame"
    try:
        load_frame(ports[0], "new", len(ports))
        doing = "the list of frames"
        status, answer = ask(ports[0], "GET", "/3/Frames", 20)
        assert status == 200, f"{status}: {answer.get('msg')}"
        for name in (f["frame_id"]["name"] for f in answer["frames"]):
            for port in ports:
                doing = f"frame {name} through member {ports.index(port)}"
                found = compute(port, name)
                assert math.isclose(found, right), f"the sum is {found} instead of {right}"
    except (AssertionError, OSError, ValueError, KeyError, http.client.HTTPException) as e:
        return f"{doing}: {' '.join(str(e).split())[:200] or type(e).__name__}"
    return None


# --- the ways -----------------------------------------------------------------------------------------


def node(place, port, ports, java, jar_path, jvm):
    """A node as a careful person launches it: full flatfile, its own directories."""
    d = place.directory / str(port)
    (d / "tmp").mkdir(parents=True)
    flatfile = place.directory / "flatfile"
    flatfile.write_text("".join(f"127.0.0.1:{p}\n" for p in ports))
    return [java, f"-Xmx{HEAP}", f"-Djava.io.tmpdir={d}/tmp", *jvm, "-jar", jar_path, "-ip", "127.0.0.1", "-web_ip",
            "127.0.0.1", "-port", port, "-name", f"bench-{ports[0]}", "-flatfile", flatfile, "-ice_root", d / "ice"]


class PeerCloud:
    """All nodes at once, each listing all; started by hand, or by somebody who restarts them."""

    def __init__(self, peer, n, java="java", jar_path=None, jvm=(), stop_wait=10):
        self.place = Place()
        self.ports = self.place.ports(n)
        self.peer = peer(self.place, {f"n{i}": node(self.place, port, self.ports, java, jar_path or jar(), jvm)
                                      for i, port in enumerate(self.ports)}, stop_wait)

    def __enter__(self):
        try:
            begun = time.monotonic()
            self.peer.start()
            until_whole(self.ports)
            self.seconds = time.monotonic() - begun
            self.cpu = cpu_seconds(self.place.processes())
        except BaseException:
            self.place.close()
            raise
        return self

    def __exit__(self, *_):
        self.place.close()

    def member(self, i):
        """Its pid; None: not now."""
        needle = f"-port {self.ports[i]} "
        return next((pid for pid, command in self.place.processes().items()
                     if needle in command and "-jar" in command), None)

    def stop(self):
        self.peer.stop()

    def processes(self):
        return self.place.processes()

    def busy_ports(self):
        return self.place.busy_ports()

    def leaked(self):
        """Bytes of libraries in the temporary directories."""
        return tree_bytes(self.place.directory, "libxgboost*")


class FleetCloud:
    """The daemon, its gate and a cloud."""

    def __init__(self, n, fleet=None, **keys):
        self.n = n
        self.fleet = fleet_of(n, fleet, **keys)

    def __enter__(self):
        try:
            begun = time.monotonic()
            self.fleet.start()
            nodes = wait_until("ports", lambda: self.nodes_with_ports(), 30, 0.005)
            self.ports = [node["api_port"] for node in nodes]
            until_whole(self.ports)
            self.seconds = time.monotonic() - begun
            self.fleet.ready(timeout=60)
            self.published = time.monotonic() - begun
            self.cpu = cpu_seconds(marked(self.fleet))
        except BaseException:
            end(self.fleet)
            raise
        return self

    def nodes_with_ports(self):
        nodes = self.fleet.nodes()
        return nodes if all(node["api_port"] for node in nodes) else None

    def __exit__(self, *_):
        end(self.fleet)

    def stop(self):
        self.fleet.note_pids()
        self.fleet.daemon.terminate()

    def processes(self):
        return marked(self.fleet)

    def busy_ports(self):
        block = self.fleet.ports
        return listeners(block.base, block.base + block.size - 1)

    def leaked(self):
        """Bytes of libraries that no cache holds."""
        return tree_bytes(self.fleet.dir, "libxgboost*") - tree_bytes(self.fleet.dir / "cache", "libxgboost*")


class ClientCloud:
    """What the Python client starts: servers one after another, each until it answers. They form no cloud, for
    the client gives them no flatfile; n clouds of one then. In a Python of its own; what that takes to begin and to
    import h2o is not counted."""

    def __init__(self, how, n):
        self.how, self.n = how, n

    def __enter__(self):
        self.place = Place()
        try:
            self.ports = self.place.ports(self.n)
            log = self.place.directory / "client.log"
            with open(log, "w") as stderr:
                process = self.place.run(sys.executable, __file__, self.how, self.place.directory, *self.ports,
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr)
            said = process.stdout.readline()
            assert said, f"{self.how} did not come up:\n{log.read_text()[-2000:]}"
            self.seconds = json.loads(said)["seconds"]
            self.cpu = cpu_seconds(pid for pid in self.place.processes() if pid != process.pid)
        except BaseException:
            self.place.close()
            raise
        return self

    def __exit__(self, *_):
        self.place.close()


def client(how, directory, *ports):
    """Within that Python."""
    import h2o
    from h2o.backend import H2OLocalServer

    tempfile.tempdir = directory
    begun = time.monotonic()
    with contextlib.redirect_stdout(sys.stderr):
        for port in map(int, ports):
            if how == "init":
                h2o.init(ip="127.0.0.1", port=port, max_mem_size=HEAP, verbose=False)
            else:
                H2OLocalServer.start(port=port, max_mem_size=512 << 20, verbose=False)
            until_whole([port])
    print(json.dumps({"seconds": time.monotonic() - begun}), flush=True)
    sys.stdin.read()  # until we are killed, with the servers


def stop(cloud):
    """Seconds until no process and no port is left of it."""
    pids = cloud.processes()
    begun = time.monotonic()
    cloud.stop()
    wait_until("the end", lambda: not any(map(pid_alive, pids)) and not cloud.busy_ports(), 60, 0.001)
    seconds = time.monotonic() - begun
    assert not (left := cloud.processes()), f"left: {left}"
    return seconds


# --- the boot cache -----------------------------------------------------------------------------------


def can_prepare():
    return subprocess.run([H2OFLEET, "help", "prepare"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          check=False).returncode == 0


@contextlib.contextmanager
def boot_cache():
    """Gives the keys of [fleet] of fleets that share a cache, which is whole before the first of them starts, and how
    long that took; (None, None) where h2ofleet knows no boot cache."""
    if not can_prepare():
        yield None, None
        return
    with Place() as place:
        keys = {"cache_dir": place.directory / "cache"}
        fleet = fleet_of(1, keys)
        begun = time.monotonic()
        try:
            place.run(H2OFLEET, "prepare", "--config", fleet.config, stdout=sys.stderr, stderr=sys.stderr).wait()
            assert place.started[-1].returncode == 0, "h2ofleet prepare failed"
            yield keys, time.monotonic() - begun
        finally:
            end(fleet)


if __name__ == "__main__":
    client(*sys.argv[1:])
