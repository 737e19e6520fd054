"""Making a block: which transactions, the coinbase, the header."""

import heapq
from collections.abc import Sequence

from lnsim.chain.consensus import MAX_BLOCK_WEIGHT, NULL_OUTPOINT, SEQUENCE_FINAL
from lnsim.chain.mempool import Mempool
from lnsim.chain.model import COIN
from node.bitcoin.block import ChainTransaction, compact_size, serialize_transaction
from node.bitcoin.transaction import Input, Output
from node.crypto.hashes import hash256

HALVING_INTERVAL = 150  # regtest
MAX_BLOCK_SIGOPS = 80_000
RESERVED_SIGOPS = 400
RESERVED_WEIGHT = 8_000  # header and coinbase, as Core's miner keeps free
MIN_FEE_SAT_PER_KVB = 1_000
VERSION = 0x20000000
REGTEST_BITS = 0x207FFFFF
REGTEST_TARGET = 0x7FFFFF << (8 * (0x20 - 3))
COMMITMENT_TAG = bytes.fromhex("6a24aa21a9ed")


def select(mempool: Mempool) -> list[bytes]:
    """The txids for the next block: best family feerate first, parents before their children."""
    chosen: dict[bytes, None] = {}
    room, sigops_left = MAX_BLOCK_WEIGHT - RESERVED_WEIGHT, MAX_BLOCK_SIGOPS - RESERVED_SIGOPS
    queue = [(-_score(mempool, e.tx, chosen), e.sequence, e.tx.txid) for e in mempool]
    heapq.heapify(queue)
    while queue:
        claimed, sequence, txid = heapq.heappop(queue)
        if txid in chosen:
            continue
        tx = mempool.entries[txid].tx
        score = -_score(mempool, tx, chosen)
        if score > claimed:  # its good ancestors went in without it
            heapq.heappush(queue, (score, sequence, txid))
            continue
        family = (mempool.ancestors(tx) | {txid}) - chosen.keys()
        weight = sum(mempool.entries[member].tx.weight for member in family)
        sigops = sum(mempool.entries[member].sigops for member in family)
        if -score < MIN_FEE_SAT_PER_KVB or weight > room or sigops > sigops_left:
            continue
        room -= weight
        sigops_left -= sigops
        members = sorted(family, key=lambda member: _place(mempool, member))
        chosen |= dict.fromkeys(members)
        for child in mempool.with_descendants(members) - chosen.keys():
            entry = mempool.entries[child]
            heapq.heappush(queue, (-_score(mempool, entry.tx, chosen), entry.sequence, child))
    return list(chosen)


def _place(mempool: Mempool, txid: bytes) -> tuple[int, int]:
    """Sorts parents before children; among equals, who came first."""
    entry = mempool.entries[txid]
    return len(mempool.ancestors(entry.tx)), entry.sequence


def subsidy_sat(height: int) -> int:
    halvings = height // HALVING_INTERVAL
    return 50 * COIN >> halvings if halvings < 64 else 0


def coinbase(height: int, script: bytes, reward_sat: int, nonce: int, wtxids: Sequence[bytes]) -> bytes:
    """A coinbase with its witness commitment (BIP 141) and a nonce that makes it unique among forks."""
    root = merkle_root([bytes(32), *wtxids])
    commitment = COMMITMENT_TAG + hash256(root + bytes(32))
    outputs = [Output(reward_sat, script), Output(0, commitment)]
    signature = _height_push(height) + _push(nonce.to_bytes(8, "little"))
    source = Input(*NULL_OUTPOINT, SEQUENCE_FINAL, signature, (bytes(32),))
    return serialize_transaction(2, [source], outputs, 0)


def assemble(previous: bytes, time_s: int, first: ChainTransaction, txs: Sequence[ChainTransaction]) -> bytes:
    """The whole block with a nonce that regtest's target takes."""
    root = merkle_root([first.txid, *(tx.txid for tx in txs)])
    prefix = VERSION.to_bytes(4, "little") + previous + root + time_s.to_bytes(4, "little")
    prefix += REGTEST_BITS.to_bytes(4, "little")
    body = compact_size(1 + len(txs)) + first.raw + b"".join(tx.raw for tx in txs)
    return _grind(prefix) + body


def merkle_root(hashes: Sequence[bytes]) -> bytes:
    level = list(hashes)
    while len(level) > 1:
        if len(level) % 2:
            level.append(level[-1])
        level = [hash256(level[i] + level[i + 1]) for i in range(0, len(level), 2)]
    return level[0]


def _grind(prefix: bytes) -> bytes:
    for nonce in range(1 << 32):
        header = prefix + nonce.to_bytes(4, "little")
        if int.from_bytes(hash256(header), "little") <= REGTEST_TARGET:
            return header
    raise AssertionError("half of all hashes meet regtest's target")


def _score(mempool: Mempool, tx: ChainTransaction, chosen: dict[bytes, None]) -> float:
    fee_sat, vsize = mempool.fees_and_vsize((mempool.ancestors(tx) | {tx.txid}) - chosen.keys())
    return fee_sat * 1000 / vsize


def _height_push(height: int) -> bytes:
    """BIP 34, as Core's script builder writes a number."""
    if height <= 16:
        return bytes([0x50 + height]) if height else b"\x00"
    return _push(height.to_bytes(height.bit_length() // 8 + 1, "little"))


def _push(data: bytes) -> bytes:
    return bytes([len(data)]) + data
