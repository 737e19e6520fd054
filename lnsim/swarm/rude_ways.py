"""How to misbehave past the init messages: each way goes on until the node has had enough."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import cache

from lnsim.swarm.connection import Connection
from lnsim.swarm.crowd import SECRET_SIZE, Place, Recorder
from lnsim.swarm.sync import EVER
from node.crypto.keys import public_key
from node.gossip.queries import WANT_CHECKSUMS, WANT_TIMESTAMPS, encode_ids
from node.peer.session import NO_PONG
from node.runtime.runtime import Runtime
from node.wire import bolt1, bolt2, bolt7
from node.wire.codec import encode
from node.wire.features import Feature, Features
from node.wire.fields import MAX_MESSAGE_SIZE

AGAIN_S = 0.1  # between two bursts of a flood
PINGS_AT_ONCE = 20
QUERIES_AT_ONCE = 5
SIGN_OF_LIFE_S = 2.0  # a connection that is not read shows its end only to who writes
MAX_QUERIED_IDS = (MAX_MESSAGE_SIZE - 37) // 8  # behind type, chain hash, length and encoding
_ERROR = bolt1.Error.number.to_bytes(2, "big")


class RudePeer:
    """Implements `connection.Owner`."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.ended = asyncio.Event()
        self.was_ready = False

    def ready(self) -> None:
        self.was_ready = True

    def received(self, raw: bytes) -> None:
        if raw[:2] == _ERROR:
            self._recorder.count("rude.errors")

    def ponged(self, as_asked: bool) -> None: ...

    def lost(self) -> None:
        self.ended.set()


async def _again(peer: RudePeer, every_s: float, act: Callable[[], None]) -> None:
    """Until the node has had enough."""
    while not peer.ended.is_set():
        act()
        try:
            async with asyncio.timeout(every_s):
                await peer.ended.wait()
        except TimeoutError:
            continue


async def _slow_reader(connection: Connection, peer: RudePeer, place: Place, runtime: Runtime) -> None:
    connection.stop_reading()
    ask_for_all = encode(bolt7.QueryChannelRange(place.chain_hash, 0, EVER))
    connection.send((place.filter(0), ask_for_all))
    unanswered = encode(bolt1.Ping(NO_PONG, b""))
    await _again(peer, SIGN_OF_LIFE_S, lambda: connection.send((unanswered,)))


async def _ping_flood(connection: Connection, peer: RudePeer, place: Place, runtime: Runtime) -> None:
    pings = (encode(bolt1.Ping(NO_PONG - 1, b"")),) * PINGS_AT_ONCE
    await _again(peer, AGAIN_S, lambda: _flood(connection, pings))


async def _oversized_query(connection: Connection, peer: RudePeer, place: Place, runtime: Runtime) -> None:
    everything = bolt7.QueryChannelRange(
        place.chain_hash, 0, EVER, query_option=WANT_TIMESTAMPS | WANT_CHECKSUMS
    )
    queries = (encode(everything), _query_for_all(place.chain_hash)) * QUERIES_AT_ONCE
    await _again(peer, AGAIN_S, lambda: _flood(connection, queries))


async def _fake_open(connection: Connection, peer: RudePeer, place: Place, runtime: Runtime) -> None:
    connection.send((encode(_open_channel(place.chain_hash, runtime)),))
    await peer.ended.wait()


def _flood(connection: Connection, raws: tuple[bytes, ...]) -> None:
    """A node that does not read any more holds up what we send: that much stays in our memory, and no more."""
    if connection.writable:
        connection.send(raws)


@cache
def _query_for_all(chain_hash: bytes) -> bytes:
    """For as many ids as a message holds, of channels that there are not."""
    return encode(bolt7.QueryShortChannelIds(chain_hash, encode_ids(range(1, MAX_QUERIED_IDS + 1))))


def _open_channel(chain_hash: bytes, runtime: Runtime) -> bolt2.OpenChannel:
    """One that a node takes: it waits for the funding, which never comes."""
    points = [public_key(runtime.entropy(SECRET_SIZE)) for _ in range(6)]
    channel_type = Features.of(compulsory=(Feature.OPTION_STATIC_REMOTEKEY,))
    return bolt2.OpenChannel(
        chain_hash,
        temporary_channel_id=runtime.entropy(32),
        funding_satoshis=1_000_000,
        push_msat=0,
        dust_limit_satoshis=354,
        max_htlc_value_in_flight_msat=1_000_000_000,
        channel_reserve_satoshis=10_000,
        htlc_minimum_msat=1,
        feerate_per_kw=2_500,
        to_self_delay=144,
        max_accepted_htlcs=30,
        funding_pubkey=points[0],
        revocation_basepoint=points[1],
        payment_basepoint=points[2],
        delayed_payment_basepoint=points[3],
        htlc_basepoint=points[4],
        first_per_commitment_point=points[5],
        channel_flags=0,
        channel_type=channel_type.to_bytes(),
    )


Way = Callable[[Connection, RudePeer, Place, Runtime], Awaitable[None]]
WAYS: dict[str, Way] = {
    "slow_reader": _slow_reader,
    "ping_flood": _ping_flood,
    "oversized_query": _oversized_query,
    "fake_open": _fake_open,
}
