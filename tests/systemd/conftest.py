"""Installs the build into the root of systemd-ns, and makes services, which are ended after each test."""

import os
import pathlib
import shutil
import subprocess

import pytest

from service import JAR, JAVA, REPO, Service, launched, read, run, until


def pytest_addoption(parser):
    parser.addoption("--part", metavar="I/N", help="only that part of the tests, to run N at once")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--part"):
        part, parts = map(int, config.getoption("--part").split("/"))
        config.hook.pytest_deselected(
            items=[t for i, t in enumerate(items) if i % parts != part - 1])
        items[:] = items[part - 1 :: parts]


def pytest_configure(config):
    # These tests install files and users: nowhere but in the namespaces of systemd-ns.
    if read("/run/systemd/container").strip() != "test":
        pytest.exit("these tests run under tests/systemd/systemd-ns only: see tests/systemd/run", 2)


@pytest.fixture(scope="session", autouse=True)
def installed():
    run("cp", "-r", "--preserve=mode", f"{os.environ['H2OFLEET_ROOT']}/.", "/")
    run("systemd-sysusers", "h2ofleet.conf")
    run("systemd-tmpfiles", "--create", "h2ofleet.conf")
    pathlib.Path(JAVA).parent.mkdir(parents=True)
    shutil.copy(os.environ["FAKEJAVA"], JAVA)
    subprocess.run([REPO / "tests/fake/make-fake-jar", JAR], check=True)
    run("systemctl", "daemon-reload")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    service = getattr(item, "service", None)
    if report.failed and service:
        report.sections.append(("systemd", service.story()))


def used(request, service):
    request.node.service = service
    assert not launched(), "left by an earlier test"
    yield service
    left = service.clean()
    assert not left, f"a stop has left these processes: {left}"


@pytest.fixture
def service(request):
    """The system's h2ofleetd.service, not started, without configuration."""
    yield from used(request, Service())


@pytest.fixture
def fleet(service):
    """The same, started, with one cloud, "c", of two fakes, which is ready."""
    service.configure()
    service.start()
    service.ready()
    return service


@pytest.fixture(scope="session")
def joe():
    """A user with a manager of his own."""
    run("useradd", "-m", "joe")
    uid = run("id", "-u", "joe").strip()
    run("systemctl", "start", f"user@{uid}.service")
    until("joe's manager", 10, lambda: pathlib.Path(f"/run/user/{uid}/systemd/private").exists())
    return "joe"


@pytest.fixture
def user_service(request, joe):
    yield from used(request, Service(joe))
