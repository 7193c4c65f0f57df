"""The service as installed, under a real systemd, with fake nodes."""

import contextlib
import os
import pathlib
import re
import signal
import sys
import time

import pytest

from service import (ENDPOINTS, REAL_JAR, REPO, builders, environment, gates, jvms, launched, pid_alive,
                     read, run, until, wedge)

SECRETS = (b"NOTIFY_", b"LISTEN_", b"WATCHDOG_", b"INVOCATION_ID", b"JOURNAL_STREAM", b"MAINPID",
           b"SYSTEMD_EXEC_PID", b"MANAGERPID", b"STATE_DIRECTORY", b"RUNTIME_DIRECTORY")


# --- start ----------------------------------------------------------------------------------------


def test_start(service):
    """`systemctl start` returns once the nodes run and the client gets answers, as user h2ofleet;
    the status is one true line from then to the end."""
    service.configure()
    service.start()
    assert service.cloud()["state"] in ("forming", "ready")
    until("two nodes", 1, lambda: len(jvms()) == 2)
    pids = jvms()
    service.ready()
    assert jvms() == pids
    uid = int(run("id", "-u", "h2ofleet"))
    assert {os.stat(f"/proc/{p}").st_uid for p in [*pids, service.pid()]} == {uid}
    service.wait_until("the line", lambda: service.show("StatusText") == "1 of 1 clouds usable")
    service.client("stop", "c", "--wait")
    assert service.show("StatusText") == "0 of 1 clouds usable, 1 stopped"


def test_what_nodes_inherit(fleet):
    """None of systemd's variables, and not what the OOM killer is told about the daemon."""
    for pid in jvms():
        names = [e for e in environment(pid) if e.startswith(SECRETS)]
        assert not names, names
        assert int(read(f"/proc/{pid}/oom_score_adj")) >= 0


def test_ready_when_clouds(service):
    """The start lasts until the cloud is ready, longer than TimeoutStartSec=, for which the daemon
    asks."""
    service.drop_in(TimeoutStartSec="1s")
    service.configure(knobs="-Dfake.boot_ms=2500", fleet={"ready_when": "clouds"})
    begun = time.monotonic()
    service.start()
    assert time.monotonic() - begun > 2.4
    assert service.generation()[0] == 1


def test_ready_when_a_cloud_cannot(service):
    """A cloud that fails does not keep the start from its end, and the status says why."""
    service.configure(jar_path="/nowhere/h2o.jar", fleet={"ready_when": "clouds"})
    service.start()
    line = service.show("StatusText")
    assert "0 of 1 clouds usable; c is failed" in line and "/nowhere/h2o.jar" in line


def test_wrong_configuration(service):
    """Is not tried again, since that does not help; the status has the sentence."""
    service.configure(nodes="none")
    status, said = service.ctl("start", "h2ofleetd.service", code=None)
    assert status != 0, said
    assert service.show("ExecMainStatus") == "78"
    service.wait_until("failed", lambda: service.show("ActiveState") == "failed")
    assert service.show("NRestarts") == "0"
    assert "nodes" in service.show("StatusText")


# --- reload ---------------------------------------------------------------------------------------


def test_reload(fleet):
    """`systemctl reload` applies a change, and fails when the change is refused."""
    if "reload" not in fleet.client("--help"):
        pytest.skip("this h2ofleet has no reload yet")
    before = fleet.generation()
    fleet.configure(hang_timeout="70s")
    fleet.ctl("reload", "h2ofleetd.service")
    assert fleet.generation() == before
    fleet.configure(nodes="none")
    status, said = fleet.ctl("reload", "h2ofleetd.service", code=None)
    assert status != 0, said
    assert fleet.show("ActiveState") == "active" and fleet.generation() == before
    fleet.wait_until("the line", lambda: fleet.show("StatusText").startswith("1 of 1"))


# --- the daemon goes, the clouds stay -------------------------------------------------------------


def test_restart_keeps_the_clouds(fleet):
    before, old = fleet.generation(), fleet.pid()
    fleet.restart()
    assert fleet.pid() != old
    assert fleet.generation() == before


