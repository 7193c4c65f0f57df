"""The daemon goes, its clouds stay: killed, detached, replaced by another version. Crash points in
detail are in tests/crash; here is what people see."""

import contextlib
import http.client
import os
import shutil
import signal
import subprocess
import threading
import time

import pytest

from fleet import H2OFLEETD, WRAPPER, pid_alive, read, until

pytestmark = pytest.mark.skipif(bool(WRAPPER), reason="the image would be the wrapper's")


def same(before, after):
    """It is the same life of the cloud, in every process of it."""
    for key in ("generation", "h2o_name", "endpoint", "restarts"):
        assert after[key] == before[key], key
    assert [n["pid"] for n in after["nodes"]] == [n["pid"] for n in before["nodes"]]


def kill_and_follow(fleet):
    fleet.kill_daemon()
    fleet.start()


# --- a new process --------------------------------------------------------------------------------


def test_takes_back(fake):
    """After kill -9 the next daemon has the same generation and pids, ready at its first answer, with
    the time since it became ready; and a client's connection to a member was not touched."""
    fleet = fake(nodes=3)
    before = fleet.ready()
    connection = http.client.HTTPConnection("127.0.0.1", before["nodes"][0]["api_port"], timeout=10)
    connection.request("GET", "/3/About")
    connection.getresponse().read()
    local = connection.sock.getsockname()
    fleet.kill_daemon()
    time.sleep(0.3)  # the uptime must include it
    fleet.start()
    after = fleet.cloud()
    assert after["state"] == "ready"
    same(before, after)
    assert after["uptime_ms"] >= before["uptime_ms"] + 300
    connection.request("GET", "/3/About")
    assert connection.getresponse().status == 200 and connection.sock.getsockname() == local
    events = fleet.cli("events", "--json").stdout
    assert '"cloud-adopted"' in events


def test_supervises_what_it_adopted(fake):
    """A member that is killed after adoption: why it died is known, the cloud comes back as the next
    generation on the same ports, and the members that were adopted are ended first."""
    fleet = fake(nodes=3)
    before = fleet.ready()
    kill_and_follow(fleet)
    fleet.kill_member(1)
    after = fleet.ready(generation=before["generation"] + 1)
    assert [n["api_port"] for n in after["nodes"]] == [n["api_port"] for n in before["nodes"]]
    assert not any(pid_alive(n["pid"]) for n in before["nodes"])
    assert "SIGKILL, not by us" in after["nodes"][1]["last_exit"]["why"]
    assert after["restarts"] == 1


def test_died_meanwhile(fake):
    """A member that died while no daemon was there is noticed at once, and the cloud comes back."""
    fleet = fake(nodes=2)
    before = fleet.ready()
    fleet.kill_daemon()
    os.kill(before["nodes"][1]["pid"], signal.SIGKILL)
    fleet.start()
    after = fleet.ready(generation=before["generation"] + 1)
    assert after["nodes"][1]["last_exit"]["cause"] in ("unknown", "signal")


def test_what_was_stopped_stays_stopped(fleets, fake_keys):
    """A cloud that the operator stopped is not started by a daemon that follows a killed one, autostart
    or not; one that was started by hand goes on. After an orderly end autostart rules again."""
    fleet = fleets({"on": fake_keys(1), "off": fake_keys(1, autostart="no")})
    fleet.start()
    fleet.ready("on")
    fleet.cli("stop", "on", "--wait")
    fleet.cli("start", "off", "--wait")
    kill_and_follow(fleet)
    assert fleet.cloud("on")["state"] == "stopped" and fleet.cloud("off")["state"] == "ready"
    assert fleet.stop() == 0
    fleet.start()
    fleet.ready("on")
    assert fleet.cloud("off")["state"] == "stopped"


def test_stop_goes_on(fake):
    """A stop that was under way when the daemon was killed is finished by the next."""
    fleet = fake(nodes=2, stop_timeout="2s", knobs="-Dfake.ignore_term=1")
    fleet.ready()
    fleet.cli("stop", "c")
    fleet.wait("stopping")
    kill_and_follow(fleet)
    fleet.wait("stopped", timeout=20)
    assert fleet.members() == {}


