#!/usr/bin/env python3
"""Chaos: faults at random strike a fleet of real H2O nodes that clients work with all along. Needs H2OFLEETD and
H2OFLEET; contrib/chaos sets all up. Everything is in a mount namespace of its own where that can be made, so that its
small file system goes with it."""

import argparse
import collections
import contextlib
import http.client
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

import faults  # noqa: E402
from fleet import REPO, SLOW, SYSTEM_CACHE, Fleet, files_below, prepare_boot_cache, until  # noqa: E402
from users import Client, Operator  # noqa: E402
from world import Spans, World, fds_of, judge_events, lives  # noqa: E402

OUT = pathlib.Path(os.environ.get("H2OFLEET_CHAOS_DIR", REPO / ".cache" / "chaos"))
# Within this time after what hindered it is over a cloud must be whole again; it takes 3 to 5 s on two idle cores.
RECOVER_S = 90 * SLOW
SMALL_DISK_MB = 256
# The last fault begins so long before the end: the recovery from it belongs to the time, too.
LAST_S = 20


class Chaos:
    def __init__(self, options):
        self.options, self.begun = options, time.monotonic()
        rng = random.Random(options.seed)
        self.jar, self.java = find_jar(), os.environ.get("H2OFLEET_JAVA")
        os.environ[SYSTEM_CACHE] = str(prepare_boot_cache(self.jar, self.java))
        keys = self.keys(options.nodes, "320m", hang_timeout=f"{faults.HANG_S}s", stop_timeout="5s")
        self.fleet = Fleet({"c": keys})
        # Half of the runs insist on their ports, so that a theft must be waited for.
        keys["port"] = f"{self.fleet.ports.base}{rng.choice(['', '+'])}"
        keys["auto_recovery_dir"] = self.fleet.dir / "recovery"
        self.no_small_disk = self.make_small_disk()
        self.fleet.write_config()
        self.world = World(self.fleet, options.nodes, self.log)
        self.outages = Spans()  # faults that clients may notice, till all is well again
        self.records, self.fds, self.clients, self.causes = [], [], [], {}
        self.operator = Operator(self.world, random.Random(rng.random()), self.keys(1, "256m"), self.log)
        self.operator.keys = {k: str(v) for k, v in self.operator.keys.items()}
        self.sequence = faults.sequence(random.Random(rng.random()), self.kinds(), options.nodes)

    def keys(self, nodes, heap, **more):
        keys = {
            "nodes": nodes, "jar_path": self.jar, "java": self.java, "max_mem_size": heap, "restart_delay": "0s",
            "restart_delay_max": "2s", "start_limit": "60 in 1m", "log_max_total": "20m",
            "jvm_custom_args": "-XX:+ExitOnOutOfMemoryError", **more}
        return {k: v for k, v in keys.items() if v is not None}

    def kinds(self):
        chosen = []
        for name in self.options.kinds or faults.KINDS:
            fault = faults.KINDS[name]
            why = fault.lacking(self)
            if self.options.nodes < fault.least_nodes:
                why = f"it needs {fault.least_nodes} nodes"
            if why:
                self.log(f"       left out: {name}: {why}")
            else:
                chosen.append(name)
        return chosen

    def log(self, sentence):
        print(f"{time.monotonic() - self.begun:7.2f}  {sentence}", flush=True)

    # --- a disk that can be full ------------------------------------------------------------------

    def make_small_disk(self):
        """State and logs lie on it. Why there is none, or None."""
        disk = self.fleet.dir / "disk"
        disk.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_MB}m,mode=755", "chaos", disk],
                              capture_output=True, text=True)
        if done.returncode:
            return f"no small file system can be mounted: {done.stderr.strip()}"
        for key in ("state_dir", "log_dir"):
            path = disk / key
            setattr(self.fleet, key, path)
            self.fleet.fleet[key] = path
        return None

    @contextlib.contextmanager
    def full_disk(self):
        filler = self.fleet.dir / "disk" / "filler"
        with self.world.full.during("full"):
            try:
                with open(filler, "wb", buffering=0) as f, contextlib.suppress(OSError):
                    block = b"\0" * (1 << 20)
                    while block:
                        # A short write tells that there is less room than that.
                        block = block[:f.write(block)]
                yield
            finally:
                filler.unlink()

    # --- what faults do ---------------------------------------------------------------------------

    def api(self, method, path):
        try:
            return self.fleet.api(method, path, timeout=20)
        except (OSError, http.client.HTTPException, ValueError) as e:
            raise faults.NotNow(f"{method} {path}: {type(e).__name__} {e}") from None

    def answers(self, path, holds):
        with contextlib.suppress(faults.NotNow):
            status, said = self.api("GET", path)
            return status == 200 and holds(said)
        return False

    def member(self, index):
        deadline = time.monotonic() + 10 * SLOW
        while time.monotonic() < deadline:
            found = self.world.scanner.of("c").get(index)
            if found and lives(found):
                return found
            time.sleep(0.05)
        raise faults.NotNow(f"there is no member {index}")

    @staticmethod
    def gone(member, seconds):
        deadline = time.monotonic() + seconds
        while lives(member):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    @staticmethod
    def signal(member, sig):
        """By pidfd: never to another's process."""
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(member.pid)
            try:
                if lives(member):
                    signal.pidfd_send_signal(fd, sig)
            finally:
                os.close(fd)

    def kill_all(self):
        members = self.world.scanner.of("c").values()
        if not members:
            raise faults.NotNow("there is nobody")
        for member in members:
            self.signal(member, signal.SIGKILL)

    @contextlib.contextmanager
    def paused(self, member):
        self.signal(member, signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(member, signal.SIGCONT)

    def gate(self):
        pid = self.fleet.gate()
        if not pid:
            raise faults.NotNow("there is no gate")
        return pid

    @contextlib.contextmanager
    def daemon_paused(self):
        with self.world.absent.during("paused"):
            self.fleet.send(signal.SIGSTOP)
            try:
                yield
            finally:
                self.fleet.send(signal.SIGCONT)

    @contextlib.contextmanager
    def without_daemon(self):
        with self.world.absent.during("killed"):
            self.fleet.kill_daemon()
            try:
                yield
            finally:
                self.start_daemon()

    def try_daemon(self):
        """One start; did it stay?"""
        with contextlib.suppress(AssertionError):
            self.fleet.start()
            return True
        time.sleep(0.5)
        return False

    def start_daemon(self):
        until("the daemon starts", 30, self.try_daemon)

    def end_daemon(self):
        """What an orderly end leaves is a leak, also in between."""
        self.note_pids()
        status = self.fleet.stop()
        if status != 0:
            self.world.findings.add("daemon", f"it ended with {status} after SIGTERM")
        try:
            self.fleet.assert_clean()
        except AssertionError as e:
            self.world.findings.add("leak", str(e))
        self.look_for_litter()

    def litter(self):
        """What H2O leaves when it is killed while its temporary files and what it has swapped out are there; with
        the boot cache and little data it has none."""
        for member in self.world.scanner.of("c").values():
            node = self.fleet.node_dir(member.index)
            with contextlib.suppress(OSError):
                (node / "tmp" / f"litter-{member.pid}").touch()
                (node / f"ice{member.port}").mkdir(exist_ok=True)
                (node / f"ice{member.port}" / f"litter-{member.pid}").touch()

    def note_pids(self):
        self.fleet.seen_pids |= {pid for pid, _ in list(self.world.scanner.lives)}

    @contextlib.contextmanager
    def no_operator(self):
        if not self.operator.busy.acquire(timeout=15):
            raise faults.NotNow("the operator is at work")
        try:
            yield
        finally:
            self.operator.busy.release()

    # --- a life -----------------------------------------------------------------------------------

    def run(self):
        """The figures."""
        try:
            self.set_up()
            self.strike()
            self.settle()
        except AssertionError as e:
            self.world.findings.add("chaos", str(e))
        finally:
            self.end()
        return self.figures()

    def set_up(self):
        self.world.watch()
        self.fleet.start()
        cloud = self.fleet.ready(timeout=90)
        self.log(f"ready: {cloud['size']} nodes, port {self.fleet.clouds['c']['port']}, boot {cloud['boot']['mode']}")
        self.clients = [Client(what, self.world, self.outages, self.fleet.dir / f"{what}.json")
                        for what in ("train", "grid")]
        self.world.watch_cloud()
        for client in self.clients:
            assert client.ready.wait(120 * SLOW) and client.process.poll() is None, client.tail
        if self.options.operator:
            self.operator.start()
        self.log("the clients know what is right")

    def strike(self):
        deadline = time.monotonic() + self.options.minutes * 60
        open_spans, calm = [], True
        for name, fault, parameters, patience in self.sequence:
            if time.monotonic() > deadline - LAST_S:
                break
            record = self.one(name, fault, parameters, open_spans)
            if patience < 0:
                self.log("       and on, without waiting")
                time.sleep(-patience)
                calm = False
                continue
            self.await_ready(record, fault, calm)
            for span in open_spans:
                span[1] = time.monotonic()
            open_spans.clear()
            calm = self.pause(patience * SLOW)
        for span in open_spans:
            span[1] = time.monotonic() + RECOVER_S

    def generation(self):
        newest = self.world.prober.newest
        return max([newest[0] if newest else 0] + [m.generation for m in self.world.scanner.of("c").values()])

    def one(self, name, fault, parameters, open_spans):
        before = self.generation()
        if fault.outage:
            open_spans.append(self.outages.begin(name))
        self.litter()
        record = {"fault": name, "parameters": parameters, "generation": before, "at": time.monotonic(), "missed": None}
        self.log(f"{name} {parameters or ''} (generation {before})")
        try:
            fault.strike(self, **parameters)
        except faults.NotNow as e:
            record["missed"] = str(e)
            self.log(f"       missed: {e}")
        record["over"] = time.monotonic()
        self.records.append(record)
        return record

    def await_ready(self, record, fault, calm):
        """What must follow, and how long it took."""
        before, struck = record["generation"], not record["missed"]
        restart = struck and fault.expects == faults.RESTART
        answered = self.world.prober.answered(record["at"] if restart else record["over"], before + restart, RECOVER_S)
        if not answered:
            self.world.findings.add("not ready", f"{RECOVER_S:g} s after {record['fault']}: "
                                    f"{self.fleet.story(self.world.teller.last or {})}")
            return
        lost = self.world.scanner.lost_at("c", before)
        record["ready"] = answered
        if restart and lost:
            record["down_s"] = answered - lost
            # A thief, a full disk, a daemon that is not there: what hinders counts only once it is over.
            record["recover_s"] = answered - (record["over"] if lost < record["over"] < answered else lost)
            self.log(f"       ready again after {record['down_s']:.1f} s")
        if calm and struck and not restart and self.generation() != before:
            self.unexplained(record["fault"], before)

    def pause(self, seconds):
        """Calm, in which nothing is to happen; was it so?"""
        before = self.generation()
        time.sleep(seconds)
        for client in self.clients:
            client.look()
        if self.fleet.daemon.poll() is not None:
            self.world.findings.add("daemon", f"it ended with {self.fleet.daemon.poll()}\n{self.fleet.log_tail()}")
            self.start_daemon()
        if self.generation() != before:
            self.unexplained("a pause", before)
            return False
        with contextlib.suppress(AssertionError):
            self.fds.append((fds_of(self.fleet.daemon.pid), fds_of(self.fleet.gate())))
        return True

    def unexplained(self, after, before):
        reason = self.world.teller.last and self.world.teller.last["reason"]
        self.world.findings.add("unexplained restart", f"after {after} generation {self.generation()} follows "
                                f"{before}: {reason}\n{self.fleet.log_tail(15)}")

    def settle(self):
        """In the end all is well."""
        begun = time.monotonic()
        ready = self.world.prober.answered(begun, self.generation(), RECOVER_S)
        assert ready, f"not ready in the end\n{self.fleet.story(self.world.teller.last or {})}"
        self.log("the faults are over")
        for client in self.clients:
            if not client.right_since(begun, 20 * SLOW):
                client.again()  # it waits for what is gone
        for client in self.clients:
            assert client.right_since(begun, 60 * SLOW), f"the {client.what} client gets no right answers any more"

    def end(self):
        if self.operator.is_alive():
            self.operator.end()
        for client in self.clients:
            client.end()
        try:
            if self.fleet.daemon and self.fleet.daemon.poll() is None:
                self.stop_cloud()
        except (AssertionError, OSError, http.client.HTTPException, ValueError, subprocess.SubprocessError) as e:
            self.world.findings.add("end", str(e))
        if self.world.scanner.is_alive():
            self.world.end()
        self.note_pids()
        for sentence in self.fleet.close():
            self.world.findings.add("leak", sentence)
        self.look_for_litter()

    def stop_cloud(self):
        """A stop leaves nothing of the cloud, while the daemon lives on; and its journal is whole."""
        for watcher in (self.world.prober, self.world.teller):
            if watcher.is_alive():
                watcher.end()
        self.fleet.cli("stop", "c", "--wait")
        left = [m for m in self.fleet.members().values() if " -name c-" in m]
        if left:
            self.world.findings.add("leak", f"after the stop: {left}")
        time.sleep(2 * self.world.scanner.interval)
        events = [json.loads(line) for line in self.fleet.cli("events", "--json").stdout.splitlines()]
        judge_events(self.world, events, bool(self.world.full.spans))
        self.causes = collections.Counter(e["cause"] for e in events if e["type"] == "node-exited")

    def look_for_litter(self):
        """Of nodes, below state_dir."""
        clouds = self.fleet.state_dir / "clouds"
        for path in [*files_below(clouds, "ice*"), *clouds.glob("*/*/tmp/*")]:
            self.world.findings.add("leak", f"file {path}")

    # --- the report -------------------------------------------------------------------------------

    def figures(self):
        up, watched = self.world.prober.availability()
        kinds = {}
        for record in self.records:
            kinds.setdefault(record["fault"], [0, 0])[bool(record["missed"])] += 1
        findings = {}
        for finding in self.world.findings.all:
            findings[finding["kind"]] = findings.get(finding["kind"], 0) + 1
        return {
            "seed": self.options.seed, "nodes": self.options.nodes, "port": str(self.fleet.clouds["c"]["port"]),
            "load": os.getloadavg()[0], "seconds": round(time.monotonic() - self.begun, 1),
            "watched_s": round(watched, 1),
            "availability": up / watched if watched else 0, "probes": len(self.world.prober.samples),
            "faults": {k: {"struck": s, "missed": m} for k, (s, m) in sorted(kinds.items())},
            "recover": spread([r["recover_s"] for r in self.records if "recover_s" in r]),
            "down": spread([r["down_s"] for r in self.records if "down_s" in r]),
            "clients": {client.what: client.figures() for client in self.clients},
            "operator": {**self.operator.acts, "not done": self.operator.refused},
            "wrong_answers": findings.get("wrong answer", 0), "leaks": findings.get("leak", 0), "findings": findings,
            "scans": self.world.scanner.scans, "lives": len(self.world.scanner.lives), "told": self.world.teller.told,
            "causes": dict(self.causes), "daemons": len(self.fleet.daemons),
            "fds": {"daemon": spread([d for d, _ in self.fds if d]), "gate": spread([g for _, g in self.fds if g])},
        }

    def save(self, figures):
        OUT.mkdir(parents=True, exist_ok=True)
        path = OUT / f"{time.strftime('%Y%m%d-%H%M%S')}-{self.options.seed}.json"
        path.write_text(json.dumps({
            "figures": figures, "cores": os.cpu_count(), "begun": self.begun,
            "faults": self.records, "findings": self.world.findings.all,
            "probes": self.world.prober.samples, "rounds": {c.what: c.rounds for c in self.clients},
            "absent": self.world.absent.spans, "outages": self.outages.spans,
        }, default=str))
        if figures["findings"]:
            self.fleet.save(path.with_suffix(""))
            self.log(f"kept: {path.with_suffix('')}")
        return path

    def remove(self):
        if not self.no_small_disk:
            subprocess.run(["umount", self.fleet.dir / "disk"], check=False)
        self.fleet.remove()


def spread(values):
    if not values:
        return None
    values = sorted(values)
    return {"n": len(values), "p50": round(statistics.median(values), 2),
            "p99": round(values[min(len(values) - 1, int(len(values) * 0.99))], 2), "max": round(values[-1], 2)}


def show(figures):
    struck = sum(k["struck"] for k in figures["faults"].values())
    checked = sum(c["answers checked"] for c in figures["clients"].values())
    print(f"""
seed {figures['seed']}, {figures['nodes']} nodes, port {figures['port']}, {figures['seconds']} s, load {figures['load']}
availability of the endpoint  {figures['availability']:.1%} of {figures['watched_s']:.0f} s ({figures['probes']} probes)
wrong answers                 {figures['wrong_answers']} of {checked}
faults                        {struck}, of {len(figures['faults'])} kinds
time to recover               {figures['recover']}
time without a cloud          {figures['down']}
leaks                         {figures['leaks']}""")
    for what, client in figures["clients"].items():
        print(f"client: {what:21} " + ", ".join(f"{n} {k}" for k, n in client.items()))
    print("operator                      " + ", ".join(f"{n} {k}" for k, n in figures["operator"].items()))
    print("faults by kind                " + ", ".join(
        f"{n['struck']} {k}" + (f" ({n['missed']} missed)" if n["missed"] else "")
        for k, n in figures["faults"].items()))
    print("causes, by the journal        " + ", ".join(f"{n} {k}" for k, n in figures["causes"].items()))
    print(f"watched                       {figures['scans']} scans of processes, {figures['lives']} nodes' lives, "
          f"{figures['told']} looks at the status, {figures['daemons']} daemons, descriptors {figures['fds']}")
    print(f"violations                    {figures['findings'] or 0}")


def find_jar():
    if os.environ.get("H2OFLEET_JAR"):
        return os.environ["H2OFLEET_JAR"]
    import h2o
    return str(pathlib.Path(h2o.__file__).parent / "backend/bin/h2o.jar")


def options():
    parser = argparse.ArgumentParser(prog="contrib/chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=4, help="of faults (default: 4)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="the same one gives the same faults")
    parser.add_argument("--nodes", type=int, default=2, help="of the cloud (default: 2)")
    parser.add_argument("--kinds", type=lambda text: text.split(","), help=f"only these: {', '.join(faults.KINDS)}")
    parser.add_argument("--no-operator", dest="operator", action="store_false", help="of another cloud: one JVM less")
    chosen = parser.parse_args()
    for kind in chosen.kinds or ():
        if kind not in faults.KINDS:
            parser.error(f"there is no fault \"{kind}\"; there are: {', '.join(faults.KINDS)}")
    return chosen


def own_namespace():
    """Goes on in a mount namespace of its own, where that can be made."""
    mark = "H2OFLEET_CHAOS_NAMESPACE"
    unshare = ["unshare", "--mount", "--propagation", "private"]
    if mark in os.environ or not shutil.which("unshare"):
        return
    if subprocess.run([*unshare, "true"], stderr=subprocess.DEVNULL).returncode == 0:
        os.execvpe("unshare", [*unshare, sys.executable, "-u", *sys.argv], {**os.environ, mark: "1"})


def main():
    chosen = options()
    own_namespace()
    chaos = Chaos(chosen)
    # As pytest does: Ctrl-C and SIGTERM end it in order.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chaos.log(f"seed {chosen.seed}: the same faults again: contrib/chaos --seed {chosen.seed} --nodes {chosen.nodes}"
              + (f" --kinds {','.join(chosen.kinds)}" if chosen.kinds else ""))
    try:
        figures = chaos.run()
        path = chaos.save(figures)
        show(figures)
        print(f"all samples                   {path}")
    finally:
        chaos.remove()
    return 1 if figures["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
