"""Between the channels and the chain: funding, watching, publishing, blocks."""

import asyncio
from typing import Protocol, assert_never

from node.backend.chain_client import ChainClient, ChainUnavailable, RpcError
from node.backend.chain_watcher import ChainWatcher
from node.backend.channel_lookup import ChannelLookup
from node.backend.channels import Channels, Record
from node.backend.fundings import Fundings
from node.backend.journal import Journal
from node.backend.outlook import Outlook
from node.backend.store import Store
from node.backend.watches import Confirmed, News, NewTip, Spent, Unconfirmed, Unspent
from node.bitcoin.transaction import parse, txid
from node.channel import effects as fx
from node.channel import events as ev
from node.channel.model import ENDED
from node.errors import Refused
from node.gossip.validation import FundingOutput
from node.runtime import logs
from node.runtime.runtime import Runtime

TRIED_S = 10.0  # a bitcoind that is away gets it later; who asked need not wait for that
MAX_PUBLISH_BLOCKS = 2_016  # a transaction that the chain refuses for two weeks will never be wanted
FEE_TARGET_BLOCKS = 6
FEE_CHANGE = 1.25  # an update_fee is worth its commitment when the rate is off by this factor
ANCHOR_FEERATE_PER_KW = 2_500  # enough to be relayed; anchors bring the rest when it is needed
MIN_FEERATE_PER_KW = 253  # what nodes relay, one satoshi a virtual byte, after their rounding of weights
FLOOR_FEERATE_PER_KW = 253  # Bitcoin Core's relay minimum, rounded up: peers refuse less
ALREADY_IN_CHAIN = -27

MUTUAL_CLOSE = "mutual close"

FUNDING, SPENDING, PUBLIC = b"funding", b"spending", b"public"

log = logs.get("chain")


class Audience(Protocol):
    """Who else wants to hear of the chain."""

    def tip(self, height: int) -> None: ...
    def public_spent(self, short_channel_id: int, height: int | None) -> None: ...


