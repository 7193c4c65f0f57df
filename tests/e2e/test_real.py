"""The real daemon, real H2O nodes, the real H2O client. Each test says what it proves.

A boot of three nodes costs 6 to 10 s on two cores, so what leaves a whole cloud behind shares one
(`cloud3`)."""

import contextlib
import http.client
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from clients import FRAME, client, finish, get, hammer, port_of
from fleet import listeners, until

# As /proc/net/tcp6 has them: ::1 and ::ffff:127.0.0.1
IPV6_LOCALHOST = "00000000000000000000000001000000"
IPV4_IN_IPV6 = "0000000000000000FFFF00000100007F"

# --- one cloud for several tests ------------------------------------------------------------------


def test_whole(cloud3):
    """Every member, asked by itself, is in one cloud of three, and is the process that we launched."""
    for node in cloud3.nodes():
        status, view = get(node["api_port"], "/3/Cloud?skip_ticks=true")
        assert status == 200
        assert view["cloud_size"] == 3 and view["consensus"] and view["cloud_healthy"]
        assert {n["pid"] for n in view["nodes"]} == set(cloud3.pids())


def test_starts_from_the_archive(cloud3):
    """All three use the archive and the libraries of the boot cache, in which the fixture found them."""
    boot = until("the nodes are looked at", 20, lambda: (
        cloud3.cloud()["boot"] if cloud3.cloud()["boot"]["mapped"] is not None else None))
    assert (boot["mode"], boot["mapped"], boot["why"]) == ("archive", True, None), boot
    for index, pid in enumerate(cloud3.pids()):
        assert "/native-" in pathlib.Path(f"/proc/{pid}/maps").read_text()
        assert not list((cloud3.node_dir(index) / "tmp").glob("libxgboost*"))


def test_only_localhost(cloud3):
    """bind_to_localhost is the default: neither the gate, on the first port, nor a member, on those
    above, listens for other machines."""
    cloud = cloud3.cloud()
    members = [n["api_port"] for n in cloud["nodes"]]
    endpoint = port_of(cloud)
    assert members == [endpoint + 1, endpoint + 3, endpoint + 5]
    ports = {endpoint, *members, *(p + 1 for p in members)}
    assert listeners(min(ports), max(ports)) == ports
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in pathlib.Path(table).read_text().splitlines()[1:]:
            address, _, port = line.split()[1].rpartition(":")
            if line.split()[3] == "0A" and int(port, 16) in ports:
                assert address in ("0100007F", IPV6_LOCALHOST, IPV4_IN_IPV6), line


def test_trains_over_the_nodes(cloud3):
    """A model is trained on a frame whose chunks lie on all three members."""
    said = finish(client(FRAME + """
from h2o.estimators import H2OGradientBoostingEstimator
summary = h2o.api("GET /3/Frames/training/summary")["frames"][0]
rows = [r for r in summary["distribution_summary"].cell_values if ":" in r[0] and r[3]]
model = H2OGradientBoostingEstimator(ntrees=10, seed=1)
model.train(y="y", training_frame=frame)
print("SPREAD", len(rows), "AUC", model.auc())
h2o.remove_all()
""", cloud3.cloud()["endpoint"]))
    spread, auc = re.search(r"SPREAD (\d+) AUC ([\d.]+)", said).groups()
    assert int(spread) == 3 and float(auc) > 0.9


def test_connect_snippet(cloud3):
    """What `connect --python` prints is a program that works."""
    snippet = cloud3.cli("connect", "c", "--python").stdout
    done = subprocess.run(
        [sys.executable, "-c", snippet + "\nprint('SIZE', h2o.cluster().cloud_size)"],
        capture_output=True, text=True, timeout=60,
    )
    assert done.returncode == 0 and "SIZE 3" in done.stdout, done.stdout + done.stderr


def test_pause_of_a_member(cloud3):
    """A member that stands still for a few seconds is no reason to lose a cloud's data."""
    before = cloud3.cloud()
    pid = cloud3.kill_member(1, signal.SIGSTOP)
    try:
        assert cloud3.wait("degraded", timeout=10)["endpoint"] == before["endpoint"]
    finally:
        os.kill(pid, signal.SIGCONT)
    after = cloud3.ready(timeout=15)
    assert after["generation"] == before["generation"]
    assert sorted(cloud3.pids()) == sorted(n["pid"] for n in before["nodes"])


