"""Makes one call of a daemon fail, and says what was violated.

A *scenario* is one of tests/crash (launch, adopt, stop, ...) or of those below, a *point* a call that the
daemon makes in it (fault.h says how it is named) and the way in which it fails. `Faults.run()` tries
one point and returns sentences, which should be none."""

import collections
import contextlib
import errno
import functools
import http.client
import mmap
import os
import pathlib
import re
import signal
import struct
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "crash"), str(HERE.parent / "e2e")]

import crash  # noqa: E402
from crash import READY_S, SCENARIOS as CRASH_SCENARIOS, Bystander, Crash, CrashFleet  # noqa: E402
from fleet import FAKEJAVA, FINDINGS, H2OFLEETD, SLOW, read, until  # noqa: E402

LIBRARY = os.environ.get("FAULT_LIBRARY", str(pathlib.Path(FAKEJAVA).resolve().parents[1] / "fault/fault.so"))

DAEMON, GATE, ROTATE = range(3)
SHORT = -1

# --- how calls fail -------------------------------------------------------------------------------

MEMORY = ("malloc", "calloc", "realloc")
NO_MEMORY = ("curl_global_init_mem", "curl_easy_init", "curl_multi_init", "curl_multi_add_handle",
             "curl_multi_socket_action", "curl_easy_setopt", "MHD_create_response_from_buffer",
             "MHD_create_response_from_callback", "MHD_add_response_header", "MHD_queue_response",
             "MHD_run", "MHD_add_connection", "MHD_start_daemon")

