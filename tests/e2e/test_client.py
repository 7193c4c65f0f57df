"""The client as people meet it: on a terminal (a pseudo-terminal and what a screen would show), with
nodes that are fakes. The shells' completions are asked of the shells themselves."""

import calendar
import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import termios
import time

import pyte
import pytest

from fleet import H2OFLEET, REPO, SLOW, halt, read, until


class Terminal:
    """A program on a terminal of its own; `screen` is what people see."""

    def __init__(self, fleet, *command, rows=24, columns=80, env=None):
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.master, slave = pty.openpty()
        self.resize(rows, columns, tell=False)
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        # NO_COLOR is set for all other tests.
        self.env = {k: v for k, v in fleet.env().items() if k != "NO_COLOR"}
        self.env.update({"TERM": "xterm-256color", "H2OFLEET_SOCKET": str(fleet.socket), **(env or {})})
        self.process = subprocess.Popen(
            list(command), stdin=slave, stdout=slave, stderr=slave, env=self.env, cwd=fleet.dir,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))

    def resize(self, rows, columns, tell=True):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if tell:
            self.screen.resize(rows, columns)

    def read(self, seconds=0.05):
        """All that has come; waits so long for something."""
        while select.select([self.master], [], [], seconds)[0]:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                return
            if not data:
                return
            self.raw += data
            self.stream.feed(data)
            seconds = 0

    def text(self):
        return "\n".join(line.rstrip() for line in self.screen.display)

    def until(self, pattern, seconds=20):
        def there():
            self.read()
            return re.search(pattern, self.text())
        return until(lambda: f"{pattern!r} on the screen:\n{self.text()}", seconds, there)

    def type(self, text):
        os.write(self.master, text.encode())

    def end(self, seconds=10):
        """The exit code, once it has ended."""
        def ended():
            self.read()
            return self.process.poll() is not None
        until(lambda: f"its end\n{self.text()}", seconds, ended)
        self.read()
        return self.process.returncode

    def restored(self):
        """Is the terminal as it was found?"""
        now = termios.tcgetattr(self.slave)
        return now[3] == self.before[3] and self.raw.count(b"\033[?1049h") == self.raw.count(b"\033[?1049l")

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal():
    made = []

    def make(*args, **kwargs):
        made.append(Terminal(*args, **kwargs))
        return made[-1]

    yield make
    for t in made:
        t.close()


# --- status ---------------------------------------------------------------------------------------


def test_status_shows_use(fake):
    """Memory of the heap, and what the processes take: the table of people and the JSON agree that
    it is there; of a stopped cloud nothing is."""
    fleet = fake(nodes=2)
    fleet.ready()

    def known():
        nodes = fleet.cloud()["nodes"]
        return nodes if all(n["rss_bytes"] and n["cpu_percent"] is not None and n["memory"]
                            for n in nodes) else None
    nodes = until("all is known", 10, known)
    for n in nodes:
        pages = int(read(f"/proc/{n['pid']}/statm").split()[1])
        assert 0.5 < n["rss_bytes"] / (pages * os.sysconf("SC_PAGESIZE")) < 2
        assert n["memory"]["max_bytes"] >= n["memory"]["free_bytes"] > 0
    assert fleet.api("GET", "/v1/clouds/c/nodes/1")[1]["rss_bytes"] > 0
    shown = fleet.cli("status", "c").stdout
    assert re.search(r"^c +ready +2/2 +\S.* +1/0 +\S+/\S+[BKMG] +\d+% ", shown, re.M), shown
    assert re.search(r"^  NODE +STATE +PID +PORT +UPTIME +HEAP +RSS +CPU$", shown, re.M), shown
    fleet.cli("stop", "c", "--wait")
    for n in fleet.cloud()["nodes"]:
        assert n["rss_bytes"] is None and n["cpu_percent"] is None and n["memory"] is None


