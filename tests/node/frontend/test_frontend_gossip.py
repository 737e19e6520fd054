"""BOLT 7 at the frontend, between real peers and a backend whose verdicts the test gives."""

import pytest
from msgspec.structs import replace
from noise_client import INIT, Site
from scripted_backend import OfferFrame

from lnsim.graph_generator import REGTEST, message_of, node_secret
from node.crypto.hashes import hash256
from node.crypto.keys import public_key, sign
from node.gossip.queries import decode_ids, encode_ids
from node.gossip.validation import Verdict
from node.link import frames
from node.link.messages import GraphWanted, StartSync
from node.wire import bolt7
from node.wire.codec import decode, encode

EVERYTHING = encode(bolt7.GossipTimestampFilter(REGTEST, 0, 0xFFFF_FFFF))
NEWS = encode(bolt7.GossipTimestampFilter(REGTEST, 1, 0xFFFF_FFFF))


@pytest.fixture
async def lively(site: Site) -> Site:
    """Gossip goes on within milliseconds."""
    site.backend.limits = replace(site.backend.limits, flush_interval_s=0.01)
    return site


async def test_an_announcement_of_two_peers_is_offered_once_and_both_are_answered(site: Site, small):
    frontend = await site.open()
    ann, a = await site.peer("ann")
    bob, b = await site.peer("bob")
    raw = message_of(small[0])
    for client in (ann, bob):
        client.send(raw)
        await client.pinged()
    connections = [frontend.connections[ready.session] for ready in (a, b)]
    assert [connection.unanswered for connection in connections] == [1, 1]
    (offer,) = site.backend.heard.of(OfferFrame)
    assert (offer.session, offer.raw) == (a.session, raw)
    site.backend.verdict(offer.number, Verdict.NOT_ON_CHAIN)
    await site.peer("cyd")
    assert [connection.unanswered for connection in connections] == [0, 0]


async def test_what_is_in_the_graph_is_not_offered(site: Site, small):
    site.backend.knows(small)
    await site.open()
    client, _ = await site.peer("ann")
    client.send(*map(message_of, small))
    await client.pinged()
    assert site.backend.heard.of(OfferFrame) == []


async def test_a_newer_announcement_of_a_known_node_is_offered_and_an_older_is_not(site: Site, small):
    site.backend.knows(small)
    await site.open()
    client, _ = await site.peer("ann")
    known = decode(message_of(small[-1]))
    secret = next(s for s in (node_secret(7, n) for n in range(4)) if public_key(s) == known.node_id)

    def announced(timestamp):
        body = encode(replace(known, timestamp=timestamp))[66:]
        return b"\x01\x01" + sign(secret, hash256(body)) + body

    client.send(announced(known.timestamp - 1), newer := announced(known.timestamp + 1))
    await client.pinged()
    assert [offer.raw for offer in site.backend.heard.of(OfferFrame)] == [newer]


async def test_a_gap_in_the_changes_is_refilled(site: Site, small):
    site.backend.knows(small[:3])
    frontend = await site.open()
    site.backend.graph += small[3:6]
    site.backend.sequence += 2
    site.backend.write(frames.graph(5, b""))
    (_, wanted) = await site.backend.heard.first(GraphWanted, 2)
    assert wanted.after == 3
    await site.peer("ann")
    assert frontend.gossip.current


async def test_a_wrong_signature_brings_a_warning_and_the_session_goes_on(site: Site, small):
    await site.open()
    client, _ = await site.peer("ann")
    raw = bytearray(message_of(small[0]))
    raw[10] ^= 1
    client.send(bytes(raw))
    assert await client.warning() == "gossip: invalid_signature"
    await client.pinged()


async def test_forged_signatures_have_a_rate(site: Site, small):
    site.backend.limits = replace(site.backend.limits, queries_per_s=1.0)
    frontend = await site.open()
    client, ready = await site.peer("ann")
    raw = bytearray(message_of(small[0]))
    raw[10] ^= 1
    client.send(*[bytes(raw)] * 8)
    await client.of_type(1, 8)
    assert frontend.connections[ready.session]._holds


