"""Blocks and whole transactions as bitcoind serves them: bytes to values in one pass, and back."""

from collections.abc import Sequence
from struct import error as StructError  # noqa: N812 - the module's own name says nothing here
from struct import unpack_from

from msgspec import Struct

from node.bitcoin.transaction import Input, Output
from node.crypto.hashes import hash256
from node.errors import MalformedMessage

MAX_ITEMS = 1_000_000  # more inputs, outputs or witness items than any block of 4 MB can hold
HEADER_SIZE = 80


class ChainTransaction(Struct, frozen=True):
    """A transaction with its bytes and both its hashes (internal byte order)."""

    raw: bytes
    txid: bytes
    wtxid: bytes
    version: int
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    locktime: int
    weight: int

    @property
    def vsize(self) -> int:
        return (self.weight + 3) // 4


class Block(Struct, frozen=True):
    hash: bytes
    previous: bytes
    time_s: int
    header: bytes
    transactions: tuple[ChainTransaction, ...]


def parse_block(raw: bytes) -> Block:
    """Parse a serialized block; raises MalformedMessage."""
    try:
        count, at = _count(raw, HEADER_SIZE)
        transactions = []
        for _ in range(count):
            tx, at = _transaction(raw, at)
            transactions.append(tx)
    except (StructError, IndexError):
        raise MalformedMessage("truncated block") from None
    if at != len(raw):
        raise MalformedMessage("bytes behind the block")
    header = raw[:HEADER_SIZE]
    return Block(hash256(header), header[4:36], unpack_from("<I", header, 68)[0], header, tuple(transactions))


def parse_transaction(raw: bytes) -> ChainTransaction:
    """Parse a serialized transaction; raises MalformedMessage."""
    try:
        tx, at = _transaction(raw, 0)
    except (StructError, IndexError):
        raise MalformedMessage("truncated transaction") from None
    if at != len(raw):
        raise MalformedMessage("bytes behind the transaction")
    return tx


def serialize_transaction(
    version: int, inputs: Sequence[Input], outputs: Sequence[Output], locktime: int
) -> bytes:
    """The transaction's bytes, in the witness form where an input has a witness."""
    body = _serialize_body(inputs, outputs)
    head, tail = version.to_bytes(4, "little"), locktime.to_bytes(4, "little")
    if not any(i.witness for i in inputs):
        return head + body + tail
    witness = b"".join(
        compact_size(len(i.witness)) + b"".join(compact_size(len(item)) + item for item in i.witness)
        for i in inputs
    )
    return head + b"\x00\x01" + body + witness + tail


def compact_size(number: int) -> bytes:
    """Bitcoin's variable-length count."""
    if number < 0xFD:
        return bytes([number])
    if number <= 0xFFFF:
        return b"\xfd" + number.to_bytes(2, "little")
    if number <= 0xFFFFFFFF:
        return b"\xfe" + number.to_bytes(4, "little")
    return b"\xff" + number.to_bytes(8, "little")


def _serialize_body(inputs: Sequence[Input], outputs: Sequence[Output]) -> bytes:
    parts = [compact_size(len(inputs))]
    for i in inputs:
        parts += [i.txid, i.vout.to_bytes(4, "little"), compact_size(len(i.script_sig)), i.script_sig]
        parts.append(i.sequence.to_bytes(4, "little"))
    parts.append(compact_size(len(outputs)))
    for o in outputs:
        parts += [o.sat.to_bytes(8, "little", signed=True), compact_size(len(o.script)), o.script]
    return b"".join(parts)


def _transaction(raw: bytes, start: int) -> tuple[ChainTransaction, int]:
    at = start + 4
    has_witness = raw[at] == 0 and raw[at + 1] == 1
    body_start = at + 2 if has_witness else at
    bare, at = _inputs(raw, body_start)
    outputs, at = _outputs(raw, at)
    body_end = at
    witnesses: list[tuple[bytes, ...]] = []
    if has_witness:
        for _ in bare:
            witness, at = _witness(raw, at)
            witnesses.append(witness)
    version, locktime = unpack_from("<I", raw, start)[0], unpack_from("<I", raw, at)[0]
    at += 4
    whole = raw[start:at]
    stripped = whole[:4] + raw[body_start:body_end] + whole[-4:] if has_witness else whole
    txid = hash256(stripped)
    inputs = tuple(Input(*i, witness) for i, witness in zip(bare, witnesses or [()] * len(bare), strict=True))
    wtxid = hash256(whole) if has_witness else txid
    weight = 3 * len(stripped) + len(whole)
    return ChainTransaction(whole, txid, wtxid, version, inputs, outputs, locktime, weight), at


def _inputs(raw: bytes, at: int) -> tuple[list[tuple[bytes, int, int, bytes]], int]:
    count, at = _count(raw, at)
    inputs = []
    for _ in range(count):
        txid, vout = raw[at : at + 32], unpack_from("<I", raw, at + 32)[0]
        script, at = _bytes(raw, at + 36)
        inputs.append((txid, vout, unpack_from("<I", raw, at)[0], script))
        at += 4
    return inputs, at


def _outputs(raw: bytes, at: int) -> tuple[tuple[Output, ...], int]:
    count, at = _count(raw, at)
    outputs = []
    for _ in range(count):
        sat = unpack_from("<q", raw, at)[0]
        script, at = _bytes(raw, at + 8)
        outputs.append(Output(sat, script))
    return tuple(outputs), at


def _witness(raw: bytes, at: int) -> tuple[tuple[bytes, ...], int]:
    count, at = _count(raw, at)
    items = []
    for _ in range(count):
        item, at = _bytes(raw, at)
        items.append(item)
    return tuple(items), at


def _bytes(raw: bytes, at: int) -> tuple[bytes, int]:
    length, at = _count(raw, at, len(raw))
    end = at + length
    if end > len(raw):
        raise IndexError
    return raw[at:end], end


def _count(raw: bytes, at: int, limit: int = MAX_ITEMS) -> tuple[int, int]:
    first = raw[at]
    if first < 0xFD:
        return first, at + 1
    size = {0xFD: 2, 0xFE: 4, 0xFF: 8}[first]
    number = int.from_bytes(raw[at + 1 : at + 1 + size], "little")
    if number > limit:
        raise IndexError
    return number, at + 1 + size
