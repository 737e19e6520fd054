"""channel_updates of a background graph, one direction of a channel after the other, each newer than the last."""

from random import Random

from lnsim.graph_generator import REGTEST, Shape, node_secret
from lnsim.swarm.stamp import stamp
from node.crypto.hashes import hash256
from node.crypto.keys import public_key, sign
from node.gossip.raw import SIGNATURE_END
from node.wire.bolt7 import ChannelUpdate
from node.wire.codec import encode

HTLC_MAXIMUM_PRESENT = 1  # message_flags: BOLT 7 has it always set
TYPE_SIZE = 2
UNKNOWN, IN_ORDER, REVERSED = range(3)


class Updates:
    """Deterministic: the n-th update of a graph is always about the same direction. Mutable.

    Several processes share a graph by `part` of `parts`, since of two updates of one second only one counts.
    """

    def __init__(self, drawn: Shape, seed: int, first_timestamp: int, part: int = 0, parts: int = 1) -> None:
        """`drawn` and `seed` are the graph's (`lnsim.background_graph.shape_of`)."""
        self._shape = drawn
        self._seed = seed
        rows: list[int] = drawn.timestamp.nonzero()[0].tolist()  # directions without a time have no update
        Random(f"{seed} updates").shuffle(rows)
        self._rows = rows[part::parts]
        assert self._rows, "a graph has more channels than a group has processes"
        self._next = 0
        self._orders = bytearray(
            len(drawn.short_channel_id)
        )  # whether node_1 of the shape is node_id_1, once it is known
        self.timestamp = first_timestamp

    def fresh(self, now_s: float) -> bytes:
        """A signed update that no node has seen, stamped with the time."""
        row = self._rows[self._next]
        index, direction = divmod(row, 2)
        body = self._fields(index, row, direction)[SIGNATURE_END:] + stamp(now_s)
        signature = sign(self._signer(index, direction), hash256(body))
        self._advance()
        return ChannelUpdate.number.to_bytes(TYPE_SIZE, "big") + signature + body

    def _advance(self) -> None:
        """Once around, and every direction gets a later second."""
        self._next += 1
        if self._next == len(self._rows):
            self._next = 0
            self.timestamp += 1

    def _fields(self, index: int, row: int, direction: int) -> bytes:
        drawn = self._shape
        return encode(
            ChannelUpdate(
                signature=bytes(64),
                chain_hash=REGTEST,
                short_channel_id=int(drawn.short_channel_id[index]),
                timestamp=self.timestamp,
                message_flags=HTLC_MAXIMUM_PRESENT,
                channel_flags=direction,
                cltv_expiry_delta=int(drawn.cltv_delta[row]),
                htlc_minimum_msat=int(drawn.htlc_minimum_msat[row]),
                fee_base_msat=int(drawn.base_msat[row]),
                fee_proportional_millionths=int(drawn.ppm[row]),
                htlc_maximum_msat=int(drawn.htlc_maximum_msat[row]),
            )
        )

    def _signer(self, index: int, direction: int) -> bytes:
        """BOLT 7, channel_update: direction 0 is that of the node whose id comes first."""
        nodes = int(self._shape.node_1[index]), int(self._shape.node_2[index])
        secrets = [node_secret(self._seed, node) for node in nodes]
        if self._orders[index] == UNKNOWN:
            in_order = public_key(secrets[0]) < public_key(secrets[1])
            self._orders[index] = IN_ORDER if in_order else REVERSED
        return secrets[direction if self._orders[index] == IN_ORDER else 1 - direction]
