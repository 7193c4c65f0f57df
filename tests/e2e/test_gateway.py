"""h2ofleet-gate by itself, driven as the daemon would (gateway.py): what it passes, holds and refuses,
and what that costs. Nothing of H2O is needed."""

import hashlib
import os
import resource
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time

import pytest

import gateway
from fleet import SLOW, WRAPPER, halt, has_ipv6
from gateway import Gate, digest, echo, received, until, was_reset

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
"localhost".encode("idna")  # loaded now: another user may not be able to read Python's library
RST = struct.pack("ii", 1, 0)


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")


@pytest.fixture
def gates():
    made = []

    def make(**kwargs):
        made.append(Gate(**kwargs))
        return made[-1]

    yield make
    assert [g.close() for g in made] == [0] * len(made)


@pytest.fixture
def gate(gates):
    return gates()


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
    sock.close()


def begin_as_user(uid, body):
    """Runs `body` in a child that is this user alone; for end_as_user()."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(r)
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            os.write(w, str(body()).encode())
        except BaseException as e:  # never back into pytest
            os.write(w, repr(e).encode())
        finally:
            os._exit(0)
    os.close(w)
    return pid, r


def end_as_user(child):
    """What it returned."""
    pid, r = child
    with os.fdopen(r) as f:
        answer = f.read()
    os.waitpid(pid, 0)
    return answer


def as_user(uid, body):
    return end_as_user(begin_as_user(uid, body))


def ask(door, timeout=10, address="127.0.0.1"):
    """One word to an echo: "ping", or how it was turned away."""
    try:
        with door.connect(timeout, address=address) as sock:
            sock.sendall(b"ping")
            return received(sock, 4).decode() or "FIN"
    except (ConnectionResetError, BrokenPipeError):
        return "RST"
    except ConnectionRefusedError:
        return "refused"


# --- passing ------------------------------------------------------------------------------------------


def test_both_ways_and_half_close(gate):
    """Bytes pass both ways; an end of one direction passes, and the other goes on."""
    member = gate.member()
    door = gate.door("c", member)
    client = door.connect()
    server = member.accept()
    client.sendall(b"question")
    assert received(server, 8) == b"question"
    client.shutdown(socket.SHUT_WR)
    assert server.recv(1) == b""
    server.sendall(b"a late answer")
    assert received(client, 13) == b"a late answer"
    assert door.connections == 1
    server.close()
    assert client.recv(1) == b""
    until(lambda: door.connections == 0, "the connection has ended")
    assert (door.accepted_total, door.passed_total, door.bytes_in, door.bytes_out) == (1, 1, 8, 13)
    assert 0 <= time.monotonic() * 1000 - door.traffic_ms < 20000 * SLOW
    assert (door.refused_total, door.failed_total, door.closed_total) == (0, 0, 0)


def test_server_ends_first(gate):
    """Half-close in the other direction."""
    member = gate.member()
    door = gate.door("c", member)
    client = door.connect()
    server = member.accept()
    server.sendall(b"greeting")
    server.shutdown(socket.SHUT_WR)
    assert received(client) == b"greeting"
    client.sendall(b"still here")
    client.close()
    assert received(server) == b"still here"
    until(lambda: door.connections == 0, "the connection has ended")


@pytest.mark.parametrize("who", ["client", "server"])
def test_reset_of_one_side(gate, who):
    """An RST of one side is an RST of the other, after the bytes before it."""
    member = gate.member()
    door = gate.door("c", member)
    client = door.connect()
    server = member.accept()
    dying, other = (client, server) if who == "client" else (server, client)
    dying.sendall(b"last words")
    assert received(other, 10) == b"last words"
    reset(dying)
    assert was_reset(other)
    until(lambda: door.connections == 0, "the connection has ended")


def test_answer_and_reset(gate):
    """A server that answers and closes with the rest of the request unread: the answer comes whole."""
    member = gate.member()
    door = gate.door("c", member)
    client = door.connect()
    server = member.accept()
    client.sendall(b"x" * 1000)
    assert received(server, 1) == b"x"
    server.sendall(b"413 too large")
    server.close()  # bytes are unread, so the kernel sends RST
    assert received(client, 13) == b"413 too large"
    assert was_reset(client)


def test_https_member(gate, tmp_path):
    """Bytes are bytes: through the gate a client sees the member's own certificate, the handshake of one
    that is held waits with it, and the session ends in order."""
    key, cert = tmp_path / "key", tmp_path / "cert"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert,
         "-subj", "/CN=member", "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    total = 16 << 20

    def serve(raw):
        h, left = hashlib.sha256(), total
        with tls.wrap_socket(raw, server_side=True) as sock:
            while left:
                data = sock.recv(min(left, 1 << 16))
                assert data, "it ended too early"
                h.update(data)
                left -= len(data)
            sock.sendall(h.digest())
            sock.unwrap()

    member = gate.member(serve)
    door = gate.door("c", member, mode="hold")
    raw = door.connect(60)
    until(lambda: door.held == 1, "it is held")
    door.change(mode="open")
    h = hashlib.sha256()
    with ssl.create_default_context(cafile=cert).wrap_socket(raw, server_hostname="127.0.0.1") as sock:
        for block in blocks(total):
            sock.sendall(block)
            h.update(block)
        assert received(sock, 32) == h.digest()
        sock.unwrap().close()
    until(lambda: door.connections == 0, "the connection has ended")
    assert door.bytes_in > total and not member.errors


@pytest.mark.parametrize("who", ["client", "server"])
def test_end_and_then_reset(gate, who):
    """Who ended its sending side in order and is gone when an answer comes: nothing is left of it."""
    member = gate.member()
    door = gate.door("c", member)
    client = door.connect()
    server = member.accept()
    going, other = (client, server) if who == "client" else (server, client)
    going.sendall(b"last words")
    going.close()
    assert received(other) == b"last words"
    other.sendall(b"too late")  # to nobody: RST
    until(lambda: door.connections == 0, "the connection has ended")
    with pytest.raises(BrokenPipeError):
        other.sendall(b"and again")


def test_answer_during_upload(gate):
    """A server that answers in the midst of a large request and closes: whatever the gate sees first,
    that it cannot write any more or that there is an answer, the answer comes whole."""
    member = gate.member()
    door = gate.door("c", member)
    for _ in range(20):
        client = door.connect()
        server = member.accept()
        client.sendall(b"x" * 1000)
        assert received(server, 1) == b"x"
        halt(gate.pid)
        client.sendall(b"x" * 1000)  # seen first
        server.sendall(b"413 too large")
        server.close()
        os.kill(gate.pid, signal.SIGCONT)
        assert received(client, 13) == b"413 too large"
        assert was_reset(client)
    until(lambda: door.connections == 0, "all have ended")


@pytest.mark.parametrize("passing", (True, False))
def test_urgent_bytes_do_not_stall(gate, passing):
    """What follows urgent data is not forgotten: a read stops in front of it. Neither when it came while
    the gate was still connecting, nor with an end right behind it."""
    member = gate.member()
    door = gate.door("c", member)
    for size in (10, 20000):
        for _ in range(10):
            if not passing:
                halt(gate.pid)
            client = door.connect()
            if passing:
                server = member.accept()
                client.sendall(b"?")
                assert received(server, 1) == b"?"
                halt(gate.pid)
            client.sendall(b"a" * size)
            client.send(b"!", socket.MSG_OOB)
            client.sendall(b"b" * 10)
            client.shutdown(socket.SHUT_WR)
            os.kill(gate.pid, signal.SIGCONT)
            if not passing:
                server = member.accept()
            data = received(server)
            assert data.replace(b"!", b"") == b"a" * size + b"b" * 10
            client.close()
            server.close()


def blocks(total):
    """Incompressible, and different everywhere."""
    block = os.urandom(1 << 20)
    for i in range(total >> 20):
        yield struct.pack("Q", i) + block[8:]


def upload(door, total):
    h = hashlib.sha256()
    with door.connect(120) as sock:
        for block in blocks(total):
            sock.sendall(block)
            h.update(block)
        sock.shutdown(socket.SHUT_WR)
        assert received(sock) == h.digest()


def download(gate, door_name, total):
    h = hashlib.sha256()

    def send(sock):
        for block in blocks(total):
            sock.sendall(block)
            h.update(block)

    door = gate.door(door_name, gate.member(send))
    got = hashlib.sha256()
    with door.connect(120) as sock:
        while data := sock.recv(1 << 20):
            got.update(data)
    assert got.digest() == h.digest()
    return door


def transfer(gate, total):
    door = gate.door("up", gate.member(digest))
    upload(door, total)
    assert (door.bytes_in, door.bytes_out) == (total, 32)
    assert download(gate, "down", total).bytes_out == total


def test_64_megabytes(gate):
    """Up and down, with checksums."""
    transfer(gate, 64 << 20)


@pytest.mark.slow
def test_gigabyte(gate):
    transfer(gate, 1 << 30)


def test_both_ways_at_once(gate):
    """An echo of 16 MB that is read while it is written: neither direction waits for the other."""
    door = gate.door("c", gate.member(echo))
    data = os.urandom(16 << 20)
    with door.connect(60) as sock:
        writer = threading.Thread(target=lambda: (sock.sendall(data), sock.shutdown(socket.SHUT_WR)))
        writer.start()
        assert received(sock) == data
        writer.join()


def test_zero_window(gate):
    """Who does not read stops the one who writes to him, and nobody else; memory stays bounded; and
    what was held back comes whole."""
    member = gate.member()
    door = gate.door("c", member)
    other = gate.door("other", gate.member(echo))
    client = door.connect(60)
    server = member.accept(60)
    sent = hashlib.sha256()
    total = [0]

    def write():
        for block in blocks(64 << 20):
            server.sendall(block)
            sent.update(block)
            total[0] += len(block)
        server.close()

    before = gate.memory()
    writer = threading.Thread(target=write)
    writer.start()

    def stopped():
        was = (total[0], door.bytes_out)
        time.sleep(0.3)
        return was == (total[0], door.bytes_out) and was[1] > 0

    until(stopped, "the writer is stopped")
    assert total[0] < 64 << 20
    assert gate.memory() - before < 512
    assert ask(other) == "ping"
    ticks = gate.cpu()
    time.sleep(0.5)
    assert gate.cpu() - ticks <= 1
    got = hashlib.sha256()
    while data := client.recv(1 << 20):
        got.update(data)
    writer.join()
    assert got.digest() == sent.digest()


def test_slow_writers(gate):
    """Clients that send a byte now and then cost the others nothing."""
    member = gate.member(echo)
    door = gate.door("c", member)
    slow = [door.connect() for _ in range(50)]
    for _ in range(5):
        for s in slow:
            s.send(b"x")
        assert ask(door) == "ping"
    for s in slow:
        assert received(s, 5) == b"x" * 5
        s.close()


def test_fast_transfer_leaves_room(gate):
    """While two transfers run as fast as they can, small requests are still answered."""
    member = gate.member(digest)
    door = gate.door("bulk", member)
    other = gate.door("small", gate.member(echo))
    stop = threading.Event()

    def flood():
        with door.connect(60) as sock:
            block = bytes(1 << 20)
            while not stop.is_set():
                sock.sendall(block)

    threads = [threading.Thread(target=flood) for _ in range(2)]
    for t in threads:
        t.start()
    until(lambda: door.bytes_in > 10 << 20, "the flood runs")
    for _ in range(20):
        begun = time.monotonic()
        assert ask(other) == "ping"
        assert time.monotonic() - begun < 2 * SLOW
    stop.set()
    for t in threads:
        t.join()


def test_member_not_there(gate):
    """Nobody listens at member 0: RST, counted, and said once."""
    member = gate.member()
    member.close()
    door = gate.door("c", member)
    for _ in range(5):
        assert ask(door) == "RST"
    assert (door.failed_total, door.passed_total, door.connections) == (5, 0, 0)
    assert gate.message("unreachable", cloud="c") == {
        "op": "unreachable", "cloud": "c", "error": "Connection refused", "count": 1}
    assert gate.silent()


def deaf_member(gate):
    """One whose queue is full: connecting to it takes for ever. And what keeps it so."""
    member = gate.member()
    member.listener.listen(0)
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex((member.address, member.port))
        fillers.append(filler)
    return member, fillers


def test_member_that_does_not_accept(gate):
    """Connecting takes 10 s at most; other doors notice nothing."""
    member, fillers = deaf_member(gate)
    door = gate.door("c", member)
    client = door.connect(30)
    client.sendall(b"ping")
    begun = time.monotonic()
    assert ask(gate.door("other", gate.member(echo))) == "ping"
    assert was_reset(client)
    assert 9 < time.monotonic() - begun < 20 * SLOW
    assert (door.failed_total, door.passed_total) == (1, 0)
    assert gate.message("unreachable", cloud="c")["error"] == "Connection timed out"
    for filler in fillers:
        filler.close()


def test_connecting_goes_back_to_wait(gate):
    """A door that closes while a connection is being made: nothing of it was passed, so it waits, and
    passes to the next member 0. One that went away meanwhile is gone."""
    member, fillers = deaf_member(gate)
    door = gate.door("c", member)
    client, gone = door.connect(), door.connect()
    client.sendall(b"ping")
    until(lambda: door.accepted_total == 2, "both connect")
    gone.close()
    door.change(mode="hold")
    until(lambda: door.held == 1, "one waits")
    assert (door.closed_total, door.failed_total) == (0, 0)
    other = gate.member(echo)
    door.change(mode="open", port=other.port)
    assert received(client, 4) == b"ping"
    assert (door.passed_total, door.held) == (1, 0)
    client.close()
    for filler in fillers:
        filler.close()


def test_ipv6_listener(gate):
    """[::1] for a member that has only IPv4, with the user known; and an IPv6 member behind IPv4."""
    try:
        door = gate.door("c", gate.member(echo), ipv6=True)
    except OSError:
        pytest.skip("no IPv6 here")
    with door.connect(address="::1") as sock:
        sock.sendall(b"ping")
        assert received(sock, 4) == b"ping"


# --- holding ------------------------------------------------------------------------------------------


def test_hold_then_open(gate):
    """What is held waits with its request unread, and passes, in order, when the door opens."""
    member = gate.member()
    door = gate.door("c", member, mode="hold", knock=True)
    clients = []
    for i in range(3):
        clients.append(door.connect())
        clients[-1].sendall(b"request %d" % i)
        until(lambda: door.held == i + 1, "it is held")
    assert gate.message("knock", cloud="c")
    assert gate.silent(), "one knock is enough"
    assert member.nobody_comes()
    assert (door.connections, door.passed_total, door.held_total) == (0, 0, 3)
    door.change(mode="open", knock=False)
    got = set()
    for client in clients:
        server = member.accept()
        got.add(received(server, 9))
        server.sendall(b"answer")
        server.close()
    assert got == {b"request 0", b"request 1", b"request 2"}
    for client in clients:
        assert received(client) == b"answer"
        client.close()
    until(lambda: door.connections == 0, "they have ended")
    assert (door.held, door.held_total, door.passed_total, door.expired_total) == (0, 3, 3, 0)


def test_hold_many_then_open(gate):
    """500 that are held all pass."""
    door = gate.door("c", gate.member(echo), mode="hold")
    clients = [door.connect() for _ in range(500)]
    for client in clients:
        client.sendall(b"ping")
    until(lambda: door.held == 500, "all are held")
    door.change(mode="open")
    for client in clients:
        assert received(client, 4) == b"ping"
        client.close()
    until(lambda: door.connections == 0, "all have ended")
    assert door.passed_total == 500


def test_knock_again_for_each_door_and_daemon(gate):
    """A knock that a daemon was told of is told again after each "door", and to each new daemon."""
    door = gate.door("c", gate.member(), mode="hold", knock=True)
    client = door.connect()
    assert gate.message("knock")
    gate.send(door.conf)
    assert gate.message("knock")
    gate.connect()
    assert gate.message("knock")
    client.close()
    until(lambda: door.held == 0, "it is gone")
    gate.connect()
    assert gate.silent()


def test_hold_expires(gate):
    """After hold_ms: an end in order (no RST, although its request is unread), at the right time; and
    hold_ms may change while somebody waits."""
    door = gate.door("c", gate.member(), mode="hold", hold_ms=300)
    client = door.connect()
    client.sendall(b"GET / HTTP/1.1\r\n\r\n")
    begun = time.monotonic()
    assert client.recv(1) == b""
    assert 0.25 < time.monotonic() - begun < 5 * SLOW
    until(lambda: (door.held, door.expired_total) == (0, 1), "it is gone")
    client.close()
    door.change(hold_ms=600000)
    client = door.connect()
    until(lambda: door.held == 1, "it is held")
    door.change(hold_ms=50)
    assert client.recv(1) == b""
    assert door.expired_total == 2


@pytest.mark.parametrize("how", ["FIN", "RST", "behind"])
def test_gone_while_held(gate, how):
    """A client that gave up while it waited is dropped, its request is never passed on: the client may
    have sent it again. Also when its FIN is stuck behind more bytes than fit."""
    member = gate.member()
    door = gate.door("c", member, mode="hold")
    client = door.connect()
    client.sendall(b"POST /do-it-once")
    until(lambda: door.held == 1, "it is held")
    if how == "behind":
        client.setblocking(False)
        quiet = 0
        while quiet < 5:
            try:
                client.send(bytes(1 << 20))
            except BlockingIOError:
                quiet += 1
                time.sleep(0.02)
        client.close()
        assert door.held == 1
    else:
        reset(client) if how == "RST" else client.close()
        until(lambda: door.held == 0, "it is dropped")
    door.change(mode="open")
    assert member.nobody_comes(0.3)
    assert (door.held, door.passed_total, door.bytes_in) == (0, 0, 0)


@pytest.mark.parametrize("anyone", [False, True])
def test_gone_and_opened_at_once(gate, anyone):
    """The client's end and the opening come in the same turn of the loop."""
    member = gate.member()
    door = gate.door("c", member, mode="hold", anyone=anyone)
    client = door.connect()
    client.sendall(b"POST /do-it-once")
    until(lambda: door.held == 1, "it is held")
    halt(gate.pid)
    door.conf["mode"] = "open"
    gate.send(door.conf)
    client.close()
    os.kill(gate.pid, signal.SIGCONT)
    gate.sync()
    until(lambda: door.held == 0, "it is dropped")
    assert member.nobody_comes(0.2)
    assert door.passed_total == 0


