"""Why real JVMs died or hung: what is kept of it."""

import contextlib
import os
import signal
import socket
import struct

from fleet import pid_alive, until


class Debugger:
    """As much of a Java debugger (JDWP) as stops some threads of a JVM while the others go on, so
    that it hangs and still can write a thread dump. They go on when the connection ends."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.sendall(b"JDWP-Handshake")
        assert self._read(14) == b"JDWP-Handshake"
        self.asked = 0
        self.id_size = struct.unpack(">5i", self._ask(1, 7))[2]

    def _read(self, n):
        data = b""
        while len(data) < n:
            more = self.socket.recv(n - len(data))
            assert more, "the JVM has hung up"
            data += more
        return data

    def _ask(self, group, command, data=b""):
        self.asked += 1
        self.socket.sendall(struct.pack(">IIBBB", 11 + len(data), self.asked, 0, group, command) + data)
        while True:
            length, number, flags, error = struct.unpack(">IIBH", self._read(11))
            body = self._read(length - 11)
            if flags & 0x80 and number == self.asked:
                assert error == 0, f"JDWP {group}/{command}: error {error}"
                return body

    def suspend(self, beginning):
        """How many threads it was whose names begin so."""
        threads, n = self._ask(1, 4)[4:], 0
        for at in range(0, len(threads), self.id_size):
            thread = threads[at:at + self.id_size]
            name = self._ask(11, 1, thread)[4:].decode()
            if name.startswith(beginning):
                self._ask(11, 2, thread)
                n += 1
        return n

    def close(self):
        self.socket.close()


def concluded(fleet, n):
    """The newest of n incidents, in full, once it is known what was done then."""

    def probe():
        found = fleet.api("GET", "/v1/incidents")[1]["incidents"]
        return len(found) == n and found[0]["outcome"] and found[0]

    id = until(lambda: f"{n} incidents\n{fleet.log_tail()}", 20, probe)["id"]
    return fleet.api("GET", f"/v1/incidents/{id}")[1]


def test_hang_and_crash(real):
    """A JVM whose web server stands still, all else going on: its thread dump is in the incident,
    whole, and shows where. Then one that crashes: the head of its hs_err file is. Neither holds the
    daemon's loop up."""
    fleet = real(1, start=False, hang_timeout="2s", late_after="1s", health_interval="500ms")
    port = fleet.ports.base + 50
    fleet.clouds["c"]["jvm_custom_args"] = (
        f"-agentlib:jdwp=transport=dt_socket,server=y,suspend=n,address=127.0.0.1:{port}")
    fleet.write_config()
    fleet.start()
    pid = fleet.ready(timeout=60)["nodes"][0]["pid"]
    with contextlib.closing(Debugger(port)) as debugger:
        assert debugger.suspend("qtp") >= 3, "Jetty's threads"
        one = concluded(fleet, 1)
    assert one["kind"] == "hang" and one["pid"] == pid and one["signal"] == "SIGKILL"
    assert not pid_alive(pid)
    dump = one["thread_dump"]
    assert dump.startswith("Full thread dump OpenJDK") and one["thread_dump_note"] is None, one
    assert '"qtp' in dump and "JNI global refs" in dump and "java.lang.Thread.State" in dump
    assert "INFO water.default" in one["log_tail"] and "Full thread dump" not in one["log_tail"]
    assert f"process {pid}" in one["proc"] and one["memory"]["max_bytes"] > 0
    shown = fleet.cli("incidents", "last").stdout
    assert "\nthread dump\n" in shown and '"qtp' in shown

    cloud = fleet.ready(timeout=60, generation=2)
    os.kill(cloud["nodes"][0]["pid"], signal.SIGSEGV)
    two = concluded(fleet, 2)
    assert (two["cause"], two["signal"]) == ("jvm-crash", "SIGABRT"), two
    head = two["hs_err"]["head"]
    assert "A fatal error has been detected by the Java Runtime Environment" in head
    assert "SIGSEGV" in head and 40 <= len(head.splitlines()) <= 60
    assert two["hs_err"]["path"].endswith(f"hs_err_pid{two['pid']}.log")
    status, version = fleet.api("GET", "/v1/version")
    sizes = [p.stat().st_size for p in (fleet.state_dir / "incidents").iterdir()]
    print("loop_lag_ms", version["loop_lag_ms"], "sizes", sizes)
    assert max(sizes) <= 256 * 1024
