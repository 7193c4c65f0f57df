"""Fixtures of the crash-point tests."""

import pytest

import crash
from points import KEEP, jar, need, pytest_terminal_summary, report  # noqa: F401


def pytest_configure(config):
    need(crash.CRASHPOINT)


@pytest.fixture(scope="session")
def crasher(jar):  # noqa: F811
    return crash.Crash(jar, KEEP)
