"""h2ofleet-gate driven as the daemon does it: its control socket, its counters, and members that are
sockets of this process."""

import contextlib
import hashlib
import json
import mmap
import os
import pathlib
import select
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time

from fleet import FINDINGS, H2OFLEETD, SLOW, WRAPPER

GATE = os.environ.get("H2OFLEET_GATE", str(pathlib.Path(H2OFLEETD).parent / "h2ofleet-gate"))
COUNTERS = (
    "connections", "held", "accepted_total", "passed_total", "held_total", "expired_total", "refused_total",
    "failed_total", "closed_total", "bytes_in", "bytes_out", "traffic_ms",
)


def until(condition, what, timeout=10):
    """The condition's value once it is true."""
    deadline = time.monotonic() + timeout * SLOW
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout * SLOW} s: {what}"
        time.sleep(0.005)


def received(sock, n=None):
    """n bytes, or all until the end."""
    data = bytearray()
    while n is None or len(data) < n:
        more = sock.recv(min(1 << 16, n - len(data) if n is not None else 1 << 16))
        if not more:
            break
        data += more
    return bytes(data)


def was_reset(sock):
    """Waits for the end; True when it was an RST."""
    try:
        while sock.recv(1 << 16):
            pass
    except ConnectionResetError:
        return True
    return False


class Member:
    """A listening socket in place of member 0. Each connection gets a thread with `handler`."""

    def __init__(self, handler=None, address="127.0.0.1"):
        self.listener = socket.create_server((address, 0), backlog=4096)
        self.address, self.port = self.listener.getsockname()[:2]
        self.accepted = 0
        self.errors = []
        self.handler = handler
        if handler:
            threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.accepted += 1
            sock.settimeout(60 * SLOW)
            threading.Thread(target=self.run, args=(sock,), daemon=True).start()

    def run(self, sock):
        with sock:
            try:
                self.handler(sock)
            except OSError as e:
                self.errors.append(e)

    def accept(self, timeout=10):
        self.listener.settimeout(timeout * SLOW)
        sock, _ = self.listener.accept()
        sock.settimeout(timeout * SLOW)
        return sock

    def nobody_comes(self, seconds=0.1):
        return not select.select([self.listener], [], [], seconds)[0]

    def close(self):
        self.listener.close()


def echo(sock):
    while data := sock.recv(1 << 16):
        sock.sendall(data)


def digest(sock):
    """The checksum of all that comes, after its end."""
    h = hashlib.sha256()
    while data := sock.recv(1 << 20):
        h.update(data)
    sock.sendall(h.digest())


class Door:
    """A cloud as the daemon would describe it."""

    def __init__(self, gate, cloud, member, listeners=None, ipv6=False, **more):
        self.gate, self.cloud = gate, cloud
        self.memfd = os.memfd_create("counters", os.MFD_CLOEXEC)
        self.listeners = listeners or [self.bind()]
        self.port = self.listeners[0].getsockname()[1]
        if ipv6:
            self.listeners.append(self.bind(socket.AF_INET6, self.port))
        self.conf = {
            "op": "door", "cloud": cloud, "mode": "open", "address": member.address if member else "127.0.0.1",
            "port": member.port if member else 1, "hold_ms": 15000, "max_held": 1024, "knock": False,
            "anyone": False, "uids": [], "names": [], "foreign": False,
        }
        self.conf.update(more)
        gate.send(self.conf, [self.memfd] + [s.fileno() for s in self.listeners])
        self.counters = None

    @staticmethod
    def bind(family=socket.AF_INET, port=0):
        """By number: the kernel keeps the port over shutdown() only then."""
        address = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        for _ in range(50):
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if port:
                sock.bind((address, port))
                return sock
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.bind((address, 0))
                free = probe.getsockname()[1]
            with contextlib.suppress(OSError):
                sock.bind((address, free))
                return sock
            sock.close()
        raise AssertionError("no free port")

    def change(self, **more):
        self.conf.update(more)
        self.gate.send(self.conf)
        self.gate.sync()

    def __getattr__(self, name):
        """A counter."""
        if name not in COUNTERS:
            raise AttributeError(name)
        if self.counters is None:
            self.counters = mmap.mmap(self.memfd, 8 * len(COUNTERS))
        return struct.unpack_from("Q", self.counters, 8 * COUNTERS.index(name))[0]

    def connect(self, timeout=10, source=None, address="127.0.0.1"):
        sock = socket.create_connection((address, self.port), timeout * SLOW, source_address=source)
        return sock

    def close(self):
        for s in self.listeners:
            s.close()
        os.close(self.memfd)


