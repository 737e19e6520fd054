"""BOLT 11: invoices, between their text and a value."""

import re

from bech32 import bech32_decode, bech32_encode, convertbits
from msgspec.structs import asdict

from node.crypto import keys
from node.crypto.hashes import sha256
from node.errors import MalformedMessage, Refused
from node.payment.invoice_fields import Fallback, Fields, HintHop, decode_fields, encode_fields, integer

__all__ = ["NETWORKS", "Fallback", "HintHop", "Invoice", "decode", "encode"]

# BIP 173 prefix after the `ln` of every network that we take part in
NETWORKS = {"bitcoin": "bc", "testnet": "tb", "signet": "tbs", "regtest": "bcrt"}
MAX_INVOICE_LENGTH = 7_089  # what the largest QR code holds; bounds the work that a text can cause
MAX_AMOUNT_MSAT = 21_000_000 * 100_000_000_000
TIMESTAMP_SIZE = 7  # in groups of five bits, as the next two
SIGNATURE_SIZE = 104

_PREFIX = re.compile(r"ln(bcrt|tbs|tb|bc)(?:([1-9][0-9]{0,19})([munp]?))?", re.ASCII)
# a bitcoin is 10^11 msat; `p` is a tenth of a msat, hence figures ten times as large
_TENTHS_OF_MSAT = {"": 10**12, "m": 10**9, "u": 10**6, "n": 10**3, "p": 1}


class Invoice(Fields, frozen=True, kw_only=True):
    """A request for a payment; `node_id` is the payee's, proven by the signature."""

    network: str
    amount_msat: int | None = None
    timestamp_s: int
    node_id: bytes

    @property
    def expires_at_s(self) -> int:
        return self.timestamp_s + self.expiry_s


def decode(text: str) -> Invoice:
    """The invoice in `text`, its signature checked. Raises MalformedMessage for everything else."""
    if len(text) > MAX_INVOICE_LENGTH:
        raise MalformedMessage(f"an invoice of {len(text)} characters")
    prefix, data = bech32_decode(text)
    if prefix is None or data is None:
        raise MalformedMessage("not a bech32 text, or its checksum is wrong")
    network, amount_msat = _decode_prefix(prefix)
    if len(data) < TIMESTAMP_SIZE + SIGNATURE_SIZE:
        raise MalformedMessage("too short to hold a timestamp and a signature")
    signed, signature = data[:-SIGNATURE_SIZE], data[-SIGNATURE_SIZE:]
    fields, node_id = decode_fields(signed[TIMESTAMP_SIZE:])
    return Invoice(
        network=network,
        amount_msat=amount_msat,
        timestamp_s=integer(signed[:TIMESTAMP_SIZE]),
        node_id=_signer(_digest(prefix, signed), signature, node_id),
        **asdict(fields),
    )


def encode(invoice: Invoice, node_secret: bytes) -> str:
    """The text of `invoice`, signed; `node_secret` is that of its node_id. Raises Refused for what does not fit."""
    assert keys.public_key(node_secret) == invoice.node_id, "an invoice is signed by its payee"
    prefix = "ln" + NETWORKS[invoice.network] + _encode_amount(invoice.amount_msat)
    assert invoice.timestamp_s < 1 << 5 * TIMESTAMP_SIZE
    timestamp = [invoice.timestamp_s >> 5 * at & 31 for at in reversed(range(TIMESTAMP_SIZE))]
    signed = [*timestamp, *encode_fields(invoice)]
    signature = convertbits(keys.sign_recoverable(node_secret, _digest(prefix, signed)), 8, 5)
    assert signature is not None
    text = bech32_encode(prefix, [*signed, *signature])
    if len(text) > MAX_INVOICE_LENGTH:
        raise Refused(f"an invoice of {len(text)} characters, the most is {MAX_INVOICE_LENGTH}")
    return text


def _decode_prefix(prefix: str) -> tuple[str, int | None]:
    parts = _PREFIX.fullmatch(prefix)
    if parts is None:
        raise MalformedMessage("not the prefix of an invoice")
    currency, figures, multiplier = parts.groups()
    network = next(name for name, known in NETWORKS.items() if known == currency)
    if figures is None:
        return network, None
    amount_msat, rest = divmod(int(figures) * _TENTHS_OF_MSAT[multiplier], 10)
    # BOLT 11, human-readable part: with `p`, the last decimal is 0
    if rest:
        raise MalformedMessage("an amount finer than a millisatoshi")
    if amount_msat > MAX_AMOUNT_MSAT:
        raise MalformedMessage("an amount above all bitcoin there are")
    return network, amount_msat


def _encode_amount(amount_msat: int | None) -> str:
    """The shortest form: the largest multiplier that leaves a whole number."""
    if amount_msat is None:
        return ""
    if not 0 < amount_msat <= MAX_AMOUNT_MSAT:
        raise Refused(f"amount_msat: above zero, and at most {MAX_AMOUNT_MSAT}")
    return next(
        f"{amount_msat * 10 // unit}{multiplier}"
        for multiplier, unit in _TENTHS_OF_MSAT.items()
        if amount_msat * 10 % unit == 0
    )


def _digest(prefix: str, signed: list[int]) -> bytes:
    packed = convertbits(signed, 5, 8)
    assert packed is not None
    return sha256(prefix.encode() + bytes(packed))


def _signer(digest: bytes, signature: list[int], node_id: bytes | None) -> bytes:
    packed = convertbits(signature, 5, 8, pad=False)
    assert packed is not None, "104 groups of five bits are 65 bytes"
    if node_id is not None:
        # BOLT 11, `n`: it replaces recovery, and only a low S is a signature then
        if not keys.verify(node_id, digest, bytes(packed[:64])):
            raise MalformedMessage("not signed by the node that it names")
        return node_id
    recovered = keys.recover(digest, bytes(packed))
    if recovered is None:
        raise MalformedMessage("no node can have made this signature")
    return recovered
