"""Kills a daemon at one of its system calls, starts another one, and says what was violated.

A *scenario* is a stretch of the daemon's life (launch, stop, ...), a *point* a system call within it:
its N-th with effect (calls.h says which have none), at its entry or its exit. `Crash.run()` tries one
point and returns sentences, which should be none."""

import collections
import contextlib
import http.client
import json
import os
import pathlib
import re
import select
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

from fleet import (  # noqa: E402
    FAKEJAVA, H2OFLEETD, MARK, SLOW, Fleet, PortBlock, UnixHTTP, files_below, is_gate, pid_alive, processes, read,
    until)

CRASHPOINT = os.environ.get(
    "CRASHPOINT", str(pathlib.Path(FAKEJAVA).resolve().parents[1] / "crash/crashpoint"))

NODES = 2
READY_S = 20
# Children are held so long between their release and their execve(): a new daemon has started by then.
HOLD_MS = 700

Start = collections.namedtuple("Start", "ms pid ticks token")
Call = collections.namedtuple("Call", "n n_all name detail")
# call: None when the scenario was over before; outcome: what the next daemon did with what was left
Result = collections.namedtuple("Result", "point call outcome wrong")


class Point(collections.namedtuple("Point", "scenario when n")):
    """`when`: entry, exit; every: entry, with all calls counted; or hold: at the exit of the N-th
    release of a child, with children that have not executed yet held back."""

    OPTIONS = {
        "entry": (), "exit": ("--exit",), "every": ("--all",),
        "hold": ("--releases", "--exit", "--hold", str(HOLD_MS)),
    }

    def __str__(self):
        return f"{self.scenario}:{self.when}:{self.n}"

    @classmethod
    def parse(cls, text):
        scenario, when, n = text.split(":")
        return cls(scenario, when, int(n))


# --- what the fakes have written down -------------------------------------------------------------


class Journal:
    """See tests/fake/journal.c."""

    def __init__(self, path):
        self.starts, self.besides, self.signals, self.ends = [], [], [], []
        for line in read(path).splitlines():
            ms, what, pid, *rest = line.split()
            if what == "start":
                self.starts.append(Start(int(ms), int(pid), int(rest[0]), rest[1]))
            elif what == "beside":
                self.besides.append((int(pid), int(rest[0]), rest[1]))
            elif what == "signal":
                self.signals.append((int(ms), int(pid), int(rest[0])))
            elif what == "end":
                self.ends.append((int(ms), int(pid), int(rest[0])))

    def pids(self):
        return {s.pid for s in self.starts}

    def alive(self):
        return [s for s in self.starts if start_ticks(s.pid) == s.ticks and pid_alive(s.pid)]

    def violations(self):
        """Two lives in one slot, an old generation beside a newer one, a generation begun twice."""
        wrong = []
        tokens = {s.pid: s.token for s in self.starts}
        for pid, other, token in self.besides:
            if conflict(tokens[pid], token):
                wrong.append(f"pid {pid} ({tokens[pid]}) was started while {other} ({token}) lived")
        seen = collections.Counter(s.token for s in self.starts)
        wrong += [f"{token} was started {n} times" for token, n in seen.items() if n > 1]
        return wrong


def conflict(mine, other):
    """Of two tokens FLEET/CLOUD/NODE/GENERATION alive at once."""
    fleet, cloud, node, generation = mine.split("/")
    return other.split("/")[:2] == [fleet, cloud] and (
        other.split("/")[2] == node or other.split("/")[3] != generation)


def start_ticks(pid):
    stat = read(f"/proc/{pid}/stat")
    return int(stat.rpartition(")")[2].split()[19]) if stat else None


def generation_of(token):
    return int(token.rpartition("/")[2])


# --- ports: hundreds of fleets within the minute for which a used port stays in TIME_WAIT -----------


