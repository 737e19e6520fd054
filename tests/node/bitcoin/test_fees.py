import pytest

from node.bitcoin.fees import (
    HtlcOutput,
    commitment_fee_sat,
    dust_exposure_msat,
    dust_feerate_per_kw,
    htlc_fee_sat,
    is_trimmed,
    opener_cost_sat,
    script_dust_sat,
    untrimmed_count,
)


def htlc(offered: bool, amount_msat: int) -> HtlcOutput:
    return HtlcOutput(offered, amount_msat, bytes(32), 500)


def test_the_example_of_the_specification() -> None:
    """BOLT 3, fee calculation: 5000 sat per kiloweight, a dust limit of 546 sat, four HTLCs."""
    htlcs = [htlc(True, 5_000_000), htlc(True, 1_000_000), htlc(False, 7_000_000), htlc(False, 800_000)]
    assert htlc_fee_sat(False, 5000, offered=True) == 3315
    assert htlc_fee_sat(False, 5000, offered=False) == 3515
    trimmed = [is_trimmed(546, False, 5000, h.offered, h.amount_msat) for h in htlcs]
    assert trimmed == [False, True, False, True]
    assert untrimmed_count(546, False, 5000, htlcs) == 2
    assert commitment_fee_sat(False, 5000, 2) == 5340


def test_with_anchors_only_the_dust_limit_trims() -> None:
    assert not is_trimmed(546, True, 1_000_000, True, 546_000)
    assert is_trimmed(546, True, 0, True, 545_999)
    assert opener_cost_sat(True, 1000, 1) == 1124 + 172 + 660
    assert opener_cost_sat(False, 1000, 1) == 724 + 172


@pytest.mark.parametrize(
    ("feerate", "counted"), [(253, 2530), (2024, 2530), (4000, 5000), (100_000, 125_000)]
)
def test_dust_is_counted_with_a_margin(feerate: int, counted: int) -> None:
    assert dust_feerate_per_kw(feerate) == counted


def test_dust_exposure_counts_what_a_rise_would_trim() -> None:
    # at 5000 per kiloweight 3861 sat are enough for an offered HTLC; a quarter more asks for 4689
    htlcs = [htlc(True, 4_000_000), htlc(True, 4_689_000), htlc(False, 100_001)]
    assert not is_trimmed(546, False, 5000, True, 4_000_000)
    assert dust_exposure_msat(546, False, 5000, htlcs) == 4_100_001
    assert dust_exposure_msat(546, True, 5000, htlcs) == 100_001


@pytest.mark.parametrize(
    ("script", "dust_sat"),
    [
        (b"\x00\x14" + bytes(20), 294),
        (b"\x00\x20" + bytes(32), 330),
        (b"\x51\x20" + bytes(32), 354),
        (b"\x76\xa9\x14" + bytes(20) + b"\x88\xac", 546),
        (b"\xa9\x14" + bytes(20) + b"\x87", 540),
        (b"\x6a\x06" + bytes(6), 0),
    ],
)
def test_dust_by_script(script: bytes, dust_sat: int) -> None:
    assert script_dust_sat(script) == dust_sat
