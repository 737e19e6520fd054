"""Who pays whom, and when: drawn from the seed, within the scenario's bounds."""

import random

from hypothesis import given
from hypothesis import strategies as st

from lnsim.run.payments import Plan
from lnsim.scenario.workloads import Payments

NAMES = ["a", "b", "c", "hub"]


def plan(seed, **changes):
    spec = Payments(payers=("x",), payees=("x",), rate_per_s=1.0, **changes)
    return Plan(spec, NAMES, NAMES, random.Random(seed))


@given(st.integers(), st.sampled_from(["log", "uniform"]))
def test_amounts_are_in_range_and_nobody_pays_itself(seed, amounts):
    drawn = plan(seed, amounts=amounts, amount_msat=(10, 5_000))
    for _ in range(50):
        payment = drawn.next()
        assert payment.payer != payment.payee
        assert 10 <= payment.amount_msat <= 5_000


def test_the_same_seed_gives_the_same_payments():
    one, other, third = plan(7), plan(7), plan(8)
    firsts = [one.next() for _ in range(20)]
    assert firsts == [other.next() for _ in range(20)]
    assert firsts != [third.next() for _ in range(20)]


def test_kinds_come_in_their_shares():
    drawn = plan(1, keysend=0.2, multipart=0.3)
    kinds = [drawn.next().kind for _ in range(2_000)]
    assert 300 < kinds.count("keysend") < 500
    assert 500 < kinds.count("multipart") < 700


def test_nobody_is_paid_dry():
    """Half of the payments go from the richer to the poorer: a balance swings and comes back."""
    drawn = plan(3, amount_msat=(1_000, 1_000), amounts="uniform")
    balance = dict.fromkeys(NAMES, 0)
    worst = 0
    for _ in range(5_000):
        payment = drawn.next()
        balance[payment.payer] -= 1
        balance[payment.payee] += 1
        worst = max(worst, *(-each for name, each in balance.items() if name != "hub"))
    assert worst < 60
