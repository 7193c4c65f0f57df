"""Each test runs against the real H2O and against the fake node, and names who relies on what it states."""

import os
import pathlib
import signal
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

from fleet import FAKEJAVA, REPO  # noqa: E402

import nodes  # noqa: E402

KINDS = {"fake": nodes.fake_kind, "real": nodes.real_kind}

# What a shell starts in the background inherits these ignored, and so would all that we start.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)


def pytest_addoption(parser):
    parser.addoption("--on", metavar="KIND,...", default="fake,real", help="of fake and real; both without it")
    parser.addoption("--long", action="store_true", help="also what takes a minute with the real H2O")


def chosen(config):
    kinds = config.getoption("--on").split(",")
    return [k for k in KINDS if k in kinds]


def pytest_configure(config):
    if not chosen(config):
        pytest.exit("--on: fake, real, or fake,real", 2)
    if "fake" in chosen(config) and not os.access(FAKEJAVA, os.X_OK):
        pytest.exit(f"{FAKEJAVA} is not there: build first, or set FAKEJAVA", 2)


def pytest_generate_tests(metafunc):
    """A test that is not for the fake says why: `not_fake`."""
    if "kind" in metafunc.fixturenames:
        but = metafunc.definition.get_closest_marker("not_fake")
        kinds = [k for k in chosen(metafunc.config) if not (but and k == "fake")]
        metafunc.parametrize("kind", kinds, indirect=True, scope="session")


def pytest_collection_modifyitems(config, items):
    for item in items:
        check_citations(item)
    config.not_asked = sorted({f"{item.originalname}: {mark.args[0]}" for item in items
                               for mark in item.iter_markers("not_fake")})
    # pytest makes a test for an empty set of parameters, to skip it.
    out = [item for item in items if item.callspec.params["kind"] not in KINDS or (
        item.callspec.params["kind"] == "real" and item.get_closest_marker("long") and not config.getoption("--long"))]
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if item not in out]
    items.sort(key=lambda item: item.callspec.params["kind"])  # fake first: it takes seconds


def check_citations(item):
    """`relies("src/model/verdict.c: cloud_size")`: that file, and that text in it."""
    places = [place for mark in item.iter_markers("relies") for place in mark.args]
    if not places:
        raise pytest.UsageError(f"{item.nodeid} does not say who relies on it (mark `relies`)")
    for place in places:
        name, _, text = place.partition(": ")
        if text not in nodes.read(REPO / name):
            raise pytest.UsageError(f"{item.nodeid}: {name} does not have \"{text}\" (any more)")


@pytest.fixture(scope="session")
def kind(request):
    made = KINDS[request.param]()
    if made is None:
        pytest.fail("neither H2OFLEET_JAR and H2OFLEET_JAVA nor an h2o package and a java are here")
    yield made
    made.close()


@pytest.fixture(scope="session")
def session_rig(kind):
    made = nodes.Rig(kind)
    yield made
    left = made.close()
    assert not left, left


@pytest.fixture
def rig(session_rig):
    """Makes nodes; what a test does not keep is ended after it."""
    yield session_rig
    session_rig.end_test()


def pytest_terminal_summary(terminalreporter, config):
    for sentence in config.not_asked if "fake" in chosen(config) else ():
        terminalreporter.write_line(f"not asked of the fake: {sentence}")
