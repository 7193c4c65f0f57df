"""A configuration that changes while clouds run: what takes effect when, and that nothing is left."""

import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import tempfile
import threading

import pytest

from fleet import H2OFLEETD, SLOW, WRAPPER, UnixHTTP, listeners, pid_alive, ports_of, read, until


def reload(fleet, *args, code=0):
    """`h2ofleet reload --json`: {cloud: its change}, and the whole answer."""
    answer = json.loads(fleet.cli("reload", "--json", *args, code=code).stdout)
    return {c["name"]: c for c in answer.get("clouds", ())}, answer


def keys_of(change):
    return {k["key"]: (k["old"], k["new"]) for k in change["keys"]}


def configure(fleet, cloud="c", **keys):
    fleet.clouds[cloud].update(keys)
    fleet.write_config()


def still(fleet):
    """The status without what changes by itself."""
    clouds = fleet.api("GET", "/v1/clouds")[1]["clouds"]
    for cloud in clouds:
        for part in [cloud, *cloud["nodes"]]:
            for key in ("state_ms", "uptime_ms", "memory", "rss_bytes", "cpu_percent", "pressure"):
                part.pop(key, None)
    return json.dumps(clouds, sort_keys=True)


def argv_of(pid):
    return read(f"/proc/{pid}/cmdline").split("\0")


# --- each class of change -------------------------------------------------------------------------


def test_live(fake):
    """A live key is in force at once: a member that hangs already is ended by the new, shorter
    hang_timeout; no process was touched by the reload itself."""
    fleet = fake(nodes=2, hang_timeout="1h", late_after="300ms", health_interval="100ms")
    fleet.ready()
    pids = fleet.pids()
    fleet.kill_member(1, signal.SIGSTOP)
    fleet.wait("degraded")
    configure(fleet, hang_timeout="1s")
    changes, answer = reload(fleet)
    assert changes["c"]["change"] == "live" and changes["c"]["applied"] is True
    assert keys_of(changes["c"]) == {"hang_timeout": ("1h", "1s")}
    assert answer["fleet"] == [] and answer["errors"] == [] and answer["dry_run"] is False
    fleet.ready(generation=2, timeout=10)
    assert not set(pids) & set(fleet.pids())
    assert "hangs" in read(fleet.daemon_log)


def test_unchanged(fake):
    fleet = fake(nodes=2)
    fleet.ready()
    before = still(fleet)
    for _ in range(3):
        changes, _ = reload(fleet)
        assert changes["c"]["change"] == "unchanged" and changes["c"]["keys"] == []
    assert still(fleet) == before
    assert "unchanged" in fleet.cli("reload").stdout


def test_restart_needed(fake):
    """What members were launched with waits, and is shown; live keys beside it do not wait. It is
    in force after the operator's restart, and not lost by a second reload."""
    fleet = fake(nodes=2, max_mem_size="64m")
    first = fleet.ready()
    assert first["restart_needed"] is False and first["pending_keys"] == []
    pids = fleet.pids()
    configure(fleet, nodes=3, max_mem_size="80m", stop_timeout="4s")
    for _ in range(2):
        changes, _ = reload(fleet)
        assert changes["c"]["change"] == "restart" and changes["c"]["applied"] is False
    assert set(keys_of(changes["c"])) == {"nodes", "max_mem_size"}, "stop_timeout was live"
    cloud = fleet.cloud()
    assert cloud["restart_needed"] is True and cloud["pending_keys"] == ["nodes", "max_mem_size"]
    assert cloud["size"] == 2 and fleet.pids() == pids
    assert "needs a restart for: nodes, max_mem_size" in fleet.cli("status", "c").stdout

    fleet.cli("restart", "c", "--wait")
    cloud = fleet.cloud()
    assert cloud["size"] == 3 and cloud["restart_needed"] is False and cloud["pending_keys"] == []
    assert len(fleet.pids()) == 3 and not set(pids) & set(fleet.pids())
    assert all("-Xmx80m" in argv_of(pid) for pid in fleet.pids())
    assert cloud["endpoint"] == first["endpoint"]


def test_restart_needed_taken_back(fake):
    fleet = fake(nodes=1)
    fleet.ready()
    configure(fleet, max_mem_size="80m")
    reload(fleet)
    assert fleet.cloud()["restart_needed"] is True
    configure(fleet, max_mem_size="64m")
    assert reload(fleet)[0]["c"]["change"] == "unchanged"
    assert fleet.cloud()["restart_needed"] is False
    fleet.cli("restart", "c", "--wait")
    assert "-Xmx64m" in argv_of(fleet.pids()[0])