class Ports:
    """A part of a PortBlock."""

    size = 8
    lock = threading.Lock()
    blocks = []  # held until we end
    bases = collections.deque()

    def __init__(self):
        with self.lock:
            for _ in range(len(self.bases)):
                self.base = self.bases.popleft()
                if PortBlock.all_free(self.base, self.size):
                    return
                self.bases.append(self.base)
            block = PortBlock()
            self.blocks.append(block)
            self.bases.extend(range(block.base, block.base + block.size, self.size))
            self.base = self.bases.popleft()

    def release(self):
        with self.lock:
            self.bases.append(self.base)


# --- a fleet whose daemon can be traced -----------------------------------------------------------


class CrashFleet(Fleet):
    def __init__(self, jar, nodes=NODES, knobs="", **keys):
        super().__init__({}, ports=Ports(), fleet={"log_level": "info"})
        self.journal_path = self.dir / "journal"
        self.n_nodes = nodes
        self.clouds["c"] = {
            "nodes": nodes, "java": FAKEJAVA, "jar_path": jar, "max_mem_size": "64m",
            "jvm_custom_args": "-Dfake.heartbeat_ms=20 -Dfake.boot_ms=20 -Dfake.ready_ms=20 "
                               f"-Dfake.journal={self.journal_path} {knobs}".strip(),
            "restart_delay": "0s", "stop_timeout": "2s", "start_limit": "60 in 1m",
            "restart_delay_max": "0s", "auto_recovery_dir": "off", **keys,
        }
        self.write_config()
        self.wrapper = []

    def spawn(self, *args):
        with open(self.daemon_log, "ab") as log:
            daemon = subprocess.Popen(
                [*self.wrapper, H2OFLEETD, "--config", str(self.config), *args],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env(),
                cwd=self.dir, start_new_session=True,
            )
        self.daemons.append(daemon)
        return daemon

    def journal(self):
        return Journal(self.journal_path)

    def state_path(self, name="c"):
        return self.state_dir / "clouds" / name / "state.json"

    def state(self, name="c"):
        """What the state file says of the cloud; {} when there is none."""
        with contextlib.suppress(ValueError, OSError):
            return json.loads(self.state_path(name).read_text())["state"]["cloud"]
        return {}

    def says(self, pattern):
        """Matches in the daemons' log, which unlike a request leaves the daemon alone."""
        return re.findall(pattern, read(self.daemon_log))

    def ended(self):
        return self.daemon.poll() is not None

    def until_ready(self, generation):
        """Or until the daemon has ended; without asking it."""
        until(lambda: f"generation {generation} ready\n{self.log_tail()}", READY_S, lambda:
              self.ended() or [g for g in self.says(r"cloud c: \w+ -> ready \(generation (\d+)\)")
                               if int(g) >= generation])

    def quietly(self, method, path):
        """A request to a daemon that may die of it; the status or None."""
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            return self.api(method, path, timeout=20)[0]
        return None


class Tracer:
    """`crashpoint trace`; not of the fleet's processes."""

    def __init__(self, pid, *options):
        self.process = subprocess.Popen(
            [CRASHPOINT, "trace", *options, str(pid)], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={},
        )
        self.calls, self.total = [], 0
        line = self.process.stdout.readline()
        assert line == "attached\n", line + self.process.stderr.read()

    def _read(self, line):
        what, n, n_all, *rest = line.rstrip("\n").split("\t")
        self.total = int(n_all)
        if what != "ended":
            self.calls.append(Call(int(n), int(n_all), rest[0], rest[1]))
        return what

    def killed(self):
        """The call at which it was killed, or None when the scenario was over before."""
        if not select.select([self.process.stdout], [], [], 0.2 * SLOW)[0]:
            return None
        line = self.process.stdout.readline()
        return self.calls[-1] if line and self._read(line) == "killed" else None

    def finish(self):
        """Ends it, once it has let go what it holds back."""
        if self.calls:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.2 if len(self.calls) > 1 else 10)
        self.process.terminate()
        for line in self.process.communicate()[0].splitlines():
            self._read(line)
        return self


