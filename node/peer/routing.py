"""Where a decrypted message goes, by its two type bytes alone: one table, an entry for every known message."""

from enum import Enum

from node.wire import bolt1, bolt2, bolt4, bolt7
from node.wire.codec import BY_NUMBER, Message, message_type


class Route(Enum):
    """Who deals with a message."""

    SESSION = "session"  # the frontend's session, at once
    GOSSIP = "gossip"  # the frontend's copy of the graph
    BACKEND = "backend"  # forwarded as the bytes that came
    IGNORE = "ignore"  # unknown and odd
    FORBIDDEN = "forbidden"  # unknown and even: the session ends


_SESSION: tuple[type[Message], ...] = (bolt1.Init, bolt1.Ping, bolt1.Pong)
_GOSSIP: tuple[type[Message], ...] = (
    bolt7.ChannelAnnouncement,
    bolt7.NodeAnnouncement,
    bolt7.ChannelUpdate,
    bolt7.QueryShortChannelIds,
    bolt7.ReplyShortChannelIdsEnd,
    bolt7.QueryChannelRange,
    bolt7.ReplyChannelRange,
    bolt7.GossipTimestampFilter,
)
_BACKEND: tuple[type[Message], ...] = (
    bolt1.Error,
    bolt1.Warning,
    bolt4.OnionMessage,
    # looks like gossip, and is a channel's
    bolt7.AnnouncementSignatures,
    *(message for message in BY_NUMBER.values() if message.__module__ == bolt2.__name__),
)

ROUTES: dict[type[Message], Route] = {
    **dict.fromkeys(_SESSION, Route.SESSION),
    **dict.fromkeys(_GOSSIP, Route.GOSSIP),
    **dict.fromkeys(_BACKEND, Route.BACKEND),
}
_ROUTES_BY_TYPE_BYTES = {message.number.to_bytes(2, "big"): where for message, where in ROUTES.items()}


def route(message: bytes) -> Route:
    """Where these bytes go. Raises MalformedMessage where there is no type to go by."""
    found = _ROUTES_BY_TYPE_BYTES.get(message[:2])
    if found is None:
        # BOLT 1: an unknown odd message may be ignored, an unknown even one may not
        return Route.IGNORE if message_type(message) % 2 else Route.FORBIDDEN
    return found
