"""Packages: a child lifts a parent that could not enter alone."""

import pytest

from lnsim.chain.model import Rejected
from node.bitcoin.transaction import Output

ANCHOR = bytes.fromhex("51024e73")


def test_a_child_pays_for_its_parent(bench):
    parent = bench.simple(0)
    child = bench.child(parent, 1000)
    with pytest.raises(Rejected, match="min relay fee not met"):
        bench.chain.submit(parent.raw)
    result = bench.chain.submit_package([parent.raw, child.raw])
    assert result.message == "success"
    assert set(result.shared) == {parent.wtxid, child.wtxid}
    bench.mine()
    assert not bench.chain.mempool.entries
    assert bench.chain.ledger.index[parent.txid] == (111, 1)
    assert bench.chain.ledger.index[child.txid] == (111, 2)


def test_a_package_that_pays_too_little_changes_nothing(bench):
    parent = bench.simple(0)
    needed = parent.vsize + bench.child(parent, 200).vsize
    child = bench.child(parent, needed - 1)
    result = bench.chain.submit_package([parent.raw, child.raw])
    assert result.message == "transaction failed"
    assert result.refused[child.wtxid] == f"min relay fee not met, {needed - 1} < {needed}"
    assert not bench.chain.mempool.entries


def test_a_parent_that_pays_for_itself_enters_though_the_child_fails(bench):
    parent = bench.simple(1000)
    child = bench.child(parent, 0)
    result = bench.chain.submit_package([parent.raw, child.raw])
    assert result.message == "transaction failed"
    assert set(bench.chain.mempool.entries) == {parent.txid}
    assert set(result.refused) == {child.wtxid}


def test_a_package_replaces_an_earlier_package(bench):
    coin = bench.coins()[0]
    old = bench.simple(0, coin)
    bench.chain.submit_package([old.raw, bench.child(old, 1000).raw])
    new = bench.simple(0, coin)
    poor = bench.child(new, 1100)
    assert bench.chain.submit_package([new.raw, poor.raw]).message == "transaction failed"
    rich = bench.child(new, 3000)
    result = bench.chain.submit_package([new.raw, rich.raw])
    assert result.message == "success"
    assert len(result.left) == 2
    bench.mine()
    assert bench.chain.coin((rich.txid, 0))


@pytest.mark.parametrize(
    ("order", "reason"), [((1, 0), "package-not-sorted"), ((0, 0), "package-contains-duplicates")]
)
def test_the_form_of_a_package(bench, order, reason):
    parent = bench.simple(1000)
    txs = [parent, bench.child(parent, 1000)]
    with pytest.raises(Rejected, match=reason):
        bench.chain.submit_package([txs[n].raw for n in order])


def test_strangers_are_no_package(bench):
    first, second = (bench.simple(1000, coin) for coin in bench.coins()[:2])
    with pytest.raises(Rejected, match="package-not-child-with-parents"):
        bench.chain.submit_package([first.raw, second.raw])


def test_a_pay_to_anchor_output_is_standard(bench):
    coin = bench.coins()[0]
    outputs = [Output(coin.coin.sat - 1000 - 240, bench.script()), Output(240, ANCHOR)]
    tx = bench.spend([coin.outpoint], *outputs)
    bench.chain.submit(tx.raw)
    spend = bench.spend([(tx.txid, 0), (tx.txid, 1)], Output(outputs[0].sat - 1000, bench.script()))
    assert spend.inputs[1].witness == ()
    bench.chain.submit(spend.raw)
    bench.mine()
    assert not bench.chain.mempool.entries


def test_a_package_test_changes_nothing(bench):
    parent = bench.simple(1000)
    verdicts = bench.chain.test_package([parent.raw, bench.child(parent, 1000).raw])
    assert [verdict.fee_sat for verdict in verdicts] == [1000, 1000]
    assert not bench.chain.mempool.entries
