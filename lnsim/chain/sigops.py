"""Counting signature operations as Core does, for its relay limit and its view of a transaction's size."""

from collections.abc import Sequence

from lnsim.chain.model import Coin, Rejected
from lnsim.chain.standard import pushes, script_type
from node.bitcoin.block import ChainTransaction

MAX_STANDARD_COST = 16_000
MAX_P2SH_SIGOPS = 15
BYTES_PER_SIGOP = 20
WITNESS_SCALE = 4
MAX_MULTISIG_KEYS = 20
CHECKSIGS, CHECKMULTISIGS = (0xAC, 0xAD), (0xAE, 0xAF)
OP_1, OP_16 = 0x51, 0x60


def cost(tx: ChainTransaction, coins: Sequence[Coin]) -> int:
    """The transaction's signature operations: four for one outside a witness."""
    total = sum(count(output.script, accurate=False) for output in tx.outputs) * WITNESS_SCALE
    for i, coin in zip(tx.inputs, coins, strict=True):
        total += count(i.script_sig, accurate=False) * WITNESS_SCALE
        program = coin.script
        if script_type(program) == "scripthash":
            program = (pushes(i.script_sig) or [b""])[-1]
            total += count(program, accurate=True) * WITNESS_SCALE
        match script_type(program):
            case "witness_v0_keyhash":
                total += 1
            case "witness_v0_scripthash" if i.witness:
                total += count(i.witness[-1], accurate=True)
    return total


def check_sigops(tx: ChainTransaction, coins: Sequence[Coin]) -> int:
    """The cost, where it is within Core's relay limits."""
    for i, coin in zip(tx.inputs, coins, strict=True):
        if script_type(coin.script) == "scripthash":
            redeem = (pushes(i.script_sig) or [b""])[-1:]
            if redeem and count(redeem[0], accurate=True) > MAX_P2SH_SIGOPS:
                raise Rejected("bad-txns-nonstandard-inputs")
    total = cost(tx, coins)
    if total > MAX_STANDARD_COST:
        raise Rejected("bad-txns-too-many-sigops", str(total))
    return total


def charged_vsize(weight: int, sigops: int) -> int:
    """The virtual size that fees are reckoned by, which many signature operations enlarge."""
    return (max(weight, sigops * BYTES_PER_SIGOP) + WITNESS_SCALE - 1) // WITNESS_SCALE


def count(script: bytes, *, accurate: bool) -> int:
    """Operations in one script; a multisig of unknown size counts for the most it could have."""
    total, at, last = 0, 0, 0
    while at < len(script):
        op = script[at]
        at += 1
        if op < 0x4C:
            at += op
        elif op <= 0x4E:
            width = 1 << (op - 0x4C)
            at += width + int.from_bytes(script[at : at + width], "little")
        elif op in CHECKSIGS:
            total += 1
        elif op in CHECKMULTISIGS:
            total += last - OP_1 + 1 if accurate and OP_1 <= last <= OP_16 else MAX_MULTISIG_KEYS
        if at > len(script):
            break  # a push beyond the end; what follows is no operation
        last = op
    return total
