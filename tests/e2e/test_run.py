"""h2ofleet run, with fake nodes: what it passes on, and that nothing is ever left of it."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import pty
import pwd
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from fleet import FAKEJAVA, H2OFLEET, H2OFLEETD, SLOW, UnixHTTP, read, until
from runs import Runs, age, wait_gone


@pytest.fixture
def runs_of(fake_jar):
    """runs_of(knobs, tmpdir): a Runs with fake nodes; checked after the test."""
    made = []

    def make(knobs="", tmpdir="t"):
        runs = Runs(["--java", FAKEJAVA, "--jar", fake_jar, "-m", "64m", "--set",
                     f"jvm_custom_args=-Dfake.heartbeat_ms=100 {knobs}".strip()], tmpdir)
        made.append(runs)
        return runs

    yield make
    wrong = [sentence for runs in made for sentence in runs.close()]
    assert not wrong, "\n".join(wrong)


@pytest.fixture
def runs(runs_of):
    return runs_of()


def api(address, path="/v1/clouds/run", method="GET"):
    connection = UnixHTTP(address, 10)
    try:
        connection.request(method, path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def begun(run):
    """The first line that the command printed."""
    line = run.stdout.readline()
    assert line, run.stderr.read()
    return line.strip()


READY = 'echo "$H2OFLEET_SOCKET"; '  # then the command has begun


# --- what the command is given, and what it gives -------------------------------------------------


def test_environment_and_exit_status(runs):
    """The command finds a ready cloud of so many nodes by its environment, its output is its own,
    and its exit status is ours; when we return, all is gone."""
    script = (
        "import http.client, json, os, sys\n"
        "e = os.environ\n"
        "c = http.client.HTTPConnection(e['H2O_IP'], int(e['H2O_PORT']))\n"
        "c.request('GET', '/3/Cloud')\n"
        "cloud = json.loads(c.getresponse().read())\n"
        "print(json.dumps([e['H2O_URL'], cloud['cloud_size'], e['H2OFLEET_SOCKET'], sys.stdin.read()]))\n"
        "sys.exit(7)\n"
    )
    with open(runs.dir / "input", "w+") as given:
        given.write("what was given")
        given.seek(0)
        out, err = runs("-n", 2, "--", sys.executable, "-c", script, code=7, stdin=given)
    runs.assert_clean_now()
    url, size, socket, given = json.loads(out)
    assert size == 2 and url.startswith("http://127.0.0.1:") and given == "what was given"
    assert socket.startswith(str(runs.tmp)) and err == ""


@pytest.mark.parametrize("command, code, says", [
    (["no-such-command"], 127, "there is no such command"),
    (["/nonexistent/no-such-command"], 127, "there is no such command"),
    (["/etc"], 126, "cannot be executed"),
    (["sh", "-c", "kill -TERM $$"], 143, None),
    (["sh", "-c", "kill -KILL $$"], 137, None),
    (["sh", "-c", "exit 125"], 125, None),
])
def test_exit_codes_of_the_command(runs, command, code, says):
    """As a shell has them; what cannot be run is said before a cloud is started."""
    began = time.monotonic()
    out, err = runs("--", *command, code=code)
    runs.assert_clean_now()
    assert (says or "") in err and (says or not err)
    if says:
        assert time.monotonic() - began < 2 * SLOW and "start" not in out


@pytest.mark.parametrize("args, says", [
    ([], "which command?"),
    (["--nodse", "2", "--", "true"], "did you mean --nodes?"),
    (["-n", "0", "--", "true"], "out of range"),
    (["--set", "nods=2", "--", "true"], "did you mean 'nodes'?"),
    (["--set", "nodes", "--", "true"], "KEY=VALUE"),
    (["--jar", "/nonexistent.jar", "--", "true"], "/nonexistent.jar"),
    (["--timeout", "1", "--", "true"], "is no time"),
    (["--socket", "/s", "--", "true"], "a daemon of its own"),
])
def test_own_failures_are_125(runs, args, says):
    """What is wrong with our own options is no exit status of the command's."""
    err = runs(*args, code=125)[1]
    assert says in err
    runs.assert_clean_now()


