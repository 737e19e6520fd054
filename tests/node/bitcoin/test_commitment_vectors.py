"""BOLT 3's commitment and HTLC transactions, to the byte: both signatures included."""

import json
from hashlib import sha256
from pathlib import Path

import pytest
import wallycore

from node.bitcoin.commitment import (
    Commitment,
    HtlcOutput,
    Side,
    build_commitment,
    commitment_points,
    holder_htlc_sighash,
    signed_commitment,
    signed_htlc,
)
from node.crypto.keys import public_key, sign, verify

VECTORS = Path(__file__).parents[2] / "vectors"
LEGACY = json.loads((VECTORS / "bolt3_commitments.json").read_bytes())
ANCHORS = json.loads((VECTORS / "bolt3_commitments_anchors.json").read_bytes())
PARAMETERS = LEGACY["parameters"]
SECRETS = {name: bytes.fromhex(value) for name, value in PARAMETERS.items() if name.endswith("_secret")}
POINTS = {
    name: bytes.fromhex(value) for name, value in PARAMETERS.items() if "point" in name or "pubkey" in name
}
HTLCS = PARAMETERS["htlcs"]

DERIVED = commitment_points(
    POINTS["local_per_commitment_point"],
    POINTS["local_htlc_basepoint"],
    POINTS["remote_htlc_basepoint"],
    POINTS["local_delayed_payment_basepoint"],
    POINTS["remote_revocation_basepoint"],
)


def side(anchors: bool, dust_limit_sat: int = PARAMETERS["dust_limit_sat"]) -> Side:
    return Side(
        anchors=anchors,
        funding_txid=bytes.fromhex(PARAMETERS["funding_txid"])[::-1],
        funding_output_index=PARAMETERS["funding_output_index"],
        funding_sat=PARAMETERS["funding_sat"],
        holder_funding_point=POINTS["local_funding_pubkey"],
        other_funding_point=POINTS["remote_funding_pubkey"],
        holder_is_opener=True,
        opener_payment_basepoint=POINTS["local_payment_basepoint"],
        accepter_payment_basepoint=POINTS["remote_payment_basepoint"],
        other_payment_basepoint=POINTS["remote_payment_basepoint"],
        to_self_delay=PARAMETERS["to_self_delay"],
        dust_limit_sat=dust_limit_sat,
    )


def htlc_output(index: int) -> HtlcOutput:
    htlc = HTLCS[index]
    payment_hash = sha256(bytes.fromhex(htlc["preimage"])).digest()
    return HtlcOutput(htlc["offered"], htlc["amount_msat"], payment_hash, htlc["cltv_expiry"])


def build(case: dict, of: Side) -> Commitment:
    return build_commitment(
        of,
        DERIVED,
        PARAMETERS["commitment_number"],
        case["feerate_per_kw"],
        case["local_msat"],
        case["remote_msat"],
        [htlc_output(index) for index in case["htlcs"]],
    )


def compact(der: str) -> bytes:
    return bytes(wallycore.ec_sig_from_der(bytes.fromhex(der)))


def check_transactions(case: dict, of: Side) -> Commitment:
    """Sign as both sides and compare every byte of what could be published."""
    commitment = build(case, of)
    remote = sign(SECRETS["remote_funding_secret"], commitment.sighash)
    local = sign(SECRETS["local_funding_secret"], commitment.sighash)
    assert remote == compact(case["remote_signature_der"])
    assert signed_commitment(commitment, of, local, remote).hex() == case["tx"]
    signed = [check_htlc(case, of, htlc) for htlc in commitment.htlcs]
    assert signed == [expected["tx"] for expected in case["htlc_transactions"]]
    remotes = [sign(SECRETS["remote_htlc_secret"], htlc.sighash) for htlc in commitment.htlcs]
    assert remotes == [compact(expected["remote_signature_der"]) for expected in case["htlc_transactions"]]
    return commitment


def check_htlc(case: dict, of: Side, htlc) -> str:
    given = HTLCS[case["htlcs"][htlc.htlc_index]]
    preimage = b"" if given["offered"] else bytes.fromhex(given["preimage"])
    remote = sign(SECRETS["remote_htlc_secret"], htlc.sighash)
    assert verify(DERIVED.other_htlc, htlc.sighash, remote)
    local = sign(SECRETS["local_htlc_secret"], holder_htlc_sighash(htlc, of, given["amount_msat"] // 1000))
    return signed_htlc(htlc, of, local, remote, preimage).hex()


def test_the_points_are_those_of_the_specification() -> None:
    assert DERIVED.holder_htlc == POINTS["local_htlcpubkey"] == public_key(SECRETS["local_htlc_secret"])
    assert DERIVED.other_htlc == POINTS["remote_htlcpubkey"] == public_key(SECRETS["remote_htlc_secret"])
    assert DERIVED.holder_delayed == POINTS["local_delayedpubkey"]
    assert DERIVED.revocation == POINTS["local_revocation_pubkey"]


def test_the_commitment_number_is_obscured() -> None:
    tx = build(LEGACY["cases"][0], side(anchors=False)).tx
    locktime, sequence = int.from_bytes(tx[-4:], "little"), int.from_bytes(tx[42:46], "little")
    assert locktime >> 24 == 0x20
    assert sequence >> 24 == 0x80
    obscured = (sequence & 0xFFFFFF) << 24 | locktime & 0xFFFFFF
    assert obscured == int(PARAMETERS["obscuring_factor"], 16) ^ PARAMETERS["commitment_number"]


@pytest.mark.parametrize("case", LEGACY["cases"], ids=lambda case: case["name"])
def test_static_remotekey_vectors(case: dict) -> None:
    commitment = check_transactions(case, side(anchors=False))
    scripts = {str(case["htlcs"][htlc.htlc_index]): htlc.script.hex() for htlc in commitment.htlcs}
    assert scripts == case["htlc_scripts"]
    if case["fee_sat"] is not None:
        assert commitment.fee_sat == case["fee_sat"]


@pytest.mark.parametrize("case", ANCHORS["cases"], ids=lambda case: case["name"])
def test_anchors_vectors(case: dict) -> None:
    check_transactions(case, side(anchors=True, dust_limit_sat=case["dust_limit_sat"]))
