"""What the embedded chain accepted, Core's engine accepted: random histories, all of them mined."""

from hypothesis import given, settings
from hypothesis import strategies as st

from lnsim.chain.model import Rejected
from lnsim.chain.template import subsidy_sat
from node.bitcoin.transaction import Output

action = st.tuples(
    st.sampled_from(["spend", "spend", "spend", "replace", "chain", "package", "mine", "reorg"]),
    st.integers(0, 7),
    st.integers(-200, 6000),
    st.sampled_from([0, 1, 3, (1 << 22) | 1, 0xFFFFFFFD, 0xFFFFFFFF]),
    st.sampled_from([0, 100, 112, 1_700_000_000]),
    st.sampled_from([1, 2, 3]),
)


def attempt(bench, kind, pick, fee_sat, sequence, locktime, version):
    chain, coins = bench.chain, bench.coins()
    options = {"sequence": sequence, "locktime": locktime, "version": version}
    waiting = list(chain.mempool)
    match kind:
        case "mine":
            return bench.mine()
        case "reorg":
            block_hash = chain.tip.hash
            chain.invalidate(block_hash)
            return bench.mine(pick % 2 + 1)
        case "replace" if waiting:
            victim = waiting[pick % len(waiting)].tx.inputs[0].outpoint
            coin = chain.gate.coin(victim)
            return chain.submit(
                bench.spend([victim], Output(coin.sat - 2 * fee_sat, bench.script()), **options).raw
            )
        case "chain" if waiting:
            return chain.submit(bench.child(waiting[pick % len(waiting)].tx, fee_sat, **options).raw)
        case "package" if coins:
            parent = bench.simple(0, coins[pick % len(coins)], **options)
            return chain.submit_package([parent.raw, bench.child(parent, fee_sat, version=version).raw])
        case _ if coins:
            return chain.submit(bench.simple(fee_sat, coins[pick % len(coins)], **options).raw)
    return None


@settings(max_examples=20, deadline=None)
@given(actions=st.lists(action, min_size=5, max_size=25))
def test_everything_accepted_can_be_mined(new_bench, actions):
    bench = new_bench()
    try:
        for each in actions:
            try:
                attempt(bench, *each)
            except Rejected:
                continue
        check(bench)
    finally:
        bench.node.close()


def check(bench):
    chain = bench.chain
    bench.mine()  # raises if the engine refuses the block
    assert not chain.mempool.entries, "what is accepted is final and pays enough, so one block takes it all"
    total_sat = sum(coin.sat for coin in chain.ledger.coins.values())
    assert total_sat == sum(subsidy_sat(height) for height in range(1, chain.height + 1))
