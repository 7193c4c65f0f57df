"""The examples of the documentation do what it says: each block of doc/api.md is run by a shell, in
order, against a daemon with fake nodes; each text behind `# ->` must be in what it prints, in order."""

import json
import re
import shutil
import subprocess

import pytest

from fleet import REPO, SLOW, until

pytestmark = pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl here")

BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.M | re.S)


def run(fleet, script):
    done = subprocess.run(["sh", "-eu", "-c", script], env={**fleet.env(), "S": str(fleet.socket)},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=90 * SLOW)
    assert done.returncode == 0, f"{script}\n{done.returncode}: {done.stdout}"
    return done.stdout


def check(fleet, block):
    out, at = run(fleet, block), 0
    for wanted in re.findall(r"^# -> (.*)$", block, re.M):
        found = out.find(wanted, at)
        assert found >= 0, f"{block}\nnot there, or not in this order: {wanted}\n{out}"
        at = found + len(wanted)


def test_examples_of_the_protocol(fleets, fake_keys):
    fleet = fleets({"dev": fake_keys(2)}).start()
    fleet.ready("dev")
    blocks = BLOCK.findall((REPO / "doc/api.md").read_text())
    assert len(blocks) > 10
    for block in blocks[:-1]:
        check(fleet, block)
    # The last but one was a reexec.
    until("it has replaced itself", 20, lambda: '"reexecs":1' in run(
        fleet, 'curl -s --unix-socket "$S" http://h/v1/version || :'))
    check(fleet, blocks[-1])
    assert fleet.wait_exit() == 0
    fleet.assert_clean()


def test_every_route_has_an_example():
    """Of those in openapi.json."""
    text = (REPO / "doc/api.md").read_text()
    for path in json.loads((REPO / "src/api/openapi.json").read_text())["paths"]:
        wanted = re.escape("http://h" + path).replace(r"\{name\}", "dev")
        wanted = wanted.replace(r"\{index\}", "[0-9]").replace(r"\{id\}", "[a-z0-9-]+")
        wanted = re.sub("/clouds/dev", "/clouds/(dev|exp)", wanted)
        assert re.search(wanted + r"['?\s]", text), f"no example of {path}"


def test_examples_elsewhere(fleets, fake_keys):
    """A curl to the socket in README.md or HACKING.md works as well."""
    fleet = fleets({"dev": fake_keys(1)}).start()
    fleet.ready("dev")
    found = 0
    for name in ("README.md", "contrib/HACKING.md"):
        for command in re.findall(r"(?:`|^    )(curl [^`\n]*--unix-socket [^`\n]+)", (REPO / name).read_text(), re.M):
            found += 1
            done = run(fleet, re.sub(r"/\S+/control\.sock", "$S", command) + " -sf")
            assert done, command
    assert found