class Bystander:
    """A java process that is not ours but looks like it: same program, same kind of arguments, a
    token of another fleet; with the directory given also one that names our cloud's ports."""

    def __init__(self, fleet, jar):
        self.path = fleet.dir / "bystander"
        self.process = subprocess.Popen(
            [FAKEJAVA, f"-Dfake.journal={self.path}", "-Dfake.boot_ms=3600000",
             "-Dfake.t300000.exit_code_now=0", "-XX:-UsePerfData",
             f"-Djava.io.tmpdir={fleet.dir}", "-jar", str(jar), "-name", "c-1-0000",
             "-port", str(fleet.ports.base), "-ice_root", str(fleet.dir / "bystander.ice")],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={"H2OFLEET_TOKEN": "0123456789abcdef/c/0/1"}, start_new_session=True,
        )
        until("the bystander's journal", 10, lambda: read(self.path))

    @property
    def pid(self):
        return self.process.pid

    def close(self):
        """Ends it; sentences about what befell it before."""
        wrong = []
        status = self.process.poll()
        if status is not None:
            wrong.append(f"the bystander {self.pid} has ended with {status}")
        for _, _, sig in Journal(self.path).signals:
            wrong.append(f"the bystander {self.pid} was sent signal {sig}")
        self.process.kill()
        self.process.wait()
        for path in self.path.parent.glob("libxgboost*"):
            path.unlink()  # its own
        return wrong


# --- scenarios ------------------------------------------------------------------------------------


class Scenario:
    """begin(): up to where the points are, with the daemon of the points running (or, from_exec,
    not yet started); act(): what happens then; passed(): waits until all of it has happened, or the
    daemon has ended."""

    from_exec = False
    leaves = False  # at its end there is no daemon, but a cloud
    wanted = "running"
    knobs = ""
    keys = {}
    nodes = NODES

    def begin(self, fleet):
        fleet.start()
        fleet.ready()

    def act(self, fleet):
        pass

    def passed(self, fleet):
        pass

    def after(self, fleet):
        """What is so after the next daemon has settled, besides the invariants."""


class Launch(Scenario):
    """From the daemon's exec to a ready cloud of three."""

    from_exec = True
    nodes = 3

    def begin(self, fleet):
        pass

    def passed(self, fleet):
        fleet.until_ready(1)


class Stop(Scenario):
    """The operator stops the cloud."""

    wanted = "stopped"

    def act(self, fleet):
        fleet.answer = fleet.quietly("POST", "/v1/clouds/c/stop")

    def passed(self, fleet):
        until(lambda: f"stopped\n{fleet.log_tail()}", READY_S,
              lambda: fleet.ended() or fleet.says("cloud c: stopping -> stopped"))


class StopHard(Stop):
    """The same, with members that ignore SIGTERM."""

    knobs = "-Dfake.ignore_term=1"
    keys = {"stop_timeout": "300ms"}


class Restart(Scenario):
    """The operator restarts the cloud."""

    def act(self, fleet):
        fleet.answer = fleet.quietly("POST", "/v1/clouds/c/restart")

    def passed(self, fleet):
        fleet.until_ready(2)


class Recover(Scenario):
    """A member is killed; the cloud comes back."""

    def act(self, fleet):
        os.kill(fleet.journal().starts[-1].pid, signal.SIGKILL)

    passed = Restart.passed


class End(Scenario):
    """SIGTERM to the daemon: all is stopped, in order."""

    signal = signal.SIGTERM

    def act(self, fleet):
        with contextlib.suppress(ProcessLookupError):
            fleet.send(self.signal)

    def passed(self, fleet):
        until(lambda: f"the daemon's end\n{fleet.log_tail()}", READY_S, fleet.ended)


class Detach(End):
    """SIGUSR2: the daemon leaves, the cloud stays."""

    signal = signal.SIGUSR2
    leaves = True


