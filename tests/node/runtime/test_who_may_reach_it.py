"""Whoever reaches the API can spend: a socket file is its owner's alone, a port asks for a password."""

import asyncio
import stat
from pathlib import Path

import pytest
import uvloop

from node.errors import Refused
from node.runtime.addresses import split_address
from node.runtime.config import BackendConfig, FrontendConfig, StandaloneConfig, load
from node.runtime.http_server import HttpServer
from node.runtime.runtime import SystemRuntime


async def nothing(scope, receive, send):
    pass


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_the_apis_socket_is_its_owners_alone(tmp_path, new_loop):
    path = tmp_path / "api.sock"

    async def serve():
        for _ in range(2):  # the second finds what the first has left
            server = HttpServer(nothing, f"unix:{path}")
            await server.start()
            mode = stat.S_IMODE(path.stat().st_mode)
            _, writer = await asyncio.open_unix_connection(path)
            writer.close()
            await server.stop()
            assert mode == 0o600

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(serve())


async def test_the_links_socket_is_its_owners_alone(tmp_path):
    runtime = SystemRuntime(lambda *_: None)
    listener = await runtime.listen(f"unix:{tmp_path / 'link.sock'}", asyncio.Protocol)
    assert stat.S_IMODE((tmp_path / "link.sock").stat().st_mode) == 0o600
    listener.close()


@pytest.mark.parametrize("kind", [BackendConfig, StandaloneConfig])
def test_an_api_on_a_port_needs_a_password(tmp_path, kind):
    section = {"api": "127.0.0.1:8080"}
    path = tmp_path / "node.yaml"
    text = "".join(f"{key}: {value}\n" for key, value in section.items())
    if kind is StandaloneConfig:
        text = "backend:\n  " + text
    path.write_text(text)
    with pytest.raises(Refused, match="api_password"):
        load(kind, path, {})
    prefix = "LNNODE_BACKEND__" if kind is StandaloneConfig else "LNNODE_"
    assert load(kind, path, {prefix + "API_PASSWORD": "'1234'", prefix + "BITCOIND__USER": "u"})


@pytest.mark.parametrize(("kind", "field"), [(BackendConfig, "link"), (FrontendConfig, "backend")])
def test_a_link_in_clear_is_refused(kind, field):
    with pytest.raises(Refused, match=f"{field}: TLS is missing"):
        load(kind, None, {f"LNNODE_{field.upper()}": "10.0.0.1:9736"})


def test_a_home_directory_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert split_address("unix:~/.lnnode/link.sock") == ("unix", str(Path(tmp_path, ".lnnode/link.sock")), 0)


def test_an_override_that_is_no_yaml_is_named():
    with pytest.raises(Refused, match="LNNODE_ALIAS"):
        load(BackendConfig, None, {"LNNODE_ALIAS": "["})