def test_max_held(gate):
    """More than max_held: RST at once, counted, and said."""
    door = gate.door("c", gate.member(echo), mode="hold", max_held=3)
    clients = [door.connect() for _ in range(3)]
    until(lambda: door.held == 3, "three are held")
    assert ask(door) == "RST"
    assert (door.held, door.refused_total) == (3, 1)
    assert gate.message("refused")["why"] == "too many are waiting"
    clients[0].close()
    until(lambda: door.held == 2, "one has gone")
    fourth = door.connect()
    until(lambda: door.held == 3, "there was room again")
    fourth.close()


# --- the mode -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["hold", "refuse"])
def test_cut(gate, mode):
    """A door that is no longer open cuts what passes, both ends, at once; other doors go on."""
    member, other_member = gate.member(), gate.member(echo)
    door, other = gate.door("c", member), gate.door("other", other_member)
    bystander = other.connect()
    clients = [door.connect() for _ in range(20)]
    servers = [member.accept() for _ in clients]
    clients[0].sendall(b"unread")
    begun = time.monotonic()
    door.change(mode=mode)
    assert (door.connections, door.closed_total) == (0, 20)
    assert all(was_reset(s) for s in clients + servers)
    assert time.monotonic() - begun < 5 * SLOW
    bystander.sendall(b"ping")
    assert received(bystander, 4) == b"ping"


