"""The public graph: raw announcements by channel and node, ordered for range queries, changed by deltas.

Mutable, and the only place that is: whoever owns a graph applies deltas to it, everyone else reads. Nothing in
here verifies anything (node.gossip.validation does, before), and nothing here keeps a key that a stranger chose:
short_channel_ids are ints, whose hashes are not seeded, so they enter only once the chain has confirmed them (or, where
channels are assumed valid, up to a number).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from node.gossip import raw as gossip

STALE_AFTER_S = 14 * 24 * 3600  # BOLT 7, pruning: two weeks
FORGET_SPENT_AFTER_BLOCKS = 72  # BOLT 7, channel_announcement: time for a splice to be announced

NO_TIMES = bytes(8)
UNKNOWN_CAPACITY_SAT = 21_000_000 * 100_000_000  # of a channel that nobody looked up: no more than there is


class KnownChannel(Struct, frozen=True, gc=False):
    """A channel as announced; timestamps and checksums are eight bytes each, as reply_channel_range carries them."""

    short_channel_id: int
    node_id_1: bytes
    node_id_2: bytes
    capacity_sat: int
    announcement: bytes
    update_1: bytes | None = None
    update_2: bytes | None = None
    timestamps: bytes = NO_TIMES
    checksums: bytes = NO_TIMES

    def update(self, direction: int) -> bytes | None:
        return self.update_2 if direction else self.update_1

    def node_id(self, direction: int) -> bytes:
        """Who sends in this direction."""
        return self.node_id_2 if direction else self.node_id_1

    def timestamp(self, direction: int) -> int:
        """Of the last update in this direction, 0 where there is none."""
        return int.from_bytes(self.timestamps[4 * direction : 4 * direction + 4], "big")


class KnownNode(Struct, frozen=True, gc=False):
    """A node with at least one channel; its announcement if it made one."""

    node_id: bytes
    channels: int
    announcement: bytes | None = None


class ChannelAdded(Struct, frozen=True, tag=True, gc=False):
    announcement: bytes
    capacity_sat: int


class ChannelUpdated(Struct, frozen=True, tag=True, gc=False):
    update: bytes


class NodeAnnounced(Struct, frozen=True, tag=True, gc=False):
    announcement: bytes


class ChannelSpent(Struct, frozen=True, tag=True, gc=False):
    """The funding output is spent at this height, or (None) a reorganization took that back."""

    short_channel_id: int
    height: int | None


class ChannelRemoved(Struct, frozen=True, tag=True, gc=False):
    short_channel_id: int


# What changes a graph. Applying one twice, or a little late, changes nothing more: a snapshot taken in slices and
# the deltas that happened meanwhile lead to the same graph.
Delta = ChannelAdded | ChannelUpdated | NodeAnnounced | ChannelSpent | ChannelRemoved


class Graph:
    """Channels and nodes, each with the raw messages that announced them."""

    def __init__(self, chain_hash: bytes) -> None:
        self.chain_hash = chain_hash
        self.channels: dict[int, KnownChannel] = {}
        self.nodes: dict[bytes, KnownNode] = {}
        self.spent: dict[int, int] = {}  # short_channel_id -> height of the spending block
        self.sequence = 0  # of the last delta; the two ends of a link compare it
        self.newest = bytes(4)  # timestamp of any message that was ever kept: nothing here is later
        self._ordered: list[int] = []
        self._unordered: list[int] = []

    def apply(self, delta: Delta) -> bool:
        """Count one delta and carry it out; False where it was nothing new."""
        self.sequence += 1
        match delta:
            case ChannelAdded(announcement, capacity_sat):
                return self.add_channel(announcement, capacity_sat)
            case ChannelUpdated(update):
                return self.add_update(update)
            case NodeAnnounced(announcement):
                return self.add_node(announcement)
            case ChannelSpent(short_channel_id, height):
                return self.mark_spent(short_channel_id, height)
            case ChannelRemoved(short_channel_id):
                return self.remove_channel(short_channel_id)
            case _:
                assert_never(delta)

    def add_channel(self, announcement: bytes, capacity_sat: int) -> bool:
        fields = gossip.channel_fields(announcement)
        short_channel_id = fields.short_channel_id
        if short_channel_id in self.channels:
            return False
        self.channels[short_channel_id] = KnownChannel(
            short_channel_id,
            self._join(fields.node_id_1),
            self._join(fields.node_id_2),
            capacity_sat,
            announcement,
        )
        self._unordered.append(short_channel_id)
        return True

    def add_update(self, update: bytes) -> bool:
        """Keep a channel_update that is newer than the one known, of a known channel."""
        channel = self.channels.get(int.from_bytes(update[98:106], "big"))
        if channel is None:
            return False
        timestamp, checksum = update[106:110], gossip.update_checksum(update).to_bytes(4, "big")
        times, sums = channel.timestamps, channel.checksums
        if update[111] & 1:
            if timestamp <= times[4:]:
                return False
            changed = replace(
                channel, update_2=update, timestamps=times[:4] + timestamp, checksums=sums[:4] + checksum
            )
        else:
            if timestamp <= times[:4]:
                return False
            changed = replace(
                channel, update_1=update, timestamps=timestamp + times[4:], checksums=checksum + sums[4:]
            )
        self.channels[channel.short_channel_id] = changed
        self.newest = max(self.newest, timestamp)
        return True

    def add_node(self, announcement: bytes) -> bool:
        """Keep a node_announcement that is newer than the one known, of a node with channels."""
        node = self.nodes.get(gossip.node_id(announcement))
        if node is None:
            return False
        known = node.announcement
        if known is not None and gossip.node_timestamp(announcement) <= gossip.node_timestamp(known):
            return False
        self.nodes[node.node_id] = replace(node, announcement=announcement)
        self.newest = max(self.newest, gossip.node_timestamp(announcement).to_bytes(4, "big"))
        return True

    def mark_spent(self, short_channel_id: int, height: int | None) -> bool:
        """From now on the channel is neither served nor relayed; `forget_spent` removes it later."""
        if short_channel_id not in self.channels or self.spent.get(short_channel_id) == height:
            return False
        if height is None:
            del self.spent[short_channel_id]
        else:
            self.spent[short_channel_id] = height
        return True

    def remove_channel(self, short_channel_id: int) -> bool:
        """Drop a channel, and its nodes where it was their last one."""
        channel = self.channels.pop(short_channel_id, None)
        if channel is None:
            return False
        self._order()
        del self._ordered[bisect_left(self._ordered, short_channel_id)]
        self.spent.pop(short_channel_id, None)
        self._leave(channel.node_id_1)
        self._leave(channel.node_id_2)
        return True

    def stale(self, now_s: int) -> list[int]:
        """Channels to prune: of their updates, even the older one has not been renewed for two weeks.

        BOLT 7, pruning: a direction that never had an update does not count; without any, the channel stays,
        since its announcement bears no time (it is not relayed either).
        """
        oldest = (now_s - STALE_AFTER_S).to_bytes(4, "big")
        found = []
        for channel in self.channels.values():
            times = channel.timestamps
            if bytes(4) < times[:4] < oldest or bytes(4) < times[4:] < oldest:
                found.append(channel.short_channel_id)
        return found

    def buried(self, height: int) -> list[int]:
        """Spent channels whose spending transaction is so deep that they may be removed."""
        return [scid for scid, at in self.spent.items() if height - at + 1 >= FORGET_SPENT_AFTER_BLOCKS]

    def within(self, first_block: int, number_of_blocks: int) -> list[int]:
        """The short_channel_ids of a range of blocks, ascending."""
        self._order()
        ordered = self._ordered
        return ordered[
            bisect_left(ordered, first_block << 40) : bisect_left(
                ordered, (first_block + number_of_blocks) << 40
            )
        ]

    def after(self, short_channel_id: int, most: int) -> list[int]:
        """Up to `most` short_channel_ids above the given one: how a cursor walks a graph that changes."""
        self._order()
        start = bisect_right(self._ordered, short_channel_id)
        return self._ordered[start : start + most]

    def snapshot(self, slice_size: int = 256) -> Iterator[Delta]:
        """The whole graph as deltas; the graph may change while this is being read."""
        last = -1
        while slice_ := self.after(last, slice_size):
            last = slice_[-1]
            for channel in map(self.channels.get, slice_):
                if channel is not None:
                    yield from self._deltas(channel)
        for node in map(self.nodes.get, tuple(self.nodes)):
            if node is not None and node.announcement is not None:
                yield NodeAnnounced(node.announcement)

    def _deltas(self, channel: KnownChannel) -> Iterator[Delta]:
        yield ChannelAdded(channel.announcement, channel.capacity_sat)
        if channel.update_1 is not None:
            yield ChannelUpdated(channel.update_1)
        if channel.update_2 is not None:
            yield ChannelUpdated(channel.update_2)
        if (height := self.spent.get(channel.short_channel_id)) is not None:
            yield ChannelSpent(channel.short_channel_id, height)

    def _order(self) -> None:
        """Sort in what was added: nearly sorted data, so that this costs little more than walking it."""
        if self._unordered:
            self._ordered += self._unordered
            self._ordered.sort()
            self._unordered.clear()

    def _join(self, node_id: bytes) -> bytes:
        """Count a channel of this node; return the one bytes object that stands for the node."""
        node = self.nodes.get(node_id)
        if node is None:
            self.nodes[node_id] = KnownNode(node_id, 1)
            return node_id
        self.nodes[node_id] = replace(node, channels=node.channels + 1)
        return node.node_id

    def _leave(self, node_id: bytes) -> None:
        node = self.nodes[node_id]
        if node.channels == 1:
            del self.nodes[node_id]
        else:
            self.nodes[node_id] = replace(node, channels=node.channels - 1)
