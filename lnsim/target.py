"""A node that was not started here: where it is, what a scenario can ask of it, and its first answer."""

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from lnsim.scenario import workloads as wl
from lnsim.scenario.expectation import parse
from lnsim.scenario.model import DIRECT, Scenario
from lnsim.swarm.crowd import FEATURES, SECRET_SIZE
from node.backend.identity import CHAIN_HASHES
from node.crypto.keys import is_valid_point
from node.errors import MalformedMessage, Refused
from node.peer.handshake import ACT_TWO_SIZE, Initiator
from node.peer.transport import Transport
from node.runtime.addresses import split_address
from node.wire import bolt1
from node.wire.codec import decode, encode

ADDRESS = re.compile(r"([0-9a-fA-F]{66})@(.+)")
ANSWER_TIMEOUT_S = 10.0
READ_BYTES = 65_536
CHAIN_HASH_SIZE = 32
NETWORKS = ("regtest", "signet", "testnet")  # load and rude peers are for test networks
OF_OUR_PROCESSES = re.compile(r"(f[1-9]\d*|frontend|backend|links|chain|tor|lntor|onion)\..+")
HEIGHT = "chain.height"

FAULTS = wl.Kill | wl.Restart | wl.Pause | wl.RollingRestart | wl.LinkFault | wl.SlowDisk | wl.TorFault
Entropy = Callable[[int], bytes]
ON_CHAIN = wl.ChannelChurn | wl.Mine | wl.Reorg | wl.FeeSpike | wl.BlockStall


class Target(Struct, frozen=True):
    node_id: str
    address: str

    @staticmethod
    def parse(text: str) -> "Target":
        """From NODE_ID@HOST:PORT. Raises Refused."""
        found = ADDRESS.fullmatch(text)
        if found is None:
            raise Refused(f"--target {text}: write NODE_ID@HOST:PORT, the id as 66 hex digits")
        node_id, address = found[1].lower(), found[2]
        if not is_valid_point(bytes.fromhex(node_id)):
            raise Refused(f"--target {text}: {node_id} is no node's id: not a point of the curve")
        try:
            kind, _, _ = split_address(address)
        except Refused as error:
            raise Refused(f"--target {text}: {error}") from error
        if kind != "tcp":
            raise Refused(f"--target {text}: nodes listen at HOST:PORT")
        return Target(node_id, address)


class ChainEndpoint(Struct, frozen=True):
    """The RPC of a bitcoind on regtest, or of what speaks like one."""

    url: str
    user: str
    password: str

    @staticmethod
    def parse(text: str, cookie: Path | None = None) -> "ChainEndpoint":
        """From http://USER:PASSWORD@HOST:PORT, or without user and with a cookie file. Raises Refused."""
        parts = urlsplit(text)
        if parts.scheme != "http" or not parts.hostname or not parts.port:
            raise Refused("--chain: write http://USER:PASSWORD@HOST:PORT")
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        if cookie is not None:
            user, password = _cookie(cookie)
        if not user:
            raise Refused(
                "--chain: name user and password in the URL, or bitcoind's .cookie by --chain-cookie"
            )
        return ChainEndpoint(f"http://{parts.netloc.rpartition('@')[2]}", user, password)


def _cookie(path: Path) -> tuple[str, str]:
    try:
        user, _, password = path.read_text().strip().partition(":")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(
            f"--chain-cookie {path}: {getattr(error, 'strerror', None) or 'is not text'}"
        ) from error
    return user, password


# what a scenario may ask for


def check(scenario: Scenario, *, has_chain: bool) -> None:
    """Raises Refused with the path of the first thing that can't be had of a node that was not started here."""
    if "cluster" not in scenario.modes:
        raise Refused(
            f"modes: a target is loaded as in cluster mode, and this makes sense in {scenario.modes[0]} mode only"
        )
    for path, complaint in _complaints(scenario, has_chain=has_chain):
        raise Refused(f"{path}: {complaint}")


