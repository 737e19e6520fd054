"""The chain as a workload: blocks at an interval, and what may happen to it."""

import asyncio
from typing import assert_never

from lnsim.run.context import Context
from lnsim.run.timing import repeat
from lnsim.scenario import workloads as wl
from lnsim.stage import chain_of

OnChain = wl.Mine | wl.Reorg | wl.FeeSpike | wl.BlockStall


class Miner:
    """Blocks at the topology's interval, unless stalled."""

    def __init__(self, context: Context, interval_s: float) -> None:
        self._context = context
        self._interval_s = interval_s
        self.stalls = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            if not self.stalls:
                await chain_of(self._context.stage).mine(1)


class ChainEvent:
    """Runs one entry that mines, reorganises, raises fees or stalls."""

    def __init__(self, context: Context, spec: OnChain, miner: Miner | None) -> None:
        self._context = context
        self._spec = spec
        self._miner = miner

    async def run(self) -> None:
        spec, end_s = self._spec, self._context.stage.scenario.duration_s
        await repeat(self._context.clock, spec.start_s, spec.every_s, end_s, self._act)

    async def _act(self) -> None:
        spec, chain = self._spec, chain_of(self._context.stage)
        match spec:
            case wl.Mine(blocks=blocks):
                await chain.mine(blocks)
            case wl.Reorg(depth=depth):
                self._mark(f"reorg of {depth}")
                await chain.reorg(depth)
            case wl.FeeSpike():
                self._mark(f"fees at {spec.feerate_per_kw} sat/kw", spec.for_s)
                await chain.set_feerate(spec.feerate_per_kw)
                await chain.mine(1)  # nodes look at fees when a block comes
                await asyncio.sleep(spec.for_s)
                await chain.set_feerate(None)
                await chain.mine(1)
            case wl.BlockStall():
                self._mark("no blocks", spec.for_s)
                await self._stall(spec.for_s)
            case _:
                assert_never(spec)

    async def _stall(self, for_s: float) -> None:
        if self._miner is not None:
            self._miner.stalls += 1
        await asyncio.sleep(for_s)
        if self._miner is not None:
            self._miner.stalls -= 1

    def _mark(self, text: str, for_s: float | None = None) -> None:
        now_s = self._context.clock.now_s()
        self._context.stage.recorder.mark("fault", text, None if for_s is None else now_s + for_s)