def test_reexec(service):
    """systemd sees the same process go on, answer its watchdog, and keep systemd's socket."""
    service.drop_in(WatchdogSec="1s")
    service.configure()
    service.start("h2ofleetd.socket")
    service.start()
    service.ready()
    before, pid, inode = service.generation(), service.pid(), service.socket.stat().st_ino
    service.client("reexec")
    time.sleep(2)  # two watchdogs
    assert service.pid() == pid and service.show("NRestarts") == "0"
    assert service.generation() == before
    assert service.show("StatusText") == "1 of 1 clouds usable"
    assert service.socket.stat().st_ino == inode


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_crash_keeps_the_clouds(fleet, sig):
    """systemd starts another daemon, which takes over; and brings back the cloud later."""
    before, old = fleet.generation(), fleet.pid()
    os.kill(old, sig)
    fleet.wait_new_daemon(old)
    assert fleet.generation() == before
    if sig == signal.SIGKILL:
        os.kill(before[2][0], signal.SIGKILL)
        fleet.wait_until("generation 2", lambda: fleet.cloud()["generation"] == 2)
        fleet.ready()


def test_watchdog(service):
    """A daemon that hangs is replaced; the clouds do not notice."""
    service.drop_in(WatchdogSec="1s", TimeoutAbortSec="1s")
    service.configure()
    service.start()
    service.ready()
    before, old = service.generation(), service.pid()
    time.sleep(2.5)  # a healthy one is left alone
    assert service.pid() == old
    wedge(old)
    service.wait_new_daemon(old)
    assert service.generation() == before


def test_restart_of_a_hanging_daemon_keeps_the_clouds(service):
    """It cannot detach: systemd kills it, and its clouds stay."""
    service.drop_in(TimeoutStopSec="1s")
    service.configure()
    service.start()
    service.ready()
    before, old = service.generation(), service.pid()
    wedge(old)
    service.restart()
    assert service.pid() != old
    assert service.generation() == before


# --- a stop ends all ------------------------------------------------------------------------------


def test_stop(fleet):
    """Nothing is left: no process, no port, no temporary file; and no failure is told."""
    pids = jvms()
    fleet.stop()
    assert not [p for p in pids if pid_alive(p)] and not jvms()
    assert fleet.show("ActiveState") == "inactive" and fleet.show("Result") == "success"
    assert fleet.show("ActiveState", "h2ofleetd-stop.service") == "inactive"
    assert not list(fleet.state.glob("clouds/*/*/tmp/*"))


def test_stop_takes_its_time(service):
    """Nodes that ignore SIGTERM take longer than TimeoutStopSec=, for which the daemon asks."""
    service.drop_in(TimeoutStopSec="1s")
    service.configure(knobs="-Dfake.ignore_term=1")
    service.start()
    service.ready()
    service.stop()
    assert not jvms()
    assert service.show("Result") == "success"


def crash(service):
    pid = service.pid()
    os.kill(pid, signal.SIGKILL)
    return pid


def test_stop_while_it_waits_for_its_next_start(service):
    service.drop_in(RestartSec="1h")
    service.configure()
    service.start()
    service.ready()
    crash(service)
    service.wait_until("auto-restart", lambda: service.show("SubState") == "auto-restart")
    assert len(jvms()) == 2
    service.stop()
    assert not jvms()
    assert service.show("SubState") == "dead"


def test_stop_after_systemd_gave_it_up(service):
    """Failed, its clouds alive: a stop ends them; so does a start keep them."""
    service.drop_in(Restart="no")
    service.configure()
    service.start()
    service.ready()
    before = service.generation()
    crash(service)
    service.wait_until("failed", lambda: service.show("ActiveState") == "failed")
    service.start()
    assert service.generation() == before, "adopted"
    crash(service)
    service.wait_until("failed", lambda: service.show("ActiveState") == "failed")
    assert len(jvms()) == 2
    service.stop()
    assert not jvms()


def test_stop_of_a_hanging_daemon(service):
    service.drop_in(TimeoutStopSec="1s")
    service.configure()
    service.start()
    service.ready()
    wedge(service.pid())
    service.stop()
    assert not jvms()


def test_crash_while_stopping(service):
    """The nodes resist, and the daemon is killed in the middle of its stop."""
    service.configure(knobs="-Dfake.ignore_term=1")
    service.start()
    service.ready()
    service.ctl("stop", "--no-block", "h2ofleetd.service")
    service.wait_until("stopping", lambda: service.show("StatusText").startswith("Stopping"))
    crash(service)
    service.stop()
    assert not jvms()
    assert service.show("ActiveState") in ("inactive", "failed")


