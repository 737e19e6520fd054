"""What Core's mempool refuses, the embedded chain refuses with Core's words."""

import pytest

from lnsim.chain.model import Rejected
from node.bitcoin.block import parse_transaction, serialize_transaction
from node.bitcoin.transaction import Input, Output
from node.errors import MalformedMessage

P2WSH = b"\x00\x20" + bytes(32)


def refused(bench, tx, reason: str) -> str:
    before = set(bench.chain.mempool.entries)
    with pytest.raises(Rejected) as caught:
        bench.chain.submit(tx.raw)
    assert caught.value.reason == reason
    assert set(bench.chain.mempool.entries) == before
    return str(caught.value)


def test_a_good_transaction_is_taken_and_mined(bench):
    tx = bench.simple(fee_sat=1000)
    assert bench.chain.submit(tx.raw) == tx.txid
    assert bench.chain.coin((tx.txid, 0)).height is None
    bench.mine()
    assert bench.chain.coin((tx.txid, 0)).height == 111
    assert not bench.chain.mempool.entries
    assert bench.chain.transaction(tx.txid)[1] == bench.chain.tip


def test_zero_fee_alone_is_refused(bench):
    tx = bench.simple(0)
    assert refused(bench, tx, "min relay fee not met") == f"min relay fee not met, 0 < {tx.vsize}"


def test_dust_is_refused(bench):
    coin = bench.coins()[0]
    change = Output(coin.coin.sat - 10_000, bench.script())
    refused(bench, bench.spend([coin.outpoint], change, Output(329, P2WSH)), "dust")
    bench.chain.submit(bench.spend([coin.outpoint], change, Output(330, P2WSH)).raw)


def test_nonstandard_outputs_and_versions_are_refused(bench):
    coin = bench.coins()[0]
    refused(bench, bench.spend([coin.outpoint], Output(10_000, b"\x51\x52\x53")), "scriptpubkey")
    refused(bench, bench.simple(1000, version=4), "version")
    data = b"\x6a\x01\x01"
    two = bench.spend([coin.outpoint], Output(0, data), Output(0, data), Output(10_000, P2WSH))
    refused(bench, two, "multi-op-return")


def test_missing_and_overspent_inputs(bench):
    coin = bench.coins()[0]
    refused(bench, bench.simple(-1, coin), "bad-txns-in-belowout")
    ghost = bench.spend([(b"\x11" * 32, 0)], Output(10_000, bench.script()))
    refused(bench, ghost, "bad-txns-inputs-missingorspent")
    twice = bench.spend([coin.outpoint, coin.outpoint], Output(10_000, bench.script()))
    refused(bench, twice, "bad-txns-inputs-duplicate")


def test_a_mined_transaction_is_already_known(bench):
    tx = bench.simple(1000)
    bench.chain.submit(tx.raw)
    refused(bench, tx, "txn-already-in-mempool")
    bench.mine()
    refused(bench, tx, "txn-already-known")


def test_coinbase_matures_after_a_hundred_blocks(bench):
    young = next(c for c in bench.wallet.coins() if c.confirmations == 100)
    immature = next(c for c in bench.wallet.coins() if c.confirmations == 99)
    refused(bench, bench.simple(1000, immature), "bad-txns-premature-spend-of-coinbase")
    bench.chain.submit(bench.simple(1000, young).raw)  # depth 100 in the next block
    bench.mine()
    assert not bench.chain.mempool.entries


def test_a_bad_signature_is_refused_by_the_engine(bench):
    tx = bench.simple(1000)
    signature, key = tx.inputs[0].witness
    broken = signature[:10] + bytes([signature[10] ^ 1]) + signature[11:]
    spent = Input(tx.inputs[0].txid, tx.inputs[0].vout, tx.inputs[0].sequence, b"", (broken, key))
    raw = serialize_transaction(2, [spent], tx.outputs, 0)
    reason = "mandatory-script-verify-flag-failed (script of input 0 does not hold)"
    refused(bench, parse_transaction(raw), reason)


