"""When an update of a storm was sent, written into the update itself.

Sender and receiver may be in different processes, and nodes in between hand the message on as it is. BOLT 7 has nodes
keep and relay what comes behind the fields of a channel_update, which its signature covers, and BOLT 1 has everybody
ignore odd records of a TLV stream there. So the time travels in a record of our own, and all fields stay as a real
channel would have them. It is Unix time by `runtime.now()`: one clock for all processes of a machine, and for all of a
virtual world.
"""

from struct import Struct

from node.gossip.raw import CHANNEL_UPDATE, CHANNEL_UPDATE_SIZE

# An odd type above 65,535, where BOLT 1 leaves room for experiments; as a bigsize, and the length of its value.
_RECORD = bytes.fromhex("fe0153574d") + b"\x08"
_VALUE = Struct(">Q")
_VALUE_AT = CHANNEL_UPDATE_SIZE + len(_RECORD)
_SIZE = _VALUE_AT + _VALUE.size
_UPDATE = CHANNEL_UPDATE.to_bytes(2, "big")


def stamp(now_s: float) -> bytes:
    """What belongs behind the fields of an update that is sent now."""
    return _RECORD + _VALUE.pack(round(now_s * 1e6))


def spoilt(raw: bytes) -> bytes:
    """The same with another stamp, which its signature does not cover: who hears it can tell."""
    return raw[:_VALUE_AT] + bytes(_VALUE.size)


def stamped_s(raw: bytes) -> float | None:
    """When this message was sent, if it is an update of a storm; 0 for one that was spoilt."""
    if len(raw) != _SIZE or raw[:2] != _UPDATE or raw[CHANNEL_UPDATE_SIZE:_VALUE_AT] != _RECORD:
        return None
    microseconds: int = _VALUE.unpack_from(raw, _VALUE_AT)[0]
    return microseconds / 1e6
