"""A public graph with the shape of the real one, signed with keys made from a seed.

The figures below were taken from the public network of 2026-02-03 (50,808 channels, 17,324 nodes): how many
channels a node has, capacities, fees. Everything else is drawn, so any size can be made.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from struct import pack, unpack_from

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from node.crypto.hashes import hash256
from node.crypto.keys import public_key, sign
from node.gossip.graph import ChannelAdded, ChannelUpdated, Delta, NodeAnnounced

CHANNELS = 50_808
NODES = 17_324
REGTEST = bytes.fromhex("06226e46111a0b59caaf126043eb5bbf28c34f3a5e332a1fc7b2b73cf188910f")
FIRST_BLOCK = 500_000
BLOCKS = 430_000
TIMESTAMP = 1_770_076_800  # 2026-02-03: when the figures were taken, and the time of the last update

_PERCENTILES = np.array([0, 1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 99.9, 100]) / 100
_CAPACITY_SAT = (
    1050, 1500, 20_000, 20_000, 100_000, 318_438, 1_000_000, 1_283_178, 2_500_000, 5_000_000, 8_000_000,
    15_653_157, 40_000_000, 200_000_000, 500_000_000, 1_000_000_000,
)  # fmt: skip
_HTLC_MINIMUM_MSAT = (0, 0, 0, 0, 0, 0, 1, 1000, 1000, 1000, 1000, 1000, 5000, 10**6, 10**7, 10**7)
_HTLC_MAXIMUM_SHARE = (
    3e-9, 0.0078, 0.4386, 0.8813, 0.99, 0.99, 0.99, 0.99, 0.99, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0,
)  # fmt: skip
_BASE_MSAT = (0, 0, 0, 0, 0, 0, 0, 0, 0, 500, 1000, 1000, 1000, 5000, 10**6, 10**7)
_PPM = (0, 0, 0, 0, 0, 0, 1, 1, 21, 155, 500, 1034, 2469, 5438, 50_000, 10**6)
_CLTV_DELTA = (14, 14, 18, 18, 34, 34, 34, 40, 80, 80, 100, 144, 144, 144, 288, 1444)
_DISABLED_SHARE = 0.35
_PARALLEL_SHARE = 0.06  # channels between two nodes that have one already
_DEGREE_AT = (
    0, 0.50, 0.60, 0.70, 0.80, 0.85, 0.90, 0.95, 0.97, 0.98, 0.99, 0.993, 0.995, 0.998, 0.999, 0.9995, 0.99965, 1,
)  # fmt: skip
_DEGREE = (1, 1, 2, 2, 4, 5, 8, 17, 31, 45, 74, 101, 130, 224, 432, 652, 1000, 1989)

Ints = NDArray[np.int64]


class Shape(Struct, frozen=True):
    """Who is connected to whom, and on what terms; index i of each column is channel i, direction 0 then 1."""

    short_channel_id: Ints
    node_1: Ints
    node_2: Ints
    capacity_sat: Ints
    timestamp: Ints
    disabled: Ints
    htlc_minimum_msat: Ints
    htlc_maximum_msat: Ints
    base_msat: Ints
    ppm: Ints
    cltv_delta: Ints


def generate(
    seed: int, channels: int = CHANNELS, nodes: int = NODES, *, signed: bool = True, cache: Path | None = None
) -> Iterator[Delta]:
    """The deltas that build a graph: each channel followed by its two updates, then the nodes.

    Signing the full size takes some 15 seconds: give `cache`, a directory, to do it once. With `signed` false
    all signatures and funding keys are random bytes, for loads in which nobody verifies them.
    """

    def made() -> Iterator[Delta]:
        return messages(shape(seed, channels, nodes), seed, signed=signed)

    if cache is None:
        return made()
    return cached(
        cache / f"graph-{seed}-{channels}-{nodes}-{'signed' if signed else 'unsigned'}.msgpack", made
    )


def cached(path: Path, make: Callable[[], Iterator[Delta]]) -> Iterator[Delta]:
    """What `make` gives, from the file `path` where it is there, and written to it where not."""
    if not path.exists():
        _write(path, make())
    return _read(path)


def message_of(delta: Delta) -> bytes:
    """The gossip message in a delta of `generate`."""
    match delta:
        case ChannelUpdated(update):
            return update
        case ChannelAdded(announcement) | NodeAnnounced(announcement):
            return announcement
        case _:
            raise ValueError(f"no message in {delta}")


def node_secret(seed: int, node: int) -> bytes:
    """The key of generated node number `node`."""
    return _secret(seed, "node", node)


def shape(seed: int, channels: int, nodes: int) -> Shape:
    """Draw a graph: degrees with the real network's heavy tail, connected, some channels parallel."""
    assert channels >= nodes - 1 > 0, "a connected graph needs at least nodes - 1 channels"
    rng = np.random.default_rng(seed)
    ends = _ends(rng, channels, nodes)
    capacity = _draw(rng, _CAPACITY_SAT, channels)
    heights = np.sort(rng.integers(FIRST_BLOCK, FIRST_BLOCK + BLOCKS, channels))
    # the index in the block only has to be unique there
    short_channel_id = heights << 40 | (1 + np.arange(channels) % 3000) << 16
    both = 2 * channels
    most = np.repeat(capacity, 2) * 1000
    maximum = np.minimum((most * _draw_float(rng, _HTLC_MAXIMUM_SHARE, both)).astype(np.int64) + 1, most)
    return Shape(
        short_channel_id=short_channel_id,
        node_1=ends[:, 0],
        node_2=ends[:, 1],
        capacity_sat=capacity,
        timestamp=TIMESTAMP - rng.integers(0, 13 * 24 * 3600, both),
        disabled=(rng.random(both) < _DISABLED_SHARE).astype(np.int64),
        htlc_minimum_msat=np.minimum(_draw(rng, _HTLC_MINIMUM_MSAT, both), maximum),
        htlc_maximum_msat=maximum,
        base_msat=_draw(rng, _BASE_MSAT, both),
        ppm=_draw(rng, _PPM, both),
        cltv_delta=_draw(rng, _CLTV_DELTA, both),
    )


