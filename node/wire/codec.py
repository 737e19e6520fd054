"""The codec engine: classes declare the BOLTs' tables, this turns their values into bytes and back.

A message class is a frozen Struct whose annotations say how each field travels (`node.wire.fields`). On first use
the declaration is compiled: runs of fixed-size fields become one `struct` call, the rest is read field by field, and
fields marked `Tlv` make up the TLV stream at the end. A message without such fields ignores trailing bytes (BOLT 1).
"""

import struct
from collections.abc import Callable
from operator import attrgetter
from types import UnionType
from typing import Annotated, Any, ClassVar, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from node.errors import MalformedMessage
from node.wire.fields import MAX_MESSAGE_SIZE, Field, Tlv, decode_bigsize, encode_bigsize, take


class Record(msgspec.Struct, frozen=True):
    """Fields one after the other, without a type number (the value of a TLV record)."""


class TlvStream(msgspec.Struct, frozen=True, kw_only=True):
    """A TLV stream that stands alone, such as an onion's payload."""


class Message(msgspec.Struct, frozen=True):
    """A peer message; `number` is its BOLT 1 type."""

    number: ClassVar[int] = -1


class Unknown(msgspec.Struct, frozen=True):
    """An odd message that is not registered: it may be ignored."""

    number: int
    payload: bytes


BY_NUMBER: dict[int, type[Message]] = {}

S = TypeVar("S", bound=msgspec.Struct)
M = TypeVar("M", bound=Message)


def message(number: int) -> Callable[[type[M]], type[M]]:
    """Register a message class under its type number."""

    def register(cls: type[M]) -> type[M]:
        assert number not in BY_NUMBER, f"type {number} is declared twice"
        cls.number = number
        BY_NUMBER[number] = cls
        return cls

    return register


def message_type(data: bytes) -> int:
    """The type number of a raw message. Raises MalformedMessage where there is none."""
    if len(data) < 2:
        raise MalformedMessage("a message has at least the two bytes of its type")
    return int.from_bytes(data[:2], "big")


def encode(value: Message) -> bytes:
    """A message as it travels, type number first."""
    data: bytes = _codec(type(value)).encode(value)
    assert len(data) <= MAX_MESSAGE_SIZE, f"{type(value).__name__} grew to {len(data)} bytes"
    return data


def decode(data: bytes) -> Message | Unknown:
    """The message in `data`; an unregistered odd one as Unknown.

    Raises MalformedMessage for bytes that are no such message and for unknown even types.
    """
    number = message_type(data)
    cls = BY_NUMBER.get(number)
    if cls is None:
        if number % 2 == 0:
            raise MalformedMessage(f"unknown even message type {number}")
        return Unknown(number, data[2:])
    found: Message = _codec(cls).decode(data)
    return found


def decode_as(cls: type[M], data: bytes) -> M:
    """`data` as a message of this class. Raises MalformedMessage, also where it is of another type."""
    if message_type(data) != cls.number:
        raise MalformedMessage(f"type {message_type(data)} where {cls.__name__} was expected")
    found: M = _codec(cls).decode(data)
    return found


def encode_tlvs(value: TlvStream) -> bytes:
    """A TLV stream that stands alone, records in order of their numbers."""
    data: bytes = _codec(type(value)).encode(value)
    return data


def decode_tlvs(cls: type[S], data: bytes) -> S:
    """The TLV stream in `data`. Raises MalformedMessage, also for unknown even records (BOLT 1)."""
    found: S = _codec(cls).decode(data)
    return found


def split_tlvs(data: bytes, offset: int = 0) -> list[tuple[int, bytes]]:
    """All records of a TLV stream, checked to be in strictly increasing order and minimal (BOLT 1)."""
    records = []
    last = -1
    while offset < len(data):
        number, offset = decode_bigsize(data, offset)
        if number <= last:
            raise MalformedMessage(f"TLV record {number} is out of order")
        length, offset = decode_bigsize(data, offset)
        records.append((number, take(data, offset, offset + length)))
        offset += length
        last = number
    return records


class _Codec:
    """A compiled declaration."""

    def __init__(self, cls: type[Any]) -> None:
        self.cls = cls
        number = cls.number if issubclass(cls, Message) else None
        self.prefix = b"" if number is None else number.to_bytes(2, "big")
        self.name = cls.__name__
        names, fields, tlvs = _declared(cls)
        self.parts = _parts(names, fields)
        self.tlvs = tuple(sorted(tlvs, key=lambda tlv: tlv[0]))
        self.tlv_by_number = {number: (name, field) for number, name, field in self.tlvs}
        self.tlv_names = tuple(name for _, name, _ in self.tlvs)
        self.whole_stream = issubclass(cls, TlvStream)

    def encode(self, value: Any) -> bytes:
        out = [self.prefix, *(part.encode(value) for part in self.parts)]
        for number, name, field in self.tlvs:
            item = getattr(value, name)
            if item is not None:
                body = field.encode(item)
                out.append(encode_bigsize(number) + encode_bigsize(len(body)) + body)
        return b"".join(out)

    def decode(self, data: bytes) -> Any:
        offset = len(self.prefix)
        values: list[Any] = []
        for part in self.parts:
            offset = part.decode(data, offset, values)
        if offset == len(data) or not (self.tlvs or self.whole_stream):
            return self.cls(*values)
        return self.cls(*values, **self._decode_tlvs(data, offset))

    def _decode_tlvs(self, data: bytes, offset: int) -> dict[str, Any]:
        found = {}
        for number, body in split_tlvs(data, offset):
            known = self.tlv_by_number.get(number)
            if known is not None:
                name, field = known
                value, end = field.decode(body, 0)
                if end != len(body):
                    raise MalformedMessage(f"{self.name}.{name} has {len(body) - end} bytes too many")
                found[name] = value
            elif number % 2 == 0:
                raise MalformedMessage(f"{self.name} has the unknown even TLV record {number}")
        return found


