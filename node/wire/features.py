"""BOLT 9: feature bits, what depends on what, and channel types (BOLT 2)."""

from enum import IntEnum
from typing import Self

import msgspec

MAX_FEATURE_BYTES = 1_024  # far above any assigned bit; bounds what a peer's init can make us look at


class Feature(IntEnum):
    """Features by the number of their even (compulsory) bit."""

    OPTION_DATA_LOSS_PROTECT = 0
    INITIAL_ROUTING_SYNC = 2
    OPTION_UPFRONT_SHUTDOWN_SCRIPT = 4
    GOSSIP_QUERIES = 6
    VAR_ONION_OPTIN = 8
    GOSSIP_QUERIES_EX = 10
    OPTION_STATIC_REMOTEKEY = 12
    PAYMENT_SECRET = 14
    BASIC_MPP = 16
    OPTION_SUPPORT_LARGE_CHANNEL = 18
    OPTION_ANCHORS = 22
    OPTION_ROUTE_BLINDING = 24
    OPTION_SHUTDOWN_ANYSEGWIT = 26
    OPTION_DUAL_FUND = 28
    OPTION_QUIESCE = 34
    OPTION_ATTRIBUTION_DATA = 36
    OPTION_ONION_MESSAGES = 38
    OPTION_PROVIDE_STORAGE = 42
    OPTION_CHANNEL_TYPE = 44
    OPTION_SCID_ALIAS = 46
    OPTION_PAYMENT_METADATA = 48
    KEYSEND = 54  # bLIP 3
    OPTION_ZEROCONF = 50
    OPTION_SIMPLE_CLOSE = 60
    OPTION_SPLICE = 62


# BOLT 9: the transitive dependencies of its table
DEPENDS_ON: dict[Feature, tuple[Feature, ...]] = {
    Feature.BASIC_MPP: (Feature.PAYMENT_SECRET,),
    Feature.OPTION_ZEROCONF: (Feature.OPTION_SCID_ALIAS,),
    Feature.OPTION_SIMPLE_CLOSE: (Feature.OPTION_SHUTDOWN_ANYSEGWIT,),
}


class Features(msgspec.Struct, frozen=True):
    """A set of feature bits."""

    bits: int = 0

    @classmethod
    def of(cls, *, optional: tuple[Feature, ...] = (), compulsory: tuple[Feature, ...] = ()) -> Self:
        return cls(sum(2 << f for f in optional) | sum(1 << f for f in compulsory))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        return cls(int.from_bytes(data, "big"))

    def to_bytes(self) -> bytes:
        return self.bits.to_bytes((self.bits.bit_length() + 7) // 8, "big")

    def supports(self, feature: Feature) -> bool:
        """Whether either bit is set."""
        return bool(self.bits >> feature & 3)

    def requires(self, feature: Feature) -> bool:
        return bool(self.bits >> feature & 1)

    def __or__(self, other: "Features") -> "Features":
        return Features(self.bits | other.bits)

    def unknown_even(self, known: "Features") -> tuple[int, ...]:
        """The compulsory bits set here that `known` supports neither way (BOLT 1, init: then we cannot talk)."""
        both = known.bits | known.bits >> 1 | known.bits << 1
        odd_out = self.bits & ~both
        return tuple(bit for bit in range(0, odd_out.bit_length(), 2) if odd_out >> bit & 1)

    def missing_dependencies(self) -> tuple[tuple[Feature, Feature], ...]:
        """(feature, what it depends on) pairs where the second is not set (BOLT 9)."""
        return tuple(
            (feature, needed)
            for feature, all_needed in DEPENDS_ON.items()
            if self.supports(feature)
            for needed in all_needed
            if not self.supports(needed)
        )


class ChannelType(msgspec.Struct, frozen=True):
    """What kind of commitment transactions a channel has (BOLT 2, channel_type)."""

    anchors: bool
    scid_alias: bool = False

    def to_bytes(self) -> bytes:
        bits = 1 << Feature.OPTION_STATIC_REMOTEKEY
        bits |= (1 << Feature.OPTION_ANCHORS) * self.anchors
        bits |= (1 << Feature.OPTION_SCID_ALIAS) * self.scid_alias
        return Features(bits).to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self | None:
        """The type that these bits name, or None where we know no such type."""
        for anchors in (False, True):
            for scid_alias in (False, True):
                candidate = cls(anchors, scid_alias)
                if candidate.to_bytes() == data.lstrip(b"\0"):
                    return candidate
        return None
