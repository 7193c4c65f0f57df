"""What the suites that try points one by one (tests/crash, tests/fault) have in common: the jar, where the
files of a failure are kept, and the counts at the end. For their conftest.py."""

import os
import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

from fleet import H2OFLEETD, REPO  # noqa: E402

KEEP = pathlib.Path(os.environ.get("H2OFLEET_E2E_DIR", REPO / ".cache" / "check" / "e2e"))


def need(program):
    """Ends pytest where there is no daemon, or not this program."""
    for path in (H2OFLEETD, program):
        if not os.access(path, os.X_OK):
            pytest.exit(f"{path} is not there: build first, or set H2OFLEETD and FAKEJAVA", 2)


@pytest.fixture(scope="session")
def jar(tmp_path_factory):
    path = tmp_path_factory.mktemp("fake") / "h2o.jar"
    subprocess.run([REPO / "tests/fake/make-fake-jar", path], check=True)
    return path


@pytest.fixture
def report(request):
    """report(sentence): printed at the end, whatever the verbosity, from xdist's workers too."""
    return lambda sentence: request.node.user_properties.append(("point", sentence))


def pytest_terminal_summary(terminalreporter):
    for outcome in ("passed", "failed"):
        for done in terminalreporter.stats.get(outcome, ()):
            for _, sentence in done.user_properties:
                terminalreporter.write_line(sentence)