def test_with_restart(fake):
    """reload --restart: more nodes, then fewer; ports, directories and flatfiles of the members
    that are no more are gone."""
    fleet = fake(nodes=2)
    fleet.ready()
    configure(fleet, nodes=3)
    changes, _ = reload(fleet, "--restart")
    assert changes["c"]["change"] == "restart" and changes["c"]["applied"] is True
    cloud = fleet.ready(generation=2)
    assert cloud["size"] == 3 and len(fleet.pids()) == 3 and cloud["restarts"] == 0
    configure(fleet, nodes=1)
    reload(fleet, "--restart")
    cloud = fleet.ready(generation=3)
    assert cloud["size"] == 1 and len(fleet.nodes()) == 1
    port = cloud["endpoint_port"]
    assert listeners(port, port + 20) <= ports_of(cloud)
    here = sorted(p.name for p in (fleet.state_dir / "clouds/c").iterdir())
    assert here == ["0", "flatfile-0", "recovery", "state.json"], here
    # A stopped cloud has it at once, and is not started by --restart.
    fleet.cli("stop", "c", "--wait")
    configure(fleet, nodes=2)
    changes, _ = reload(fleet, "--restart")
    assert changes["c"]["applied"] is True
    cloud = fleet.cloud()
    assert cloud["state"] == "stopped" and cloud["size"] == 2 and cloud["restart_needed"] is False
    fleet.cli("start", "c", "--wait")
    assert len(fleet.pids()) == 2


def test_apply_restart(fake):
    """[fleet] apply = restart: as --restart, also for SIGHUP."""
    fleet = fake(nodes=1, fleet={"apply": "restart"})
    fleet.ready()
    configure(fleet, nodes=2)
    fleet.send(signal.SIGHUP)
    fleet.ready(generation=2)
    assert len(fleet.pids()) == 2


def test_next_generation_takes_it(fake):
    """What waits is in force when a lost cloud comes back: nobody had to restart it."""
    fleet = fake(nodes=3)
    first = fleet.ready()
    configure(fleet, nodes=2)
    reload(fleet)
    fleet.kill_member(2)
    cloud = fleet.ready(generation=2)
    assert cloud["size"] == 2 and cloud["restarts"] == 1 and cloud["endpoint"] == first["endpoint"]


def test_failed_cloud(fake, fake_jar):
    """A cloud that failed by its configuration: mended at once, started only with --restart."""
    fleet = fake(nodes=1, jar_path="/nonexistent.jar")
    fleet.wait("failed")
    configure(fleet, jar_path="/nonexistent2.jar")
    assert reload(fleet)[0]["c"]["applied"] is True
    assert fleet.cloud()["state"] == "failed"
    configure(fleet, jar_path=fake_jar)
    reload(fleet, "--restart")
    fleet.wait("ready", fatal=())


def test_fleet_keys(fake):
    """log_level is live; state_dir and the like are kept and said to need another daemon; baseport
    is a matter of those clouds that go by it, and of new ports."""
    fleet = fake(nodes=1)
    first = fleet.ready()
    moved = fleet.dir / "elsewhere"
    fleet.fleet.update(state_dir=moved, log_level="info", baseport=fleet.ports.base + 20)
    fleet.write_config()
    changes, answer = reload(fleet)
    told = {k["key"]: (k["change"], k["applied"]) for k in answer["fleet"]}
    assert told == {"state_dir": ("daemon", False), "log_level": ("live", True),
                    "baseport": ("restart", True)}, told
    assert changes["c"]["change"] == "restart" and set(keys_of(changes["c"])) == {"baseport"}
    # Said again each time, and neither done nor forgotten.
    changes, answer = reload(fleet)
    assert [k["key"] for k in answer["fleet"]] == ["state_dir"]
    assert fleet.cloud()["pending_keys"] == ["baseport"]
    assert "needs a restart of the daemon" in fleet.cli("reload").stdout
    fleet.cli("restart", "c", "--wait")
    second = fleet.cloud()
    assert second["endpoint_port"] == first["endpoint_port"] + 20
    assert not moved.exists() and (fleet.state_dir / "clouds/c/state.json").exists()


