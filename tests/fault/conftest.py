"""Fixtures of the fault-point tests, and their counts at the end."""

import os
import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

from fleet import H2OFLEETD, REPO  # noqa: E402

import fault  # noqa: E402

KEEP = pathlib.Path(os.environ.get("H2OFLEET_E2E_DIR", REPO / ".cache" / "check" / "e2e"))


def pytest_configure(config):
    for program in (H2OFLEETD, fault.LIBRARY):
        if not os.access(program, os.X_OK):
            pytest.exit(f"{program} is not there: build first, or set H2OFLEETD, FAKEJAVA and FAULT_LIBRARY", 2)


@pytest.fixture(scope="session")
def jar(tmp_path_factory):
    path = tmp_path_factory.mktemp("fake") / "h2o.jar"
    subprocess.run([REPO / "tests/fake/make-fake-jar", path], check=True)
    return path


@pytest.fixture(scope="session")
def faults(jar):
    return fault.Faults(jar, KEEP)


@pytest.fixture
def report(request):
    """report(sentence): printed at the end, whatever the verbosity."""
    return lambda sentence: request.node.user_properties.append(("fault", sentence))


def pytest_terminal_summary(terminalreporter):
    for outcome in ("passed", "failed"):
        for done in terminalreporter.stats.get(outcome, ()):
            for _, sentence in done.user_properties:
                terminalreporter.write_line(sentence)
