"""How single fields travel: each kind turns a value into bytes and back.

A kind whose size is fixed names a `struct` code, so that the codec engine packs a run of them in one call.
"""

from typing import Annotated, Protocol

from node.errors import MalformedMessage

MAX_MESSAGE_SIZE = 65_535  # BOLT 8: the length of a message is a u16
SIGNATURE_SIZE = 64
POINT_SIZE = 33


class Field(Protocol):
    """One kind of field: `code` is its struct code, or None where its size varies."""

    code: str | None
    size: int | None

    def encode(self, value: object) -> bytes: ...

    def decode(self, data: bytes, offset: int) -> tuple[object, int]:
        """Read from `offset`; return the value and the offset after it. Raises MalformedMessage."""


class Uint:
    """A big-endian unsigned integer of 1, 2, 4 or 8 bytes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.code: str | None = {1: "B", 2: "H", 4: "I", 8: "Q"}[size]

    def encode(self, value: object) -> bytes:
        assert isinstance(value, int)
        return value.to_bytes(self.size, "big")

    def decode(self, data: bytes, offset: int) -> tuple[object, int]:
        end = offset + self.size
        return int.from_bytes(take(data, offset, end), "big"), end


class Fixed:
    """Exactly `size` bytes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.code: str | None = f"{size}s"

    def encode(self, value: object) -> bytes:
        assert isinstance(value, bytes)
        assert len(value) == self.size, f"{len(value)} bytes where {self.size} belong"
        return value

    def decode(self, data: bytes, offset: int) -> tuple[object, int]:
        end = offset + self.size
        return take(data, offset, end), end


class Counted:
    """A u16 length, then that many bytes."""

    code: str | None = None
    size: int | None = None

    def encode(self, value: object) -> bytes:
        assert isinstance(value, bytes)
        return len(value).to_bytes(2, "big") + value

    def decode(self, data: bytes, offset: int) -> tuple[object, int]:
        start = offset + 2
        end = start + int.from_bytes(take(data, offset, start), "big")
        return take(data, start, end), end


class CountedItems:
    """A u16 count, then that many items of `item` bytes."""

    code: str | None = None
    size: int | None = None

    def __init__(self, item: int) -> None:
        self.item = item

    def encode(self, value: object) -> bytes:
        assert isinstance(value, tuple)
        body = b"".join(value)
        assert len(body) == len(value) * self.item
        return len(value).to_bytes(2, "big") + body

    def decode(self, data: bytes, offset: int) -> tuple[object, int]:
        start = offset + 2
        end = start + int.from_bytes(take(data, offset, start), "big") * self.item
        take(data, start, end)
        return tuple(data[at : at + self.item] for at in range(start, end, self.item)), end


class Rest:
    """All bytes that are left (last field of a TLV record)."""

    code: str | None = None
    size: int | None = None

    def encode(self, value: object) -> bytes:
        assert isinstance(value, bytes)
        return value

    def decode(self, data: bytes, offset: int) -> tuple[object, int]:
        return data[offset:], len(data)


class Truncated:
    """tu16, tu32, tu64: leading zero bytes left out (last field of a TLV record)."""

    code: str | None = None
    size: int | None = None

    def __init__(self, most: int) -> None:
        self.most = most

    def encode(self, value: object) -> bytes:
        assert isinstance(value, int)
        return value.to_bytes((value.bit_length() + 7) // 8, "big")

    def decode(self, data: bytes, offset: int) -> tuple[object, int]:
        raw = data[offset:]
        if len(raw) > self.most or raw[:1] == b"\0":
            # BOLT 1, fundamental types: a truncated integer is minimal
            raise MalformedMessage("truncated integer is too long or not minimal")
        return int.from_bytes(raw, "big"), len(data)


class BigSize:
    """BOLT 1's variable-length integer."""

    code: str | None = None
    size: int | None = None

    def encode(self, value: object) -> bytes:
        assert isinstance(value, int)
        return encode_bigsize(value)

    def decode(self, data: bytes, offset: int) -> tuple[object, int]:
        return decode_bigsize(data, offset)


class Tlv:
    """Marks a field as record `number` of the TLV stream that ends a message."""

    def __init__(self, number: int, field: Field | None = None) -> None:
        self.number = number
        self.field = field


def take(data: bytes, start: int, end: int) -> bytes:
    """data[start:end], or MalformedMessage where the bytes end before."""
    if end > len(data):
        raise MalformedMessage(f"ends after {len(data)} bytes where {end} are needed")
    return data[start:end]


def encode_bigsize(value: int) -> bytes:
    """BOLT 1, appendix A."""
    if value < 0xFD:
        return value.to_bytes(1, "big")
    if value <= 0xFFFF:
        return b"\xfd" + value.to_bytes(2, "big")
    if value <= 0xFFFF_FFFF:
        return b"\xfe" + value.to_bytes(4, "big")
    return b"\xff" + value.to_bytes(8, "big")


def decode_bigsize(data: bytes, offset: int) -> tuple[int, int]:
    """The value and the offset after it; MalformedMessage where it is cut or not minimal."""
    first = take(data, offset, offset + 1)[0]
    if first < 0xFD:
        return first, offset + 1
    size = 1 << (first - 0xFC)
    end = offset + 1 + size
    value = int.from_bytes(take(data, offset + 1, end), "big")
    if value < (0xFD, 1 << 16, 1 << 32)[first - 0xFD]:
        raise MalformedMessage("bigsize is not minimal")
    return value, end


U8 = Annotated[int, Uint(1)]
U16 = Annotated[int, Uint(2)]
U32 = Annotated[int, Uint(4)]
U64 = Annotated[int, Uint(8)]
Bytes3 = Annotated[bytes, Fixed(3)]
Bytes32 = Annotated[bytes, Fixed(32)]
Sha256 = Annotated[bytes, Fixed(32)]
ChannelId = Annotated[bytes, Fixed(32)]
ChainHash = Annotated[bytes, Fixed(32)]
Point = Annotated[bytes, Fixed(POINT_SIZE)]
Signature = Annotated[bytes, Fixed(SIGNATURE_SIZE)]
ShortChannelId = Annotated[int, Uint(8)]
OnionPacket = Annotated[bytes, Fixed(1366)]
Data = Annotated[bytes, Counted()]
Signatures = Annotated[tuple[bytes, ...], CountedItems(SIGNATURE_SIZE)]
Remainder = Annotated[bytes, Rest()]
TU32 = Annotated[int, Truncated(4)]
TU64 = Annotated[int, Truncated(8)]
Size = Annotated[int, BigSize()]
