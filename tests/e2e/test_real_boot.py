"""The boot cache with the real JVM and the real h2o.jar: that an archive is made and used, changes
nothing but the speed, and that the check refuses what must not be used: an archive of the other
kind, which boots well and kills the cloud at its first session (HACKING.md, "The boot cache")."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

import pytest

from fleet import H2OFLEET, H2OFLEETD, MARK, PortBlock, SLOW, processes, until

ROUTE = ("http_method", "url_pattern", "handler_class", "handler_method", "input_schema", "output_schema")


class Bench:
    """A cache, and nodes that are started by hand: what the daemon does has tests of its own."""

    def __init__(self, keys):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="h2ofleet-e2e."))
        self.jar, self.java = keys["jar_path"], keys["java"] or shutil.which("java")
        self.cache = self.dir / "cache"
        self.config = self.dir / "h2ofleet.conf"
        self.config.write_text(f"[fleet]\ncache_dir = {self.cache}\n")
        self.ports = PortBlock()
        self.nodes = 0
        self.running = []

    def env(self):
        return {**os.environ, MARK: str(self.dir), "TMPDIR": str(self.dir), "DO_NOT_TRACK": "1",
                "H2OFLEET_SYSTEM_CACHE_DIR": str(self.dir / "system")}

    def prepare(self, *args):
        done = subprocess.run(
            [H2OFLEET, "prepare", "--config", self.config, "--jar", self.jar, "--java", self.java,
             "--json", *args], env=self.env(), stdout=subprocess.PIPE, text=True, timeout=900 * SLOW,
            check=True)
        (runtime,) = json.loads(done.stdout)["runtimes"]
        return runtime

    @contextlib.contextmanager
    def node(self, *flags):
        """-> (its process, its URL, its java.io.tmpdir)"""
        self.nodes += 1
        home = self.dir / f"node{self.nodes}"
        (home / "tmp").mkdir(parents=True)
        port = self.ports.base + 2 * self.nodes
        (home / "flatfile").write_text(f"127.0.0.1:{port}\n")
        with open(home / "out", "wb") as out:
            java = subprocess.Popen(
                [self.java, "-Xmx512m", f"-Djava.io.tmpdir={home}/tmp", *flags, "-jar", self.jar, "-name",
                 f"boot{port}", "-ip", "127.0.0.1", "-web_ip", "127.0.0.1", "-port", str(port), "-flatfile",
                 home / "flatfile", "-ice_root", home / "ice"],
                env=self.env(), stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=home)
        self.running.append(java)
        url = f"http://127.0.0.1:{port}"

        def serves():
            assert java.poll() is None, (home / "out").read_text()[-3000:]
            with contextlib.suppress(OSError):
                cloud = get(f"{url}/3/Cloud?skip_ticks=true")
                return cloud["consensus"] and cloud["cloud_healthy"]

        try:
            until("the node serves", 90, serves, 0.1)
            yield java, url, home / "tmp"
        finally:
            java.terminate()
            java.wait(timeout=90 * SLOW)

    def close(self):
        for java in self.running:
            java.kill()
            java.wait()
        until(lambda: f"no process is left: {processes(f'{MARK}={self.dir}')}", 5,
              lambda: not processes(f"{MARK}={self.dir}"))
        self.ports.release()
        shutil.rmtree(self.dir)


def get(url):
    with urllib.request.urlopen(url, timeout=60 * SLOW) as answer:
        return json.load(answer)


def endpoints(url):
    return sorted(tuple(str(r[k]) for k in ROUTE) for r in get(f"{url}/3/Metadata/endpoints")["routes"])


@pytest.fixture(scope="module")
def bench(real_keys):
    b = Bench(real_keys())
    yield b
    b.close()


@pytest.fixture(scope="module")
def built(bench):
    began = time.monotonic()
    runtime = bench.prepare()
    runtime["took"] = time.monotonic() - began
    return runtime


def using(runtime):
    return (f"-Djava.library.path={runtime['library_path']}", f"-XX:SharedArchiveFile={runtime['archive']}",
            "-Xshare:auto", "-XX:+UnlockDiagnosticVMOptions", "-XX:ArchiveRelocationMode=0")


def test_built(bench, built):
    """Proves: the archive of the released jar is made, checked and trusted; what both nodes took is
    kept with it; no file is left but the cache's own."""
    assert built["verdict"] == "trusted" and built["why"] is None, built
    measured = built["measured"]
    assert measured["endpoints"] > 250
    assert all(measured[k] > 0 for k in ("cpu_ms", "plain_cpu_ms", "ready_ms", "plain_ready_ms")), measured
    assert sorted(p.name for p in bench.dir.iterdir()) == ["cache", "h2ofleet.conf"]
    assert sorted(p.name for p in pathlib.Path(built["library_path"]).glob("*.so")) == [
        "libxgboost4j_gpu.so", "libxgboost4j_minimal.so"]
    assert not (bench.cache / "boot" / "work").exists()
    says = subprocess.run([built["java"], "-XshowSettings:properties", "-version"], env={},
                          stderr=subprocess.PIPE, text=True, timeout=60 * SLOW, check=True).stderr
    says = re.search(r" java\.library\.path = (.*\n(?: {8}.*\n)*)", says)[1].split()
    verdict = json.loads((pathlib.Path(built["archive"]).parent / "verdict.json").read_text())
    assert verdict["java_library_path"].split(":") == says, "its own, which is Debian's at times"
    again = bench.prepare()
    assert (again["archive"], again["measured"]) == (built["archive"], measured), "nothing is made twice"


