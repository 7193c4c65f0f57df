"""What passes bytes between a client and a server, for tests/bench/gate: each as a candidate that is
started in front of one server, with three ports (three clouds), and asked what it costs."""

import array
import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time

CLOUDS = 3
PROXYD = "/lib/systemd/systemd-socket-proxyd"
TICK = os.sysconf("SC_CLK_TCK")


def listener(port):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", port))
    s.listen(4096)
    return s


def wait_until(what, seen, limit=10):
    deadline = time.monotonic() + limit
    while not seen():
        assert time.monotonic() < deadline, f"{what}: not within {limit} s"
        time.sleep(0.01)


def answers(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


class Candidate:
    """None in between; the others are this and a command."""

    name = "direct"
    needs = None

    def __init__(self, server, ports, load):
        self.server, self.load = server, load
        self.processes = []
        self.ports = [server] * CLOUDS
        if self.needs is not None:
            self.ports = ports
            self.start()
            wait_until(self.name, lambda: all(answers(p) for p in ports))

    @classmethod
    def there(cls):
        return cls.needs is None or shutil.which(cls.needs) is not None

    def start(self):
        raise NotImplementedError

    def run(self, *command, **options):
        options = {"stdin": subprocess.DEVNULL, **options}
        self.processes.append(subprocess.Popen(command, **options))

    def stop(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait()
        self.processes = []

    def pids(self):
        """With all children."""
        found = [p.pid for p in self.processes]
        for pid in found:
            with contextlib.suppress(OSError):
                found += map(int, pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return found

    def cpu(self):
        """Seconds, those of dead children included."""
        ticks = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += sum(map(int, fields[11:15]))
        return ticks / TICK

    def wakeups(self):
        """How often it went to sleep of its own accord."""
        n = 0
        for pid in self.pids():
            for status in pathlib.Path(f"/proc/{pid}/task").glob("*/status"):
                with contextlib.suppress(OSError):
                    n += int(status.read_text().partition("\nvoluntary_ctxt_switches:")[2].split()[0])
        return n

    def memory(self):
        """KiB of private dirty memory, and descriptors."""
        kib = descriptors = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
                kib += int(rollup.partition("Private_Dirty:")[2].split()[0])
                descriptors += len(os.listdir(f"/proc/{pid}/fd"))
        return kib, descriptors


class Gate(Candidate):
    """h2ofleet-gate, told by this script what a daemon would tell it: three open doors, for us alone."""

    name = "gate"
    needs = os.environ.get("H2OFLEET_GATE", "h2ofleet-gate")
    anyone = False

    def start(self):
        self.directory = tempfile.mkdtemp(prefix="h2ofleet-bench.")
        path = os.path.join(self.directory, "gate")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
            control.bind(path)
            control.listen(4)
            self.run(self.needs, stdin=control.fileno())
        self.daemon = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.daemon.settimeout(10)
        self.daemon.connect(path)
        self.say({"op": "hello", "protocol": 1})
        while self.hear()["op"] != "ready":
            pass
        for i, port in enumerate(self.ports):
            counters = os.memfd_create(f"counters-{i}")
            os.ftruncate(counters, 4096)
            with listener(port) as door:
                self.say({"op": "door", "cloud": f"c{i}", "mode": "open", "address": "127.0.0.1",
                          "port": self.server, "hold_ms": 15000, "max_held": 1024, "knock": False,
                          "anyone": self.anyone, "uids": [os.getuid()], "names": [],
                          "foreign": False}, [counters, door.fileno()])
            os.close(counters)

    def say(self, message, fds=()):
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.daemon.sendmsg([json.dumps(message).encode()], rights)

    def hear(self):
        data, fds, _, _ = socket.recv_fds(self.daemon, 65536, 3)
        for fd in fds:
            os.close(fd)
        assert data, "the gate closed its control socket"
        return json.loads(data)

    def stop(self):
        self.daemon.close()
        super().stop()
        shutil.rmtree(self.directory)


class GateAnyone(Gate):
    """Does not ask who it is."""

    name = "gate for anyone"
    anyone = True


class Proxyd(Candidate):
    """One process a destination: so it is meant."""

    name = "socket-proxyd"
    needs = PROXYD

    def start(self):
        for port in self.ports:
            with listener(port) as door:
                self.run(self.load, "activate", str(door.fileno()), PROXYD, "--connections-max=100000",
                         f"127.0.0.1:{self.server}", pass_fds=[door.fileno()])


class Haproxy(Candidate):
    name = "haproxy 1 thread"
    needs = "haproxy"
    threads = "nbthread 1"

    def start(self):
        doors = "".join(f"""
listen c{i}
    bind 127.0.0.1:{port}
    server member0 127.0.0.1:{self.server}
""" for i, port in enumerate(self.ports))
        self.configuration = tempfile.NamedTemporaryFile("w", prefix="h2ofleet-bench.")
        self.configuration.write(f"""
global
    maxconn 4000
    {self.threads}
defaults
    mode tcp
    option splice-auto
    timeout connect 5s
    timeout client 1h
    timeout server 1h
{doors}""")
        self.configuration.flush()
        self.run("haproxy", "-q", "-db", "-f", self.configuration.name)

    def stop(self):
        super().stop()
        self.configuration.close()


class HaproxyThreads(Haproxy):
    name = "haproxy"
    threads = ""


class Socat(Candidate):
    """A process a connection, no splice; with buffers larger than its 8 KiB, and told not to cut off what is closed
    on one side after half a second."""

    name = "socat"
    needs = "socat"

    def start(self):
        for port in self.ports:
            self.run("socat", "-b65536", "-t3600", 
                     f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,backlog=4096,nodelay",
                     f"TCP:127.0.0.1:{self.server},nodelay")

    def stop(self):
        for pid in reversed(self.pids()):  # the children do not end with their parent
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 15)
        super().stop()


ALL = (Candidate, Gate, GateAnyone, Proxyd, Haproxy, HaproxyThreads, Socat)