def test_failures_are_remembered(fake):
    """The start limit counts over daemons: killing the daemon does not give a hopeless cloud new
    attempts."""
    fleet = fake(nodes=1, start_limit="3 in 10m", restart_delay_max="0s")
    fleet.ready()
    for generation in (2, 3):
        fleet.kill_member(0)
        fleet.ready(generation=generation)
        kill_and_follow(fleet)
    fleet.kill_member(0)
    assert "given up after 3 failures" in fleet.wait("failed")["reason"]
    kill_and_follow(fleet)
    assert fleet.cloud()["state"] == "failed"


def test_detach(fake):
    """SIGUSR2 ends the daemon alone, in order; the next one adopts."""
    fleet = fake(nodes=2)
    before = fleet.ready()
    assert fleet.stop(signal.SIGUSR2) == 0
    assert not fleet.socket.exists()
    assert all(pid_alive(n["pid"]) for n in before["nodes"])
    fleet.start()
    same(before, fleet.cloud())


def test_many_kills(fake):
    """Thirty daemons in a row, each killed at another moment of its start, over one cloud."""
    fleet = fake(nodes=3)
    before = fleet.ready()
    for i in range(30):
        fleet.kill_daemon()
        fleet.daemon = fleet.spawn()
        time.sleep(i / 1000)
    fleet.kill_daemon()
    fleet.start()
    same(before, fleet.cloud())


# --- a new image in the same process --------------------------------------------------------------


@pytest.fixture
def upgradable(fleets, fake_keys, tmp_path):
    """A fleet whose daemon's program is a file of the test's own, which can be replaced."""
    program = tmp_path / "h2ofleetd"
    shutil.copy(H2OFLEETD, program)
    fleet = fleets({"c": fake_keys(3)})
    fleet.program = str(program)

    def spawn(*args):
        with open(fleet.daemon_log, "ab") as log:
            daemon = subprocess.Popen(
                [str(program), "--config", str(fleet.config), *args], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, env=fleet.env(), cwd=fleet.dir, start_new_session=True)
        fleet.daemons.append(daemon)
        return daemon

    fleet.spawn = spawn
    fleet.start()
    yield fleet


def replace(fleet, data):
    """As a package manager does it: beside it, and renamed over."""
    with open(fleet.program + ".new", "wb") as f:
        f.write(data)
    os.chmod(fleet.program + ".new", 0o755)
    os.rename(fleet.program + ".new", fleet.program)


def test_reexec(upgradable):
    """`reexec` after the program's file was replaced: same pid, same children (their exit status is
    still known), same socket and ports; it runs the new file; twice."""
    fleet = upgradable
    before = fleet.ready()
    pid, inode = fleet.daemon.pid, os.stat(fleet.socket).st_ino
    with open(H2OFLEETD, "rb") as f:
        image = f.read()
    for times in (1, 2):
        replace(fleet, image)
        assert f"pid {pid}, as before" in fleet.cli("reexec").stdout
        assert fleet.api("GET", "/v1/version")[1]["reexecs"] == times
        assert os.stat(f"/proc/{pid}/exe").st_ino == os.stat(fleet.program).st_ino
        same(before, fleet.cloud())
    assert os.stat(fleet.socket).st_ino == inode
    assert "H2OFLEET_HANDOVER" not in read(f"/proc/{before['nodes'][0]['pid']}/environ")
    fleet.kill_member(2)
    after = fleet.ready(generation=2)
    assert after["nodes"][2]["last_exit"]["signal"] == "SIGKILL"
    assert "H2OFLEET_HANDOVER" not in read(f"/proc/{after['nodes'][0]['pid']}/environ")


def test_reexec_by_signal(upgradable):
    """SIGUSR1 does the same."""
    fleet = upgradable
    before = fleet.ready()
    fleet.send(signal.SIGUSR1)

    def replaced():
        with contextlib.suppress(OSError, http.client.HTTPException):
            return fleet.api("GET", "/v1/version")[1]["reexecs"] == 1

    until("the new image", 10, replaced)
    same(before, fleet.cloud())