# What these can really answer, for want of something or by a broken disk. An errno that would be a lie
# about the world (ESRCH of a process that lives) or a mistake of ours (EBADF) is none.
ERRORS = {
    "mmap": ("ENOMEM", "ENODEV"),
    "fork": ("EAGAIN", "ENOMEM"),
    "execve": ("EACCES", "ENOMEM", "ETXTBSY"), "execv": ("EACCES", "ENOMEM"),
    "waitid": ("EINTR",), "waitpid": ("EINTR",),
    "kill": ("EPERM",), "pidfd_open": ("EMFILE", "ENOMEM"), "pidfd_send_signal": ("EPERM", "ENOMEM"),
    "setsid": ("EPERM",), "setpgid": ("EPERM",), "prctl": ("EINVAL",), "syscall": ("ENOSYS",),
    "setrlimit": ("EPERM",), "getrlimit": ("EPERM",), "setpriority": ("EACCES",), "sigaction": (),
    "chdir": ("EACCES",), "fchdir": ("EACCES",), "close_range": ("ENOSYS",),
    "open": ("EMFILE", "EACCES", "EIO"), "create": ("ENOSPC", "EMFILE", "EROFS"),
    "fopen": ("EMFILE", "EACCES"), "opendir": ("EMFILE", "EACCES"), "fdopendir": ("ENOMEM",),
    "readdir": ("EIO",), "scandir": ("ENOMEM", "EIO"), "memfd_create": ("ENFILE", "ENOMEM"),
    "read": ("EIO", "EINTR", "short"), "pread": ("EIO", "EINTR", "short"),
    "write": ("ENOSPC", "EIO", "EINTR", "short"), "pwrite": ("ENOSPC", "EIO", "EINTR", "short"),
    "read-other": ("EINTR",), "write-other": ("EINTR",),
    "writev": ("EPIPE", "EAGAIN"), "splice": ("ENOMEM", "EAGAIN", "short"), "sendfile": ("EAGAIN", "short"),
    "stat": ("EACCES", "EIO"), "lstat": ("EACCES", "EIO"), "fstat": ("EIO",), "fstatat": ("EACCES", "EIO"),
    "statx": ("EIO",), "statvfs": ("EIO",), "access": ("EIO",), "faccessat": ("EIO",),
    "readlink": ("EACCES", "ENOMEM"), "readlinkat": ("EACCES", "ENOMEM"), "realpath": ("EIO",),
    "rename": ("ENOSPC", "EIO"), "renameat2": ("ENOSPC", "EIO"), "link": ("ENOSPC", "EPERM"),
    "symlink": ("ENOSPC",), "unlink": ("EIO", "EROFS"), "unlinkat": ("EIO", "EROFS"), "rmdir": ("EIO", "EBUSY"),
    "mkdir": ("ENOSPC", "EACCES"), "mkfifo": ("ENOSPC", "EPERM"),
    "fsync": ("EIO", "ENOSPC"), "fdatasync": ("EIO",), "ftruncate": ("EIO", "ENOSPC"),
    "fallocate": ("ENOSPC", "EOPNOTSUPP"), "sync_file_range": ("EIO",), "fchmod": ("EPERM",),
    "utimensat": ("EROFS",), "lseek": ("EIO",), "flock": ("ENOLCK", "EINTR"),
    "dup2": ("EMFILE",), "dup3": ("EMFILE",), "pipe2": ("EMFILE", "ENFILE"),
    "fcntl": ("EMFILE",), "fcntl-lock": ("ENOLCK",), "ioctl": ("ENOTTY",),
    "socket": ("EMFILE", "ENOBUFS", "EAFNOSUPPORT"), "socketpair": ("EMFILE", "ENFILE"),
    "bind": ("EADDRINUSE", "EACCES"), "listen": ("EADDRINUSE",), "accept4": ("EMFILE", "ECONNABORTED"),
    "connect": ("EADDRNOTAVAIL", "ECONNREFUSED"), "getsockname": (), "getpeername": ("ENOTCONN",),
    "getsockopt": (), "setsockopt": ("ENOMEM",), "shutdown": ("ENOTCONN",),
    "send": ("EPIPE", "ENOBUFS", "EAGAIN", "short"), "sendto": ("EPIPE", "ENOBUFS", "EAGAIN"),
    "sendmsg": ("EPIPE", "ENOBUFS", "ETOOMANYREFS"), "recv": ("ECONNRESET", "EINTR", "EAGAIN", "short"),
    "recvmsg": ("ECONNRESET", "EINTR"), "poll": ("EINTR", "ENOMEM"), "epoll_create1": ("EMFILE",),
    "epoll_ctl": ("ENOMEM", "ENOSPC"), "epoll_wait": ("EINTR",), "epoll_pwait": ("EINTR",),
    "eventfd": ("EMFILE",), "signalfd": ("EMFILE",), "timerfd_create": ("EMFILE",),
    "getrandom": ("EINTR",), "getpwuid": ("EMFILE", "ENOMEM"), "getpwnam": ("EMFILE", "ENOMEM"),
    "getgrnam": ("EMFILE", "ENOMEM"),
    **{name: ("ENOMEM",) for name in MEMORY + NO_MEMORY},
}
ERRORS["fopen64"] = ERRORS["fopen"]
ERRORS["__realpath_chk"] = ERRORS["realpath"]

# What the operator has to do something about; a cloud that cannot be started for such a reason has failed.
PERMANENT = ("EACCES", "EPERM", "EROFS", "ENOSYS", "EAFNOSUPPORT", "EINVAL", "ENODEV", "ETXTBSY")
FAILED = r"cloud (\w+): \w+ -> failed"

# What may end a daemon: a small allocation that fails, with a message (base/util.h); and what libuv gives up
# at by itself: a watch that epoll does not take, and, at the daemon's start, no pipe for signals.
OF_LIBUV = ("epoll_ctl", "pipe2")
MAY_ABORT = MEMORY + OF_LIBUV


def program_of(scenario):
    gate = getattr(SCENARIOS[scenario], "program", DAEMON) == GATE
    return str(pathlib.Path(H2OFLEETD).with_name("h2ofleet-gate")) if gate else str(H2OFLEETD)


