"""`idle_peers.py NODE_ID HOST:PORT COUNT SOURCE...`: so many peers that only stay connected, from those addresses in turn."""

import asyncio
import itertools
import sys

from lnsim.graph_generator import REGTEST
from lnsim.metrics.recorder import Recorder
from lnsim.swarm.swarm import Swarm, SwarmConfig
from node.runtime.addresses import split_address
from node.runtime.runtime import SystemRuntime

PER_S = 100.0


class FromManyAddresses(SystemRuntime):
    """Limits count addresses: so many peers have more than one."""

    def __init__(self, sources: list[str]) -> None:
        super().__init__(lambda name, error: print(f"{name}: {error!r}", file=sys.stderr))
        self._sources = itertools.cycle(sources)

    async def connect(self, address, factory, *, tls=None, proxy=None):
        assert tls is proxy is None, "peers speak BOLT 8, and go straight there"
        _, host, port = split_address(address)
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(factory, host, port, local_addr=(next(self._sources), 0))
        return protocol


async def main(node_id: str, address: str, count: str, *sources: str) -> None:
    runtime, loop = FromManyAddresses(list(sources)), asyncio.get_running_loop()
    config = SwarmConfig(hub_id=node_id, addresses=(address,), count=int(count), chain_hash=REGTEST.hex())
    swarm = Swarm(runtime, "idle", config, Recorder(loop.time))
    print(await swarm.connect(PER_S), flush=True)
    await loop.create_future()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
