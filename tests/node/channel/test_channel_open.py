"""BOLT 2, channel establishment: what is asked, what is accepted, what is refused."""

import msgspec
import pytest
from channel_pair import ANCHORS, CHAIN, FEATURES, HEIGHT, STATIC, End, Pair, params

from node.bitcoin import transaction
from node.channel import effects as fx
from node.channel.events import (
    Abandon,
    Block,
    Connected,
    Disconnected,
    Funded,
    FundingConfirmed,
    FundingUnconfirmed,
    Received,
)
from node.channel.model import Phase
from node.channel.opening import open_incoming, open_outgoing, output_script
from node.channel.parameters import OpenRequest, Policy, negotiated
from node.wire import bolt1, bolt2
from node.wire.bolt7 import AnnouncementSignatures
from node.wire.features import ChannelType, Feature, Features


def replace(value, **changes):
    return msgspec.structs.replace(value, **changes)


def test_the_flow_is_that_of_the_bolt():
    pair = Pair().ready(announce=True)
    assert pair.transcript[:4] == [
        "alice: OpenChannel",
        "bob: AcceptChannel",
        "alice: FundingCreated",
        "bob: FundingSigned",
    ]
    assert sorted(pair.transcript[4:]) == [
        "alice: AnnouncementSignatures",
        "alice: ChannelReady",
        "bob: AnnouncementSignatures",
        "bob: ChannelReady",
    ]
    assert fx.Reply(1, value=pair.alice.channel.channel_id) in pair.alice.log
    assert pair.alice.told(fx.Announce) == pair.bob.told(fx.Announce) != []
    assert pair.alice.channel.short_channel_id == (HEIGHT + 1) << 40 | 7 << 16
    assert pair.alice.channel.remote_alias == pair.bob.channel.alias
    assert pair.alice.channel.local_msat == 600_000_000


def test_the_funding_is_published_only_once_the_peer_has_signed_our_way_out():
    pair = Pair().open()
    pair.settle(until=lambda: pair.transcript[-1:] == ["alice: FundingCreated"])
    assert not pair.alice.told(fx.Publish)
    assert pair.alice.stored is None
    pair.settle()
    log = pair.alice.log
    store = log.index(fx.Store())
    assert store < next(i for i, e in enumerate(log) if isinstance(e, fx.Publish))


@pytest.mark.parametrize("scid_alias", [False, True])
@pytest.mark.parametrize("anchors", [False, True])
def test_all_channel_types_open(anchors, scid_alias):
    pair = Pair().ready(ChannelType(anchors, scid_alias))
    assert [end.channel.type for end in pair.ends] == [ChannelType(anchors, scid_alias)] * 2


def test_the_best_common_type_is_asked_for():
    bits = (Feature.OPTION_STATIC_REMOTEKEY, Feature.OPTION_CHANNEL_TYPE, Feature.OPTION_ANCHORS)
    ours, theirs = Features.of(optional=bits), Features.of(compulsory=bits[:2])
    assert Pair(features=negotiated(ours, ours)).ready(None).alice.channel.type == ANCHORS
    assert Pair(features=negotiated(ours, theirs)).ready(None).alice.channel.type == STATIC


REFUSED = [
    {"funding_sat": 9_999},
    {"funding_sat": 2_000_000_000},
    {"push_msat": 1_000_000_001},
    {"push_msat": 999_999_000},
    {"feerate_per_kw": 100},
    {"feerate_per_kw": 200_000},
    {"type": ChannelType(anchors=True, scid_alias=True), "announce": True},
]


@pytest.mark.parametrize("changes", REFUSED, ids=str)
def test_a_request_that_cannot_become_a_channel_is_refused(changes):
    alice = End("alice")
    request = OpenRequest(
        command_id=3,
        temporary_channel_id=b"t" * 32,
        funding_sat=1_000_000,
        feerate_per_kw=2_500,
        announce=False,
    )
    channel, (reply,) = open_outgoing(
        replace(request, **changes), Pair().terms(alice, params("alice")), alice.keys, alice.policy
    )
    assert channel is None
    assert reply.command_id == 3
    assert reply.error