def test_added_and_order(fleets, fake_keys):
    fleet = fleets({"b": fake_keys(1)}).start()
    fleet.ready("b")
    fleet.clouds = {"a": fake_keys(1), "b": fleet.clouds["b"], "z": fake_keys(1, autostart="no")}
    fleet.write_config()
    changes, _ = reload(fleet)
    assert {n: c["change"] for n, c in changes.items()} == {
        "a": "added", "b": "unchanged", "z": "added"}
    assert [c["name"] for c in fleet.api("GET", "/v1/clouds")[1]["clouds"]] == ["a", "b", "z"]
    fleet.ready("a")
    assert fleet.cloud("z")["state"] == "stopped"
    assert fleet.cloud("b")["generation"] == 1


def test_removed_while_running(fleets, fake_keys):
    """A removed cloud is stopped in order; no process, port, state or temporary file stays, its
    logs do. Who waits for it gets an answer."""
    fleet = fleets({"a": fake_keys(1), "c": fake_keys(3, knobs="-Dfake.term_ms=3000", stop_timeout="10s")}).start()
    fleet.ready("a"), fleet.ready("c")
    pids, ports = fleet.pids("c"), ports_of(fleet.cloud("c"))
    answers = {}

    def ask(goal):
        connection = UnixHTTP(fleet.socket, 30 * SLOW)
        with contextlib.closing(connection):
            connection.request("GET", f"/v1/clouds/c?wait={goal}&timeout=60s")
            answer = connection.getresponse()
            answers[goal] = answer.status, json.loads(answer.read())

    # "ready" it is at first: so stop nothing before the other waits.
    waiting = threading.Thread(target=ask, args=("stopped",))
    waiting.start()
    gone = fleet.clouds.pop("c")
    fleet.write_config()
    changes, _ = reload(fleet)
    assert changes["c"]["change"] == "removed" and changes["a"]["change"] == "unchanged"
    cloud = fleet.cloud("c")
    assert cloud["removed"] is True and cloud["state"] == "stopping"
    assert "removed from the configuration" in fleet.cli("status", "c", code=None).stdout
    ask("ready")
    assert answers["ready"][0] == 410 and "no-such-cloud" in answers["ready"][1]["type"]
    status, problem = fleet.api("POST", "/v1/clouds/c/start")
    assert status == 410 and "not in the configuration any more" in problem["detail"]

    until("c is gone", 10, lambda: fleet.api("GET", "/v1/clouds/c")[0] == 404)
    waiting.join(20 * SLOW)
    assert answers["stopped"][0] in (200, 404), answers
    assert not any(pid_alive(pid) for pid in pids)
    assert not listeners(min(ports), max(ports)) & ports
    assert not (fleet.state_dir / "clouds/c").exists()
    assert (fleet.log_dir / "c/0.log").exists()
    assert fleet.cloud("a")["generation"] == 1

    fleet.clouds["c"] = gone
    fleet.write_config()
    assert reload(fleet)[0]["c"]["change"] == "added"
    fleet.ready("c")


def test_recovery_directory_survives(fake, fleets, fake_keys):
    """What a grid search left for its resumption is not removed with the cloud."""
    fleet = fleets({"a": fake_keys(1), "c": fake_keys(1)}).start()
    fleet.ready("c")
    kept = fleet.state_dir / "clouds/c/recovery/grid"
    kept.write_text("models")
    gone = fleet.clouds.pop("c")
    fleet.write_config()
    reload(fleet)
    until("c is gone", 10, lambda: fleet.api("GET", "/v1/clouds/c")[0] == 404)
    assert sorted(p.name for p in (fleet.state_dir / "clouds/c").iterdir()) == ["recovery"]
    assert kept.read_text() == "models"
    fleet.clouds["c"] = gone


def test_over_a_new_daemon(fake):
    """A restart that is needed is needed still for the next daemon, also for what was changed while
    there was none: it takes back the members as they were launched, and nobody is disturbed."""
    fleet = fake(nodes=2, context_path="/one")
    first = fleet.ready()
    pids = fleet.pids()
    configure(fleet, max_mem_size="80m")
    reload(fleet)
    fleet.kill_daemon()
    configure(fleet, nodes=3, context_path="/two", hang_timeout="5s", late_after="1s")
    fleet.start()
    cloud = fleet.ready()
    assert cloud["endpoint"] == first["endpoint"] and cloud["generation"] == 1
    assert cloud["pending_keys"] == ["nodes", "max_mem_size", "context_path"]
    assert fleet.pids() == pids
    fleet.cli("restart", "c", "--wait")
    cloud = fleet.cloud()
    assert cloud["size"] == 3 and cloud["endpoint"].endswith("/two") and not cloud["pending_keys"]
    assert "-Xmx80m" in argv_of(fleet.pids()[2])