class Reexec(Scenario):
    """SIGUSR1: another image in the same process."""

    def act(self, fleet):
        fleet.send(signal.SIGUSR1)

    def passed(self, fleet):
        until(lambda: f"a new image\n{fleet.log_tail()}", READY_S,
              lambda: fleet.ended() or len(fleet.says("control socket /")) > 1)
        until(lambda: f"ready again\n{fleet.log_tail()}", READY_S, lambda: fleet.ended() or
              fleet.quietly("GET", "/v1/clouds/c?wait=ready&timeout=20s") == 200)


class Adopt(Scenario):
    """A daemon finds the whole cloud of one that was killed."""

    from_exec = True

    def begin(self, fleet):
        super().begin(fleet)
        fleet.kill_daemon()

    def passed(self, fleet):
        until(lambda: f"ready again\n{fleet.log_tail()}", READY_S, lambda: fleet.ended() or
              fleet.quietly("GET", "/v1/clouds/c?wait=ready&timeout=20s") == 200)


class AdoptLoss(Adopt):
    """The same, but a member has died meanwhile."""

    def begin(self, fleet):
        super().begin(fleet)
        os.kill(fleet.journal().starts[0].pid, signal.SIGKILL)

    def passed(self, fleet):
        until(lambda: f"the next generation ready\n{fleet.log_tail()}", READY_S, lambda: fleet.ended() or
              fleet.says(r"-> ready \(generation [2-9]"))


class AdoptHalf(Adopt):
    """A daemon finds what one has left that was killed between the releases of two members."""

    def begin(self, fleet):
        fleet.wrapper = [CRASHPOINT, "run"]
        fleet.daemon = fleet.spawn()
        # The first release is that of `java -version`.
        tracer = Tracer(fleet.daemon.pid, "--exec", "--releases", "--exit", "--at", "2")
        fleet.wait_exit()
        tracer.finish()


def alive_of(fleet, name):
    return [s for s in fleet.journal().alive() if s.token.split("/")[1] == name]


class ReloadAdd(Scenario):
    """A cloud more in the configuration."""

    def act(self, fleet):
        fleet.clouds["d"] = {**fleet.clouds["c"], "nodes": 1}
        fleet.write_config()
        fleet.answer = fleet.quietly("POST", "/v1/reload")

    def passed(self, fleet):
        until(lambda: f"d ready\n{fleet.log_tail()}", READY_S,
              lambda: fleet.ended() or fleet.says(r"cloud d: \w+ -> ready"))

    def after(self, fleet):
        fleet.ready("d", timeout=READY_S)


def until_gone(fleet, name):
    """A file that cannot be removed stays, and that is said."""
    until(lambda: f"{name}'s end\n{fleet.log_tail()}", READY_S, lambda: not alive_of(fleet, name) and (
        not fleet.state_path(name).exists() or fleet.says(rf"cloud {name}: .*/state\.json stays")))


class ReloadRemove(Scenario):
    """A cloud less."""

    def begin(self, fleet):
        fleet.clouds["d"] = {**fleet.clouds["c"], "nodes": 1}
        fleet.write_config()
        super().begin(fleet)
        fleet.ready("d")

    def act(self, fleet):
        fleet.clouds.pop("d", None)
        fleet.write_config()
        fleet.answer = fleet.quietly("POST", "/v1/reload")

    def passed(self, fleet):
        until(lambda: f"d forgotten\n{fleet.log_tail()}", READY_S,
              lambda: fleet.ended() or fleet.says("cloud d: removed\n"))

    def after(self, fleet):
        until_gone(fleet, "d")


class ReloadRestart(Scenario):
    """A change for which the cloud is restarted."""

    def act(self, fleet):
        fleet.clouds["c"]["max_mem_size"] = "65m"
        fleet.write_config()
        fleet.answer = fleet.quietly("POST", "/v1/reload?restart=yes")

    passed = Restart.passed


