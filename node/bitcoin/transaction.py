"""Transactions as values, through libwally; ids in internal order, as the BOLTs' messages carry them."""

from collections.abc import Sequence
from typing import Any

import wallycore
from msgspec import Struct

from node.errors import MalformedMessage

SIGHASH_ALL = wallycore.WALLY_SIGHASH_ALL
# BOLT 3: what signs the other side's HTLC transactions of an anchor channel, so that fees can be added later
SIGHASH_SINGLE_ANYONECANPAY = wallycore.WALLY_SIGHASH_SINGLE | wallycore.WALLY_SIGHASH_ANYONECANPAY

FINAL_SEQUENCE = 0xFFFFFFFF
REPLACEABLE_SEQUENCE = 0xFFFFFFFD

_WITH_WITNESS = wallycore.WALLY_TX_FLAG_USE_WITNESS


class Input(Struct, frozen=True):
    txid: bytes
    vout: int
    sequence: int = FINAL_SEQUENCE
    script_sig: bytes = b""
    witness: tuple[bytes, ...] = ()

    @property
    def outpoint(self) -> tuple[bytes, int]:
        return self.txid, self.vout


class Output(Struct, frozen=True):
    sat: int
    script: bytes


class Transaction(Struct, frozen=True):
    version: int
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    locktime: int

    def serialize(self) -> bytes:
        tx = wallycore.tx_init(self.version, self.locktime, len(self.inputs), len(self.outputs))
        for spent in self.inputs:
            witness = _witness_stack(spent.witness) if spent.witness else None
            script = spent.script_sig or None
            wallycore.tx_add_raw_input(tx, spent.txid, spent.vout, spent.sequence, script, witness, 0)
        for output in self.outputs:
            wallycore.tx_add_raw_output(tx, output.sat, output.script, 0)
        return bytes(wallycore.tx_to_bytes(tx, _WITH_WITNESS))


def parse(data: bytes) -> Transaction:
    """Read a serialized transaction; MalformedMessage when it is none."""
    tx = _load(data)
    return Transaction(
        version=wallycore.tx_get_version(tx),
        inputs=tuple(_input(tx, index) for index in range(wallycore.tx_get_num_inputs(tx))),
        outputs=tuple(
            Output(
                wallycore.tx_get_output_satoshi(tx, index), bytes(wallycore.tx_get_output_script(tx, index))
            )
            for index in range(wallycore.tx_get_num_outputs(tx))
        ),
        locktime=wallycore.tx_get_locktime(tx),
    )


def txid(data: bytes) -> bytes:
    return bytes(wallycore.tx_get_txid(_load(data)))


def weight(data: bytes) -> int:
    return int(wallycore.tx_get_weight(_load(data)))


def sighash(data: bytes, index: int, script: bytes, amount_sat: int, kind: int = SIGHASH_ALL) -> bytes:
    """What signs input `index`, which spends a version 0 witness output of `amount_sat` (BIP 143)."""
    digest = wallycore.tx_get_btc_signature_hash(_load(data), index, script, amount_sat, kind, _WITH_WITNESS)
    return bytes(digest)


def with_witness(data: bytes, index: int, witness: Sequence[bytes]) -> bytes:
    """The transaction with the witness of one input put in."""
    tx = _load(data)
    wallycore.tx_set_input_witness(tx, index, _witness_stack(witness))
    return bytes(wallycore.tx_to_bytes(tx, _WITH_WITNESS))


def script_signature(signature: bytes, kind: int = SIGHASH_ALL) -> bytes:
    """A compact signature as scripts take it: DER, then what it signs."""
    return bytes(wallycore.ec_sig_to_der(signature)) + bytes((kind,))


def multisig_witness(script: bytes, signatures: dict[bytes, bytes]) -> tuple[bytes, ...]:
    """The witness of a two-of-two: compact signatures by point, placed in the order of the points."""
    ordered = (script_signature(signatures[point]) for point in sorted(signatures))
    return b"", *ordered, script


def _input(tx: Any, index: int) -> Input:
    items = range(wallycore.tx_get_input_witness_num_items(tx, index))
    return Input(
        txid=bytes(wallycore.tx_get_input_txhash(tx, index)),
        vout=wallycore.tx_get_input_index(tx, index),
        sequence=wallycore.tx_get_input_sequence(tx, index),
        script_sig=bytes(wallycore.tx_get_input_script(tx, index)),
        witness=tuple(bytes(wallycore.tx_get_input_witness(tx, index, item)) for item in items),
    )


def _load(data: bytes) -> Any:
    try:
        tx = wallycore.tx_from_bytes(data, _WITH_WITNESS)
        # libwally stops reading at the end of the transaction, whatever follows
        if wallycore.tx_get_length(tx, _WITH_WITNESS) != len(data):
            raise MalformedMessage("not exactly one transaction")
    except ValueError as error:
        raise MalformedMessage("not a transaction") from error
    return tx


def _witness_stack(items: Sequence[bytes]) -> Any:
    stack = wallycore.tx_witness_stack_init(len(items))
    for item in items:
        wallycore.tx_witness_stack_add(stack, item)
    return stack