def test_cpu_of_a_node(fake):
    """A node that is stopped by a signal uses no CPU: the percentage is of the time since it was last
    asked, and at most once a second read anew."""
    fleet = fake(nodes=1)
    fleet.ready()
    pid = fleet.pids()[0]
    halt(pid)
    try:
        fleet.nodes()
        time.sleep(1.1)  # so long a value is kept
        fleet.nodes()
        time.sleep(1.1)
        assert fleet.nodes()[0]["cpu_percent"] == 0
    finally:
        os.kill(pid, signal.SIGCONT)


def test_watch(fake, terminal):
    """Redrawn in place while a cloud goes and comes; smaller and larger windows; q ends it, with the
    terminal as it was."""
    fleet = fake(nodes=2)
    fleet.ready()
    t = terminal(fleet, H2OFLEET, "status", "--watch=200ms", "c", "cc")
    assert t.end() == 4 and "no cloud 'cc'; did you mean 'c'?" in t.text()
    t = terminal(fleet, H2OFLEET, "status", "--watch=200ms")
    t.until(r"(?m)^c +ready +2/2")
    assert "\033[32mready" in t.raw.decode() and "every 200ms" in t.screen.display[0]
    fleet.cli("stop", "c", "--wait")
    t.until(r"(?m)^c +stopped +0/2")
    assert t.text().count("CLOUD") == 1, t.text()
    t.resize(10, 40)
    t.until(r"(?m)^c +stopped")
    fleet.cli("start", "c", "--wait")
    t.until(r"(?m)^c +ready")
    t.resize(30, 100)
    t.until(r"(?m)^c +ready +2/2 .*http://")
    t.type("q")
    assert t.end() == 0 and t.restored()


def test_watch_without_daemon(fake, terminal):
    """The daemon goes away: that is said, what was seen last stays, and the next one is found. Ctrl-C
    ends it."""
    fleet = fake(nodes=1)
    fleet.ready()
    t = terminal(fleet, H2OFLEET, "status", "c", "-w200ms")
    t.until(r"(?m)^c +ready +1/1")
    fleet.kill_daemon()
    t.until(r"h2ofleetd is not running[\s\S]*waiting for")
    assert re.search(r"(?m)^c +ready", t.text()), t.text()
    fleet.start()
    fleet.ready()
    until("all is well", 20, lambda: t.read() or ("waiting for" not in t.text() and "ready" in t.text()))
    t.type("\x03")
    assert t.end() == 130 and t.restored()


def test_watch_is_suspended_and_ended(fake, terminal):
    """Ctrl-Z gives the screen back and takes it again; so does SIGTERM, for good."""
    fleet = fake(nodes=1)
    fleet.ready()
    t = terminal(fleet, H2OFLEET, "status", "--watch")
    t.until(r"(?m)^c +ready")
    # In a session without a shell nobody but us can stop it.
    os.kill(t.process.pid, signal.SIGTSTP)
    until("stopped", 10, lambda: read(f"/proc/{t.process.pid}/stat").rpartition(")")[2].split()[0] == "T")
    t.read()
    assert t.restored()
    os.kill(t.process.pid, signal.SIGCONT)
    until("its screen again", 10, lambda: t.read() or t.raw.count(b"\033[?1049h") == 2)
    t.until(r"(?m)^c +ready")
    t.process.terminate()
    assert t.end() == 128 + signal.SIGTERM and t.restored()


def test_watch_needs_a_terminal(fake, terminal):
    fleet = fake(nodes=1)
    said = fleet.cli("status", "--watch", code=2).stderr
    assert "--watch needs a terminal" in said and "events -f" in said
    assert "at least 100ms" in fleet.cli("status", "--watch=1ms", code=2).stderr
    assert "programs follow" in fleet.cli("status", "-w", "--json", code=2).stderr
    t = terminal(fleet, H2OFLEET, "status", "-w", env={"TERM": "dumb"})
    assert t.end() == 2 and b"\033" not in t.raw