class Site(collections.namedtuple("Site", "id count in_child call detail library frames")):
    """See fault.h."""

    def story(self, scenario):
        """The functions on the way to it, the innermost first."""
        names = subprocess.run(
            ["addr2line", "-s", "-f", "-i", "-e", program_of(scenario), *(hex(f - 1) for f in self.frames)],
            stdout=subprocess.PIPE, text=True, check=False).stdout.splitlines()
        way = [f"{function} ({place.partition(' ')[0]})" for function, place in zip(names[::2], names[1::2])]
        return f"{self.call} {self.detail}{' in ' + self.library if self.library else ''}" \
               f"{' in the child' if self.in_child else ''}: {' < '.join(way[:12])}"


class Point(collections.namedtuple("Point", "scenario call error site nth")):
    """The nth call at a site, which fails with `error`."""

    def __str__(self):
        return f"{self.scenario}:{self.call}:{self.error}:{self.site:016x}:{self.nth}"

    @classmethod
    def parse(cls, text):
        scenario, call, error, site, nth = text.split(":")
        return cls(scenario, call, error, int(site, 16), int(nth))

    @property
    def code(self):
        return SHORT if self.error == "short" else getattr(errno, self.error)


class Plan:
    """The file that is shared with the preloaded library: fault.h's struct fault_plan."""

    VERSION = 1
    SITES = 16384
    HEADER = struct.Struct("=IIIIQIiII")
    SITE = struct.Struct("=QII40s96s32s24Q")

    def __init__(self, path, program, point=None):
        with open(path, "w+b") as f:
            f.truncate(self.HEADER.size + self.SITES * self.SITE.size)
            self.map = mmap.mmap(f.fileno(), 0)
        self.map[:self.HEADER.size] = self.HEADER.pack(
            self.VERSION, program, 0, 0, point.site if point else 0, point.nth if point else 0,
            point.code if point else 0, 0, 0)

    def arm(self, on=True):
        self.map[8:12] = struct.pack("=I", on)

    @property
    def fired(self):
        """The process whose call has failed; 0: none yet."""
        return struct.unpack("=I", self.map[12:16])[0]

    def sites(self):
        assert self.HEADER.unpack(self.map[:self.HEADER.size])[-1] == 0, "more sites than places"
        found = []
        for i in range(self.SITES):
            at = self.HEADER.size + i * self.SITE.size
            if self.map[at:at + 8] == bytes(8):
                continue
            number, count, in_child, call, detail, library, *frames = self.SITE.unpack(
                self.map[at:at + self.SITE.size])
            found.append(Site(number, count, in_child, *(s.split(b"\0")[0].decode(errors="replace")
                                                         for s in (call, detail, library)),
                              [f for f in frames if f]))
        return found


# --- scenarios ------------------------------------------------------------------------------------

# Those that ask the daemon for something ask again when it refuses.
ASK = ("stop", "restart", "reload-add", "reload-remove", "reload-restart", "create", "delete")
DONE_ALREADY = {"create": 409, "delete": 404}


def ask_endpoint(fleet, times=3):
    """What a client does."""
    for _ in range(times):
        cloud = fleet.ready(timeout=READY_S)
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", cloud["endpoint_port"], timeout=20)
            with contextlib.closing(connection):
                connection.request("GET", "/3/Cloud")
                connection.getresponse().read()


class GateServe(crash.Launch):
    """The gate, from its exec on, and clients."""

    nodes = 2
    program = GATE

    def passed(self, fleet):
        super().passed(fleet)
        ask_endpoint(fleet)


class GateEnd(crash.Restart):
    """The gate while the endpoint is withdrawn and published again."""

    program = GATE

    def passed(self, fleet):
        super().passed(fleet)
        ask_endpoint(fleet)


SCENARIOS = {name: CRASH_SCENARIOS[name] for name in (
    "launch", "recover", "adopt", "adopt-loss", "stop", "restart", "end", "detach", "reexec", "reload-add",
    "reload-remove", "reload-restart", "create", "delete")}