def test_settings(runs):
    """--set takes every key of a cloud, several of them, and wins over the other options; a program
    may be named from where we are."""
    os.symlink(FAKEJAVA, runs.dir / "java")
    out = runs("-n", 1, "--java", "java", "--set", "nodes=3", "--set", "name=other", "--",
               "sh", "-c", READY + f"{H2OFLEET} status --json run", cwd=runs.dir)[0]
    cloud = json.loads(out.split("\n", 1)[1])
    cloud = cloud.get("clouds", [cloud])[0]
    assert cloud["size"] == 3 and cloud["h2o_name"].startswith("other-")


# --- what goes wrong with the cloud ---------------------------------------------------------------


def test_a_cloud_that_does_not_start(runs_of):
    """125, with the reason and the last lines of the node; the command is never run."""
    runs = runs_of("-Dfake.exit_at_boot_ms=30 -Dfake.exit_code=9")
    out, err = runs("-n", 2, "--", "echo", "it ran", code=125)
    runs.assert_clean_now()
    assert "it ran" not in out
    assert "did not become ready" in err and "exited with code 9" in err
    assert "INFO" in err, "the node's own last lines"


def test_a_daemon_that_does_not_start(runs):
    """A state directory that cannot be: 125, with what the daemon said."""
    broken = runs.dir / "sbin"
    broken.mkdir()
    shutil.copy(H2OFLEET, broken / "h2ofleet")
    (broken / "h2ofleetd").write_text("#!/bin/sh\necho 'no luck today' >&2\nexit 3\n")
    (broken / "h2ofleetd").chmod(0o755)
    done = subprocess.run([broken / "h2ofleet", "run", "--", "true"], env=runs.env(), text=True,
                          capture_output=True, timeout=30 * SLOW)
    assert done.returncode == 125 and "no luck today" in done.stderr
    runs.assert_clean_now()


def test_a_cloud_that_is_lost_meanwhile(runs):
    """It is restarted as usual, the command decides what that means, and it is said."""
    script = (
        "import json, os, signal, sys, time\n"
        f"sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})\n"
        "from fleet import UnixHTTP, until\n"
        "def cloud():\n"
        "    c = UnixHTTP(os.environ['H2OFLEET_SOCKET'], 10)\n"
        "    c.request('GET', '/v1/clouds/run')\n"
        "    return json.loads(c.getresponse().read())\n"
        "os.kill(cloud()['nodes'][1]['pid'], signal.SIGKILL)\n"
        "until('generation 2', 20, lambda: cloud()['generation'] == 2 and cloud()['state'] == 'ready')\n"
    )
    err = runs("-n", 2, "--", sys.executable, "-c", script)[1]
    runs.assert_clean_now()
    assert "restarted 1 time while the command ran" in err and "SIGKILL" in err
    assert ": -" not in err, "no reason is no dash"


def test_timeout_of_the_start(runs_of):
    """124, and what it was waiting for."""
    runs = runs_of("-Dfake.never_ready=1")
    err = runs("--timeout", "1s", "--", "true", code=124)[1]
    runs.assert_clean_now()
    assert "not ready within 1s" in err and "forming" in err


def test_timeout_of_the_command(runs):
    """SIGTERM, and 124 whatever it makes of that."""
    out, err = runs("--timeout", "1500ms", "--", "sh", "-c",
                    "trap 'echo asked; exit 0' TERM; sleep 60 >/dev/null 2>&1 & wait", code=124)
    assert out == "asked\n" and "1500ms" in err
    until("what the command left is its own", 5, lambda: runs.processes())
    for pid in runs.processes():
        os.kill(pid, signal.SIGKILL)


def test_keep_on_failure(runs):
    """With a failing command logs and state stay, where it says; with a good one nothing does."""
    runs("--keep-on-failure", "--", "true")
    runs.assert_clean_now()
    err = runs("--keep-on-failure", "-n", 2, "--", "false", code=1)[1]
    kept = pathlib.Path(err.rpartition("kept ")[2].strip())
    assert kept.parent == runs.tmp and not runs.processes()
    assert (kept / "h2ofleetd.log").exists()
    assert (kept / "log/run/0.log").exists() and (kept / "log/run/1.log").exists()
    shutil.rmtree(kept)