def test_refuse_and_open_again(gate):
    """Refused is "connection refused", the port stays taken, and those who are in the kernel's queue
    are told; then it is open again, with connections of before still alive in the kernel."""
    member = gate.member(echo)
    door = gate.door("c", member, mode="refuse")
    for _ in range(3):
        assert ask(door) == "refused"
        with socket.socket() as thief, pytest.raises(OSError):
            thief.bind(("127.0.0.1", door.port))
        door.change(mode="open")
        assert ask(door) == "ping"
        until(lambda: door.connections == 0, "that one has ended")
        kept = door.connect()
        until(lambda: door.connections == 1, "it passes")
        door.change(mode="hold")
        held = door.connect()
        until(lambda: door.held == 1, "it is held")
        door.change(mode="refuse")
        assert was_reset(kept) and was_reset(held)
    assert (door.held, door.connections) == (0, 0)


def test_refuse_from_the_start(gate):
    """A door that is refused when the gate is told of it: the gate before it, or the daemon, had it
    listen. Nobody is left in a queue that is never looked at."""
    listener = gateway.Door.bind()
    listener.listen(16)
    door = gate.door("c", gate.member(echo), listeners=[listener], mode="refuse")
    assert ask(door, 2) == "refused"
    door.change(mode="open")
    assert ask(door) == "ping"


