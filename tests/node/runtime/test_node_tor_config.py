"""What a node that speaks through Tor alone may not be configured to do, and what can't be announced."""

from pathlib import Path

import pytest

from node.errors import Refused
from node.runtime.config import BackendConfig, FrontendConfig, StandaloneConfig, load

ONION = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion"
ONLY = "{only: true, socks: '127.0.0.1:9050'}"
CHAIN = "bitcoind: {user: u}"


@pytest.fixture
def file(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "node.yaml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tor: {socks: 'unix:/run/tor/socks'}", "tor.socks: unix:/run/tor/socks: say HOST:PORT"),
        ("tor: {socks: '9050'}", 'tor.socks: "9050" is no address'),
        ("tor: {ipv4: proxy}", "tor.ipv4: proxy: tor.socks is empty"),
        ("tor: {onion: direct}", "tor.onion: Invalid enum value"),
        ("tor: {only: true}", "tor.only: needs tor.socks"),
        (f"{{tor: {ONLY}, announce_addresses: ['1.2.3.4:1']}}", "1.2.3.4:1: tor.only announces onion addresses"),
        (f"{{tor: {ONLY}, announce_addresses: ['a.example:1']}}", "a.example:1: tor.only announces onion"),
        ("tor: {only: true, socks: '1.2.3.4:9050'}", "tor.socks: 1.2.3.4:9050: leaves this host's network"),
        ("tor: {only: true, socks: 'tor.example:9050'}", "tor.socks.*no name"),
        (f"announce_addresses: ['{ONION[1:]}:9735']", "no onion address"),
        (f"announce_addresses: ['{ONION.replace('2gzy', '2gzz')}:9735']", "has a typing error"),
        (f"announce_addresses: ['{ONION}:0']", "port 0"),
        ("announce_addresses: ['a.example:1', 'b.example:1']", "one host name is allowed"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(file, text: str, says: str):
    with pytest.raises(Refused, match=says):
        load(BackendConfig, file(text), {"LNNODE_BITCOIND__USER": "u"})


@pytest.mark.parametrize(
    ("field", "value", "near"),
    [
        ("BITCOIND__URL", "http://127.0.0.1:8332", True),
        ("BITCOIND__URL", "http://10.1.2.3:8332", True),
        ("BITCOIND__URL", "http://'[::1]':8332", True),
        ("BITCOIND__URL", "http://1.2.3.4:8332", False),
        ("BITCOIND__URL", "http://bitcoind.example:8332", False),
        ("BITCOIND__ZMQ", "tcp://127.0.0.1:28332", True),
        ("BITCOIND__ZMQ", "ipc:///run/bitcoind/zmq", True),
        ("BITCOIND__ZMQ", "tcp://1.2.3.4:28332", False),
        ("DATABASE", "postgresql:///lnnode", True),
        ("DATABASE", "postgresql://ln:p%40ss@192.168.1.2,localhost:5433/lnnode", True),
        ("DATABASE", "postgresql://ln@192.168.1.2,db.example/lnnode", False),
        ("DATABASE", "postgresql:///lnnode?host=/run/postgresql", True),
        ("DATABASE", "postgresql:///lnnode?host=db.example", False),
        ("DATABASE", "postgresql:///lnnode?hostaddr=1.2.3.4&host=localhost", False),
    ],
)
def test_where_tor_is_all_chain_and_database_are_near(file, field: str, value: str, near: bool):
    path = file(f"tor: {ONLY}")
    environment = {"LNNODE_BITCOIND__USER": "u", f"LNNODE_{field}": value.replace("'", "")}
    if near:
        load(BackendConfig, path, environment)
    else:
        with pytest.raises(Refused, match=r"leaves this host's network, and tor.only is set"):
            load(BackendConfig, path, environment)


def test_a_standalone_node_listens_for_tor_alone(file):
    text = f"{{listen: '%s', backend: {{tor: {ONLY}, {CHAIN}, announce_addresses: ['{ONION}:9735']}}}}"
    load(StandaloneConfig, file(text % "127.0.0.1:9735"), {})
    load(StandaloneConfig, file(text % "unix:/run/tor/node"), {})
    with pytest.raises(Refused, match=r"listen: 0.0.0.0:9735: tor.only listens for the Tor daemon alone"):
        load(StandaloneConfig, file(text % "0.0.0.0:9735"), {})


def test_a_frontends_own_proxy_is_checked(file):
    load(FrontendConfig, file("socks: 127.0.0.1:9050"), {})
    with pytest.raises(Refused, match="socks: unix:/x: say HOST:PORT"):
        load(FrontendConfig, file("socks: unix:/x"), {})
    with pytest.raises(Refused, match="reaches"):
        load(FrontendConfig, file("reaches: [i2p]"), {})
