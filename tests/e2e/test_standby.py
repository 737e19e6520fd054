"""Two backends on one PostgreSQL, as real processes: one leads, the other takes over, and nothing is lost."""

import asyncio
import json
import os
import shutil
import signal

import pytest
import pytest_asyncio
from postgres_server import Server
from test_kill import paying
from test_restart import IDLE, adopted, idle_peers, still_pinged

from lnsim.api_client import NodeApi
from lnsim.cluster import FLUSH_INTERVAL_S, HUB, Cluster, wait_until
from lnsim.cluster_peer import bitcoind_config
from lnsim.cluster_process import Child, command
from lnsim.demo_network import Network

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

LEASE_S = 1.5
AWAY_S = float(os.environ.get("DATABASE_AWAY_S", 2 * LEASE_S))  # 60: the whole minute, by hand


class Active:
    """The API of whichever backend leads."""

    def __init__(self, cluster: "Pair") -> None:
        self._cluster = cluster

    async def call(self, name, **arguments):
        directory = self._cluster.directory / self._cluster.leader
        return await NodeApi(f"unix:{directory / 'api.sock'}").call(name, **arguments)


class Pair(Cluster):
    """The hub has two backends; each has a data_dir of its own, and the seed is in both."""

    def __init__(self, directory, url, report) -> None:
        super().__init__(directory, 2, ["payer", "payee"], report)
        self.url, self.leader, self.terms = url, "", []

    @property
    def api(self):
        return Active(self)

    async def start_backend(self, more, argv=()):
        (self.directory / "two").mkdir()
        await self.start_one("one")
        shutil.copy(self.directory / "one" / "seed", self.directory / "two" / "seed")
        await self.start_one("two", "--standby")

    async def start_one(self, name, *options) -> Child:
        config = {
            "data_dir": str(self.directory / name),
            "database": self.url,
            "lease_s": LEASE_S,
            "alias": HUB,
            "flush_interval_s": FLUSH_INTERVAL_S,
            "announce_addresses": [self.address],
            "bitcoind": bitcoind_config(self.endpoint, HUB),
            "channels": {"max_peers_without_channels": 2 * IDLE},
            "log": {"level": "info"},
        }
        child = Child(
            name, [*command("lnnode"), "backend", self._write(name, config), *options], self.directory
        )
        self.supervisor.children[name] = child
        child.on_line = lambda line: self._leads(name, json.loads(line))
        self._leads(name, await child.start())
        self.supervisor._remember(child)
        return child

    def _leads(self, name, ready):
        if ready["ready"] == "backend":
            self.leader, self.node_id = name, ready["node_id"]
            self.terms.append((name, asyncio.get_running_loop().time()))

    async def start_frontend(self, name, more):
        links = [f"unix:{self.directory / backend / 'link.sock'}" for backend in ("one", "two")]
        await super().start_frontend(name, {**more, "backend": links})

    async def stop(self, first=()):
        """The leader last: or the other would take over meanwhile."""
        backends = [name for name in ("one", "two") if name in self.supervisor.children]
        for name in sorted(backends, key=self.leader.__eq__):
            await self.supervisor.stop([name])
        await super().stop(first)

    @property
    def standby(self) -> str:
        return "two" if self.leader == "one" else "one"

    async def taken_over(self, from_s: float, within_s: float) -> float:
        """Until the standby leads; after how long it did."""
        terms = len(self.terms)

        async def another() -> bool:
            return len(self.terms) > terms

        await wait_until(another, 20, "the standby leads", pause_s=0.01)
        took_s = self.terms[-1][1] - from_s
        assert took_s < within_s
        return took_s

    async def rejoin(self, name: str) -> None:
        """What a supervisor does."""
        await self.supervisor.stop([name])
        await self.start_one(name, "--standby")

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.end()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory, server):
    made = Pair(tmp_path_factory.mktemp("pair"), server.database(), lambda *_: None)
    try:
        await made.start()
        await Network(made, lambda *_: None).build()
        yield made
    finally:
        await made.stop()
    assert not made.supervisor.given_up
    assert made.supervisor.left_over() == 0


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def test_the_leader_is_killed_and_the_standby_leads_within_two_terms(pair: Pair):
    async with paying(pair) as traffic:
        killed, began_s = pair.leader, now_s()
        pair.supervisor.children[killed].kill()
        took_s = await pair.taken_over(began_s, 2 * LEASE_S)
        await traffic.settle(60)
        print(f"takeover {took_s:.2f} s, payments after {now_s() - began_s:.2f} s")
    await pair.rejoin(killed)