@pytest.mark.parametrize("image, why", [
    (b"#!/bin/sh\necho it is broken; exit 3\n", "it is broken"),
    (b"\x7fELF nonsense", "cannot execute"),
    (None, "cannot execute"),
], ids=["refuses", "no program", "gone"])
def test_bad_image(upgradable, image, why):
    """A new image that cannot run here: the old one goes on, says why, and works."""
    fleet = upgradable
    before = fleet.ready()
    if image is None:
        os.unlink(fleet.program)
    else:
        replace(fleet, image)
    assert why in fleet.cli("reexec", code=1).stderr
    same(before, fleet.cloud())
    assert fleet.api("GET", "/v1/version")[1]["reexecs"] == 0
    fleet.kill_member(0)
    fleet.ready(generation=2)


def test_bad_configuration_at_reexec(upgradable):
    """The new image reads the configuration; when that is wrong, the old image goes on."""
    fleet = upgradable
    before = fleet.ready()
    fleet.config.write_text(fleet.config.read_text() + "\nnonsense = 1\n")
    assert "nonsense" in fleet.cli("reexec", code=1).stderr
    same(before, fleet.cloud())
    fleet.write_config()
    fleet.cli("reexec")


def test_state_of_another_form_at_reexec(upgradable):
    """An image that could not read the state files (another form) is not become: --check-state says
    so, naming the file."""
    fleet = upgradable
    fleet.ready()
    path = fleet.state_dir / "clouds" / "c" / "state.json"
    good = path.read_text()
    path.write_text(good.replace('"version": 2', '"version": 3'))
    status, said = fleet.run_daemon("--check-state")
    assert status == 1 and str(path) in said and "another version" in said
    path.write_text(good)
    assert fleet.run_daemon("--check-state") == (0, "")


def test_requests_wait_over_reexec(upgradable):
    """Clients that ask all the time are answered all the time: connections queue in the socket that
    both images share; at most a connection that was open is cut."""
    fleet = upgradable
    fleet.ready()
    refused, answers, stop = [], [], threading.Event()

    def ask():
        while not stop.is_set():
            try:
                answers.append(fleet.api("GET", "/v1/clouds/c")[1]["state"])
            except (ConnectionRefusedError, FileNotFoundError) as e:
                refused.append(e)
            except (OSError, http.client.HTTPException):
                pass  # it was being answered

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for t in threads:
        t.start()
    try:
        for _ in range(5):
            fleet.cli("reexec")
    finally:
        stop.set()
        for t in threads:
            t.join()
    assert not refused and set(answers) == {"ready"}


def test_signal_meanwhile(upgradable):
    """A SIGTERM that comes while the image is replaced is not lost."""
    fleet = upgradable
    fleet.ready()
    fleet.send(signal.SIGUSR1)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and "replacing" not in fleet.log_tail():
        time.sleep(0.001)
    fleet.send(signal.SIGTERM)
    assert fleet.wait_exit() == 0
    assert fleet.members() == {}


def test_no_descriptor_leaks(upgradable):
    """Image after image holds as many descriptors."""
    fleet = upgradable
    fleet.ready()

    def descriptors():
        with contextlib.suppress(OSError):
            return len(os.listdir(f"/proc/{fleet.daemon.pid}/fd"))

    fleet.cli("reexec")
    until("a quiet daemon", 10, lambda: fleet.cloud()["state"] == "ready")
    first = descriptors()
    for _ in range(5):
        fleet.cli("reexec")
    until(f"at most {first} descriptors", 10, lambda: descriptors() <= first + 2)


