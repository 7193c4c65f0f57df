"""Who is about while the faults strike: the clients (work.py, a process each), and an operator of another cloud."""

import contextlib
import http.client
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

from clients import get
from fleet import SLOW, until

WORK = pathlib.Path(__file__).with_name("work.py")
# A client that has said nothing for so long is ended, as people do, and begins anew.
PATIENCE_S = 120 * SLOW


class Client:
    """`outages`: Spans of what may cause errors, in which an error is looked for."""

    def __init__(self, what, world, outages, expected):
        self.what, self.world, self.outages, self.expected = what, world, outages, expected
        self.rounds, self.given_up, self.tail, self.over = [], 0, [], False
        self.changed = threading.Condition()
        self.begin()

    def begin(self):
        env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        self.process = subprocess.Popen(
            [sys.executable, "-u", str(WORK), self.what, str(self.world.port), str(self.expected)], env=env,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.heard, self.ready = time.monotonic(), threading.Event()
        self.reader = threading.Thread(target=self._read, args=(self.process, self.ready), daemon=True)
        self.reader.start()

    def _read(self, process, ready):
        for line in iter(process.stdout.readline, ""):
            what, _, rest = line.strip().partition(" ")
            if what == "ROUND":
                self._note(json.loads(rest))
            elif what == "READY":
                ready.set()
            else:
                self.tail = [*self.tail, line.rstrip()][-20:]
        ready.set()

    def _note(self, told):
        with self.changed:
            self.heard = time.monotonic()
            self.rounds.append(told)
            self.changed.notify_all()
        for sentence in told["wrong"]:
            self.world.findings.add("wrong answer", f"to the {self.what} client in {told['clouds']}: {sentence}")
        if told["error"] and not self.outages.touching(told["begun"], told["ended"], 2 * SLOW):
            self.world.findings.add("error without an outage", f"at {told['ended']:.2f}, in {told['clouds']}, to the "
                                    f"{self.what} client: {told['error']}")

    def look(self):
        """Now and then: does it still live, and get anywhere?"""
        if self.process.poll() is not None:
            self.world.findings.add("client", f"the {self.what} client has ended: {self.tail}")
        elif time.monotonic() < self.heard + PATIENCE_S:
            return
        elif not self.outages.touching(self.heard, time.monotonic()):
            self.world.findings.add("client", f"the {self.what} client got nowhere for {PATIENCE_S:g} s: {self.tail}")
        self.again()

    def again(self):
        """The same program anew."""
        self.given_up += 1
        self.end()
        self.begin()

    def right_since(self, begun, seconds):
        """Waits for a round that began after `begun` and was right."""
        with self.changed:
            return self.changed.wait_for(lambda: any(
                r["begun"] >= begun and not r["error"] and not r["wrong"] for r in self.rounds), seconds)

    def end(self):
        self.process.kill()
        self.process.wait()
        self.reader.join()
        self.process.stdin.close()
        self.process.stdout.close()

    def figures(self):
        done = [r for r in self.rounds if not r["error"]]
        return {
            "rounds": len(self.rounds), "answered": len(done), "in an outage": len(self.rounds) - len(done),
            "answers checked": sum(r["answers"] for r in self.rounds),
            "wrong": sum(len(r["wrong"]) for r in self.rounds),
            "gone on over a restart": sum(len(set(r["clouds"])) > 1 for r in done), "begun anew": self.given_up}


class Operator(threading.Thread):
    """Makes, starts, stops, restarts, deletes another cloud of one node, and reloads, at random; each time what was
    wanted must come true. `busy` is held meanwhile."""

    GOAL_S = 120 * SLOW

    def __init__(self, world, rng, keys, log):
        super().__init__(daemon=True)
        self.world, self.fleet, self.rng, self.keys, self.log = world, world.fleet, rng, keys, log
        self.over, self.busy = threading.Event(), threading.Lock()
        self.cloud, self.made, self.acts, self.refused = None, 0, {}, 0

    def run(self):
        while not self.over.wait(self.rng.uniform(5, 15)):
            with self.busy:
                try:
                    self.act()
                except AssertionError as e:
                    self.world.findings.add("operator", str(e))

    def act(self):
        what = self.rng.choice(["stop", "start", "restart", "reload", "delete"]) if self.cloud else "create"
        status = getattr(self, f"do_{what}")()
        self.acts[what] = self.acts.get(what, 0) + 1
        if status is None or status >= 300:
            self.refused += 1
            self.log(f"       operator: {what} {self.cloud or ''} was not done: {status}")

    def ask(self, method, path, body=None):
        """The status; None: there was no daemon. Anything else than what is wanted needs a reason."""
        begun = time.monotonic()
        try:
            status, said = self.fleet.api(method, path, body and json.dumps(body))
        except (OSError, http.client.HTTPException, ValueError) as e:
            status, said = None, f"{type(e).__name__} {e}"
        no_room = status == 507 and self.world.full.touching(begun, time.monotonic())
        absent = self.world.absent.touching(begun, time.monotonic(), 1)
        if (status is None or status >= 300) and not no_room and not absent:
            self.world.findings.add("operator", f"{method} {path} at {begun:.2f}: {status} {said}")
        return status

    def state(self):
        """Of the other cloud; None: unknown, "gone": there is none."""
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            status, cloud = self.fleet.api("GET", f"/v1/clouds/{self.cloud}", timeout=10)
            return cloud["state"] if status == 200 else "gone" if status == 404 else None
        return None

    def wait(self, goal):
        last = []

        def reached():
            last[:] = [self.state()]
            return last[0] == goal

        until(lambda: f"{self.cloud} {goal}; it is {last[0]}", self.GOAL_S / SLOW, reached, 0.2)
        members = [m for m in list(self.world.scanner.alive.values()) if m.cloud == self.cloud]
        if goal == "ready":
            port = self.fleet.api("GET", f"/v1/clouds/{self.cloud}")[1]["endpoint_port"]
            if port:  # else the daemon has just been ended
                size = get(port, "/3/Cloud?skip_ticks=true", 20)[1]["cloud_size"]
                assert size == 1, f"{self.cloud} has {size} nodes"
        elif members:
            # The scan is a moment old.
            time.sleep(0.5)
            left = [m for m in list(self.world.scanner.alive.values()) if m.cloud == self.cloud]
            assert not left, f"{self.cloud} is {goal}, but there is {left}"

    def do_create(self):
        self.made += 1
        name = f"o{self.made}"
        status = self.ask("POST", "/v1/clouds", {"name": name, "keys": self.keys, "start": True})
        with contextlib.suppress(OSError, http.client.HTTPException):
            if status != 201 and self.fleet.api("GET", f"/v1/clouds/{name}")[0] != 200:
                return status
        self.cloud = name
        if status == 201:
            self.wait("ready")
        return status

    def do_delete(self):
        status = self.ask("DELETE", f"/v1/clouds/{self.cloud}")
        if status in (202, 404):
            self.wait("gone")
            self.cloud = None
        return status

    def to(self, verb, goal):
        status = self.ask("POST", f"/v1/clouds/{self.cloud}/{verb}")
        if status == 202:
            self.wait(goal)
        return status

    def do_stop(self):
        return self.to("stop", "stopped")

    def do_start(self):
        return self.to("start", "ready")

    def do_restart(self):
        return self.to("restart", "ready")

    def do_reload(self):
        """A key of the cloud that the clients use, which changes as it runs."""
        self.fleet.clouds["c"]["gate_hold"] = f"{self.rng.randrange(12, 20)}s"
        self.fleet.write_config()
        return self.ask("POST", "/v1/reload")

    def end(self):
        self.over.set()
        self.join()
