"""A public graph around the nodes of a run: put into a node's database before its first start, as if it had heard it all.

It is drawn with the shape of the real one, or takes its shape from a file of gossip messages of any chain, each behind
its length of two bytes. Either way everything is signed for regtest, with keys that follow from the seed and times of
the last two weeks, and kept in the user's cache directory until the week is over. For those who speak in its name:

* node number i has the key `graph_generator.node_secret(seed, i)`;
* `shape_of(spec, seed)` says whose each channel is (`node_1`, `node_2`: numbers of nodes) and on what terms. Row
  2 * channel + direction is signed by that end's key, direction 0 being the end whose id is the lower one;
* whatever is newer than `newest_s(now_s)` replaces what is in the graph.

None of these channels is on the chain: a node keeps them if it is configured with `assume_channels_valid`.
"""

import os
from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import islice
from pathlib import Path

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from lnsim.graph_generator import CHANNELS, NODES, Shape, cached, messages, shape
from lnsim.scenario.model import GraphSpec
from node.backend.graph_keeper import PUT, row
from node.backend.store import Store
from node.errors import MalformedMessage, Refused
from node.gossip import raw as gossip
from node.gossip.graph import STALE_AFTER_S, ChannelAdded, ChannelUpdated, Delta, NodeAnnounced
from node.gossip.validation import MAX_HEIGHT

DAY_S = 24 * 3600
WEEK_S = 7 * DAY_S
MAX_AGE_S = (
    STALE_AFTER_S - WEEK_S - DAY_S
)  # at the week's begin: at its end there is still a day until it is stale
BATCH_ROWS = 20_000  # in one transaction
LENGTH_SIZE = 2  # of a message, in a file
MAX_MSAT = 21_000_000 * 100_000_000_000
MIN_NODES = 2


class Planted(Struct, frozen=True):
    """What was put into a database."""

    channels: int
    updates: int
    nodes: int


def deltas(spec: GraphSpec, seed: int, now_s: float, cache: Path | None = None) -> Iterator[Delta]:
    """All that makes up the graph. Its first time in a week takes 20 s at full size. Raises Refused."""
    cache = cache or cache_directory()
    name = f"background-{_name(spec)}-{seed}-"
    path = cache / f"{name}{newest_s(now_s)}.msgpack"
    found = cached(path, lambda: messages(_aged(shape_of(spec, seed), now_s), seed, newest_s=newest_s(now_s)))
    for other in cache.glob(f"{name}*.msgpack"):
        if other != path:  # of another week
            other.unlink(missing_ok=True)
    return found


def plant(store: Store, graph: Iterable[Delta]) -> Planted:
    """Put a graph into a database that no backend runs on."""
    counts = {ChannelAdded: 0, ChannelUpdated: 0, NodeAnnounced: 0}
    every = iter(graph)
    while batch := list(islice(every, BATCH_ROWS)):
        rows: list[tuple[object, ...]] = []
        for delta in batch:
            if isinstance(delta, ChannelAdded | ChannelUpdated | NodeAnnounced):
                rows.append(row(delta))
                counts[type(delta)] += 1
        store.commit([(PUT, rows)])
    return Planted(counts[ChannelAdded], counts[ChannelUpdated], counts[NodeAnnounced])


def shape_of(spec: GraphSpec, seed: int) -> Shape:
    """Who is connected to whom, and on what terms. Raises Refused for a file that does not tell."""
    if spec.file:
        return _shape_of_file(Path(spec.file).expanduser())
    return shape(seed, spec.channels, node_count(spec))


def node_count(spec: GraphSpec) -> int:
    """Of a graph that is generated: as asked for, or as many as the real graph has for so many channels."""
    return spec.nodes or max(MIN_NODES, min(spec.channels, round(spec.channels * NODES / CHANNELS)))