@pytest.mark.parametrize("how", ["reexec", "kill"])
def test_waiting_client(fake, how):
    """A client that waits for a cloud outlasts the daemon: it asks the next one."""
    fleet = fake(nodes=2, start=False, autostart="no", knobs="-Dfake.ready_ms=3000")
    fleet.start()
    waiter = subprocess.Popen(
        [os.environ["H2OFLEET"], "--socket", str(fleet.socket), "start", "c", "--wait", "--timeout", "60s"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=fleet.env())
    fleet.wait("forming")
    if how == "reexec":
        fleet.cli("reexec")
    else:
        kill_and_follow(fleet)
    said, _ = waiter.communicate(timeout=60)
    assert waiter.returncode == 0 and "c is ready" in said, said
    assert fleet.cloud()["generation"] == 1


# --- at the worst moment --------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["stop", "restart", "start"])
def test_command_that_nobody_took(fake, verb):
    """A command that waits in the socket of a daemon that hangs, and is killed: the client does not
    say that it was done."""
    fleet = fake(nodes=1)
    before = fleet.ready()
    fleet.send(signal.SIGSTOP)
    client = subprocess.Popen(
        [os.environ["H2OFLEET"], "--socket", str(fleet.socket), verb, "c", "--wait"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=fleet.env())
    until("it is in the backlog", 10, lambda: "poll" in read(f"/proc/{client.pid}/wchan"))
    fleet.killed = True
    fleet.daemon.kill()
    fleet.daemon.wait()
    fleet.start()
    said, _ = client.communicate(timeout=30)
    assert client.returncode == 1 and "did not answer" in said, said
    same(before, fleet.cloud())


def test_started_by_hand_before(fake):
    """A cloud without autostart that was started by hand: after an orderly end and a new start nobody
    wants it, so nobody waits for it."""
    fleet = fake(nodes=1, autostart="no")
    fleet.cli("start", "c", "--wait")
    assert fleet.stop() == 0
    fleet.start()
    cloud = fleet.cloud()
    assert (cloud["state"], cloud["wanted"]) == ("stopped", "stopped")
    fleet.cli("wait", "c", code=3)


def test_reexec_with_another_state_dir(upgradable):
    """The state directory cannot change under what runs: refused, and nothing is lost."""
    fleet = upgradable
    before = fleet.ready()
    good = fleet.config.read_text()
    fleet.config.write_text(good.replace(f"state_dir = {fleet.state_dir}", f"state_dir = {fleet.dir}/other"))
    assert "state_dir is" in fleet.cli("reexec", code=1).stderr
    same(before, fleet.cloud())
    fleet.config.write_text(good)


def test_end_left_behind_begins_nothing(fake):
    """`--end-left-behind` after everything has died launches no JVM before it ends."""
    fleet = fake(nodes=2)
    before = fleet.ready()
    fleet.kill_daemon()
    for node in before["nodes"]:
        os.kill(node["pid"], signal.SIGKILL)
    status, said = fleet.run_daemon("--end-left-behind")
    assert status == 0 and "starting" not in said, said
    assert fleet.members() == {}


def test_detach_then_term(fake):
    """Both signals before the daemon gets to run: it leaves, and what it has left stays."""
    fleet = fake(nodes=2)
    before = fleet.ready()
    fleet.send(signal.SIGSTOP)
    fleet.send(signal.SIGUSR2)
    fleet.send(signal.SIGTERM)
    fleet.send(signal.SIGCONT)
    assert fleet.wait_exit() == 0
    fleet.start()
    if fleet.cloud()["state"] == "ready" and "leaving the clouds" in read(fleet.daemon_log):
        same(before, fleet.cloud())


def test_other_port_between_lives(fake):
    """The configured port changes while a cloud waits for its next start, and the daemon is another:
    the next life has the new port."""
    fleet = fake(nodes=1, restart_delay="4s", restart_delay_max="5s")
    fleet.ready()
    fleet.kill_member(0)
    fleet.wait("backoff")
    fleet.kill_daemon()
    fleet.clouds["c"]["port"] = f"{fleet.ports.base + 8}"
    fleet.write_config()
    fleet.start()
    assert fleet.ready(generation=2)["endpoint_port"] == fleet.ports.base + 8


def test_died_while_the_image_changed(upgradable):
    """A member that was killed just before the image changes: how it ended is still known."""
    fleet = upgradable
    fleet.ready()
    fleet.cli("reexec")  # the file is in memory
    fleet.send(signal.SIGSTOP)
    os.kill(sorted(fleet.members())[0], signal.SIGKILL)
    fleet.send(signal.SIGUSR1)
    fleet.send(signal.SIGCONT)

    def replaced():
        with contextlib.suppress(OSError, http.client.HTTPException):
            return fleet.api("GET", "/v1/version")[1]["reexecs"] == 2

    until("the new image", 10, replaced)
    after = fleet.ready(generation=2)
    exits = [n["last_exit"] for n in after["nodes"] if n["last_exit"]]
    assert any(x["signal"] == "SIGKILL" and "not by us" in x["why"] for x in exits), exits
