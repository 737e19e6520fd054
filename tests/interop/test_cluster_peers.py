"""Real peers and our cluster, through its frontends: what an operator's first day would look like."""

import pytest
from bolt8 import dial, listen
from cluster_node import CallFailed
from ldk_peer import LdkFailed, hop
from peers import PaymentFailed
from processes import until

pytestmark = pytest.mark.interop

TEMPORARY_CHANNEL_FAILURE = 0x1000 | 7
FEE_INSUFFICIENT = 0x1000 | 12
INCORRECT_CLTV_EXPIRY = 0x1000 | 13
EXPIRY_TOO_SOON = 0x1000 | 14
INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS = 0x4000 | 15
UNKNOWN_NEXT_PEER = 0x4000 | 10
A_POINT = (
    "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"  # of nobody: secp256k1's generator
)
FINAL_DELTA = 42
FEES = {"base_msat": 1_000, "ppm": 0, "cltv_delta": 80}


async def opened_by_peer(chain, node, peer, sat=1_000_000, push_msat=300_000_000, **options):
    """A channel that the peer opens to us through a frontend; usable at both ends."""
    await peer.connect(node.node_id, node.host, node.port)
    await peer.open_channel(node.node_id, sat, push_msat, **options)
    await chain.mine(6, peer, node)
    await peer.wait_channel_ready(node.node_id)
    return await node.channel_with(peer.node_id)


async def opened_by_us(chain, node, peer, sat=1_000_000, push_msat=300_000_000, **options):
    """A channel that we open, over a connection that a frontend makes."""
    await node.connect_to(peer)
    await node.open(node_id=peer.node_id, funding_sat=sat, push_msat=push_msat, **options)
    await chain.mine(6, peer, node)
    await peer.wait_channel_ready(node.node_id)
    return await node.channel_with(peer.node_id)


async def pays(node, bolt11, **options):
    paid = await node.pay(bolt11=bolt11, **options)
    assert paid["status"] == "settled", paid
    return paid


def scid(text: str) -> int:
    block, tx, output = map(int, text.split("x"))
    return block << 40 | tx << 16 | output


async def settled_balances(node, peer, peer_channel_balance_msat):
    """Both ends agree on who has what, nothing pending."""

    async def agreed():
        ours = (await node.channels(node_id=peer.node_id))[0]
        return (
            not ours["offered"] and not ours["received"] and ours["remote_msat"] == peer_channel_balance_msat
        )

    await until(agreed, 10, "balances agree")


@pytest.mark.parametrize("kind", ["anchors", "static_remotekey"])
async def test_ldk_opens_to_us_and_payments_go_both_ways(chain, ldk, cluster, kind):
    node, alice = await cluster(), await ldk("alice", anchors=kind == "anchors")
    channel = await opened_by_peer(chain, node, alice)
    assert channel["type"] == kind
    invoice = await node.invoice(amount_msat=20_000_000, description="from LDK")
    paid = await alice.pay(invoice["bolt11"])
    assert paid.payment_hash == invoice["payment_hash"]
    assert (await node.received(payment_hash=paid.payment_hash))["received_msat"] == 20_000_000
    await pays(node, await alice.invoice(7_000_000))
    await alice.keysend(node.node_id, 1_000_000)
    sent = await node.keysend(node_id=alice.node_id, amount_msat=2_000_000)
    assert sent["status"] == "settled", sent
    await settled_balances(node, alice, 700_000_000 - 20_000_000 + 7_000_000 - 1_000_000 + 2_000_000)


@pytest.mark.parametrize("kind", ["anchors", "static_remotekey"])
async def test_we_open_to_ldk_and_either_side_closes(chain, ldk, cluster, kind):
    node, alice = await cluster(), await ldk("alice")
    for closer in ("us", "them"):
        channel = await opened_by_us(chain, node, alice, channel_type=kind)
        assert channel["type"] == kind
        await pays(node, await alice.invoice(50_000_000))
        await alice.pay((await node.invoice(amount_msat=5_000_000))["bolt11"])
        if closer == "us":
            await node.close(channel_id=channel["channel_id"])
        else:
            await alice.close(channel["channel_id"])
        await alice.event("channel_closed", channel_id=channel["channel_id"])
        await chain.mempool()
        await chain.mine(7, alice, node)
        await node.no_channel_with(alice.node_id)


async def test_an_unannounced_channel_pays_by_route_hint_and_alias(chain, ldk, cluster):
    """alice's invoice names our alias; bob finds her only through it."""
    node = await cluster(fees=FEES)
    alice, bob = await ldk("alice"), await ldk("bob")
    await opened_by_us(chain, node, alice, announce=False, scid_alias=True, channel_type="anchors")
    await opened_by_peer(chain, node, bob)
    assert (await bob.pay(await alice.invoice(3_000_000))).fee_msat == FEES["base_msat"]


