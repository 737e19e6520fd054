"""The routing table of the frontends."""

import pytest

from node.errors import MalformedMessage
from node.peer.routing import ROUTES, Route, route
from node.wire import bolt1, bolt2, bolt7
from node.wire.codec import BY_NUMBER


def test_every_message_has_a_destination() -> None:
    assert ROUTES.keys() == set(BY_NUMBER.values())


@pytest.mark.parametrize("message", BY_NUMBER.values(), ids=lambda message: message.__name__)
def test_the_type_bytes_alone_decide(message: type) -> None:
    assert route(message.number.to_bytes(2, "big")) is ROUTES[message]


def test_who_deals_with_what() -> None:
    assert ROUTES[bolt1.Ping] is Route.SESSION
    assert ROUTES[bolt7.GossipTimestampFilter] is Route.GOSSIP
    assert ROUTES[bolt1.Error] is Route.BACKEND
    assert ROUTES[bolt7.AnnouncementSignatures] is Route.BACKEND
    assert ROUTES[bolt2.RevokeAndAck] is Route.BACKEND


def test_unknown_messages() -> None:
    assert route(b"\x7f\xffanything") is Route.IGNORE
    assert route(b"\x7f\xfeanything") is Route.FORBIDDEN


@pytest.mark.parametrize("message", [b"", b"\x00"])
def test_no_type_no_route(message: bytes) -> None:
    with pytest.raises(MalformedMessage):
        route(message)