def test_killed_member(cloud3):
    """SIGKILL of one member: the endpoint is withdrawn at once, all members are replaced by a new
    generation, on the same URL, and clients connect again."""
    before = cloud3.cloud()
    old = set(cloud3.pids())
    begun = time.monotonic()
    cloud3.kill_member(1)
    until("the endpoint is withdrawn", 1, lambda: cloud3.cloud()["endpoint"] is None, 0.005)
    after = cloud3.ready(timeout=60, generation=before["generation"] + 1)
    print(f"kill to ready: {time.monotonic() - begun:.1f} s")
    assert after["endpoint"] == before["endpoint"]
    assert after["generation"] == before["generation"] + 1
    assert not old & set(cloud3.pids())
    assert "SIGKILL" in after["nodes"][1]["last_exit"]["why"]
    assert "SIZE 3" in finish(client("print('SIZE', h2o.cluster().cloud_size)", after["endpoint"]))


@pytest.mark.timeout(420)  # a client that finds nobody gives up after 300 s
def test_grid_search_survives(cloud3):
    """A running grid search goes on over the deaths of two members, one after the other, in an unchanged
    client program, while another client asks every 100 ms for what locks a cloud."""
    before = cloud3.cloud()
    program = client(FRAME.replace("60000", "6000") + """
from h2o.estimators import H2OGradientBoostingEstimator
from h2o.grid import H2OGridSearch
grid = H2OGridSearch(H2OGradientBoostingEstimator(seed=1), grid_id="survivor", hyper_params={
    "ntrees": [3, 5, 7], "max_depth": [3, 4], "learn_rate": [0.05, 0.1]})
grid.train(y="y", training_frame=frame)
print("MODELS", len(grid.model_ids))
""", before["endpoint"])

    def models(some):
        """There are so many, and more to come. (The progress of H2O's job stays near 0 till the end.)"""
        assert program.poll() is None, program.communicate()[0]
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            status, grid = get(port_of(before), "/99/Grids/survivor")
            return status == 200 and len(grid["model_ids"]) >= some and len(grid["model_ids"])
        return False

    try:
        with hammer(port_of(before), 0.1) as jobs:
            for life, (some, member) in enumerate([(2, 2), (6, 0)], 1):
                until(f"{some} models", 90, lambda: models(some), 0.1)
                cloud3.kill_member(member)
                back = cloud3.ready(timeout=60, generation=before["generation"] + life)
                answers = len(jobs.seen)
                until("the impatient client is answered", 10, lambda: len(jobs.seen) > answers)
                assert get(port_of(before), "/3/Cloud")[1]["cloud_size"] == 3
                assert back["generation"] == before["generation"] + life and back["short_locks"] == 0
            said = finish(program, timeout=180)
    finally:
        program.kill()
    assert "MODELS 12" in said, said
    assert said.count("waiting for cluster to restart") >= 2, "the client noticed, and waited"
    assert cloud3.cloud()["generation"] == before["generation"] + 2


def test_client_shutdown(cloud3):
    """h2o.cluster().shutdown() is somebody's wish and no failure: stopped, not restarted. The last
    of the tests with the shared cloud, which it starts again for whoever comes after."""
    before = cloud3.cloud()
    finish(client("h2o.cluster().shutdown()", before["endpoint"]))
    stopped = cloud3.wait("stopped", timeout=30)
    assert stopped["endpoint"] is None and "client" in stopped["reason"]
    time.sleep(2)
    assert cloud3.cloud()["generation"] == before["generation"] and not cloud3.members()
    cloud3.cli("start", "c")
    assert cloud3.ready(timeout=60)["generation"] == before["generation"] + 1


# --- clouds of their own --------------------------------------------------------------------------


def test_two_clouds(fleets, real_keys):
    """Side by side on one machine, each on its own ports, deaf to each other, one with the boot cache
    and one without; and after the daemon's end nothing is left (the fixture looks)."""
    fleet = fleets({"a": real_keys(2), "b": real_keys(1, fast_boot="no")}).start()
    a, b = fleet.ready("a", timeout=90), fleet.ready("b", timeout=90)
    assert (a["boot"]["mode"], b["boot"]["mode"]) == ("archive", "plain")
    sizes = {port_of(c): get(port_of(c), "/3/Cloud?skip_ticks=true")[1]["cloud_size"] for c in (a, b)}
    assert sizes == {port_of(a): 2, port_of(b): 1}
    fleet.cli("stop", "a")
    fleet.wait("stopped", name="a")
    assert fleet.cloud("b")["state"] == "ready"
    assert fleet.stop() == 0
    fleet.assert_clean()


