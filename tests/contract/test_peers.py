"""Several nodes: src/core/flatfile.c, src/model/verdict.c, src/model/lifecycle.c, src/core/polls.c."""

import contextlib
import signal
import socket
import threading
import time

import pytest

from fleet import until
from nodes import await_whole


@pytest.mark.relies("src/model/cause.c: no longer accepting new H2O nodes", "src/model/verdict.c: VERDICT_SHORT_LOCK")
def test_locked_out(rig):
    """Who comes to a locked cloud is turned out: it says "no longer accepting new H2O nodes" and exits with 255,
    and the cloud does not change. So a client that locks a cloud of one keeps the others out."""
    node = rig.any()
    node.good("/3/Jobs")
    late = rig.start().join([node])
    assert late.exit(60) == 255 and "no longer accepting new H2O nodes" in late.said()
    assert node.cloud()["cloud_size"] == 1
    rig.keep(node)


@pytest.mark.relies("src/model/lifecycle.c: h2o_name")
def test_other_name(rig):
    """A node of another -name is deaf to a cloud whose members it knows, and they to it."""
    node = rig.fresh()
    other = rig.start(name="other")
    other.join([node, other]).await_answer()
    end = time.monotonic() + 5 * rig.kind.second
    while time.monotonic() < end:
        assert node.cloud()["cloud_size"] == other.cloud()["cloud_size"] == 1
        time.sleep(0.2 * rig.kind.second)
    rig.keep(node)


@pytest.mark.relies("src/drv/ports.h: connecting to H2O's internal", "src/core/flatfile.c: port_is_open_to_jvm")
def test_internal_port(rig):
    """A connection to the internal port that is closed again makes a node deaf to new peers for ever: why we only
    look whether that port is bound."""
    node = rig.fresh()
    rig.keep()
    socket.create_connection(("127.0.0.1", node.port + 1)).close()
    late = rig.start()
    late.join([node, late]).await_answer()
    end = time.monotonic() + 6 * rig.kind.second
    while time.monotonic() < end:
        assert not late.is_whole([node, late]) and not node.is_whole([node, late])
        time.sleep(0.2 * rig.kind.second)


@pytest.mark.relies("src/core/flatfile.c: A first connect to a peer", "src/model/verdict.c: check_members")
def test_forming(rig):
    """Members that read who their peers are once all listen become one cloud: each then says the same size,
    consensus, health, and the same members in the order of their ports, with their pids; itself it finds by
    node_idx, and the first is the leader. Until then no member says more than is true: a size below n, or no
    consensus. None is locked."""
    nodes = rig.form(3)
    early = []

    def whole():
        for node in nodes:
            view = node.cloud()
            if view and not node.is_whole(nodes):
                early.append((view["cloud_size"], view["consensus"], 0 in [n["pid"] for n in view["nodes"]]))
        return all(node.is_whole(nodes) for node in nodes)

    until(lambda: f"a whole cloud\n{nodes[0].story()}", 90, whole, 0.05)
    for size, consensus, pid_missing in early:
        assert size < 3 or not consensus or pid_missing, early
    for index, node in enumerate(nodes):
        view = node.cloud()
        assert [n["ip_port"] for n in view["nodes"]] == [m.ip_port for m in nodes]
        assert (view["node_idx"], view["leader_idx"], view["locked"], view["bad_nodes"]) == (index, 0, False, 0)
        assert "Cloud of size 1 formed [" in node.said() and "Cloud of size 3 formed [" in node.said()
    rig.keep(*nodes)


@pytest.mark.relies("src/cli/clean.c: locked")
def test_lock_is_everybodys(rig):
    """What locks one member locks the cloud: the one that was asked says so at once."""
    nodes = rig.cloud()
    nodes[1].good("/3/Jobs")
    assert nodes[1].cloud()["locked"]
    assert nodes[0].cloud()["locked"]  # the leader, which gave out the number of the answer's class


@pytest.mark.relies("src/model/watch.c: hang_timeout_ms")
def test_pause(rig):
    """A member that was stopped for some heartbeats goes on as if nothing had been: same cloud, and what was asked of
    it meanwhile is answered."""
    nodes = rig.cloud()
    nodes[1].kill(signal.SIGSTOP)
    try:
        said = []
        asked = threading.Thread(target=lambda: said.append(nodes[1].cloud()))
        asked.start()
        time.sleep(3 * rig.kind.second)
        assert not said and nodes[0].is_whole(nodes), "a silence below a minute is not even unhealthy"
    finally:
        nodes[1].kill(signal.SIGCONT)
    asked.join(30)
    assert said and said[0]["cloud_size"] == 3
    await_whole(nodes)


