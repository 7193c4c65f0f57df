"""A hundred nodes under one daemon: no figures (see contrib/bench scale), but that it does not lose count."""

import contextlib
import os
import random
import signal

from fleet import PortBlock, until

SIZES = {"one": (20, 1), "three": (10, 3), "ten": (5, 10)}


def test_a_hundred_nodes(fleets, fake_keys):
    """All become ready; of ten that are killed at once exactly the clouds are begun anew, once; nothing
    of that costs descriptors; the stop ends all."""
    clouds = {f"{name}-{i}": fake_keys(size, "-Dfake.heartbeat_ms=300 -Dfake.ctl_ms=60000", stop_timeout="30s")
              for name, (n, size) in SIZES.items() for i in range(n)}
    fleet = fleets(clouds, fleet={"log_level": "info"}, ports=PortBlock(320)).start()
    counts = {}

    def all_ready():
        counts.update(fleet.api("GET", "/v1/fleet")[1])
        return counts["clouds"]["ready"] == len(clouds) and counts["nodes"]["up"] == 100

    def descriptors():
        return len(os.listdir(f"/proc/{fleet.daemon.pid}/fd"))

    until(lambda: f"all ready: {counts}", 60, all_ready, 0.2)
    before = {c["name"]: c for c in fleet.api("GET", "/v1/clouds")[1]["clouds"]}
    ports = [n["api_port"] for c in before.values() for n in c["nodes"]]
    assert len(set(ports)) == 100 and not {p + 1 for p in ports} & set(ports)
    assert len(fleet.members()) == 100
    first = descriptors()

    owner = {n["pid"]: c["name"] for c in before.values() for n in c["nodes"]}
    victims = random.sample(sorted(owner), 10)
    hit = {owner[pid] for pid in victims}
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):  # of a cloud that is being ended already
            os.kill(pid, signal.SIGKILL)

    def all_again():
        return all_ready() and sum(
            c["generation"] for c in fleet.api("GET", "/v1/clouds")[1]["clouds"]) >= len(clouds) + len(hit)

    until(lambda: f"all ready again: {counts}", 60, all_again, 0.2)
    after = {c["name"]: c for c in fleet.api("GET", "/v1/clouds")[1]["clouds"]}
    for name, cloud in after.items():
        assert cloud["generation"] == 1 + (name in hit), fleet.story(cloud)
        assert cloud["endpoint"] == before[name]["endpoint"]
        pids = {n["pid"] for n in cloud["nodes"]}
        assert pids.isdisjoint(owner) if name in hit else pids <= set(owner)
    assert len(fleet.members()) == 100
    until(lambda: f"{first} descriptors: {descriptors()}", 10, lambda: descriptors() <= first + 2)

    assert fleet.stop(timeout=60) == 0
    assert fleet.members() == {}
    fleet.assert_clean()