def test_large_channels_are_for_those_who_negotiated_them():
    features = replace(FEATURES, large_channel=False)
    pair = Pair(features=features).open(funding_sat=1 << 24)
    assert pair.alice.channel is None
    assert pair.alice.log[0].error
    Pair().ready(funding_sat=1 << 24)


def opened(**changes):
    """Bob's answer to an open_channel with these fields changed."""
    pair = Pair().open(announce=False)
    message = replace(pair.alice.sent(bolt2.OpenChannel)[0], **changes)
    bob = pair.bob
    return open_incoming(message, pair.terms(bob, params("bob")), bob.keys, bob.policy)


@pytest.mark.parametrize(
    "changes",
    [
        {"chain_hash": bytes(32)},
        {"temporary_channel_id": bytes(32)},
        {"funding_satoshis": 5_000},
        {"funding_satoshis": 1 << 60},
        {"push_msat": 1_000_000_001},
        {"push_msat": 999_000_000},
        {"dust_limit_satoshis": 353},
        {"dust_limit_satoshis": 1_001},
        {"dust_limit_satoshis": 600, "channel_reserve_satoshis": 599},
        {"channel_reserve_satoshis": 353, "dust_limit_satoshis": 353},
        {"channel_reserve_satoshis": 100_001},
        {"to_self_delay": 2_017},
        {"max_accepted_htlcs": 484},
        {"max_accepted_htlcs": 0},
        {"htlc_minimum_msat": 1_000_000_000},
        {"max_htlc_value_in_flight_msat": 999},
        {"feerate_per_kw": 252},
        {"feerate_per_kw": 100_001},
        {"channel_type": None},
        {"channel_type": b""},
        {"channel_type": b"\x04\x00\x00\x00\x40\x10\x00"},
        {"channel_type": ChannelType(anchors=True, scid_alias=True).to_bytes(), "channel_flags": 1},
        {"funding_pubkey": bytes(33)},
        {"htlc_basepoint": b"\x05" + bytes(32)},
        {"first_per_commitment_point": b"\x02" + b"\xff" * 32},
        {"upfront_shutdown_script": b"\x51"},
    ],
    ids=str,
)
def test_an_open_channel_out_of_bounds_is_answered_with_an_error(changes):
    channel, (send,) = opened(**changes)
    assert channel is None
    assert isinstance(send.message, bolt1.Error)


def test_undefined_flags_are_ignored_and_the_first_announces():
    assert opened(channel_flags=0xFE)[0].announce is False
    channel, _ = opened(channel_flags=0xFF)
    assert channel.announce is True


@pytest.mark.parametrize(
    "changes",
    [
        {"temporary_channel_id": b"x" * 32},
        {"channel_type": None},
        {"channel_type": STATIC.to_bytes()},
        {"minimum_depth": 145},
        {"channel_reserve_satoshis": 353},
        {"dust_limit_satoshis": 353},
        {"dust_limit_satoshis": 10_001},
        {"max_accepted_htlcs": 484},
        {"to_self_delay": 5_000},
        {"delayed_payment_basepoint": bytes(33)},
        {"upfront_shutdown_script": b"abc"},
    ],
    ids=str,
)
def test_an_accept_channel_out_of_bounds_forgets_the_channel(changes):
    pair = Pair().open()
    pair.settle(until=lambda: pair.transcript == ["alice: OpenChannel"])
    accept = pair.bob.sent(bolt2.AcceptChannel)[0]
    effects = pair.alice.do(Received(replace(accept, **changes)))
    assert pair.alice.channel.phase is Phase.FORGOTTEN
    assert [type(effect) for effect in effects] == [fx.Forget, fx.Send, fx.Reply]
    assert effects[-1].error


def test_a_peer_that_gives_our_own_funding_key_is_refused():
    pair = Pair().open()
    pair.settle(until=lambda: pair.transcript == ["alice: OpenChannel"])
    accept = pair.bob.sent(bolt2.AcceptChannel)[0]
    pair.alice.do(Received(replace(accept, funding_pubkey=pair.alice.channel.local.funding_pubkey)))
    assert pair.alice.channel.phase is Phase.FORGOTTEN


