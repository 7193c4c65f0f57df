"""What the benchmarks share: a plain launch by hand, a fleet, the same measure of readiness for both.

Run by `contrib/bench NAME`, which builds and brings the h2o package; never part of a test run.
Figures are for comparison within one run: another machine, another load, other figures."""

import http.client
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

from fleet import Fleet, PortBlock  # noqa: E402

HEAP = "512m"


def jar():
    if os.environ.get("H2OFLEET_JAR"):
        return os.environ["H2OFLEET_JAR"]
    import h2o

    return str(pathlib.Path(h2o.__file__).parent / "backend/bin/h2o.jar")


def whole(port, size):
    """Does this node say that the cloud is whole?"""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/3/Cloud?skip_ticks=true")
        cloud = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError):
        return False
    finally:
        connection.close()
    return cloud["cloud_size"] == size and cloud["consensus"] and cloud["cloud_healthy"]


def until_whole(ports, limit=120):
    deadline = time.monotonic() + limit
    missing = list(ports)
    while missing:
        assert time.monotonic() < deadline, f"not whole within {limit} s"
        missing = [p for p in missing if not whole(p, len(ports))]
        if missing:
            time.sleep(0.02)


def plain(n):
    """Seconds from the first exec to a whole cloud: `java -jar`, all at once, full flatfiles."""
    block = PortBlock()
    ports = [block.base + 2 * i for i in range(n)]
    directory = pathlib.Path(tempfile.mkdtemp(prefix="h2ofleet-bench."))
    flatfile = directory / "flatfile"
    flatfile.write_text("".join(f"127.0.0.1:{p}\n" for p in ports))
    nodes = []
    begun = time.monotonic()
    try:
        for port in ports:
            nodes.append(subprocess.Popen(
                ["java", f"-Xmx{HEAP}", f"-Djava.io.tmpdir={directory}", "-jar", jar(), "-ip",
                 "127.0.0.1", "-web_ip", "127.0.0.1", "-port", str(port), "-name",
                 f"plain-{os.getpid()}-{block.base}", "-flatfile", str(flatfile),
                 "-ice_root", str(directory / str(port))],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        until_whole(ports)
        return time.monotonic() - begun
    finally:
        for node in nodes:
            node.terminate()
        for node in nodes:
            node.wait()
        block.release()
        shutil.rmtree(directory, ignore_errors=True)


def fleet_of(n, **keys):
    return Fleet({"c": {"nodes": n, "jar_path": jar(), "max_mem_size": HEAP, **keys}},
                 fleet={"log_level": "info"})


def supervised(n):
    """Seconds from the daemon's exec to a whole cloud, measured in the same way; and to the daemon's
    own word for it."""
    fleet = fleet_of(n)
    begun = time.monotonic()
    try:
        fleet.start()
        while fleet.cloud()["nodes"][0]["api_port"] is None:
            time.sleep(0.02)
        until_whole([node["api_port"] for node in fleet.nodes()])
        seen = time.monotonic() - begun
        while fleet.cloud()["state"] != "ready":
            time.sleep(0.005)
        return seen, time.monotonic() - begun
    finally:
        end(fleet)


def end(fleet):
    wrong = fleet.close()
    fleet.remove()
    assert not wrong, "\n".join(wrong)


def median(values):
    return statistics.median(values)
