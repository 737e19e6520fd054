"""A frontend takes up the whole graph from its backend."""

from typing import Any

from lnsim.bench.loop import new_runtime
from lnsim.bench.loop import run as run_loop
from lnsim.bench.plan import Plan
from lnsim.bench.stand_in import StandIn, frontend
from lnsim.graph_generator import generate

SEED = 1


def run(plan: Plan) -> dict[str, Any]:
    """Seconds from a frontend's asking for the graph to its port being open, and its memory then.

    A real frontend process over a Unix socket; on the other side the backend's own link and graph, filled with a
    generated graph of the real one's size and shape. The start of Python is not counted.
    """
    return run_loop(_run(plan))


async def _run(plan: Plan) -> dict[str, Any]:
    directory = plan.scratch("graph_load")
    stand_in = StandIn(new_runtime(), directory, generate(SEED, plan.channels, plan.nodes, signed=False))
    async with frontend(stand_in, directory) as process:
        assert stand_in.asked_s is not None
        loaded_s = stand_in.runtime.monotonic() - stand_in.asked_s
        return {"s": loaded_s, "rss_mb": process.rss_bytes / 1e6}
