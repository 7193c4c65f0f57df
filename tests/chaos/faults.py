"""What befalls the fleet. A fault is drawn (all that is random about it, from the seed's numbers alone), then strikes;
what must follow is judged by chaos.py: a restart, or none."""

import contextlib
import http.client
import os
import pathlib
import re
import signal
import socket
import threading
import time

from fleet import SLOW, read, until

RESTART, SAME = "restart", "no restart"

# hang_timeout of the cloud: what is paused for less lives on, what is paused for longer is replaced. A busy machine
# or a collection of garbage may make an answer late by some seconds.
HANG_S = round(10 * SLOW ** 0.5)
MEMORY_GROUPS = pathlib.Path("/sys/fs/cgroup/memory")


class NotNow(Exception):
    """It could not be done, as where there is nobody to kill."""


class Fault:
    """`outage`: clients may be met with errors while it lasts."""

    expects, outage, least_nodes = RESTART, True, 1

    def draw(self, rng, nodes):
        """-> parameters, a dictionary"""
        return {}

    def strike(self, chaos, **_):
        raise NotImplementedError

    @staticmethod
    def lacking(chaos):
        """Why it cannot be done on this machine; None: it can."""
        return None


# --- members ----------------------------------------------------------------------------------------


class KillMember(Fault):
    sig = signal.SIGKILL

    def draw(self, rng, nodes):
        return {"index": rng.randrange(nodes)}

    def strike(self, chaos, index):
        chaos.signal(chaos.member(index), self.sig)


class TermMember(KillMember):
    sig = signal.SIGTERM


class KillSome(Fault):
    least_nodes = 3

    def draw(self, rng, nodes):
        return {"indices": sorted(rng.sample(range(nodes), rng.randrange(2, nodes)))}

    def strike(self, chaos, indices):
        for member in [chaos.member(i) for i in indices]:
            chaos.signal(member, signal.SIGKILL)


class KillAll(Fault):
    def strike(self, chaos):
        chaos.kill_all()


class PauseMember(Fault):
    """SIGSTOP for a moment, which no client sees but by the clock."""

    expects, outage = SAME, False

    def draw(self, rng, nodes):
        return {"index": rng.randrange(nodes), "seconds": round(rng.uniform(0.5, HANG_S * 0.4), 1)}

    def strike(self, chaos, index, seconds):
        with chaos.paused(chaos.member(index)):
            time.sleep(seconds)


class HangMember(Fault):
    """SIGSTOP for longer than hang_timeout: the daemon ends it."""

    def draw(self, rng, nodes):
        return {"index": rng.randrange(nodes)}

    def strike(self, chaos, index):
        member = chaos.member(index)
        with chaos.paused(member):
            begun = time.monotonic()
            if not chaos.gone(member, HANG_S + 20 * SLOW):
                chaos.world.findings.add("hung", f"{member} hangs since {begun:.2f}, and still lives")
                raise NotNow("nobody has ended it")


class JavaOom(Fault):
    """A client's request that needs more heap than there is; the nodes have -XX:+ExitOnOutOfMemoryError."""

    def strike(self, chaos):
        victims = list(chaos.world.scanner.of("c").values())
        if not victims:
            raise NotNow("there is nobody")
        connection = http.client.HTTPConnection("127.0.0.1", chaos.world.port, timeout=60 * SLOW)
        with contextlib.closing(connection):
            with contextlib.suppress(OSError, http.client.HTTPException):
                # Text of 40 MB, and numbers of 160 MB, which grow by being copied.
                connection.request("POST", "/99/Rapids", body=b"ast=(sum+[" + b"1+" * 20_000_000 + b"])",
                                   headers={"Content-Type": "application/x-www-form-urlencoded"})
                connection.getresponse().read()
        if not any(chaos.gone(m, 10 / len(victims)) for m in victims):
            raise NotNow("there was room for it")