def test_foreign_listener(gate):
    """systemd's sockets go on listening: whoever comes is turned away one by one."""
    listener = gateway.Door.bind()
    listener.listen(16)
    door = gate.door("c", gate.member(echo), listeners=[listener], foreign=True, mode="refuse")
    assert ask(door) == "RST"
    assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    door.change(mode="open")
    assert ask(door) == "ping"
    listener.setblocking(True)  # as systemd does, with each start of a service
    assert ask(door) == "ping" and ask(door) == "ping"
    door.change(mode="refuse")
    assert ask(door) == "RST"
    gate.send({"op": "forget", "cloud": "c"})
    gate.sync()
    assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1


def test_forget(gate):
    """A door that is forgotten takes its connections along; the gate's descriptors are as before."""
    member = gate.member(echo)
    before = gate.fd_count()
    door = gate.door("c", member)
    client = door.connect()
    client.sendall(b"ping")
    assert received(client, 4) == b"ping"
    gate.send({"op": "forget", "cloud": "c"})
    assert was_reset(client)
    assert ask(door) == "refused"
    gate.sync()
    until(lambda: gate.fd_count() <= before + 3, "kept: an idle pipe, and the socket that asks who it is")
    assert [m["op"] for m, _ in gate.hello()] == ["hello", "ready"]