class Create(Scenario):
    """A cloud is made at run time. Once that was answered it is there; else it is there whole, or
    nothing of it."""

    def make(self, fleet):
        """The status, or None when the daemon died of it."""
        keys = {k: str(v) for k, v in {**fleet.clouds["c"], "nodes": 1}.items()}
        connection = UnixHTTP(fleet.socket, 20)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request("POST", "/v1/clouds", headers={"Content-Type": "application/json"},
                               body=json.dumps({"name": "d", "keys": keys, "start": True}))
            return connection.getresponse().status
        return None

    def act(self, fleet):
        fleet.answer = self.status = self.make(fleet)

    def passed(self, fleet):
        until(lambda: f"d ready\n{fleet.log_tail()}", READY_S,
              lambda: fleet.ended() or fleet.says(r"cloud d: \w+ -> ready"))

    def after(self, fleet):
        # Its thread is over: the daemon that it asked is dead.
        self.look(fleet, there=self.status == 201, gone=False)

    @staticmethod
    def look(fleet, there, gone):
        status = fleet.api("GET", "/v1/clouds/d")[0]
        assert not there or status == 200, "it was answered that it is made, and it is not there"
        assert not gone or status == 404, "it was answered that it is deleted, and it is there"
        if status == 200:
            fleet.ready("d", timeout=READY_S)
            return
        until_gone(fleet, "d")
        left = list((fleet.state_dir / "created").glob("*"))
        assert not left, f"of a cloud that is not there is left: {left}"


class Delete(Create):
    """A cloud that was made at run time, and serves, is deleted."""

    def begin(self, fleet):
        super().begin(fleet)
        assert self.make(fleet) == 201
        fleet.ready("d")

    def act(self, fleet):
        fleet.answer = self.status = fleet.quietly("DELETE", "/v1/clouds/d")

    def passed(self, fleet):
        until(lambda: f"d forgotten\n{fleet.log_tail()}", READY_S,
              lambda: fleet.ended() or fleet.says("cloud d: removed\n"))

    def after(self, fleet):
        self.look(fleet, there=False, gone=self.status == 202)


SCENARIOS = {
    "launch": Launch, "stop": Stop, "stop-hard": StopHard, "restart": Restart, "recover": Recover,
    "end": End, "detach": Detach, "reexec": Reexec, "adopt": Adopt, "adopt-loss": AdoptLoss, "adopt-half": AdoptHalf,
    "reload-add": ReloadAdd, "reload-remove": ReloadRemove, "reload-restart": ReloadRestart,
    "create": Create, "delete": Delete,
}


# --- one point ------------------------------------------------------------------------------------


