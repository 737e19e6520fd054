"""Configuration: strict, documented, and every mistake answered in one line with file, field and remedy."""

import asyncio
import itertools
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import yaml

from node.errors import Refused
from node.runtime.addresses import join_address, split_address
from node.runtime.config import (
    KINDS,
    BackendConfig,
    FrontendConfig,
    StandaloneConfig,
    load,
)
from node.runtime.documented import documented_defaults
from node.runtime.runtime import SystemRuntime


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
        ("alais: x", "alais.*known fields here are: data_dir"),
        ("fees: {ppm: -3}", "fees.ppm: Expected `int` >= 0.*check-config backend --defaults"),
        ("channels: {max_accepted_htlcs: 484}", "channels.max_accepted_htlcs"),
        ("network: simnet", "network"),
        ("link: nowhere", 'link: "nowhere" is no address'),
        ("- a list", "holds no mapping"),
        ("a: [", "line 1|line 2"),
        ("bitcoind: {url: banana}", 'bitcoind.url: "banana" is no URL'),
        ("bitcoind: {user: u, zmq: banana}", "bitcoind.zmq.*tcp://HOST:PORT"),
        ("alias: a", "bitcoind: name its cookie_file.*or set user and password"),
        ("{bitcoind: {user: u}, announce_addresses: [foo]}", 'announce_addresses: "foo" is no address'),
        ("alias: 5", "alias: Expected `str`, got `int`"),
    ],
)
def test_a_mistake_is_named_with_file_field_and_remedy(file, text: str, says: str) -> None:
    with pytest.raises(Refused, match=says) as refused:
        load(BackendConfig, file(text), {})

    assert "node.yaml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"missing\.yaml: No such file"):
        load(BackendConfig, tmp_path / "missing.yaml", {})


def test_the_environment_overrides_the_file(file) -> None:
    environment = {
        "LNNODE_BITCOIND__WALLET": "hot",
        "LNNODE_ALIAS": "zed",
        "LNNODE_LISTEN": "1.2.3.4:1",
        "HOME": "/",
    }

    config = load(BackendConfig, file("alias: abe\nbitcoind: {user: u}"), environment)

    assert (config.alias, config.bitcoind.wallet, config.bitcoind.user) == ("zed", "hot", "u")


def test_a_mistake_in_the_environment_names_the_variable(file) -> None:
    with pytest.raises(Refused, match=r"LNNODE_FEES__PPM.*fees\.ppm"):
        load(BackendConfig, file(""), {"LNNODE_FEES__PPM": "many"})
    with pytest.raises(Refused, match="LNNODE_ALIAS__X: alias is no section"):
        load(BackendConfig, file("alias: a"), {"LNNODE_ALIAS__X": "1"})


@pytest.mark.parametrize("kind", KINDS)
def test_the_documented_defaults_are_the_defaults_and_explain_every_field(kind: str) -> None:
    text = documented_defaults(KINDS[kind])
    lines = text.splitlines()

    assert msgspec.convert(yaml.safe_load(text), KINDS[kind]) == KINDS[kind]()
    for before, line in itertools.pairwise(lines):
        if ": " in line and not line.lstrip().startswith("#"):
            assert before.lstrip().startswith("# ")
            assert len(before.strip()) > len("# ..")


@pytest.mark.parametrize(
    "arguments", [["backend"], ["frontend"], ["standalone"], ["check-config", "backend"]]
)
def test_lnnode_answers_a_wrong_file_in_one_line_with_status_2(file, arguments: list[str]) -> None:
    command = [Path(sys.executable).with_name("lnnode"), *arguments, file("alais: x")]

    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert done.returncode == 2
    assert done.stderr.startswith("lnnode: ")
    assert done.stderr.count("\n") == 1
    assert "alais" in done.stderr


def test_mainnet_is_refused_without_the_flag_that_says_so(file, tmp_path: Path) -> None:
    command = [
        Path(sys.executable).with_name("lnnode"),
        "backend",
        file(f"network: mainnet\ndata_dir: {tmp_path}\nbitcoind: {{user: u}}"),
    ]

    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert done.returncode == 2
    assert "accept_mainnet_without_onchain_claims" in done.stderr


@pytest.fixture
def lnnode(tmp_path: Path):
    """A process of ours, started with this configuration; killed with the test."""
    started = []

    def start(kind: str, text: str) -> subprocess.Popen:
        path = tmp_path / f"{kind}.yaml"
        path.write_text(text)
        command = [Path(sys.executable).with_name("lnnode"), kind, path]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_backend_that_waits_for_bitcoind_says_so_and_can_be_stopped(lnnode, tmp_path: Path) -> None:
    text = f"{{data_dir: {tmp_path}, bitcoind: {{url: 'http://127.0.0.1:1', user: u}}}}"
    process = lnnode("backend", text)

    assert "nothing answers at http://127.0.0.1:1" in process.stderr.readline()
    process.terminate()
    _, rest = process.communicate(timeout=10)
    assert (process.returncode, rest) == (0, "")


def test_a_frontend_that_waits_for_its_backend_says_so(lnnode, tmp_path: Path) -> None:
    process = lnnode("frontend", f"{{listen: '127.0.0.1:0', backend: 'unix:{tmp_path}/nowhere.sock'}}")

    assert "no_backend" in process.stderr.readline()


async def test_a_port_in_use_is_refused_by_name() -> None:
    runtime = SystemRuntime(lambda *_: None)
    first = await runtime.listen("127.0.0.1:0", asyncio.Protocol)
    with pytest.raises(Refused, match=f"^can't listen at {first.address}: is in use"):
        await runtime.listen(first.address, asyncio.Protocol)
    first.close()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("1.2.3.4:9735", ("tcp", "1.2.3.4", 9735)),
        ("[::1]:1", ("tcp", "::1", 1)),
        ("unix:/run/x.sock", ("unix", "/run/x.sock", 0)),
    ],
)
def test_addresses(text: str, parts: tuple[str, str, int]) -> None:
    assert split_address(text) == parts
    if parts[0] == "tcp":
        assert join_address(*parts[1:]) == text


@pytest.mark.parametrize("text", ["", "host", "host:", "host:port", "1.2.3.4:65536"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        split_address(text)


def test_a_frontend_needs_no_field_at_all() -> None:
    assert load(FrontendConfig, None, {}).listen == "0.0.0.0:9735"


def test_a_frontend_may_know_several_backends(file) -> None:
    config = load(FrontendConfig, file("backend: ['unix:/a', 'unix:/b']"), {})
    assert config.backends == ("unix:/a", "unix:/b")
    one = load(FrontendConfig, file(""), {"LNNODE_BACKEND": "unix:/c"})
    assert one.backends == ("unix:/c",)
    for text, words in (("[]", "names none"), ("['unix:/a', nowhere]", '"nowhere" is no address')):
        with pytest.raises(Refused, match=words):
            load(FrontendConfig, file(f"backend: {text}"), {})


def test_a_database_url_that_is_none_is_refused_without_showing_its_password(file) -> None:
    text = "bitcoind: {user: u}\ndatabase: 'postgres//me:secret@host/x'"
    with pytest.raises(Refused, match="postgresql://USER@HOST/NAME") as refusal:
        load(BackendConfig, file(text), {})
    assert "secret" not in str(refusal.value)


def test_a_standalone_node_has_a_database_of_its_own(file) -> None:
    with pytest.raises(Refused, match="lnnode backend"):
        load(StandaloneConfig, file("backend: {database: 'postgresql:///x', bitcoind: {user: u}}"), {})
