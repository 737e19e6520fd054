"""`lnnode backup`, and two backends on one database: what an operator does, and what he reads."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest
from backend_bench import Bench

from node.backend.api import Api
from node.backend.backup import take
from node.backend.sqlite_store import DATABASE, SqliteStore
from node.backend.store import COPY, PUT_META
from node.errors import Refused
from node.runtime.config import BackendConfig
from node.runtime.http_server import HttpServer

LNNODE = Path(sys.executable).with_name("lnnode")


@pytest.fixture
def config(tmp_path):
    return BackendConfig(data_dir=str(tmp_path / "node"), api_password="pass word")


async def test_a_running_backend_makes_the_copy_itself(chain, tmp_path, config):
    bench = await Bench(tmp_path / "node", chain).start()
    server = HttpServer(Api(bench.backend.commands, "pass word").application, config.api_address)
    await server.start()
    said = await asyncio.to_thread(take, config, tmp_path / "copy")
    with pytest.raises(Refused, match="exists"):
        await asyncio.to_thread(take, config, tmp_path / "copy")
    with pytest.raises(Refused, match="whole path"):
        await asyncio.to_thread(take, config, Path("copy"))
    await server.stop()
    await bench.drop()

    assert said.startswith(f"{tmp_path / 'copy'}: holds term 1 up to transaction")
    copy = SqliteStore(tmp_path / "copy")
    assert copy.meta("node_id") == bench.backend.node_id
    assert copy.meta(COPY) is not None
    copy.close()


def run(tmp_path, *arguments, settings=""):
    path = tmp_path / "config.yaml"
    path.write_text(
        f"{{data_dir: '{tmp_path}/node', bitcoind: {{url: 'http://127.0.0.1:1', user: u}}{settings}}}"
    )
    command = [LNNODE, arguments[0], path, *arguments[1:]]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_without_a_backend_the_command_makes_it(tmp_path):
    (tmp_path / "node").mkdir()
    store = SqliteStore(tmp_path / "node" / DATABASE)
    store.commit([(PUT_META, [("x", b"y")])])
    store.close()

    done = run(tmp_path, "backup", str(tmp_path / "copy"))

    assert (done.returncode, done.stderr) == (0, "")
    copy = SqliteStore(tmp_path / "copy")
    assert copy.meta("x") == b"y"
    copy.close()


def test_where_there_is_no_database_there_is_no_copy(tmp_path):
    done = run(tmp_path, "backup", str(tmp_path / "copy"))
    assert done.returncode == 2
    assert "no such database" in done.stderr


def test_a_second_backend_on_the_database_is_refused_with_a_remedy(tmp_path):
    (tmp_path / "node").mkdir()
    store = SqliteStore(tmp_path / "node" / DATABASE)
    done = run(tmp_path, "backend")
    store.close()
    assert done.returncode == 2
    assert done.stderr.startswith("lnnode: ")
    assert re.search(r"another backend is running on it \(process \d+\); stop that one first", done.stderr)


def test_a_standby_needs_a_database_that_can_be_shared(tmp_path):
    done = run(tmp_path, "backend", "--standby")
    assert done.returncode == 2
    assert "PostgreSQL" in done.stderr


def test_a_server_that_is_not_there_is_named_and_the_password_is_not(tmp_path):
    database = f"postgresql://me:secret@/x?host={tmp_path}"
    done = run(tmp_path, "backend", settings=f", lease_s: 0.5, database: '{database}'")
    assert done.returncode == 2
    assert "check the setting `database`" in done.stderr
    assert "secret" not in done.stderr
