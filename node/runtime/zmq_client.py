"""bitcoind's ZMQ notices."""

import zmq
import zmq.asyncio

from node.errors import Misconfigured

HIGH_WATER_MARK = 10_000  # messages; what does not fit is lost, and asking makes up for it
TOPICS = (b"hashblock", b"rawtx")


class ZmqHints:
    """Subscribes to new blocks and mempool transactions on one or more endpoints, and reconnects by itself."""

    def __init__(self, *endpoints: str) -> None:
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
        self._socket.setsockopt(zmq.LINGER, 0)
        for topic in TOPICS:
            self._socket.setsockopt(zmq.SUBSCRIBE, topic)
        try:
            for endpoint in endpoints:
                self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise Misconfigured(f"bitcoind.zmq: {endpoint}: {error}; say tcp://HOST:PORT") from error

    async def next(self) -> bytes | None:
        """A transaction, or None for a new block, and for what bitcoind would not say: asking tells."""
        parts = await self._socket.recv_multipart()
        return parts[1] if len(parts) > 1 and parts[0] == b"rawtx" else None

    def close(self) -> None:
        self._socket.close()
        self._context.term()