def test_colours(fake, terminal):
    """On a terminal, and not with NO_COLOR or TERM=dumb; never piped."""
    fleet = fake(nodes=1)
    fleet.ready()
    for env, wanted in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
        t = terminal(fleet, H2OFLEET, "status", "c", env=env)
        assert t.end() == 0
        assert (b"\033[32mready" in t.raw) == wanted, (env, t.raw)
        assert wanted or b"\033" not in t.raw
    assert "\033" not in fleet.cli("status", "c", env={"NO_COLOR": "", "TERM": "xterm"}).stdout


# --- waiting --------------------------------------------------------------------------------------


def test_progress_on_a_terminal(fake, terminal):
    """One line that is redrawn, with nodes and time; gone when it is done."""
    fleet = fake(nodes=2, autostart="no", knobs="-Dfake.ready_ms=2500")
    t = terminal(fleet, H2OFLEET, "start", "c", "--wait")
    t.until(r"c: (starting|forming), nodes up 0/2.*\ds")
    assert t.end(60) == 0
    assert re.search(r"(?m)^c is ready at http://", t.text()), t.text()
    assert "nodes up" not in t.text()


def test_progress_without_a_terminal(fake):
    """A line for each change, on standard error; the result alone on standard output."""
    fleet = fake(nodes=2, autostart="no", knobs="-Dfake.ready_ms=1000")
    done = fleet.cli("start", "c", "--wait")
    assert done.stdout.startswith("c is ready at ") and "\r" not in done.stderr
    lines = done.stderr.splitlines()
    assert lines and len(lines) == len(set(lines)) and all(re.match(r"c: \w+, nodes up \d/2$", x) for x in lines)


@pytest.mark.parametrize("command", [("start", "c", "--wait"), ("wait", "c")])
def test_interrupted(fake, terminal, command):
    """Ctrl-C ends the waiting, not what is waited for, and says so."""
    fleet = fake(nodes=1, autostart="no", knobs="-Dfake.ready_ms=3000")
    if command[0] == "wait":
        fleet.cli("start", "c")
    t = terminal(fleet, H2OFLEET, *command)
    t.until(r"nodes up 0/1")
    t.type("\x03")
    assert t.end() == 130
    assert "goes on in the daemon" in " ".join(t.text().split()), t.text()
    fleet.ready(timeout=60)


# --- logs -----------------------------------------------------------------------------------------


def head(level, second, text):
    """A line as H2O writes it."""
    when = time.strftime("%m-%d %H:%M", time.localtime())
    return f"{when}:{second:02d}.000 127.0.0.1:54321  4711   main  {level:>5} water.default: {text}\n"


def write(fleet, node, *lines):
    with open(fleet.log_dir / "c" / f"{node}.log", "a") as f:
        f.write("".join(lines))


def test_logs_merged(fake):
    """Of several nodes by time; lines without a time stay with theirs; filters; --since."""
    fleet = fake(nodes=2, autostart="no")
    fleet.cli("start", "c", "--wait")
    fleet.cli("stop", "c", "--wait")
    old = "01-01 00:00:00.000 127.0.0.1:54321  4711   main   INFO water.default: long ago\n"
    for node in (0, 1):
        (fleet.log_dir / "c" / f"{node}.log").write_text(old)
    write(fleet, 0, head("INFO", 1, "one"), head("WARN", 3, "three"), "\tat three\n", head("INFO", 5, "five"))
    write(fleet, 1, head("INFO", 2, "two"), head("ERRR", 4, "four"), head("INFO", 6, "six"))

    def shown(*args):
        lines = fleet.cli("logs", "c", *args).stdout.splitlines()
        return [re.sub(r"^(c/\d)  .*?([\w ]+)$", r"\1 \2", line).replace("\t", "") for line in lines]
    assert [s.split()[-1] for s in shown()] == [
        "ago", "ago", "one", "two", "three", "three", "four", "five", "six"]
    assert [s[:3] for s in shown("-n", "1")] == ["c/0", "c/1"]
    for args in (("--level", "WARN"), ("--grep", "WARN"), ("--level=warning",)):
        assert [s.split()[-1] for s in shown(*args)] == ["three", "three", "four"]
    assert [s.split()[-1] for s in shown("--grep", "t(wo|hree)$")] == ["two", "three", "three"]
    assert [s.split()[-1] for s in shown("--since", "10m", "-n", "1")] == ["five", "six"]
    # The stamps are of the daemon's zone, whatever the caller's is.
    for zone in ("UTC+11", "UTC-13"):
        done = subprocess.run([H2OFLEET, "-s", fleet.socket, "logs", "c", "--since", "10m", "--grep", "(five|six)$"],
                              env={**fleet.env(), "TZ": zone}, text=True, capture_output=True, timeout=30)
        assert [s.split()[-1] for s in done.stdout.splitlines()] == ["five", "six"], done
        done = subprocess.run([H2OFLEET, "-s", fleet.socket, "logs", "c", "--since", "2h"],
                              env={**fleet.env(), "TZ": zone}, text=True, capture_output=True, timeout=30)
        assert "ago" not in done.stdout
    said = fleet.cli("logs", "c", "--grep", "(", code=2).stderr
    assert "no regular expression" in said
    assert "'loud' is no level" in fleet.cli("logs", "c", "--level", "loud", code=2).stderr
    assert "'soon' is no time" in fleet.cli("logs", "c", "--since", "soon", code=2).stderr


