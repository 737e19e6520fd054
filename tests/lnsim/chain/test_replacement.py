"""Replacement: who pays more, and for the relay too, takes the place."""

import pytest

from lnsim.chain.model import Rejected, TransactionAdded, TransactionRemoved
from node.bitcoin.transaction import Output


def refused(bench, tx) -> Rejected:
    with pytest.raises(Rejected) as caught:
        bench.chain.submit(tx.raw)
    return caught.value


def test_a_better_fee_replaces_without_any_signal(bench):
    coin, events = bench.coins()[0], []
    first = bench.simple(1000, coin, sequence=0xFFFFFFFF)
    bench.chain.submit(first.raw)
    bench.chain.subscribe(events.append)
    second = bench.simple(2000, coin, sequence=0xFFFFFFFF)
    bench.chain.submit(second.raw)
    assert [type(event) for event in events] == [TransactionRemoved, TransactionAdded]
    assert set(bench.chain.mempool.entries) == {second.txid}
    bench.mine()
    assert bench.chain.coin((second.txid, 0))


def test_equal_feerate_and_small_increments_are_refused(bench):
    coin = bench.coins()[0]
    bench.chain.submit(bench.simple(1000, coin).raw)
    assert "new feerate" in str(refused(bench, bench.simple(1000, coin)))
    why = refused(bench, bench.simple(1050, coin))
    assert why.reason == "insufficient fee"
    assert "not enough additional fees to relay; 0.00000050 < 0.00000110" in str(why)


def test_descendants_have_to_be_paid_for(bench):
    coin = bench.coins()[0]
    parent = bench.simple(1000, coin)
    child = bench.child(parent, 5000)
    bench.chain.submit(parent.raw)
    bench.chain.submit(child.raw)
    assert "less fees than conflicting txs" in str(refused(bench, bench.simple(3000, coin)))
    bench.chain.submit(bench.simple(6200, coin).raw)
    assert len(bench.chain.mempool.entries) == 1


def test_a_replacement_may_not_rest_on_new_unconfirmed_coins(bench):
    coin, other = bench.coins()[:2]
    bench.chain.submit(bench.simple(1000, coin).raw)
    unconfirmed = bench.simple(1000, other)
    bench.chain.submit(unconfirmed.raw)
    output = Output(coin.coin.sat, bench.script())
    greedy = bench.spend([coin.outpoint, (unconfirmed.txid, 0)], output)
    assert refused(bench, greedy).reason == "replacement-adds-unconfirmed"


def test_a_replacement_may_not_spend_what_it_replaces(bench):
    coin = bench.coins()[0]
    parent = bench.simple(1000, coin)
    bench.chain.submit(parent.raw)
    both = bench.spend([coin.outpoint, (parent.txid, 0)], Output(coin.coin.sat, bench.script()))
    assert refused(bench, both).reason == "bad-txns-spends-conflicting-tx"


def test_a_block_evicts_what_it_makes_impossible(bench):
    coin = bench.coins()[0]
    loser, winner = bench.simple(1000, coin), bench.simple(300, coin)
    bench.chain.submit(loser.raw)
    bench.chain.submit(bench.child(loser, 1000).raw)
    bench.chain.mine(bench.script(), raws=[winner.raw])
    assert not bench.chain.mempool.entries
    assert bench.chain.coin((winner.txid, 0))
