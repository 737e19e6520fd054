"""Blocks on demand, and their undoing."""

import pytest

from lnsim.chain.model import BlockConnected, BlockDisconnected, Rejected, TipChanged
from lnsim.chain.template import assemble, coinbase, subsidy_sat
from node.bitcoin.block import parse_transaction


def test_bootstrap_ends_now_and_times_rise(bench):
    chain = bench.chain
    assert chain.height == 110
    assert chain.tip.time_s == int(bench.clock())
    bench.mine(30)  # all at the same second of our clock
    blocks = [chain.ledger.at(height) for height in range(1, 141)]
    assert all(b.time_s > chain.block(b.previous).median_time_s for b in blocks)


def test_invalidate_returns_transactions_and_reconsider_takes_them_back(bench):
    chain, events = bench.chain, []
    tx = bench.simple(1000)
    chain.submit(tx.raw)
    (block_hash,) = bench.mine()
    child = bench.child(tx, 1000)
    chain.submit(child.raw)
    chain.subscribe(events.append)

    chain.invalidate(block_hash)
    assert chain.height == 110
    assert list(chain.mempool.entries) == [tx.txid, child.txid]
    assert [type(e) for e in events if not hasattr(e, "tx")] == [BlockDisconnected, TipChanged]

    chain.reconsider(block_hash)
    assert chain.tip.hash == block_hash
    assert list(chain.mempool.entries) == [child.txid]
    bench.mine()
    assert not chain.mempool.entries


def test_a_longer_branch_wins_in_order(bench):
    chain, events = bench.chain, []
    old = bench.mine(2)
    chain.invalidate(old[0])
    new = bench.mine(2)
    chain.reconsider(old[0])
    assert chain.tip.hash in (old[1], new[1])
    kept = chain.tip.hash
    chain.subscribe(events.append)
    other = old if kept == new[1] else new
    chain.invalidate(chain.ledger.active[111])
    assert chain.tip.hash == other[1]
    steps = [(type(e), e.block.height) for e in events if not isinstance(e, TipChanged)]
    assert steps == [
        (BlockDisconnected, 112),
        (BlockDisconnected, 111),
        (BlockConnected, 111),
        (BlockConnected, 112),
    ]


def test_a_side_branch_can_grow_after_the_engine_forgot_it(bench):
    chain = bench.chain
    old = bench.mine(2)
    chain.invalidate(old[0])
    bench.mine(2)
    chain.reconsider(old[0])
    side = next(h for h in (old[1], chain.ledger.active[112]) if h != chain.tip.hash)
    top = chain.block(side)
    first = parse_transaction(coinbase(113, bench.script(), subsidy_sat(113), 0, []))
    raw = assemble(side, top.time_s + 60, first, [])
    block = chain.submit_block(raw)
    assert chain.tip.hash == block.hash
    assert chain.ledger.active[111:113] == [top.previous, side]


def test_coins_follow_the_branch(bench):
    chain = bench.chain
    coin = bench.coins()[0]
    before = dict(chain.ledger.coins)
    tx = bench.simple(1000, coin)
    chain.submit(tx.raw)
    chain.submit(bench.child(tx, 1000).raw)
    (block_hash,) = bench.mine()
    assert coin.outpoint not in chain.ledger.coins
    chain.invalidate(block_hash)
    assert chain.ledger.coins == before


def test_what_a_reorg_makes_immature_leaves_the_mempool(bench):
    chain = bench.chain
    young = next(c for c in bench.wallet.coins() if c.confirmations == 100)
    chain.submit(bench.simple(1000, young).raw)
    chain.invalidate(chain.ledger.active[105])
    assert not chain.mempool.entries


def test_the_engine_refuses_a_block_that_pays_too_much(bench):
    chain = bench.chain
    good = chain.template(bench.script())
    assert subsidy_sat(111).to_bytes(8, "little") in good
    bad = good.replace(subsidy_sat(111).to_bytes(8, "little"), (subsidy_sat(111) + 1).to_bytes(8, "little"))
    with pytest.raises(Rejected):
        chain.submit_block(bad)
    assert chain.height == 110
    chain.submit_block(good)
    assert chain.height == 111


def test_the_engine_refuses_a_block_with_a_bad_transaction(bench):
    chain = bench.chain
    overspent = bench.simple(-1)
    with pytest.raises(Rejected):
        chain.mine(bench.script(), raws=[overspent.raw])
    early = bench.simple(1000, locktime=400)
    with pytest.raises(Rejected):
        chain.mine(bench.script(), raws=[early.raw])
    assert chain.height == 110
    bench.mine()
    assert chain.height == 111


def test_same_clock_same_chain(bench):
    from lnsim.chain.embedded import EmbeddedNode

    twin = EmbeddedNode(bench.clock)
    try:
        assert twin.chain.tip.hash == bench.chain.tip.hash
    finally:
        twin.close()
