"""Core's relay policy for a single transaction: versions, scripts, dust, witnesses, signature form.

The engine offers no policy flags for scripts. Of Core's standard script flags, low S and minimal IF are
rebuilt here for the witness programs that Lightning uses; the others (clean stack, minimal data and the
discouraged upgrades) either are consensus for witness programs or need no check for standard scripts.
"""

from collections.abc import Sequence

import wallycore as wally

from lnsim.chain.model import Coin, Rejected
from node.bitcoin.block import ChainTransaction, compact_size
from node.bitcoin.transaction import Input

MAX_STANDARD_WEIGHT = 400_000
MIN_NON_WITNESS_SIZE = 65
MAX_SCRIPT_SIG = 1_650
MAX_DATA_CARRIER = 83
MAX_WITNESS_SCRIPT = 3_600
MAX_WITNESS_ITEMS = 100
MAX_WITNESS_ITEM = 80
DUST_RELAY_SAT_PER_KVB = 3_000
STANDARD_VERSIONS = (1, 2, 3)
TAPSCRIPT_LEAF = 0xC0
ANNEX_TAG = 0x50
OP_IF, OP_NOTIF = 0x63, 0x64
SCRIPT_FLAW = "non-mandatory-script-verify-flag"


def check_standard(tx: ChainTransaction) -> None:
    """What Core asks of a transaction before it looks at the coins."""
    if tx.version not in STANDARD_VERSIONS:
        raise Rejected("version")
    if tx.weight > MAX_STANDARD_WEIGHT:
        raise Rejected("tx-size")
    for i in tx.inputs:
        if len(i.script_sig) > MAX_SCRIPT_SIG:
            raise Rejected("scriptsig-size")
        if pushes(i.script_sig) is None:
            raise Rejected("scriptsig-not-pushonly")
    data_outputs = 0
    for output in tx.outputs:
        kind = script_type(output.script)
        if kind == "nonstandard":
            raise Rejected("scriptpubkey")
        data_outputs += kind == "nulldata"
        if output.sat < dust_limit_sat(output.script):
            raise Rejected("dust")
    if data_outputs > 1:
        raise Rejected("multi-op-return")
    stripped_size = (tx.weight - len(tx.raw)) // 3  # weight = 3 * stripped + total
    if stripped_size < MIN_NON_WITNESS_SIZE:
        raise Rejected("tx-size-small")


def check_standard_inputs(tx: ChainTransaction, coins: Sequence[Coin]) -> None:
    """What Core asks of the spent scripts and of the witnesses."""
    for coin in coins:
        if script_type(coin.script) in ("nonstandard", "nulldata", "witness_unknown"):
            raise Rejected("bad-txns-nonstandard-inputs")
    for i, coin in zip(tx.inputs, coins, strict=True):
        if i.witness:
            _check_witness(i, coin.script)


def script_type(script: bytes) -> str:
    """Core's name for an output script's form."""
    match len(script), script[:2]:
        case 22, b"\x00\x14":
            return "witness_v0_keyhash"
        case 34, b"\x00\x20":
            return "witness_v0_scripthash"
        case 34, b"\x51\x20":
            return "witness_v1_taproot"
        case 4, _ if script == b"\x51\x02\x4e\x73":
            return "anchor"
        case 23, b"\xa9\x14" if script.endswith(b"\x87"):
            return "scripthash"
        case 25, b"\x76\xa9" if script[2] == 0x14 and script.endswith(b"\x88\xac"):
            return "pubkeyhash"
        case ((35 | 67), _) if script[0] == len(script) - 2 and script.endswith(b"\xac"):
            return "pubkey"
    if is_witness_program(script):
        return "nonstandard" if script[0] == 0 else "witness_unknown"
    if script.startswith(b"\x6a"):
        carries = pushes(script[1:]) is not None and len(script) <= MAX_DATA_CARRIER
        return "nulldata" if carries else "nonstandard"
    return "multisig" if _is_bare_multisig(script) else "nonstandard"