def test_logs_followed_over_changes(fake, fake_keys):
    """Merged and filtered when it begins; over a restart of the node; with the nodes that a reload
    has added."""
    fleet = fake(nodes=1)
    fleet.ready()
    out = fleet.dir / "followed"
    with open(out, "wb") as f:
        follower = subprocess.Popen(
            [H2OFLEET, "--socket", str(fleet.socket), "logs", "c", "-f", "--grep", "SEQ"],
            stdout=f, stderr=subprocess.DEVNULL, env=fleet.env())
    try:
        write(fleet, 0, head("INFO", 1, "SEQ 1"), head("INFO", 1, "nothing"))
        until("the first line", 20, lambda: "SEQ 1" in read(out))
        fleet.cli("restart", "c", "--wait")
        write(fleet, 0, head("INFO", 2, "SEQ 2"))
        until("after a restart", 20, lambda: "SEQ 2" in read(out))
        fleet.clouds["c"] = fake_keys(2)
        fleet.write_config()
        fleet.cli("reload", "--restart")
        until("two nodes", 30, lambda: (c := fleet.cloud())["state"] == "ready" and c["size"] == 2)
        write(fleet, 1, head("INFO", 3, "SEQ 3"))
        until("the new node's line", 20, lambda: re.search(r"c/1  .*SEQ 3", read(out)))
        assert "nothing" not in read(out)
    finally:
        follower.send_signal(signal.SIGINT)
        assert follower.wait(20 * SLOW) == 130


# --- when something is wrong ----------------------------------------------------------------------


def test_did_you_mean(fleets, fake_keys):
    fleet = fleets({"dev": fake_keys(1, autostart="no")}).start()
    assert "no cloud 'dve'; did you mean 'dev'?" in fleet.cli("status", "dve", code=4).stderr
    assert "unknown command 'statsu'; did you mean 'status'?" in fleet.cli("statsu", code=2).stderr
    assert "unknown option --wiat; did you mean --wait?" in fleet.cli("start", "dev", "--wiat", code=2).stderr
    assert "has no node '7'; it has nodes 0 to 0" in fleet.cli("logs", "dev/7", code=1).stderr