# --- who may come in ----------------------------------------------------------------------------------


@root_only
def test_users(gate):
    """Root always, listed users, nobody else; the others are told of once, then counted."""
    door = gate.door("c", gate.member(echo), uids=[54321])
    assert ask(door) == "ping"
    assert as_user(54321, lambda: ask(door)) == "ping"
    for _ in range(3):
        assert as_user(54322, lambda: ask(door)) == "RST"
    assert (door.refused_total, door.passed_total) == (3, 2)
    assert gate.message("refused", cloud="c") == {
        "op": "refused", "cloud": "c", "uid": 54322, "why": "this user may not use the cloud", "count": 1}
    assert gate.silent()
    door.change(uids=[], anyone=True)
    assert as_user(54322, lambda: ask(door)) == "ping"


@root_only
def test_max_held_with_names(gate):
    """Who is asked about has its place already."""
    import pwd

    uid = pwd.getpwnam("daemon").pw_uid
    door = gate.door("c", gate.member(echo), mode="hold", max_held=1, names=["group:daemon"])
    child = begin_as_user(uid, lambda: ask(door))
    until(lambda: door.held == 1, "it is held")
    door.change(mode="open")
    assert end_as_user(child) == "ping"


@root_only
def test_held_and_other_rules(gate):
    """Who waits is judged anew when the rules change."""
    import pwd

    uid = pwd.getpwnam("daemon").pw_uid
    member = gate.member(echo)
    door = gate.door("c", member, mode="hold", anyone=True)
    mine = door.connect()
    theirs = begin_as_user(54322, lambda: ask(door))
    named = begin_as_user(uid, lambda: ask(door))
    until(lambda: door.held == 3, "all are held")
    door.change(anyone=False, names=["group:daemon"])
    assert end_as_user(theirs) == "RST"
    until(lambda: door.held == 2, "the others wait still")
    assert (door.refused_total, door.held_total) == (1, 4)
    door.change(mode="open")
    assert end_as_user(named) == "ping"
    mine.sendall(b"ping")
    assert received(mine, 4) == b"ping"


@root_only
def test_refused_port_is_not_to_be_had(gate):
    """While nobody listens no other user can put a server of its own there."""
    with gateway.Door.bind() as probe:
        address = probe.getsockname()
    listener = socket.socket()
    listener.bind(address)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # afterwards, as the daemon does
    door = gate.door("c", gate.member(echo), listeners=[listener], mode="refuse")

    def steal():
        with socket.socket() as thief:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                thief.bind(("127.0.0.1", door.port))
                thief.listen(1)
            except OSError as e:
                return e.strerror
            return "stolen"

    assert as_user(54322, steal) == "Address already in use"
    door.change(mode="open")
    assert as_user(54322, steal) == "Address already in use"
    assert ask(door) == "ping"
    door.change(mode="refuse")
    assert as_user(54322, steal) == "Address already in use"
    door.change(mode="open")
    assert ask(door) == "ping"


@root_only
def test_users_over_ipv6(gate):
    try:
        door = gate.door("c", gate.member(echo), ipv6=True, uids=[54321])
    except OSError:
        pytest.skip("no IPv6 here")

    assert as_user(54321, lambda: ask(door, address="::1")) == "ping"
    assert as_user(54322, lambda: ask(door, address="::1")) == "RST"
    until(lambda: door.refused_total == 1, "it was refused")


@root_only
@pytest.mark.parametrize("names, allowed", [
    (["group:daemon"], True), (["user:daemon"], True), (["group:nogroup"], False), (["user:nobody"], False),
    (["group:nosuchgroup", "user:nosuchuser", "group:daemon"], True), (["group:nosuchgroup"], False),
])
def test_names(gate, names, allowed):
    """By the name service's word, asked once per user."""
    import pwd

    uid = pwd.getpwnam("daemon").pw_uid
    door = gate.door("c", gate.member(echo), names=names)
    for _ in range(3):
        assert as_user(uid, lambda: ask(door)) == ("ping" if allowed else "RST")
    assert ask(door) == "ping"
    assert door.refused_total == (0 if allowed else 3)
    assert gate.children() == []


