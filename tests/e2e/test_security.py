"""What other users of the machine try, who are neither root nor the daemon's user, and what a node may leave for
the daemon to fall over. doc/security.md names the threats, with the test of each; here are those that have no better
place. Root plays all parts: the daemon, its user, the attacker."""

import contextlib
import fcntl
import http.client
import os
import pathlib
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile

import pytest

from fleet import FAKEJAVA, H2OFLEET, H2OFLEETD, PortBlock, SLOW, listeners, read, until
from test_create import as_peer, ask
from test_gate import as_user

# Nobody has these; others for each process that runs tests, for /tmp is one for all.
VICTIM = 20000 + os.getpid() % 20000
ATTACKER = VICTIM + 20000

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users, which needs root")


class Attacker:
    """Python as another user, which says "there" on a line of its own once it has done its deed, and keeps what it
    has until the end."""

    def __init__(self, code, *args, groups=()):
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, args)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd="/", user=ATTACKER, group=ATTACKER, extra_groups=list(groups), env={"PATH": os.environ["PATH"]})

    def __enter__(self):
        assert self.process.stdout.readline() == "there\n", "the attack itself did not work"
        return self

    def said(self):
        """What it has to say in the end."""
        self.process.stdin.close()
        return self.process.stdout.read()

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        with contextlib.suppress(OSError):
            self.process.stdin.close()


def attack(code, *args, groups=()):
    """Done, and over."""
    with Attacker("import os, sys\n" + code + "\nprint('there', flush=True)", *args, groups=groups) as a:
        return a.said()