# --- signals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "WINCH", "ALRM"])
def test_signals_are_passed_on(runs, name):
    """Once each; the command decides."""
    run = runs.start("--", sys.executable, "-c",
                     "import os, signal, time\n"
                     "got = []\n"
                     f"signal.signal(signal.SIG{name}, lambda *a: got.append(1))\n"
                     "print(os.getpid(), flush=True)\n"
                     "while not got: time.sleep(0.01)\n"
                     "time.sleep(0.1)\n"
                     "print(len(got))\n")
    begun(run)
    run.send_signal(getattr(signal, f"SIG{name}"))
    code, out, err = runs.finish(run)
    assert (code, out, err) == (0, "1\n", "")
    runs.assert_clean_now()


def test_dispositions_are_the_callers(runs):
    """nohup's ignored SIGHUP is ignored by us and by the command; else all is default, unblocked."""
    show = ["--", "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]
    here = subprocess.run(show[1:], stdout=subprocess.PIPE, text=True, start_new_session=True).stdout
    assert runs(*show)[0] == here
    out = runs(*show, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))[0]
    ignored = int(out.split("SigIgn:")[1], 16)
    assert ignored & 1 << signal.SIGHUP - 1 and not ignored & 1 << signal.SIGPIPE - 1


@pytest.mark.parametrize("name, code", [("TERM", 143), ("INT", 130), ("HUP", 129)])
def test_signal_during_the_start(runs_of, name, code):
    """It ends what has begun; the command is never run."""
    runs = runs_of("-Dfake.never_ready=1")
    run = runs.start("-n", 2, "--", "echo", "it ran")
    until("nodes", 20, lambda: len(runs.nodes()) == 2)
    run.send_signal(getattr(signal, f"SIG{name}"))
    got, out, err = runs.finish(run)
    assert got == code and out == "" and "interrupted before the cloud was ready" in err
    runs.assert_clean_now()


def test_haste(runs_of):
    """While it ends, a signal kills nodes that do not want to."""
    runs = runs_of("-Dfake.ignore_term=1")
    began = time.monotonic()
    run = runs.start("--set", "stop_timeout=100s", "--", "sh", "-c", READY)
    begun(run)
    until("the daemon stops its nodes", 20, lambda: not runs.nodes() or run.poll() is not None
          or run.send_signal(signal.SIGTERM) or not runs.nodes(), 0.2)
    assert runs.finish(run)[0] in (0, 143)
    assert time.monotonic() - began < 50 * SLOW
    runs.assert_clean_now()


class Terminal:
    """An interactive shell in a pseudo-terminal of its own."""

    def __init__(self, runs):
        self.runs = runs
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve("/bin/bash", ["bash", "--norc", "--noprofile", "-i"],
                      runs.env(PS1="P:$?> ", TERM="xterm", HISTFILE=""))
        runs.bystanders.add(self.pid)
        self.text = ""
        self.expect("P:0> ")

    def type(self, text):
        os.write(self.fd, text.encode())

    def expect(self, what, timeout=30):
        """Reads until `what` has come; forgets all up to there, and returns it."""
        deadline = time.monotonic() + timeout * SLOW
        while what not in self.text:
            left = deadline - time.monotonic()
            assert left > 0, f"no {what!r} in {self.text!r}"
            if select.select([self.fd], [], [], min(left, 0.1))[0]:
                with contextlib.suppress(OSError):
                    self.text += os.read(self.fd, 65536).decode(errors="replace")
        seen, _, self.text = self.text.partition(what)
        return seen

    def line(self, *command):
        self.type(" ".join(f"'{word}'" for word in self.runs.command(*command)) + "\n")

    def close(self):
        with contextlib.suppress(OSError):
            os.close(self.fd)
        os.waitpid(self.pid, 0)


@pytest.fixture
def terminal(runs):
    terminals = []

    def make():
        terminals.append(Terminal(runs))
        return terminals[-1]

    yield make
    for t in terminals:
        with contextlib.suppress(OSError):
            t.close()


def test_command_reads_the_terminal(runs, terminal):
    """And its progress line was taken away before."""
    t = terminal()
    t.line("--", "sh", "-c", 'echo go; read a; echo "got <$a>"; exit 3')
    t.expect("is ready (")
    t.expect("go\r\n")
    t.type("what is typed\n")
    t.expect("got <what is typed>")
    t.expect("P:3> ")
    runs.assert_clean()
    t.type("exit\n")