# --- nothing, or nothing yet ----------------------------------------------------------------------


def test_dry_run(fake, fake_keys):
    """Every kind of change, shown and not done: the status is the same, byte for byte."""
    fleet = fake(nodes=2)
    fleet.ready()
    before, log = still(fleet), read(fleet.daemon_log)
    fleet.clouds = {"new": fake_keys(1), "c": {**fleet.clouds["c"], "nodes": 3}}
    fleet.write_config()
    changes, answer = reload(fleet, "--dry-run")
    assert answer["dry_run"] is True
    assert changes["new"]["change"] == "added" and changes["c"]["applied"] is False
    changes, _ = reload(fleet, "--dry-run", "--restart")
    assert changes["c"]["change"] == "restart" and changes["c"]["applied"] is True
    fleet.clouds = {"new": fake_keys(1)}
    fleet.write_config()
    changes, _ = reload(fleet, "--dry-run")
    assert changes["c"]["change"] == "removed"
    assert "Nothing was changed" in fleet.cli("reload", "--dry-run").stdout
    assert still(fleet) == before
    assert "reload" not in read(fleet.daemon_log)[len(log):]
    fleet.clouds = {"c": fake_keys(2)}


def test_refused_whole(fake):
    """With an error anywhere nothing changes, and all errors are told with their lines."""
    fleet = fake(nodes=1)
    fleet.ready()
    before = still(fleet)
    good = read(fleet.config)
    fleet.config.write_text(good.replace("nodes = 1", "nodes = 2\nhang_timeout = 1h\nnode = 3")
                            + "\n[clod x]\n")
    for args in ((), ("--dry-run",), ("--restart",)):
        refused = fleet.cli("reload", *args, code=1)
        lines = refused.stderr.splitlines()
        assert f"{fleet.config}:" in lines[0] and "unknown key 'node'; did you mean 'nodes'?" in lines[0]
        assert "unknown section 'clod x'" in lines[1]
        assert "nothing was changed" in lines[2] and refused.stdout == ""
    status, problem = fleet.api("POST", "/v1/reload")
    assert status == 422 and problem["type"] == "urn:h2ofleet:problem:bad-configuration"
    assert len(problem["errors"]) == 2
    _, answer = reload(fleet, code=1)
    assert len(answer["errors"]) == 2
    fleet.send(signal.SIGHUP)
    until("SIGHUP is refused, too", 5,
          lambda: "reload: refused" in read(fleet.daemon_log).partition("SIGHUP")[2])
    assert still(fleet) == before

    fleet.config.unlink()
    assert "cannot be read" in fleet.cli("reload", code=1).stderr
    assert still(fleet) == before
    fleet.config.write_text(good)
    assert reload(fleet)[0]["c"]["change"] == "unchanged"


def test_sighup(fake):
    fleet = fake(nodes=1)
    fleet.ready()
    configure(fleet, nodes=2, hang_timeout="1h")
    fleet.send(signal.SIGHUP)
    until("the need of a restart", 5, lambda: fleet.cloud()["restart_needed"])
    assert "reload: cloud c: changed: nodes, hang_timeout" in read(fleet.daemon_log)
    assert fleet.cloud()["state"] == "ready"


def test_while_ending(fake):
    """A reload while the daemon stops its clouds is refused with a sentence."""
    fleet = fake(nodes=1, knobs="-Dfake.term_ms=2500")
    fleet.ready()
    configure(fleet, nodes=2)
    fleet.send(signal.SIGTERM)
    fleet.wait("stopping")
    status, problem = fleet.api("POST", "/v1/reload?restart=yes")
    assert status == 503 and "ending" in problem["detail"]
    fleet.send(signal.SIGHUP)
    assert fleet.wait_exit() == 0
    assert "the daemon is ending" in read(fleet.daemon_log)


