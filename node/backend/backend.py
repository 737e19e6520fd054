"""The backend: everything that knows about money, wired together."""

import asyncio
from contextlib import suppress
from functools import partial

from node.backend import identity
from node.backend.announcer import Announcer
from node.backend.chain_client import ChainClient
from node.backend.chain_desk import ChainDesk
from node.backend.chain_start import ChainStart, outlook_of
from node.backend.chain_watcher import ChainWatcher, Hints
from node.backend.channels import Channels, Record
from node.backend.checkpoints import Checkpoints
from node.backend.commands import Commands
from node.backend.dialler import Dialler
from node.backend.fundings import Fundings
from node.backend.graph_ages import GraphAges
from node.backend.graph_keeper import GraphKeeper
from node.backend.greeting import Callers
from node.backend.htlcs import Htlcs
from node.backend.journal import MAX_AWAY_S, Journal
from node.backend.leases import Leases
from node.backend.links import FrontendLink
from node.backend.openings import Openings
from node.backend.pathfinding import Pathfinding
from node.backend.placing import dialling
from node.backend.receiving import Receiving
from node.backend.sending import Sending
from node.backend.session import Session
from node.backend.store import COPY, Store
from node.backend.switchboard import Switchboard
from node.backend.watermark import WARNING, Watermark
from node.channel import effects as fx
from node.channel.parameters import Policy
from node.crypto.derivation import node_secret
from node.crypto.keys import public_key
from node.errors import Ended, Refused
from node.gossip.graph import Graph
from node.gossip.raw import ChannelFields
from node.gossip.validation import FundingOutput, assumed_funding
from node.link.messages import Limits
from node.runtime import logs, tls
from node.runtime.certificates import Role
from node.runtime.config import BackendConfig
from node.runtime.handshakes import Handshakes
from node.runtime.runtime import Listener, Runtime
from node.wire.bolt7 import ChannelUpdate
from node.wire.features import Feature

SWEEP_INTERVAL_S = 0.5
SILENT_HOLD_S = 6.0  # for frontends to try each backend once; one that does not answer takes them 3 s
TAKEOVER_PERIODS = 2  # leases, until the standby leads
BEAT_EVERY = 2  # sweeps
LOOK_EVERY = 10  # sweeps: how far bitcoind is
SLOW_EVERY = 20  # sweeps: announcements
NOTE_EVERY = 60  # sweeps: how far the database has come
STOP_TIMEOUT_S = 5.0  # for a database that is away; what it did not confirm was not said either
SMALL_GRAPH = 1_000  # channels: below, every new peer is asked for what it knows
FROM_START = -1  # a frontend that has no graph yet; below, a link that can be written to again
MAX_SYNCS = 5  # peers that are asked for their whole graph; news comes from all of them

log = logs.get("backend")