def test_failure_on_a_terminal(runs, terminal):
    """What is said of a start that came to nothing begins a line of its own: the progress line is
    taken away before."""
    t = terminal()
    t.line("--set", "jvm_custom_args=-Dfake.never_ready=1", "--timeout", "1500ms", "--", "true")
    t.expect("run: forming")
    before = t.expect("h2ofleet: the cloud was not ready within")
    assert before.endswith("\r\033[K"), before
    t.expect("P:124> ")
    runs.assert_clean()
    t.type("exit\n")


def test_interrupt_from_the_terminal(runs, terminal):
    """Ctrl-C goes to the command, once, and to nobody else; a shell sees a program that was
    interrupted, so a loop ends."""
    t = terminal()
    t.line("--", "bash", "-c", 'n=0; trap "n=\\$((n + 1))" INT; echo go$n; '
           "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.05; done; echo n=$n.; exit 4")
    t.expect("go0\r\n")
    t.type("\x03")
    t.expect("n=1.")
    t.expect("P:4> ")
    runs.assert_clean()
    t.type("for i in 1 2; do ")
    # No shell: one that has not begun its sleep yet would only note the signal.
    t.line("--", sys.executable, "-c", 'import time; print("go%d" % 1, flush=True); time.sleep(60)')
    t.type("done\n")
    t.expect("go1\r\n")
    t.type("\x03")
    seen = t.expect("P:130> ")
    assert "go1" not in seen
    runs.assert_clean()
    t.type("exit\n")


def test_stop_and_continue_from_the_terminal(runs, terminal):
    """Ctrl-Z stops both, the cloud lives on, fg goes on."""
    t = terminal()
    t.line("--", "sh", "-c", 'echo "$H2OFLEET_SOCKET."; read a; echo "got <$a>"')
    socket = t.expect("control.sock.\r\n").rpartition("\n")[2] + "control.sock"
    t.type("\x1a")
    t.expect("Stopped")
    t.expect("> ")
    assert api(socket)["state"] == "ready"
    t.type("fg\n")
    t.expect("fg\r\n")
    t.expect("read a;")  # the shell says what goes on
    t.type("after the stop\n")
    t.expect("got <after the stop>")
    t.expect("P:0> ")
    runs.assert_clean()
    t.type("exit\n")


@pytest.mark.parametrize("moment", ["start", "command"])
def test_hangup(runs, terminal, moment):
    """The terminal closes."""
    t = terminal()
    t.line("-n", "2", "--", "sh", "-c", "echo go$((1)); sleep 60")
    if moment == "command":
        t.expect("go1\r\n")
    else:
        until("a daemon", 20, runs.daemon)
    t.close()
    runs.assert_clean()


def test_in_a_pipeline_on_a_terminal(runs, terminal):
    """The other end of a pipe may use the terminal as ever."""
    t = terminal()
    t.type(" ".join(f"'{word}'" for word in runs.command("-q", "--", "echo", "piped")))
    t.type(' | sh -c \'cat; read a </dev/tty; echo "read <$a>"\'\n')
    t.expect("piped\r\n")
    t.type("hello\n")
    t.expect("read <hello>")
    t.expect("P:0> ")
    t.type("exit\n")


# --- killed ---------------------------------------------------------------------------------------


def kill(pids):
    """All in one instant, as far as they can tell."""
    for sig in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, sig)


def test_kill_of_run(runs):
    """kill -9 of run: the guardian ends all, and the command is told."""
    run = runs.start("-n", 2, "--", "sh", "-c", READY + "exec sleep 60")
    begun(run)
    assert runs.guardian() and runs.daemon() and len(runs.nodes()) == 2
    run.kill()
    runs.finish(run)
    runs.assert_clean()