async def test_we_relay_between_ldk_nodes_and_tell_what_is_wrong(chain, ldk, cluster):
    """LDK -> us -> LDK and back; each failure code comes back as BOLT 4 says."""
    node = await cluster(fees=FEES)
    alice, bob = await ldk("alice"), await ldk("bob")
    first = await opened_by_peer(chain, node, alice)
    second = await opened_by_us(chain, node, bob, sat=500_000)
    await node.graph_of(2)
    await knows(alice, 2)
    assert (await alice.pay(await bob.invoice(10_000_000))).fee_msat == FEES["base_msat"]
    await knows(bob, 2)
    await settled_balances(node, bob, 310_000_000)  # LDK finds no route while its last HTLC is being removed
    assert (await bob.pay(await alice.invoice(4_000_000))).fee_msat == FEES["base_msat"]
    assert (await node.getinfo())["forwards"]["settled"] == 2

    async def pay(
        fee_msat=FEES["base_msat"],
        delta=FEES["cltv_delta"],
        final=FINAL_DELTA,
        to=None,
        amount_msat=1_000_000,
    ):
        last = hop(bob.node_id, to or scid(second["short_channel_id"]), amount_msat, final)
        path = [hop(node.node_id, scid(first["short_channel_id"]), fee_msat, delta), last]
        return await alice.pay_route(await bob.invoice(amount_msat), path)

    async def code(**wrong):
        with pytest.raises(PaymentFailed) as failed:
            await pay(**wrong)
        return failed.value.codes[-1]

    assert await code(fee_msat=FEES["base_msat"] - 1) == FEE_INSUFFICIENT
    assert await code(delta=FEES["cltv_delta"] - 60) == INCORRECT_CLTV_EXPIRY
    assert await code(final=1) == EXPIRY_TOO_SOON
    assert await code(to=123 << 40) == UNKNOWN_NEXT_PEER
    assert await code(amount_msat=400_000_000) == TEMPORARY_CHANNEL_FAILURE
    await pay()


async def test_an_unknown_invoice_and_an_early_expiry_are_refused(chain, ldk, cluster):
    node, alice = await cluster(), await ldk("alice")
    channel = await opened_by_peer(chain, node, alice)
    for amount_msat, final in ((2_000_000, FINAL_DELTA), (5_000_000, 10)):
        invoice = (await node.invoice(amount_msat=5_000_000))["bolt11"]
        path = [hop(node.node_id, scid(channel["short_channel_id"]), amount_msat, final)]
        with pytest.raises(PaymentFailed) as failed:
            await alice.pay_route(invoice, path)
        assert failed.value.codes == [INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS]
    invoice = (await node.invoice(amount_msat=5_000_000))["bolt11"]
    await alice.pay(invoice)
    with pytest.raises((PaymentFailed, LdkFailed)):
        await alice.pay(invoice)


async def test_a_payment_in_parts_goes_both_ways(chain, ldk, cluster):
    """Two channels, each too small for the whole."""
    node, alice = await cluster(), await ldk("alice")
    for _ in range(2):
        await opened_by_peer(chain, node, alice, sat=200_000, push_msat=100_000_000)

    async def both():
        return sum(c["usable"] for c in await node.channels()) == 2

    await until(both, 20, "two usable channels")
    paid = await pays(node, await alice.invoice(150_000_000))
    assert paid["parts"] >= 2
    assert (await alice.event("payment_claimed"))["parts"] >= 2
    invoice = await node.invoice(amount_msat=200_000_000)
    await alice.pay(invoice["bolt11"])
    assert (await node.received(payment_hash=invoice["payment_hash"]))["received_msat"] == 200_000_000


async def test_ldk_learns_our_announced_channels_by_gossip(chain, ldk, cluster):
    """carol has no channel with us: what she knows, she was told by gossip."""
    node = await cluster()
    alice, bob = await ldk("alice"), await ldk("bob")
    await opened_by_peer(chain, node, alice)
    await opened_by_us(chain, node, bob)
    await node.graph_of(2)
    carol = await ldk("carol")
    await carol.connect(node.node_id, node.host, node.port)
    graph = await knows(carol, 2)
    assert node.name in {n["alias"] for n in graph["nodes"]}


@pytest.mark.parametrize("decision", ["claim", "fail"])
async def test_a_frontend_killed_in_the_middle_of_a_payment_loses_nothing(chain, ldk, cluster, decision):
    """The HTLC is held by bob while the frontends that carried it die; both peers come back and it resolves."""
    node = await cluster(fees=FEES)
    alice, bob = await ldk("alice"), await ldk("bob")
    first = await opened_by_peer(chain, node, alice)
    second = await opened_by_us(chain, node, bob)
    await bob.hold()
    path = [
        hop(node.node_id, scid(first["short_channel_id"]), FEES["base_msat"], FEES["cltv_delta"]),
        hop(bob.node_id, scid(second["short_channel_id"]), 30_000_000, FINAL_DELTA),
    ]
    sent = await alice.do("pay_route", bolt11=await bob.invoice(30_000_000), paths=[path])
    held = {"payment_hash": sent["payment_hash"]}
    await bob.event("payment_claimable", **held)
    for name in {await node.frontend_of(alice.node_id), await node.frontend_of(bob.node_id)}:
        await node.frontends[name].kill()
        await node.start_frontend(name)
    await alice.connect(node.node_id, node.host, node.port)
    await alice.wait_channel_ready(node.node_id)
    await node.channel_with(bob.node_id)  # dialled by ourselves
    await bob.do(decision, **held)
    if decision == "claim":
        assert (await alice.outcome(sent)).fee_msat == FEES["base_msat"]
    else:
        with pytest.raises(PaymentFailed) as failed:
            await alice.outcome(sent)
        assert failed.value.codes == [INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS]