class Backend:
    """Also the `Surroundings` of channels, the `GossipOffice` of the switchboard, the `Identity` of links."""

    def __init__(
        self,
        runtime: Runtime,
        config: BackendConfig,
        client: ChainClient,
        store: Store,
        version: str,
        hints: Hints | None = None,
        *,
        accept_older: bool = False,
    ) -> None:
        """`accept_older`: start also on a database that is behind its watermark."""
        if config.network == "mainnet" and not config.accept_mainnet_without_onchain_claims:
            raise Refused(
                "mainnet is refused: unilateral closes are not claimed on-chain yet; "
                "accept_mainnet_without_onchain_claims: true starts all the same"
            )
        self.runtime = runtime
        self.config = config
        self.client = client
        self.store = store
        self.version = version
        self._hints = hints
        self.tls = tls.load(config.tls, Role.BACKEND, runtime.now)
        self.stop_requested = asyncio.Event()
        known = store.meta("node_id")
        seed = identity.load_seed(config.directory, runtime.entropy(identity.SEED_SIZE), first=known is None)
        self._secret = node_secret(seed)
        self.node_id = public_key(self._secret)
        identity.check_owner(known, self.node_id)
        self._watermark = Watermark(config.directory)
        is_copy = store.meta(COPY) is not None
        self._restored = accept_older and (is_copy or not self._watermark.vouches(store.found))
        if not accept_older:
            if is_copy:
                raise Refused(f"the database is a backup, and older than what it was taken of: {WARNING}")
            self._watermark.check(store.found)
        self.chain_hash = identity.CHAIN_HASHES[config.network]
        self.invoice_network = identity.INVOICE_NETWORKS[config.network]
        self.features = identity.FEATURES.to_bytes()
        self.dialling = dialling(config.tor)
        self.limits = Limits(
            flush_interval_s=config.flush_interval_s,
            silent_hold_s=SILENT_HOLD_S + (TAKEOVER_PERIODS * config.lease_s if config.database else 0.0),
        )
        self.epoch = store.epoch
        self._tasks: list[asyncio.Task[None]] = []
        self._listener: Listener | None = None
        self.callers = Callers()
        self._syncs = 0
        self._led_s = runtime.monotonic()
        self._is_silent = False  # because the lease ran out
        self.waits_for = ""  # before it has started
        self._build(identity.channel_seed(seed))
        self.chain: ChainDesk

    def _build(self, channel_seed: bytes) -> None:
        """Who needs whom; nothing runs yet."""
        runtime, config = self.runtime, self.config
        policy = Policy(max_dust_exposure_msat=config.channels.max_dust_exposure_msat)
        self.journal = Journal(runtime, self.store)
        self.channels = Channels(self.journal, self.store, channel_seed, self._secret, policy)
        self.graph = Graph(self.chain_hash)
        self.graph_ages = GraphAges()
        self.keeper = GraphKeeper(runtime, self.journal, self.graph, self)
        self.announcer = Announcer(
            runtime,
            self.journal,
            self.channels,
            self.keeper,
            config,
            self._secret,
            self.node_id,
            identity.FEATURES,
        )
        self.htlcs = Htlcs(self.channels, self.journal, self._secret, self.announcer.lookup)
        self.handshakes = Handshakes(
            runtime, self._secret, config.handshakes_per_s, elsewhere=config.handshakes == "frontend"
        )
        strangers = config.channels.max_peers_without_channels
        self.checkpoints = Checkpoints(self.journal, self.channels)
        self.switchboard = Switchboard(
            runtime, self.journal, self.channels, self.checkpoints, identity.FEATURES, strangers
        )
        self.leases = Leases(config.limits, self.switchboard.links)
        self.openings = Openings(
            runtime,
            self.journal,
            self.channels,
            identity.FEATURES,
            config.channels,
            self.chain_hash,
            lambda: self.chain.height,
            self._check_chain,
        )
        self.pathfinding = Pathfinding(self.graph, self.channels, self.node_id, runtime.now)
        self.receiving = Receiving(
            runtime, self.journal, self.htlcs, self.announcer, self._secret, self.invoice_network
        )
        self.sending = Sending(runtime, self.journal, self.channels, self.htlcs, self.pathfinding)
        self.dialler = Dialler(
            runtime,
            self.journal,
            self.switchboard,
            self.channels,
            self.handshakes,
            self.graph,
            lambda: config.reconnect and not self.stop_requested.is_set(),
        )
        self.commands = Commands(self)
        self._wire()

    def _wire(self) -> None:
        """Close the circles."""
        self.keeper.follow(self.pathfinding)
        self.channels.surroundings = self
        self.channels.desk = self.htlcs
        self.htlcs.payee = self.receiving
        self.htlcs.payer = self.sending
        self.receiving.node_id = self.node_id
        self.sending.channel_of = self.announcer.channel_of
        self.switchboard.opener = self.openings
        self.switchboard.gossip = self
        self.switchboard.dialling = self.dialling

    async def start(self) -> None:
        """Take up where the store left off, then let frontends in. Raises Refused."""
        found = await ChainStart(self.client, self.config, partial(setattr, self, "waits_for")).run()
        tip = found.state.tip
        poll_s = self.config.bitcoind.poll_interval_s
        watcher = ChainWatcher(self.client, tip, poll_s, self._hints)
        outlook = outlook_of(self.runtime, self.config, found.state, watcher)
        wallet = self.config.bitcoind.wallet
        fundings = Fundings(self.runtime, self.journal, self.channels, self.client, wallet)
        self.htlcs.missed_blocks = lambda: outlook.missed_blocks
        self.chain = ChainDesk(
            self.runtime,
            self.journal,
            self.channels,
            self.client,
            watcher,
            self,
            outlook,
            fundings,
            self.config.channels.feerate_per_kw,
        )
        self.openings.shutdown_script = found.wallet_script
        self._load()
        fundings.load(self.store, is_older=self._restored)
        if self._restored:
            self.store.commit([*self.channels.restored(), *self.checkpoints.restored()])
        identity.remember(self.store, self.node_id)
        self._resume(tip.height)
        self._watermark.note(self.node_id, self.store.position)
        spawn = self.runtime.spawn
        self._tasks = [
            spawn(self.journal.run(), "journal"),
            spawn(self.chain.run(), "chain"),
            spawn(self._sweep(), "sweep"),
        ]
        self._listener = await self.runtime.listen(self.config.link_address, self._link, tls=self.tls)
        log.info("started", node_id=self.node_id.hex(), height=tip.height, channels=len(self.channels.by_id))

    def _load(self) -> None:
        for part in (
            self.channels,
            self.htlcs,
            self.receiving,
            self.sending,
            self.chain,
            self.keeper,
            self.dialler,
            self.checkpoints,
            self.announcer,
        ):
            part.load(self.store)

    def _resume(self, height: int) -> None:
        self.htlcs.height = height
        self.switchboard.resume()
        self.channels.resume(height, self.switchboard.is_held)
        self.htlcs.resume()
        self.chain.resume()
        self.announcer.resume(self.channels.by_id.values())
        self.channels.resume_htlcs()
        self.sending.resume()

    async def stop(self) -> None:
        """Let nobody in, come to rest, make durable what was decided, then let go.

        Frontends hold their sessions for whoever leads next, unless a user asked for this stop and nobody else can.
        """
        returns = not self.stop_requested.is_set() or self.store.lease_left_s is not None
        self.stop_requested.set()
        self.htlcs.resting = self.sending.resting = self.handshakes.resting = True
        if self._listener is not None:
            self._listener.close()
        links = list(self.switchboard.links.values())
        for link in links:
            link.leave(returns=returns)
        settled = await self._rest() if self._tasks else False
        for link in links:
            link.close()
        if self._tasks:
            await asyncio.sleep(0)
            if settled:  # what the end of the links has changed
                await self._settle()
            with suppress(Ended):  # it may be why we end; an older note does no harm
                self._watermark.note(self.node_id, self.store.position)
        for task in self._tasks:
            task.cancel()
        self.store.close()

    @property
    def running(self) -> bool:
        """Whether it has started and can still store: without its journal nothing leaves it."""
        return self._listener is not None and not self._tasks[0].done()

    async def _rest(self) -> bool:
        """Leave sessions with their frontends where they can go on; whether all of that is durable."""
        if not self._tasks[0].done() and self.may_speak():
            await self.switchboard.rest()
            self.checkpoints.sweep()
        return await self._settle()

    async def _settle(self) -> bool:
        """Wait for the database, but not for one that is away; whether all is durable."""
        settled = asyncio.ensure_future(self.journal.settled())
        await asyncio.wait(
            (settled, self._tasks[0]), timeout=STOP_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED
        )
        done = settled.done()
        settled.cancel()
        return done

    def _link(self) -> FrontendLink:
        link = FrontendLink(self.runtime, self.switchboard, self, self.handshakes)
        self.callers.add(link, self.runtime.monotonic())
        return link

    @property
    def graph_sequence(self) -> int:
        return self.graph.sequence

    def may_speak(self) -> bool:
        try:
            return self.store.leads()
        except Ended:
            return False

    def _look_at_lease(self) -> None:
        """Also where nothing is to be stored or said. Raises Ended once another backend leads, or nobody for long."""
        now_s, led_s = self.runtime.monotonic(), self._led_s
        if self.store.leads():
            if self._is_silent:
                log.info("lease_renewed")
            self._led_s, self._is_silent = now_s, False
            return
        if not self._is_silent:
            log.error("lease_ran_out", remedy="is the database away?")
        self._is_silent = True
        if now_s - led_s > MAX_AWAY_S:
            raise Ended("the lease ran out and can't be renewed; nothing is lost: is the database away?")

    async def _sweep(self) -> None:
        """One timer for all that is merely due."""
        turn = 0
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            turn += 1
            self._look_at_lease()
            self.receiving.sweep()
            self.sending.sweep()
            self.switchboard.sweep()
            self.dialler.sweep()
            self.openings.sweep()
            if turn % BEAT_EVERY == 0:
                self.switchboard.beat()
                self.leases.beat()
                self.chain.outlook.sweep()
                self.graph_ages.sample(self.runtime.monotonic(), self.graph.sequence)
                self.callers.sweep(self.runtime.monotonic())
                if self.tls is not None:
                    self.tls.sweep()
            if turn % LOOK_EVERY == 0:
                self.runtime.spawn(self.chain.look(), "look")
            if turn % SLOW_EVERY == 0:
                self.announcer.sweep()
            if turn % NOTE_EVERY == 0:
                note = partial(self._watermark.note, self.node_id, self.store.position)
                await self.runtime.run_blocking("watermark", note)

    def _check_chain(self) -> None:
        """Raises Refused where the chain is in no state for new channels."""
        self.chain.outlook.check_channels()

    # Surroundings of channels

    def session_of(self, node_id: bytes) -> Session | None:
        return self.switchboard.session_of(node_id)

    def end_session(self, node_id: bytes, reason: str) -> None:
        self.switchboard.end_session(node_id, reason)

    def fund(self, record: Record, effect: fx.Fund) -> None:
        self.chain.fund(record, effect)

    def release_funding(self, tx: bytes) -> None:
        self.chain.release_funding(tx)

    def watch_funding(self, record: Record, effect: fx.WatchFunding) -> None:
        self.chain.watch_funding(record, effect)

    def publish(self, tx: bytes, why: str) -> None:
        self.chain.publish(tx, why)

    def replied(self, reply: fx.Reply) -> None:
        self.openings.replied(reply)

    def ready(self, record: Record) -> None:
        self.switchboard.has_channel(record.node_id)
        self.announcer.ready(record, self.switchboard.session_of(record.node_id))

    def announced(self, record: Record, effect: fx.Announce) -> None:
        self.announcer.announced(record, effect)
        if record.channel.short_channel_id is not None:
            self.chain.watch_public(record.channel.short_channel_id)

    def closed(self, record: Record, reason: str) -> None:
        self.announcer.forget(record)
        if record.channel.channel_id not in self.channels.by_id:
            self.chain.forget(record)

    # GossipOffice of the switchboard, Outputs of the graph

    def offered(self, link: FrontendLink, number: int, raw: bytes) -> None:
        self.keeper.offered(link, number, raw)

    def graph_wanted(self, link: FrontendLink, after: int) -> None:
        if after >= FROM_START:  # it has just come: its shares are there before its port opens
            self.leases.beat()
        self.keeper.wanted(link, after)

    def link_down(self, link: FrontendLink) -> None:
        self.keeper.link_down(link)

    def private_update(self, record: Record, message: ChannelUpdate, raw: bytes) -> None:
        self.announcer.learn_terms(record, message)

    def peer_ready(self, session: Session) -> bool:
        """A few peers are asked for everything; a small graph asks every new peer, so that it grows."""
        if not session.features.supports(Feature.GOSSIP_QUERIES):
            return False
        self._syncs += 1
        return self._syncs <= MAX_SYNCS or len(self.graph.channels) < SMALL_GRAPH

    async def funding_output(self, channel: ChannelFields) -> FundingOutput | None:
        if self._assumes(channel):
            return assumed_funding(channel, len(self.graph.channels))
        return await self.chain.funding_output(channel.short_channel_id)

    def watch_public(self, channel: ChannelFields) -> None:
        if not self._assumes(channel):
            self.chain.watch_public(channel.short_channel_id)

    def _assumes(self, channel: ChannelFields) -> bool:
        """Whether the chain is not asked about this channel; about our own it always is."""
        return self.config.assume_channels_valid and self.node_id not in (
            channel.node_id_1,
            channel.node_id_2,
        )

    # Audience of the chain

    def tip(self, height: int) -> None:
        self.htlcs.height = height
        self.keeper.prune(height)

    def public_spent(self, short_channel_id: int, height: int | None) -> None:
        self.keeper.spent(short_channel_id, height)
