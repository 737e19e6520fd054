"""Moving a frontend's peers away: evenly, and nobody comes in meanwhile."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from noise_client import Site
from scripted_backend import PATIENCE_S

from node.frontend.draining import Draining
from node.frontend.health import complaints
from node.link.messages import DRAINS, Drain, Hello, Status


@given(st.integers(0, 5_000), st.floats(0.5, 3_600))
def test_as_many_go_each_second_and_nobody_is_left(count: int, over_s: float):
    draining, left, most = Draining(100.0, over_s, count), count, 0
    for second in range(int(over_s) + 2):
        due = draining.due(100.0 + second, left)
        most, left = max(most, due), left - due
    assert left == 0
    assert most <= count / max(over_s, 1.0) + 2 or over_s < 2


def test_who_went_by_himself_counts():
    draining = Draining(0.0, 10.0, 100)
    assert draining.due(5.0, 100) == 50
    assert draining.due(5.0, 40) == 0


async def test_a_drained_frontend_lets_its_peers_go_and_nobody_in(site: Site):
    frontend = await site.open()
    assert DRAINS in site.backend.heard.of(Hello)[0].capabilities
    _, first = await site.peer("first")
    _, second = await site.peer("second")
    address = frontend.address
    site.backend.send(Drain(0.1))

    assert await site.backend.ended(first.session) == "drained"
    assert await site.backend.ended(second.session) == "drained"
    assert await site.refuses(address)
    assert complaints(frontend) == ["draining, 0 sessions are left"]
    await site.backend.heard.until(lambda: [s for s in site.backend.heard.of(Status) if s.draining])

    site.backend.send(Drain(None))
    await asyncio.wait_for(frontend.listening.wait(), PATIENCE_S)
    assert complaints(frontend) == []
    await site.peer("third")


async def test_a_frontend_that_is_told_to_end_drains_first_as_configured(site: Site):
    frontend = await site.open(drain_s=0.1)
    _, ready = await site.peer("first")
    await asyncio.wait_for(frontend.leave(), PATIENCE_S)

    assert await site.backend.ended(ready.session) == "drained"
    assert not frontend.connections
