"""What other users of the machine try, who are neither root nor the daemon's user nor in its group. doc/security.md has
the threats, with the test of each; those that have no better place are here. Root plays all of them: the
daemon's user, the attacker, the victim."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time

import pytest

from fleet import until

# Nobody has these.
VICTIM, ATTACKER = 64331, 64332

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users, which needs root")


class Attacker:
    """Python as another user, which says "there" on a line of its own once it has done its deed, and keeps what it
    has until the end."""

    def __init__(self, code, *args, uid=ATTACKER):
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, args)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd="/", user=uid, group=uid, extra_groups=[], env={"PATH": os.environ["PATH"]})

    def __enter__(self):
        assert self.process.stdout.readline() == "there\n", "the attack itself did not work"
        return self

    def said(self):
        """What it has to say in the end."""
        self.process.stdin.close()
        return self.process.stdout.read()

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        with contextlib.suppress(OSError):
            self.process.stdin.close()


# --- ports ----------------------------------------------------------------------------------------

IMPOSTOR = """
import glob, http.server, json, os, socket, sys, threading
first, nodes = int(sys.argv[1]), int(sys.argv[2])
ports = [first + 2 * i for i in range(nodes)]

def members():  # command lines are there for all to read
    found = {}
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            words = open(path).read().split("\\0")
        except OSError:
            continue
        if "-name" in words and "-port" in words and int(words[words.index("-port") + 1]) in ports:
            found[int(words[words.index("-port") + 1])] = (int(path.split("/")[2]), words[words.index("-name") + 1])
    return found

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET(b"")

    def do_GET(self, body=None):
        who = members()
        view = {"version": "3.46.0.12", "cloud_name": who[ports[0]][1] if who else "?", "cloud_size": nodes,
                "node_idx": ports.index(self.server.server_port), "bad_nodes": 0, "cloud_uptime_millis": 1000,
                "consensus": True, "locked": False, "cloud_healthy": True, "nodes": [
                    {"ip_port": f"127.0.0.1:{p}", "pid": who.get(p, (0,))[0], "healthy": True, "last_ping": 1,
                     "free_mem": 1, "max_mem": 1, "mem_value_size": 0, "pojo_mem": 0, "num_cpus": 1,
                     "nthreads": 1, "sys_load": 0.0, "num_keys": 0} for p in ports]}
        data = json.dumps(view).encode() if body is None else body
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-h2o-cluster-id", "1")
        self.send_header("X-h2o-cluster-good", "true")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

for port in ports:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
print("there", flush=True)
sys.stdin.read()
"""


def test_impostor_on_the_ports_of_members(fake):
    """While the JVMs boot another user takes their ports (SO_REUSEADDR, as they do), and answers in their
    name, with their pids and the cloud's name, which all can see in /proc. Nobody is sent there: the cloud does not become
    ready, and the daemon says who it was."""
    fleet = fake(nodes=2, knobs="-Dfake.boot_ms=4000", autostart="no", restart="never")
    fleet.cli("start", "c")
    nodes = until("pids", 10, lambda: len(fleet.pids()) == 2 and fleet.nodes())
    with Attacker(IMPOSTOR, nodes[0]["api_port"], 2):
        seen = set()

        def over():
            cloud = fleet.cloud()
            seen.add(cloud["state"])
            assert cloud["endpoint"] is None, fleet.story(cloud)
            return cloud["state"] == "failed" and fleet.story(cloud)

        story = until(lambda: f"an end of it; {seen}", 20, over)
    assert "forming" in seen, seen
    assert f"of user {ATTACKER}" in story, story