def _complaints(scenario: Scenario, *, has_chain: bool) -> Iterator[tuple[str, str]]:
    for name, spec in scenario.topology.peers.items():
        if spec.through != DIRECT:
            yield f"topology.peers.{name}.through", "a target is reached at its address"
    for number, workload in enumerate(scenario.workloads):
        yield from _of_workload(workload, f"workloads[{number}]", has_chain=has_chain)
    if not has_chain:
        for name, spec in scenario.topology.peers.items():
            if spec.channels is not None:
                yield f"topology.peers.{name}.channels", "channels need a chain: name its RPC by --chain"
        if scenario.topology.chain.block_interval_s is not None:
            yield "topology.chain.block_interval_s", "blocks need a chain: name its RPC by --chain"
    for number, line in enumerate(scenario.expect):
        metric = parse(line).metric
        if OF_OUR_PROCESSES.fullmatch(metric) and not (has_chain and metric.startswith(HEIGHT)):
            yield (
                f"expect[{number}]",
                f"{metric} is of processes that a run starts itself; of a target it can't be had",
            )


def _of_workload(workload: wl.Workload, path: str, *, has_chain: bool) -> Iterator[tuple[str, str]]:
    run = workload.__struct_config__.tag
    if isinstance(workload, FAULTS):
        yield f"{path}.run", f"{run} is for processes that a run starts itself; a target is somebody else's"
    if not has_chain and isinstance(workload, ON_CHAIN | wl.Payments | wl.Hodl):
        yield f"{path}.run", f"{run} needs a chain: name its RPC by --chain"
    if isinstance(workload, wl.Payments | wl.Hodl) and wl.HUB in workload.payers:
        yield f"{path}.payers", f"{wl.HUB} is a target here, and pays nobody at our command"
    if isinstance(workload, wl.Hodl) and wl.HUB in workload.payees:
        yield f"{path}.payees", f"{wl.HUB} is a target here, and holds nothing at our command"
    if isinstance(workload, wl.Payments) and wl.HUB in workload.payees and workload.keysend < 1:
        yield f"{path}.keysend", f"1 where {wl.HUB} is paid: a target makes no invoices at our command"


# is it there?


async def greet(target: Target, entropy: Entropy) -> str:
    """Exchange init messages with it; the network to load it on. Raises Refused with one line of why not."""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            init = await _init(target, entropy)
    except TimeoutError as error:
        raise Refused(f"{target.address}: no answer within {ANSWER_TIMEOUT_S:g} s") from error
    except OSError as error:
        raise Refused(f"{target.address}: nobody listens there: {error.strerror or error}") from error
    return network_of(target, init.networks)


async def _init(target: Target, entropy: Entropy) -> bolt1.Init:
    _, host, port = split_address(target.address)
    reader, writer = await asyncio.open_connection(host, port)
    handshake = Initiator(entropy(SECRET_SIZE), entropy(SECRET_SIZE), bytes.fromhex(target.node_id))
    try:
        writer.write(handshake.act_one())
        act_three = handshake.act_two(await reader.readexactly(ACT_TWO_SIZE))
        assert handshake.result is not None
        transport = Transport(handshake.result)
        # BOLT 1, init: without networks nobody is refused for one
        ours = encode(bolt1.Init(b"", FEATURES.to_bytes()))
        writer.write(act_three + transport.encrypt((ours,)))
        while not (messages := transport.receive(await _some(reader))):
            pass
        init = decode(messages[0])
    except (MalformedMessage, EOFError, ConnectionError) as error:
        raise Refused(
            f"{target.address}: who listens there is not {target.node_id}, or takes in nobody"
        ) from error
    finally:
        writer.close()
    if not isinstance(init, bolt1.Init):
        raise Refused(f"{target.address}: {target.node_id} does not begin with init")
    return init


async def _some(reader: asyncio.StreamReader) -> bytes:
    if data := await reader.read(READ_BYTES):
        return data
    raise EOFError


def network_of(target: Target, networks: bytes | None) -> str:
    """The first of the test networks that it names in its init; regtest where it names none. Raises Refused."""
    if not networks:
        return NETWORKS[0]
    named = {networks[at : at + CHAIN_HASH_SIZE] for at in range(0, len(networks), CHAIN_HASH_SIZE)}
    for network in NETWORKS:
        if CHAIN_HASHES[network] in named:
            return network
    known = [name for name, chain_hash in CHAIN_HASHES.items() if chain_hash in named]
    raise Refused(
        f"{target.address}: the node is on {' and '.join(known) or 'a network of its own'}; runs are for {', '.join(NETWORKS)}"
    )
