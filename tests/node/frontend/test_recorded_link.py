"""A rolling upgrade: each side of this release holds the conversation that an older protocol's other side left us."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from link_recording import CHANNELS, DOWN, UP, Peers, Recording, StillRuntime, Then
from today import LINK, backend_of_today, backend_steps, frontend_of_today

from lnsim.api_client import CallFailed
from node.link import frames
from node.link.messages import Hello, Welcome
from node.wire import bolt2

VECTORS = Path(__file__).parents[2] / "vectors"
RECORDINGS = sorted(VECTORS.glob("link_protocol_*.json"))


@pytest.fixture(params=RECORDINGS, ids=lambda path: path.stem)
def recording(request, tmp_path, monkeypatch) -> Recording:
    monkeypatch.chdir(tmp_path)  # a recorded Dial names a socket here
    return msgspec.json.decode(request.param.read_bytes(), type=Recording)


@pytest.fixture
async def runtime():
    failures = []
    yield StillRuntime(lambda _, error: failures.append(error))
    for _ in range(5):
        await asyncio.sleep(0)  # what was closed lets go of its sockets
    assert failures == []


async def _end(then, backend, chain):
    then.end.transport.abort()
    await backend.stop()
    chain.close()


def test_there_are_recordings():
    assert "link_protocol_1" in [path.stem for path in RECORDINGS]


async def test_todays_frontend_serves_an_older_backend(recording, runtime):
    then = Then(recording, DOWN)
    listener = await runtime.listen(LINK, lambda: then.end)
    frontend = await frontend_of_today(runtime, LINK)
    recorded = [bytes.fromhex(what) for kind, what in recording.events if kind == DOWN]
    welcome = next(frames.decode_to_frontend(frame[5:]) for frame in recorded if frame[4] == frames.CONTROL)
    assert isinstance(welcome, Welcome)
    peers = Peers(runtime, welcome.node_id, frontend)
    await peers.start()

    await then.hold(peers.steps)

    hello = frames.decode_to_backend(then.frames[0][5:])
    assert isinstance(hello, Hello)
    assert hello.protocol_min <= recording.protocol == welcome.protocol
    assert then.tags <= set(recording.understood[UP]), "an older backend would end the link"
    assert len(frontend.gossip.graph.channels) == CHANNELS
    (accepted,) = await peers.alice.of_type(bolt2.AcceptChannel.number)
    assert any(frame[4] == frames.PEER and frame[21:] == accepted for frame in recorded)
    await peers.alice.closed()
    await peers.bob.closed()
    assert frontend.uplink.welcomed == welcome, "the link is up"
    assert frontend.listening.is_set()
    peers.stop()
    await frontend.stop()
    listener.close()
    then.end.transport.abort()


async def test_todays_backend_serves_an_older_frontend(recording, runtime):
    backend, chain = await backend_of_today(runtime)
    then = Then(recording, UP)
    await runtime.connect(LINK, lambda: then.end)

    await then.hold(backend_steps(backend))

    welcome = frames.decode_to_frontend(then.frames[0][5:])
    assert isinstance(welcome, Welcome)
    assert welcome.protocol == recording.protocol
    assert then.tags <= set(recording.understood[DOWN]), "an older frontend would end the link"
    assert len(backend.graph.channels) == CHANNELS
    assert [link.frontend_id for link in backend.switchboard.links.values()] == ["f1"]
    assert not any(peer.session for peer in backend.switchboard.peers.values())
    assert not backend.channels.by_id, "the channel that was only asked for is forgotten"
    await _end(then, backend, chain)


async def test_a_recording_that_today_does_not_answer_is_noticed(recording, runtime, monkeypatch):
    """The replay can fail: one offer is left out."""
    monkeypatch.setattr("link_recording.PATIENCE_S", 0.3)
    first = next(event for event in recording.events if event[1][8:10] == f"{frames.OFFER:02x}")
    events = tuple(event for event in recording.events if event != first)
    backend, chain = await backend_of_today(runtime)
    then = Then(msgspec.structs.replace(recording, events=events), UP)
    await runtime.connect(LINK, lambda: then.end)
    with pytest.raises(CallFailed, match="not within"):
        await then.hold(backend_steps(backend))
    await _end(then, backend, chain)
