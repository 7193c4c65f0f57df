"""What the benchmarks share: options, samples and the file that they go into, a place whose processes
can all be found again, what processes cost, fleets.

Run by `contrib/bench NAME`, which builds and brings what is needed; never part of a test run.
Figures are for comparison within one run: another machine, another load, other figures."""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

from fleet import (  # noqa: E402
    FAKEJAVA, H2OFLEET, H2OFLEETD, MARK, REPO, Fleet, PortBlock, listeners, pid_alive, processes, read)

BUILD = pathlib.Path(H2OFLEETD).parent
RESULTS = REPO / ".cache/bench"
HEAP = "512m"
TICK = os.sysconf("SC_CLK_TCK")


def median(values):
    return statistics.median(values)


def of_nodes(n):
    return f"{n} node{'s' if n != 1 else ''}"


def numbers(text):
    return [int(v) for v in text.split(",")]


INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def leave(number, _):
    """Once; what was begun is ended then, and that takes seconds at most."""
    for sig in INTERRUPTS:
        signal.signal(sig, signal.SIG_IGN)
    sys.exit(128 + number)


# --- one run ------------------------------------------------------------------------------------------


class Bench:
    """One run of a benchmark. A sample is {case, who, round, load, measures...}, and is printed as it comes, for
    a run is long; the file has all of them, and what follows from them."""

    def __init__(self, name, doc, base=None):
        """`base`: whom the others are compared with."""
        self.name, self.base = name, base
        self.parser = argparse.ArgumentParser(prog=f"contrib/bench {name}", description=doc,
                                              formatter_class=argparse.RawDescriptionHelpFormatter)
        self.parser.add_argument("--json", metavar="FILE", type=pathlib.Path,
                                 help="where the samples go; else .cache/bench/NAME-DATE.json")
        self.parser.add_argument("--quick", action="store_true",
                                 help="as short as can be: shows that it works, gives no figure worth keeping")
        self.full_quick = {}
        self.samples, self.goals, self.left_out = [], [], []

    def option(self, flag, text, full, quick, **kinds):
        """An option with two defaults."""
        shown = [",".join(map(str, v)) if isinstance(v, list) else v for v in (full, quick)]
        self.parser.add_argument(flag, help=f"{text}; {shown[0]}, with --quick {shown[1]}", **kinds)
        self.full_quick[flag.lstrip("-").replace("-", "_")] = (full, quick)

    @contextlib.contextmanager
    def run(self):
        """Gives the options; the end, whatever brings it, writes the file."""
        options = self.options = self.parser.parse_args()
        for name, defaults in self.full_quick.items():
            if getattr(options, name) is None:
                setattr(options, name, defaults[options.quick])
        for sig in INTERRUPTS:
            signal.signal(sig, leave)
        self.about = {"bench": self.name, "date": time.strftime("%FT%T%z"), "revision": revision(),
                      "machine": machine(), "load_before": os.getloadavg(),
                      "parameters": {k: v for k, v in vars(options).items() if k != "json"}}
        print(f"{self.name}: {self.about['revision']}, {', '.join(map(str, self.about['machine'].values()))}, "
              f"load {os.getloadavg()[0]:.1f}", flush=True)
        complete = False
        try:
            yield options
            complete = True
            self.report()
        finally:
            if self.samples:
                self.save(complete)

    def sample(self, case, who, load=None, **measures):
        n = sum(s["case"] == case and s["who"] == who for s in self.samples)
        self.samples.append({"case": case, "who": who, "round": n, "load": load or os.getloadavg()[0], **measures})
        print(f"  {case}, {who}:", ", ".join(f"{k} {figure(v)}" for k, v in measures.items()), flush=True)

    def leave_out(self, who, why):
        self.left_out.append({"who": who, "why": why})
        print(f"  without {who}: {why}", flush=True)

    def of(self, case, who, measure="seconds"):
        return [s[measure] for s in self.samples
                if s["case"] == case and s["who"] == who and isinstance(s.get(measure), (int, float))]

    def middle(self, case, who, measure="seconds"):
        """The median; None: not measured."""
        values = self.of(case, who, measure)
        return median(values) if values else None

    def ratio(self, case, who, measure="seconds", base=None, base_case=None):
        """Median of what it was, round by round, of the base's; None: not measured."""
        ratios = [a / b for a, b in zip(self.of(case, who, measure),
                                        self.of(base_case or case, base or self.base, measure)) if b]
        return median(ratios) if ratios else None

    def goal(self, what, value, limit, unit=""):
        if value is not None:
            self.goals.append({"what": what, "value": value, "goal": limit, "unit": unit, "reached": value <= limit})

    # the end

    def summary(self):
        """{case: {who: {measure: {median, min, max, of_base}}}}"""
        cases = {}
        for s in self.samples:
            measures = cases.setdefault(s["case"], {}).setdefault(s["who"], {})
            for measure, value in s.items():
                if measure in ("case", "who", "round", "load") or isinstance(value, (str, bool)) or measure in measures:
                    continue
                values = self.of(s["case"], s["who"], measure)
                measures[measure] = {"median": median(values), "min": min(values), "max": max(values)}
                if self.base:
                    measures[measure]["of_base"] = self.ratio(s["case"], s["who"], measure)
        return cases

    def report(self):
        for case, whos in self.summary().items():
            names = list(dict.fromkeys(m for measures in whos.values() for m in measures))
            print(f"\n{case}: median (range){f', ratio to {self.base}' if self.base else ''}")
            for who, measures in whos.items():
                print(f"  {who:<26}", "  ".join(f"{m} {cell(measures[m])}" for m in names if m in measures))
        if self.goals:
            print("\ngoals")
        for g in self.goals:
            print(f"  {g['what']}: {figure(g['value'])}{g['unit']}, goal {g['goal']}{g['unit']}: "
                  f"{'reached' if g['reached'] else 'missed'}")

    def save(self, complete):
        file = self.options.json or RESULTS / f"{self.name}-{time.strftime('%Y%m%dT%H%M%S')}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({
            **self.about, "complete": complete, "load_after": os.getloadavg(), "base": self.base,
            "left_out": self.left_out, "samples": self.samples, "summary": self.summary(),
            "goals": self.goals}, indent=1) + "\n")
        print(f"\n{file}")