SCENARIOS |= {"gate-serve": GateServe, "gate-restart": GateEnd}


# --- what a daemon and its gate have open ----------------------------------------------------------


def descriptors(fleet):
    """How many of each kind."""
    found = collections.Counter()
    for who, pid in ("", fleet.daemon.pid), ("gate: ", fleet.gate()):
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    name = os.readlink(f"/proc/{pid}/fd/{fd}").replace(str(fleet.dir), "")
                    found[who + re.sub(r"[0-9]+", "N", name)] += 1
    return found


# --- one point ------------------------------------------------------------------------------------

# fired: the process; outcome: what became of it
Result = collections.namedtuple("Result", "point fired outcome wrong")


class Faults(Crash):
    def __init__(self, jar, keep=None):
        super().__init__(jar, keep)
        self.baselines = {}

    def _open(self, name, point=None):
        """A fleet whose next daemon (the first one, or the one that adopts) is at the first point."""
        scenario = SCENARIOS[name]()
        fleet = CrashFleet(self.jar, scenario.nodes, scenario.knobs, **scenario.keys)
        fleet.answer = None
        plan = Plan(fleet.dir / "fault", getattr(scenario, "program", DAEMON), point)
        # The sanitizer's library comes behind ours, which asks it for memory.
        faulty = {"LD_PRELOAD": LIBRARY, "H2OFLEET_FAULT": str(fleet.dir / "fault"),
                  "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0",
                  "LSAN_OPTIONS": f"suppressions={HERE}/lsan.supp:print_suppressions=0"}
        try:
            if scenario.from_exec:
                scenario.begin(fleet)
                plan.arm()
                fleet.env_extra = faulty
                fleet.daemon = fleet.spawn()
            else:
                fleet.env_extra = faulty
                scenario.begin(fleet)
                plan.arm()
        except BaseException:
            fleet.close()
            fleet.remove()
            raise
        fleet.env_extra = {}
        return scenario, fleet, plan

    @staticmethod
    def _play_on(name, scenario, fleet, may_fail=False):
        """Until all of it has happened, or the daemon has ended; how often a request was refused."""
        refused = []

        def act():
            for _ in range(50):
                scenario.act(fleet)
                status = fleet.answer
                if name not in ASK or status and 200 <= status < 300 or fleet.ended() or \
                        status == DONE_ALREADY.get(name):
                    return
                refused.append(status)
                time.sleep(0.1)

        over = threading.Event()

        def begin_again():
            """What the operator does about what was refused or has failed with a good reason."""
            while not over.wait(0.1):
                if name == "reexec" and fleet.says("error: .*goes on as it was"):
                    fleet.send(signal.SIGUSR1)
                    return
                failed = fleet.says(FAILED) if may_fail else []
                if failed:
                    fleet.quietly("POST", f"/v1/clouds/{failed[0]}/start")
                    return

        threads = [threading.Thread(target=act), threading.Thread(target=begin_again)]
        for thread in threads:
            thread.start()
        try:
            scenario.passed(fleet)
        finally:
            over.set()
            for thread in threads:
                thread.join()
        # What we waited for is said in the midst of a step: an answer comes after it.
        if not fleet.ended():
            fleet.quietly("GET", "/v1/clouds")
        return refused

    def list(self, name, scenario=None):
        """The sites of a scenario that nobody disturbs; keeps what the daemon has open at its end."""
        scenario, fleet, plan = self._open(name)
        try:
            self._play_on(name, scenario, fleet)
            sites = plan.sites()
            if fleet.ended() and scenario.leaves:
                fleet.start()
            if not fleet.ended():
                self._goes_on(scenario, fleet)
                if isinstance(scenario, crash.Adopt):
                    self._replace_gate(fleet)  # one that was adopted takes a descriptor less
                self.baselines[name] = self._quiet_descriptors(fleet)
        finally:
            wrong = fleet.close()
            fleet.remove()
        assert not wrong, wrong
        return sites

    @staticmethod
    def _replace_gate(fleet):
        before = fleet.gate()
        os.kill(before, signal.SIGKILL)
        until("another gate", READY_S, lambda: fleet.gate() not in (before, None))

    @staticmethod
    def _quiet_descriptors(fleet):
        """Once they stay the same for a moment."""
        last, since = None, 0
        deadline = time.monotonic() + 10 * SLOW
        while time.monotonic() < deadline:
            now = descriptors(fleet)
            if now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since > 0.5:
                break
            time.sleep(0.05)
        return last

    @staticmethod
    def _recorded(fleet, cloud):
        """Whatever failed, what is so comes onto the disk soon: the next daemon goes by it."""
        def told():
            state = fleet.state()
            return (state.get("state"), state.get("generation"))

        until(lambda: f"{cloud['state']}, {cloud['generation']} in the state file, which has {told()}", 5,
              lambda: told() == (cloud["state"], cloud["generation"]))

    def _goes_on(self, scenario, fleet):
        """The daemon does all it is there for: the cloud serves, a member's death is noticed."""
        wrong = []
        if scenario.wanted == "stopped":
            self._recorded(fleet, fleet.wait("stopped", timeout=READY_S))
            until("no member alive", 5, lambda: not fleet.journal().alive())
            assert fleet.api("POST", "/v1/clouds/c/start")[0] == 202
        cloud = fleet.ready(timeout=READY_S)
        scenario.after(fleet)
        wrong += self._endpoint(fleet, cloud)
        self._recorded(fleet, cloud)
        fleet.kill_member(0)
        cloud = fleet.ready(timeout=READY_S, generation=cloud["generation"] + 1)
        wrong += self._endpoint(fleet, cloud)
        self._recorded(fleet, cloud)
        until(lambda: f"no troubles, but: {fleet.api('GET', '/v1/fleet')[1]['troubles']}", 15, lambda:
              not fleet.api("GET", "/v1/fleet")[1]["troubles"])
        return wrong

    def run(self, point):
        """A Result."""
        scenario, fleet, plan = self._open(point.scenario, point)
        bystander = Bystander(fleet, self.jar)
        wrong, outcome = [], "not reached"
        try:
            refused = self._play_on(point.scenario, scenario, fleet, point.error in PERMANENT)
            plan.arm(False)
            if plan.fired:
                outcome = "not as it should be"
                outcome = self._judge(point, scenario, fleet, plan, wrong)
                if outcome == "went on" and (refused or fleet.says(FAILED)):
                    outcome = "refused, then done" if refused else "failed, then started"
            elif fleet.ended() and (scenario.leaves or fleet.daemon.wait() != 0):
                fleet.start()  # for what it has left
        except (AssertionError, OSError, http.client.HTTPException, subprocess.SubprocessError, KeyError) as e:
            wrong.append(f"{type(e).__name__}: {e}")
            outcome = "not as it should be" if plan.fired else outcome
        wrong += [w for w in self._end(fleet, bystander) if not self._is_due_to(point, w)]
        if wrong and self.keep:
            fleet.save(self.keep / ("fault-" + str(point).replace(":", "-")))
        fleet.remove()
        return Result(point, plan.fired, outcome, wrong)

    @staticmethod
    def _is_due_to(point, sentence):
        """What could not be removed is left."""
        return point.call in ("unlink", "unlinkat", "rmdir", "lstat") and "\nfile " in sentence and \
            not re.search("\n(process|port|socket|control) ", sentence)

    def _judge(self, point, scenario, fleet, plan, wrong):
        # Who aborts says so first, and the sanitizers are slow.
        until("an answer, or the daemon's end", READY_S, lambda:
              fleet.ended() or fleet.quietly("GET", "/v1/clouds") or fleet.ended())
        if not fleet.ended():
            wrong += self._goes_on(scenario, fleet)
            wrong += self._leaks(point.scenario, fleet)
            return "went on"
        status = fleet.daemon.wait()
        if isinstance(scenario, crash.End) and status == 0:
            if scenario.leaves:
                fleet.start()
                wrong += self._goes_on(scenario, fleet)
            elif fleet.socket.exists() and point.call not in ("lstat", "unlink"):
                wrong.append("the control socket is left")
            return "went on"
        if status == -signal.SIGABRT and point.call in MAY_ABORT and plan.fired == fleet.daemon.pid:
            if not fleet.says("out of memory") and point.call not in OF_LIBUV:
                wrong.append(f"it aborted without a message\n{fleet.log_tail(10)}")
            return "aborted, " + self._aftermath(scenario, fleet, wrong)
        began = len(fleet.says(r"pid \d+, control socket /"))
        if scenario.from_exec and status > 0 and not FINDINGS.search(read(fleet.daemon_log)) and \
                began < len(fleet.daemons):
            return self._refused_to_start(scenario, fleet, wrong)
        if isinstance(scenario, crash.Reexec) and status == 1 and fleet.says("error: .*"):
            return "new image refused to start, " + self._aftermath(scenario, fleet, wrong)
        wrong.append(f"the daemon ended with {status}\n{fleet.log_tail(20)}")
        self._aftermath(scenario, fleet, wrong)
        return "ended"

    @staticmethod
    def _refused_to_start(scenario, fleet, wrong):
        """With a sentence, nothing left behind, and the next one starts."""
        said = read(fleet.daemon_log).strip().splitlines()
        if not said or not said[-1].strip():
            wrong.append("it said nothing")
        if not isinstance(scenario, crash.Adopt):
            until(lambda: f"nothing left, but: {fleet._processes()}", 5, lambda: not fleet._processes())
        fleet.start()
        fleet.ready(timeout=READY_S)
        return "refused to start"

    def _leaks(self, name, fleet):
        """Descriptors that a daemon without the fault does not have; and its gate, but for pipes, which it keeps for the
        next connection (src/gate/pipes.c), and where it was adopted: that of list() is a new one."""
        want, last = self.baselines[name], [None]
        but = "gate: " if issubclass(SCENARIOS[name], crash.Adopt) else "gate: pipe"

        def same():
            last[0] = {what: n for what, n in (descriptors(fleet) - want).items() if not what.startswith(but)}
            return not last[0]

        try:
            until("the same descriptors", 3, same)
        except AssertionError:
            return [f"descriptors that there are not without the fault: {last[0]}"]
        return []