def slow_names(directory):
    """A library in front of the C library's: the name service takes 1000 s."""
    source, library = directory / "slow.c", directory / "slow.so"
    source.write_text(
        "#include <pwd.h>\n#include <unistd.h>\n"
        "struct passwd *getpwuid(uid_t u) { (void)u; sleep(1000); return NULL; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    return str(library)


@root_only
def test_slow_name_service(gates, tmp_path):
    """It holds up those whom it is asked about, for 5 s, and nobody else; at most 8 are asked at a
    time; a client that goes away meanwhile is gone; nothing is left of the children."""
    gate = gates(preload=slow_names(tmp_path))
    door = gate.door("c", gate.member(echo), names=["group:daemon"], uids=[54321])

    def timed():
        begun = time.monotonic()
        return f"{ask(door, 60)} {time.monotonic() - begun}"

    first = time.monotonic()
    clients = [begin_as_user(uid, timed) for uid in range(60000, 60010)]
    until(lambda: len(gate.children()) == 8, "eight are asked")
    begun = time.monotonic()
    assert ask(door) == "ping"
    assert as_user(54321, lambda: ask(door)) == "ping"
    assert time.monotonic() - begun < 3 * SLOW
    assert as_user(60000, lambda: door.connect().close()) == "None"
    assert len(gate.children()) == 8
    times = []
    for client in clients:
        answer, seconds = end_as_user(client).split()
        assert answer == "RST"
        times.append(float(seconds))
    assert min(times) > 4.5
    assert time.monotonic() - first > 9.5 and max(times) < 30 * SLOW  # they need not begin together
    until(lambda: not gate.children(), "all children are gone")
    assert "name service" in gate.log_text()
    assert ask(door) == "ping"


@root_only
def test_slow_name_service_and_forget(gates, tmp_path):
    """A door that goes while the name service is asked takes the question along."""
    gate = gates(preload=slow_names(tmp_path))
    door = gate.door("c", gate.member(echo), names=["group:daemon"])
    answer = []
    asking = threading.Thread(target=lambda: answer.append(as_user(60000, lambda: ask(door, 60))))
    asking.start()
    until(lambda: len(gate.children()) == 1, "it is asked")
    gate.send({"op": "forget", "cloud": "c"})
    asking.join()
    assert answer == ["RST"]
    until(lambda: not gate.children(), "the child is gone")


@root_only
@pytest.mark.parametrize("how", ["diag", "proc"])
def test_closed_at_once(gates, tmp_path, how):
    """A socket without an owner is shown as root's; a stranger who sends and closes at once must not
    pass for root. The gate is stopped meanwhile, so that nothing but the orphan is left to find."""
    gate = gates(preload=no_netlink(tmp_path) if how == "proc" else None)
    member = gate.member()
    door = gate.door("c", member)

    def send_and_close():
        for _ in range(20):
            sock = door.connect()
            sock.sendall(b"DELETE /3/Frames")
            sock.close()

    halt(gate.pid)
    assert as_user(54321, send_and_close) == "None"
    os.kill(gate.pid, signal.SIGCONT)
    until(lambda: door.accepted_total == 20, "all were accepted", 60)
    gate.sync()
    assert member.nobody_comes(0.2)
    assert (door.refused_total, door.passed_total, door.bytes_in) == (20, 0, 0)
    assert gate.message("refused")["uid"] is None


def no_netlink(directory):
    """A library in front of the C library's: there is no netlink."""
    source, library = directory / "nonl.c", directory / "nonl.so"
    source.write_text(
        "#include <errno.h>\n#include <sys/socket.h>\n#include <sys/syscall.h>\n#include <unistd.h>\n"
        "int socket(int d, int t, int p) { if (d == AF_NETLINK) { errno = EAFNOSUPPORT; return -1; }\n"
        "return (int)syscall(SYS_socket, d, t, p); }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-D_GNU_SOURCE", "-o", library, source], check=True)
    return str(library)


@root_only
@needs_ipv6
def test_users_without_netlink(gates, tmp_path):
    """/proc/net/tcp knows it, too; also of an IPv6 socket that talks IPv4."""
    gate = gates(preload=no_netlink(tmp_path))
    door = gate.door("c", gate.member(echo), uids=[54321])
    assert ask(door) == "ping"
    assert as_user(54321, lambda: ask(door)) == "ping"
    assert as_user(54322, lambda: ask(door)) == "RST"
    mapped = lambda: ask_mapped(door)
    assert as_user(54321, mapped) == "ping"
    assert as_user(54322, mapped) != "ping"


def ask_mapped(door):
    with socket.socket(socket.AF_INET6) as sock:
        sock.connect(("::ffff:127.0.0.1", door.port))
        sock.sendall(b"ping")
        return received(sock, 4).decode()


@root_only
@needs_ipv6
def test_mapped_addresses(gate):
    """IPv6 sockets that talk IPv4, at either end or both."""
    listener = socket.socket(socket.AF_INET6)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    with gateway.Door.bind() as probe:
        port = probe.getsockname()[1]
    listener.bind(("::", port))
    dual = gate.door("dual", gate.member(echo), listeners=[listener], uids=[54321])
    plain = gate.door("plain", gate.member(echo), uids=[54321])
    for door in (dual, plain):
        for way in (ask, ask_mapped):
            assert as_user(54321, lambda: way(door)) == "ping"
            assert as_user(54322, lambda: way(door)) != "ping"


# --- the daemon ---------------------------------------------------------------------------------------