def test_not_for_the_group(fake):
    """The route shows privileged values and starts what the files say: root and the daemon's user
    only. (Peers of the socket's group get 403; here: that the parameters are checked.)"""
    fleet = fake(nodes=1, autostart="no")
    assert fleet.api("POST", "/v1/reload?dry_run=1")[0] == 400
    assert fleet.api("POST", "/v1/reload?retsart=yes")[0] == 400
    assert fleet.api("GET", "/v1/reload")[0] == 405
    assert fleet.cli("reload", "c", code=2)


# --- at the worst time ----------------------------------------------------------------------------


def test_removed_and_taken_back(fleets, fake_keys):
    """Removed and configured again while it still stops: stopped to the end, then started with the
    newest configuration, as the same cloud."""
    fleet = fleets({"a": fake_keys(1), "c": fake_keys(2, knobs="-Dfake.term_ms=2500", stop_timeout="10s")}).start()
    fleet.ready("c")
    old = fleet.pids("c")
    fleet.clouds.pop("c")
    fleet.write_config()
    reload(fleet)
    assert fleet.cloud("c")["removed"] is True
    fleet.clouds["c"] = fake_keys(3)
    fleet.write_config()
    assert reload(fleet)[0]["c"]["change"] == "added"
    assert fleet.cloud("c")["removed"] is False
    cloud = fleet.ready("c", generation=2)
    assert cloud["size"] == 3 and not any(pid_alive(pid) for pid in old)
    assert not set(old) & set(fleet.pids("c"))


def test_removed_at_every_stage(fleets, fake_keys):
    """While it starts, forms, recovers, waits in backoff, has failed, is stopped: always gone, with
    nothing left."""
    slow = "-Dfake.ready_ms=20000"
    fleet = fleets({
        "keep": fake_keys(1),
        "forming": fake_keys(2, knobs=slow),
        "recovering": fake_keys(2, knobs="-Dfake.term_ms=1500"),
        "backoff": fake_keys(1, knobs="-Dfake.exit_at_boot_ms=50", restart_delay="60s",
                             restart_delay_max="60s"),
        "failed": fake_keys(1, jar_path="/nonexistent"),
        "stopped": fake_keys(1, autostart="no"),
    }).start()
    fleet.ready("keep"), fleet.ready("recovering")
    until("forming", 10, lambda: len(fleet.pids("forming")) == 2)
    fleet.wait("backoff", name="backoff")
    fleet.wait("failed", name="failed")
    fleet.kill_member(0, name="recovering")
    fleet.wait("recovering", name="recovering")
    fleet.clouds = {"keep": fleet.clouds["keep"]}
    fleet.write_config()
    changes, _ = reload(fleet)
    assert sum(c["change"] == "removed" for c in changes.values()) == 5
    until("only one is left", 15,
          lambda: [c["name"] for c in fleet.api("GET", "/v1/clouds")[1]["clouds"]] == ["keep"])
    assert len(fleet.members()) == 1
    assert [p.name for p in (fleet.state_dir / "clouds").iterdir()] == ["keep"]
    assert listeners(fleet.ports.base, fleet.ports.base + 63) == ports_of(fleet.cloud("keep"))


def test_ports_change_hands(fleets, fake_keys):
    """Two clouds swap their ports, and a new one takes those of a removed one: each waits until the
    other has let go of them, none fails."""
    fleet = fleets({"a": {}, "b": {}, "old": {}})
    base = fleet.ports.base
    fleet.clouds = {"a": fake_keys(1, port=base), "b": fake_keys(1, port=base + 3),
                    "old": fake_keys(2, knobs="-Dfake.term_ms=500", port=base + 6)}
    fleet.write_config()
    fleet.start()
    for name in fleet.clouds:
        fleet.ready(name)
    fleet.clouds = {"a": fake_keys(1, port=base + 3), "b": fake_keys(1, port=base),
                    "new": fake_keys(1, port=base + 8)}
    fleet.write_config()
    changes, _ = reload(fleet, "--restart")
    assert {n: c["change"] for n, c in changes.items()} == {
        "a": "restart", "b": "restart", "new": "added", "old": "removed"}
    for name, port in (("a", base + 3), ("b", base), ("new", base + 8)):
        until(f"{name} at its new port", 20, lambda: (
            fleet.cloud(name)["state"] != "failed"
            and fleet.cloud(name)["endpoint_port"] == port))


