"""Clouds made at run time: whole or not at all, whoever asks and whatever happens to the daemon."""

import contextlib
import json
import os
import signal
import threading

import pytest

from fleet import UnixHTTP, halt, pid_alive, read, until


def ask(fleet, method, path, body=None, timeout=60, **headers):
    """(status, decoded body, headers)"""
    connection = UnixHTTP(fleet.socket, timeout)
    with contextlib.closing(connection):
        if body is not None:
            headers.setdefault("Content_Type", "application/json")
            body = body if isinstance(body, str) else json.dumps(body)
        connection.request(method, path, body=body,
                           headers={k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read()), answer.headers


def create(fleet, name, keys=None, status=201, **more):
    got, body, _ = ask(fleet, "POST", "/v1/clouds", {"name": name, "keys": keys or {}, **more})
    assert got == status, body
    return body


def keys_for(fleet, **more):
    """Of a cloud of fakes, for a body."""
    keys = {**fleet.clouds["c"], **more}
    return {k: v if isinstance(v, (list, bool)) else str(v) for k, v in keys.items()}


def words_for(fleet, **more):
    """The same for a command line."""
    return [f"{k}={v}" for k, v in keys_for(fleet, **more).items()]


def created_files(fleet):
    return sorted(p.name for p in (fleet.state_dir / "created").glob("*"))


def problem(body):
    return body["type"].rpartition(":")[2]


def types(fleet, cloud):
    events = [json.loads(line) for line in fleet.cli("events", "--json").stdout.splitlines()]
    return [e for e in events if e["cloud"] == cloud and e["type"].startswith("cloud-") and
            e["type"] != "cloud-state"]


# --- life -----------------------------------------------------------------------------------------


def test_life(fake):
    """create, set, delete by the client: the cloud runs with its keys, another life has the changed
    ones, and nothing is left; events say who did it."""
    fleet = fake(nodes=1)
    fleet.ready()
    keys = words_for(fleet)
    keys = [k for k in keys if not k.startswith(("nodes=", "max_mem_size="))]
    out = fleet.cli("create", "d", "-n", "2", "-m", "64m", *keys, "--wait", "--timeout", "30s").stdout
    assert "d is ready at http://" in out
    cloud = fleet.cloud("d")
    assert cloud["origin"] == "created" and cloud["size"] == 2
    assert fleet.cloud("c")["origin"] == "config"
    assert created_files(fleet) == ["d.conf"]
    out = fleet.cli("set", "d", "max_mem_size=80m", "hang_timeout=2m").stdout
    assert "next start: max_mem_size" in out and "hang_timeout" not in out
    assert "hang_timeout = 2m" in fleet.cli("config", "d").stdout
    fleet.cli("restart", "d", "--wait")
    pid = fleet.cloud("d")["nodes"][0]["pid"]
    assert "-Xmx80m" in read(f"/proc/{pid}/cmdline").split("\0")
    fleet.cli("set", "d", "hang_timeout=")
    assert "hang_timeout" not in fleet.cli("config", "d").stdout
    assert "is deleted" in fleet.cli("delete", "d", "--wait").stdout
    assert not pid_alive(pid) and created_files(fleet) == []
    assert not (fleet.state_dir / "clouds/d").exists() and not (fleet.log_dir / "d").exists()
    assert "no cloud 'd'" in fleet.cli("status", "d", code=4).stderr
    seen = types(fleet, "d")
    assert [e["type"] for e in seen] == [
        "cloud-created", "cloud-changed", "cloud-changed", "cloud-deleted", "cloud-gone"]
    assert {e["uid"] for e in seen[:4]} == {os.geteuid()}
    assert fleet.cloud("c")["state"] == "ready" and fleet.cloud("c")["generation"] == 1


@pytest.mark.parametrize("how", ["kill", "stop", "reexec", "detach"])
def test_outlives_the_daemon(fake, how):
    """The next daemon has the created clouds: one that ran is adopted (or, after an orderly end,
    started), one that was made without a start rests after a crash; the checks of the options know
    them, too."""
    fleet = fake(nodes=1)
    fleet.ready()
    create(fleet, "d", keys_for(fleet), start=True)
    create(fleet, "e", keys_for(fleet, nodes="2", autostart=False))
    create(fleet, "f", keys_for(fleet))
    pid = fleet.ready("d")["nodes"][0]["pid"]
    fleet.clouds_seen = ["c", "d", "e"]
    if how == "kill":
        fleet.kill_daemon()
    elif how == "reexec":
        fleet.cli("reexec")
    else:
        fleet.stop(signal.SIGUSR2 if how == "detach" else signal.SIGTERM)
    if how != "reexec":
        code, text = fleet.run_daemon("--check-config")
        assert code == 0 and "4 clouds" in text, text
        code, text = fleet.run_daemon("--print-config")
        assert code == 0 and "; made at run time\n[cloud d]" in text
        assert fleet.run_daemon("--check-state")[0] == 0
        fleet.start()
    cloud = fleet.ready("d")
    assert (cloud["nodes"][0]["pid"] == pid) == (how != "stop") and cloud["origin"] == "created"
    assert fleet.cloud("e")["state"] == "stopped" and fleet.cloud("e")["size"] == 2
    if how == "stop":
        fleet.ready("f")
    else:
        assert fleet.cloud("f")["state"] == "stopped", "nobody has started it"


def test_reload_keeps_them(fake):
    """A reload leaves created clouds alone; a name that the configuration takes is the configured
    cloud's from then on, without a stop, and the file is kept."""
    fleet = fake(nodes=1)
    create(fleet, "d", keys_for(fleet), start=True)
    pid = fleet.ready("d")["nodes"][0]["pid"]
    fleet.cli("reload")
    assert fleet.cloud("d")["nodes"][0]["pid"] == pid
    fleet.clouds["d"] = {**fleet.clouds["c"], "stop_timeout": "5s"}
    fleet.write_config()
    fleet.cli("reload")
    cloud = fleet.cloud("d")
    assert cloud["origin"] == "config" and cloud["nodes"][0]["pid"] == pid
    assert created_files(fleet) == ["d.conf.aside"]
    assert "made at run time, is set aside: line 2: cloud d is in the configuration now" \
        in read(fleet.daemon_log)
    status, body, _ = ask(fleet, "DELETE", "/v1/clouds/d")
    assert status == 409 and problem(body) == "cloud-configured"
    assert str(fleet.config) in body["detail"] and "remove it there" in body["detail"]


def test_reload_that_clashes(fake):
    """A configuration whose ports are a created cloud's is refused by a reload and by a
    reexec, which stop nothing; a daemon that starts with it goes by the configuration."""
    fleet = fake(nodes=1)
    port = fleet.ports.base + 40
    create(fleet, "d", keys_for(fleet, port=port), start=True)
    fleet.ready("d")
    fleet.clouds["e"] = {**fleet.clouds["c"], "port": port + 1}
    fleet.write_config()
    assert "overlap" in fleet.cli("reload", code=1).stderr
    assert "overlap" in fleet.cli("reexec", code=1).stderr  # it would have to set aside what runs
    assert fleet.cloud("d")["state"] == "ready"
    fleet.stop()
    fleet.start()
    assert created_files(fleet) == ["d.conf.aside"]
    assert "no cloud 'd'" in fleet.cli("status", "d", code=4).stderr
    fleet.ready("e")


@pytest.mark.parametrize("text", [
    "", "garbage\n", "[cloud d]\nnodse = 1\n", "[cloud other]\nnodes = 1\n", "[fleet]\nbaseport = 1\n",
    "[cloud d]\n[cloud x]\n", "[cloud d]\nnodes = 1\nnodes = 2\n", "[cloud d]\nenv = 'open\n", "\0\xff",
])
def test_broken_file(fake, text):
    """A file that cannot be read as what it should be hinders neither the daemon nor other clouds;
    it is kept, and the log says why it does not count."""
    fleet = fake(nodes=1, start=False)
    there = fleet.state_dir / "created"
    there.mkdir(parents=True)
    (there / "d.conf").write_text(text)
    (there / "good.conf").write_text("[cloud good]\nautostart = no\n")
    (there / "half.conf.new").write_text("[cloud ha")
    code, said = fleet.run_daemon("--check-config")
    assert code == 0 and "would set this cloud aside" in said, said
    assert created_files(fleet) == ["d.conf", "good.conf", "half.conf.new"], "that only looks"
    fleet.start()
    fleet.ready()
    assert [c["name"] for c in fleet.api("GET", "/v1/clouds")[1]["clouds"]] == ["c", "good"]
    assert created_files(fleet) == ["d.conf.aside", "good.conf"]
    assert (there / "d.conf.aside").read_text() == text
    assert "cloud d, made at run time, is set aside: " in read(fleet.daemon_log)
    fleet.cli("reload")
    create(fleet, "d", {"autostart": False})


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("body,status,kind,says", [
    ({"keys": {}}, 400, "bad-body", "'name' is missing"),
    ({"name": 3}, 400, "bad-body", "'name' of the body must be a text"),
    ({"name": "d", "kyes": {}}, 400, "bad-body", "unknown member 'kyes'; did you mean 'keys'?"),
    ({"name": "d", "keys": []}, 400, "bad-body", "'keys' of the body must be an object"),
    ({"name": "d", "start": 1}, 400, "bad-body", "'start' of the body must be true or false"),
    ({"name": "../x"}, 422, "bad-name", "'../x' cannot be a cloud's name"),
    ({"name": ""}, 422, "bad-name", None),
    ({"name": "c"}, 409, "cloud-exists", "there is a cloud 'c' already, in the configuration"),
    ({"name": "d", "keys": {"nodse": 2}}, 422, "bad-configuration",
     "unknown key 'nodse'; did you mean 'nodes'?"),
    ({"name": "d", "keys": {"nodes": 0}}, 422, "bad-configuration", "nodes: "),
    ({"name": "d", "keys": {"nodes": 1.5}}, 422, "bad-configuration", "nodes: a text, a whole"),
    ({"name": "d", "keys": {"nodes": [1]}}, 422, "bad-configuration", "nodes: a text, a whole"),
    ({"name": "d", "keys": {"nodes": ""}}, 422, "bad-configuration", "nodes: a value is missing"),
    ({"name": "d", "keys": {"h2o_args": ["-port", "1"]}}, 422, "bad-configuration", "h2o_args: "),
    ({"name": "d", "keys": {"context_path": "a\njava = /x"}}, 422, "bad-configuration",
     "context_path: a value is one line"),
    ({"name": "d", "keys": {"max_mem_size": "900t"}}, 422, "bad-configuration", "max_mem_size: "),
    ({"name": "d", "keys": {"max_mem_size": "50t"}}, 422, "bad-configuration", "max_mem_size"),
    ({"name": "d", "keys": {"late_after": "2m"}}, 422, "bad-configuration", "late_after"),
    ({"name": "d", "keys": {"start_on": "connect", "gate_mode": "off"}}, 422, "bad-configuration",
     "start_on"),
])
def test_refused(shared_fake, body, status, kind, says):
    """What is wrong is told, with its key, and nothing has happened."""
    got, answer, _ = ask(shared_fake, "POST", "/v1/clouds", body)
    assert (got, problem(answer)) == (status, kind), answer
    assert says is None or says in answer["detail"]
    assert [c["name"] for c in shared_fake.api("GET", "/v1/clouds")[1]["clouds"]] == ["c"]
    assert created_files(shared_fake) == []


@pytest.fixture
def shared_fake(fake):
    return fake(nodes=1, autostart="no")


def test_all_errors(shared_fake):
    """All that is wrong, not only the first of it; by the client a line each."""
    fleet = shared_fake
    status, body, _ = ask(fleet, "POST", "/v1/clouds", {
        "name": "d", "keys": {"nodes": "x", "port": "y", "zzz": 1}})
    assert status == 422 and len(body["errors"]) == 3
    assert "for 3 reasons" in body["detail"]
    err = fleet.cli("create", "d", "nodes=x", "port=y", "max_mem=1g", code=1).stderr
    assert len(err.splitlines()) == 3 and "did you mean 'max_mem_size'?" in err
    assert fleet.cli("create", "d", "nodes", code=2).stderr.startswith("h2ofleet: 'nodes' is no KEY=")


def test_ports_of_another(shared_fake):
    """Two that insist on the same ports cannot both be; once the first is deleted the other can."""
    fleet = shared_fake
    port = fleet.ports.base + 40
    create(fleet, "d", keys_for(fleet, port=port))
    body = create(fleet, "e", keys_for(fleet, port=port + 1), status=422)
    assert "overlap" in body["detail"] and "cloud d" in body["detail"]
    fleet.cli("delete", "d", "--wait")
    create(fleet, "e", keys_for(fleet, port=port + 1))


def test_values(shared_fake):
    """Numbers, booleans, lists and null arrive as what a file would have; the file is read the same
    by the next daemon."""
    fleet = shared_fake
    env = ["A=b c", "B='\"\\", "C=;#", "D=" + "x" * 300, "E=ü"]
    create(fleet, "d", {"nodes": 2, "autostart": False, "env": env, "extra_classpath": ["/a", "/b"],
                        "stop_timeout": "3s", "port": None})
    before = ask(fleet, "GET", "/v1/clouds/d/config")[1]
    assert before["keys"]["nodes"] == "2" and before["keys"]["autostart"] == "no"
    assert before["keys"]["extra_classpath"] == "/a:/b" and before["keys"]["port"] is None
    assert before["given"] == ["nodes", "autostart", "extra_classpath", "env", "stop_timeout"]
    fleet.stop()
    fleet.start()
    assert ask(fleet, "GET", "/v1/clouds/d/config")[1] == before
    got = ask(fleet, "PATCH", "/v1/clouds/d/config", {"keys": {"env": env}}, If_Match=before["etag"])
    assert got[0] == 200 and got[1] == before, "the same again is the same"


# --- two at once ----------------------------------------------------------------------------------


def test_etag(shared_fake):
    """Who changes keys must have seen them as they are: 428 without, 412 with an old tag, and the
    other change is not lost."""
    fleet = shared_fake
    create(fleet, "d", {"autostart": False})
    path = "/v1/clouds/d/config"
    status, body, headers = ask(fleet, "GET", path)
    tag = headers["ETag"]
    assert status == 200 and tag == body["etag"]
    change = {"keys": {"nodes": 2}}
    assert ask(fleet, "PATCH", path, change)[0] == 428
    assert ask(fleet, "PATCH", path, change, If_Match='"0"')[0] == 412
    assert ask(fleet, "PATCH", path, change, If_Match="W/" + tag)[0] == 412
    status, body, headers = ask(fleet, "PATCH", path, change, If_Match=f'"x", {tag}')
    assert status == 200 and headers["ETag"] != tag and body["keys"]["nodes"] == "2"
    status, body, _ = ask(fleet, "PATCH", path, {"keys": {"nodes": 5}}, If_Match=tag)
    assert status == 412 and problem(body) == "precondition-failed"
    assert ask(fleet, "DELETE", "/v1/clouds/d", If_Match=tag)[0] == 412
    assert fleet.cloud("d")["size"] == 2
    status, body, _ = ask(fleet, "PATCH", path, {"keys": {"nodes": "x"}}, If_Match="*")
    assert status == 422 and fleet.cloud("d")["size"] == 2
    assert ask(fleet, "PATCH", "/v1/clouds/c/config", change, If_Match="*")[0] == 409
    assert ask(fleet, "DELETE", "/v1/clouds/d", If_Match=headers["ETag"])[0] == 202


def at_once(n, what):
    """what(i) in n threads that begin together; the results."""
    results = [None] * n
    gate = threading.Barrier(n)

    def run(i):
        gate.wait()
        results[i] = what(i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return results


def test_two_creates(shared_fake):
    """Of several who make the same cloud one does; several who set different keys all do."""
    fleet = shared_fake
    got = at_once(8, lambda i: ask(fleet, "POST", "/v1/clouds", {
        "name": "d", "keys": {"autostart": False}})[0])
    assert sorted(got) == [201] + [409] * 7
    keys = ["late_after=4s", "hang_timeout=70s", "stop_timeout=11s", "ready_timeout=130s"]
    got = at_once(4, lambda i: fleet.cli("set", "d", keys[i], code=None).returncode)
    assert got == [0] * 4
    config = fleet.cli("config", "d").stdout
    assert all(k.replace("=", " = ") in config for k in keys)


def test_delete_while_starting(fake):
    """A cloud that is deleted while it starts is gone, and its name free only then."""
    fleet = fake(nodes=1, autostart="no")
    keys = keys_for(fleet, jvm_custom_args="-Dfake.boot_ms=3600000 -Dfake.ignore_term=1",
                    stop_timeout="1s", nodes=2)
    create(fleet, "d", keys, start=True)
    until("members", 10, lambda: all(n["pid"] for n in fleet.cloud("d")["nodes"]))
    pids = [n["pid"] for n in fleet.cloud("d")["nodes"]]
    for pid in pids:  # SIGTERM waits then, however young they are
        halt(pid)
    status, body, _ = ask(fleet, "DELETE", "/v1/clouds/d")
    assert status == 202 and body["removed"] is True and created_files(fleet) == []
    assert ask(fleet, "DELETE", "/v1/clouds/d")[0] == 202, "idempotent"
    body = create(fleet, "d", {}, status=409)
    assert problem(body) == "cloud-removed" and body["cloud"]["name"] == "d"
    assert ask(fleet, "GET", "/v1/clouds/d/config")[0] == 200
    assert ask(fleet, "PATCH", "/v1/clouds/d/config", {"keys": {}}, If_Match="*")[0] == 410
    status, body, _ = ask(fleet, "DELETE", "/v1/clouds/d?wait=deleted&timeout=30s")
    assert (status, body) == (200, {"name": "d", "deleted": True})
    assert ask(fleet, "DELETE", "/v1/clouds/d")[0] == 404
    create(fleet, "d", keys_for(fleet), start=True)
    assert fleet.ready("d")["generation"] == 1


def test_deleted_and_killed(fake):
    """A daemon that is killed after it has answered a delete: the next one ends what is left."""
    fleet = fake(nodes=1, autostart="no")
    create(fleet, "d", keys_for(fleet, stop_timeout="60s",
                                jvm_custom_args="-Dfake.ignore_term=1"), start=True)
    pid = fleet.ready("d")["nodes"][0]["pid"]
    assert ask(fleet, "DELETE", "/v1/clouds/d")[0] == 202
    fleet.kill_daemon()
    fleet.start()
    assert ask(fleet, "GET", "/v1/clouds/d")[0] == 404
    until("its member's end", 20, lambda: not pid_alive(pid))


def test_while_ending(fake):
    """A daemon that ends makes nothing any more: 503, and no file."""
    fleet = fake(nodes=1, knobs="-Dfake.ignore_term=1")
    fleet.ready()
    fleet.send(signal.SIGTERM)
    until("stopping", 5, lambda: fleet.cloud()["state"] == "stopping")
    body = create(fleet, "d", {}, status=503)
    assert problem(body) == "shutting-down"
    fleet.wait_exit()
    assert created_files(fleet) == []


def test_no_room(shared_fake):
    """What cannot be written is not made, and the answer says so."""
    fleet = shared_fake
    (fleet.state_dir / "created").rmdir() if created_files(fleet) else None
    (fleet.state_dir / "created").write_text("in the way")
    body = create(fleet, "d", {}, status=507)
    assert problem(body) == "not-saved" and "created" in body["detail"]
    assert ask(fleet, "GET", "/v1/clouds/d")[0] == 404
    (fleet.state_dir / "created").unlink()
    create(fleet, "d", {"autostart": False})


# --- who may --------------------------------------------------------------------------------------

UID, GID = 64321, 64322


def as_peer(fleet, method, path, body=None, **headers):
    """The same request by a user who is only in the socket's group."""
    os.chmod(fleet.dir, 0o755)
    os.chown(fleet.socket, -1, GID)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        result = ["failed"]
        with contextlib.suppress(BaseException):
            os.setgroups([GID])
            os.setgid(UID)
            os.setuid(UID)
            status, answer, head = ask(fleet, method, path, body, **headers)
            result = [status, answer, head.get("ETag")]
        os.write(writer, json.dumps(result).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as f:
        result = json.loads(f.read())
    os.waitpid(pid, 0)
    return result


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")


@needs_root
def test_group_privileges(shared_fake):
    """Who is in the group makes clouds, but sets no key that means running code, touching files,
    opening the cloud to others or filling the disk; what root made with these they cannot change,
    delete, or read."""
    fleet = shared_fake
    for key, value in [("java", "/x"), ("env", ["A=b"]), ("ice_root", "/x"), ("gate_allow", "anyone"),
                       ("bind_to_localhost", False), ("log_max_total", "2g"), ("port", 80),
                       ("auto_recovery_dir", "/x"), ("max_log_file_size", "9MB")]:
        status, body, _ = as_peer(fleet, "POST", "/v1/clouds", {"name": "d", "keys": {key: value}})
        assert status == 403 and problem(body) == "forbidden", body
        assert body["detail"].startswith(f"{key}: only root and the daemon's user"), body
    status, body, _ = as_peer(fleet, "POST", "/v1/clouds", {"name": "d", "keys": {
        "nodes": 2, "max_mem_size": "64m", "bind_to_localhost": True, "auto_recovery_dir": "off",
        "autostart": False}})
    assert status == 201, body
    assert types(fleet, "d")[0]["uid"] == UID
    path = "/v1/clouds/d/config"
    tag = as_peer(fleet, "GET", path)[2]
    status, body, tag = as_peer(fleet, "PATCH", path, {"keys": {"nodes": 3}}, If_Match=tag)
    assert status == 200
    assert as_peer(fleet, "PATCH", path, {"keys": {"jar_path": "/x"}}, If_Match=tag)[0] == 403
    # root gives it a key of root's; from then on it is root's.
    status, body, headers = ask(fleet, "PATCH", path, {"keys": {"env": ["P=secret"]}}, If_Match="*")
    assert status == 200 and body["keys"]["env"] == "P=secret"
    status, body, tag = as_peer(fleet, "GET", path)
    assert status == 200 and body["keys"]["env"] is None and "env" in body["given"]
    status, body, _ = as_peer(fleet, "GET", "/v1/config")
    for key in next(c for c in body["clouds"] if c["name"] == "d")["keys"]:
        if key["key"] in ("env", "java", "jar_path", "jvm_custom_args", "h2o_args"):
            assert key["value"] is None and key["hidden"], key
    for change in ({"env": None}, {"nodes": 1}):
        status, body, _ = as_peer(fleet, "PATCH", path, {"keys": change}, If_Match=tag)
        assert status == 403 and "(env)" in body["detail"]
    assert as_peer(fleet, "DELETE", "/v1/clouds/d")[0] == 403
    assert fleet.cloud("d")["size"] == 3
    ask(fleet, "PATCH", path, {"keys": {"env": None}}, If_Match="*")
    assert as_peer(fleet, "DELETE", "/v1/clouds/d")[0] == 202


@needs_root
def test_group_limits(fake):
    """They can make so many clouds, with so many nodes and so much memory, and no more; root can."""
    fleet = fake(nodes=1, autostart="no", fleet={"created_max": 2, "created_max_nodes": 5})

    def make(name, **keys):
        status, body, _ = as_peer(fleet, "POST", "/v1/clouds", {
            "name": name, "keys": {"max_mem_size": "64m", "autostart": False, **keys}})
        return body["detail"] if status == 403 else status

    assert "5 nodes" not in str(make("a", nodes=2))
    assert "would have 6 nodes together, and may have 5" in make("b", nodes=4)
    assert make("b", nodes=3) == 201
    assert "there may be 2 clouds made at run time" in make("d", nodes=1)
    create(fleet, "d", {"nodes": 9, "max_mem_size": "64m", "autostart": False})
    for name in "abd":
        fleet.cli("delete", name, "--wait")
    assert make("a", max_mem_size="60%") == 201
    assert "the heaps of clouds made at run time would come to" in make("b", max_mem_size="60%")
    tag = as_peer(fleet, "GET", "/v1/clouds/a/config")[2]
    status, body, _ = as_peer(fleet, "PATCH", "/v1/clouds/a/config", {"keys": {"nodes": 6}},
                              If_Match=tag)
    assert status == 403 and problem(body) == "limit-reached"


# --- without a daemon -----------------------------------------------------------------------------


def test_keys(fleets):
    """`h2ofleet keys` explains keys without a daemon, and knows what is meant."""
    fleet = fleets({})
    assert "-Xmx" in fleet.cli("keys", "max_mem_size").stdout
    assert "did you mean 'max_mem_size'?" in fleet.cli("keys", "max_mem", code=1).stderr
    keys = {k["key"]: k for k in json.loads(fleet.cli("keys", "--json").stdout)["keys"]}
    assert keys["java"]["privilege"] == "all" and keys["nodes"]["change"] == "restart"
    assert keys["restart"]["words"] == ["never", "on-failure", "always"]
