"""The books of a run: what payments and on-chain fees explain is fine, anything else is named."""

import pytest

from lnsim.run.books import Books, disagreements, open_channels, unexplained
from lnsim.run.ledger import Ledger


def channel(channel_id, local_msat, *, capacity_sat=1_000, phase="normal", offered_msat=0):
    return {
        "channel_id": channel_id,
        "phase": phase,
        "capacity_sat": capacity_sat,
        "local_msat": local_msat,
        "remote_msat": capacity_sat * 1_000 - local_msat - offered_msat,
        "offered": int(bool(offered_msat)),
        "received": 0,
        "offered_msat": offered_msat,
        "received_msat": 0,
        "usable": True,
    }


def books(a_msat, b_msat, *, wallet_a=0, wallet_b=0, fees_sat=10, more=()):
    """Two peers with a channel to the hub each; the hub has the other halves."""
    return Books(
        {
            "hub": [channel("aa", 1_000_000 - a_msat), channel("bb", 1_000_000 - b_msat)],
            "a": [channel("aa", a_msat), *more],
            "b": [channel("bb", b_msat)],
        },
        {"hub": 5_000_000, "a": wallet_a, "b": wallet_b},
        fees_sat,
    )


@pytest.fixture
def ledger():
    return Ledger({}, {})


def test_a_payment_with_its_fee_is_explained(ledger):
    ledger.settled("a", "b", 1_000, 10, "hash")
    assert list(unexplained(books(500_000, 500_000), books(498_990, 501_000), ledger)) == []


def test_a_msat_too_few_is_named(ledger):
    ledger.settled("a", "b", 1_000, 10, "hash")
    assert list(unexplained(books(500_000, 500_000), books(498_989, 501_000), ledger)) == [
        "hub: +1 msat that no payment explains",
        "a: -1 msat that no payment explains",
    ]


def test_a_payment_that_settled_although_it_failed_is_named(ledger):
    ledger.failed("a", "hash")
    complaints = list(unexplained(books(500_000, 500_000), books(499_000, 501_000), ledger))
    assert complaints == [
        "a: -1,000 msat that no payment explains",
        "b: +1,000 msat that no payment explains",
    ]


def test_a_channel_that_was_opened_and_closed_costs_fees_and_a_rounding(ledger):
    """500 sat went into a channel and came back, less 40 sat of fees and half a satoshi."""
    ledger.closed.add("cc")
    before = books(500_000, 500_000, wallet_a=900_000)
    after = books(500_000, 500_000, wallet_a=860_000 - 500, fees_sat=50)
    assert list(unexplained(before, after, ledger)) == []


def test_a_satoshi_lost_on_chain_is_named(ledger):
    before = books(500_000, 500_000, wallet_a=900_000)
    after = books(500_000, 500_000, wallet_a=859_000, fees_sat=50)
    assert list(unexplained(before, after, ledger)) == [
        "a: -41,000 msat that no payment explains",
        "all together: -1,000 msat beside 40 sat of on-chain fees",
    ]


def test_both_ends_must_agree():
    found = books(500_000, 500_000)
    found.channels["a"][0]["local_msat"] -= 1
    assert list(disagreements(found.channels)) == [
        "channel aa: hub and a differ by msat",
        "channel aa: at a its msat do not add up",
    ]


def test_a_channel_that_only_one_end_has_open_is_named():
    found = books(500_000, 500_000, more=(channel("dd", 0),))
    assert list(disagreements(found.channels)) == ["channel dd: open at a only"]
    assert ("a", "dd") in open_channels(found)
    foreign = {name: own for name, own in found.channels.items() if name != "hub"}
    assert list(disagreements(foreign)) == []  # the other end is a node that can't be asked