class KernelOom(Fault):
    """A member is put into a memory control group that is too small for what it goes on to need."""

    def draw(self, rng, nodes):
        return {"index": rng.randrange(nodes)}

    @staticmethod
    def group():
        path = re.search(r"^\d+:memory:(/.*)$", read("/proc/self/cgroup"), re.M)
        return path and MEMORY_GROUPS / path[1].lstrip("/") / f"h2ofleet-chaos-{os.getpid()}"

    @classmethod
    def lacking(cls, chaos):
        group = cls.group()
        if not group:
            return "no memory control group of version 1 here"
        try:
            group.mkdir()
            group.rmdir()
        except OSError as e:
            return f"no control group can be made: {e.strerror}"
        return None

    def strike(self, chaos, index):
        member, group = chaos.member(index), self.group()
        group.mkdir()
        try:
            (group / "memory.limit_in_bytes").write_text(str(4 << 20))
            (group / "cgroup.procs").write_text(str(member.pid))
            # Its garbage is what it needs new pages for.
            begun = time.monotonic()
            while not chaos.gone(member, 0.05):
                if time.monotonic() > begun + 20 * SLOW:
                    raise NotNow("it needed no more memory")
                with contextlib.suppress(OSError, http.client.HTTPException):
                    connection = http.client.HTTPConnection("127.0.0.1", member.port, timeout=2)
                    with contextlib.closing(connection):
                        connection.request("GET", "/3/Cloud")
                        connection.getresponse().read()
        except OSError as e:
            raise NotNow(f"{e.filename}: {e.strerror}") from None
        finally:
            for pid in read(group / "cgroup.procs").split():
                with contextlib.suppress(OSError):
                    (group.parent / "cgroup.procs").write_text(pid)
            until(f"{group} is empty", 10, lambda: not read(group / "cgroup.procs"))
            group.rmdir()


# --- the daemon and the gate ------------------------------------------------------------------------


class KillDaemon(Fault):
    """Another is started, as systemd would: it adopts what it finds, and no client notices."""

    expects, outage = SAME, False

    def draw(self, rng, nodes):
        return {"seconds": round(rng.uniform(0, 3), 1)}

    def strike(self, chaos, seconds):
        with chaos.without_daemon():
            time.sleep(seconds)


class KillDaemonAndMembers(Fault):
    """Members die while there is no daemon."""

    def draw(self, rng, nodes):
        return {"seconds": round(rng.uniform(0, 2), 1),
                "indices": sorted(rng.sample(range(nodes), rng.randint(1, nodes)))}

    def strike(self, chaos, seconds, indices):
        with chaos.without_daemon():
            time.sleep(seconds)
            members = chaos.world.scanner.of("c")
            for member in [chaos.member(i) for i in indices if i in members]:
                chaos.signal(member, signal.SIGKILL)
        if not members.keys() & set(indices):
            raise NotNow("there was nobody to kill")


class PauseDaemon(Fault):
    expects, outage = SAME, False

    def draw(self, rng, nodes):
        return {"seconds": round(rng.uniform(0.5, HANG_S * 0.8), 1)}

    def strike(self, chaos, seconds):
        with chaos.daemon_paused():
            time.sleep(seconds)


class PauseDaemonKillMember(Fault):
    """What happened while it stood still is seen when it goes on."""

    def draw(self, rng, nodes):
        return {"index": rng.randrange(nodes), "seconds": round(rng.uniform(0.5, 3), 1)}

    def strike(self, chaos, index, seconds):
        member = chaos.member(index)
        with chaos.daemon_paused():
            chaos.signal(member, signal.SIGKILL)
            time.sleep(seconds)


class EndDaemon(Fault):
    """SIGTERM: it ends all, in order, and leaves nothing; then it is started again."""

    def strike(self, chaos):
        with chaos.world.absent.during("ended"), chaos.no_operator():
            chaos.end_daemon()
            chaos.start_daemon()


class Reexec(Fault):
    expects, outage = SAME, False

    def strike(self, chaos):
        with chaos.world.absent.during("reexec"):
            before = chaos.api("GET", "/v1/version")[1]["reexecs"]
            status, said = chaos.api("POST", "/v1/reexec")
            if status != 202:
                raise NotNow(f"{status} {said}")
            until("a new image", 20, lambda: chaos.answers("/v1/version", lambda v: v["reexecs"] > before))


class KillGate(Fault):
    """Connections are cut; the daemon starts another, and the port was never free."""

    expects = SAME

    def strike(self, chaos):
        os.kill(chaos.gate(), signal.SIGKILL)


class PauseGate(Fault):
    expects, outage = SAME, False

    def draw(self, rng, nodes):
        return {"seconds": round(rng.uniform(0.5, 4), 1)}

    def strike(self, chaos, seconds):
        pid = chaos.gate()
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


class RestartCloud(Fault):
    """The operator's own."""

    def strike(self, chaos):
        status, said = chaos.api("POST", "/v1/clouds/c/restart")
        if status != 202:
            raise NotNow(f"{status} {said}")


# --- ports and disks --------------------------------------------------------------------------------