class Crash:
    def __init__(self, jar, keep=None):
        self.jar = jar
        self.keep = keep

    def _begin(self, scenario, *options):
        """A fleet at the first of the points, and its tracer."""
        fleet = CrashFleet(self.jar, scenario.nodes, scenario.knobs, **scenario.keys)
        fleet.answer = None
        try:
            if scenario.from_exec:
                scenario.begin(fleet)
                fleet.wrapper = [CRASHPOINT, "run"]
                fleet.daemon = fleet.spawn()
                return fleet, Tracer(fleet.daemon.pid, "--exec", *options)
            fleet.wrapper = [CRASHPOINT, "allow"]
            scenario.begin(fleet)
            return fleet, Tracer(fleet.daemon.pid, *options)
        except BaseException:
            fleet.close()
            fleet.remove()
            raise

    def _play(self, scenario, fleet):
        actor = threading.Thread(target=scenario.act, args=(fleet,))
        actor.start()
        scenario.passed(fleet)
        actor.join()

    def list(self, name, scenario=None):
        """The calls with effect of a scenario that nobody disturbs, and how many there are in all."""
        scenario = scenario or SCENARIOS[name]()
        fleet, tracer = self._begin(scenario)
        try:
            self._play(scenario, fleet)
            tracer.finish()
        finally:
            fleet.close()  # what this leaves is for the points to say
            fleet.remove()
        return tracer.calls, tracer.total

    def run(self, point):
        """A Result."""
        scenario = SCENARIOS[point.scenario]()
        fleet, tracer = self._begin(scenario, "--at", str(point.n), *point.OPTIONS[point.when])
        bystander = Bystander(fleet, self.jar)
        wrong, killed, outcome = [], None, None
        try:
            self._play(scenario, fleet)
            killed = tracer.killed()
            if killed:
                status = fleet.daemon.wait()
                outcome = self._aftermath(scenario, fleet, wrong)  # while children may be held back
                if status != -signal.SIGKILL:
                    wrong.append(f"the daemon ended with {status} when it was killed")
            elif scenario.leaves and fleet.ended():
                fleet.wrapper = []
                fleet.start()  # for what it has left
            tracer.finish()
        except (AssertionError, OSError, http.client.HTTPException, subprocess.SubprocessError) as e:
            wrong.append(f"{type(e).__name__}: {e}")
        wrong += self._end(fleet, bystander)
        if wrong and self.keep:
            fleet.save(self.keep / str(point).replace(":", "-"))
        fleet.remove()
        return Result(point, killed, outcome, wrong)

    def _aftermath(self, scenario, fleet, wrong):
        """A new daemon on what the killed one has left."""
        time.sleep(0.01)  # signals that were sent before the death arrive
        left = fleet.state()
        alive = alive_of(fleet, "c")
        stopped = left.get("wanted") == "stopped" and left.get("generation", 0) > 0
        if fleet.answer == 202 and left.get("wanted") != scenario.wanted:
            wrong.append(f"the answer was given, but not recorded: wanted is {left.get('wanted')}")
        fleet.wrapper = []
        begun = time.monotonic() * 1000
        fleet.start()
        wrong += [f"set aside: {p.name}" for p in files_below(fleet.state_dir, "*.unusable*")]
        if stopped:
            fleet.wait("stopped", timeout=READY_S)
            until("no member alive", 5, lambda: not fleet.journal().alive())
            return "stopped"
        cloud = fleet.ready(timeout=READY_S)
        scenario.after(fleet)
        wrong += self._endpoint(fleet, cloud)
        lives_on = {n["pid"] for n in cloud["nodes"]} <= {s.pid for s in alive}
        if not lives_on and self._was_whole(fleet, left, alive, begun):
            wrong.append(f"a whole cloud, {[s[1:] for s in alive]}, was not adopted: {cloud}")
        return "adopted" if lives_on else "begun anew" if alive else "begun"

    @staticmethod
    def _endpoint(fleet, cloud):
        """Clients come in, by one gate and no more."""
        connection = http.client.HTTPConnection("127.0.0.1", cloud["endpoint_port"], timeout=20)
        until("one gate", 5, lambda: len([cmd for cmd in processes(f"{MARK}={fleet.dir}").values()
                                          if is_gate(cmd)]) == 1)
        with contextlib.closing(connection):
            connection.request("GET", "/3/Cloud")
            status = connection.getresponse().status
        return [] if status == 200 else [f"the endpoint answers {status}"]

    @staticmethod
    def _was_whole(fleet, left, alive, begun):
        """It served, and nobody had begun to end it: those must live on."""
        journal = fleet.journal()
        touched = {pid for ms, pid, _ in journal.signals + journal.ends if ms < begun}
        return left.get("state") in ("ready", "degraded") and len(alive) == fleet.n_nodes and \
            len({generation_of(s.token) for s in alive}) == 1 and not touched & {s.pid for s in alive}

    @staticmethod
    def _end(fleet, bystander):
        """The orderly stop of it all, and what the fakes have to say."""
        wrong = bystander.close()
        journal = fleet.journal()
        fleet.seen_pids |= journal.pids()
        fleet.killed = fleet.ended()
        wrong += fleet.close()
        journal = fleet.journal()
        wrong += journal.violations()
        wrong += [f"pid {s.pid} ({s.token}) still lives" for s in journal.alive()]
        if not fleet.killed:
            wrong += [f"temporary file {p}" for p in files_below(fleet.dir, "*.new")]
        return wrong