def test_kill_of_the_daemon(runs):
    """kill -9 of the daemon: another one takes the nodes back; the command notices nothing."""
    run = runs.start("-n", 2, "--", "sh", "-c", READY + "read a; exit 5",
                     stdin=subprocess.PIPE)
    socket = begun(run)
    before = api(socket)
    first = runs.daemon()
    kill([first])
    until("another daemon", 20, lambda: runs.daemon() not in (None, first))
    after = until("ready", 20, lambda: with_state(socket, "ready"))
    assert after["generation"] == 1
    assert [n["pid"] for n in after["nodes"]] == [n["pid"] for n in before["nodes"]]
    run.stdin.write("\n")
    run.stdin.flush()
    code, _, err = runs.finish(run)
    assert code == 5 and err == ""
    runs.assert_clean_now()


def with_state(socket, state):
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
        cloud = api(socket)
        return cloud if cloud.get("state") == state else None
    return None


def test_kill_of_the_guardian(runs):
    """kill -9 of the guardian: run starts another, which looks after the same daemon."""
    run = runs.start("-n", 2, "--", "sh", "-c", READY + "read a; exit 5",
                     stdin=subprocess.PIPE)
    socket = begun(run)
    first, daemon = runs.guardian(), runs.daemon()
    kill([first])
    second = until("another guardian", 20, lambda: runs.guardian() not in (None, first)
                   and runs.guardian())
    assert runs.daemon() == daemon and api(socket)["state"] == "ready"
    until("it watches the daemon", 20, lambda: any(
        "pidfd" in os.readlink(f"/proc/{second}/fd/{fd}")
        for fd in os.listdir(f"/proc/{second}/fd") if os.path.islink(f"/proc/{second}/fd/{fd}")))
    kill([daemon])
    until("another daemon", 20, lambda: runs.daemon() not in (None, daemon))
    until("ready", 20, lambda: with_state(socket, "ready"))
    run.stdin.write("\n")
    run.stdin.flush()
    assert runs.finish(run)[0] == 5
    runs.assert_clean_now()


def test_kill_of_run_and_guardian(runs):
    """kill -9 of both: the daemon sees the end of its input and ends its cloud; the directory goes
    with the next run."""
    run = runs.start("-n", 2, "--", "sh", "-c", READY + "exec sleep 60")
    begun(run)
    kill([run.pid, runs.guardian()])
    runs.finish(run)
    until(lambda: f"no process: {runs.processes()}", 30, lambda: not runs.processes())
    for left in runs.tmp.iterdir():
        age(left)
    runs("--", "true")
    runs.assert_clean()


def test_kill_of_all_three(runs):
    """kill -9 of run, guardian and daemon: nobody is left to end the nodes until the next run
    finds them; a fresh directory, or one that somebody looks after, is left alone."""
    other = runs.start("--", "sh", "-c", READY + "read a", stdin=subprocess.PIPE)
    begun(other)
    kept = set(runs.tmp.iterdir())
    for path in kept:
        age(path)
    pids = set(runs.processes())
    run = runs.start("-n", 2, "--", "sh", "-c", READY + "exec sleep 60")
    begun(run)
    kill([pid for pid, command in runs.processes().items() if pid not in pids
          and command.startswith(("h2ofleet-guardian", "h2ofleetd"))] + [run.pid])
    runs.finish(run)
    orphans = set(runs.nodes()) - pids
    assert len(orphans) == 2
    runs("--", "true")
    assert set(runs.nodes()) - pids == orphans, "it might be a run that begins"
    for left in set(runs.tmp.iterdir()) - kept:
        age(left)
    runs("--", "true")
    until("what was left is gone", 30,
          lambda: set(runs.tmp.iterdir()) == kept and not set(runs.nodes()) - pids)
    other.communicate("\n", timeout=30 * SLOW)
    assert other.returncode == 0
    runs.assert_clean_now()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_places_of_others(runs):
    """What looks like the place of a run, but is not certainly ours, is left alone; a TMPDIR where others could put
    another in our place's stead is refused."""
    def put(name, uid):
        place = runs.tmp / f"h2ofleet-run.{name}"
        place.mkdir()
        (place / "h2ofleet.conf").write_text("[cloud run]\n")
        os.chown(place, uid, uid)
        age(place)
        return place

    runs.dir.chmod(0o755)
    runs.tmp.chmod(0o1777)
    theirs = put("0123456789ab", 64321)
    runs("--", "true")
    assert os.listdir(theirs) == ["h2ofleet.conf"], "another user's"
    os.chown(theirs, 0, 0)
    age(theirs)
    runs.tmp.chmod(0o777)
    runs("--", "true")
    assert os.listdir(theirs) == ["h2ofleet.conf"], "where everybody could have renamed it"
    runs.tmp.chmod(0o1777)
    other = runs.tmp / "other"
    other.mkdir()
    os.chown(other, 64321, 64321)
    err = runs("--", "true", code=125, env={"TMPDIR": str(other)})[1]
    assert "TMPDIR" in err and "is user 64321's" in err
    other.rmdir()
    runs("--", "true")
    until("what is ours is gone", 20, lambda: not theirs.exists())


