"""Grid searches that outlive their cloud (src/core/recovery.c), and what else the special node shows."""

import signal

import pytest

from fleet import until
from test_node import begin_grid


@pytest.mark.timeout(400)
@pytest.mark.relies("src/core/recovery.c: recovery.json", "src/core/recovery.c: /3/Recovery/resume",
                    "src/model/plan.c: -auto_recovery_dir", "src/core/recovery.c: H2O before 3.32.1 refuses the argument")
def test_recovery(rig):
    """With -auto_recovery_dir a grid search that runs is kept in recovery.json and files beside it, and its job says
    auto_recoverable. A new cloud takes it up when told by POST /3/Recovery/resume, which is answered at once: the job
    has the same key, and is done in the end; then the directory is empty. H2O before 3.32.1 refuses the argument."""
    if not rig.kind.can_recover:
        code, said = rig.kind.run(*rig.kind.allow(), "-jar", rig.kind.jar, "-auto_recovery_dir", str(rig.recovery))
        assert code == 1 and "ERROR: Unknown argument (-auto_recovery_dir)" in said, (code, said)
        return
    node, directory = rig.special(), rig.recovery
    key = begin_grid(node, trees=(15, 16), depths=(4, 5))
    until("the state of the search", 60, lambda: (directory / "recovery.json").exists() and node.job(key))
    job = node.job(key)
    assert job["status"] == "RUNNING" and job["auto_recoverable"] is True
    until("a part of it", 60, lambda: len(list(directory.rglob("*"))) >= 2)
    node.kill()

    after = rig.special()
    assert (directory / "recovery.json").exists(), "it waits to be told"
    after.good("/3/Recovery/resume", "POST", form={"recovery_dir": str(directory)}, timeout=20)
    after.await_job(key, seconds=200)
    until("an empty directory", 20, lambda: not list(directory.iterdir()))


@pytest.mark.relies("src/model/plan.c: -cp does not, and without them every REST call")
def test_classpath(rig):
    """With -cp, --add-opens and the main class a node works as with -jar."""
    assert rig.special().good("/4/sessions", "POST")["session_key"]


@pytest.mark.relies("src/core/polls.c: context_path")
def test_context_path(rig):
    """-context_path is in front of every path, and without it there is nothing."""
    node = rig.special()
    assert node.context and node.ask("/3/Cloud?skip_ticks=true", "HEAD").status == 200
    node.good("/3/Cloud")
    context, node.context = node.context, ""
    assert node.ask("/3/Cloud").status == 404
    node.context = context


@pytest.mark.relies("src/drv/bootnative.c: hex.tree.xgboost.util.NativeLibrary", "src/model/plan.c: -Djava.io.tmpdir=")
def test_native_libraries(rig):
    """Without the libraries on java.library.path a node unpacks one into java.io.tmpdir. (With them, none: test_boot.)"""
    node = rig.special()
    assert node.native_files(), list(node.tmp.iterdir())


@pytest.mark.relies("src/model/cause.c: The JVM turns SIGHUP, SIGINT and SIGTERM into exit codes 128 + n")
@pytest.mark.parametrize("sig", [signal.SIGTERM, *(pytest.param(s, marks=pytest.mark.long) for s in (
    signal.SIGINT, signal.SIGHUP))])
def test_signals(rig, sig):
    """SIGTERM, SIGINT and SIGHUP end a node with 128 + n, and the JVM removes what it unpacked."""
    node = rig.special()
    assert node.native_files() and node.perf_file().exists()
    node.kill(sig)
    assert node.exit(20) == 128 + sig
    assert not node.native_files() and not node.perf_file().exists()