def test_adoption(gate):
    """The next daemon is told all doors as they are, with their very descriptors in the same order."""
    doors = {}
    for name in ("a", "b", "c"):
        doors[name] = gate.door(name, gate.member(echo), mode="hold", note="kept as it came")
    doors["b"].change(mode="open", hold_ms=1234)
    told = gate.connect()
    assert told[0][0]["op"] == "hello" and told[0][0]["protocol"] == 1
    assert told[0][0]["pid"] == gate.pid and told[0][0]["version"]
    assert [m["cloud"] for m, _ in told[1:-1]] == ["a", "b", "c"]
    for message, fds in told[1:-1]:
        door = doors[message["cloud"]]
        assert message == door.conf
        mine = [door.memfd] + [s.fileno() for s in door.listeners]
        assert [os.fstat(fd).st_ino for fd in fds] == [os.fstat(fd).st_ino for fd in mine]
        for fd in fds:
            os.close(fd)
    assert ask(doors["b"]) == "ping"


def test_newest_daemon_counts(gate):
    """A second connection closes the first."""
    first = gate.daemon
    gate.daemon = None
    gate.connect()
    assert first.recv(1) == b""
    first.close()


def test_daemon_killed_in_mid_transfer(gate):
    """The daemon's death costs no byte; those that are held wait on, and pass for the next one."""
    door = gate.door("c", gate.member(digest))
    held_door = gate.door("held", gate.member(echo), mode="hold")
    held = held_door.connect()
    held.sendall(b"ping")
    total, h = 64 << 20, hashlib.sha256()
    with door.connect(60) as sock:
        for i, block in enumerate(blocks(total)):
            if i == 10:
                gate.daemon.close()
                gate.daemon = None
            sock.sendall(block)
            h.update(block)
        sock.shutdown(socket.SHUT_WR)
        assert received(sock) == h.digest()
    gate.connect()
    held_door.change(mode="open")
    assert received(held, 4) == b"ping"


def test_daemon_that_does_not_read(gate):
    """A daemon that is stuck holds up nobody, and is told the rest when it reads again."""
    doors = [gate.door(f"cloud-{i}", gate.member(echo) if i == 0 else None, mode="open") for i in range(100)]
    for _ in range(20):
        gate.send({"op": "hello", "protocol": 1})
    assert ask(doors[0]) == "ping"
    ready = clouds = 0
    while ready == 0 or clouds < 100:
        message, fds = gate.receive()
        for fd in fds:
            os.close(fd)
        ready += message["op"] == "ready"
        clouds += message["op"] == "door"
    assert ask(doors[0]) == "ping"


@pytest.mark.parametrize("message", [
    b"{", b"[]", b'{"op":7}', b'{"op":"unknown"}', b'{"op":"door"}', b'{"op":"forget"}',
    b'{"op":"door","cloud":"x","mode":"ajar","address":"127.0.0.1","port":1}',
    b'{"op":"door","cloud":"x","mode":"open","address":"localhost","port":1}',
    b'{"op":"door","cloud":"x","mode":"open","address":"127.0.0.1","port":1,"uids":[-1]}',
    b'{"op":"door","cloud":"x","mode":"open","address":"127.0.0.1","port":1,"names":["bob"]}',
    b'{"op":"forget","cloud":"x"}', b"x" * 65000,
])
def test_nonsense(gate, message):
    """What cannot be understood changes nothing."""
    door = gate.door("c", gate.member(echo))
    before = gate.fd_count()
    gate.daemon.send(message)
    socket.send_fds(gate.daemon, [message], [0, 1, 2])
    gate.sync()
    assert gate.fd_count() == before
    assert ask(door) == "ping"


def test_door_that_cannot_be_made(gate):
    """The daemon is hung up on: else it would take the gate for one that knows of this door."""
    door = gate.door("c", gate.member(echo))
    gate.daemon.send(b'{"op":"door","cloud":"x","mode":"open","address":"127.0.0.1","port":1}')
    assert gate.daemon.recv(1) == b""
    assert ask(door) == "ping"


@root_only
def test_strangers_do_not_command(gate):
    """Another user who can reach the socket is turned away, and the daemon stays."""
    os.chmod(gate.dir, 0o755)
    os.chmod(gate.path, 0o777)

    def command():
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(gate.path)
            sock.settimeout(10 * SLOW)
            return sock.recv(1)

    assert as_user(54321, command) == "b''"
    gate.sync()


