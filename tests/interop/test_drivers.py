"""The real peers against each other: whatever fails here is no fault of our node."""

import psutil
import pytest
from bolt8 import MAX_PINGS, dial, listen
from ldk_peer import hop
from peers import PaymentFailed
from processes import until

pytestmark = pytest.mark.interop

FEE_INSUFFICIENT = 0x1000 | 12
INCORRECT_CLTV_EXPIRY = 0x1000 | 13
INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS = 0x4000 | 15
FEE_MSAT, DELTA, FINAL_DELTA = 1000, 72, 42  # what LdkPeer asks for where a test says nothing else


async def joined(chain, opener, accepter, sat=1_000_000, push_msat=300_000_000, **options):
    """A usable channel, as its opener sees it."""
    await opener.connect(accepter.node_id, accepter.host, accepter.port)
    await opener.open_channel(accepter.node_id, sat, push_msat, **options)
    await chain.mine(6, opener, accepter)
    await accepter.wait_channel_ready(opener.node_id)
    return await opener.wait_channel_ready(accepter.node_id)


async def graph_of(peer, channels, nodes):
    async def complete():
        graph = await peer.graph()
        known = [c for c in graph["channels"] if c["one_to_two"] and c["two_to_one"]]
        named = [n for n in graph["nodes"] if n["announced"]]
        return graph if (len(known), len(named)) == (channels, nodes) else None

    return await until(complete, 20, f"{peer.name}: a graph of {channels} channels and {nodes} nodes")


@pytest.mark.parametrize("anchors", [True, False], ids=["anchors", "static_remotekey"])
async def test_ldk_pays_ldk_both_ways_and_closes(chain, ldk, anchors):
    alice, bob = await ldk("alice", anchors=anchors), await ldk("bob")
    channel = await joined(chain, alice, bob)
    assert channel.channel_type == ("anchors" if anchors else "static_remotekey")
    assert (await alice.pay(await bob.invoice(10_000_000))).fee_msat == 0
    await bob.pay(await alice.invoice(None), amount_msat=4_000_000)
    await alice.keysend(bob.node_id, 1_000_000)
    await alice.disconnect(bob.node_id)
    await alice.connect(bob.node_id, bob.host, bob.port)
    await alice.wait_channel_ready(bob.node_id)
    await alice.pay(await bob.invoice(5_000_000))
    await alice.close(channel.channel_id)
    closed = await bob.event("channel_closed", reason="CounterpartyInitiatedCooperativeClosure")
    assert closed["last_local_balance_msat"] == 300_000_000 + 12_000_000
    await alice.wait_no_channel(bob.node_id)
    await chain.mempool()


async def test_ldk_forwards_and_names_what_is_wrong_with_a_route(chain, ldk):
    alice, bob, carol = await ldk("alice"), await ldk("bob"), await ldk("carol")
    first, second = await joined(chain, alice, bob), await joined(chain, bob, carol)
    await chain.mine(6, alice, bob, carol)
    graph = await graph_of(alice, channels=2, nodes=3)
    assert {n["alias"] for n in graph["nodes"]} == {"alice", "bob", "carol"}
    assert (await alice.pay(await carol.invoice(10_000_000))).fee_msat == FEE_MSAT
    await bob.event("payment_forwarded", fee_msat=FEE_MSAT)

    async def pay(fee_msat, delta):
        to_carol = hop(carol.node_id, second.short_channel_id, 1_000_000, FINAL_DELTA)
        path = [hop(bob.node_id, first.short_channel_id, fee_msat, delta), to_carol]
        return await alice.pay_route(await carol.invoice(1_000_000), path)

    with pytest.raises(PaymentFailed) as failed:
        await pay(FEE_MSAT - 1, DELTA)
    assert failed.value.codes == [FEE_INSUFFICIENT]
    with pytest.raises(PaymentFailed) as failed:
        await pay(FEE_MSAT, DELTA - 60)
    assert failed.value.codes == [INCORRECT_CLTV_EXPIRY]
    await pay(FEE_MSAT, DELTA)


async def test_ldk_splits_a_payment_over_two_paths(chain, ldk):
    alice, bob = await ldk("alice"), await ldk("bob")
    paths = [
        [hop(bob.node_id, (await joined(chain, alice, bob, push_msat=0)).short_channel_id, part, FINAL_DELTA)]
        for part in (5_000_000, 3_000_000)
    ]
    await alice.pay_route(await bob.invoice(8_000_000), *paths)
    assert (await bob.event("payment_claimed"))["parts"] == 2


async def test_a_held_payment_waits_for_claim_or_fail(chain, ldk):
    alice, bob = await ldk("alice"), await ldk("bob")
    await joined(chain, alice, bob)
    await bob.hold()
    for decision in ("claim", "fail"):
        sent = await alice.do("pay", bolt11=await bob.invoice(2_000_000))
        held = {"payment_hash": sent["payment_hash"]}
        await bob.event("payment_claimable", **held)
        assert (await alice.do("channels"))["channels"][0]["pending_outbound"] == 1
        await bob.do(decision, **held)
        if decision == "claim":
            await alice.outcome(sent)
        else:
            with pytest.raises(PaymentFailed) as failed:
                await alice.outcome(sent)
            assert failed.value.codes == [INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS]


