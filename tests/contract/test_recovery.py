"""Grid searches that outlive their cloud: src/core/recovery.c."""

import pytest

from fleet import until
from test_node import begin_grid


@pytest.mark.relies("src/core/recovery.c: recovery.json", "src/core/recovery.c: /3/Recovery/resume",
                    "src/model/plan.c: -auto_recovery_dir")
def test_recovery(rig):
    """With -auto_recovery_dir a grid search that runs is kept in recovery.json and files beside it, and its job says
    auto_recoverable. A new cloud takes it up when told by POST /3/Recovery/resume, which is answered at once: the job
    has the same key, and is done in the end; then the directory is empty."""
    directory = rig.kind.dir / "recovery"
    directory.mkdir(exist_ok=True)
    # core/recovery.c makes the directory before the nodes start, and gives its name in the form of the POST.
    node = rig.lone(h2o=["-auto_recovery_dir", str(directory)])
    key = begin_grid(node)
    until("the state of the search", 60, lambda: (directory / "recovery.json").exists() and node.job(key))
    job = node.job(key)
    assert job["status"] == "RUNNING" and job["auto_recoverable"] is True
    until("a part of it", 60, lambda: len(list(directory.rglob("*"))) >= 2)
    node.kill()

    after = rig.lone(h2o=["-auto_recovery_dir", str(directory)])
    assert (directory / "recovery.json").exists(), "it waits to be told"
    after.good("/3/Recovery/resume", "POST", form={"recovery_dir": str(directory)}, timeout=20)
    after.await_job(key, seconds=120)
    until("an empty directory", 20, lambda: not list(directory.iterdir()))
