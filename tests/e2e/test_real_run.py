"""h2ofleet run with real H2O nodes and the real client."""

import os
import re
import subprocess
import sys

import pytest

from fleet import H2OFLEET, SLOW
from runs import Runs

CONNECT = """
import os, h2o
h2o.connect(url=os.environ["H2O_URL"], verbose=False)
"""


@pytest.fixture
def real_runs(real_keys):
    keys = real_keys(2)
    options = ["-n", 2, "-m", "512m", "--jar", keys["jar_path"]]
    runs = Runs(options + (["--java", keys["java"]] if keys["java"] else []))
    yield runs
    wrong = runs.close()
    assert not wrong, "\n".join(wrong)


def perf_files():
    """hsperfdata of processes that are gone."""
    found = subprocess.run(["sh", "-c", "ls /tmp/hsperfdata_*/ 2>/dev/null"], capture_output=True,
                           text=True).stdout
    return {int(pid) for pid in re.findall(r"^(\d+)$", found, re.M)}


def test_python_client(real_runs):
    """The real client meets a whole cloud of two and makes a frame on it; after, all is gone."""
    out, err = real_runs("--", sys.executable, "-c", CONNECT + """
import json
frame = h2o.H2OFrame([[i, i % 3] for i in range(100)])
print(json.dumps([h2o.cluster().cloud_size, frame.nrow, frame[0].mean()[0]]))
""", timeout=120)
    assert "[2, 100, 49.5]" in out.splitlines(), out + err
    real_runs.assert_clean_now()


def test_kill_in_mid_training(real_runs):
    """kill -9 of run while a model is being trained: no JVM, port or file stays."""
    run = real_runs.start("--", sys.executable, "-c", CONNECT + """
from h2o.estimators import H2OGradientBoostingEstimator
import random, time
frame = h2o.H2OFrame([[random.random() for _ in range(5)] for _ in range(2000)])
model = H2OGradientBoostingEstimator(ntrees=100000, max_depth=3)
model.start(x=[1, 2, 3, 4], y=0, training_frame=frame)
while not [j for j in h2o.api("GET /3/Jobs")["jobs"] if j["status"] == "RUNNING"]:
    time.sleep(0.05)
print("training", flush=True)
time.sleep(600)
""")
    for line in run.stdout:
        if "training" in line:
            break
    else:
        raise AssertionError(run.stderr.read())
    nodes = set(real_runs.nodes())
    assert len(nodes) == 2
    run.kill()
    real_runs.finish(run)
    real_runs.assert_clean()
    assert not nodes & perf_files()


def test_pytest_plugin(real_runs):
    """The plugin with the real client."""
    plugin = os.path.join(os.path.dirname(__file__), "../../contrib/pytest-h2ofleet")
    suite = real_runs.dir / "test_it.py"
    suite.write_text("import h2o\n\ndef test_frame(h2o_url):\n"
                     "    h2o.connect(url=h2o_url, verbose=False)\n"
                     "    assert h2o.H2OFrame([[1], [2]]).nrow == 2\n")
    keys = dict(zip(real_runs.options[::2], real_runs.options[1::2]))
    java = [f"--h2ofleet-set=java={keys['--java']}"] if "--java" in keys else []
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "pytest_h2ofleet", "-p", "no:cacheprovider",
         f"--h2ofleet-bin={H2OFLEET}", "--h2ofleet-memory=512m",
         f"--h2ofleet-set=jar_path={keys['--jar']}", *java, str(suite)],
        env=real_runs.env(PYTHONPATH=plugin), capture_output=True, text=True, timeout=120 * SLOW)
    assert done.returncode == 0, done.stdout + done.stderr
    real_runs.assert_clean_now()