def test_start_after_such_a_stop(service):
    """The mark of a stop does not outlive it: the next crash keeps the clouds."""
    service.configure()
    service.start()
    service.stop()
    service.start()
    service.ready()
    before, old = service.generation(), service.pid()
    os.kill(old, signal.SIGKILL)
    service.wait_new_daemon(old)
    assert service.generation() == before


def test_end_left_behind_by_hand(fleet):
    """Refuses while a daemon is in charge, naming it."""
    before = fleet.generation()
    status, said = run(
        "runuser", "-u", "h2ofleet", "--", "env", "XDG_CONFIG_HOME=/etc",
        "STATE_DIRECTORY=/var/lib/h2ofleet", "h2ofleetd", "--end-left-behind", code=None)
    assert status == 79 and str(fleet.pid()) in said, said
    assert fleet.generation() == before


def test_stop_when_the_configuration_is_broken(service):
    """A crash, then a configuration that nobody can read: a stop ends the clouds all the same."""
    service.drop_in(Restart="no")
    service.configure()
    service.start()
    service.ready()
    service.configure(nodes="none")
    crash(service)
    service.wait_until("failed", lambda: service.show("ActiveState") == "failed")
    assert len(jvms()) == 2
    service.stop()
    assert not jvms()


# --- socket activation ----------------------------------------------------------------------------


def test_socket_activation(service):
    """A question starts the daemon; one that is asked while it restarts waits; systemd's socket is
    still there after a stop."""
    service.configure()
    service.start("h2ofleetd.socket")
    inode = service.socket.stat().st_ino
    assert service.show("ActiveState") == "inactive" and not jvms()
    service.client("status", code=None)
    service.wait_until("its start", lambda: service.show("ActiveState") == "active")
    service.ready()
    before, old = service.generation(), service.pid()
    service.drop_in(RestartSec="2s")
    os.kill(old, signal.SIGKILL)
    service.wait_until("its end", lambda: not pid_alive(old))
    assert service.generation() == before, "asked while there was no daemon"
    assert service.pid() != old
    service.stop()
    assert not jvms()
    info = service.socket.stat()
    assert info.st_ino == inode and info.st_mode & 0o777 == 0o660
    service.client("status", code=None)
    service.wait_until("another start", lambda: service.show("ActiveState") == "active")


def test_socket_elsewhere(service):
    """The configuration and the socket unit must name the same place; both are named."""
    service.configure(fleet={"socket": "/run/h2ofleet/other.sock"})
    service.start("h2ofleetd.socket")
    status, _ = service.ctl("start", "h2ofleetd.service", code=None)
    assert status != 0
    line = service.show("StatusText")
    assert str(service.socket) in line and "/run/h2ofleet/other.sock" in line
    assert service.socket.is_socket()


def test_endpoint_activation(service):
    """systemd listens on a cloud's endpoint: a connection starts the daemon, and the cloud, and is
    answered by it; it waits over a restart of the daemon, which keeps the gate; after a stop the next
    connection starts all of it again. Others than root and the group h2ofleet are turned away."""
    service.configure(port=54321, autostart="no", start_on="connect")
    service.write(service.units / ENDPOINTS, """
[Socket]
ListenStream=127.0.0.1:54321
Service=h2ofleetd.service
""")
    service.ctl("daemon-reload")
    service.start(ENDPOINTS)
    assert service.show("ActiveState") == "inactive" and not launched()
    ask = ("curl", "-sS", "-m", "30", "-o", "/dev/null", "-w", "%{http_code}", "127.0.0.1:54321/3/Cloud")
    assert run(*ask) == "200"
    before, old, gate = service.generation(), service.pid(), gates()
    assert len(gate) == 1 and len(jvms()) == 2
    service.restart()
    assert service.pid() != old and run(*ask) == "200"
    assert service.generation() == before and gates() == gate
    assert run("runuser", "-u", "daemon", "--", *ask, code=None)[0] != 0
    assert run("runuser", "-u", "h2ofleet", "--", *ask) == "200"
    assert run("setpriv", "--reuid=daemon", "--regid=h2ofleet", "--groups=h2ofleet", *ask, code=None)[0] != 0, \
        "the user database decides, not what a process was given"
    service.stop()
    assert not launched()
    assert run(*ask) == "200"
    service.ctl("stop", ENDPOINTS)


# --- a user's -------------------------------------------------------------------------------------