class Gate:
    def __init__(self, preload=None, prlimit=None):
        self.dir = tempfile.mkdtemp(prefix="h2ofleet-gate-")
        self.path = self.dir + "/gate"
        self.log = open(self.dir + "/log", "w+b")
        self.doors, self.members = [], []
        control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.bind(self.path)
        control.listen(8)
        env = dict(os.environ)
        if preload:
            env["LD_PRELOAD"] = preload
            env["ASAN_OPTIONS"] = "verify_asan_link_order=0:" + env.get("ASAN_OPTIONS", "")
        command = [*WRAPPER, GATE]
        if prlimit:
            command = ["prlimit", f"--nofile={prlimit}"] + command
        self.process = subprocess.Popen(command, stdin=control, stderr=self.log, env=env)
        self.pid = self.process.pid
        control.close()
        self.fds = []
        self.daemon = None
        self.connect()

    def connect(self):
        """As a daemon; the one before, if any, is no longer it. Returns what it is told."""
        if self.daemon:
            self.daemon.close()
        self.messages, self.pending = [], []
        self.daemon = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.daemon.settimeout(20 * SLOW)
        self.daemon.connect(self.path)
        return self.hello()

    def hello(self):
        self.send({"op": "hello", "protocol": 1})
        told = []
        while not told or told[-1][0]["op"] != "ready":
            message, fds = self.receive()
            told.append((message, fds))
        return told

    def sync(self):
        """All that was sent before has been obeyed."""
        for message, fds in self.hello():
            if message["op"] not in ("hello", "door", "ready"):
                self.pending.append(message)
            for fd in fds:
                os.close(fd)

    def send(self, body, fds=()):
        if fds:
            socket.send_fds(self.daemon, [json.dumps(body).encode()], fds)
        else:
            self.daemon.send(json.dumps(body).encode())

    def receive(self):
        data, fds, flags, _ = socket.recv_fds(self.daemon, 65536, 3)
        assert data, "the gate has closed the connection"
        assert not flags & socket.MSG_CTRUNC
        return json.loads(data), list(fds)

    def message(self, op, **members):
        """The next one of that kind; what else comes is kept."""
        while True:
            for m in self.pending:
                if m["op"] == op and all(m[k] == v for k, v in members.items()):
                    self.pending.remove(m)
                    return m
            m, fds = self.receive()
            for fd in fds:
                os.close(fd)
            if m["op"] not in ("hello", "door", "ready"):
                self.pending.append(m)

    def silent(self, seconds=0.2):
        """Nothing more comes. (Not sync(): a new hello is told everything again.)"""
        return not self.pending and not select.select([self.daemon], [], [], seconds)[0]

    def member(self, handler=None, **kwargs):
        self.members.append(Member(handler, **kwargs))
        return self.members[-1]

    def door(self, cloud, member, **kwargs):
        self.doors.append(Door(self, cloud, member, **kwargs))
        self.sync()
        return self.doors[-1]

    def fd_count(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def cpu(self):
        """Ticks that it has used."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def memory(self, key="Private_Dirty"):
        text = pathlib.Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return int(next(line.split()[1] for line in text.splitlines() if line.startswith(key + ":")))

    def children(self):
        return [int(p) for p in pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def log_text(self):
        return pathlib.Path(self.log.name).read_text()

    def close(self):
        """SIGTERM ends it, at once and in order."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            status = self.process.wait(10 * SLOW)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        if self.daemon:
            self.daemon.close()
        for one in self.doors + self.members:
            one.close()
        log = self.log_text()
        self.log.close()
        shutil.rmtree(self.dir)
        assert not FINDINGS.search(log), log
        return status