@pytest.mark.parametrize("field", ["signature", "funding_txid"])
def test_a_funding_created_that_does_not_fit_forgets_the_channel(field):
    pair = Pair().open()
    pair.settle(until=lambda: pair.transcript[-1:] == ["bob: AcceptChannel"])
    created = pair.alice.sent(bolt2.FundingCreated)[0]
    pair.bob.do(Received(replace(created, **{field: bytes(len(getattr(created, field)))})))
    assert pair.bob.channel.phase is Phase.FORGOTTEN
    assert pair.bob.stored is None


def test_a_funding_signed_with_a_wrong_signature_costs_nothing():
    pair = Pair().open()
    pair.settle(until=lambda: pair.transcript[-1:] == ["alice: FundingCreated"])
    signed = pair.bob.sent(bolt2.FundingSigned)[0]
    pair.alice.do(Received(replace(signed, signature=b"\1" * 64)))
    assert pair.alice.channel.phase is Phase.FORGOTTEN
    assert pair.alice.told(fx.ReleaseFunding)
    assert not pair.alice.told(fx.Publish)


def test_the_channel_id_is_told_before_anything_else():
    pair = Pair().open()
    pair.settle()
    for end in pair.ends:
        (identify,) = end.told(fx.Identify)
        assert identify.channel_id == end.channel.channel_id != identify.temporary_channel_id
    assert pair.bob.log.index(pair.bob.told(fx.Identify)[0]) < pair.bob.log.index(fx.Store())


def test_a_wallet_that_makes_another_output_is_not_trusted():
    pair = Pair().open()
    pair.settle(until=lambda: pair.transcript == ["alice: OpenChannel"])
    accept = pair.bob.sent(bolt2.AcceptChannel)[0]
    pair.alice.take = pair.alice.log.extend
    pair.alice.do(Received(accept))
    before = pair.alice.channel
    assert before.phase is Phase.FUNDING_TX
    wrong = transaction.Transaction(
        2, (transaction.Input(b"i" * 32, 0),), (transaction.Output(1, output_script(before)),), 0
    ).serialize()
    assert pair.alice.do(Funded(wrong, 0)) == ()
    assert pair.alice.channel == before
    effects = pair.alice.do(Abandon("no coins"))
    assert effects[-1] == fx.Reply(1, "no coins")


@pytest.mark.parametrize("changes", [{"amount_sat": 999_999}, {"script": b"\0\x20" + bytes(32)}], ids=str)
def test_a_funding_output_that_is_not_what_was_agreed_ends_the_channel(changes):
    pair = Pair().open()
    pair.settle()
    bob = pair.bob.channel
    fact = FundingConfirmed(HEIGHT + 1, 1, output_script(bob), bob.funding_sat)
    effects = pair.bob.do(replace(fact, **changes))
    assert pair.bob.channel.phase is Phase.FORGOTTEN
    assert isinstance(effects[1].message, bolt1.Error)


def test_the_accepter_forgets_what_is_never_funded_and_the_opener_does_not():
    pair = Pair().open()
    pair.settle()
    for end in pair.ends:
        end.do(Block(HEIGHT + 2_015))
        assert end.channel.phase is Phase.FUNDING_CONFIRMED
        end.do(Block(HEIGHT + 2_016))
    assert pair.alice.channel.phase is Phase.FUNDING_CONFIRMED
    assert pair.bob.channel.phase is Phase.FORGOTTEN
    assert pair.bob.stored is None


def test_the_accepter_forgets_what_its_opener_gave_up_and_publishes_nothing():
    """The connection was lost while funding_signed was on its way: the opener has forgotten the channel."""
    pair = Pair().open()
    pair.settle()
    effects = pair.bob.do(Received(bolt1.Error(pair.bob.channel.channel_id, b"unknown channel")))
    assert pair.bob.channel.phase is Phase.FORGOTTEN
    assert pair.bob.stored is None
    assert not any(isinstance(effect, fx.Publish) for effect in effects)


def test_once_its_funding_is_in_a_block_an_error_closes_it():
    pair = Pair().open()
    pair.settle()
    bob = pair.bob
    bob.do(FundingConfirmed(HEIGHT + 1, 1, output_script(bob.channel), bob.channel.funding_sat))
    bob.do(Received(bolt1.Error(bob.channel.channel_id, b"unknown channel")))
    assert bob.channel.phase is Phase.FORCE_CLOSED


