"""What cannot be meant is refused: of the commands that make and change clouds before any daemon is asked (there
is none here), and of the programs that are started by ours alone."""

import json
import subprocess

import pytest

from fleet import H2OFLEET, H2OFLEETD, SLOW


def cli(*args):
    return subprocess.run([H2OFLEET, "--socket", "/nonexistent/h2ofleet", *args], capture_output=True,
                          timeout=30 * SLOW)


@pytest.mark.parametrize("args, why", [
    (["create"], "how is the cloud to be called?"),
    (["create", "nodes=2"], "how is the cloud to be called?"),
    (["create", "a/b"], "a/b"),
    (["create", "a", "nodes"], "'nodes' is no KEY=VALUE"),
    (["create", "a", "=2"], "'=2' is no KEY=VALUE"),
    (["create", "a", "nodes=1", "--set", "nodes=2"], "'nodes' is there twice"),
    (["create", "a", "nodes=1", "-n", "2"], "'nodes' is there twice"),
    (["create", "a", b"name=\xff"], "is not UTF-8"),
    (["create", "a", b"\xff=1"], "is not UTF-8"),
    (["create", "a", "--timeout", "soon", "--wait"], "'soon' is no time"),
    (["create", "a", "--timeout", "5s"], "--timeout means nothing without --wait"),
    (["delete"], "which cloud?"),
    (["delete", "a", "a/b"], "a/b"),
    (["delete", "a", "--timeout", "5s"], "--timeout means nothing without --wait"),
    (["delete", "a", "--wait", "--timeout", "5"], "'5' is no time"),
    (["set"], "which cloud?"),
    (["set", "nodes=2"], "which cloud?"),
    (["set", "a/b", "nodes=2"], "a/b"),
    (["set", "a"], "which keys?"),
    (["set", "a", "nodes=", "nodes=2"], "'nodes' is there twice"),
])
def test_refused(args, why):
    done = cli(*args)
    assert done.returncode == 2 and why.encode() in done.stderr, done
    assert not done.stdout and b"/nonexistent" not in done.stderr, done


@pytest.mark.parametrize("args", [["create", "a"], ["create", "a", "--wait"], ["delete", "a"], ["set", "a", "nodes=2"]])
def test_no_daemon(args):
    """What can be meant needs one; who wants JSON gets the reason as such, too."""
    done = cli(*args)
    assert done.returncode == 4 and b"/nonexistent" in done.stderr, done
    done = cli(*args, "--json")
    assert done.returncode == 4 and "/nonexistent" in json.loads(done.stdout)["error"], done


def program(name, *args, **kwargs):
    return subprocess.run([name, *args], capture_output=True, text=True, timeout=30 * SLOW, stdin=subprocess.DEVNULL,
                          **kwargs)


GATE = f"{H2OFLEETD.removesuffix('d')}-gate"


@pytest.mark.parametrize("args, why", [
    (["x"], "'x' is not understood"),
    (["-x"], "try `h2ofleetd --help`"),
    (["--config"], "try `h2ofleetd --help`"),
    (["--rotate-logs"], "is for h2ofleetd itself"),
    (["--rotate-logs", "/nonexistent"], "is for h2ofleetd itself"),
    (["--rotate-logs", "/nonexistent", "1", "1", "1", "rar"], "is for h2ofleetd itself"),
    (["--rotate-logs", "--", "/nonexistent", "1", "-1", "1", "zstd"], "is for h2ofleetd itself"),
    (["--rotate-logs", "/nonexistent", "1", "1", "1", "zstd", "x"], "is for h2ofleetd itself"),
    (["--build-boot-cache"], "is for h2ofleetd itself"),
    (["--explain-boot-cache", "x"], "is for h2ofleetd itself"),
])
def test_daemon_refuses(args, why):
    """A sentence and 2, whatever is missing or too much."""
    done = program(H2OFLEETD, *args)
    assert done.returncode == 2 and why in done.stderr and not done.stdout, done


def test_rotates_nothing():
    """What there is not cannot be rotated: who started it is told why."""
    done = program(H2OFLEETD, "--rotate-logs", "/nonexistent", "1", "1", "1", "zstd")
    assert done.returncode == 1 and "/nonexistent" in done.stdout, done


@pytest.mark.parametrize("name, word", [(H2OFLEETD, "h2ofleetd"), (GATE, "h2ofleet-gate"), (H2OFLEET, "h2ofleet")])
def test_help_and_version(name, word):
    """On standard output, by themselves."""
    said = program(name, "--help")
    assert said.returncode == 0 and said.stdout.startswith(f"usage: {word}") and not said.stderr, said
    said = program(name, "--version")
    assert said.returncode == 0 and said.stdout.startswith(f"{word} ") and not said.stderr, said


def test_started_by_hand():
    """The gate and the guardian are of no use without who starts them, and say so."""
    for done in (program(GATE), program(GATE, "x"), program("h2ofleet-guardian", executable=H2OFLEET)):
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and not done.stdout, done
