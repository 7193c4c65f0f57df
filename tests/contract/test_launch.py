"""How a node begins, and what it says when it cannot: src/model/plan.c, src/model/cause.c."""

import http.client
import re
import signal
import socket

import pytest

from fleet import listeners, until
from nodes import LOCALHOST, hold, listens_on

pytestmark = pytest.mark.relies("src/model/plan.c: plan_argv")


def refusal(rig, *, jvm=(), h2o=(), jar=None, **env):
    """(exit code, output) of a JVM that ends before it is a node."""
    kind = rig.kind
    return kind.run("-Xmx256m", *kind.jvm, *kind.allow(), *jvm, "-jar", jar or kind.jar, "-ip", LOCALHOST,
                    "-web_ip", LOCALHOST, "-ice_root", str(kind.dir / "refused"), *h2o, **env)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.relies("src/model/cause.c: {1, \"ERROR: \"", "src/model/cause.c: CAUSE_ARGUMENTS")
def test_unknown_argument(rig):
    """H2O refuses an argument that it does not know with a line that begins with "ERROR: ", and exit code 1."""
    code, said = refusal(rig, h2o=["-frobnicate"])
    assert code == 1 and re.search("^ERROR: .*frobnicate", said, re.M), said[:2000]


@pytest.mark.relies("src/model/cause.c: {255, \"required ports\"")
@pytest.mark.parametrize("which", [0, 1], ids=["api", "internal"])
def test_taken_port(rig, which):
    """With -port and one of the two ports taken H2O says "required ports" and exits with 255."""
    with socket.socket() as s:
        port = rig.port()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((LOCALHOST, port + which))
        s.listen()
        code, said = refusal(rig, h2o=["-port", str(port)])
    assert code == 255 and "required ports" in said, (code, said[-2000:])


@pytest.mark.relies("src/model/cause.c: {3, \"Only Java \"", "src/model/plan.c: debug.allowJavaVersions")
def test_unsupported_java(rig):
    """A Java that H2O does not support makes it exit with 3 and "Only Java ..." (before it looks at its
    arguments); -Dsys.ai.h2o.debug.allowJavaVersions=N lets it go on."""
    kind, unsupported = rig.kind, {}
    java, major = kind.java, 25
    if kind.is_fake:
        unsupported = {"FAKE_JAVA_VERSION": "25.0.3"}
    else:
        java, major = kind.refused_java() or pytest.skip("no Java is here that this H2O refuses")
    code, said = kind.run("-jar", kind.jar, "-frobnicate", java=java, **unsupported)
    allowed = kind.run(f"-Dsys.ai.h2o.debug.allowJavaVersions={major}", "-jar", kind.jar, "-frobnicate", java=java,
                       **unsupported)[0]
    assert (code, allowed) == (3, 1) and "Only Java " in said, (code, allowed, said[:2000])


@pytest.mark.relies("src/model/cause.c: Texts as printed by H2O")
@pytest.mark.parametrize("args,text", [
    (["-XX:+Frobnicate"], "Could not create the Java Virtual Machine"),
    (["-Xmxfrob"], "Could not create the Java Virtual Machine"),
    (["-jar", "/nonexistent.jar"], "Unable to access jarfile"),
    (["-jar", __file__], "Invalid or corrupt jarfile"),
    (["org.example.Frobnicate"], "Could not find or load main class"),
], ids=lambda v: v if isinstance(v, str) else None)
def test_what_the_jvm_refuses(kind, args, text):
    """The JVM's own refusals have these words and exit code 1."""
    code, said = kind.run(*args)
    assert code == 1 and text in said, (code, said)


@pytest.mark.relies("src/model/cause.c: Terminating due to java.lang.OutOfMemoryError")
def test_out_of_memory(rig):
    """With -XX:+ExitOnOutOfMemoryError a JVM without heap says so and exits with 3, as for an unsupported Java."""
    small = ["-Dfake.oom=1"] if rig.kind.is_fake else ["-Xmx12m"]
    code, said = refusal(rig, jvm=[*small, "-XX:+ExitOnOutOfMemoryError"], h2o=["-port", str(rig.port())])
    assert code == 3 and "Terminating due to java.lang.OutOfMemoryError" in said, (code, said[-2000:])


