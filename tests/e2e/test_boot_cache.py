"""The boot cache, seen from the daemon: made while nobody needs the machine, used by the next
generation, and never in anybody's way. The nodes are fakes, those of the builder, too."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest

from fleet import FAKEJAVA, halt, pid_alive, processes, read, until

# The builder has what nobody else wants, which on a busy machine is little.
BUILT_S = 120


@pytest.fixture
def rig(fleets, fake_keys, tmp_path):
    """rig(nodes=2, knobs="", delay="0s", key=value, ...): a fleet with one cloud, "c", of which every
    fake, also in the builder, heeds the knobs in the file `fleet.knobs`."""

    def make(nodes=2, knobs="", delay="0s", start=True, fleet=None, **keys):
        java = tmp_path / "jdk" / "bin" / "java"
        java.parent.mkdir(parents=True, exist_ok=True)
        file = tmp_path / "knobs"
        file.write_text("")
        java.write_text(f'#!/bin/sh\nFAKE_KNOBS=$(cat {file}) exec {FAKEJAVA} "$@"\n')
        java.chmod(0o755)
        (tmp_path / "jdk" / "release").write_text('JAVA_VERSION="17.0.15"\n')
        made = fleets({"c": {**fake_keys(nodes, knobs), "java": java, **keys}},
                      fleet={"fast_boot_delay": delay, **(fleet or {})})
        made.knobs = file
        return made.start() if start else made

    return make


def events(fleet, kind):
    """All of that type, over the lives of daemons."""
    lines = [line for path in sorted((fleet.state_dir / "events").glob("*"))
             for line in read(path).splitlines()]
    return [e for e in map(json.loads, filter(lambda s: s.startswith("{"), lines))
            if e.get("type") == kind]


def cache(fleet):
    return fleet.api("GET", "/v1/fleet")[1]["boot_cache"]


def builders(fleet):
    """Processes of the builder: itself and its nodes."""
    return processes(str(fleet.dir / "cache"))


def is_idle(pid):
    """One that has ended counts as such. One that was just forked is not yet."""
    try:
        return os.sched_getscheduler(pid) == os.SCHED_IDLE or not pid_alive(pid)
    except ProcessLookupError:
        return True


def building(fleet, step=""):
    """Until the builder is at that step."""
    until(lambda: f"the builder at {step!r}: {cache(fleet)}\n{fleet.log_tail()}", BUILT_S,
          lambda: cache(fleet)["building"] and step in (cache(fleet)["step"] or ""), 0.05)


def hanging(fleet):
    """A builder that does not come to its end."""
    fleet.knobs.write_text("dump_hang=1")
    building(fleet, "making the archive")
    return until("a JVM that makes an archive", 20,
                 lambda: {p: c for p, c in builders(fleet).items() if "-Xshare:dump" in c})


def result(fleet, wanted, n=1):
    """Until the n-th of these events is out."""
    kind = f"boot-cache-{wanted}"
    found = until(lambda: f"{n} {kind}: {cache(fleet)}\n{fleet.log_tail()}", BUILT_S,
                  lambda: events(fleet, kind)[n - 1:], 0.1)
    return found[0]


def restarted(fleet):
    """Its boot, once its nodes were looked at."""
    generation = fleet.cloud()["generation"] + 1
    fleet.cli("restart", "c")
    return boot_of(fleet, generation)


def boot_of(fleet, generation):
    def probe():
        cloud = fleet.cloud()
        boot = cloud["boot"]
        return cloud["state"] == "ready" and cloud["generation"] == generation and boot and (
            boot["mode"] != "archive" or boot["mapped"] is not None) and boot

    return until(lambda: fleet.story(fleet.cloud()), 40, probe)


def nothing_is_built(fleet, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert not cache(fleet)["building"]
        time.sleep(0.05)


def test_made_and_used(rig):
    """After the first ready cloud it is made; the next generation uses it, and nothing more is made."""
    fleet = rig()
    fleet.ready()
    first = fleet.cloud()["boot"]
    assert (first["mode"], first["archive"], first["mapped"]) == ("plain", None, None), first
    assert "there is none for this runtime yet" in first["why"]
    assert "without the boot cache: there is none" in fleet.cli("status", "c").stdout
    building(fleet)
    ready = result(fleet, "ready")
    assert ready["cloud"] == "c" and ready["duration_ms"] > 0
    last = cache(fleet)["last"]
    assert (last["result"], last["cloud"], last["why"]) == ("ready", "c", None), last
    fleet.kill_member(0)
    boot = boot_of(fleet, 2)
    assert (boot["mode"], boot["mapped"], boot["why"]) == ("archive", True, None), boot
    assert boot["archive"].startswith(str(fleet.dir / "cache" / "boot"))
    for pid in fleet.pids():
        words = read(f"/proc/{pid}/cmdline").split("\0")
        assert f"-XX:SharedArchiveFile={boot['archive']}" in words
        assert "-Dsys.ai.h2o.heartbeat.benchmark.enabled=false" in words
        assert boot["archive"] in read(f"/proc/{pid}/maps")
    assert "boot:" not in fleet.cli("status", "c").stdout
    assert "starts from an archive" in fleet.cli("doctor", "--config", str(fleet.config), code=None).stdout
    nothing_is_built(fleet, 2.5)
    assert len(events(fleet, "boot-cache-building")) == 1


def test_gives_way(rig):
    """A member is killed while it is being made, at idle priority: the builder and its JVMs are gone
    before the cloud is back, nothing of them stays, and all is made later."""
    fleet = rig()
    fleet.ready()
    pids = set(hanging(fleet)) | set(builders(fleet))
    until("all of the builder at idle priority", 20,
          lambda: (found := builders(fleet)) and all(map(is_idle, found)))
    fleet.kill_member(1)
    until("the builder is gone", 10, lambda: not any(pid_alive(p) for p in pids))
    fleet.knobs.write_text("")
    fleet.ready(generation=2)
    assert cache(fleet)["last"]["result"] == "interrupted"
    assert "cloud c is recovering" in cache(fleet)["last"]["why"]
    assert not (fleet.dir / "cache/boot/work").exists()
    assert not events(fleet, "boot-cache-failed") and not fleet.api("GET", "/v1/fleet")[1]["troubles"]
    result(fleet, "ready")
    assert len(events(fleet, "boot-cache-building")) == 2


def test_not_while_a_cloud_forms(fleets, fake_keys):
    """A cloud that is on its way keeps it from beginning, however ready another one is."""
    fleet = fleets({"c": fake_keys(1), "slow": fake_keys(1, "-Dfake.never_ready=1")},
                   fleet={"fast_boot_delay": "0s"}).start()
    fleet.ready()
    fleet.wait("forming", name="slow")
    nothing_is_built(fleet, 3)
    assert not events(fleet, "boot-cache-building")
    fleet.cli("stop", "slow")
    result(fleet, "ready")


def test_after_a_calm(rig):
    """Not before all clouds were calm for fast_boot_delay, which a restart begins anew."""
    fleet = rig(delay="8s")
    fleet.ready()
    time.sleep(1)  # or it would not matter from when the calm counts
    fleet.cli("restart", "c")
    fleet.ready(generation=2)
    began = result(fleet, "building")["mono_ms"]
    ready = [e["mono_ms"] for e in events(fleet, "cloud-state") if e["to"] == "ready"]
    assert len(ready) == 2 and began - ready[1] >= 7900, (ready, began)


def test_refused(rig):
    """An archive with which a node is another one is not used; the difference is told wherever people
    look, and it is not made again."""
    fleet = rig(start=False)
    fleet.knobs.write_text("archive_endpoints=2")
    fleet.start()
    fleet.ready()
    why = result(fleet, "refused")["why"]
    assert "endpoint" in why
    assert (cache(fleet)["last"]["result"], cache(fleet)["last"]["why"]) == ("refused", why)
    boot = restarted(fleet)
    assert boot["mode"] == "native" and why in boot["why"], boot
    assert "was refused" in " ".join(fleet.cli("status", "c").stdout.split())
    said = fleet.cli("doctor", "--config", str(fleet.config), code=None).stdout
    assert [line for line in said.splitlines() if line.startswith("warning") and why in line], said
    nothing_is_built(fleet, 2.5)
    assert len(events(fleet, "boot-cache-building")) == 1


def test_ignored(rig):
    """A cloud whose JVMs do not map an archive that a JVM without its options takes: noticed; the
    archive stays, and the cloud is left without, until other options are in force."""
    fleet = rig(knobs="-Dfake.archive_ignored=1")
    fleet.ready()
    result(fleet, "ready")
    boot = restarted(fleet)
    assert (boot["mode"], boot["mapped"]) == ("archive", False), boot
    first = result(fleet, "ignored")
    assert not first["again"] and "options of this cloud" in first["why"], first
    said = " ".join(fleet.cli("status", "c").stdout.split())
    assert "the archive of classes is not used: a JVM with no other options would use it" in said
    assert "do not use the archive" in fleet.cli("doctor", "--config", str(fleet.config), code=None).stdout
    archive = boot["archive"]
    boot = restarted(fleet)
    assert boot["mode"] == "native" and "do not use the archive" in boot["why"], boot
    assert os.path.exists(archive)
    nothing_is_built(fleet, 2.5)
    fleet.clouds["c"]["jvm_custom_args"] = "-Dfake.heartbeat_ms=100"
    fleet.write_config()
    fleet.cli("reload")
    boot = restarted(fleet)
    assert (boot["archive"], boot["mapped"]) == (archive, True), boot
    assert len(events(fleet, "boot-cache-building")) == 1


def test_ignored_then_another_jar(rig, fake_jar, tmp_path):
    """A cloud that was left without gets an archive again with another runtime: that one may be used."""
    jar = tmp_path / "h2o.jar"
    jar.write_bytes(fake_jar.read_bytes())
    fleet = rig(knobs="-Dfake.archive_ignored=1", jar_path=jar)
    fleet.ready()
    result(fleet, "ready")
    assert restarted(fleet)["mode"] == "archive"
    assert not result(fleet, "ignored")["again"]
    os.utime(jar, (1, 1))
    assert restarted(fleet)["mode"] == "plain"
    result(fleet, "ready", 2)
    assert restarted(fleet)["mode"] == "archive"


@pytest.mark.parametrize("order", [("c", "odd"), ("odd", "c")], ids="-then-".join)
def test_ignored_by_one_of_two(fleets, fake_keys, order):
    """What another cloud uses is as it should be: it stays, whoever comes first, and the cloud that does
    not is left without."""
    fleet = fleets({"c": fake_keys(1), "odd": fake_keys(1, "-Dfake.archive_ignored=1")},
                   fleet={"fast_boot_delay": "0s"}).start()
    fleet.ready()
    fleet.ready("odd")
    result(fleet, "ready")
    for name in order:
        if name == "c":
            assert restarted(fleet)["mapped"] is True
            continue
        fleet.cli("restart", "odd")
        ignored = result(fleet, "ignored")
        assert ignored["cloud"] == "odd" and not ignored["again"], ignored
        assert os.path.exists(ignored["archive"])
    assert restarted(fleet)["mapped"] is True
    assert len(events(fleet, "boot-cache-building")) == 1


def tell(fleet, knob, value):
    url = f"http://127.0.0.1:{fleet.nodes()[0]['api_port']}/fake/{knob}?value={value}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=20) as answer:
            return answer.status == 200
    except urllib.error.URLError:
        return False


@pytest.mark.parametrize("how", ["replaced", "set-aside"])
def test_not_there_any_more(rig, how):
    """The archive is replaced (`prepare --again`) or renamed, as for another cloud that does not use it,
    while the cloud boots with it: whether it is used is then not known, and nothing is concluded."""
    fleet = rig(nodes=1)
    fleet.ready()
    result(fleet, "ready")
    archive = restarted(fleet)["archive"]
    fleet.knobs.write_text("archive_hang=1")
    fleet.cli("restart", "c")
    pid = until("a member that uses it", 30, lambda: next(
        (p for p in fleet.pids() if archive in read(f"/proc/{p}/maps")), None))
    fleet.knobs.write_text("")
    if how == "replaced":
        fleet.cli("prepare", "--config", str(fleet.config), "--again", timeout=BUILT_S)
    else:
        os.rename(os.path.dirname(archive), os.path.dirname(archive) + ".ignored")
    assert f"{archive}\n" not in read(f"/proc/{pid}/maps")
    until("the node listens", 20, lambda: tell(fleet, "archive_hang", 0))
    assert fleet.ready(generation=3)["boot"]["archive"] == archive
    if how == "replaced":
        nothing_is_built(fleet, 2.5)  # meanwhile it is looked at
    else:
        result(fleet, "ready", 2)  # nobody begins to make it before it was looked at
    assert fleet.cloud()["boot"]["mapped"] is None
    assert not events(fleet, "boot-cache-ignored")
    assert fleet.cloud()["generation"] == 3


def damage(archive):
    with open(archive, "r+b") as f:
        f.write(b"fake archive of something else\n")


def test_damaged_archive(rig):
    """An archive that JVMs refuse: why, in their words; set aside, made anew, and used again."""
    fleet = rig()
    fleet.ready()
    result(fleet, "ready")
    damage(restarted(fleet)["archive"])
    assert restarted(fleet)["mapped"] is False
    ignored = result(fleet, "ignored")
    assert ignored["again"] and "A jar file is not the one used" in ignored["why"], ignored
    result(fleet, "ready", 2)
    boot = restarted(fleet)
    assert (boot["mode"], boot["mapped"]) == ("archive", True), boot


def test_damaged_again(rig):
    """The one that was made anew is no better: the cloud is left without."""
    fleet = rig()
    fleet.ready()
    for n in (1, 2):
        result(fleet, "ready", n)
        damage(next((fleet.dir / "cache/boot").glob("*/classes.jsa")))
        boot = restarted(fleet)
        assert (boot["mode"], boot["mapped"]) == ("archive", False), boot
        assert result(fleet, "ignored", n)["again"] == (n == 1)
    boot = restarted(fleet)
    assert boot["mode"] == "native" and "do not use the archive" in boot["why"], boot
    nothing_is_built(fleet, 2.5)
    assert len(events(fleet, "boot-cache-building")) == 2


def test_another_jar(rig, fake_jar, tmp_path):
    """The jar is replaced under the daemon: the next generation starts plainly, then there is an
    archive of the new one."""
    jar = tmp_path / "h2o.jar"
    jar.write_bytes(fake_jar.read_bytes())
    fleet = rig(jar_path=jar)
    fleet.ready()
    result(fleet, "ready")
    first = restarted(fleet)
    assert first["mode"] == "archive"
    os.utime(jar, (1, 1))
    assert restarted(fleet)["mode"] == "plain"
    result(fleet, "ready", 2)
    boot = restarted(fleet)
    assert boot["mapped"] is True and boot["archive"] != first["archive"], boot


def test_daemon_killed_meanwhile(rig):
    """SIGKILL of the daemon: the next one ends the builder, keeps the cloud as it is, and has all made
    for it, though it was another that launched it."""
    fleet = rig()
    fleet.ready()
    pids, before = set(hanging(fleet)) | set(builders(fleet)), fleet.pids()
    fleet.kill_daemon()
    assert any(pid_alive(p) for p in pids)
    fleet.knobs.write_text("")
    fleet.start()
    until("the builder is gone", 20, lambda: not any(pid_alive(p) for p in pids))
    assert fleet.ready()["boot"] is None and fleet.pids() == before
    result(fleet, "ready")
    assert not events(fleet, "boot-cache-failed")
    assert restarted(fleet)["mapped"] is True


def test_reexec_meanwhile(rig):
    """A new image ends the builder of the old one, reaps it, and has all made."""
    fleet = rig()
    fleet.ready()
    pids = set(hanging(fleet)) | set(builders(fleet))
    fleet.knobs.write_text("")
    fleet.cli("reexec")
    until("the builder is gone", 20, lambda: not any(read(f"/proc/{p}/stat") for p in pids))
    result(fleet, "ready")
    assert restarted(fleet)["mapped"] is True


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGUSR2], ids=["stop", "detach"])
def test_end_meanwhile(rig, sig):
    """The daemon's end is the builder's, at once, and nothing of it stays."""
    fleet = rig()
    fleet.ready()
    pids = set(hanging(fleet)) | set(builders(fleet))
    begun = time.monotonic()
    fleet.stop(sig)
    assert time.monotonic() - begun < 10
    assert not any(pid_alive(p) for p in pids)
    assert not (fleet.dir / "cache/boot/work").exists()
    if sig == signal.SIGUSR2:
        fleet.knobs.write_text("")
        fleet.start()


def test_builder_that_does_not_end(rig):
    """One that is stopped (SIGSTOP) when it should end is killed, with its JVMs; the stop takes its
    two seconds."""
    fleet = rig()
    fleet.ready()
    pids = set(hanging(fleet)) | set(builders(fleet))
    halt(next(p for p, c in builders(fleet).items() if "--build-boot-cache" in c))
    fleet.stop(timeout=20)
    assert not any(pid_alive(p) for p in pids)


def test_exact_port_meanwhile(rig):
    """A start that finds its exact port taken while the builder still is there, be it on its way out: a
    node of its own may have had the port, so that is no failure for good."""
    fleet = rig(start=False)
    port = fleet.ports.base + 20
    fleet.clouds["exact"] = {**fleet.clouds["c"], "nodes": 1, "port": port, "autostart": "no",
                             "restart_delay": "1s"}
    fleet.write_config()
    fleet.start()
    fleet.ready()
    hanging(fleet)
    halt(next(p for p, c in builders(fleet).items() if "--build-boot-cache" in c))
    with socket.create_server(("127.0.0.1", port)):
        fleet.cli("start", "exact")
        fleet.wait("backoff", name="exact")
    fleet.knobs.write_text("")
    fleet.ready("exact")


def test_somebody_else_builds(rig):
    """The lock is another's: no trouble, it is tried again later."""
    fleet = rig(start=False)
    (fleet.dir / "cache/boot").mkdir(parents=True)
    with open(fleet.dir / "cache/boot/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fleet.start()
        fleet.ready()
        result(fleet, "building")
        until("its end", BUILT_S, lambda: not cache(fleet)["building"])
        assert fleet.api("GET", "/v1/fleet")[1]["troubles"] == []
        nothing_is_built(fleet, 2.5)
    assert not events(fleet, "boot-cache-failed")


@pytest.mark.skipif(os.getuid() != 0, reason="mounts a file system")
def test_full_disk(rig):
    """No room: a trouble that is said once, and no more; it is over when nobody wants it any more."""
    fleet = rig(start=False)
    place = fleet.dir / "cache"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], check=False).returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        fleet.start()
        fleet.ready()
        assert "make room" in result(fleet, "failed")["why"]
        troubles = fleet.api("GET", "/v1/fleet")[1]["troubles"]
        assert [t["kind"] for t in troubles] == ["boot-cache"] and "make room" in troubles[0]["detail"]
        assert cache(fleet)["last"]["result"] == "failed"
        assert restarted(fleet)["archive"] is None
        nothing_is_built(fleet, 2.5)
        assert len(events(fleet, "trouble")) == 1
        fleet.clouds["c"]["fast_boot"] = "no"
        fleet.write_config()
        fleet.cli("reload")
        until("it is over", 20, lambda: not fleet.api("GET", "/v1/fleet")[1]["troubles"])
        fleet.stop()
    finally:
        subprocess.run(["umount", "-l", place], check=False)