@pytest.fixture
def shared():
    """A directory like /tmp; with the programs in it, for users to whom the tree may be closed."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="h2ofleet-security."))
    bin_dir = path / "bin"
    bin_dir.mkdir()
    for program in (H2OFLEET, H2OFLEETD, pathlib.Path(H2OFLEETD).parent / "h2ofleet-gate"):
        shutil.copy(program, bin_dir)
    path.chmod(0o1777)
    yield path
    shutil.rmtree(path)


# fs.protected_*, when all are on.
PROTECTIONS = {"hardlinks": "1", "symlinks": "1", "fifos": "2", "regular": "2"}


def protections():
    return [read(f"/proc/sys/fs/protected_{name}").strip() for name in PROTECTIONS]


@contextlib.contextmanager
def taking():
    """The machine's settings are one test's at a time."""
    with open("/run/lock/h2ofleet-test-protected" if os.path.isdir("/run/lock") else "/tmp/h2ofleet-test-protected",
              "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


@contextlib.contextmanager
def protecting(on):
    """The kernel's protection of sticky directories, on or off: for the moment, put back whatever happens, by a
    process of its own even when this one is killed."""
    files = [f"/proc/sys/fs/protected_{name}" for name in PROTECTIONS]
    with taking() as lock:
        before = protections()
        restore = "cat >/dev/null; " + "; ".join(f"echo {v} >{f}" for f, v in zip(files, before) if v)
        keeper = subprocess.Popen(["sh", "-c", restore], stdin=subprocess.PIPE, start_new_session=True,
                                  pass_fds=[lock.fileno()])
        try:
            for f, v in zip(files, PROTECTIONS.values()):
                pathlib.Path(f).write_text(v if on else "0")
            yield before
        finally:
            keeper.stdin.close()
            keeper.wait()
        assert protections() == before


def may_protect():
    return os.access("/proc/sys/fs/protected_symlinks", os.W_OK) and not \
        os.statvfs("/proc/sys").f_flag & os.ST_RDONLY


def needs_protections():
    if not may_protect():
        pytest.skip("fs.protected_* cannot be set here")


@pytest.fixture(params=[True, False], ids=["protected", "unprotected"])
def protection(request):
    """With the kernel's help against links and pipes in places like /tmp, and without it. Where that is not ours to
    set: as the machine is."""
    if request.param and not may_protect():
        yield
        return
    needs_protections()
    with protecting(request.param):
        yield


def as_victim(*argv, **env):
    return subprocess.run([str(a) for a in argv], user=VICTIM, group=VICTIM, extra_groups=[], cwd="/",
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60 * SLOW,
                          env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **env})


PROTECTED = """
import sys
sys.path.insert(0, sys.argv[1])
from test_security import protecting
with protecting(sys.argv[2] == "True") as before:
    print(*before, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("on", [True, False], ids=["protected", "unprotected"])
def test_protection_is_put_back(shared, on):
    """What tests here rely on: a link of another user is followed, or not, as they ask for; and what the
    machine had is back also when a test is killed with SIGKILL."""
    needs_protections()
    attack("os.symlink(sys.argv[2], sys.argv[1])", shared / "link", shared / "bin")
    test = subprocess.Popen([sys.executable, "-c", PROTECTED, pathlib.Path(__file__).parent, str(on)],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    before = test.stdout.readline().split()
    follows = os.path.isdir(shared / "link")
    test.kill()
    test.communicate()
    with taking():
        assert protections() == before
    assert follows == (not on)


# --- ports ----------------------------------------------------------------------------------------

IMPOSTOR = """
import glob, http.server, json, os, socket, sys, threading
print("there", flush=True)
first, nodes = int(sys.stdin.readline()), int(sys.argv[1])
ports = [first + 2 * i for i in range(nodes)]

asked = []

def members():  # command lines are there for all to read
    found = {}
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            words = open(path).read().split("\\0")
        except OSError:
            continue
        if "-name" in words and "-port" in words and int(words[words.index("-port") + 1]) in ports:
            found[int(words[words.index("-port") + 1])] = (int(path.split("/")[2]), words[words.index("-name") + 1])
    return found

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET(b"")

    def do_GET(self, body=None):
        asked.append(self.path)
        who = members()
        view = {"version": "3.46.0.12", "cloud_name": who[ports[0]][1] if who else "?", "cloud_size": nodes,
                "node_idx": ports.index(self.server.server_port), "bad_nodes": 0, "cloud_uptime_millis": 1000,
                "consensus": True, "locked": False, "cloud_healthy": True, "nodes": [
                    {"ip_port": f"127.0.0.1:{p}", "pid": who.get(p, (0,))[0], "healthy": True, "last_ping": 1,
                     "free_mem": 1, "max_mem": 1, "mem_value_size": 0, "pojo_mem": 0, "num_cpus": 1,
                     "nthreads": 1, "sys_load": 0.0, "num_keys": 0} for p in ports]}
        data = json.dumps(view).encode() if body is None else body
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-h2o-cluster-id", "1")
        self.send_header("X-h2o-cluster-good", "true")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

for port in ports:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
print(len(asked))
"""


def test_impostor_on_the_ports_of_members(fake):
    """While the JVMs boot another user takes their ports (SO_REUSEADDR, as they do), and answers in their
    name, with their pids and the cloud's name, which all can see in /proc. Nobody is sent there: the cloud does not become
    ready, and the daemon says who it was."""
    with Attacker(IMPOSTOR, 2) as attacker:
        fleet = fake(nodes=2, knobs=f"-Dfake.boot_ms={int(3000 * SLOW)} -Dfake.g2.boot_ms=50", restart_delay="0s")
        nodes = until("pids", 10, lambda: len(fleet.pids()) == 2 and fleet.nodes())
        attacker.process.stdin.write(f"{nodes[0]['api_port']}\n")
        attacker.process.stdin.flush()

        def over():
            cloud = fleet.cloud()
            assert cloud["endpoint"] is None or cloud["generation"] > 1, fleet.story(cloud)
            return cloud["generation"] > 1 or cloud["state"] in ("recovering", "backoff", "failed")

        until("the JVMs found their ports taken", 20, over)
        asked = int(attacker.said())
    assert asked, "the daemon never asked who was there"
    assert f"of user {ATTACKER}" in fleet.log_tail(100)
    fleet.ready(generation=2)


def test_listens_only_where_it_must(fake):
    """What a web page could reach are TCP ports. The control socket is none, the daemon itself takes no connection
    that is not the gate's, and all that listens does so on localhost: endpoint and members, no port more."""
    fleet = fake(nodes=2)
    cloud = fleet.ready()
    first = fleet.ports.base
    members = {n["api_port"] + i for n in cloud["nodes"] for i in (0, 1)}
    assert listeners(first, first + fleet.ports.size - 1) == members | {cloud["endpoint_port"]}
    addresses = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in read(table).splitlines()[1:]:
            fields = line.split()
            address, port = fields[1].split(":")
            if fields[3] == "0A" and int(port, 16) in members | {cloud["endpoint_port"]}:
                addresses.add(address)
    assert addresses <= {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
    assert stat.S_ISSOCK(fleet.socket.stat().st_mode)


# --- sockets --------------------------------------------------------------------------------------

SQUAT = """
import os, socket, sys
path, how = sys.argv[1:]
s = socket.socket(socket.AF_UNIX)
where = path if how == "socket" else path + ".mine"
if how == "link":
    os.symlink(where, path)
elif how == "directory":
    os.mkdir(path)
    os.chmod(path, 0o777)
    where = path + "/control.sock"
s.bind(where)
os.chmod(where, 0o777)
s.listen()
s.settimeout(0.2)
print("there", flush=True)
sys.stdin.read()
try:
    print("asked", s.accept()[0].recv(4096))
except socket.timeout:
    print("nobody came")
"""


@pytest.mark.parametrize("how", ["socket", "link"])
def test_client_of_a_squatted_socket(shared, protection, how):
    """Where the daemon's socket is to be, in a place like /tmp, somebody else listens, or has put a link to
    where they do. The client says whose it is, and says nothing to them."""
    path = shared / "control.sock"
    with Attacker(SQUAT, path, how) as attacker:
        for run in (as_victim, lambda *a, **env: subprocess.run(a, capture_output=True, text=True)):
            done = run(shared / "bin/h2ofleet", "--socket", path, "status")
            assert done.returncode == 1 and f"is user {ATTACKER}'s" in done.stderr, done
        assert attacker.said() == "nobody came\n"


RACE_OF_SOCKETS = """
import contextlib, os, random, select, socket, sys
path = sys.argv[1]
s = socket.socket(socket.AF_UNIX)
s.bind(path + ".mine")
os.chmod(path + ".mine", 0o777)
s.listen()
print("there", flush=True)
turns, heard = 0, []
while True:
    ready = select.select([sys.stdin, s], [], [], 0)[0]
    if s in ready:
        heard.append(s.accept()[0].recv(4096))
    elif ready:
        break
    for here, there in ((path + ".mine", path), (path, path + ".mine")):
        with contextlib.suppress(OSError):
            os.rename(here, there)
        turns += 1
        for _ in range(random.randrange(2000)):
            pass
print(turns, heard)
"""


def test_race_for_the_socket_of_nobody(shared, protection):
    """No daemon is there, and somebody else's socket comes and goes under its name, thousands of times a second. The
    client says nothing to them."""
    path = shared / "control.sock"
    with Attacker(RACE_OF_SOCKETS, path) as attacker:
        for _ in range(20):
            done = as_victim(shared / "bin/h2ofleet", "--socket", path, "status")
            assert done.returncode in (1, 4) and str(path) in done.stderr, done
        turns, heard = attacker.said().split(maxsplit=1)
    assert heard == "[]\n" and int(turns) > 100


def test_squatted_runtime_directory(shared, protection):
    """Without XDG_RUNTIME_DIR the socket is below /tmp/h2ofleet-UID. Somebody else has made that: the client does not
    look into it, and the daemon refuses to start there. Nor does root's client follow an XDG_RUNTIME_DIR that su
    or sudo has left of another user."""
    path = pathlib.Path(f"/tmp/h2ofleet-{VICTIM}")
    try:
        with Attacker(SQUAT, path, "directory") as attacker:
            done = as_victim(shared / "bin/h2ofleet", "status")
            assert done.returncode in (1, 4) and "/run/h2ofleet/control.sock" in done.stderr, done
            done = as_victim(shared / "bin/h2ofleetd", XDG_STATE_HOME=str(shared / "victim"))
            assert done.returncode == 1 and f"{path} is user {ATTACKER}'s" in done.stderr, done
            attack("os.makedirs(sys.argv[1] + '/h2ofleet')", shared / "run")
            attack("import socket; socket.socket(socket.AF_UNIX).bind(sys.argv[1])",
                   shared / "run/h2ofleet/control.sock")
            done = subprocess.run([shared / "bin/h2ofleet", "status"], capture_output=True, text=True,
                                  env={"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(shared / "run")})
            assert str(shared) not in done.stderr, done
            assert attacker.said() == "nobody came\n"
    finally:
        shutil.rmtree(path, ignore_errors=True)


def test_own_runtime_directory_is_closed(shared):
    """The one that a person's daemon makes below /tmp is as closed as XDG_RUNTIME_DIR: their group may be everybody's."""
    path = pathlib.Path(f"/tmp/h2ofleet-{VICTIM}")
    config = shared / "h2ofleet.conf"
    config.write_text("[cloud c]\nautostart = no\ngate_mode = off\n")
    (shared / "victim").mkdir()
    os.chown(shared / "victim", VICTIM, VICTIM)
    daemon = subprocess.Popen([shared / "bin/h2ofleetd", "--config", config], user=VICTIM, group=VICTIM,
                              extra_groups=[], cwd="/", stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                              env={"PATH": os.environ["PATH"], "XDG_STATE_HOME": str(shared / "victim")})
    try:
        until("its socket", 20, lambda: (path / "control.sock").exists() or daemon.poll() is not None)
        assert daemon.poll() is None, daemon.stderr.read()
        assert stat.S_IMODE(path.stat().st_mode) == 0o700 and path.stat().st_uid == VICTIM
    finally:
        daemon.terminate()
        daemon.communicate()
        shutil.rmtree(path, ignore_errors=True)


def test_group_of_a_person(shared, fake_jar):
    """A person's group may be everybody's: its members neither command that person's daemon nor use its clouds."""
    path = pathlib.Path(f"/tmp/h2ofleet-{VICTIM}")
    nobody = pwd.getpwnam("nobody")
    ports = PortBlock()
    for program in (FAKEJAVA, fake_jar):
        shutil.copy(program, shared / "bin")
        (shared / "bin" / pathlib.Path(program).name).chmod(0o755)
    config = shared / "h2ofleet.conf"
    config.write_text(f"[cloud c]\nmax_mem_size = 64m\njava = {shared}/bin/{pathlib.Path(FAKEJAVA).name}\n"
                      f"jar_path = {shared}/bin/h2o.jar\nport = {ports.base}\n")
    (shared / "victim").mkdir()
    os.chown(shared / "victim", VICTIM, VICTIM)
    daemon = subprocess.Popen([shared / "bin/h2ofleetd", "--config", config], user=VICTIM, group=nobody.pw_gid,
                              extra_groups=[], cwd="/", stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                              env={"PATH": os.environ["PATH"], "XDG_STATE_HOME": str(shared / "victim"),
                                   "XDG_CACHE_HOME": str(shared / "victim")})
    try:
        until("its socket", 20, lambda: (path / "control.sock").exists() or daemon.poll() is not None)
        done = as_victim(shared / "bin/h2ofleet", "wait", "c", "--for", "ready", "--timeout", f"{int(30 * SLOW)}s")
        assert done.returncode == 0, done
        assert (path / "control.sock").stat().st_gid == nobody.pw_gid
        assert as_user(VICTIM, ports.base) == "answered"
        assert as_user(nobody.pw_uid, ports.base) in ("ConnectionResetError", "RemoteDisconnected")
    finally:
        daemon.terminate()
        daemon.communicate()
        shutil.rmtree(path, ignore_errors=True)
        ports.release()


LOCK = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(fd, fcntl.LOCK_EX)
print("there", flush=True)
sys.stdin.read()
"""


def test_locks_of_others(fake):
    """Whoever can read a directory or file can lock it. The socket's directory is open to all: a lock on that keeps
    no daemon from starting. The locks of the state directory no user can even open, nor the socket's group."""
    fleet = fake(nodes=1, start=False, autostart="no")
    fleet.dir.chmod(0o755)
    with Attacker(LOCK, fleet.dir):
        fleet.start()
    assert "keeps a lock on directory" in read(fleet.daemon_log)
    for path in (fleet.state_dir, fleet.state_dir / "lock"):
        os.chown(path, 0, ATTACKER)
    assert "PermissionError" in attack(
        "try: os.open(sys.argv[1], os.O_RDONLY)\nexcept OSError as e: sys.argv.append(type(e).__name__)\n"
        "print('there', flush=True); print(sys.argv[2:])", fleet.state_dir / "lock", groups=[ATTACKER])


# --- files and directories ------------------------------------------------------------------------


def refused(fleet, *words):
    status, said = fleet.run_daemon()
    assert status in (1, 78), said
    for word in words:
        assert word in said, said


@pytest.mark.parametrize("key", ["state_dir", "log_dir"])
def test_directory_of_another(fleets, fake_keys, shared, protection, key):
    """What decides over the daemon (created clouds, state files) or is written by it lies in a directory that
    another user has made, or that a link of theirs leads to; or root is given the directory of an unprivileged
    user, whose nodes would then be root. It does not start, and nothing is made there."""
    theirs = shared / "theirs"
    attack("os.mkdir(sys.argv[1]); os.chmod(sys.argv[1], 0o777); os.symlink(sys.argv[2], sys.argv[3])",
           theirs, shared / "bin", shared / "link")
    for path in (theirs, theirs / "below", shared / "link", shared / "link/below"):
        refused(fleets({"c": fake_keys(1)}, fleet={key: path}), f"{key}: ", f"is user {ATTACKER}'s")
    users = pathlib.Path(tempfile.mkdtemp(prefix="h2ofleet-security."))
    os.chown(users, VICTIM, VICTIM)
    refused(fleets({"c": fake_keys(1)}, fleet={key: users}), f"{key}: ", f"is user {VICTIM}'s")
    assert os.listdir(users) == os.listdir(theirs) == []
    assert not {"below", "lock"} & set(os.listdir(shared / "bin"))
    users.rmdir()


@pytest.mark.parametrize("what", ["state_dir", "log_dir", "auto_recovery_dir"])
def test_planted_before_it_was_shut(fleets, fake_keys, protection, what):
    """A volume to which everybody may write: before we shut it somebody has put something there, which they own, and
    could fill later. It is said, now and at the next start, and not used."""
    fleet = fleets({"c": fake_keys(1, restart="never")})
    fleet.dir.chmod(0o755)
    where = {"state_dir": fleet.state_dir, "log_dir": fleet.log_dir, "auto_recovery_dir": fleet.dir / "recovery"}[what]
    where.mkdir()
    where.chmod(0o1777)
    attack("os.mkdir(sys.argv[1], 0o755)", where / ("created" if what == "state_dir" else "c"))
    if what == "state_dir":
        for _ in range(2):
            refused(fleet, "state_dir: ", f"{where}/created is user {ATTACKER}'s")
        return
    if what == "auto_recovery_dir":
        fleet.clouds["c"]["auto_recovery_dir"] = where
        fleet.write_config()
    fleet.start()
    for _ in range(2):
        reason = until("a reason", 20, lambda: fleet.cloud()["state"] in ("failed", "backoff")
                       and fleet.cloud()["reason"])
        assert f"{where}/c is user {ATTACKER}'s" in reason, reason
        fleet.stop()
        fleet.start()


def test_planted_while_it_runs(fake):
    """Something of another user's is in the state directory all at once. A reexec is refused, and the daemon goes on;
    the next daemon does not start, nor does who is to end what a dead one has left go by what may be theirs: both say
    what is to be removed, and then it is well."""
    fleet = fake(nodes=1)
    pid = fleet.ready()["nodes"][0]["pid"]
    (fleet.state_dir / "notes").mkdir()
    os.chown(fleet.state_dir / "notes", ATTACKER, ATTACKER)
    assert f"notes is user {ATTACKER}'s" in fleet.cli("reexec", code=1).stderr
    assert fleet.cloud()["nodes"][0]["pid"] == pid
    fleet.kill_daemon()
    refused(fleet, "state_dir: ", f"notes is user {ATTACKER}'s")
    status, said = fleet.run_daemon("--end-left-behind")
    assert status == 1 and f"notes is user {ATTACKER}'s" in said and fleet.members(), said
    (fleet.state_dir / "notes").rmdir()
    assert fleet.run_daemon("--end-left-behind")[0] == 0
    assert not fleet.members()


@pytest.mark.parametrize("key", ["ice_root", "auto_recovery_dir"])
def test_cloud_in_a_directory_of_another(fake, shared, protection, key):
    """Nodes would read what another user put there, or write where a link of theirs leads: the cloud is not
    started, with the reason; the daemon is well."""
    attack("os.mkdir(sys.argv[1]); os.chmod(sys.argv[1], 0o777)", shared / "theirs")
    fleet = fake(nodes=1, restart="never", autostart="no", **{key: shared / "theirs" / "x"})
    fleet.cli("start", "c")
    reason = until("a reason", 20, lambda: fleet.cloud()["state"] in ("failed", "backoff")
                   and fleet.cloud()["reason"])
    assert f"is user {ATTACKER}'s" in reason, reason


def test_ice_of_another(fake, shared):
    """The directory of a cloud below ice_root is another user's, whom nobody else could have let make it."""
    (shared / "users").mkdir(mode=0o755)
    (shared / "users/c").mkdir(mode=0o755)
    os.chown(shared / "users/c", VICTIM, VICTIM)
    fleet = fake(nodes=1, restart="never", autostart="no", ice_root=shared / "users")
    fleet.cli("start", "c")
    reason = until("a reason", 20, lambda: fleet.cloud()["state"] in ("failed", "backoff")
                   and fleet.cloud()["reason"])
    assert "users/c is not a directory of the daemon's user" in reason, reason


def test_state_directory_is_shut(fake):
    """One of ours to which everybody may write, as a volume or tmpfs often is, is shut before it is used; and what
    daemon and nodes put there is closed to others, whatever umask we were started with."""
    fleet = fake(nodes=1, start=False)
    fleet.state_dir.mkdir()
    fleet.state_dir.chmod(0o1777)
    fleet.start().ready()
    assert not fleet.state_dir.stat().st_mode & stat.S_IWOTH
    paths = [*fleet.state_dir.rglob("*"), fleet.log_dir, *fleet.log_dir.rglob("*")]
    assert any(path.name.startswith("ice") for path in paths) and fleet.log_dir / "c/0.log" in paths
    for path in paths:
        assert path.is_symlink() or not path.lstat().st_mode & stat.S_IRWXO, path


def test_hostile_configuration(fleets, fake_keys, shared, protection):
    """A file that everybody may write to, or that somebody else has put where we look, is not obeyed: at the start
    nothing is run, at a reload nothing changes."""
    fleet = fleets({"c": fake_keys(1, autostart="no")})
    fleet.config.chmod(0o666)
    refused(fleet, str(fleet.config), "everybody may write to it")
    fleet.config.chmod(0o644)
    fleet.start()
    fleet.config.chmod(0o646)
    done = fleet.cli("reload", code=1)
    assert "everybody may write to it" in done.stderr
    attack("open(sys.argv[1], 'w').write('[cloud c]\\njava = /bin/false\\n')", shared / "x.conf")
    done = subprocess.run([H2OFLEETD, "--config", shared / "x.conf"], capture_output=True, text=True)
    assert done.returncode == 78 and f"is user {ATTACKER}'s" in done.stderr, done.stderr


def test_traps_in_a_shared_directory(fleets, fake_keys, shared, protection):
    """The socket right in a place like /tmp, where its names can be foreseen: others put links and pipes there first.
    Nothing is written through a link, no pipe is waited for, and the daemon either starts or says what is in the way."""
    precious = shared / "bin/precious"
    precious.write_text("precious")
    for trap in ("os.symlink(sys.argv[2], sys.argv[1])", "os.mkfifo(sys.argv[1])",
                 "open(sys.argv[1], 'w')", "os.symlink('/nonexistent/x', sys.argv[1])"):
        attack(trap, shared / "s", precious)
        refused(fleets({"c": fake_keys(1)}, fleet={"socket": shared / "s"}), f"{shared}/s is user {ATTACKER}'s")
        (shared / "s").unlink()
        attack(trap, shared / "s.new", precious)
        fleet = fleets({"c": fake_keys(1, autostart="no")}, fleet={"socket": shared / "s"})
        fleet.socket = shared / "s"
        fleet.start().stop()
        assert precious.read_text() == "precious"


RACE = """
import contextlib, os, random, select, sys
path, precious = sys.argv[1:]

def soon():
    for _ in range(random.randrange(2000)):
        pass

os.mkdir(path + ".dir")
os.chmod(path + ".dir", 0o777)
os.symlink(precious, path + ".link")
print("there", flush=True)
turns = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    for trap in (path + ".dir", path + ".link"):
        with contextlib.suppress(OSError):
            os.rename(trap, path)
            turns += 1
            soon()
            os.rename(path, trap)
            soon()
            soon()
print(turns, *(os.listdir(path + ".dir") if os.path.exists(path + ".dir") else os.listdir(path)))
"""


@pytest.mark.parametrize("key", ["state_dir", "log_dir", "socket"])
def test_race_for_a_name(fleets, fake_keys, shared, protection, key):
    """In a place like /tmp another user puts a directory of theirs and a link to one of ours under the name that the
    daemon is to use, and takes them away, thousands of times a second: between any two of its looks. It starts in what is
    its own, or says why not; nothing is made in theirs, nor where their link leads."""
    path, precious = shared / "name", shared / "bin/precious"
    precious.mkdir()
    fleet = fleets({"c": fake_keys(1, autostart="no")}, fleet={key: path if key == "socket" else path / "below"})
    fleet.socket = path if key == "socket" else fleet.socket

    def begun():
        with contextlib.suppress(OSError, http.client.HTTPException):
            return fleet.daemon.poll() is not None or fleet.api("GET", "/v1/version")[0] == 200
        return False

    with Attacker(RACE, path, precious) as attacker:
        for turn in range(20):
            before = len(read(fleet.daemon_log))
            fleet.daemon, fleet.exit_status = fleet.spawn(), None
            until("it answers or ends", 20, begun, 0.01)
            if fleet.daemon.poll() is None:
                mine = path.lstat()
                assert mine.st_uid == 0 and (stat.S_ISSOCK if key == "socket" else stat.S_ISDIR)(mine.st_mode)
                assert fleet.stop() == 0
            else:
                assert fleet.daemon.returncode in (1, 78) and str(path) in read(fleet.daemon_log)[before:]
            assert not os.listdir(precious)
            with contextlib.suppress(OSError):
                if path.lstat().st_uid == 0:
                    path.rename(shared / f"bin/{turn}")
        turns, *made = attacker.said().split()
    assert int(turns) > 100 and not made


def test_files_of_a_hostile_node(fake):
    """A node is of our user, so it can do what we can; but what it leaves in the files does not make the daemon
    hang, or follow it elsewhere: links where it cleans up, pipes where it reads and writes."""
    fleet = fake(nodes=2, restart_delay="0s", knobs="-Dfake.boot_ms=20")
    precious = fleet.dir / "precious"
    (precious / "0").mkdir(parents=True)
    (precious / "file").write_text("precious")
    cloud = fleet.ready()
    node, pid = fleet.node_dir(0), cloud["nodes"][0]["pid"]
    shutil.rmtree(node / "tmp")
    (node / "tmp").symlink_to(precious)
    for path in (node / f"ice{cloud['nodes'][0]['api_port']}", node / "link"):
        shutil.rmtree(path, ignore_errors=True)
        path.symlink_to(precious)
    os.mkfifo(fleet.log_dir / "c" / f"hs_err_pid{pid}.log")
    os.mkfifo(fleet.state_dir / "clouds" / "c" / "state.json.new")
    flatfile = fleet.state_dir / "clouds" / "c" / "flatfile-1"
    flatfile.unlink()
    flatfile.symlink_to(precious / "file")
    os.kill(pid, 9)
    # The directory that became a link is in the way of the next life: said, and nothing else of it.
    story = until("its end", 20, lambda: fleet.cloud()["state"] in ("backoff", "failed", "recovering")
                  and (fleet.cloud()["reason"] or ""))
    assert fleet.api("GET", "/v1/healthz")[0] == 200, story
    assert (precious / "file").read_text() == "precious" and (precious / "0").is_dir()
    (node / "tmp").unlink()
    log = fleet.log_dir / "c" / "0.log"
    for trap in (os.mkfifo, lambda path: path.symlink_to(precious / "file")):
        said = read(fleet.daemon_log).count("cannot open its log")
        log.unlink()
        trap(log)
        fleet.cli("restart", "c", code=None)
        until("a word about its log", 20, lambda: read(fleet.daemon_log).count("cannot open its log") > said)
        assert "precious" not in fleet.cli("logs", "c", code=None).stdout
        log.unlink()
        log.touch()
    log.unlink()
    fleet.cli("restart", "c", code=None)
    fleet.ready()
    assert (precious / "file").read_text() == "precious" and (precious / "0").is_dir()


# --- what can be read -----------------------------------------------------------------------------


def test_secrets(fake):
    """What `env` gives to nodes is in their environment, which only their own user can read, and nowhere else: not in
    a command line, an event, an incident, a status, a log, what doctor says, the configuration in force."""
    secret = "hunter2-%d" % os.getpid()
    fleet = fake(nodes=1, env={"H2OFLEET_H2O_AUTH": f"user:{secret}-login"}, **{"env_": None})
    fleet.clouds["c"]["env"] = f"DB_PASSWORD={secret}"
    fleet.clouds["c"].pop("env_")
    fleet.write_config()
    fleet.cli("reload", "--restart")
    cloud = until("with it", 20, lambda: (c := fleet.cloud())["state"] == "ready" and c["generation"] >= 2 and c)
    pid = cloud["nodes"][0]["pid"]
    environ = pathlib.Path(f"/proc/{pid}/environ").read_text()
    assert f"DB_PASSWORD={secret}\0" in environ and f"{secret}-login" not in environ
    os.kill(pid, 9)
    fleet.ready(generation=3)
    said = [fleet.cli(*words, code=None).stdout + fleet.cli(*words, code=None).stderr for words in (
        ("status", "c", "--json"), ("events", "--json"), ("incidents", "last", "--json"), ("config", "--all", "c"),
        ("config", "--json"), ("doctor", "--json"), ("logs", "c"))]
    said.append(read(fleet.daemon_log))
    for pid in [fleet.daemon.pid, fleet.gate(), *fleet.members()]:
        said.append(read(f"/proc/{pid}/cmdline"))
    assert all(said) and not [text for text in said if secret in text]
    pid = fleet.nodes()[0]["pid"]
    assert "PermissionError" in attack(
        "try: open(f'/proc/{sys.argv[1]}/environ').read()\nexcept OSError as e: sys.argv.append(type(e).__name__)\n"
        "print('there', flush=True); print(sys.argv[2:])", pid)


def test_options_cannot_be_smuggled(fake):
    """Values that the group may set, made to look like options of the JVM or of H2O, like more than one word, like
    paths: they are refused, or are one argument, behind the option that they belong to."""
    fleet = fake(nodes=1, autostart="no")
    status, listed, _ = ask(fleet, "GET", "/v1/clouds/c/config")
    assert status == 200
    tried = 0
    for key in sorted(listed["keys"]):
        for evil in ("-Dx=y", "-XX:OnError=id", "x -client", "x\n-client", "../../x", "$(id)", "-client", "@/etc/passwd"):
            status, body, _ = ask(fleet, "POST", "/v1/clouds", {"name": "evil", "keys": {
                "autostart": False, key: evil}})
            tried += 1
            if status != 201:
                assert status in (400, 403, 409, 422), body
                continue
            assert key in ("java", "jar_path", "jvm_custom_args", "h2o_args", "env", "main_class", "extra_classpath",
                           "context_path", "ice_root", "auto_recovery_dir", "name"), (key, evil)
            fleet.cli("delete", "evil", "--wait", code=None)
            until("gone", 10, lambda: fleet.api("GET", "/v1/clouds/evil")[0] == 404)
    assert tried > 300
    for name in ("../x", "..", ".", "a/b", "-x", "a b", "", "x" * 300, "a\n"):
        assert ask(fleet, "POST", "/v1/clouds", {"name": name, "keys": {}})[0] in (400, 409, 422), name


def test_group_cannot_write_to_the_daemons_log(fake):
    """log_to = inherit is raw: with it, lines of nodes would pass for the daemon's own. So the group may not set it."""
    fleet = fake(nodes=1, autostart="no")
    for value in ("inherit", "journal"):
        status, body, _ = as_peer(fleet, "POST", "/v1/clouds", {"name": "d", "keys": {"log_to": value}})
        assert status == 403 and body["detail"].startswith("log_to: only root"), body
