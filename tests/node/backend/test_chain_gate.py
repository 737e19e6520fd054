"""A chain that stands still, or is away: nothing new is promised, what is under way ends well, and it all comes back."""

import pytest
from backend_bench import Bench, assert_agree
from core_double import CoreDouble
from prometheus_client import generate_latest

from node.backend.metrics import gather
from node.backend.outlook import MAX_BLOCK_GAP_S
from node.channel import effects as fx
from node.channel import events as ev
from node.crypto import sphinx
from node.crypto.failures import unwrap_failure
from node.crypto.hashes import sha256
from node.errors import Refused
from node.payment import invoice as bolt11
from node.runtime.config import BitcoindConfig
from node.runtime.metrics import registry
from node.wire import bolt1, bolt2, codec
from node.wire.bolt4 import HopPayload, PaymentData, TemporaryNodeFailure, encode_failure
from node.wire.codec import encode_tlvs

PREIMAGE, LATE, AGAIN = (sha256(b"gate %d" % n) for n in range(3))
AMOUNT_MSAT, FEE_MSAT = 20_000_000, 5_000
STALLED_S = MAX_BLOCK_GAP_S + 61


@pytest.fixture
async def bench(chain, tmp_path):
    core = CoreDouble(chain)
    made = await Bench(
        tmp_path / "node",
        core,
        bitcoind=BitcoindConfig(max_block_gap_s=MAX_BLOCK_GAP_S, poll_interval_s=0.01),
    ).start()
    frontend = made.frontend()
    for name in ("alice", "bob"):
        await made.connect(made.peer(name), frontend)
    await made.open_from(made.peers[0])
    await made.open_to(made.peers[1])
    yield made
    assert not made.runtime.failures
    await made.drop()


def onion(payment_hash, *hops):
    """The packet, and the secrets that open what comes back."""
    payloads = [(hop, encode_tlvs(payload)) for hop, payload in hops]
    return sphinx.build(sha256(b"session" + payment_hash), payloads, payment_hash)


def forward(bench, preimage):
    """Alice sends an HTLC for Bob."""
    alice, bob = bench.peers
    us, height, payment_hash = bench.backend.node_id, bench.chain.chain.height, sha256(preimage)
    alias = bench.record(bob).channel.alias
    hop = HopPayload(amt_to_forward=AMOUNT_MSAT, outgoing_cltv_value=height + 50, short_channel_id=alias)
    final = HopPayload(amt_to_forward=AMOUNT_MSAT, outgoing_cltv_value=height + 50)
    packet, secrets = onion(payment_hash, (us, hop), (bob.node_id, final))
    add = ev.Add(7, AMOUNT_MSAT + FEE_MSAT, payment_hash, height + 150, packet)
    alice.do(alice.half, add)
    return secrets


def stall(bench):
    bench.runtime.time_s += STALLED_S
    for frontend in bench.frontends:
        frontend.link.heard_s = bench.runtime.time_s  # it was heard all the time


async def a_block(bench):
    bench.chain.mine(1)
    await bench.until(lambda: bench.backend.chain.outlook.trouble is None)


def asks_for_a_channel(bench):
    alice = bench.peers[0]
    alice.open(bench.backend.node_id)
    (opened,) = [codec.decode(raw) for raw in alice.outbox]
    return opened


async def refused_open(bench) -> str:
    alice, before = bench.peers[0], len(bench.backend.channels.by_id)
    opened = asks_for_a_channel(bench)
    await bench.settle()
    assert len(bench.backend.channels.by_id) == before
    alice.halves.pop()
    error = next(heard for heard in reversed(alice.heard) if isinstance(heard, bolt1.Error))
    assert error.channel_id == opened.temporary_channel_id
    return error.data.decode()


async def opens(bench, why):
    with pytest.raises(Refused, match=why):
        await bench.backend.commands.open(node_id=bench.peers[1].node_id.hex(), funding_sat=100_000)


