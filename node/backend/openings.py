"""New channels: those that peers ask for, bounded before any work is done, and our own."""

import asyncio
from collections.abc import Callable

from node.backend.channels import Channels, Record
from node.backend.journal import Journal
from node.backend.session import Session
from node.channel import effects as fx
from node.channel import events as ev
from node.channel.model import OPENING, Phase
from node.channel.opening import open_incoming, open_outgoing
from node.channel.parameters import LocalParams, OpenRequest, Terms, negotiated
from node.errors import Refused
from node.runtime import logs
from node.runtime.config import ChannelConfig
from node.runtime.runtime import Runtime
from node.wire import bolt1, bolt2
from node.wire.features import ChannelType, Features

OPEN_TIMEOUT_S = 60.0  # from open_channel to the published funding transaction
# Aliases look like ids of blocks that the chain will not reach for a century, and fit into a signed 64-bit integer.
FIRST_ALIAS = 0x700000 << 40
ALIASES = 0x0FFFFF << 40

log = logs.get("open")


class Openings:
    """Implements `switchboard.Opener`."""

    def __init__(
        self,
        runtime: Runtime,
        journal: Journal,
        channels: Channels,
        features: Features,
        config: ChannelConfig,
        chain_hash: bytes,
        height: Callable[[], int],
        check_chain: Callable[[], None],
    ) -> None:
        """`check_chain` raises Refused where the chain is in no state for new channels."""
        self._runtime = runtime
        self._journal = journal
        self._channels = channels
        self._features = features
        self._config = config
        self._height = height
        self._check_chain = check_chain
        self._commands: dict[int, asyncio.Future[fx.Reply]] = {}
        self._next_command = 0
        # temporary_channel_id -> until when its funding_created may come
        self._waiting: dict[bytes, float] = {}
        self._chain_hash = chain_hash
        self.shutdown_script = b""  # of the wallet; the backend sets it before anybody is connected

    # theirs

    def open_channel(self, session: Session, message: bolt2.OpenChannel) -> None:
        """A peer wants a channel: counted before anything else (security: fake channels)."""
        why = self._unwelcome(session.node_id, message.temporary_channel_id)
        if why is not None:
            session.post(self._journal, bolt1.Error(message.temporary_channel_id, why.encode()))
            return
        key_index, keys = self._channels.new_keys()
        channel, effects = open_incoming(message, self._terms(session), keys, self._channels.policy)
        if channel is None:
            for effect in effects:
                if isinstance(effect, fx.Send):
                    session.post(self._journal, effect.message)
            return
        self._waiting[message.temporary_channel_id] = self._runtime.monotonic() + OPEN_TIMEOUT_S
        self._channels.add(channel, keys, key_index, effects)

    def sweep(self) -> None:
        """Places for pending channels are few: who asks for one and then says nothing gives it up."""
        now_s = self._runtime.monotonic()
        late = [channel_id for channel_id, until_s in self._waiting.items() if until_s < now_s]
        for temporary_channel_id in late:
            del self._waiting[temporary_channel_id]
            record = self._channels.by_id.get(temporary_channel_id)
            if record is not None and record.channel.phase is Phase.FUNDING_CREATED:
                self._channels.apply(record, ev.Abandon("no funding_created in time"))

    def _unwelcome(self, node_id: bytes, temporary_channel_id: bytes) -> str | None:
        # of any peer: permanent ids can be told from the chain, and nobody may take the place of another's channel
        if temporary_channel_id in self._channels.by_id:
            return "this temporary_channel_id is in use"
        try:
            self._check_chain()
        except Refused as error:
            return str(error)
        pending = [r for r in self._channels.by_id.values() if not r.channel.is_opener and _is_pending(r)]
        if sum(record.node_id == node_id for record in pending) >= self._config.max_pending_per_peer:
            return "too many of your channels are pending"
        if len(pending) >= self._config.max_pending:
            return "too many channels are pending"
        return None

    # ours

    async def open(
        self,
        session: Session,
        *,
        funding_sat: int,
        push_msat: int,
        feerate_per_kw: int,
        announce: bool,
        kind: ChannelType | None,
    ) -> Record:
        """A channel of our own, its funding transaction published. Raises Refused."""
        self._check_chain()
        request = OpenRequest(
            command_id=self.new_command(),
            temporary_channel_id=self._runtime.entropy(32),
            funding_sat=funding_sat,
            push_msat=push_msat,
            feerate_per_kw=feerate_per_kw,
            announce=announce,
            type=kind,
        )
        key_index, keys = self._channels.new_keys()
        channel, effects = open_outgoing(request, self._terms(session), keys, self._channels.policy)
        if channel is None:
            refusals = [effect.error for effect in effects if isinstance(effect, fx.Reply) and effect.error]
            raise Refused(refusals[0] if refusals else "refused")
        reply = self.expect(request.command_id)
        record = self._channels.add(channel, keys, key_index, effects)
        try:
            await self.answer(reply, OPEN_TIMEOUT_S)
        except TimeoutError:
            self._channels.apply(record, ev.Abandon("the peer did not answer in time"))
            raise Refused("the peer did not answer in time") from None
        return record

    # commands: every one is answered by a Reply with its id

    def new_command(self) -> int:
        self._next_command += 1
        return self._next_command

    def expect(self, command_id: int) -> asyncio.Future[fx.Reply]:
        future: asyncio.Future[fx.Reply] = asyncio.get_running_loop().create_future()
        self._commands[command_id] = future
        future.add_done_callback(lambda _: self._commands.pop(command_id, None))
        return future

    async def answer(self, future: asyncio.Future[fx.Reply], timeout_s: float) -> fx.Reply:
        """The reply to a command. Raises Refused with its error, TimeoutError."""
        async with asyncio.timeout(timeout_s):
            reply = await future
        if reply.error is not None:
            raise Refused(reply.error)
        return reply

    def replied(self, reply: fx.Reply) -> None:
        future = self._commands.get(reply.command_id)
        if future is not None and not future.done():
            future.set_result(reply)

    def _terms(self, session: Session) -> Terms:
        config = self._config
        params = LocalParams(
            chain_hash=self._chain_hash,
            max_htlc_value_in_flight_msat=config.max_htlc_value_in_flight_msat,
            htlc_minimum_msat=config.htlc_minimum_msat,
            to_self_delay=config.to_self_delay,
            max_accepted_htlcs=config.max_accepted_htlcs,
            minimum_depth=config.minimum_depth,
            shutdown_script=self.shutdown_script,
        )
        return Terms(
            remote_node_id=session.node_id,
            params=params,
            features=negotiated(self._features, session.features),
            alias=FIRST_ALIAS + int.from_bytes(self._runtime.entropy(8), "big") % ALIASES,
            height=self._height(),
        )


def _is_pending(record: Record) -> bool:
    """Whether a channel holds one of the places of those that may never exist."""
    phase = record.channel.phase
    return phase in OPENING or (phase is Phase.FUNDING_CONFIRMED and record.channel.depth == 0)