class Thief(threading.Thread):
    """Listens on a port of another's as soon as it can, and keeps what it is sent."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.over, self.got, self.heard, self.port = threading.Event(), threading.Event(), [], port

    def run(self):
        with socket.socket() as s:
            # So do JVMs; otherwise the daemon's hold on the port keeps one off.
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            while not self.over.is_set():
                with contextlib.suppress(OSError):
                    s.bind(("127.0.0.1", self.port))
                    s.listen()
                    break
                time.sleep(0.0005)
            else:
                return
            self.got.set()
            s.settimeout(0.05)
            while not self.over.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = s.accept()
                    with connection:
                        connection.settimeout(0.2)
                        self.heard.append(connection.recv(2000))


class StealPort(Fault):
    """All members are killed, and before there are others somebody listens on a port of one. Nothing that a client
    sends may reach him. With `daemon` that dies, too: nobody holds the ports then."""

    def draw(self, rng, nodes):
        return {"index": rng.randrange(nodes), "upper": rng.random() < 0.3, "daemon": rng.random() < 0.3,
                "seconds": round(rng.uniform(1, 6), 1)}

    def strike(self, chaos, index, upper, daemon, seconds):
        thief = Thief(chaos.member(index).port + upper)
        with chaos.without_daemon() if daemon else contextlib.nullcontext():
            chaos.kill_all()
            thief.start()
            thief.got.wait(3)
        try:
            if not thief.got.wait(7):
                raise NotNow("it could not be stolen")
            time.sleep(seconds)
        finally:
            thief.over.set()
            thief.join()
        for data in thief.heard:
            if b"X-Chaos" in data or b"H2O Python" in data:
                chaos.world.findings.add("theft", f"a client's request reached a stranger on port {thief.port}: "
                                         f"{data[:200]}")


class FillDisk(Fault):
    """The file system of state and logs is full for a while; `then`: what else happens meanwhile."""

    expects, outage = SAME, False

    def draw(self, rng, nodes):
        return {"seconds": round(rng.uniform(2, 6), 1)}

    @staticmethod
    def lacking(chaos):
        return chaos.no_small_disk

    def strike(self, chaos, seconds):
        with chaos.full_disk():
            time.sleep(seconds)


class FillDiskKillMember(Fault):
    def draw(self, rng, nodes):
        return {"index": rng.randrange(nodes), "seconds": round(rng.uniform(2, 6), 1)}

    lacking = FillDisk.lacking

    def strike(self, chaos, index, seconds):
        member = chaos.member(index)
        with chaos.full_disk():
            chaos.signal(member, signal.SIGKILL)
            time.sleep(seconds)


class FillDiskKillDaemon(Fault):
    """It may refuse to start on a full disk, but must when there is room again, and adopt what lives."""

    expects, outage = SAME, False

    def draw(self, rng, nodes):
        return {"seconds": round(rng.uniform(1, 4), 1)}

    lacking = FillDisk.lacking

    def strike(self, chaos, seconds):
        with chaos.world.absent.during("killed on a full disk"):
            with chaos.full_disk():
                chaos.fleet.kill_daemon()
                begun, started = time.monotonic(), False
                while not started and time.monotonic() < begun + seconds:
                    started = chaos.try_daemon()
            if not started:
                chaos.start_daemon()


# --- the deck ---------------------------------------------------------------------------------------

KINDS = {
    "kill-member": KillMember, "kill-some": KillSome, "kill-all": KillAll, "term-member": TermMember,
    "pause-member": PauseMember, "hang-member": HangMember, "java-oom": JavaOom, "kernel-oom": KernelOom,
    "kill-daemon": KillDaemon, "kill-daemon-and-members": KillDaemonAndMembers, "pause-daemon": PauseDaemon,
    "pause-daemon-kill-member": PauseDaemonKillMember, "end-daemon": EndDaemon, "reexec": Reexec,
    "kill-gate": KillGate, "pause-gate": PauseGate, "restart-cloud": RestartCloud, "steal-port": StealPort,
    "fill-disk": FillDisk, "fill-disk-kill-member": FillDiskKillMember, "fill-disk-kill-daemon": FillDiskKillDaemon,
}


def sequence(rng, names, nodes):
    """Endless (name, fault, parameters, patience): each kind once in a random order, and again. patience: seconds
    of calm after what follows is over; negative: the next comes after so many, whatever follows."""
    while True:
        deck = list(names)
        rng.shuffle(deck)
        for name in deck:
            fault = KINDS[name]()
            patience = -rng.uniform(0.2, 4) if rng.random() < 0.2 else rng.uniform(2, 6)
            yield name, fault, fault.draw(rng, nodes), round(patience, 2)
