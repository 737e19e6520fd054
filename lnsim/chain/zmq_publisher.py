"""bitcoind's ZMQ notifications for the embedded chain, all topics on one socket."""

import zmq

from lnsim.chain.model import (
    BlockConnected,
    BlockDisconnected,
    Event,
    TipChanged,
    TransactionAdded,
    TransactionRemoved,
)
from node.bitcoin.block import ChainTransaction

HIGH_WATER_MARK = 10_000  # messages kept for a slow subscriber; then they are lost, as with bitcoind


class ZmqPublisher:
    """A PUB socket; `receive` is a listener for Chain.subscribe and never blocks. Raises ZMQError without its port."""

    def __init__(self, host: str, port: int) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
        self._socket.setsockopt(zmq.LINGER, 0)
        try:
            if port == 0:
                port = self._socket.bind_to_random_port(f"tcp://{host}")
            else:
                self._socket.bind(f"tcp://{host}:{port}")
        except zmq.ZMQError:
            self.close()
            raise
        self.address = f"tcp://{host}:{port}"
        self._counts: dict[bytes, int] = {}

    def close(self) -> None:
        self._socket.close()
        self._context.term()

    def receive(self, event: Event) -> None:
        match event:
            case TransactionAdded(tx, sequence):
                self._transaction(tx)
                self._publish(b"sequence", _shown(tx.txid) + b"A" + sequence.to_bytes(8, "little"))
            case TransactionRemoved(tx, sequence):
                self._publish(b"sequence", _shown(tx.txid) + b"R" + sequence.to_bytes(8, "little"))
            case BlockConnected(block, transactions):
                for tx in transactions:
                    self._transaction(tx)
                self._publish(b"sequence", _shown(block.hash) + b"C")
            case BlockDisconnected(block, transactions):
                for tx in transactions:
                    self._transaction(tx)
                self._publish(b"sequence", _shown(block.hash) + b"D")
            case TipChanged(block):
                self._publish(b"hashblock", _shown(block.hash))
                self._publish(b"rawblock", block.raw)

    def _transaction(self, tx: ChainTransaction) -> None:
        self._publish(b"hashtx", _shown(tx.txid))
        self._publish(b"rawtx", tx.raw)

    def _publish(self, topic: bytes, body: bytes) -> None:
        count = self._counts.get(topic, 0)
        self._counts[topic] = (count + 1) & 0xFFFFFFFF
        self._socket.send_multipart([topic, body, count.to_bytes(4, "little")])


def _shown(digest: bytes) -> bytes:
    return digest[::-1]