VICTIMS = [("run",), ("daemon",), ("guardian",), ("run", "daemon"), ("guardian", "daemon"),
           ("daemon", "run"), ("daemon", "guardian"), ("run", "guardian")]


@pytest.mark.parametrize("victims", VICTIMS, ids="+".join)
def test_kill_at_any_moment(runs, victims):
    """kill -9 at random moments of start, command and end; whatever was there, nothing is left, and
    a run that was not killed itself comes to its end."""
    seed = random.randrange(1 << 30)
    rng = random.Random(seed)
    for attempt in range(int(os.environ.get("H2OFLEET_KILLS", 8))):
        run = runs.start("-n", 2, "--", "sleep", "0.1")
        end = time.monotonic() + rng.uniform(0, 0.7)
        while time.monotonic() < end:
            pass
        pids = {"run": run.pid, "guardian": runs.guardian(), "daemon": runs.daemon()}
        for victim in victims:
            if pids[victim] and (victim != "run" or run.poll() is None):
                with contextlib.suppress(OSError):
                    os.kill(pids[victim], signal.SIGKILL)
        code, _, err = runs.finish(run)
        said = f"seed {seed}, attempt {attempt}: {code}\n{err}"
        if "run" not in victims:
            assert code == 0, said
            runs.assert_clean_now()
        until(lambda said=said: f"nothing left: {runs.processes()}\n{said}", 30,
              lambda: not runs.processes())
        if "guardian" in victims and "run" in victims:
            for left in runs.tmp.iterdir():  # the next one's work
                age(left)
        else:
            runs.assert_clean()
    if set(victims) >= {"run", "guardian"}:
        runs("--", "true")
        runs.assert_clean()


def test_kill_of_daemon_with_a_stubborn_child(runs_of):
    """A process that a node left in a session of its own, without our token, goes as well when the
    daemon was killed: it is the guardian's by then."""
    runs = runs_of("-Dfake.fork_child=3 -Dfake.ignore_term=1")
    run = runs.start("--", "sh", "-c", READY + "exec sleep 60")
    begun(run)
    nodes = runs.nodes()
    children = {int(c) for n in nodes for c in read(f"/proc/{n}/task/{n}/children").split()}
    assert children
    kill([runs.daemon(), *nodes, run.pid])
    runs.finish(run)
    for child in children:
        wait_gone(child)
    runs.assert_clean()


# --- surroundings ---------------------------------------------------------------------------------


def test_many_at_once(runs):
    """Ten side by side: each has a cloud of its own, on ports of its own."""
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        done = list(pool.map(lambda _: runs(
            "-n", 2, "--", "sh", "-c", 'echo "$H2O_PORT"; sleep 0.5', timeout=120), range(10)))
    ports = {int(out) for out, _ in done}
    assert len(ports) == 10
    runs.assert_clean_now()


def test_run_in_a_run(runs):
    """Nested: the inner has its own cloud and leaves the outer one's alone."""
    inner = " ".join(f"'{w}'" for w in runs.command("--", "sh", "-c", "echo inner $H2O_PORT"))
    out = runs("--", "sh", "-c", f'echo "outer $H2O_PORT"; {inner}; '
               f"{H2OFLEET} status run >/dev/null && echo well")[0]
    outer, inner, well = out.splitlines()
    assert outer.split()[1] != inner.split()[1] and well == "well"
    runs.assert_clean_now()