def test_no_daemon(fleets, terminal):
    """Said in a sentence that tells what to do, at 80 columns on a terminal, in one line elsewhere."""
    fleet = fleets({})
    said = fleet.cli("status", code=4).stderr
    assert said.startswith("h2ofleet: h2ofleetd is not running (no socket at ") and "start it with" in said
    assert said.count("\n") == 1
    t = terminal(fleet, H2OFLEET, "status")
    assert t.end() == 4
    # (The path of the socket may be longer than a line.)
    lines = t.raw.decode().replace("\r", "").split("\n")
    assert all(len(line) <= 80 for line in lines if str(fleet.socket) not in line), lines
    assert "error" in fleet.cli("status", "--json", code=4).stdout


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become somebody else")
def test_no_permission(fake):
    """Who may not use the socket is told which group to join."""
    fleet = fake(nodes=1, autostart="no")
    for path in (fleet.dir, fleet.socket):
        os.chown(path, 0, 0)
    fleet.dir.chmod(0o755)
    copy = fleet.dir / "h2ofleet"
    shutil.copy(H2OFLEET, copy)
    shutil.chown(fleet.socket, group="daemon")
    done = subprocess.run([copy, "--socket", fleet.socket, "status"], user=65534, group=65534, extra_groups=[],
                          capture_output=True, text=True, env=fleet.env())
    assert done.returncode == 1
    assert "you may not use" in done.stderr and "join group daemon" in done.stderr


# --- completion -----------------------------------------------------------------------------------


