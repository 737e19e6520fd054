import json
from pathlib import Path

import pytest
import wallycore
from hypothesis import given, settings
from hypothesis import strategies as st

from node.bitcoin.scripts import funding_script, p2wpkh, p2wsh
from node.bitcoin.transaction import Input, Output, Transaction, parse, script_signature, txid, weight
from node.crypto.hashes import hash256
from node.crypto.keys import public_key, sign
from node.errors import MalformedMessage

FUNDING = json.loads((Path(__file__).parents[2] / "vectors" / "bolt3_funding.json").read_bytes())

transactions = st.builds(
    Transaction,
    version=st.integers(1, 3),
    inputs=st.lists(
        st.builds(
            Input,
            txid=st.binary(min_size=32, max_size=32),
            vout=st.integers(0, 1000),
            sequence=st.integers(0, 0xFFFFFFFF),
            script_sig=st.binary(max_size=80),
            witness=st.lists(st.binary(max_size=80), max_size=4).map(tuple),
        ),
        min_size=1,
        max_size=4,
    ).map(tuple),
    outputs=st.lists(
        st.builds(Output, sat=st.integers(0, 5 * 10**14), script=st.binary(min_size=1, max_size=60)),
        min_size=1,
        max_size=4,
    ).map(tuple),
    locktime=st.integers(0, 0xFFFFFFFF),
)


def test_the_funding_transaction_vector() -> None:
    """BOLT 3, appendix B: one P2PKH coin, the funding output and a change output."""
    secret = bytes.fromhex(FUNDING["input_secret"])
    points = (bytes.fromhex(FUNDING[f"{side}_funding_pubkey"]) for side in ("local", "remote"))
    script = funding_script(*points)
    assert script.hex() == FUNDING["funding_script"]
    outputs = (
        Output(FUNDING["funding_sat"], p2wsh(script)),
        Output(FUNDING["change_sat"], p2wpkh(public_key(secret))),
    )
    coin = bytes.fromhex(FUNDING["input_txid"])[::-1]
    assert txid(bytes.fromhex(FUNDING["coinbase_tx"])) == coin
    tx = Transaction(2, (Input(coin, 0, script_sig=script_sig(coin, outputs, secret)),), outputs, 0)
    assert tx.serialize().hex() == FUNDING["tx"]
    assert txid(tx.serialize())[::-1].hex() == FUNDING["txid"]


def script_sig(coin: bytes, outputs: tuple[Output, ...], secret: bytes) -> bytes:
    unsigned = Transaction(2, (Input(coin, 0),), outputs, 0).serialize()
    p2pkh = b"\x76\xa9\x14" + p2wpkh(public_key(secret))[2:] + b"\x88\xac"
    raw = wallycore.tx_from_bytes(unsigned, 0)
    digest = bytes(wallycore.tx_get_btc_signature_hash(raw, 0, p2pkh, 0, wallycore.WALLY_SIGHASH_ALL, 0))
    signature = script_signature(sign(secret, digest))
    return bytes([len(signature)]) + signature + b"\x21" + public_key(secret)


@settings(max_examples=50)
@given(transactions)
def test_what_is_written_reads_back(tx: Transaction) -> None:
    data = tx.serialize()
    assert parse(data) == tx
    stripped = Transaction(
        tx.version,
        tuple(Input(i.txid, i.vout, i.sequence, i.script_sig) for i in tx.inputs),
        tx.outputs,
        tx.locktime,
    ).serialize()
    assert txid(data) == hash256(stripped)
    assert weight(data) == 3 * len(stripped) + len(data)


@settings(max_examples=50)
@given(st.binary(max_size=200))
def test_garbage_is_malformed(data: bytes) -> None:
    for read in (parse, txid):
        with pytest.raises(MalformedMessage):
            read(data)


def test_too_little_and_too_much_are_malformed() -> None:
    data = bytes.fromhex(FUNDING["tx"])
    for wrong in (data[:-1], data + b"\0", data * 2):
        with pytest.raises(MalformedMessage):
            parse(wrong)