def test_switched_by_a_reload(rig):
    """fast_boot = no makes nothing and says why; a reload to yes does, and one back to no, which
    restarts nothing, ends whoever is at it."""
    fleet = rig(fast_boot="no")
    fleet.ready()
    before = fleet.pids()
    nothing_is_built(fleet, 2.5)
    assert fleet.cloud()["boot"] == {
        "mode": "plain", "archive": None, "mapped": None, "why": "fast_boot = no"}
    fleet.clouds["c"]["fast_boot"] = "yes"
    fleet.write_config()
    fleet.cli("reload")
    pids = set(hanging(fleet)) | set(builders(fleet))
    fleet.clouds["c"]["fast_boot"] = "no"
    fleet.write_config()
    fleet.cli("reload")
    until("the builder is gone", 10, lambda: not any(pid_alive(p) for p in pids))
    until("what has come of it", 10, lambda: cache(fleet)["last"])
    assert cache(fleet)["last"]["why"] == "nobody wants it any more"
    nothing_is_built(fleet, 2.5)
    assert fleet.pids() == before


def test_libraries_alone(rig):
    """fast_boot = native-only: the native libraries, and no archive."""
    fleet = rig(fast_boot="native-only")
    fleet.ready()
    result(fleet, "ready")
    boot = restarted(fleet)
    assert boot == {"mode": "native", "archive": None, "mapped": None,
                    "why": "fast_boot = native-only"}
    native = [w for w in read(f"/proc/{fleet.pids()[0]}/cmdline").split("\0")
              if w.startswith("-Djava.library.path=")]
    assert len(native) == 1 and f"{fleet.dir}/cache/boot/native-" in native[0]
    nothing_is_built(fleet, 2.5)
    assert len(events(fleet, "boot-cache-building")) == 1


def test_own_options_win(rig):
    """An option of the user's for the same is left as it is, and no archive is made or used beside it."""
    fleet = rig(knobs="-Xshare:auto")
    fleet.ready()
    assert fleet.cloud()["boot"]["why"] == "jvm_custom_args has options of its own for this"
    result(fleet, "ready")
    boot = restarted(fleet)
    assert (boot["mode"], boot["archive"]) == ("native", None), boot
    assert not list((fleet.dir / "cache/boot").glob("*/classes.jsa"))
    nothing_is_built(fleet, 2.5)
