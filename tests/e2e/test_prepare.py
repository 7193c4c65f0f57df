"""The boot cache with fake JVMs: what is built, what is refused and why, what is never trusted, and
what is left of a builder that was killed. test_real_boot.py does it with the real ones."""

import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time

import pytest

from fleet import FAKEJAVA, FINDINGS, H2OFLEET, H2OFLEETD, MARK, SLOW, processes, until
from runs import listening

KNOBS = "heartbeat_ms=20"  # everything of H2O's clock scales with it
NOBODY = 65534
STEPS = ["1/4 unpacking the native libraries", "2/4 starting a node without an archive",
         "3/4 making the archive", "4/4 checking it: endpoints, a session, a model"]


class Cache:
    """A cache_dir, a runtime of fakes, and `h2ofleet prepare` for it."""

    def __init__(self, jar):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="h2ofleet-e2e."))
        self.dir.chmod(0o755)
        self.tmp = self.dir / "tmp"
        self.tmp.mkdir()
        self.tmp.chmod(0o777)
        self.jar, self.java = self.dir / "h2o.jar", self.dir / "jdk" / "bin" / "java"
        shutil.copy2(jar, self.jar)
        self.java.parent.mkdir(parents=True)
        shutil.copy2(FAKEJAVA, self.java)
        self.path = self.dir / "cache"
        self.boot = self.path / "boot"
        self.config = self.dir / "h2ofleet.conf"
        self.configure()
        self.started = []

    def configure(self, **keys):
        keys = {"java": self.java, "jar_path": self.jar, **keys}
        self.config.write_text(
            f"[fleet]\ncache_dir = {self.path}\nstate_dir = {self.dir}/state\nsocket = {self.dir}/s\n"
            "[cloud dev]\n" + "".join(f"{k} = {v}\n" for k, v in keys.items()))

    def env(self, knobs="", **more):
        env = {k: v for k, v in os.environ.items() if k != "JAVA_TOOL_OPTIONS"}
        return {**env, MARK: str(self.dir), "TMPDIR": str(self.tmp), "NO_COLOR": "1",
                "H2OFLEET_SYSTEM_CACHE_DIR": str(self.dir / "system"),
                "FAKE_KNOBS": f"{KNOBS} {knobs}", **more}

    def start(self, *args, knobs="", env=None, **popen):
        run = subprocess.Popen(
            [H2OFLEET, "prepare", "--config", str(self.config), *map(str, args)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=self.env(knobs, **(env or {})), cwd="/", start_new_session=True, **popen)
        self.started.append(run)
        return run

    def __call__(self, *args, code=0, **kwargs):
        """-> (what it printed, its progress)"""
        run = self.start(*args, **kwargs)
        out, err = run.communicate(timeout=60 * SLOW)
        assert run.returncode == code, f"exit status {run.returncode}, not {code}\n{out}{err}"
        assert not FINDINGS.search(err), err
        return out, err

    def entries(self, kind="archive"):
        got = json.loads(self("--list", "--json")[0])["entries"]
        return [e for e in got if e["kind"] == kind]

    def entry(self):
        entries = self.entries()
        assert len(entries) == 1, entries
        return entries[0]

    def names(self):
        return sorted(p.name for p in self.boot.iterdir())

    def processes(self):
        return processes(f"{MARK}={self.dir}")

    def assert_no_leftovers(self, seconds=0):
        def left():
            pids = self.processes()
            found = [f"process {pid}: {command[:150]}" for pid, command in pids.items()]
            found += [f"port {port}" for port in listening(pids)]
            found += [f"file {p}" for p in self.tmp.iterdir()]
            return found + [f"file {p}" for p in self.boot.glob("work*")]

        if seconds:
            until(lambda: f"all is gone, but there is: {left()}", seconds, lambda: not left())
        assert not left()

    def close(self):
        for run in self.started:
            if run.poll() is None:
                run.kill()
            run.wait()
            run.stdout.close()
            run.stderr.close()
        try:
            self.assert_no_leftovers(seconds=5)
        finally:
            for pid in self.processes():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            shutil.rmtree(self.dir, ignore_errors=True)


@pytest.fixture
def cache(fake_jar):
    c = Cache(fake_jar)
    yield c
    c.close()


def progress(err):
    return [line for line in err.splitlines() if re.match(r"\d/\d ", line)]


def needs_root(function):
    return pytest.mark.skipif(os.geteuid() != 0, reason="needs root")(function)


# --- built ----------------------------------------------------------------------------------------


def test_built_once(cache):
    """Proves: the first run says its steps, leaves libraries, archive and verdict that others may
    read and nobody but us write, and nothing else; the second starts no node."""
    out, err = cache()
    assert progress(err) == STEPS
    assert re.fullmatch(r"dev: prepared; a node was ready in [\d.]+ s instead of [\d.]+ s\n", out)
    entry, (native,) = cache.entry(), cache.entries("native")
    assert (entry["verdict"], entry["current"], native["current"]) == ("trusted", True, True)
    assert entry["h2o_version"] == "3.46.0.12" and entry["measured"]["endpoints"] > 30
    assert {p.name for p in pathlib.Path(native["path"]).iterdir()} == {
        "verdict.json", "libxgboost4j_gpu.so", "libxgboost4j_minimal.so"}
    assert cache.names() == sorted([entry["name"], native["name"], "lock"])
    for path in [cache.boot, *cache.boot.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        wanted = 0o755 if path.is_dir() else 0o600 if path.name == "lock" else 0o644
        assert mode == wanted, (path, oct(mode))
    cache.assert_no_leftovers()
    out, err = cache()
    assert progress(err) == [] and out.startswith("dev: prepared")


def test_library_path(cache):
    """Proves: where the JVM looks for libraries by itself, without LD_LIBRARY_PATH, is asked and kept."""
    cache(env={"LD_LIBRARY_PATH": "/cuda"})
    assert cache.entry()["java_library_path"] == "/usr/java/packages/lib:/fake/jni:/usr/lib"


def test_clouds_share_a_runtime(cache):
    """Proves: one build for clouds with the same runtime; CLOUD chooses; an unknown one is said."""
    with open(cache.config, "a", encoding="utf-8") as f:
        f.write(f"[cloud two]\njava = {cache.java}\njar_path = {cache.jar}\n"
                f"[cloud big]\njava = {cache.java}\njar_path = {cache.jar}\nmain_class = water.Other\n")
    out, err = cache("two", "dev")
    assert out.startswith("two, dev: prepared") and len(progress(err)) == 4
    out, err = cache("--json")
    first, second = json.loads(out)["runtimes"]
    assert (first["clouds"], second["clouds"]) == (["dev", "two"], ["big"])
    assert progress(err) == STEPS[1:], "the libraries are of the jar alone"
    assert "no cloud three" in cache("three", code=4)[1]


def test_named_runtime(cache):
    """Proves: --jar and --java need no cloud; a heap of 32 GB and more is another runtime."""
    cache.config.write_text(f"[fleet]\ncache_dir = {cache.path}\n")
    cache("--jar", cache.jar, "--java", cache.java)
    cache("--jar", cache.jar, "--java", cache.java, "-m", "40g")
    assert len({e["name"] for e in cache.entries()}) == 2
    assert "heap big" in sum((e["identity"] for e in cache.entries()), [])
    out, err = cache("--jar", "/nowhere.jar", code=1)
    assert "/nowhere.jar: jar_path: /nowhere.jar does not exist" in err or "does not exist" in err


def test_fast_boot(cache):
    """Proves: what a cloud does not want is not made for it: nothing with fast_boot = no, no archive with
    native-only or an archive of its own; a cloud that shares the runtime still gets one."""
    cache.configure(fast_boot="no")
    out, err = cache()
    assert out == "dev: nothing to prepare: fast_boot = no\n" and progress(err) == []
    assert cache.entries() == [] and cache.entries("native") == []
    for keys in ({"fast_boot": "native-only"}, {"jvm_custom_args": "-Xshare:off"}):
        cache.configure(**keys)
        assert cache()[0] == "dev: the native libraries are unpacked\n" and cache.entries() == []
    cache.configure(fast_boot="native-only")
    with open(cache.config, "a", encoding="utf-8") as f:
        f.write(f"[cloud two]\njava = {cache.java}\njar_path = {cache.jar}\n")
    assert cache()[0].startswith("dev, two: prepared")
    assert cache.entry()["verdict"] == "trusted"


def test_native_only(cache):
    """Proves: --native-only unpacks and starts nothing; the archive can be made later."""
    out, err = cache("--native-only")
    assert out == "dev: the native libraries are unpacked\n"
    assert progress(err) == ["1/1 unpacking the native libraries"] and cache.entries() == []
    assert progress(cache()[1]) == STEPS[1:]


@pytest.mark.parametrize("version, names", [("8", []), ("25", ["classes.aot"]), ("21", ["classes.jsa"])])
def test_java_versions(cache, version, names):
    """Proves: nothing for Java 8 but the libraries, an AOT cache from 24 on."""
    env = {"FAKE_JAVA_VERSION": "1.8.0_402" if version == "8" else f"{version}.0.1"}
    out, _ = cache(env=env)
    assert [p.name for p in cache.boot.glob("*/classes.*")] == names
    if version == "8":
        assert "native libraries only: Java 8 knows no archive" in out
    cache.assert_no_leftovers()


def test_environment(cache):
    """Proves: the nodes do not get what would change what they do."""
    cache(env={"JAVA_TOOL_OPTIONS": "-XX:NoSuchFlag", "JDK_JAVA_OPTIONS": "-XX:NoSuchFlag"})


# --- refused --------------------------------------------------------------------------------------

FAULTS = {
    "archive_endpoints=5": r"5 of \d+ endpoints differ: .* has output_schema Schema instead of FakeV3; .*; \.\.\.$",
    "archive_session=1": r"POST /4/sessions: .*; it logged: Failed to instantiate schema of class: water.api.Schema",
    "archive_session=500": r"POST /4/sessions answers 500: Failed to instantiate schema",
    "archive_model=1": r"POST /3/ModelBuilders/gbm ended as FAILED",
    "archive_error=1": r"a node with the archive logs: Failed to load a class",
    "archive_ignored=1": r"the JVM does not use the archive that it has made",
    "archive_hang=1": r"a node with the archive: did not become ready within \d+ s",
    "dump_fail=1": r"the archive could not be made: java ended with 1: Unable to allocate metaspace",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_refused(cache, fault):
    """Proves: a bad archive is refused for the very reason, deleted, and not tried again but by
    --again; one that was trusted before goes as well."""
    cache()
    timeout = ("--timeout", f"{max(1, int(SLOW))}s") if fault == "archive_hang=1" else ()
    out, _ = cache("--again", *timeout, code=6, knobs=fault)
    assert out.startswith("dev: the archive is refused, nodes start without: ")
    if SLOW == 1:
        assert re.search(FAULTS[fault], out), out
    entry = cache.entry()
    assert (entry["verdict"], entry["why"]) == ("refused", out.partition("without: ")[2].rstrip("\n"))
    assert not list(cache.boot.glob("*/classes.*"))
    cache.assert_no_leftovers()
    out, err = cache(code=6)
    assert progress(err) == [] and "is refused" in out
    cache("--again")
    assert cache.entry()["verdict"] == "trusted"


@pytest.mark.parametrize("fault, why", [
    ("dump_hang=1", r"making the archive: .* did not end within \d+ s"),
    ("never_ready=1", r"a node without an archive: did not become ready within \d+ s"),
    ("exit_at_boot_ms=5", "a node without an archive: ended: "),
    ("http_status=500", "a node without an archive: ")])
def test_failure_changes_nothing(cache, fault, why):
    """Proves: what is not the archive's fault is no verdict on it; what was there stays."""
    cache()
    before = cache.entry()
    _, err = cache("--again", "--timeout", "1s", code=1, knobs=fault)
    assert re.search(why, err), err
    assert cache.entry() == before
    cache.assert_no_leftovers()


@pytest.mark.parametrize("knobs, mark, sig", [
    ("dump_hang=1", "-Xshare:dump", signal.SIGKILL),
    ("archive_hang=1", "/work/checked/", signal.SIGKILL),
    ("archive_hang=1", "/work/checked/", signal.SIGTERM)])
def test_jvm_ended_by_others(cache, knobs, mark, sig):
    """Proves: a JVM that the OOM killer, or anybody else, has ended is no verdict on the archive: what was
    there stays, and the next run makes it."""
    cache()
    before = cache.entry()
    for args in (["--again"], []):
        run = cache.start(*args, knobs=knobs)
        pid = until("the JVM that hangs", 20, lambda: next(
            (pid for pid, command in cache.processes().items() if mark in command), None))
        os.kill(pid, sig)
        out, err = run.communicate(timeout=20 * SLOW)
        assert run.returncode == 1, out + err
        assert ("java was killed" if sig == signal.SIGKILL else "java was told to end by signal 15") in err
        cache.assert_no_leftovers()
        if args:
            assert cache.entry() == before
            cache("--clear")
    assert cache.entries() == []
    cache()
    assert cache.entry()["verdict"] == "trusted"


# --- stale ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("changed", ["jar", "java"])
def test_changed_runtime(cache, changed):
    """Proves: after an upgrade of the jar or of Java the old entry is not used, is listed as stale,
    and goes with the next build."""
    cache()
    old = cache.entry()["name"]
    os.utime(getattr(cache, changed), (1, 1))
    assert cache.entry()["current"] is False
    assert re.search(r"archive +stale", cache("--list")[0])
    assert progress(cache()[1]) == (STEPS if changed == "jar" else STEPS[1:])
    new = cache.entry()
    assert new["name"] != old and new["current"] is True
    assert len(cache.entries("native")) == 1


def test_damaged(cache):
    """Proves: an entry with a part missing, or cut off, counts as none and is made again."""
    cache()
    for path, damage in ((next(cache.boot.glob("*/classes.jsa")), "cut"),
                         (next(cache.boot.glob("*/verdict.json")), "empty"),
                         (next(cache.boot.glob("native-*/libxgboost4j_gpu.so")), "gone")):
        if damage == "cut":
            os.truncate(path, 4096)
        elif damage == "empty":
            path.write_text("")
        else:
            path.unlink()
        assert progress(cache()[1]), damage
        assert cache.entry()["verdict"] == "trusted"
        assert progress(cache()[1]) == [], damage


def test_set_aside(cache):
    """Proves: one that was set aside, since a JVM did not take it, is said why, made anew and removed."""
    cache()
    entry = cache.boot / cache.entry()["name"]
    aside = entry.with_name(entry.name + ".ignored")
    entry.rename(aside)
    archive = aside / "classes.jsa"
    archive.write_bytes(b"fake archive of another jar\n")
    _, err = cache()
    assert progress(err) == [
        "0/4 the last archive was not used by the JVM: A jar file is not the one used while building the "
        f"shared archive file: {cache.jar}", *STEPS[1:]]
    assert cache.names() == sorted([entry.name, cache.entries("native")[0]["name"], "lock"])


def test_clear(cache):
    """Proves: --clear removes what is ours, and only that."""
    cache()
    (cache.boot / "notes").mkdir()
    assert re.fullmatch(r"removed [\d.]+ kB from .*\n", cache("--clear")[0])
    assert cache.names() == ["lock", "notes"]
    assert cache("--list")[0].startswith("nothing is prepared in ")


def build(cache, *args, code=0, **env):
    """By the way that the daemon goes; -> its last line."""
    done = subprocess.run(
        [H2OFLEETD, "--build-boot-cache", f"cache_dir={cache.path}", f"java={cache.java}",
         "java_major=17", f"jar={cache.jar}", *args],
        env=cache.env(**env), stdout=subprocess.PIPE, text=True, timeout=60 * SLOW, check=False)
    assert done.returncode == code, done.stdout
    return done.stdout.splitlines()[-1] if done.stdout else ""


def test_as_the_daemon_does(cache):
    """Proves: exit codes and last lines of `h2ofleetd --build-boot-cache`."""
    assert build(cache, "idle=1") == "trusted"
    assert "endpoints differ" in build(cache, "again=1", code=3, knobs="archive_endpoints=1")
    assert "did not become ready" in build(
        cache, "again=1", "node_timeout_ms=1000", code=1, knobs="never_ready=1")
    assert build(cache, "no_such=1", code=2) == ""


def test_bounded(cache):
    """Proves: with a bound, the runtimes that were used least recently go first, and the new one
    stays whatever its size."""
    names = []
    for i in range(3):
        os.utime(cache.jar, (i + 1, i + 1))
        # The jar as it was is gone: only the JVM's size makes it another runtime, so that the
        # older ones are current.
        extra = cache.dir / f"more{i}.jar"
        shutil.copy2(cache.jar, extra)
        os.utime(cache.jar, (1, 1))
        build(cache, f"extra_classpath={extra}", "max_total=0", knobs="dump_mb=2")
        names.append(({e["name"] for e in cache.entries()} - set(names)).pop())
        os.utime(cache.boot / names[-1], (1000 + i, 1000 + i))
    os.utime(cache.boot / names[0])  # used
    extra = cache.dir / "more.jar"
    shutil.copy2(cache.jar, extra)
    build(cache, f"extra_classpath={extra}", f"max_total={5 << 20}", knobs="dump_mb=2")
    left = {e["name"] for e in cache.entries()}
    assert names[0] in left and names[1] not in left and names[2] not in left
    assert len(left) == 2 and all(e["current"] for e in cache.entries())


# --- several, and the end -------------------------------------------------------------------------


def nodes(cache):
    return [pid for pid, command in cache.processes().items() if " -flatfile " in command]


def test_two_at_once(cache):
    """Proves: the second builder says that another is at work (exit code 5) and disturbs nothing."""
    first = cache.start(knobs="boot_ms=1000")
    until("a node of the first", 10, lambda: nodes(cache))
    assert "another process is at work in" in cache(code=5)[1]
    assert "another process is at work in" in cache("--clear", code=5)[1]
    out, err = first.communicate(timeout=60 * SLOW)
    assert first.returncode == 0, out + err
    assert cache.entry()["verdict"] == "trusted"


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("knobs", ["never_ready=1", "dump_hang=1", "archive_hang=1", "ignore_term=1 never_ready=1"])
def test_told_to_end(cache, sig, knobs):
    """Proves: SIGTERM, SIGINT and SIGHUP end the builder and its JVM at once, whatever that one
    does, without a verdict and without a file."""
    run = cache.start(knobs=knobs)
    wanted = {"never_ready=1": " -flatfile ", "dump_hang=1": "-Xshare:dump",
              "archive_hang=1": "-XX:SharedArchiveFile="}
    mark = next(m for k, m in wanted.items() if k in knobs)
    until("the JVM that hangs", 20, lambda: any(
        mark in c and "plain" not in c.partition("-Djava.io.tmpdir")[2].partition(" ")[0]
        or "never_ready" in knobs and mark in c for c in cache.processes().values()))
    run.send_signal(sig)
    out, err = run.communicate(timeout=20 * SLOW)
    assert run.returncode == 130, out + err
    cache.assert_no_leftovers()
    assert cache.entries() == []


def assert_whole(cache):
    """What is listed as trusted is the archive that was made, in full."""
    for entry in cache.entries():
        assert entry["verdict"] == "trusted"
        archive = pathlib.Path(entry["path"]) / entry["archive"]["name"]
        assert archive.stat().st_size == entry["archive"]["size"] == 1 << 20
        assert archive.read_bytes().startswith(f"fake archive {cache.jar} ".encode())


def test_killed(cache):
    """Proves: SIGKILL at any moment ends the JVMs too, leaves nothing that is trusted and not whole,
    and the next builder sweeps what is left."""
    began = time.monotonic()
    cache(knobs="dump_mb=1")
    whole = time.monotonic() - began
    rng = random.Random(7)
    for i in range(16):
        if i % 4 == 0:
            cache("--clear")
        run = cache.start("--again", knobs="dump_mb=1")
        time.sleep(rng.uniform(0, whole))
        run.kill()
        run.communicate()
        until("the JVMs end with their builder", 5, lambda: not cache.processes())
        assert_whole(cache)
    cache(knobs="dump_mb=1")
    assert cache.entry()["verdict"] == "trusted"
    assert_whole(cache)
    cache.assert_no_leftovers()
    # Where nothing is left to be made, the sweeping is done all the same.
    run = cache.start("--again", knobs="never_ready=1")
    until("its first node", 10, lambda: (cache.boot / "work/plain/ice").exists())
    run.kill()
    run.communicate()
    until("the JVM ends with its builder", 5, lambda: not cache.processes())
    assert (cache.boot / "work").exists()
    assert progress(cache(knobs="dump_mb=1")[1]) == []
    cache.assert_no_leftovers()


# --- disks and users ------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(path, size, *options):
    path.mkdir()
    options = ",".join([f"size={size}", *options])
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=False).returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


@needs_root
def test_no_room(cache):
    """Proves: a disk with too little room is seen beforehand, and one that fills up meanwhile is no
    fault of the archive: what was there stays."""
    with small_disk(cache.path, "100m"):
        _, err = cache(code=1)
        assert re.search(r"boot has [\d.]+ MB free, and 192 MB are needed: make room, or set cache_dir", err)
        assert cache.entries() == []
        cache.assert_no_leftovers()
    cache.path.rmdir()
    with small_disk(cache.path, "210m"):
        cache(knobs="dump_mb=1")
        before = cache.entry()
        run = cache.start("--again", knobs="dump_mb=30 never_ready=1")
        until("its first node", 10, lambda: (cache.boot / "work/plain/ice").exists())
        disk = os.statvfs(cache.path)
        with open(cache.path / "filler", "wb") as f:
            os.posix_fallocate(f.fileno(), 0, disk.f_bavail * disk.f_frsize - (8 << 20))
        (cache.boot / "work/plain/ice/fake.ctl").write_text("never_ready=0\n")
        out, err = run.communicate(timeout=60 * SLOW)
        assert run.returncode == 1 and "are needed: make room" in err, out + err
        assert cache.entry() == before
        cache.assert_no_leftovers()


@needs_root
def test_noexec(cache):
    """Proves: where no library can be loaded from none are kept, which is said; root's are used then; and once
    it is mounted otherwise they are unpacked."""
    own = {"H2OFLEET_SYSTEM_CACHE_DIR": str(cache.path)}
    sentence = f"{cache.boot} is mounted noexec: no library can be used there"
    with small_disk(cache.path, "500m", "noexec"):
        out, _ = cache()
        assert out.startswith("dev: prepared") and out.endswith(f"dev: no native libraries are kept: {sentence}\n")
        out, err = cache("--native-only")
        assert out == f"dev: {sentence}\n" and progress(err) == []
        assert re.search(rf"libraries +none .*{cache.jar}: {sentence}", cache("--list")[0])
        runtime, = json.loads(cache("--json")[0])["runtimes"]
        assert (runtime["library_path"], runtime["native_why"]) == (None, sentence)
        # What this cache cannot have another can: its verdict is not taken for it.
        config = cache.config.read_text()
        cache.config.write_text(config.replace(str(cache.path), f"{cache.dir}/other"))
        assert cache("--native-only", env=own)[0] == "dev: the native libraries are unpacked\n"
        cache.config.write_text(config)
        other = {"H2OFLEET_SYSTEM_CACHE_DIR": str(cache.dir / "other")}
        runtime, = json.loads(cache("--json", env=other)[0])["runtimes"]
        assert runtime["library_path"].startswith(f"{cache.dir}/other/boot/native-")
        assert runtime["native_why"] is None
        subprocess.run(["mount", "-o", "remount,exec", str(cache.path)], check=True)
        out, err = cache()
        assert progress(err) == STEPS[:1] and "no native libraries" not in out


@needs_root
def test_foreign_owner(cache):
    """Proves: what belongs to another user is neither used nor built upon, and root does not write
    into another's cache."""
    cache()
    entry = cache.boot / cache.entry()["name"]
    os.chown(entry, NOBODY, NOBODY)
    assert progress(cache()[1]) == STEPS[1:], "made anew"
    assert cache.entry()["verdict"] == "trusted" and entry.stat().st_uid == 0
    os.chown(cache.boot, NOBODY, NOBODY)
    assert f"{cache.boot} belongs to user {NOBODY}, so what is in it is not used; remove it" in cache(code=1)[1]
    os.chown(cache.boot, 0, 0)
    os.chown(cache.path, NOBODY, NOBODY)
    sentence = r"belongs to user \w+, and is for that user alone: `sudo -u \w+ h2ofleet prepare`"
    before = cache.names()
    assert re.search(sentence, cache(code=1)[1])
    assert re.search(sentence, build(cache, code=1))
    assert f"{cache.path} belongs to user {NOBODY}, so what is in it is not used" in cache("--clear", code=1)[1]
    assert cache.names() == before, "nothing was written"


@needs_root
def test_system_cache(cache):
    """Proves: what root has made in the system's cache directory serves a user who has none of his
    own, and one that may be written by others does not."""
    own = {"H2OFLEET_SYSTEM_CACHE_DIR": str(cache.path)}
    cache()
    config = cache.config.read_text()
    home = cache.dir / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    cache.config.write_text(config.replace(f"cache_dir = {cache.path}", f"cache_dir = {home}/cache"))
    out, err = cache(env=own, user=NOBODY, group=NOBODY, extra_groups=[])
    assert out.startswith("dev: prepared") and progress(err) == []
    assert not (home / "cache").exists()
    cache.boot.chmod(0o777)
    out, err = cache(env=own, user=NOBODY, group=NOBODY, extra_groups=[])
    assert progress(err) == STEPS and (home / "cache" / "boot").exists()


@needs_root
def test_read_only_cache(cache):
    """Proves: a cache directory that may not be written is an error with a sentence."""
    cache.path.mkdir(mode=0o755)
    _, err = cache(code=1, user=NOBODY, group=NOBODY, extra_groups=[])
    assert f"cannot create directory {cache.boot}: Permission denied" in err


def test_usage(cache):
    """Proves: what cannot be meant is refused before anything is done."""
    assert "--list and --clear" in cache("--list", "--clear", code=2)[1]
    assert "--timeout takes a time" in cache("--timeout", "soon", code=2)[1]
    assert "--memory goes with" in cache("-m", "4g", code=2)[1]
    cache.config.write_text("[cloud dev]\nnodes = many\n")
    assert "nodes" in cache(code=1)[1]
    assert not cache.path.exists()