def shell(name, fleet, terminal):
    """An interactive one, without anybody's settings, that knows our completion."""
    path = shutil.which(name)
    if not path:
        pytest.skip(f"{name} is not here")
    home = fleet.dir / "home"
    home.mkdir(exist_ok=True)
    script = home / f"completion.{name}"
    script.write_text(fleet.cli("completion", name).stdout)
    bin_dir = fleet.dir / "bin"
    bin_dir.mkdir(exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (bin_dir / "h2ofleet").symlink_to(H2OFLEET)
    env = {"HOME": str(home), "ZDOTDIR": str(home), "XDG_CONFIG_HOME": str(home), "XDG_DATA_HOME": str(home),
           "PATH": f"{bin_dir}:{os.environ['PATH']}", "PS1": "READY> ", "fish_greeting": "",
           "INPUTRC": "/dev/null", "LC_ALL": "C.UTF-8"}
    setup = {
        "bash": f"bind 'set bell-style none'; bind 'set show-all-if-ambiguous on'; . {script}",
        "zsh": f"PS1='READY> '; autoload -U compinit; compinit -u -D; unsetopt beep; . {script}",
        "fish": f"function fish_prompt; echo 'READY> '; end; source {script}",
    }[name]
    options = {"bash": ["--norc", "--noprofile", "-i"], "zsh": ["-f", "-i"], "fish": ["--no-config", "-i"]}
    t = terminal(fleet, path, *options[name], rows=40, columns=100, env=env)
    t.type(f"{setup}; echo SET''UP\r")
    t.until(r"(?m)^SETUP", 30)
    return t


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion(fleets, fake_keys, terminal, name):
    """The real shells, by the key that people press: commands, options, values, clouds, nodes."""
    fleet = fleets({"alpha": fake_keys(2, autostart="no")}).start()
    fleet.cli("create", "exp", "-n", "1")
    t = shell(name, fleet, terminal)
    for typed, completed in (
        ("h2ofleet stat", "h2ofleet status"),
        ("h2ofleet wait al", "h2ofleet wait alpha"),
        ("h2ofleet start --ti", "h2ofleet start --timeout"),
        ("h2ofleet wait --for=st", "h2ofleet wait --for=stopped"),
        ("h2ofleet wait --for rea", "h2ofleet wait --for ready"),
        ("h2ofleet logs alpha/", r"alpha/[01][\s\S]*alpha/[01]"),
        ("h2ofleet delete ", "h2ofleet delete exp"),  # alpha was not made at run time
        ("h2ofleet create x autost", "h2ofleet create x autostart="),
        ("h2ofleet set exp autostart=y", "h2ofleet set exp autostart=yes"),
        ("h2ofleet run --set start_on=con", "h2ofleet run --set start_on=connect"),
    ):
        t.type("\x15")  # an empty line
        t.type(typed)
        t.until(re.escape(typed.rstrip()))
        t.type("\t")
        t.until(completed)
    t.type("\x15")
    # Nobody answers: nothing is completed, and nothing is said.
    fleet.stop()
    t.type("h2ofleet wait al\t")
    time.sleep(1)
    t.read()
    assert "not running" not in t.text()
    t.type("\x15exit\r")
    t.end()


def test_events_since_a_time(fake):
    """As of logs; what the daemon numbered goes on to work."""
    fleet = fake(nodes=1)
    fleet.ready()
    every = fleet.cli("events").stdout
    assert every.count("\n") > 2
    assert fleet.cli("events", "--since", "10m").stdout == fleet.cli("events", "--since", "0").stdout == every
    assert fleet.cli("events", "c", "--since", "10m", "-n", "1").stdout == every.splitlines(True)[-1]
    middle = json.loads(fleet.cli("events", "--json").stdout.splitlines()[1])["time"]
    until("a second later", 5, lambda: time.time() > calendar.timegm(time.strptime(middle[:19], "%Y-%m-%dT%H:%M:%S")) + 1)
    fleet.cli("stop", "c", "--wait")
    last = json.loads(fleet.cli("events", "--json").stdout.splitlines()[-1])["time"]
    some = fleet.cli("events", "--json", "--since", last[:19] + "Z").stdout.splitlines()
    assert some and all(json.loads(line)["time"] >= last[:19] for line in some) and len(some) < every.count("\n")


# --- every command --------------------------------------------------------------------------------

def commands(fleet):
    """As `h2ofleet help` lists them."""
    text = fleet.cli("help").stdout.split("commands:\n")[1].split("\n\n")[0]
    return [line.split()[0] for line in text.splitlines()]


def test_every_command_is_tested(fleets):
    """Each command of the table is run against a real daemon by some end-to-end test: cli("NAME", or
    as the first word behind H2OFLEET."""
    fleet = fleets({})
    texts = "\n".join(p.read_text() for p in (REPO / "tests/e2e").glob("test_*.py"))
    missing = [c for c in commands(fleet)
               if not re.search(rf"(cli\(|H2OFLEET.*?|\"h2ofleet\", )\s*\(?[\"']{c}[\"']", texts)]
    assert not missing, f"no test runs: {missing}"


def test_small_commands(fake):
    """Those that no other test needs."""
    fleet = fake(nodes=1)
    fleet.ready()
    assert "h2ofleetd" in fleet.cli("version").stdout
    assert "usage: h2ofleet status" in fleet.cli("help", "status").stdout
    assert "complete -F" in fleet.cli("completion", "bash").stdout
    assert fleet.cli("wait", "c").stdout.startswith("c is ready")
    assert "c" in fleet.cli("touch", "c").stdout
    assert fleet.cli("doctor", "--config", str(fleet.config), code=None).returncode in (0, 1)


def test_doctor_sees_what_is_left(fake):
    """Folders of runs that nobody guards any more, not those that are guarded; incidents of the last
    day; a dead daemon's socket."""
    fleet = fake(nodes=1)
    fleet.ready()
    tmp = fleet.dir / "tmp"
    for name in ("h2ofleet-run.111111111111", "h2ofleet-run.222222222222", "h2ofleet-kept.333333333333"):
        (tmp / name).mkdir(parents=True)
        (tmp / name / "guarded").touch()
        os.utime(tmp / name, (time.time() - 1000,) * 2)
    args = ("doctor", "--config", str(fleet.config))
    env = {"TMPDIR": str(tmp)}
    with open(tmp / "h2ofleet-run.222222222222" / "guarded") as guarded:
        fcntl.flock(guarded, fcntl.LOCK_SH)
        said = fleet.cli(*args, code=None, env=env).stdout
    assert "guardian was killed: " in said and "run.111111111111" in said and "run.222222222222" not in said
    assert "kept by --keep-on-failure: " in said
    assert re.search(r"ok +incidents +none in the last 24 hours", said), said
    fleet.kill_member(0)
    fleet.ready(generation=2)
    said = fleet.cli(*args, code=None, env=env).stdout
    assert re.search(r"warning +incidents +1 in the last 24 hours; the newest, of cloud c: .*node 0", said), said
    fleet.kill_daemon()
    assert "a dead one has left its socket" in fleet.cli(*args, code=None, env=env).stdout
    fleet.start()
    fleet.ready()
