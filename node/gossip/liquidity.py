"""What past payments showed about channels' balances: bounds per direction, fading with time.

A payment that passed says "at least so much", one that failed says "less than that". Both fade by half every few
hours, towards knowing nothing but the capacity.
"""

import numpy as np

from node.gossip.topology import MAX_ID, Floats, Ints, Topology

HALF_LIFE_S = 6 * 3600.0
MAX_ENTRIES = 50_000  # about half the edges of the public network; the oldest half makes room for more


class Liquidity:
    """Bounds by (short_channel_id, direction), kept as arrays since every search looks at all of them."""

    def __init__(self) -> None:
        # short_channel_ids come from invoices too, and the hashes of ints are not seeded: keys are bytes
        self._entry: dict[bytes, int] = {}
        self._ids: Ints = np.zeros(64, np.int64)
        self._directions: Ints = np.zeros(64, np.int64)
        self._lower_msat: Floats = np.zeros(64)
        self._upper_msat: Floats = np.full(64, np.inf)
        self._seen_s: Floats = np.zeros(64)
        self._positions: Ints = np.zeros(0, np.int64)
        self._positions_of: tuple[Topology, int, int] | None = None

    def __len__(self) -> int:
        return len(self._entry)

    def observe(
        self, short_channel_id: int, direction: int, amount_msat: int, now_s: float, *, succeeded: bool
    ) -> None:
        """A part of this amount went through this channel, or failed there for lack of balance."""
        self._bound(short_channel_id, direction, amount_msat, now_s, succeeded)
        if succeeded:
            # what passed lies on the other side now
            self._bound(short_channel_id, 1 - direction, amount_msat, now_s, True)

    def bounds(self, topology: Topology, now_s: float) -> tuple[Floats, Floats]:
        """(at least, at most) msat that each edge of the topology can forward, as believed now."""
        lower, upper = np.zeros(len(topology.source)), topology.capacity_msat.copy()
        count = len(self._entry)
        positions = self._positions_in(topology)
        here = positions >= 0
        at = positions[here]
        weight = 0.5 ** ((now_s - self._seen_s[:count][here]) / HALF_LIFE_S)
        capacity = topology.capacity_msat[at]
        lower[at] = np.minimum(self._lower_msat[:count][here] * weight, capacity)
        known = np.minimum(self._upper_msat[:count][here], capacity)
        upper[at] = np.maximum(capacity - (capacity - known) * weight, lower[at])
        return lower, upper

    def _bound(
        self, short_channel_id: int, direction: int, amount_msat: int, now_s: float, succeeded: bool
    ) -> None:
        entry = self._entry_of(short_channel_id, direction)
        age_s = now_s - self._seen_s[entry]
        lower = self._lower_msat[entry] * 0.5 ** (age_s / HALF_LIFE_S)
        upper = self._upper_msat[entry] if age_s < 2 * HALF_LIFE_S else np.inf
        if succeeded:
            lower = max(lower, amount_msat)
            upper = upper if upper >= lower else np.inf
        else:
            upper = min(upper, amount_msat - 1)
            lower = min(lower, upper)
        self._lower_msat[entry], self._upper_msat[entry], self._seen_s[entry] = lower, upper, now_s

    def _entry_of(self, short_channel_id: int, direction: int) -> int:
        key = (short_channel_id << 1 | direction).to_bytes(9, "big")
        if key not in self._entry:
            if len(self._entry) >= MAX_ENTRIES:
                self._forget_oldest_half()
            entry = len(self._entry)
            if entry == len(self._ids):
                self._resize(2 * entry)
            self._entry[key] = entry
            # an alias may be larger than what the array holds; it is in no topology anyway
            self._ids[entry] = short_channel_id if short_channel_id <= MAX_ID else -1
            self._directions[entry] = direction
            self._lower_msat[entry], self._upper_msat[entry], self._seen_s[entry] = 0, np.inf, 0
        return self._entry[key]

    def _resize(self, size: int) -> None:
        for name in ("_ids", "_directions", "_lower_msat", "_upper_msat", "_seen_s"):
            setattr(self, name, np.resize(getattr(self, name), size))

    def _forget_oldest_half(self) -> None:
        count = len(self._entry)
        kept = np.sort(np.argsort(self._seen_s[:count])[count // 2 :])
        keys = list(self._entry)
        self._entry = {keys[old]: new for new, old in enumerate(kept.tolist())}
        for name in ("_ids", "_directions", "_lower_msat", "_upper_msat", "_seen_s"):
            column = getattr(self, name)
            column[: len(kept)] = column[kept]
        self._positions_of = None

    def _positions_in(self, topology: Topology) -> Ints:
        count = len(self._entry)
        wanted = (topology, topology.version, count)
        if self._positions_of != wanted:
            self._positions = topology.positions(self._ids[:count], self._directions[:count])
            self._positions_of = wanted
        return self._positions