def test_same_node(bench, built):
    """Proves: a node with it maps it, unpacks no library, finds XGBoost, has the endpoints of one that
    was started plainly, and a Python client trains a model on it."""
    with bench.node() as (_, url, _):
        plain = endpoints(url)
    with bench.node(*using(built)) as (java, url, tmp):
        assert f" {built['archive']}\n" in pathlib.Path(f"/proc/{java.pid}/maps").read_text()
        assert not list(tmp.glob("libxgboost*"))
        assert "XGBoost backend with library: xgboost4j_gpu" in (tmp.parent / "out").read_text()
        assert endpoints(url) == plain
        done = subprocess.run([sys.executable, "-c", f"""
import h2o
from h2o.estimators import H2OGradientBoostingEstimator
h2o.connect(url="{url}", verbose=False)
frame = h2o.H2OFrame([[i, i % 3] for i in range(100)])
model = H2OGradientBoostingEstimator(ntrees=1, min_rows=1)
model.train(x=["C1"], y="C2", training_frame=frame)
print("trained", frame.nrow)
"""], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120 * SLOW, check=False)
        assert "trained 100" in done.stdout, done.stdout


def test_dynamic_archive_is_refused(bench, built):
    """Proves: the check can fail. A dynamic archive (-XX:ArchiveClassesAtExit) is what anybody would make
    first; nodes with it boot, and the very check refuses it."""
    archive = bench.dir / "dynamic.jsa"
    with bench.node(f"-Djava.library.path={built['library_path']}", f"-XX:ArchiveClassesAtExit={archive}"):
        pass
    assert archive.stat().st_size > 10 << 20
    done = subprocess.run(
        [H2OFLEETD, "--build-boot-cache", f"cache_dir={bench.cache}", f"java={bench.java}", "java_major=17",
         f"jar={bench.jar}", f"archive={archive}"],
        env=bench.env(), stdout=subprocess.PIPE, text=True, timeout=900 * SLOW, check=False)
    last = done.stdout.splitlines()[-1]
    assert done.returncode == 3, done.stdout
    assert "a node with the archive: GET /3/Metadata/endpoints" in last, last
    assert "it logged: Failed to instantiate schema of class: water.api.Schema" in last
    assert bench.prepare()["archive"] == built["archive"], "the good one is still there"