async def test_the_backend_killed_in_the_middle_of_a_payment_loses_nothing(chain, ldk, cluster):
    node = await cluster(fees=FEES)
    alice, bob = await ldk("alice"), await ldk("bob")
    first = await opened_by_peer(chain, node, alice)
    second = await opened_by_us(chain, node, bob)
    await bob.hold()
    path = [
        hop(node.node_id, scid(first["short_channel_id"]), FEES["base_msat"], FEES["cltv_delta"]),
        hop(bob.node_id, scid(second["short_channel_id"]), 30_000_000, FINAL_DELTA),
    ]
    sent = await alice.do("pay_route", bolt11=await bob.invoice(30_000_000), paths=[path])
    held = {"payment_hash": sent["payment_hash"]}
    await bob.event("payment_claimable", **held)
    await node.backend.kill()
    await node.backend.start()

    async def frontends():
        return len((await node.getinfo())["frontends"]) == 2

    await until(frontends, 20, "both frontends are back")
    await until(lambda: _reconnected(alice, node), 20, "alice is back")
    await node.channel_with(bob.node_id)
    await bob.do("claim", **held)
    assert (await alice.outcome(sent)).fee_msat == FEES["base_msat"]


async def _reconnected(peer, node):
    try:
        await peer.connect(node.node_id, node.host, node.port)
    except LdkFailed:
        return False
    return await peer.wait_channel_ready(node.node_id)


async def test_electrum_opens_pays_and_closes(chain, electrum, cluster):
    node, ella = await cluster(), await electrum()
    channel = await opened_by_peer(chain, node, ella, sat=1_000_000, push_msat=300_000_000)
    assert channel["type"] == "static_remotekey"
    await ella.pay((await node.invoice(amount_msat=20_000_000))["bolt11"])
    await pays(node, await ella.invoice(5_000_000))
    await ella.close(channel["channel_id"])
    await chain.mempool()
    await chain.mine(7, ella, node)
    await node.no_channel_with(ella.node_id)


async def test_we_open_to_electrum_and_relay_from_ldk(chain, ldk, electrum, cluster):
    """LDK -> us -> Electrum: its channel is not announced, its invoice names it."""
    node, alice, ella = await cluster(fees=FEES), await ldk("alice"), await electrum()
    await ella.connect(node.node_id, node.host, node.port)

    async def connected():
        return await node.frontend_of(ella.node_id)

    await until(connected, 20, "Electrum is connected")
    await node.open(node_id=ella.node_id, funding_sat=1_000_000, push_msat=200_000_000, announce=False)
    await chain.mine(6, ella, node)
    await ella.wait_channel_ready(node.node_id)
    channel = await node.channel_with(ella.node_id)
    await opened_by_peer(chain, node, alice)
    await alice.pay(await ella.invoice(10_000_000))
    assert (await node.getinfo())["forwards"]["settled"] == 1
    await ella.pay((await node.invoice(amount_msat=4_000_000))["bolt11"])
    await node.close(channel_id=channel["channel_id"])
    await chain.mempool()
    await chain.mine(7, alice, ella, node)
    await node.no_channel_with(ella.node_id)


@pytest.mark.parametrize("library", ["pyln", "noise"])
async def test_bare_transports_shake_hands_with_a_frontend(cluster, library):
    node = await cluster()
    seen = await dial(library, node.node_id, node.host, node.port, 1)
    assert (seen.peer, seen.pongs, seen.init[:4]) == (node.node_id, 1, "0010")
    async with listen(library, pings=1) as (there, result):
        await node.connect(node_id=there.node_id, address=f"127.0.0.1:{there.port}")
        assert (await result()).peer == node.node_id


async def test_a_call_that_makes_no_sense_is_refused_in_one_line(cluster):
    node = await cluster(frontends=1)
    with pytest.raises(CallFailed, match="node_id: 66 hex digits are needed"):
        await node.connect(node_id="02", address="127.0.0.1:1")
    with pytest.raises(CallFailed, match="connection failed"):
        await node.connect(node_id=A_POINT, address="127.0.0.1:1")


async def knows(peer, channels):
    """A peer's graph, once it has this many channels with the terms of both sides."""

    async def complete():
        graph = await peer.graph()
        known = [c for c in graph["channels"] if c["one_to_two"] and c["two_to_one"]]
        return graph if len(known) >= channels else None

    return await until(complete, 30, f"{peer.name}: {channels} channels by gossip")