@pytest.mark.parametrize("kind", [256, 257, 258, 261, 263, 265])
async def test_gossip_that_does_not_decode_ends_that_session_only(site: Site, kind: int):
    await site.open()
    kept, _ = await site.peer("bob")
    client, ready = await site.peer("ann")
    client.send(kind.to_bytes(2, "big") + bytes(5))
    await client.warning()
    await client.closed()
    assert await site.backend.ended(ready.session)
    await kept.pinged()


async def test_queries_are_answered_from_the_copy(site: Site, small):
    site.backend.knows(small)
    frontend = await site.open()
    client, _ = await site.peer("ann")
    scids = sorted(frontend.gossip.graph.channels)
    client.send(encode(bolt7.QueryChannelRange(REGTEST, 0, 0xFFFF_FFFF)))
    (reply,) = await client.of_type(264)
    assert list(decode_ids(decode(reply).encoded_short_ids)) == scids
    client.send(encode(bolt7.QueryShortChannelIds(REGTEST, encode_ids(scids[:1]))))
    await client.of_type(262)
    assert frontend.gossip.graph.channels[scids[0]].announcement in client.messages
    other, _ = await site.peer("bob")
    other.send(EVERYTHING)
    for delta in small:
        await other.gets(message_of(delta))


async def test_news_reaches_others_and_never_its_origin(lively: Site, small):
    await lively.open()
    ann, _ = await lively.peer("ann")
    bob, _ = await lively.peer("bob")
    for client in (ann, bob):
        client.send(NEWS)
        await client.pinged()
    raw, update = message_of(small[0]), message_of(small[1])
    ann.send(raw)
    (offer,) = await lively.backend.heard.first(OfferFrame)
    ann.send(update)  # early: held until the channel's verdict
    await ann.pinged()
    assert len(lively.backend.heard.of(OfferFrame)) == 1
    lively.backend.verdict(offer.number, Verdict.ACCEPTED)
    lively.backend.change(small[0])
    (_, second) = await lively.backend.heard.first(OfferFrame, 2)
    assert second.raw == update
    lively.backend.verdict(second.number, Verdict.ACCEPTED)
    lively.backend.change(small[1])
    await bob.gets(update)
    assert raw in bob.messages
    assert raw not in ann.messages
    assert update not in ann.messages


async def test_announcements_of_this_node_ignore_filters_and_wait_for_init(lively: Site, small):
    fields = decode(message_of(small[0]))
    lively.backend.node_id, real = fields.node_id_1, lively.backend.node_id
    await lively.start()
    await lively.listening()
    lively.backend.node_id = real
    early = await lively.connect("early")
    await early.established()
    ann, _ = await lively.peer("ann")
    lively.backend.change(*small[:3])
    await ann.gets(message_of(small[0]))
    assert [raw for raw in early.messages if raw[:1] == b"\1"] == []
    early.send(INIT)
    await early.gets(message_of(small[0]))


async def test_a_sync_asks_for_what_there_is_then_for_what_is_missing_then_for_news(site: Site, small):
    await site.open()
    client, ready = await site.peer("ann")
    site.backend.send(StartSync(ready.session))
    (asked,) = await client.of_type(263)
    assert decode(asked).chain_hash == REGTEST
    scid = decode(message_of(small[0])).short_channel_id
    client.send(encode(bolt7.ReplyChannelRange(REGTEST, 0, 0xFFFF_FFFF, 1, encode_ids((scid,)))))
    (wanted,) = await client.of_type(261)
    assert decode_ids(decode(wanted).encoded_short_ids) == (scid,)
    client.send(encode(bolt7.ReplyShortChannelIdsEnd(REGTEST, 1)))
    await client.of_type(265)


async def test_a_question_left_open_by_one_backend_is_put_to_the_next(site: Site, small):
    await site.open()
    ann, _ = await site.peer("ann")
    ann.send(message_of(small[0]))
    await site.backend.heard.first(OfferFrame)
    site.backend.hang_up()
    offers = await site.backend.heard.first(OfferFrame, 2)
    assert offers[0].raw == offers[1].raw
    assert offers[0].number != offers[1].number