def test_a_high_s_signature_is_refused(bench):
    import wallycore as wally

    tx = bench.simple(1000)
    signature, key = tx.inputs[0].witness
    compact = bytes(wally.ec_sig_from_der(signature[:-1]))
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    high = (order - int.from_bytes(compact[32:], "big")).to_bytes(32, "big")
    r = compact[:32].lstrip(b"\x00")
    body = b"\x02" + bytes([len(r)]) + r + b"\x02\x21\x00" + high
    der = b"\x30" + bytes([len(body)]) + body + signature[-1:]
    spent = Input(tx.inputs[0].txid, tx.inputs[0].vout, tx.inputs[0].sequence, b"", (der, key))
    with pytest.raises(Rejected, match="S value is unnecessarily high"):
        bench.chain.submit(serialize_transaction(2, [spent], tx.outputs, 0))


def test_locktime_by_height(bench):
    refused(bench, bench.simple(1000, locktime=111), "non-final")
    bench.chain.submit(bench.simple(1000, locktime=110).raw)
    bench.mine()
    assert not bench.chain.mempool.entries
    late = bench.simple(1000, locktime=500, sequence=0xFFFFFFFF)  # final sequences switch it off
    bench.chain.submit(late.raw)


def test_locktime_by_median_time(bench):
    median_s = bench.chain.tip.median_time_s
    refused(bench, bench.simple(1000, locktime=median_s), "non-final")
    bench.chain.submit(bench.simple(1000, locktime=median_s - 1).raw)


def test_bip68_height_is_refused_until_it_has_passed(bench):
    first = bench.simple(1000)
    bench.chain.submit(first.raw)
    refused(bench, bench.child(first, 1000, sequence=3), "non-BIP68-final")
    bench.mine()
    waiting = bench.child(first, 1000, sequence=3)
    for _ in range(2):
        refused(bench, waiting, "non-BIP68-final")
        bench.mine()
    bench.chain.submit(waiting.raw)
    bench.mine()
    assert not bench.chain.mempool.entries


def test_bip68_does_not_bind_version_1(bench):
    first = bench.simple(1000)
    bench.chain.submit(first.raw)
    bench.chain.submit(bench.child(first, 1000, sequence=3, version=1).raw)


def test_bip68_time_needs_the_median_to_move(bench):
    first = bench.simple(1000)
    bench.chain.submit(first.raw)
    bench.mine()
    waiting = bench.child(first, 1000, sequence=(1 << 22) | 2)
    refused(bench, waiting, "non-BIP68-final")
    bench.clock.time_s += 3 * 512
    bench.mine(11)
    bench.chain.submit(waiting.raw)
    bench.mine()
    assert not bench.chain.mempool.entries


def test_chains_of_25_and_no_longer(bench):
    tx = bench.simple(1000)
    bench.chain.submit(tx.raw)
    for _ in range(24):
        tx = bench.child(tx, 1000)
        bench.chain.submit(tx.raw)
    refused(bench, bench.child(tx, 1000), "too-long-mempool-chain")
    bench.mine()
    assert not bench.chain.mempool.entries


def test_version_3_allows_one_parent_with_one_small_child(bench):
    parent = bench.simple(1000, version=3)
    bench.chain.submit(parent.raw)
    refused(bench, bench.child(parent, 1000, version=2), "TRUC-violation")
    child = bench.child(parent, 1000, version=3)
    bench.chain.submit(child.raw)
    refused(bench, bench.child(child, 1000, version=3), "TRUC-violation")


@pytest.mark.parametrize("raw", [b"", b"\x02", bytes(60), b"\xff" * 100], ids=len)
def test_bytes_that_are_no_transaction(bench, raw):
    with pytest.raises((MalformedMessage, Rejected)):
        bench.chain.submit(raw)