def begin_shutdown(node, seconds=30):
    """Asks, as core/polls.c does; the answer, or None."""
    with contextlib.suppress(OSError):
        return node.ask("/3/Shutdown", "POST", timeout=seconds).status
    return None


@pytest.mark.relies("src/model/lifecycle.c: h2o_name", "src/model/verdict.c: check_health", "src/model/verdict.c: is answered by pid")
def test_death(rig):
    """A killed member stays in the cloud: size and consensus as before, healthy even. A process that comes on its
    port is let in although the cloud is locked, and all look healthy: only the pid tells. POST /3/Shutdown to a member with a dead one beside it: the living end, who was asked with the
    number of those that did not confirm."""
    nodes = rig.cloud(3)
    rig.keep()
    nodes[0].good("/3/Jobs")
    assert nodes[2].kill() == -9
    assert nodes[2].perf_file().exists(), "SIGKILL leaves the JVM's file behind"
    time.sleep(2 * rig.kind.second)
    view = nodes[0].cloud()
    assert (view["cloud_size"], view["consensus"], view["cloud_healthy"]) == (3, True, True)

    again = rig.start(port=nodes[2].port)
    again.join([*nodes[:2], again])
    until(lambda: f"the new one among the others\n{nodes[0].cloud()}", 60,
          lambda: [n["pid"] for n in nodes[0].cloud()["nodes"]] == [nodes[0].pid, nodes[1].pid, again.pid])
    view = nodes[0].cloud()
    assert (view["cloud_size"], view["consensus"], view["cloud_healthy"], view["locked"]) == (3, True, True, True)

    again.kill()
    assert begin_shutdown(nodes[0]) == 200
    assert [nodes[0].exit(60), nodes[1].exit(60)] == [1, 0]


@pytest.mark.relies("src/core/polls.c: /3/Shutdown", "src/model/cause.c: Orderly shutdown")
def test_shutdown(rig):
    """POST /3/Shutdown to one member ends all of the cloud, each with exit code 0 and "Orderly shutdown" among its
    last lines, within some seconds. (A client's h2o.cluster().shutdown() is the same.)"""
    nodes = rig.cloud(2)
    rig.keep()
    assert begin_shutdown(nodes[0]) == 200
    assert [n.exit(20) for n in nodes] == [0, 0]
    for node in nodes:
        assert "Orderly shutdown" in "\n".join(node.said().splitlines()[-30:]), node.story()


@pytest.mark.long
@pytest.mark.relies("src/core/polls.c: the next rung of the ladder follows anyway")
def test_shutdown_without_leader(rig):
    """With the first member dead POST /3/Shutdown hangs, and ends nobody."""
    nodes = rig.cloud(2)
    rig.keep()
    nodes[0].kill()
    assert begin_shutdown(nodes[1], 5 * rig.kind.second + 1) is None
    assert nodes[1].alive()


@pytest.mark.long
@pytest.mark.relies("src/model/verdict.c: H2O has not heard from its member %s for 60 s", "src/drv/http.c: X-h2o-cluster-good:")
def test_unhealthy(rig):
    """60 s after its last heartbeat a dead member is unhealthy: in the body, which names it, and in the header; the
    size stays. What asks all members hangs from the death on: why the daemon never asks such a thing."""
    nodes = rig.cloud(2)
    rig.keep()
    nodes[0].good("/3/JStack")
    nodes[1].kill()
    dead = time.monotonic()
    time.sleep(4 * rig.kind.second)
    assert nodes[0].hangs("/3/JStack", seconds=2)
    view = until("an unhealthy cloud", 80 * rig.kind.second + 5,
                 lambda: (lambda v: not v["cloud_healthy"] and v)(nodes[0].cloud()))
    assert (time.monotonic() - dead) / rig.kind.second > 50
    assert (view["bad_nodes"], view["cloud_size"], [n["healthy"] for n in view["nodes"]]) == (1, 2, [True, False])
    assert nodes[0].ask("/3/Cloud", "HEAD").headers["X-h2o-cluster-good"] == "false"
