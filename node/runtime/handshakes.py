"""BOLT 8 handshakes off the loop, and rate limited: in the backend, or in a frontend that has the node key.

On the link there is no call that does an ECDH: a frontend hands in whole acts and gets whole acts, the peer's id and the
transport keys back, and nothing is derived from an act before its MAC has verified.
"""

from functools import partial

from node.peer.handshake import HandshakeFailed, HandshakeResult, Initiator, Responder
from node.runtime.runtime import Runtime

MAX_WAITING = 256  # acts queued for the worker; a stranger can ask for them, so they are bounded


class Handshakes:
    def __init__(self, runtime: Runtime, node_secret: bytes, per_s: int, *, elsewhere: bool = False) -> None:
        """`elsewhere`: frontends that have the key may run them as well."""
        self._runtime = runtime
        self._secret = node_secret
        self._per_s = per_s
        self.elsewhere = elsewhere
        self._allowance = float(per_s)
        self._refilled_s = runtime.monotonic()
        self._waiting = 0
        self.refused = 0
        self.resting = False  # the backend stops: who comes now would only be sent away

    @property
    def waiting(self) -> int:
        """Acts that the worker has not come to."""
        return self._waiting

    def responder(self) -> Responder:
        """Raises HandshakeFailed("busy") where strangers ask for more than the node will do."""
        if self.resting:
            raise HandshakeFailed(1, "busy")
        self._take_allowance()
        return Responder(self._secret, self._runtime.entropy(32))

    def initiator(self, node_id: bytes) -> Initiator:
        return Initiator(self._secret, self._runtime.entropy(32), node_id)

    async def act(self, handshake: Responder | Initiator, act: bytes) -> tuple[bytes, HandshakeResult | None]:
        """The next act and, once the handshake is through, its result. Raises HandshakeFailed."""
        if self._waiting >= MAX_WAITING:
            self.refused += 1
            raise HandshakeFailed(1, "busy")
        self._waiting += 1
        try:
            reply = await self._runtime.run_blocking("handshake", partial(handshake.receive, act))
        finally:
            self._waiting -= 1
        return reply, handshake.result

    def _take_allowance(self) -> None:
        now_s = self._runtime.monotonic()
        self._allowance = min(self._per_s, self._allowance + (now_s - self._refilled_s) * self._per_s)
        self._refilled_s = now_s
        if self._allowance < 1:
            self.refused += 1
            raise HandshakeFailed(1, "busy")
        self._allowance -= 1
