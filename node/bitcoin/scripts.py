"""The scripts of BOLT 3, as bytes; `holder` is whose commitment transaction carries them."""

from msgspec import Struct

from node.crypto.hashes import hash160, ripemd160, sha256

OP_0 = b"\x00"
OP_1 = b"\x51"
OP_2 = b"\x52"
OP_16 = b"\x60"
OP_IF = b"\x63"
OP_NOTIF = b"\x64"
OP_ELSE = b"\x67"
OP_ENDIF = b"\x68"
OP_RETURN = b"\x6a"
OP_IFDUP = b"\x73"
OP_DROP = b"\x75"
OP_DUP = b"\x76"
OP_SWAP = b"\x7c"
OP_SIZE = b"\x82"
OP_EQUAL = b"\x87"
OP_EQUALVERIFY = b"\x88"
OP_HASH160 = b"\xa9"
OP_CHECKSIG = b"\xac"
OP_CHECKSIGVERIFY = b"\xad"
OP_CHECKMULTISIG = b"\xae"
OP_CHECKLOCKTIMEVERIFY = b"\xb1"
OP_CHECKSEQUENCEVERIFY = b"\xb2"
OP_PUSHDATA1 = 0x4C

PUSH_20, PUSH_32, PUSH_33 = b"\x14", b"\x20", b"\x21"

# BOLT 2, shutdown: what an OP_RETURN may carry
MAX_OP_RETURN_DATA = 80
MIN_OP_RETURN_DATA = 6


def number(value: int) -> bytes:
    """The shortest push of a number that is not negative."""
    if value == 0:
        return OP_0
    if value <= 16:
        return bytes((OP_1[0] + value - 1,))
    data = value.to_bytes(value.bit_length() // 8 + 1, "little")  # the highest bit is the sign
    return bytes((len(data),)) + data


def p2wsh(script: bytes) -> bytes:
    return OP_0 + PUSH_32 + sha256(script)


def p2wpkh(point: bytes) -> bytes:
    return OP_0 + PUSH_20 + hash160(point)


def funding_script(point: bytes, other: bytes) -> bytes:
    """Two of two, the lesser point first whichever way they are given."""
    first, second = sorted((point, other))
    return b"".join((OP_2, PUSH_33, first, PUSH_33, second, OP_2, OP_CHECKMULTISIG))


def to_local(revocation_point: bytes, to_self_delay: int, delayed_point: bytes) -> bytes:
    """The holder's own money, and what HTLC transactions pay to: delayed, or punishable at once."""
    return b"".join(
        (
            *(OP_IF, PUSH_33, revocation_point),
            *(OP_ELSE, number(to_self_delay), OP_CHECKSEQUENCEVERIFY, OP_DROP, PUSH_33, delayed_point),
            *(OP_ENDIF, OP_CHECKSIG),
        )
    )


def to_remote_anchors(point: bytes) -> bytes:
    return b"".join((PUSH_33, point, OP_CHECKSIGVERIFY, OP_1, OP_CHECKSEQUENCEVERIFY))


def anchor(funding_point: bytes) -> bytes:
    """Spendable by its owner at once, and by anyone after 16 blocks."""
    return b"".join(
        (PUSH_33, funding_point, OP_CHECKSIG, OP_IFDUP, OP_NOTIF, OP_16, OP_CHECKSEQUENCEVERIFY, OP_ENDIF)
    )


class HtlcScripts(Struct, frozen=True):
    """What all HTLC scripts of one commitment share: only payment hash and expiry are left to fill in."""

    offered_head: bytes
    offered_tail: bytes
    received_head: bytes
    received_middle: bytes
    received_tail: bytes

    def offered(self, payment_hash: bytes) -> bytes:
        return self.offered_head + ripemd160(payment_hash) + self.offered_tail

    def received(self, payment_hash: bytes, cltv_expiry: int) -> bytes:
        return b"".join(
            (
                self.received_head,
                ripemd160(payment_hash),
                self.received_middle,
                number(cltv_expiry),
                self.received_tail,
            )
        )


def htlc_scripts(
    revocation_point: bytes, holder_htlc: bytes, other_htlc: bytes, anchors: bool
) -> HtlcScripts:
    """The HTLC scripts of a commitment, by the keys they all name."""
    head = b"".join(
        (
            *(OP_DUP, OP_HASH160, PUSH_20, hash160(revocation_point), OP_EQUAL),
            *(OP_IF, OP_CHECKSIG, OP_ELSE),
            *(PUSH_33, other_htlc, OP_SWAP, OP_SIZE, b"\x01\x20", OP_EQUAL),
        )
    )
    multisig = b"".join((OP_2, OP_SWAP, PUSH_33, holder_htlc, OP_2, OP_CHECKMULTISIG))
    delay = OP_1 + OP_CHECKSEQUENCEVERIFY + OP_DROP if anchors else b""
    end = OP_ENDIF + delay + OP_ENDIF
    return HtlcScripts(
        offered_head=b"".join((head, OP_NOTIF, OP_DROP, multisig, OP_ELSE, OP_HASH160, PUSH_20)),
        offered_tail=OP_EQUALVERIFY + OP_CHECKSIG + end,
        received_head=b"".join((head, OP_IF, OP_HASH160, PUSH_20)),
        received_middle=b"".join((OP_EQUALVERIFY, multisig, OP_ELSE, OP_DROP)),
        received_tail=OP_CHECKLOCKTIMEVERIFY + OP_DROP + OP_CHECKSIG + end,
    )


def is_op_return(script: bytes) -> bool:
    return script[:1] == OP_RETURN


def is_standard_shutdown_script(script: bytes, any_segwit: bool, simple_close: bool) -> bool:
    """BOLT 2, shutdown: the forms of scriptpubkey a peer may be paid to, by what was negotiated."""
    if script[:1] == OP_0:
        return (len(script), script[1:2]) in {(22, PUSH_20), (34, PUSH_32)}
    if is_op_return(script):
        return simple_close and _is_standard_op_return(script)
    return any_segwit and _is_witness_program(script)


def _is_witness_program(script: bytes) -> bool:
    """Versions 1 to 16: one push of 2 to 40 bytes."""
    return 4 <= len(script) <= 42 and OP_1 <= script[:1] <= OP_16 and script[1] == len(script) - 2


def _is_standard_op_return(script: bytes) -> bool:
    """A single push, in the shortest of the two ways to write it."""
    if len(script) < 2:
        return False
    if script[1] < OP_PUSHDATA1:
        return MIN_OP_RETURN_DATA <= script[1] == len(script) - 2
    return (
        script[1] == OP_PUSHDATA1
        and OP_PUSHDATA1 <= len(script) - 3 <= MAX_OP_RETURN_DATA
        and script[2] == len(script) - 3
    )
