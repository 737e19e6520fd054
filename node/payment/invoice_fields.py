"""BOLT 11: the tagged fields of an invoice, in groups of five bits."""

from collections.abc import Iterator
from typing import TypeVar

from bech32 import convertbits
from msgspec import Struct

from node.crypto import keys
from node.errors import MalformedMessage, Refused
from node.wire.features import Feature, Features

PAYMENT_HASH = 1
ROUTE_HINT = 3
FEATURES = 5
EXPIRY = 6
FALLBACK = 9
DESCRIPTION = 13
PAYMENT_SECRET = 16
NODE_ID = 19
DESCRIPTION_HASH = 23
MIN_FINAL_CLTV_EXPIRY_DELTA = 24
PAYMENT_METADATA = 27

HASH_SIZE = 52  # groups: 256 bits and their padding
POINT_SIZE = 53
MAX_FIELD_SIZE = 1_023  # groups: ten bits of length
MAX_NUMBER_SIZE = 12  # groups: sixty bits, so that every number that we keep fits 64
HINT_HOP_SIZE = 51  # bytes
MAX_WITNESS_VERSION = 16
P2PKH, P2SH = 17, 18

# what an invoice may compel us to and we can do (BOLT 9, context `9`)
UNDERSTOOD = Features.of(
    optional=(
        Feature.VAR_ONION_OPTIN,
        Feature.PAYMENT_SECRET,
        Feature.BASIC_MPP,
        Feature.OPTION_PAYMENT_METADATA,
    )
)

T = TypeVar("T")


class HintHop(Struct, frozen=True):
    """A channel of a route hint, from `node_id` towards the payee."""

    node_id: bytes
    short_channel_id: int
    fee_base_msat: int
    fee_proportional_millionths: int
    cltv_expiry_delta: int


class Fallback(Struct, frozen=True):
    """An address on the chain: a witness version and program, or 17 (P2PKH) or 18 (P2SH) and the hash."""

    version: int
    program: bytes


class Fields(Struct, frozen=True, kw_only=True):
    """What the tagged fields say, but for the node id."""

    payment_hash: bytes
    payment_secret: bytes
    description: str | None = None
    description_hash: bytes | None = None
    expiry_s: int = 3600
    min_final_cltv_expiry_delta: int = 18
    fallbacks: tuple[Fallback, ...] = ()
    route_hints: tuple[tuple[HintHop, ...], ...] = ()
    features: Features = Features()
    payment_metadata: bytes | None = None


def decode_fields(groups: list[int]) -> tuple[Fields, bytes | None]:
    """The fields, and the node id where one is given.

    Raises MalformedMessage, also for what is well-formed and must not be paid.
    """
    found: dict[int, list[list[int]]] = {}
    for tag, data in _split(groups):
        found.setdefault(tag, []).append(data)
    fields = Fields(
        payment_hash=_required(_fixed(found, PAYMENT_HASH, HASH_SIZE), "payment hash"),
        payment_secret=_required(_fixed(found, PAYMENT_SECRET, HASH_SIZE), "payment secret"),
        description=_description(found),
        description_hash=_fixed(found, DESCRIPTION_HASH, HASH_SIZE),
        expiry_s=_number(found, EXPIRY, default=3600),
        min_final_cltv_expiry_delta=_number(found, MIN_FINAL_CLTV_EXPIRY_DELTA, default=18),
        fallbacks=tuple(f for data in found.get(FALLBACK, ()) if (f := _fallback(data)) is not None),
        route_hints=tuple(_route_hint(data) for data in found.get(ROUTE_HINT, ())),
        features=_features(found),
        payment_metadata=_first_bytes(found, PAYMENT_METADATA),
    )
    # BOLT 11, tagged fields: exactly one of `d` and `h`
    if (fields.description is None) == (fields.description_hash is None):
        raise MalformedMessage("an invoice has a description or the hash of one")
    return fields, _fixed(found, NODE_ID, POINT_SIZE)


def encode_fields(fields: Fields) -> list[int]:
    """The groups of all fields; what has its default value is left out."""
    out = _tagged(PAYMENT_SECRET, _groups(fields.payment_secret))
    out += _tagged(PAYMENT_HASH, _groups(fields.payment_hash))
    if fields.description is not None:
        out += _tagged(DESCRIPTION, _groups(fields.description.encode()))
    if fields.description_hash is not None:
        out += _tagged(DESCRIPTION_HASH, _groups(fields.description_hash))
    if fields.payment_metadata is not None:
        out += _tagged(PAYMENT_METADATA, _groups(fields.payment_metadata))
    if fields.expiry_s != 3600:
        out += _tagged(EXPIRY, _minimal(fields.expiry_s))
    if fields.min_final_cltv_expiry_delta != 18:
        out += _tagged(MIN_FINAL_CLTV_EXPIRY_DELTA, _minimal(fields.min_final_cltv_expiry_delta))
    for fallback in fields.fallbacks:
        out += _tagged(FALLBACK, [fallback.version, *_groups(fallback.program)])
    for hint in fields.route_hints:
        out += _tagged(ROUTE_HINT, _groups(b"".join(_hint_hop_bytes(hop) for hop in hint)))
    if fields.features.bits:
        out += _tagged(FEATURES, _minimal(fields.features.bits))
    return out