def is_witness_program(script: bytes) -> bool:
    if not 4 <= len(script) <= 42 or script[1] != len(script) - 2:
        return False
    return script[0] == 0 or 0x51 <= script[0] <= 0x60


def dust_limit_sat(script: bytes) -> int:
    """Below this an output costs more to spend than it holds, at Core's dust feerate."""
    if script.startswith(b"\x6a"):
        return 0
    size = 8 + len(compact_size(len(script))) + len(script)
    size += 67 if is_witness_program(script) else 148
    return size * DUST_RELAY_SAT_PER_KVB // 1000


def pushes(script: bytes) -> list[bytes] | None:
    """The items a script pushes; None if it does anything else."""
    items, at = [], 0
    while at < len(script):
        op = script[at]
        at += 1
        if op > 0x60:
            return None
        length = 0
        if op < 0x4C:
            length = op
        elif op <= 0x4E:
            width = 1 << (op - 0x4C)
            length = int.from_bytes(script[at : at + width], "little")
            at += width
        items.append(script[at : at + length])
        at += length
    return items if at == len(script) else None


def _is_bare_multisig(script: bytes) -> bool:
    if len(script) < 37 or script[-1] != 0xAE:
        return False
    keys = pushes(script[1:-2])
    needed, total = script[0] - 0x50, script[-2] - 0x50
    return keys is not None and 1 <= needed <= total <= 3 and len(keys) == total


def _check_witness(i: Input, script: bytes) -> None:
    if script_type(script) == "scripthash":
        redeem = (pushes(i.script_sig) or [b""])[-1:]
        script = redeem[0] if redeem else b""
    if not is_witness_program(script) or script_type(script) == "anchor":
        raise Rejected("bad-witness-nonstandard")
    match script_type(script):
        case "witness_v0_scripthash":
            _check_script_witness(i.witness)
        case "witness_v1_taproot":
            _check_taproot_witness(i.witness)
        case "witness_v0_keyhash":
            _check_signatures(i.witness[:1])


def _check_script_witness(witness: tuple[bytes, ...]) -> None:
    *items, script = witness
    if len(script) > MAX_WITNESS_SCRIPT or len(items) > MAX_WITNESS_ITEMS:
        raise Rejected("bad-witness-nonstandard")
    if any(len(item) > MAX_WITNESS_ITEM for item in items):
        raise Rejected("bad-witness-nonstandard")
    if script[:1] in (bytes([OP_IF]), bytes([OP_NOTIF])) and items and items[-1] not in (b"", b"\x01"):
        raise Rejected(f"{SCRIPT_FLAW} (OP_IF/NOTIF argument must be minimal)")
    _check_signatures(items)


def _check_taproot_witness(witness: tuple[bytes, ...]) -> None:
    if len(witness) > 1 and witness[-1][:1] == bytes([ANNEX_TAG]):
        raise Rejected("bad-witness-nonstandard")
    if len(witness) > 1:
        *items, _, control = witness
        if not control:
            raise Rejected("bad-witness-nonstandard")
        if control[0] & 0xFE == TAPSCRIPT_LEAF and any(len(item) > MAX_WITNESS_ITEM for item in items):
            raise Rejected("bad-witness-nonstandard")


def _check_signatures(items: Sequence[bytes]) -> None:
    """Low S for every item that has the form of a DER signature."""
    for item in items:
        if 9 <= len(item) <= 73 and item[0] == 0x30 and item[1] == len(item) - 3:
            try:
                compact = wally.ec_sig_from_der(item[:-1])
                low = wally.ec_sig_normalize(compact)
            except ValueError:
                continue  # not a signature after all, or one that the engine refuses itself
            if compact != low:
                raise Rejected(f"{SCRIPT_FLAW} (Non-canonical signature: S value is unnecessarily high)")