@functools.cache
def place_of(program, function):
    """Where it is in the program; nowhere when it is part of its callers."""
    symbols = subprocess.run(["nm", "-S", program], stdout=subprocess.PIPE, text=True, check=True).stdout
    found = re.search(rf"^(\w+) (\w+) \w {function}$", symbols, re.M)
    start, size = (int(n, 16) for n in found.groups()) if found else (0, 0)
    return range(start, start + size)


def errors_of(scenario, site):
    """Without what cannot be: between us and a child that lives no connection is reset. And a line of the
    log that is lost is lost; it is what we wait for here."""
    def comes_by(function):
        return any(f in place_of(program_of(scenario), function) for f in site.frames)

    if site.call not in MEMORY and comes_by("log_write"):
        return ()
    if site.in_child and site.call == "recv":
        return ("EINTR",)
    if site.call == "close_range" and not site.in_child:
        return ()  # it is there since Linux 5.9
    if site.call == "send" and not scenario.startswith("gate") and comes_by("proc_release"):
        return ("ENOBUFS", "EINTR")
    return ERRORS[site.call]


def points_of(name, sites, every=False):
    """Each site with each of its errors, the first and the second time that it is come by."""
    points = []
    for s in sites:
        times = s.count if every else min(s.count, 1 if s.call in MEMORY else 2)
        points += [Point(name, s.call, error, s.id, n) for error in errors_of(name, s) for n in range(1, times + 1)]
    return points