async def test_a_stalled_chain_gets_no_channels_and_no_new_htlcs(bench):
    alice, bob = bench.peers
    forward(bench, PREIMAGE)
    await bench.settle()  # bob has it, and does not answer yet
    stall(bench)

    why = "no new channels now: no block came for 121 minutes"
    await opens(bench, why)
    assert why in await refused_open(bench)
    with pytest.raises(Refused, match="no new payments now: no block came"):
        await bench.backend.commands.keysend(node_id=bob.node_id.hex(), amount_msat=1_000_000)

    secrets = forward(bench, LATE)
    await bench.settle()
    (failed,) = alice.told(fx.HtlcFailed)
    assert unwrap_failure(secrets, failed.reason) == (0, encode_failure(TemporaryNodeFailure()))
    assert len(bob.receives) == 1

    bob.do(bob.half, ev.Fulfill(bob.receives[0][0], PREIMAGE))
    await bench.settle()
    assert [told.preimage for told in alice.told(fx.HtlcFulfilled)] == [PREIMAGE], (
        "what was under way is settled"
    )

    await a_block(bench)
    bob.answers[sha256(AGAIN)] = lambda id_: ev.Fulfill(id_, AGAIN)
    forward(bench, AGAIN)
    await bench.settle()
    assert len(alice.told(fx.HtlcFulfilled)) == 2
    asks_for_a_channel(bench)
    await bench.settle()
    assert any(isinstance(heard, bolt2.AcceptChannel) for heard in alice.heard[-3:])
    alice.halves.pop()
    for peer in (alice, bob):
        record = next(r for r in bench.backend.channels.of_peer(peer.node_id) if r.channel.is_usable)
        assert_agree(record, peer.half)


async def test_without_bitcoind_payments_go_on_and_channels_do_not(bench):
    alice, bob = bench.peers
    bench.chain.is_there = False
    bench.hints._queue.put_nowait(None)  # it asks now, not a second later
    await bench.until(lambda: bench.backend.chain.failure is not None)

    why = "no new channels now: the chain can't be followed: nothing answers"
    await opens(bench, why)
    assert why in await refused_open(bench)
    bob.answers[sha256(PREIMAGE)] = lambda id_: ev.Fulfill(id_, PREIMAGE)
    forward(bench, PREIMAGE)
    await bench.settle()
    assert len(alice.told(fx.HtlcFulfilled)) == 1

    stall(bench)  # for too long
    forward(bench, LATE)
    await bench.settle()
    assert len(alice.told(fx.HtlcFailed)) == 1

    bench.chain.is_there = True
    await a_block(bench)


async def test_payments_to_us_are_judged_by_the_height_that_may_be(bench):
    alice, us = bench.peers[0], bench.backend.node_id
    made = await bench.backend.commands.invoice(amount_msat=AMOUNT_MSAT, expiry_s=86_400)
    invoice = bolt11.decode(made["bolt11"])

    def pays(expiry):
        payload = HopPayload(
            amt_to_forward=AMOUNT_MSAT,
            outgoing_cltv_value=expiry,
            payment_data=PaymentData(invoice.payment_secret, AMOUNT_MSAT),
        )
        packet, _ = onion(invoice.payment_hash, (us, payload))
        alice.do(alice.half, ev.Add(8, AMOUNT_MSAT, invoice.payment_hash, expiry, packet))

    stall(bench)
    late = bench.backend.htlcs.late_height
    assert late == bench.chain.chain.height + 25
    pays(late - 1 + invoice.min_final_cltv_expiry_delta)
    await bench.settle()
    assert len(alice.told(fx.HtlcFailed)) == 1, "in truth its expiry may be near"
    pays(late + invoice.min_final_cltv_expiry_delta + 1)
    await bench.settle()
    assert len(alice.told(fx.HtlcFulfilled)) == 1
    await a_block(bench)


async def test_prometheus_hears_of_it(bench):
    def told() -> str:
        return generate_latest(registry(lambda: gather(bench.backend))).decode()

    assert 'lnnode_chain_trouble{cause="stalled"} 0.0' in told()
    stall(bench)
    assert 'lnnode_chain_trouble{cause="stalled"} 1.0' in told()
    assert 'lnnode_chain_trouble{cause="away"} 0.0' in told()
    info = await bench.backend.commands.getinfo()
    assert info["chain_trouble"] == "no block came for 121 minutes"
    await a_block(bench)
    assert (await bench.backend.commands.getinfo())["chain_trouble"] is None