def _draw_float(rng: np.random.Generator, percentiles: Sequence[float], count: int) -> NDArray[np.float64]:
    return np.interp(rng.random(count), _PERCENTILES, percentiles)


def _draw(rng: np.random.Generator, percentiles: Sequence[int], count: int) -> Ints:
    return _draw_float(rng, percentiles, count).astype(np.int64)


def _degrees(channels: int, nodes: int) -> Ints:
    """Channels per node, most first, summing to twice the channels."""
    drawn = np.interp((np.arange(nodes) + 0.5) / nodes, _DEGREE_AT, _DEGREE)[::-1]
    degrees = np.maximum(1, np.minimum(drawn, channels)).astype(np.int64)
    missing = 2 * channels - int(degrees.sum())
    # what rounding and another size left over is shared by those with more than one, in proportion
    weights = np.maximum(degrees - 1, 0.01)
    shares = np.floor(missing * weights / weights.sum()).astype(np.int64)
    degrees = np.maximum(1, degrees + shares)
    rest = 2 * channels - int(degrees.sum())
    step = 1 if rest > 0 else -1
    movable = np.flatnonzero(degrees > 1) if rest < 0 else np.arange(nodes)
    np.add.at(degrees, movable[np.arange(abs(rest)) % len(movable)], step)
    return np.sort(degrees)[::-1]


def _ends(rng: np.random.Generator, channels: int, nodes: int) -> Ints:
    """Pair the nodes' free places: first each node with one already connected, then whatever is left."""
    degrees = _degrees(channels, nodes)
    draws = rng.random(nodes)
    places = [0] * int(degrees[0])
    pairs = []
    for node in range(1, nodes):
        at = int(draws[node] * len(places))
        pairs.append((places[at], node))
        places[at] = places[-1]
        places.pop()
        places.extend([node] * (int(degrees[node]) - 1))
        if not places:
            places.append(node)
    left = rng.permutation(np.array(places))
    while len(pairs) + len(left) // 2 < channels:
        left = np.append(left, rng.integers(0, nodes, 2))
    left = left[: 2 * (channels - len(pairs))].reshape(-1, 2)
    same = left[:, 0] == left[:, 1]
    left[same, 1] = (left[same, 0] + 1 + rng.integers(0, nodes - 1, int(same.sum()))) % nodes
    joined = np.concatenate([np.array(pairs), left])
    again = rng.random(channels) < _PARALLEL_SHARE * (np.arange(channels) >= nodes - 1)
    joined[again] = joined[rng.integers(0, channels, int(again.sum()))]
    return rng.permutation(joined)