def test_user_unit(user_service):
    """The same with a user's manager and directories: start, restart, crash, stop."""
    service = user_service
    service.configure()
    service.start()
    service.ready()
    before, old = service.generation(), service.pid()
    assert service.show("StatusText") == "1 of 1 clouds usable"
    assert (service.state / "clouds/c/state.json").exists()
    service.restart()
    assert service.pid() != old and service.generation() == before
    old = crash(service)
    service.wait_new_daemon(old)
    assert service.generation() == before
    service.drop_in(RestartSec="1h")
    crash(service)
    service.wait_until("auto-restart", lambda: service.show("SubState") == "auto-restart")
    assert len(jvms()) == 2
    service.stop()
    assert not jvms()


# --- the sandbox, the journal ---------------------------------------------------------------------


def test_exposure(service):
    """As systemd itself judges it: 0 is best, 10 is worst."""
    for unit in ("h2ofleetd.service", "h2ofleetd-stop.service"):
        said = run("systemd-analyze", "security", "--no-pager", unit)
        exposure = float(re.search(r"exposure level for \S+: ([0-9.]+)", said)[1])
        assert exposure < 3.0, said


def test_units_are_well_formed(service):
    """`systemd-analyze verify` has nothing to say about ours."""
    for flag, where in (("--system", "system"), ("--user", "user")):
        units = sorted(pathlib.Path("/usr/lib/systemd", where).glob("h2ofleetd*"))
        assert len(units) == 3  # and h2ofleet-clouds.*, of which they speak
        status, said = run("systemd-analyze", "verify", flag, "--man=no", *units, code=None,
                           env={**os.environ, "XDG_RUNTIME_DIR": "/run"})
        assert status == 0 and "h2ofleetd" not in said, said


def test_journal(service):
    """log_to = journal: each node has an identifier of its own."""
    if "log_to" not in run("h2ofleetd", "--print-config"):
        pytest.skip("this h2ofleetd has no log_to yet")
    service.configure(log_to="journal")
    service.start()
    service.ready()
    for node in (0, 1):
        service.wait_until(f"lines of node {node}", lambda: run(
            "journalctl", "--no-pager", "-o", "cat", "-t", f"h2o-c-{node}").strip())


def test_boot_cache_in_the_sandbox(service):
    """The sandbox lets the boot cache be made, in the unit's cache directory, at idle priority; the
    next generation uses it, and a stop leaves nothing but the cache."""
    service.configure(nodes=1, fleet={"fast_boot_delay": "0s"})
    service.start()
    service.ready()
    policies = set()

    def made():
        for pid in builders():
            with contextlib.suppress(ProcessLookupError):
                policies.add(os.sched_getscheduler(pid))
        return list(pathlib.Path("/var/cache/h2ofleet/boot").glob("[0-9a-f]*/classes.jsa"))

    service.wait_until("an archive", made, 60)
    assert os.SCHED_IDLE in policies
    service.wait_until("its end", lambda: not builders())
    service.client("restart", "c")
    service.ready()
    service.wait_until("a look at the node", lambda: service.cloud()["boot"]["mapped"])
    service.stop()
    assert not launched()
    assert not pathlib.Path("/var/cache/h2ofleet/boot/work").exists()


# --- the real H2O ---------------------------------------------------------------------------------


@pytest.mark.timeout(240)
def test_real_h2o_in_the_sandbox(service):
    """Two real nodes train a model under the shipped unit, across a restart of the daemon."""
    jar, java = os.environ.get("H2OFLEET_JAR"), os.environ.get("H2OFLEET_JAVA")
    if not jar or not java:
        pytest.skip("H2OFLEET_JAR and H2OFLEET_JAVA are not set")
    pathlib.Path(REAL_JAR).touch()
    run("mount", "--bind", jar, REAL_JAR)
    service.configure(java=java, jar_path=REAL_JAR, max_mem_size="512m",
                      jvm_custom_args=None, stop_timeout="10s")
    service.start()
    service.client("wait", "c", "--for", "ready", "--timeout", "90s", timeout=100)
    before = service.generation()
    service.restart()
    url = service.client("connect", "c", "--url").strip()
    said = run(sys.executable, REPO / "contrib/lib/train.py", url, 2, timeout=100)
    assert "AUC" in said
    assert service.generation() == before
    service.stop()
    assert not jvms()
    assert not list(service.state.glob("clouds/*/*/tmp/*"))