def test_long_tmpdir(runs_of):
    """A TMPDIR whose paths are too long for a socket's address."""
    runs = runs_of(tmpdir="t" * 80 + "/" + "u" * 80)
    before = set(pathlib.Path("/tmp").glob("h2ofleet-run.*"))
    socket = runs("--", "sh", "-c", 'echo "$H2OFLEET_SOCKET"; test -S "$H2OFLEET_SOCKET"')[0].strip()
    assert len(socket) < 108
    runs.assert_clean_now()
    assert not pathlib.Path(socket).parent.exists()
    assert pathlib.Path(socket).parent not in before


def test_unusable_tmpdir(runs):
    """A sentence, not a stack of errors."""
    for options in ((), ("--keep-on-failure",)):  # of which nothing is kept
        err = runs(*options, "--", "true", code=125, env={"TMPDIR": "/nonexistent/dir"})[1]
        assert err.count("\n") == 1 and "/nonexistent/dir" in err


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_as_another_user_with_a_home_that_cannot_be_written(runs):
    """Somebody without any rights, and without a home."""
    nobody = pwd.getpwnam("nobody")
    shared = pathlib.Path("/tmp", f"h2ofleet-run-test-{os.getpid()}")
    shared.mkdir(mode=0o755)
    try:
        for program in (H2OFLEET, H2OFLEETD, pathlib.Path(H2OFLEETD).parent / "h2ofleet-gate",
                        FAKEJAVA, runs.options[runs.options.index("--jar") + 1]):
            shutil.copy(program, shared)
        (shared / "h2o.jar").chmod(0o644)
        os.chown(runs.tmp, nobody.pw_uid, nobody.pw_gid)
        runs.dir.chmod(0o777)
        done = subprocess.run(
            ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups",
             shared / "h2ofleet", "run", "-n", "2", "-m", "64m", "--java", shared / "fakejava",
             "--jar", shared / "h2o.jar", "--set", "jvm_custom_args=-Dfake.heartbeat_ms=100", "--",
             "sh", "-c", 'id -u; echo "$H2O_URL"'],
            env=runs.env(HOME="/proc/1"), capture_output=True, text=True, timeout=60 * SLOW)
        assert done.returncode == 0, done.stderr
        uid, url = done.stdout.split()
        assert int(uid) == nobody.pw_uid and url.startswith("http://")
        runs.assert_clean_now()
    finally:
        shutil.rmtree(shared)


def test_within_a_service(runs):
    """In a service of Type=notify the daemon does not speak for it; the command may."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        path = str(runs.dir / "notify")
        manager.bind(path)
        out = runs("--", "sh", "-c", 'echo "$NOTIFY_SOCKET"', env={"NOTIFY_SOCKET": path})[0]
        assert out.strip() == path
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(4096)


def test_nothing_hangs_on_our_output(runs):
    """Once run is killed, nobody holds its output open: a pipe's reader sees the end at once, though
    the guardian is still at work."""
    run = runs.start("--set", "stop_timeout=5s", "--", "sh", "-c", READY + "exec >&- 2>&-; exec sleep 60")
    begun(run)
    guardian = runs.guardian()
    held = {os.readlink(f"/proc/{pid}/fd/{fd}") for pid in (guardian, runs.daemon())
            for fd in ("0", "1", "2")}
    assert os.readlink(f"/proc/self/fd/{run.stdout.fileno()}") not in held
    assert os.getsid(guardian) == guardian != os.getsid(runs.daemon())
    run.kill()
    runs.finish(run)
    runs.assert_clean()


def test_until_eof(fake):
    """h2ofleetd --until-eof ends in order when its input does, and not before."""
    fleet = fake(nodes=1, start=False)
    read_end, write_end = os.pipe()
    with open(fleet.daemon_log, "ab") as log:
        fleet.daemon = subprocess.Popen(
            [H2OFLEETD, "--config", fleet.config, "--until-eof"], stdin=read_end, stdout=log,
            stderr=log, env=fleet.env(), start_new_session=True)
    fleet.daemons.append(fleet.daemon)
    os.close(read_end)
    until("the socket", 10, fleet.socket.exists)
    fleet.ready()
    os.write(write_end, b"not an end")
    fleet.cli("reexec")
    fleet.ready()
    assert fleet.daemon.poll() is None
    os.close(write_end)
    assert fleet.wait_exit() == 0
    fleet.assert_clean()