def test_by_hand():
    """Started by hand it says what it is."""
    result = subprocess.run([gateway.GATE], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
    assert result.returncode == 2
    assert "started by h2ofleetd" in result.stderr
    for option in ("--version", "--help"):
        result = subprocess.run([gateway.GATE, option], capture_output=True, text=True, timeout=20)
        assert result.returncode == 0 and "h2ofleet-gate" in result.stdout


def test_alone(gate):
    """Without a door and without a daemon it ends after 10 s; not while it has either."""
    assert gate.process.poll() is None
    gate.daemon.close()
    gate.daemon = None
    begun = time.monotonic()
    assert gate.process.wait(20 * SLOW) == 0
    assert time.monotonic() - begun > 8


def test_signals(gate):
    """SIGHUP, SIGPIPE, SIGUSR1 and SIGUSR2 mean nothing; SIGTERM ends it at once, with an RST for all."""
    door = gate.door("c", gate.member(echo))
    client = door.connect()
    client.sendall(b"ping")
    assert received(client, 4) == b"ping"
    for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(gate.pid, number)
    assert ask(door) == "ping"
    gate.process.terminate()
    assert gate.process.wait(5 * SLOW) == 0
    assert was_reset(client)
    with socket.create_connection(("127.0.0.1", door.port), 5):
        pass  # the daemon has the listener, too: who comes now waits for the next gate


# --- what it costs ------------------------------------------------------------------------------------


@pytest.fixture
def many_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def pairs(door, member, n):
    clients, servers = [], []
    for _ in range(n):
        clients.append(door.connect(30))
        servers.append(member.accept(30))
    return clients, servers


def test_5000_idle(gate, many_files):
    """Each costs its two sockets and some bytes, and no time."""
    if many_files < 11000:
        pytest.skip("not enough descriptors")
    member = gate.member()
    door = gate.door("c", member)
    fds, memory = gate.fd_count(), gate.memory()
    clients, servers = pairs(door, member, 5000)
    until(lambda: door.connections == 5000, "all pass")
    assert gate.fd_count() - fds <= 10000 + 3  # a pipe, and the socket that asks who it is
    print(f"5,000 idle: {gate.fd_count()} descriptors, {gate.memory()} KiB private dirty (before: {memory})")
    assert gate.memory() - memory < 4096
    for i in range(0, 5000, 500):
        clients[i].sendall(b"x")
        assert servers[i].recv(1) == b"x"
    assert gate.fd_count() - fds <= 10000 + 2 * 16
    begun = time.monotonic()
    door.change(mode="hold")
    print(f"cut in {time.monotonic() - begun:.3f} s")
    for s in clients + servers:
        s.close()
    until(lambda: gate.fd_count() <= fds + 2 * 16, "all is closed")
    assert (door.connections, door.closed_total) == (0, 5000)


def test_idle_costs_no_time(gate):
    """1,000 idle connections and somebody who waits: not a tick of processor time in 2 s."""
    member = gate.member()
    door = gate.door("c", member)
    hold = gate.door("held", member, mode="hold", hold_ms=600000)
    clients, servers = pairs(door, member, 1000)
    waiting = hold.connect()
    until(lambda: door.connections == 1000 and hold.held == 1, "all are there")
    gate.sync()
    before = gate.cpu()
    time.sleep(2)
    assert gate.cpu() == before
    for s in clients + servers + [waiting]:
        s.close()


def test_memory_with_three_doors(gate):
    """Private dirty memory below 1 MiB, after some work."""
    for name in ("a", "b", "c"):
        door = gate.door(name, gate.member(echo))
        assert all(ask(door) == "ping" for _ in range(50))
    until(lambda: door.connections == 0, "all have ended")
    print(f"three doors: {gate.memory()} KiB private dirty, {gate.memory('Rss')} KiB resident")
    if not WRAPPER and "asan" not in gateway.GATE:
        assert gate.memory() < 1024


def test_churn(gate):
    """200 connections a second for 5 s, some of them ended badly: no descriptor and no count is left."""
    member = gate.member(echo)
    door = gate.door("c", member)
    assert ask(door) == "ping"
    until(lambda: door.connections == 0, "it is gone")
    fds = gate.fd_count()
    begun = time.monotonic()
    for i in range(1000):
        time.sleep(max(0, begun + i / 200 - time.monotonic()))
        sock = door.connect()
        sock.sendall(b"ping")
        if i % 10 == 0:
            reset(sock)
            continue
        assert received(sock, 4) == b"ping"
        sock.close()
    until(lambda: door.connections == 0, "all have ended")
    assert door.accepted_total == 1001
    assert door.passed_total + door.failed_total + door.refused_total <= 1001
    assert door.held == 0
    assert gate.fd_count() <= fds + 2 * 15


def test_no_descriptors(gates):
    """Out of descriptors it waits without spinning, and recovers; the daemon still gets through."""
    gate = gates(prlimit=128)
    member = gate.member(echo)
    door = gate.door("c", member)
    clients = [door.connect() for _ in range(100)]
    until(lambda: door.connections > 40, "some pass")
    gate.sync()
    before = gate.cpu()
    time.sleep(1)
    assert gate.cpu() - before <= 5
    gate.connect()
    extra = gate.door("extra", None, mode="refuse")
    assert extra.accepted_total == 0
    for client in clients[:60]:
        client.close()
    for client in clients[60:]:
        client.sendall(b"ping")
        assert received(client, 4) == b"ping"
        client.close()
    until(lambda: door.connections == 0, "all have ended")
    assert ask(door) == "ping"


def test_not_even_a_pipe(gate):
    """With no descriptor left at all bytes wait, and the end of a connection is still seen; what waited
    passes once there are some."""
    member = gate.member()
    door = gate.door("c", member)
    clients, servers = pairs(door, member, 5)
    until(lambda: door.connections == 5, "all pass")
    stuck = clients[0]
    stuck.setblocking(False)
    quiet = 0
    while quiet < 5:  # it has the only pipe then
        try:
            stuck.send(bytes(1 << 20))
            quiet = 0
        except BlockingIOError:
            quiet += 1
            time.sleep(0.02)
    last = max(int(n) for n in os.listdir(f"/proc/{gate.pid}/fd"))
    resource.prlimit(gate.pid, resource.RLIMIT_NOFILE, (last + 1, last + 1))
    before = door.bytes_in
    for client in clients[1:3]:
        client.sendall(b"ping")
    time.sleep(0.3)
    assert door.bytes_in == before
    clients[3].close()
    assert servers[3].recv(1) == b""
    servers[3].close()
    reset(clients[4])
    assert was_reset(servers[4])
    for server in servers[1:3]:
        assert received(server, 4) == b"ping"
    for s in clients + servers:
        s.close()
    until(lambda: door.connections == 0, "all have ended")