def _split(groups: list[int]) -> Iterator[tuple[int, list[int]]]:
    offset = 0
    while offset < len(groups):
        if offset + 3 > len(groups):
            raise MalformedMessage("ends inside the head of a field")
        tag, high, low = groups[offset : offset + 3]
        start, offset = offset + 3, offset + 3 + (high << 5 | low)
        if offset > len(groups):
            raise MalformedMessage(f"ends inside field {tag}")
        yield tag, groups[start:offset]


def _fixed(found: dict[int, list[list[int]]], tag: int, size: int) -> bytes | None:
    # BOLT 11's own vectors carry these with other lengths beside a good one: such are no field of ours
    good = next((data for data in found.get(tag, ()) if len(data) == size), None)
    return None if good is None else _bytes(good)


def _first_bytes(found: dict[int, list[list[int]]], tag: int) -> bytes | None:
    return _bytes(found[tag][0]) if tag in found else None


def _required(value: T | None, name: str) -> T:
    if value is None:
        raise MalformedMessage(f"no {name}")
    return value


def _description(found: dict[int, list[list[int]]]) -> str | None:
    raw = _first_bytes(found, DESCRIPTION)
    try:
        return None if raw is None else raw.decode()
    except UnicodeDecodeError as fault:
        raise MalformedMessage("a description that is not UTF-8") from fault


def _number(found: dict[int, list[list[int]]], tag: int, default: int) -> int:
    if tag not in found:
        return default
    data = found[tag][0]
    # BOLT 11, `c`, `x` and `9`: minimal, so no leading zero
    if len(data) > MAX_NUMBER_SIZE or data[:1] == [0]:
        raise MalformedMessage(f"field {tag} is too long or not minimal")
    return integer(data)


def _features(found: dict[int, list[list[int]]]) -> Features:
    data = found[FEATURES][0] if FEATURES in found else []
    if data[:1] == [0]:
        raise MalformedMessage("features are not minimal")
    features = Features(integer(data))
    # BOLT 11, `9`: unknown even bits and missing dependencies forbid the payment
    unknown = features.unknown_even(UNDERSTOOD)
    if unknown:
        raise MalformedMessage(f"requires feature {unknown[0]}, which we do not know")
    if features.missing_dependencies():
        raise MalformedMessage("has a feature without another that it depends on")
    return features


def _fallback(data: list[int]) -> Fallback | None:
    """None where the version or the program is none that we know."""
    if not data or data[0] > P2SH:
        return None
    version, program = data[0], convertbits(data[1:], 5, 8, pad=False)
    if program is None:
        return None
    if version > MAX_WITNESS_VERSION:
        known = len(program) == 20
    elif version == 0:
        known = len(program) in (20, 32)
    else:
        known = 2 <= len(program) <= 40
    return Fallback(version, bytes(program)) if known else None


def _route_hint(data: list[int]) -> tuple[HintHop, ...]:
    raw = _bytes(data)
    if not raw or len(raw) % HINT_HOP_SIZE:
        raise MalformedMessage("a route hint that is no list of channels")
    return tuple(_hint_hop(raw[at : at + HINT_HOP_SIZE]) for at in range(0, len(raw), HINT_HOP_SIZE))


def _hint_hop(raw: bytes) -> HintHop:
    if not keys.is_valid_point(raw[:33]):
        raise MalformedMessage("a route hint through no valid node id")
    scid, base, proportional, delta = raw[33:41], raw[41:45], raw[45:49], raw[49:]
    return HintHop(raw[:33], *(int.from_bytes(part, "big") for part in (scid, base, proportional, delta)))


def _hint_hop_bytes(hop: HintHop) -> bytes:
    return b"".join(
        (
            hop.node_id,
            hop.short_channel_id.to_bytes(8, "big"),
            hop.fee_base_msat.to_bytes(4, "big"),
            hop.fee_proportional_millionths.to_bytes(4, "big"),
            hop.cltv_expiry_delta.to_bytes(2, "big"),
        )
    )


def _tagged(tag: int, data: list[int]) -> list[int]:
    if len(data) > MAX_FIELD_SIZE:
        raise Refused("a field of an invoice holds at most 639 bytes")
    return [tag, len(data) >> 5, len(data) & 31, *data]


def _bytes(data: list[int]) -> bytes:
    packed = convertbits(data, 5, 8, pad=False)
    if packed is None:
        # BOLT 11, tagged fields: padded with zeros, to five bits and no further
        raise MalformedMessage("a field with padding that is not zero")
    return bytes(packed)


def _groups(data: bytes) -> list[int]:
    groups = convertbits(data, 8, 5)
    assert groups is not None
    return groups


def integer(data: list[int]) -> int:
    """The number that these groups spell, the highest first."""
    value = 0
    for group in data:
        value = value << 5 | group
    return value


def _minimal(value: int) -> list[int]:
    size = (value.bit_length() + 4) // 5
    return [value >> 5 * at & 31 for at in reversed(range(size))]