def test_out_of_memory(real):
    """OutOfMemoryError ends a node that was told to exit on it: the cause is named in words."""
    fleet = real(nodes=1, max_mem_size="64m", jvm_custom_args="-XX:+ExitOnOutOfMemoryError",
                 start_limit="1 in 10m")
    url = fleet.ready(timeout=60)["endpoint"]
    glutton = client('h2o.rapids("(sum [" + "1 " * 20_000_000 + "])")', url)
    try:
        cloud = fleet.wait("failed", timeout=60)
    finally:
        glutton.kill()
        glutton.communicate()
    assert cloud["nodes"][0]["last_exit"]["cause"] == "java-oom"
    assert "OutOfMemoryError" in cloud["reason"] and "max_mem_size" in cloud["reason"]


@contextlib.contextmanager
def listener(port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", port))
        s.listen()
        yield


def test_taken_first_port(real):
    """"N+" moves on from a port that somebody else has."""
    fleet = real(nodes=1, start=False)
    with listener(fleet.ports.base):
        fleet.start()
        cloud = fleet.ready(timeout=60)
        assert port_of(cloud) > fleet.ports.base
        assert cloud["nodes"][0]["api_port"] == port_of(cloud) + 1
        fleet.stop()


def test_taken_exact_port(real):
    """"N" does not, and names who has it."""
    fleet = real(nodes=1, start=False, start_limit="2 in 1m")
    fleet.clouds["c"]["port"] = fleet.ports.base
    fleet.write_config()
    with listener(fleet.ports.base):
        fleet.start()
        cloud = fleet.wait("failed", "backoff")
        assert str(fleet.ports.base) in cloud["reason"] and f"pid {os.getpid()}" in cloud["reason"]
        fleet.stop()


def test_unsupported_java(real):
    """A Java that H2O does not support is refused with a sentence, before or by H2O itself."""
    java = "/usr/lib/jvm/temurin-25-jdk-amd64/bin/java"
    if not os.access(java, os.X_OK):
        pytest.skip(f"{java} is not here")
    cloud = real(nodes=1, java=java).wait("failed", timeout=30)
    assert "25" in cloud["reason"] and "Java" in cloud["reason"]


def test_missing_jar(real):
    cloud = real(nodes=1, jar_path="/nonexistent/h2o.jar").wait("failed")
    assert "/nonexistent/h2o.jar" in cloud["reason"]


def test_unknown_option(real):
    """H2O's own message reaches the one who asks for the status."""
    cloud = real(nodes=1, h2o_args="-frobnicate").wait("failed", timeout=30)
    assert "frobnicate" in cloud["reason"] and cloud["generation"] == 1


# --- the daemon goes, the cloud stays -------------------------------------------------------------


def test_training_over_daemons(real):
    """kill -9 of the daemon, and a reexec of the next, while a client trains: the training ends as if
    nothing had been; the same generation and pids; and a member that is killed after that brings the
    next generation."""
    fleet = real(nodes=2)
    before = fleet.ready(timeout=120)
    trainer = client(FRAME + """
from h2o.estimators import H2OGradientBoostingEstimator
model = H2OGradientBoostingEstimator(ntrees=60, max_depth=8, seed=1, score_each_iteration=True)
print("BEGUN", flush=True)
model.train(y="y", training_frame=frame)
print("AUC", model.auc())
""", before["endpoint"])
    lines = iter(trainer.stdout.readline, "")
    assert any("BEGUN" in line for line in lines), "the client ended"
    fleet.kill_daemon()
    assert trainer.poll() is None
    fleet.start()
    assert fleet.cloud()["state"] == "ready"
    fleet.cli("reexec")
    assert trainer.poll() is None, "it was to outlast both"
    said = finish(trainer)
    assert float(re.search(r"AUC ([\d.]+)", said).group(1)) > 0.9
    after = fleet.cloud()
    assert after["state"] == "ready" and after["generation"] == before["generation"]
    assert [n["pid"] for n in after["nodes"]] == [n["pid"] for n in before["nodes"]]
    fleet.kill_member(1)
    again = fleet.ready(timeout=120, generation=before["generation"] + 1)
    assert again["nodes"][1]["last_exit"]["signal"] == "SIGKILL"
    assert again["endpoint"] == before["endpoint"]