def newest_s(now_s: float) -> int:
    """The time of the newest update of a graph that is used now."""
    return int(now_s // WEEK_S) * WEEK_S


def cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "lnsim"


def _name(spec: GraphSpec) -> str:
    if not spec.file:
        return f"{spec.channels}-{node_count(spec)}"
    return sha256(_bytes_of(Path(spec.file).expanduser())).hexdigest()[:16]


def _aged(drawn: Shape, now_s: float) -> Shape:
    """The same shape with its times, however old, moved to the two weeks before now."""
    is_there = drawn.timestamp > 0
    age_s = np.minimum(drawn.timestamp.max() - drawn.timestamp, STALE_AFTER_S)
    timestamp = newest_s(now_s) - age_s * MAX_AGE_S // STALE_AFTER_S
    return replace(drawn, timestamp=np.where(is_there, timestamp, 0))


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}; name a file of gossip messages") from error


def _shape_of_file(path: Path) -> Shape:
    """The newest update of each direction counts; of nodes there is nothing to learn but their channels."""
    channels: dict[int, gossip.ChannelFields] = {}
    updates: dict[tuple[int, int], gossip.UpdateFields] = {}
    for raw in _messages_of(path):
        if raw[:2] == gossip.CHANNEL_ANNOUNCEMENT.to_bytes(2, "big"):
            fields = gossip.channel_fields(raw)
            if gossip.block_height(fields.short_channel_id) <= MAX_HEIGHT:
                channels.setdefault(fields.short_channel_id, fields)
        elif raw[:2] == gossip.CHANNEL_UPDATE.to_bytes(2, "big"):
            update = gossip.update_fields(raw)
            key = update.short_channel_id, update.channel_flags & 1
            if key not in updates or updates[key].timestamp < update.timestamp:
                updates[key] = update
    if not channels:
        raise Refused(f"{path}: announces no channel")
    return _columns(channels, updates)


def _messages_of(path: Path) -> Iterator[bytes]:
    data, at = _bytes_of(path), 0
    while at < len(data):
        end = at + LENGTH_SIZE + int.from_bytes(data[at : at + LENGTH_SIZE], "big")
        raw = data[at + LENGTH_SIZE : end]
        try:
            gossip.check_size(raw)
        except MalformedMessage as error:
            raise Refused(f"{path}: no gossip message at byte {at}: {error}") from error
        if end > len(data):
            raise Refused(f"{path}: the message at byte {at} is cut")
        yield raw
        at = end


def _columns(
    channels: dict[int, gossip.ChannelFields], updates: dict[tuple[int, int], gossip.UpdateFields]
) -> Shape:
    """Nodes are numbered as they appear; a capacity is not announced, but what may be forwarded is."""
    numbers: dict[bytes, int] = {}
    ids = sorted(channels)
    ends = [
        [numbers.setdefault(node_id, len(numbers)) for node_id in (c.node_id_1, c.node_id_2)]
        for c in (channels[short_channel_id] for short_channel_id in ids)
    ]
    rows = [updates.get((short_channel_id, direction)) for short_channel_id in ids for direction in (0, 1)]
    most = np.array([min(u.htlc_maximum_msat, MAX_MSAT) if u else 0 for u in rows], np.int64)
    least = np.array([min(u.htlc_minimum_msat, MAX_MSAT) if u else 0 for u in rows], np.int64)
    return Shape(
        short_channel_id=np.array(ids, np.int64),
        node_1=np.array(ends, np.int64)[:, 0],
        node_2=np.array(ends, np.int64)[:, 1],
        capacity_sat=np.maximum(1, -(-most.reshape(-1, 2).max(axis=1) // 1000)),
        timestamp=np.array([u.timestamp if u else 0 for u in rows], np.int64),
        disabled=np.array([u.channel_flags >> 1 & 1 if u else 0 for u in rows], np.int64),
        htlc_minimum_msat=np.minimum(least, most),
        htlc_maximum_msat=most,
        base_msat=np.array([u.fee_base_msat if u else 0 for u in rows], np.int64),
        ppm=np.array([u.fee_proportional_millionths if u else 0 for u in rows], np.int64),
        cltv_delta=np.array([u.cltv_expiry_delta if u else 0 for u in rows], np.int64),
    )