async def test_the_leader_is_stopped_and_the_standby_leads_at_once(pair: Pair):
    async with paying(pair) as traffic:
        stopped, began_s = pair.leader, now_s()
        waiting = asyncio.ensure_future(pair.taken_over(began_s, LEASE_S))
        await pair.supervisor.stop([stopped])
        print(f"switch {await waiting:.2f} s")
        await traffic.settle(60)
    await pair.rejoin(stopped)


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_idle_peers_do_not_notice_that_the_standby_leads(pair: Pair, how):
    """Their frontends know both backends, and the rows are in the database that both share."""
    async with idle_peers(pair) as (swarm, figures), paying(pair) as traffic:
        gone, began_s = pair.leader, now_s()
        waiting = asyncio.ensure_future(pair.taken_over(began_s, 2 * LEASE_S))
        if how == "killed":
            pair.supervisor.children[gone].kill()
        else:
            await pair.supervisor.stop([gone])
        took_s = await waiting
        await traffic.settle(20)
        await still_pinged(swarm)
        assert figures.counts["swarm.lost"] == 0
        assert await adopted(pair) == IDLE + len(pair.peers)
    print(f"standby, {how}, {IDLE} idle: 0 closed; it led after {took_s:.2f} s")
    await pair.rejoin(gone)


async def test_a_leader_that_froze_and_wakes_up_replaced_stores_nothing_says_nothing_and_ends(
    pair: Pair, server
):
    async with paying(pair) as traffic:
        frozen = pair.leader
        child, began_s = pair.supervisor.children[frozen], now_s()
        ended = asyncio.get_running_loop().create_future()
        child.on_exit.append(lambda _, status: ended.done() or ended.set_result(status))
        os.kill(child.pid, signal.SIGSTOP)
        await pair.taken_over(began_s, 2 * LEASE_S)
        await traffic.settle(20)
        ((epoch,),) = server.execute("SELECT epoch FROM lease", pair.url)

        os.kill(child.pid, signal.SIGCONT)

        assert await asyncio.wait_for(ended, 10) == 1, "a status on which a supervisor starts it again"
        assert "another backend took over" in pair.log(frozen)
        await traffic.settle(20)
        assert server.execute("SELECT epoch FROM lease", pair.url) == [(epoch,)]
        assert await pair.api.call("getinfo")
    await pair.rejoin(frozen)


async def passed(seconds: float) -> None:
    began_s = now_s()

    async def long_enough() -> bool:
        return now_s() - began_s > seconds

    await wait_until(long_enough, seconds + 10, "time passes")


async def test_the_database_is_away_for_longer_than_a_term_and_all_goes_on_when_it_is_back(
    pair: Pair, server
):
    async with paying(pair) as traffic:
        leader = pair.leader
        await asyncio.to_thread(server.stop, "immediate")
        await passed(LEASE_S / 2)
        settled = traffic.settled
        await passed(AWAY_S)
        assert traffic.settled == settled, "what is not stored is not said"
        assert pair.supervisor.children[leader].pid is not None
        await asyncio.to_thread(server.start)
        await traffic.settle(60)
    assert "store_away" in pair.log(leader)
    if pair.leader != leader:  # the term had run out, and the other asked first
        await pair.rejoin(leader)


async def test_the_database_stands_still_and_all_goes_on_when_it_moves(pair: Pair, server):
    """It neither answers nor refuses: what was asked of it hangs."""
    async with paying(pair) as traffic:
        leader = pair.leader
        with server.frozen():
            await passed(LEASE_S)
            settled = traffic.settled
            await passed(AWAY_S)
            assert traffic.settled == settled, "what is not stored is not said"
        began_s = now_s()
        await traffic.settle(60)
        print(f"stood still for {AWAY_S + LEASE_S:.1f} s, 60 payments {now_s() - began_s:.2f} s later")
    assert "lease_ran_out" in pair.log(leader)
    if pair.leader != leader:
        await pair.rejoin(leader)


async def test_a_second_leader_is_refused_and_told_what_to_do(pair: Pair):
    config = json.loads(
        json.dumps({"database": pair.url, "lease_s": LEASE_S, "data_dir": str(pair.directory / "two")})
    )
    config["bitcoind"] = bitcoind_config(pair.endpoint, HUB)
    argv = [*command("lnnode"), "backend", pair._write("third", config)]
    process = await asyncio.create_subprocess_exec(
        *argv, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
    )
    _, said = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 2
    assert b"--standby" in said


async def test_a_standby_with_another_seed_is_refused_before_its_turn_comes(pair: Pair):
    directory = pair.directory / "stranger"
    directory.mkdir()
    config = {
        "database": pair.url,
        "data_dir": str(directory),
        "bitcoind": bitcoind_config(pair.endpoint, HUB),
    }
    argv = [*command("lnnode"), "backend", pair._write("stranger", config), "--standby"]
    for seed, words in ((None, b"is not there"), ("11" * 32, b"the database is that of node")):
        if seed:
            (directory / "seed").write_text(seed)
        process = await asyncio.create_subprocess_exec(
            *argv, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
        )
        _, said = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 2
        assert words in said
