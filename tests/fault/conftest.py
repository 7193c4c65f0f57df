"""Fixtures of the fault-point tests."""

import pytest

import fault  # finds tests/crash for the next
from points import KEEP, jar, need, pytest_terminal_summary, report  # noqa: F401


def pytest_configure(config):
    need(fault.LIBRARY)


@pytest.fixture(scope="session")
def faults(jar):  # noqa: F811
    return fault.Faults(jar, KEEP)
