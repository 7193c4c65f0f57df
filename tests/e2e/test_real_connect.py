"""What `h2ofleet connect` prints, pasted as people would: the real Python client, one real cloud of one
node, each way in a program of its own."""

import re
import subprocess
import sys

import pytest

from clients import finish, python
from conftest import ready_cloud
from fleet import H2OFLEET

SHOW = """
import h2o
assert h2o.cluster().cloud_size == 1
print("CLOUD", h2o.cluster().cloud_name, h2o.connection().base_url)
"""


@pytest.fixture(scope="module")
def cloud(request, real_keys):
    with ready_cloud(request, real_keys(1)) as fleet:
        yield fleet


def assert_attached(fleet, said):
    """It talked to our cloud, and has started none."""
    now = fleet.cloud()
    name, url = re.search(r"^CLOUD (\S+) (\S+)$", said, re.M).groups()
    assert name == now["h2o_name"] and url.rstrip("/") == now["endpoint"]
    assert len(fleet.members()) == 1


def test_python(cloud):
    """--python is a program."""
    snippet = cloud.cli("connect", "c", "--python").stdout
    assert_attached(cloud, finish(python(snippet + SHOW)))
    config = re.search(r"^# or: (h2o\.connect\(config=.*\))$", snippet, re.M).group(1)
    assert_attached(cloud, finish(python(f"import h2o\n{config}\n{SHOW}")))


def test_h2oconfig(cloud, tmp_path):
    """--h2oconfig as .h2oconfig in the folder: a plain h2o.init() attaches."""
    (tmp_path / ".h2oconfig").write_text(cloud.cli("connect", "c", "--h2oconfig").stdout)
    assert_attached(cloud, finish(python("import h2o\nh2o.init()\n" + SHOW, cwd=tmp_path)))


def test_config(cloud):
    """h2o.connect(config=...) of what --json tells: the client's name for a part of the URL each."""
    said = cloud.cli("connect", "c", "--json").stdout
    assert_attached(cloud, finish(python("""
import json, sys, h2o
cloud = json.loads(sys.argv[1])
h2o.connect(config={"ip": cloud["endpoint_address"], "port": cloud["endpoint_port"]})
""" + SHOW, said)))


def test_env(cloud, tmp_path):
    """eval "$(h2ofleet connect c --env)" in a shell, then a program that goes by the environment."""
    (tmp_path / "program.py").write_text(
        'import h2o, os\nh2o.connect(url=os.environ["H2O_URL"])\n'
        'h2o.connect(ip=os.environ["H2O_IP"], port=int(os.environ["H2O_PORT"]))\n' + SHOW)
    said = subprocess.run(
        ["sh", "-euc", 'eval "$("$1" --socket "$2" connect c --env)"; exec "$3" "$4"', "sh", H2OFLEET,
         str(cloud.socket), sys.executable, str(tmp_path / "program.py")],
        env=cloud.env(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
    assert said.returncode == 0, said.stdout
    assert_attached(cloud, said.stdout)


def test_sparkling(cloud):
    """The properties name this generation and its endpoint, in the form that Spark reads; a cloud that
    does not run has none."""
    said = cloud.cli("connect", "c", "--sparkling").stdout
    now = cloud.cloud()
    properties = dict(line.split("=", 1) for line in said.splitlines() if not line.startswith("#"))
    assert properties == {
        "spark.ext.h2o.backend.cluster.mode": "external",
        "spark.ext.h2o.external.start.mode": "manual",
        "spark.ext.h2o.cloud.name": now["h2o_name"],
        "spark.ext.h2o.cloud.representative": now["endpoint"].partition("//")[2],
    }
    assert "extra_classpath" in said and all(len(line) <= 90 for line in said.splitlines())
