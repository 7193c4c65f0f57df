"""What cannot be meant, of the commands that make and change clouds, is refused before any daemon is asked:
there is none here."""

import json
import subprocess

import pytest

from fleet import H2OFLEET, SLOW


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
