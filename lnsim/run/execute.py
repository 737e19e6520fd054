"""One run of a scenario, wherever it was asked for: a cluster of ours, a virtual world, or around somebody's node."""

import asyncio
import datetime as dt
import secrets
from pathlib import Path

from msgspec import Struct

from lnsim.metrics.recorder import Recorder
from lnsim.report.result import RunResult
from lnsim.run.runner import Origin, Run
from lnsim.run.show import Show
from lnsim.run.timing import Clock
from lnsim.scenario.check import needs
from lnsim.scenario.model import Scenario
from lnsim.scenario.workloads import FeeSpike
from lnsim.stage import Stage
from lnsim.target import ChainEndpoint, Target, check, greet
from lnsim.worker.fleet import Host
from node.errors import Refused

REGTEST = "regtest"
LOOPBACK = "127.0.0.1"
RUN_ID_SIZE = 4  # bytes; tells the wallets of runs on one chain apart


class Where(Struct, frozen=True, kw_only=True):
    """Of a run, as the command line says; without anything it is a cluster on this machine."""

    world: bool = False
    target: Target | None = None
    chain: ChainEndpoint | None = None
    ray: str = ""  # address of a Ray cluster that the peers live on
    listen: str = ""  # an address of this machine that those peers reach

    @staticmethod
    def of(
        *, world: bool, target: str, chain: str, chain_cookie: Path | None, ray: str, listen: str
    ) -> "Where":
        """Raises Refused for what makes no sense, or not together."""
        if world and ray:
            raise Refused("--world: a world is one process; leave --ray out")
        if listen and (world or target):
            raise Refused("--listen: is where a cluster of ours is reached")
        if world and target:
            raise Refused("--world: a world has its own node; leave --target out")
        if (chain or chain_cookie) and not target:
            raise Refused("--chain: is the chain of a --target; a cluster of ours brings its own")
        if chain_cookie and not chain:
            raise Refused("--chain-cookie: is for --chain http://HOST:PORT")
        return Where(
            world=world,
            target=Target.parse(target) if target else None,
            chain=ChainEndpoint.parse(chain, chain_cookie) if chain else None,
            ray=ray,
            listen=listen,
        )

    @property
    def mode(self) -> str:
        return "target" if self.target else "world" if self.world else "cluster"


def execute(scenario: Scenario, seed: int, where: Where, command: str, show: Show) -> RunResult:
    """One run in this process, with its children where it has any. Raises Refused for what can't be run there."""
    started = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    origin = Origin(where.mode, command, started)
    if where.target is not None:
        check(scenario, has_chain=where.chain is not None)
    elif where.mode not in scenario.modes:
        raise Refused(f"{scenario.name}: makes sense in {' and '.join(scenario.modes)} mode only (modes)")
    elif where.ray and scenario.topology.cluster.tor is not None:
        raise Refused("--ray: the private Tor network of topology.cluster.tor is on this machine's loopback")
    if where.world:
        from lnsim.world.main import run_world  # noqa: PLC0415 - each mode imports what it needs

        return run_world(scenario, seed, origin, show)
    return asyncio.run(_in_processes(scenario, seed, where, origin, show))


async def _in_processes(scenario: Scenario, seed: int, where: Where, origin: Origin, show: Show) -> RunResult:
    clock = Clock()
    recorder = Recorder(clock.now_s)
    stage: Stage
    if where.target is not None:
        stage = await _aimed(scenario, seed, where, recorder, show)
    else:
        from lnsim.cluster_stage import ClusterStage  # noqa: PLC0415 - each mode imports what it needs

        stage = ClusterStage(scenario, seed, recorder, show.say, _host(where, show), where.listen or LOOPBACK)
    run = Run(stage, clock, origin, show.say)
    showing = asyncio.create_task(show.run(run))
    try:
        return await run.run()
    finally:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)


async def _aimed(scenario: Scenario, seed: int, where: Where, recorder: Recorder, show: Show) -> Stage:
    """Nothing is begun before the node has answered, and its chain. Raises Refused."""
    from lnsim.target_chain import TargetChain  # noqa: PLC0415 - each mode imports what it needs
    from lnsim.target_stage import TargetStage  # noqa: PLC0415 - each mode imports what it needs

    assert where.target is not None
    network = await greet(where.target, secrets.token_bytes)
    chain = None
    if where.chain is not None:
        if network != REGTEST:
            raise Refused(
                f"--chain: {where.target.address} is on {network}, and blocks are made on regtest only"
            )
        chain = TargetChain(where.chain, secrets.token_hex(RUN_ID_SIZE))
        await chain.check(changes_fees=needs(scenario, FeeSpike))
    return TargetStage(
        scenario,
        seed,
        recorder,
        show.say,
        target=where.target,
        network=network,
        chain=chain,
        host=_host(where, show),
    )


def _host(where: Where, show: Show) -> Host | None:
    """Where the peers live, if not in processes of this machine. Raises Refused."""
    if not where.ray:
        return None
    try:
        from lnsim.worker.ray_host import RayHost  # noqa: PLC0415 - an extra of its own
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise Refused("--ray: ray is missing; install the extra: pip install 'lnsim[ray]'") from error
    return RayHost(where.ray, show.say)