class ChainDesk:
    """The chain's part of `channels.Surroundings`, and `graph_keeper.Outputs`."""

    def __init__(
        self,
        runtime: Runtime,
        journal: Journal,
        channels: Channels,
        client: ChainClient,
        watcher: ChainWatcher,
        audience: Audience,
        outlook: Outlook,
        fundings: Fundings,
        default_feerate_per_kw: int,
    ) -> None:
        self._runtime = runtime
        self._journal = journal
        self._channels = channels
        self._client = client
        self._watcher = watcher
        self._audience = audience
        self.outlook = outlook
        self.fundings = fundings
        self._looking = False
        self._lookup = ChannelLookup(client)
        self._publishing: dict[bytes, tuple[bytes, str, int]] = {}  # txid -> transaction, why, tries
        self._first_tries: dict[bytes, asyncio.Task[None]] = {}  # txid -> until it is answered
        self._public: dict[int, tuple[bytes, int]] = {}
        self.height = watcher.tip.height
        self.feerate_per_kw = default_feerate_per_kw
        self._default_feerate_per_kw = default_feerate_per_kw

    @property
    def failure(self) -> str | None:
        """Why the chain can't be followed, while it can't."""
        return self._watcher.failure

    @property
    def unconfirmed(self) -> int:
        """Transactions of ours that are not in a block yet."""
        return len(self._publishing)

    def load(self, store: Store) -> None:
        for raw, why in store.rows("SELECT tx, why FROM publishes"):
            assert isinstance(raw, bytes)
            self._publishing[txid(raw)] = (raw, str(why), 0)

    def resume(self) -> None:
        """After a restart: every channel's funding is watched again."""
        for record in list(self._channels.by_id.values()):
            funding = record.channel.funding
            if funding is not None:
                self.watch_funding(record, fx.WatchFunding(funding.txid, funding.output_index))

    async def run(self) -> None:
        """Follow the chain for ever."""
        self._publish_again()
        self.fundings.sweep()
        async for news in self._watcher.events():
            self._news(news)

    async def look(self) -> None:
        """See how far the chain's server is: it may answer, and be far behind."""
        if self._looking:
            return
        self._looking = True
        try:
            state = await self._client.state()
        except Refused as error:
            log.debug("not_seen", error=str(error))
        else:
            self.outlook.answered(state.headers - state.tip.height, downloading=state.downloading)
        finally:
            self._looking = False

    # news

    def _news(self, news: News) -> None:
        match news:
            case NewTip(height):
                self._tip(height)
            case Confirmed((kind, channel_id), height, tx_index, tx) if kind == FUNDING:
                self._funding_confirmed(channel_id, height, tx_index, tx)
            case Unconfirmed((kind, channel_id)) if kind == FUNDING:
                self._apply(channel_id, ev.FundingUnconfirmed())
            case Spent((kind, channel_id), tx, _, height) if kind == SPENDING:
                self._apply(channel_id, ev.FundingSpent(tx, height or 0))
            case Spent((kind, scid), _, _, height) if kind == PUBLIC and isinstance(scid, int):
                if height is not None:
                    self._audience.public_spent(scid, height)
            case Unspent((kind, channel_id)) if kind == SPENDING:
                self._spend_undone(channel_id)
            case Unspent((kind, scid)) if kind == PUBLIC and isinstance(scid, int):
                self._audience.public_spent(scid, None)
            case Confirmed() | Unconfirmed() | Spent() | Unspent():
                pass  # of a channel that is gone
            case _:
                assert_never(news)

    def _tip(self, height: int) -> None:
        self.height = height
        self.outlook.block_came()
        self._audience.tip(height)
        self._channels.apply_all(self._channels.by_id.values(), ev.Block(height))
        self._publish_again()
        self.fundings.sweep()
        self._runtime.spawn(self._fees(), "fees")

    def _funding_confirmed(self, channel_id: object, height: int, tx_index: int, tx: bytes) -> None:
        record = self._channels.by_id.get(channel_id) if isinstance(channel_id, bytes) else None
        if record is None or record.channel.funding is None:
            return
        outputs = parse(tx).outputs
        index = record.channel.funding.output_index
        script, sat = (outputs[index].script, outputs[index].sat) if index < len(outputs) else (b"", 0)
        self._channels.apply(record, ev.FundingConfirmed(height, tx_index, script, sat))

    def _spend_undone(self, channel_id: object) -> None:
        """A reorganisation took the close's block away: it counts as unconfirmed again."""
        record = self._channels.by_id.get(channel_id) if isinstance(channel_id, bytes) else None
        if record is not None and record.channel.spent is not None:
            self._channels.apply(record, ev.FundingSpent(record.channel.spent.tx, 0))

    def _apply(self, channel_id: object, event: ev.Event) -> None:
        record = self._channels.by_id.get(channel_id) if isinstance(channel_id, bytes) else None
        if record is not None:
            self._channels.apply(record, event)

    # fees

    async def _fees(self) -> None:
        """What a commitment should pay now, and the channels that we pay for brought up to it."""
        try:
            estimate = await self._client.fee_estimate(FEE_TARGET_BLOCKS)
        except Refused as error:
            log.debug("no_fee_estimate", error=str(error))
            return
        self.feerate_per_kw = max(estimate or self._default_feerate_per_kw, MIN_FEERATE_PER_KW)
        for record in list(self._channels.by_id.values()):
            channel = record.channel
            if not channel.is_opener or channel.local_commit is None or channel.phase in ENDED:
                continue
            wanted = self.commitment_feerate(anchors=channel.type.anchors)
            now = channel.local_commit.feerate_per_kw
            if not now / FEE_CHANGE < wanted < now * FEE_CHANGE:
                self._channels.apply(record, ev.UpdateFee(wanted))

    def commitment_feerate(self, *, anchors: bool) -> int:
        return min(self.feerate_per_kw, ANCHOR_FEERATE_PER_KW) if anchors else self.feerate_per_kw

    # funding

    def fund(self, record: Record, effect: fx.Fund) -> None:
        self.fundings.fund(record, effect, self.feerate_per_kw)

    def release_funding(self, tx: bytes) -> None:
        self.fundings.release(tx)

    def watch_funding(self, record: Record, effect: fx.WatchFunding) -> None:
        channel = record.channel
        since = channel.funding.first_height if channel.funding is not None else self.height
        self._watcher.watch_confirmed(
            (FUNDING, channel.channel_id), min_depth=1, since_height=since, txid=effect.txid
        )
        self._watcher.watch_spent(
            (SPENDING, channel.channel_id), effect.txid, effect.output_index, since_height=since
        )

    def forget(self, record: Record) -> None:
        self._watcher.forget((FUNDING, record.channel.channel_id))
        self._watcher.forget((SPENDING, record.channel.channel_id))

    # publishing

    def publish(self, tx: bytes, why: str) -> None:
        """Now, and at every block until it is in one; the row is in the store already."""
        name = txid(tx)
        self._publishing[name] = (tx, why, 0)
        self.fundings.published(tx)
        task = self._first_tries[name] = self._runtime.spawn(self._publish(name), "publish")
        task.add_done_callback(lambda _: self._first_tries.pop(name, None))

    async def tried(self, name: bytes) -> None:
        """Until bitcoind has answered to this transaction for the first time, or has not within TRIED_S."""
        task = self._first_tries.get(name)
        if task is not None:
            await asyncio.wait({task}, timeout=TRIED_S)

    def _publish_again(self) -> None:
        for name in list(self._publishing):
            self._runtime.spawn(self._publish(name), "publish")

    async def _publish(self, name: bytes) -> None:
        entry = self._publishing.get(name)
        if entry is None:
            return
        tx, why, tries = entry
        self._publishing[name] = (tx, why, tries + 1)
        try:
            await self._client.send_raw_transaction(tx)
        except RpcError as error:
            if error.code == ALREADY_IN_CHAIN or tries > MAX_PUBLISH_BLOCKS:
                self._publishing.pop(name, None)
                self._journal.write("DELETE FROM publishes WHERE txid = ?", name)
            elif tries == 0 and why != MUTUAL_CLOSE:  # of two that both sign, one is enough
                log.warning("not_published", txid=name[::-1].hex(), why=why, error=str(error))
        except ChainUnavailable as error:
            log.warning("chain_unavailable", error=str(error))

    # the graph

    async def funding_output(self, short_channel_id: int) -> FundingOutput | None:
        try:
            found = await self._lookup.lookup_channel(short_channel_id)
        except Refused as error:  # a stranger chose the block: bitcoind may have pruned it
            log.debug("not_looked_up", error=str(error))
            return None
        if found is None or not found.unspent:
            return None
        self._public[short_channel_id] = (found.txid, found.vout)
        return FundingOutput(found.script, found.sat, self.height - (short_channel_id >> 40) + 1)

    def watch_public(self, short_channel_id: int) -> None:
        """Hear when a public channel's output is spent."""
        place = self._public.pop(short_channel_id, None)
        if place is None:
            self._runtime.spawn(self._look_and_watch(short_channel_id), "watch")
            return
        self._watcher.watch_spent((PUBLIC, short_channel_id), *place, since_height=self.height, mempool=False)

    async def _look_and_watch(self, short_channel_id: int) -> None:
        """Of a channel that was in the store: it may have been spent while we were away."""
        try:
            found = await self._lookup.lookup_channel(short_channel_id)
        except Refused as error:
            log.warning("not_looked_up", error=str(error))
            return
        if found is None or not found.unspent:
            self._audience.public_spent(short_channel_id, self.height)
            return
        self._watcher.watch_spent(
            (PUBLIC, short_channel_id), found.txid, found.vout, since_height=self.height, mempool=False
        )
