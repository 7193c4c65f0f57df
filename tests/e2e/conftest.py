"""Fixtures. `fake` and `real` make fleets; each is ended, checked and removed after its test."""

import contextlib
import os
import pathlib
import re
import signal
import subprocess

import pytest

from fleet import (FAKEJAVA, H2OFLEET, H2OFLEETD, REPO, SYSTEM_CACHE, WRAPPER, Fleet,
                   prepare_boot_cache, unsupported_java)

KEEP = pathlib.Path(os.environ.get("H2OFLEET_E2E_DIR", REPO / ".cache" / "check" / "e2e"))


# What a shell starts in the background inherits these ignored, and so would all that we start.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)


def pytest_configure(config):
    for program in (H2OFLEETD, H2OFLEET):
        if not os.access(program, os.X_OK):
            pytest.exit(f"{program} is not there: build first, or set H2OFLEETD and H2OFLEET", 2)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for fleet in getattr(item, "fleets", ()):
            if not fleet.dir.exists():
                continue  # it was in order, something else was not
            kept = KEEP / re.sub(r"[^A-Za-z0-9_.-]+", "-", item.name)[:100]
            fleet.save(kept)
            report.sections.append(("h2ofleetd", f"{fleet.log_tail(60)}\nkept: {kept}"))
            if report.when == "teardown":
                fleet.remove()


def finish(fleets):
    wrong = [sentence for fleet in fleets for sentence in fleet.close()]
    if not wrong:
        for fleet in fleets:
            fleet.remove()
    assert not wrong, "\n".join(wrong)


@pytest.fixture
def fleets(request):
    """A function that makes fleets; all are ended and checked after the test."""
    made = []
    request.node.fleets = made

    def make(clouds, **kwargs):
        fleet = Fleet(clouds, **kwargs)
        made.append(fleet)
        return fleet

    yield make
    finish(made)


@pytest.fixture(scope="session")
def fake_jar(tmp_path_factory):
    jar = tmp_path_factory.mktemp("fake") / "h2o.jar"
    subprocess.run([REPO / "tests/fake/make-fake-jar", jar], check=True)
    return jar


@pytest.fixture(scope="session")
def fake_keys(fake_jar):
    """Keys of a cloud of fakes; heartbeats ten times as fast as H2O's."""

    def keys(nodes=3, knobs="", **more):
        return {
            "nodes": nodes, "java": FAKEJAVA, "jar_path": fake_jar, "max_mem_size": "64m",
            "jvm_custom_args": f"-Dfake.heartbeat_ms=100 {knobs}".strip(),
            "restart_delay": "0s", "stop_timeout": "3s", **more,
        }

    return keys


@pytest.fixture
def fake(fleets, fake_keys):
    """fake(nodes=3, knobs="-Dfake.x=1", key=value, ...): a started fleet with one cloud, "c"."""

    def make(nodes=3, knobs="", start=True, fleet=None, env=None, **keys):
        made = fleets({"c": fake_keys(nodes, knobs, **keys)}, fleet=fleet, env=env)
        return made.start() if start else made

    return make


def find_jar():
    jar = os.environ.get("H2OFLEET_JAR")
    if jar:
        return jar
    h2o = pytest.importorskip("h2o", reason="the h2o package is not in this environment")
    return str(pathlib.Path(h2o.__file__).parent / "backend/bin/h2o.jar")


@pytest.fixture(scope="session")
def real_keys():
    """Keys of a cloud of real H2O nodes."""
    jar = find_jar()
    java = os.environ.get("H2OFLEET_JAVA")
    os.environ[SYSTEM_CACHE] = str(prepare_boot_cache(jar, java))

    def keys(nodes=3, **more):
        return {
            "nodes": nodes, "jar_path": jar, "java": java, "max_mem_size": "512m",
            "restart_delay": "0s", **unsupported_java(), **more,
        }

    return keys


@pytest.fixture
def real(fleets, real_keys):
    """real(nodes=3, key=value, ...): a started fleet with one cloud of real nodes, "c"."""

    def make(nodes=3, start=True, fleet=None, **keys):
        made = fleets({"c": real_keys(nodes, **keys)}, fleet=fleet)
        return made.start() if start else made

    return make


@contextlib.contextmanager
def ready_cloud(request, keys):
    """A fleet with one ready cloud for all tests of a module."""
    fleet = Fleet({"c": keys})
    request.node.fleets = [fleet]
    try:
        fleet.start()
        fleet.ready(timeout=90)
        yield fleet
    finally:
        finish([fleet])


@pytest.fixture(scope="module")
def shared(request, real_keys):
    """One cloud of three real nodes for the tests that leave a whole cloud behind."""
    with ready_cloud(request, real_keys(3)) as fleet:
        yield fleet


@pytest.fixture
def cloud3(shared, request):
    """The shared cloud, ready."""
    request.node.fleets = [shared]
    shared.ready(timeout=90)
    return shared


@pytest.fixture
def under_valgrind():
    return bool(WRAPPER)
