"""How the members of a cloud find one another, however differently they come up (core/flatfile.c)."""

import stat

import pytest

from fleet import WRAPPER, listeners, until

# A first connect that is refused would keep two members apart for longer than any test lasts.
NEVER = "-Dfake.connect_sleep_ms=600000"


def internal_ports(fleet):
    return [node["api_port"] + 1 for node in fleet.nodes()]


def listening(fleet):
    """Which members listen to their peers."""
    if not all(node["pid"] for node in fleet.nodes()):
        return []
    ports = internal_ports(fleet)
    there = listeners(min(ports), max(ports))
    return [port in there for port in ports]


def test_slow_member(fake):
    """One member comes up much later than the others: nobody tries to reach it before it listens, and
    a whole cloud is formed in the first generation."""
    fleet = fake(nodes=4, knobs=f"{NEVER} -Dfake.2.boot_ms=1500")
    until("the others listen", 10, lambda: sum(listening(fleet)) == 3)
    assert fleet.cloud()["state"] == "forming"
    assert stat.S_ISFIFO((fleet.state_dir / "clouds/c/flatfile-0").stat().st_mode)
    assert fleet.ready()["generation"] == 1


def test_very_slow_member(fake):
    """Nobody waits for ever for one that does not come up: the others form what they can meanwhile,
    which shows who is missing, and it still gets in."""
    fleet = fake(nodes=3, knobs=f"{NEVER} -Dfake.1.boot_ms=9000")
    until("the others are up without it", 20,
          lambda: [n["state"] for n in fleet.nodes()] == ["up", "booting", "up"])
    assert not listening(fleet)[1]
    assert fleet.ready()["generation"] == 1


def test_member_dies_while_others_wait(fake):
    """A member ends before it listens: those that wait for it are ended as well, and the next
    generation forms."""
    fleet = fake(nodes=3, knobs=f"{NEVER} -Dfake.0.g1.exit_at_boot_ms=300 -Dfake.0.g1.boot_ms=5000")
    assert fleet.ready()["generation"] == 2


@pytest.mark.skipif(bool(WRAPPER), reason="the image would be the wrapper's")
@pytest.mark.parametrize("way", ["killed", "reexec"])
def test_daemon_goes_meanwhile(fake, way):
    """The daemon goes while some members wait for another: the next one goes on, in the same
    generation."""
    fleet = fake(nodes=3, knobs=f"{NEVER} -Dfake.1.boot_ms=2500")
    until("the others wait", 10, lambda: sum(listening(fleet)) == 2)
    before = fleet.cloud()
    if way == "killed":
        fleet.kill_daemon()
        fleet.start()
    else:
        fleet.cli("reexec")
    after = fleet.ready()
    assert after["generation"] == before["generation"] == 1
    assert [n["pid"] for n in after["nodes"]] == [n["pid"] for n in before["nodes"]]


def test_one_node(fake):
    """A cloud of one has nobody to wait for: its flatfile is a file."""
    fleet = fake(nodes=1)
    fleet.ready()
    path = fleet.state_dir / "clouds/c/flatfile-0"
    assert path.read_text() == f"127.0.0.1:{fleet.nodes()[0]['api_port']}\n"