@pytest.mark.relies("src/drv/runtime.c: static const char mark[] = \" version \\\"\"",
                    "src/drv/bootnative.c: java.library.path = ")
def test_version_output(kind):
    """-version prints ` version "N...."`, and -XshowSettings:properties the library path."""
    code, said = kind.run("-XshowSettings:properties", "-version")
    assert code == 0 and re.search(r' version "[0-9._]+', said) and "\n    java.library.path = " in said, said


@pytest.mark.relies("src/drv/jar.c: water/init/BuildVersion.class", "src/drv/bootnative.c: lib/linux_64/")
def test_jar(kind):
    """The jar has its version in water/init/BuildVersion, and the libraries of XGBoost in lib/linux_64/."""
    assert re.fullmatch(r"3\.\d+\.\d+\.\d+", kind.version)
    assert {p.name for p in kind.libraries.iterdir()} >= {"libxgboost4j_gpu.so", "libxgboost4j_minimal.so"}


# --- a boot ---------------------------------------------------------------------------------------

NO_ANSWER = {"ConnectionRefusedError", "ConnectionResetError", "RemoteDisconnected", "TimeoutError"}


def outcome(node):
    """Of one poll: the status, or what kept us from one."""
    try:
        return node.ask("/3/Cloud?skip_ticks=true", timeout=0.5).status
    except (OSError, http.client.HTTPException) as e:
        return type(e).__name__


@pytest.mark.relies("src/core/polls.c: rsp->status == 200 ? ANSWER_OK", "src/core/flatfile.c: listens(const struct supervised",
                    
                    "src/drv/bootnative.c: NativeLibrary", "src/drv/ports.h: the JVM (which sets SO_REUSEADDR) can bind and listen all the same")
def test_boot(rig):
    """Both ports, though held by us, are bound. A node listens to its peers (API port + 1) before it reads its
    flatfile, a named pipe, and while it waits for that nothing is answered. What is answered from then on is
    good: requests are held until the node is ready, never turned down. Ports are those of `-web_ip`."""
    port = rig.port()
    held = [hold(port), hold(port + 1)]
    try:
        node = rig.start(port)
        until(lambda: f"a listener\n{node.story()}", 60, node.listens_to_peers)
        assert outcome(node) in NO_ANSWER
        node.join([node])
        seen = []
        until(lambda: f"an answer, after {seen}\n{node.story()}", 90, lambda: seen.append(outcome(node)) or seen[-1] == 200)
        assert set(seen) - NO_ANSWER == {200}, seen
        assert not node.native_files(), "the libraries are on its path"
        assert listens_on(LOCALHOST, port) and listens_on(LOCALHOST, port + 1)
        assert listeners(port, port + 1) == {port, port + 1}
    finally:
        for s in held:
            s.close()
    rig.keep(node)


@pytest.mark.relies("src/model/cause.c: water.default: ")
def test_console(rig):
    """A node first forms a cloud of one; its lines have the form that we cut."""
    node = rig.any()
    until(lambda: f"the banner\n{node.story()}", 20, lambda: "Open H2O Flow in your web browser" in node.said())
    assert "Cloud of size 1 formed [" in node.said()
    assert re.search(rf"^\d\d-\d\d \d\d:\d\d:\d\d\.\d+ +{LOCALHOST}:{node.port} +\d+ +.{{1,12}} +INFO +water\.default: ",
                     node.said(), re.M), node.said()[:3000]


@pytest.mark.relies("src/model/plan.c: -log_dir")
def test_log_dir(rig):
    """H2O's own log files are h2o_IP_PORT-... in -log_dir."""
    node = rig.any()
    until("a log file", 10, lambda: list(node.logs.glob(f"h2o_{LOCALHOST}_{node.port}-*.log")))


# --- ends -----------------------------------------------------------------------------------------


@pytest.mark.relies("src/core/incident.c: SIGQUIT")
def test_thread_dump(rig):
    """SIGQUIT makes a node print its threads, and it goes on."""
    node = rig.any()
    node.kill(signal.SIGQUIT)
    until("a thread dump", 20, lambda: re.search(r"^Full thread dump .*:", node.said(), re.M))
    assert node.cloud()