def test_ready_waits_for_the_depth_and_a_reorganisation_begins_anew():
    pair = Pair().open()
    pair.settle()
    bob = pair.bob
    fact = FundingConfirmed(HEIGHT + 1, 1, output_script(bob.channel), bob.channel.funding_sat)
    bob.do(fact)
    bob.do(Block(HEIGHT + 2))
    assert not bob.sent(bolt2.ChannelReady)
    bob.do(FundingUnconfirmed())
    bob.do(Block(HEIGHT + 3))
    assert not bob.sent(bolt2.ChannelReady)
    bob.do(replace(fact, height=HEIGHT + 3))
    bob.do(Block(HEIGHT + 5))
    assert len(bob.sent(bolt2.ChannelReady)) == 1


def test_ready_is_said_after_a_reconnection_when_the_depth_came_offline():
    pair = Pair().open()
    pair.settle()
    pair.disconnect()
    pair.confirm()
    assert not pair.alice.sent(bolt2.ChannelReady)
    pair.reconnect()
    pair.settle()
    assert [end.channel.phase for end in pair.ends] == [Phase.NORMAL] * 2
    assert len(pair.alice.sent(bolt2.ChannelReady)) == 1


def test_a_redundant_channel_ready_counts_for_its_alias_only():
    pair = Pair().ready()
    before = pair.alice.channel
    message = bolt2.ChannelReady(before.channel_id, pair.bob.node_id, short_channel_id=77)
    pair.alice.do(Received(message))
    assert pair.alice.channel == replace(before, remote_alias=77)


def test_htlcs_before_channel_ready_are_a_fault():
    pair = Pair().open()
    pair.settle()
    add = bolt2.UpdateAddHtlc(pair.bob.channel.channel_id, 0, 1_000_000, bytes(32), HEIGHT + 9, bytes(1366))
    pair.bob.do(Received(add))
    assert pair.bob.channel.phase is Phase.FORCE_CLOSED


def test_announcement_signatures_that_do_not_verify_are_warned_of():
    pair = Pair().ready(announce=True)
    alice = pair.alice
    alice.channel = replace(alice.channel, remote_announcement=None)
    honest = pair.bob.sent(AnnouncementSignatures)[0]
    for changes in ({"node_signature": bytes(64)}, {"bitcoin_signature": bytes(64)}, {"short_channel_id": 1}):
        effects = alice.do(Received(replace(honest, **changes)))
        assert isinstance(effects[0].message, bolt1.Warning)
        assert alice.channel.remote_announcement is None


def test_announcement_signatures_of_a_peer_that_saw_the_blocks_first_are_kept():
    pair = Pair().open(announce=True)
    pair.settle()
    for end in pair.ends:
        channel = end.channel
        end.do(FundingConfirmed(HEIGHT + 1, 7, output_script(channel), channel.funding_sat))
        end.do(Block(HEIGHT + 5))
    pair.settle()
    alice, bob = pair.ends
    alice.do(Block(HEIGHT + 6))
    pair.settle()
    assert alice.sent(AnnouncementSignatures)
    assert not bob.told(fx.Announce)
    bob.do(Block(HEIGHT + 6))
    pair.settle()
    assert [len(end.told(fx.Announce)) for end in pair.ends] == [1, 1]


def test_an_unfunded_channel_is_forgotten_with_its_connection():
    pair = Pair().open()
    effects = pair.alice.do(Disconnected())
    assert effects == (fx.Forget(), fx.Reply(1, "the connection was lost"))
    assert pair.alice.channel.phase is Phase.FORGOTTEN


def test_every_error_leaves_a_plain_answer_to_a_later_connection():
    pair = Pair().ready()
    pair.alice.do(Received(bolt2.UpdateFee(pair.alice.channel.channel_id, 1_000)))
    assert pair.alice.channel.phase is Phase.FORCE_CLOSED  # only the opener sets the fee rate
    pair.alice.do(Disconnected())
    (send,) = pair.alice.do(Connected(FEATURES))
    assert b"update_fee" in send.message.data


def test_the_policy_bounds_what_is_accepted():
    pair = Pair(bob=End("bob", Policy(max_funding_sat=500_000))).open()
    pair.settle()
    assert pair.alice.channel.phase is Phase.FORGOTTEN
    assert pair.alice.channel.chain_hash == CHAIN