def _secret(seed: int, kind: str, index: int) -> bytes:
    return hashlib.sha256(f"lnsim graph {seed} {kind} {index}".encode()).digest()


def messages(drawn: Shape, seed: int, *, signed: bool = True, newest_s: int = TIMESTAMP) -> Iterator[Delta]:
    """A graph of this shape, its nodes' keys from the seed; a direction with timestamp 0 has no update."""
    nodes = 1 + int(max(drawn.node_1.max(), drawn.node_2.max()))
    secrets = [node_secret(seed, node) for node in range(nodes)]
    ids = [public_key(secret) for secret in secrets]
    columns = zip(
        *(getattr(drawn, name).tolist() for name in ("short_channel_id", "node_1", "node_2", "capacity_sat")),
        strict=True,
    )
    noise = np.random.default_rng([seed, 1])
    for index, (short_channel_id, a, b, capacity_sat) in enumerate(columns):
        one, two = (a, b) if ids[a] < ids[b] else (b, a)
        body = _channel_body(short_channel_id, (ids[one], ids[two]), seed, index, None if signed else noise)
        signers = (
            secrets[one],
            secrets[two],
            _secret(seed, "funding 1", index),
            _secret(seed, "funding 2", index),
        )
        yield ChannelAdded(_seal(256, signers, body, None if signed else noise), capacity_sat)
        for direction, node in enumerate((one, two)):
            if not drawn.timestamp[2 * index + direction]:
                continue
            body = _update_body(drawn, index, direction)
            yield ChannelUpdated(_seal(258, (secrets[node],), body, None if signed else noise))
    for node in range(nodes):
        body = _node_body(noise, node, ids[node], newest_s)
        yield NodeAnnounced(_seal(257, (secrets[node],), body, None if signed else noise))


def _seal(kind: int, signers: Sequence[bytes], body: bytes, noise: np.random.Generator | None) -> bytes:
    if noise is not None:
        return pack(">H", kind) + noise.bytes(64 * len(signers)) + body
    digest = hash256(body)
    return pack(">H", kind) + b"".join([sign(secret, digest) for secret in signers]) + body


def _channel_body(
    short_channel_id: int, ids: Sequence[bytes], seed: int, index: int, noise: np.random.Generator | None
) -> bytes:
    if noise is not None:
        keys = noise.bytes(66)
    else:
        keys = public_key(_secret(seed, "funding 1", index)) + public_key(_secret(seed, "funding 2", index))
    return pack(">H32sQ33s33s", 0, REGTEST, short_channel_id, *ids) + keys


def _update_body(drawn: Shape, index: int, direction: int) -> bytes:
    row = 2 * index + direction
    return pack(
        ">32sQIBBHQIIQ",
        REGTEST,
        int(drawn.short_channel_id[index]),
        int(drawn.timestamp[row]),
        1,
        direction | int(drawn.disabled[row]) << 1,
        int(drawn.cltv_delta[row]),
        int(drawn.htlc_minimum_msat[row]),
        int(drawn.base_msat[row]),
        int(drawn.ppm[row]),
        int(drawn.htlc_maximum_msat[row]),
    )


def _node_body(noise: np.random.Generator, node: int, node_id: bytes, newest_s: int) -> bytes:
    features = bytes.fromhex("08a0800802aaa2")
    alias = f"generated {node}".encode().ljust(32, b"\0")
    addresses = b"\x01" + noise.bytes(4) + b"\x26\x07"
    if node % 2:
        addresses += (
            b"\x04" + noise.bytes(35) + b"\x26\x07"
        )  # about half of the real nodes are reachable by Tor
    timestamp = newest_s - int(noise.integers(0, 30 * 24 * 3600))
    head = pack(">H", len(features)) + features + pack(">I", timestamp) + node_id + noise.bytes(3) + alias
    return head + pack(">H", len(addresses)) + addresses


def _write(path: Path, deltas: Iterator[Delta]) -> None:
    """Each delta behind its length; under its final name only once complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as out:
        for delta in deltas:
            data = msgspec.msgpack.encode(delta)
            out.write(pack(">H", len(data)) + data)
    part.rename(path)


def _read(path: Path) -> Iterator[Delta]:
    data = memoryview(path.read_bytes())
    decoder, at = msgspec.msgpack.Decoder(Delta), 0
    while at < len(data):
        end = at + 2 + unpack_from(">H", data, at)[0]
        yield decoder.decode(data[at + 2 : end])
        at = end
