"""Real peers as fixtures: factories that start one and end it with the test."""

from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from cluster_node import ClusterNode
from electrum_peer import ElectrumPeer
from ldk_peer import LdkPeer
from processes import require
from regtest import Regtest


@pytest_asyncio.fixture
async def chain():
    async with Regtest() as chain:
        yield chain


@pytest_asyncio.fixture
async def peers(chain):
    """What the factories below start, ended in the opposite order."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def ldk(chain, peers):
    """`await ldk("alice", anchors=False)`: a started LdkPeer."""
    require("ldk")

    async def start(name: str = "ldk", **options) -> LdkPeer:
        return await peers.enter_async_context(LdkPeer(chain.rpc, name, **options))

    return start


@pytest.fixture
def electrum(chain, peers):
    """`await electrum()`: a started ElectrumPeer with coins in its wallet."""
    require("electrum")

    async def start(name: str = "electrum", **settings) -> ElectrumPeer:
        peer = await peers.enter_async_context(ElectrumPeer(chain.rpc, name, **settings))
        await peer.fund()
        return peer

    return start


@pytest.fixture
def cluster(chain, peers):
    """`await cluster(frontends=2, fees={...})`: our node, started, with coins in its wallet."""

    async def start(name: str = "cluster", **settings) -> ClusterNode:
        return await peers.enter_async_context(ClusterNode(chain.rpc, name, **settings))

    return start
