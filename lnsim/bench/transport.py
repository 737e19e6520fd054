"""BOLT 8 transport: messages encrypted on one core."""

from itertools import repeat
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from lnsim.bench.measure import Timed, compare, timed
from lnsim.bench.plan import Plan
from node.peer.handshake import HandshakeResult
from node.peer.transport import Transport

MESSAGE_SIZE = 138  # a channel_update, the commonest of all messages
PER_WRITE = 1_000  # what a frontend encrypts for one write while it serves a backlog
WRITES_PER_ROUND = 10


def run(plan: Plan) -> dict[str, Any]:
    """138-byte messages per second through `Transport.encrypt`, a thousand to a write, keys rotated as BOLT 8 says.

    The limit is the two AEAD calls that each message needs (its length, its body) with everything prepared and the
    results thrown away. Time is CPU time of the one thread.
    """
    key = bytes(range(32))
    transport = Transport(HandshakeResult(bytes(33), key, key, key))
    messages = [bytes([number % 256]) * MESSAGE_SIZE for number in range(PER_WRITE)]
    count = PER_WRITE * WRITES_PER_ROUND

    def ours() -> Timed:
        return timed(count, lambda: [transport.encrypt(messages) for _ in range(WRITES_PER_ROUND)])

    def limit() -> Timed:
        return timed(count, lambda: _bare(key, messages))

    result = compare(ours, limit, plan.seconds)
    return {
        "messages_per_s": result.per_s,
        "limit_per_s": result.limit_per_s,
        "ratio": result.ratio,
        "mb_per_s": result.per_s * MESSAGE_SIZE / 1e6,
    }


def _bare(key: bytes, messages: list[bytes]) -> None:
    encrypt = ChaCha20Poly1305(key).encrypt
    nonce, length = bytes(12), MESSAGE_SIZE.to_bytes(2, "big")
    for _ in range(WRITES_PER_ROUND):
        for _ in map(encrypt, repeat(nonce), repeat(length, len(messages)), repeat(None)):
            pass
        for _ in map(encrypt, repeat(nonce), messages, repeat(None)):
            pass
