"""contrib/pytest-h2ofleet, with fake nodes: its fixtures, options and reports, alone and under xdist,
and that nothing is left of it, whatever ends pytest."""

import os
import shutil
import signal
import subprocess
import sys

import pytest

from fleet import FAKEJAVA, H2OFLEET, REPO, SLOW, until
from runs import Runs

tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML")

pytest_plugins = "pytester"
PLUGIN = REPO / "contrib/pytest-h2ofleet"


@pytest.fixture
def suite(pytester, fake_jar, monkeypatch):
    """pytester with the plugin installed as pip would, and the program and fakes configured."""
    site = pytester.mkdir("site")
    shutil.copy(PLUGIN / "pytest_h2ofleet.py", site)
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    info = site / "pytest_h2ofleet-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    points = project["entry-points"]["pytest11"]
    (info / "entry_points.txt").write_text(
        "[pytest11]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()))
    runs = Runs([])
    for name, value in runs.env(PYTHONPATH=str(site)).items():
        monkeypatch.setenv(name, value)
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_TESTRUNUID", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)
    pytester.makeini(f"""
        [pytest]
        h2ofleet_bin = {H2OFLEET}
        h2ofleet_nodes = 2
        h2ofleet_memory = 64m
        h2ofleet_set =
            java={FAKEJAVA}
            jar_path={fake_jar}
            jvm_custom_args=-Dfake.heartbeat_ms=100
    """)
    pytester.runs = runs
    # Our own interpreter has no business in the processes that are looked for.
    runs.bystanders.add(os.getpid())
    yield pytester
    wrong = runs.close()
    assert not wrong, "\n".join(wrong)


def run(suite, *args):
    result = suite.runpytest_subprocess("-p", "no:cacheprovider", *args, timeout=120 * SLOW)
    suite.runs.assert_clean()
    return result


def test_fixtures(suite):
    """One cloud of the configured size for the session, reachable by url, ip and port; it can be
    asked, read and restarted."""
    suite.makepyfile(test_a="""
        import http.client, json

        def test_url(h2o_url, h2o_cloud):
            assert h2o_url == h2o_cloud.url == f"http://{h2o_cloud.ip}:{h2o_cloud.port}"
            c = http.client.HTTPConnection(h2o_cloud.ip, h2o_cloud.port)
            c.request("GET", "/3/Cloud")
            assert json.loads(c.getresponse().read())["cloud_size"] == 2

        def test_cloud(h2o_cloud):
            assert h2o_cloud.state == "ready" and h2o_cloud.info()["generation"] == 1
            assert "INFO" in h2o_cloud.logs() and h2o_cloud.logs(node=1, tail=1).count("\\n") == 1
            assert h2o_cloud.restart()["generation"] == 2
            assert h2o_cloud.state == "ready"
    """, test_b="""
        def test_the_same(h2o_cloud):
            assert h2o_cloud.info()["generation"] == 2
    """)
    run(suite).assert_outcomes(passed=3)


def test_module_scope_and_factory(suite):
    """h2ofleet_scope = module: another cloud for each module; the factory makes more, each as asked."""
    code = """
        def test_a(h2o_cloud, h2o_cloud_factory, record_property):
            other = h2o_cloud_factory(nodes=1, settings={"name": "other"})
            assert other.info()["size"] == 1 and other.info()["h2o_name"].startswith("other-")
            assert other.port != h2o_cloud.port
            print("SOCKET", h2o_cloud.socket)
    """
    suite.makepyfile(test_a=code, test_b=code)
    result = run(suite, "-s", "--h2ofleet-scope", "module")
    result.assert_outcomes(passed=2)
    sockets = {line for line in result.outlines if "SOCKET" in line}
    assert len(sockets) == 2


def test_options_win(suite):
    suite.makepyfile("""
        def test_a(h2o_cloud):
            assert h2o_cloud.info()["size"] == 3
    """)
    run(suite, "--h2ofleet-nodes=3").assert_outcomes(passed=1)
    result = run(suite, "--h2ofleet-bin=/nonexistent/h2ofleet")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no H2O cloud: there is no /nonexistent/h2ofleet*"])


def test_xdist_has_a_cloud_for_each_worker(suite):
    pytest.importorskip("xdist")
    suite.makepyfile("""
        import os, pytest

        @pytest.mark.parametrize("i", range(6))
        def test_a(h2o_cloud, i):
            worker = os.environ["PYTEST_XDIST_WORKER"]
            with open("seen", "a") as f:
                f.write(f"{worker} {h2o_cloud.port}\\n")
    """)
    run(suite, "-n", "3").assert_outcomes(passed=6)
    seen = set((suite.path / "seen").read_text().splitlines())
    workers, ports = {s.split()[0] for s in seen}, {s.split()[1] for s in seen}
    assert len(workers) == len(ports) == len(seen) > 1


def test_shared_by_all_workers(suite, fake_jar):
    """`h2ofleet run -- pytest -n 2 --h2ofleet-shared`: one cloud, the one around."""
    pytest.importorskip("xdist")
    suite.makepyfile("""
        import os, pytest

        @pytest.mark.parametrize("i", range(4))
        def test_a(h2o_url, i):
            assert h2o_url == os.environ["H2O_URL"]
    """)
    inner = [sys.executable, "-m", "pytest", "-n", "2", "--h2ofleet-shared"]
    done = subprocess.run(
        [H2OFLEET, "run", "--java", FAKEJAVA, "--jar", fake_jar, "-m", "64m", "--", *inner],
        capture_output=True, text=True, timeout=120 * SLOW)
    assert done.returncode == 0 and "4 passed" in done.stdout, done.stdout + done.stderr
    suite.runs.assert_clean_now()
    result = run(suite, "--h2ofleet-shared")
    result.assert_outcomes(errors=4)
    result.stdout.fnmatch_lines(["*is for a pytest within `h2ofleet run`*"])


def test_report_of_a_cloud_that_is_not_well(suite):
    """A failed test's report has the cloud's reason and last lines if the cloud was lost meanwhile,
    and nothing of it if it was well."""
    suite.makepyfile("""
        import os, signal, time

        def test_well(h2o_cloud):
            assert False, "its own fault"

        def test_lost(h2o_cloud):
            os.kill(h2o_cloud.info()["nodes"][1]["pid"], signal.SIGKILL)
            end = time.monotonic() + 20
            while h2o_cloud.info()["generation"] == 1 and time.monotonic() < end:
                time.sleep(0.01)
            assert False, "not its fault"

        def test_well_again(h2o_cloud):
            assert h2o_cloud.wait_ready()["generation"] == 2
            assert False, "its own fault"
    """)
    result = run(suite)
    result.assert_outcomes(failed=3)
    text = result.stdout.str()
    assert text.count("- H2O cloud at ") == 1
    part = text[text.index("test_lost"):text.index("_ test_well_again _")]
    assert "H2O cloud at" in part and "SIGKILL" in part and "last lines of node 1" in part


def test_start_that_fails(suite):
    """The test's error is the cloud's reason, not a stack of the plugin's."""
    suite.makepyfile("def test_a(h2o_url): pass")
    result = run(suite, "--h2ofleet-set=jvm_custom_args=-Dfake.exit_at_boot_ms=20 -Dfake.exit_code=9")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no H2O cloud:*", "*exited with code 9*"])
    assert "pytest_h2ofleet.py" not in result.stdout.str()


def test_keep(suite):
    """--h2ofleet-keep: after a failure the logs stay, and it says where."""
    suite.makepyfile("def test_a(h2o_url): assert False")
    result = suite.runpytest_subprocess("--h2ofleet-keep", timeout=120 * SLOW)
    kept = next(suite.runs.tmp.glob("h2ofleet-kept.*"))
    assert str(kept) in result.stdout.str() and (kept / "log/run/0.log").exists()
    shutil.rmtree(kept)


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGINT])
def test_pytest_that_is_killed(suite, sig):
    """kill -9 of pytest, or Ctrl-C: nothing is left."""
    suite.makepyfile("""
        import time

        def test_a(h2o_url):
            open("begun", "w").close()
            time.sleep(60)
    """)
    process = subprocess.Popen([sys.executable, "-m", "pytest", "-p", "no:cacheprovider"],
                               stdout=subprocess.DEVNULL, start_new_session=True)
    until("the test", 40, (suite.path / "begun").exists)
    assert len(suite.runs.nodes()) == 2
    if sig == signal.SIGINT:
        os.killpg(process.pid, sig)  # as a terminal does
    else:
        process.kill()
    process.wait(60 * SLOW)
    suite.runs.assert_clean()