class _FixedRun:
    """Consecutive fields of fixed size: one struct call for all of them."""

    def __init__(self, names: list[str], fields: list[Field]) -> None:
        self.struct = struct.Struct(">" + "".join(field.code or "" for field in fields))
        self.size = self.struct.size
        self.lengths = tuple((i, f.size) for i, f in enumerate(fields) if (f.code or "").endswith("s"))
        getter = attrgetter(*names)
        self.get: Callable[[Any], tuple[Any, ...]] = getter if len(names) > 1 else lambda v: (getter(v),)

    def encode(self, value: Any) -> bytes:
        values = self.get(value)
        for index, length in self.lengths:  # struct would pad or cut in silence
            assert len(values[index]) == length, (
                f"{type(value).__name__}: {len(values[index])} bytes, not {length}"
            )
        return self.struct.pack(*values)

    def decode(self, data: bytes, offset: int, values: list[Any]) -> int:
        if offset + self.size > len(data):
            raise MalformedMessage(f"ends after {len(data)} bytes where {offset + self.size} are needed")
        values.extend(self.struct.unpack_from(data, offset))
        return offset + self.size


class _Single:
    """One field whose size varies."""

    def __init__(self, name: str, field: Field) -> None:
        self.get = attrgetter(name)
        self.field = field

    def encode(self, value: Any) -> bytes:
        return self.field.encode(self.get(value))

    def decode(self, data: bytes, offset: int, values: list[Any]) -> int:
        value, offset = self.field.decode(data, offset)
        values.append(value)
        return offset


class _RecordField:
    """A Record as the value of a TLV."""

    code: str | None = None
    size: int | None = None

    def __init__(self, cls: type[Record]) -> None:
        self.cls = cls
        self.parts = _parts(*_declared(cls)[:2])

    def encode(self, value: object) -> bytes:
        return b"".join(part.encode(value) for part in self.parts)

    def decode(self, data: bytes, offset: int) -> tuple[object, int]:
        values: list[Any] = []
        for part in self.parts:
            offset = part.decode(data, offset, values)
        return self.cls(*values), offset


_CODECS: dict[type[Any], _Codec] = {}


def _codec(cls: type[Any]) -> _Codec:
    codec = _CODECS.get(cls)
    if codec is None:
        codec = _CODECS[cls] = _Codec(cls)
    return codec


def _declared(cls: type[Any]) -> tuple[list[str], list[Field], list[tuple[int, str, Field]]]:
    """Names and kinds of the plain fields, then the TLV records."""
    names, fields, tlvs = [], [], []
    for name, hint in get_type_hints(cls, include_extras=True).items():
        if name not in cls.__struct_fields__:
            continue
        tlv = _tlv(hint)
        if tlv is not None:
            tlvs.append((tlv.number, name, tlv.field or _kind(hint)))
        else:
            assert not tlvs, f"{cls.__name__}.{name}: plain fields come before TLV records"
            names.append(name)
            fields.append(_kind(hint))
    return names, fields, tlvs


def _tlv(hint: Any) -> Tlv | None:
    return next((mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Tlv)), None)


def _kind(hint: Any) -> Field:
    """The kind of a field, from `Annotated[int, Uint(4)]`, `Annotated[U64 | None, Tlv(1)]` or a Record."""
    if get_origin(hint) is Annotated:
        for mark in hint.__metadata__:
            if hasattr(mark, "decode"):
                field: Field = mark
                return field
        return _kind(hint.__origin__)
    if get_origin(hint) in (Union, UnionType):
        return _kind(next(arm for arm in get_args(hint) if arm is not type(None)))
    assert issubclass(hint, Record), f"no way to encode {hint}"
    return _RecordField(hint)


def _parts(names: list[str], fields: list[Field]) -> tuple[_FixedRun | _Single, ...]:
    parts: list[_FixedRun | _Single] = []
    run: list[int] = []
    for index, field in enumerate([*fields, None]):
        if field is not None and field.code is not None:
            run.append(index)
            continue
        if run:
            parts.append(_FixedRun([names[i] for i in run], [fields[i] for i in run]))
            run = []
        if field is not None:
            parts.append(_Single(names[index], field))
    return tuple(parts)
