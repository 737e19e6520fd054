"""When a frontend takes its backend for gone."""

import pytest
from lone_parts import lone_connection, lone_frontend
from structlog.testing import capture_logs

from node.frontend.health import complaints
from node.link import frames
from node.link.messages import Beat, Rejected, Welcome
from node.wire.bolt1 import Init
from node.wire.codec import encode


def beats(frontend, count: int, *, heard: bool = False) -> None:
    for _ in range(count):
        frontend.runtime.clock_s += 1
        if heard:
            frontend.uplink.data_received(frames.control(Beat(1)))
        frontend.uplink.beat()


def test_a_backend_that_vanished_is_noticed_within_5_s():
    frontend, link = lone_frontend()
    beats(frontend, 60, heard=True)
    assert not link.aborted
    beats(frontend, 3)
    assert not link.aborted
    beats(frontend, 1)
    assert link.aborted


def test_a_frontend_that_stood_still_itself_does_not_take_that_for_silence():
    frontend, link = lone_frontend()
    frontend.runtime.clock_s += 60
    frontend.uplink.beat()  # before what has come in meanwhile was read
    assert not link.aborted
    beats(frontend, 1, heard=True)
    beats(frontend, 4)
    assert link.aborted


@pytest.mark.parametrize(("turned_away", "hold_s"), [(True, 60.0), (False, 3.0)])
async def test_over_tls_only_an_end_without_a_reason_shortens_the_hold(turned_away, hold_s):
    """A backend that does not lead says so; one that does not believe a certificate just hangs up."""
    frontend, link = lone_frontend()
    welcomed = frontend.uplink.welcomed
    assert isinstance(welcomed, Welcome)
    connection, _ = lone_connection(frontend)
    connection._messages([encode(Init(b"", b""))])
    frontend.uplink._tls, frontend.uplink._hold = object(), True
    frontend.uplink.connection_lost(None)
    assert complaints(frontend)[0] == "backend away, 1 sessions held"

    frontend.uplink.connection_made(link)
    with capture_logs():
        if turned_away:
            frontend.uplink.data_received(
                frames.control(Rejected("this backend does not lead at the moment"))
            )
        frontend.uplink.connection_lost(None)
    assert frontend._away_until_s == frontend.runtime.clock_s + hold_s