def test_waits_for_a_port_of_a_running_cloud(fleets, fake_keys):
    """A port that another cloud keeps until its restart: backoff, with a sentence, no failure."""
    fleet = fleets({"a": {}})
    base = fleet.ports.base
    fleet.clouds = {"a": fake_keys(1, port=base)}
    fleet.write_config()
    fleet.start()
    fleet.ready("a")
    fleet.clouds = {"a": fake_keys(1, port=base + 8), "b": fake_keys(1, port=base)}
    fleet.write_config()
    reload(fleet)
    waiting = fleet.wait("backoff", name="b")
    assert "of cloud a; waits until that one is stopped or restarted" in waiting["reason"]
    fleet.cli("restart", "a", "--wait")
    fleet.ready("b", timeout=30)


def test_fifty_in_a_row(fleets, fake_keys):
    """Reloads of all kinds, without a pause, while members die: in the end all is as the last
    configuration says, and (with sanitizers) not a byte was lost."""
    rng = random.Random(4711)
    fleet = fleets({"keep": fake_keys(1)}).start()
    names = ["keep", "x", "y"]

    def some():
        clouds = {"keep": fake_keys(1)}
        for name in names[1:]:
            if rng.random() < 0.7:
                clouds[name] = fake_keys(
                    rng.randint(1, 3), hang_timeout=rng.choice(["30s", "60s"]),
                    max_mem_size=rng.choice(["64m", "80m"]),
                    autostart=rng.choice(["yes", "yes", "no"]))
        return clouds

    for i in range(50):
        fleet.clouds = some()
        fleet.write_config()
        reload(fleet, *rng.choice([(), (), ("--restart",), ("--dry-run",)]))
        with contextlib.suppress(AssertionError, IndexError, TypeError, ProcessLookupError):
            if rng.random() < 0.3:
                fleet.kill_member(0, name=rng.choice(names))
    fleet.clouds = {"keep": fake_keys(1), "x": fake_keys(2), "y": fake_keys(3)}
    fleet.write_config()
    reload(fleet, "--restart")
    for name, size in (("keep", 1), ("x", 2), ("y", 3)):
        fleet.cli("start", name)
        assert fleet.wait("ready", name=name, fatal=())["size"] == size
        assert fleet.cloud(name)["restart_needed"] is False
    assert len(fleet.members()) == 6
    descriptors = len(os.listdir(f"/proc/{fleet.daemon.pid}/fd"))
    assert descriptors < 100, descriptors


def test_no_file_any_more():
    """Files that were moved away do not stop every cloud. (Not with --config: in the usual place, of
    a user, since root's is the system's.)"""
    home = pathlib.Path(tempfile.mkdtemp(prefix="h2ofleet-e2e."))
    usual = home / "config/h2ofleet"
    usual.mkdir(parents=True)
    (usual / "h2ofleet.conf").write_text("[cloud c]\nautostart = no\n")
    as_user = {}
    if os.geteuid() == 0:
        as_user = {"user": 65534, "group": 65534, "extra_groups": []}
        for path in (home, usual.parent, usual):
            os.chown(path, 65534, 65534)
    env = {**os.environ, "XDG_CONFIG_HOME": str(home / "config"), "XDG_RUNTIME_DIR": str(home),
           "XDG_STATE_HOME": str(home / "state"), "XDG_CACHE_HOME": str(home / "cache")}
    for name in ("RUNTIME", "STATE", "CACHE", "LOGS"):
        env.pop(f"{name}_DIRECTORY", None)
    log = home / "log"
    try:
        with open(log, "wb") as out:
            daemon = subprocess.Popen([*WRAPPER, H2OFLEETD], stdin=subprocess.DEVNULL, stdout=out,
                                      stderr=out, env=env, cwd=home, **as_user)
    except PermissionError:
        shutil.rmtree(home)
        pytest.skip("that user may not run this build")
    try:
        until("it runs", 10, lambda: "control socket" in read(log))
        (usual / "h2ofleet.conf").rename(usual / "away")
        daemon.send_signal(signal.SIGHUP)
        until("a refusal", 5, lambda: "reload: refused" in read(log))
        assert "there is no configuration file any more" in read(log)
        (usual / "h2ofleet.conf").write_text("")
        daemon.send_signal(signal.SIGHUP)
        until("the default cloud instead", 5, lambda: "cloud c: removed" in read(log))
    finally:
        daemon.terminate()
        assert daemon.wait(20 * SLOW) == 0, read(log)
        shutil.rmtree(home)