def figure(value):
    return str(value) if not isinstance(value, float) else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def cell(measure):
    text = figure(measure["median"])
    if measure["min"] != measure["max"]:
        text += f" ({figure(measure['min'])}-{figure(measure['max'])})"
    return f"{text} [{measure['of_base']:.2f}]" if measure.get("of_base") else text


def machine():
    cpu = next((line.partition(":")[2].strip() for line in read("/proc/cpuinfo").splitlines()
                if line.startswith("model name")), "unknown CPU")
    total = int(read("/proc/meminfo").split()[1])
    return {"cores": f"{len(os.sched_getaffinity(0))} cores", "cpu": cpu, "memory": f"{total / 2**20:.0f} GiB",
            "kernel": f"Linux {platform.release()}"}


def revision():
    done = subprocess.run(["git", "-c", "safe.directory=*", "-C", REPO, "describe", "--always", "--dirty"],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    return done.stdout.strip() or "unknown revision"


# --- places, and what is in them ----------------------------------------------------------------------


class Place:
    """A directory, ports, and a mark in the environment of whatever is started in it; at its end nothing
    of all that is left, whoever has become the parent of it."""

    MARK = "H2OFLEET_BENCH"

    def __init__(self):
        self.block = PortBlock()
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="h2ofleet-bench."))
        self.mark = f"{self.MARK}={self.directory}"
        # Without telemetry, as the nodes of h2ofleet are.
        self.env = {**os.environ, self.MARK: str(self.directory), "DO_NOT_TRACK": "1"}
        self.started = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def ports(self, n):
        """API ports: each has the one above, too."""
        return [self.block.base + 2 * i for i in range(n)]

    def run(self, *command, **options):
        """In a session of its own, so that Ctrl-C reaches us alone."""
        self.started.append(subprocess.Popen(
            [str(c) for c in command], env=self.env, start_new_session=True,
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options}))
        return self.started[-1]

    def processes(self):
        return processes(self.mark)

    def busy_ports(self):
        return listeners(self.block.base, self.block.base + self.block.size - 1)

    def close(self):
        deadline = time.monotonic() + 10
        while (left := self.processes()) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        for process in self.started:
            process.wait()
        self.block.release()
        wait_until(f"the end of {self.directory}", self.removed)
        assert not left, f"could not be ended: {left}"

    def removed(self):
        """Who is dying may still be writing there."""
        shutil.rmtree(self.directory, ignore_errors=True)
        return not self.directory.exists()


def wait_until(what, seen, limit=20, interval=0.01):
    """Gives what `seen` gave."""
    begun = time.monotonic()
    while not (value := seen()):
        assert time.monotonic() - begun < limit, f"{what}: not within {limit} s"
        time.sleep(interval)
    return value


def cpu_seconds(pids):
    """Of processes, in user and kernel mode, those of reaped children included."""
    ticks = 0
    for pid in pids:
        if stat := read(f"/proc/{pid}/stat"):
            ticks += sum(map(int, stat.rpartition(")")[2].split()[11:15]))
    return ticks / TICK


def memory(pids):
    """KiB, summed: Rss, Pss, Private_Dirty."""
    kib = {"Rss": 0, "Pss": 0, "Private_Dirty": 0}
    for pid in pids:
        for line in read(f"/proc/{pid}/smaps_rollup").splitlines()[1:]:
            name, _, value = line.partition(":")
            if name in kib:
                kib[name] += int(value.split()[0])
    return kib


def tree_bytes(directory, pattern="*"):
    total = 0
    for path in pathlib.Path(directory).rglob(pattern):
        with contextlib.suppress(OSError):
            total += path.lstat().st_size
    return total


# --- fleets -------------------------------------------------------------------------------------------


def jar():
    if os.environ.get("H2OFLEET_JAR"):
        return os.environ["H2OFLEET_JAR"]
    import h2o

    return str(pathlib.Path(h2o.__file__).parent / "backend/bin/h2o.jar")


def fake_jar(directory):
    made = pathlib.Path(directory, "h2o.jar")
    subprocess.run([REPO / "tests/fake/make-fake-jar", made], check=True)
    return made


def fleet_of(n, fleet=None, **keys):
    return Fleet({"c": {"nodes": n, "jar_path": jar(), "max_mem_size": HEAP, **keys}},
                 fleet={"log_level": "info", **(fleet or {})})


def marked(fleet):
    """All processes of it: daemon, gate and nodes."""
    return processes(f"{MARK}={fleet.dir}")


def end(fleet):
    early = fleet.daemon and fleet.daemon.poll()
    wrong = fleet.close()
    if early:
        wrong.insert(0, f"h2ofleetd had ended before, with {early}\n{fleet.log_tail()}")
    fleet.remove()
    assert not wrong, "\n".join(wrong)