@pytest.mark.parametrize("anchors", [True, False], ids=["anchors", "static_remotekey"])
async def test_ldk_force_closes_and_sweeps(chain, ldk, anchors):
    alice, bob = await ldk("alice", anchors=anchors), await ldk("bob")
    channel = await joined(chain, alice, bob)
    await alice.disconnect(bob.node_id)  # told of it, bob would publish his own commitment at the same time
    await alice.close(channel.channel_id, force=True)
    await chain.mempool()
    await chain.mine(6, alice, bob)
    await bob.event("channel_closed", reason="CommitmentTxConfirmed")
    await bob.event("spendable_outputs")
    await chain.mine(144, alice, bob)
    await alice.event("spendable_outputs")
    await alice.event("broadcast")


@pytest.mark.parametrize("anchors", [True, False], ids=["anchors", "static_remotekey"])
@pytest.mark.parametrize("claimed", [True, False], ids=["preimage", "timeout"])
async def test_ldk_resolves_an_htlc_on_chain(chain, ldk, anchors, claimed):
    """Whoever publishes the commitment needs the second-stage transaction: success for bob, timeout for alice."""
    alice, bob = await ldk("alice", anchors=anchors), await ldk("bob", anchors=anchors)
    channel = await joined(chain, alice, bob)
    await bob.hold()
    invoice = await bob.invoice(100_000_000)
    path = [hop(bob.node_id, channel.short_channel_id, 100_000_000, FINAL_DELTA)]
    sent = await alice.do("pay_route", bolt11=invoice, paths=[path])
    await bob.event("payment_claimable", payment_hash=sent["payment_hash"])
    closer, other = (bob, alice) if claimed else (alice, bob)
    await closer.disconnect(other.node_id)  # told of it, the other would publish its own commitment
    await closer.close(channel.channel_id, force=True)
    await closer.event("broadcast")
    if claimed:
        await bob.do("claim", payment_hash=sent["payment_hash"])
    await chain.mine(1 if claimed else FINAL_DELTA + 3, alice, bob)
    second_stage = await closer.event("broadcast")
    assert second_stage["txid"] in await chain.mempool()
    await chain.mine(6, alice, bob)
    if claimed:
        await alice.outcome(sent)
    else:
        with pytest.raises(PaymentFailed):
            await alice.outcome(sent)


async def test_ldk_follows_a_reorganisation(chain, ldk):
    alice, bob = await ldk("alice"), await ldk("bob")
    await joined(chain, alice, bob)
    await chain.mine(3, alice, bob)
    gone = await chain.rpc.call("getblockhash", chain.height - 2)
    await chain.rpc.call("invalidateblock", gone)
    await chain.mine(5, alice, bob)
    await alice.pay(await bob.invoice(1_000_000))


async def test_electrum_and_ldk_open_pay_and_close(chain, ldk, electrum):
    alice, ella = await ldk("alice", announced=False), await electrum()
    channel = await joined(chain, alice, ella)
    await alice.pay(await ella.invoice(10_000_000))
    await ella.pay(await alice.invoice(5_000_000))
    assert (await ella.wait_channel_ready(alice.node_id)).local_msat == 300_000_000 + 5_000_000
    await alice.close(channel.channel_id)
    await alice.event("channel_closed", reason="LocallyInitiatedCooperativeClosure")
    await chain.mempool()
    await chain.mine(1, alice, ella)
    await ella.wait_no_channel(alice.node_id)
    second = await joined(chain, ella, alice, sat=500_000, push_msat=100_000_000)
    await ella.pay(await alice.invoice(5_000_000))
    await alice.pay(await ella.invoice(7_000_000))
    await ella.close(second.channel_id)
    await alice.event("channel_closed", channel_id=second.channel_id)


@pytest.mark.parametrize("library", ["pyln", "noise"])
async def test_bare_transports_talk_to_ldk(ldk, library):
    alice = await ldk("alice")
    seen = await dial(library, alice.node_id, alice.host, alice.port, MAX_PINGS[library])
    assert (seen.peer, seen.pongs, seen.init[:4]) == (alice.node_id, MAX_PINGS[library], "0010")
    async with listen(library, pings=2) as (there, result):
        await alice.connect(there.node_id, "127.0.0.1", there.port)
        assert (await result()).peer == alice.node_id


async def test_nothing_is_left_of_a_peer(chain, ldk, peers):
    alice, bob = await ldk("alice"), await ldk("bob")
    pids = [peer.child.process.pid for peer in (alice, bob)]
    bob.child.kill()
    with pytest.raises(RuntimeError, match="bob ended"):
        await bob.event("never")
    await peers.aclose()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not any(peer.child.directory.exists() for peer in (alice, bob))
