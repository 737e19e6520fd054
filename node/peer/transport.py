"""BOLT 8, the transport: bytes of the socket to messages and back, after the handshake. Sans-IO.

Everything a frontend relays to its peers passes through here, so the loops run inside C calls where they can.
"""

from collections.abc import Iterable
from itertools import repeat
from struct import Struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from node.errors import MalformedMessage
from node.peer.handshake import HandshakeResult
from node.peer.noise_backend import next_keys, nonce

MAC_SIZE = 16
HEADER_SIZE = 2 + MAC_SIZE
# BOLT 8: no message is longer, and its length travels in two bytes.
MAX_MESSAGE_SIZE = 65_535
MAX_PACKET_SIZE = HEADER_SIZE + MAX_MESSAGE_SIZE + MAC_SIZE
# BOLT 8: a key serves a thousand times, and each message takes two (its length, its body).
USES_PER_KEY = 1_000

_LENGTH_NONCES = tuple(map(nonce, range(0, USES_PER_KEY, 2)))
_BODY_NONCES = tuple(map(nonce, range(1, USES_PER_KEY, 2)))
_MESSAGES_PER_KEY = USES_PER_KEY // 2
_NO_DATA = repeat(None)
_pack_length = Struct(">H").pack


class _Direction:
    """The key of one direction and how many messages it has served."""

    __slots__ = ("aead", "chaining_key", "key", "messages")

    def __init__(self, key: bytes, chaining_key: bytes) -> None:
        self.key = key
        self.chaining_key = chaining_key
        self.aead = ChaCha20Poly1305(key)
        self.messages = 0

    def rotate(self) -> None:
        """Replace key and chaining key, so that the old ones cannot be had from the new."""
        self.chaining_key, self.key = next_keys(self.chaining_key, self.key)
        self.aead = ChaCha20Poly1305(self.key)
        self.messages = 0

    def seal(self, lengths: list[bytes], bodies: list[bytes]) -> list[bytes]:
        """Lengths and bodies encrypted and interleaved; no more of them than the key may still serve."""
        first = self.messages
        self.messages = end = first + len(bodies)
        encrypt = self.aead.encrypt
        packets = [b""] * (2 * len(bodies))
        packets[0::2] = map(encrypt, _LENGTH_NONCES[first:end], lengths, _NO_DATA)
        packets[1::2] = map(encrypt, _BODY_NONCES[first:end], bodies, _NO_DATA)
        if end == _MESSAGES_PER_KEY:
            self.rotate()
        return packets


class Transport:
    """Both directions of one established connection. Mutable, one owner, no locks.

    Holds at most one packet (65,569 bytes) that has not come in whole; nothing at all while idle.
    """

    __slots__ = ("_body_size", "_pending", "_receiving", "_sending")

    def __init__(self, result: HandshakeResult) -> None:
        self._sending = _Direction(result.send_key, result.chaining_key)
        self._receiving = _Direction(result.receive_key, result.chaining_key)
        self._pending: bytearray | None = None
        # Of the packet whose length is known and whose body is not here yet, MAC included.
        self._body_size: int | None = None

    def encrypt(self, messages: Iterable[bytes]) -> bytes:
        """The packets of `messages` (each at most 65,535 bytes) as one buffer, for one write."""
        bodies = list(messages)
        lengths = list(map(_pack_length, map(len, bodies)))
        packets: list[bytes] = []
        while bodies:
            room = _MESSAGES_PER_KEY - self._sending.messages
            packets += self._sending.seal(lengths[:room], bodies[:room])
            del lengths[:room], bodies[:room]
        return b"".join(packets)

    def receive(self, data: bytes) -> list[bytes]:
        """Take whatever the socket gave; return the messages that are now complete.

        Raises MalformedMessage on a wrong MAC: the transport is unusable from there on.
        """
        if self._pending is not None:
            self._pending += data
            if len(self._pending) < (self._body_size or HEADER_SIZE):
                return []
            data = bytes(self._pending)
            self._pending = None
        messages: list[bytes] = []
        try:
            consumed = self._open(data, messages)
        except InvalidTag:
            raise MalformedMessage("wrong MAC: corrupted, reordered or forged bytes") from None
        if consumed < len(data):
            self._pending = bytearray(data[consumed:])
        return messages

    def _open(self, data: bytes, messages: list[bytes]) -> int:
        """Decrypt every whole packet of `data` into `messages`; return how many bytes that took."""
        receiving = self._receiving
        decrypt = receiving.aead.decrypt
        count = receiving.messages
        body_size = self._body_size
        position, end = 0, len(data)
        while True:
            if body_size is None:
                if end - position < HEADER_SIZE:
                    break
                header = data[position : position + HEADER_SIZE]
                body_size = int.from_bytes(decrypt(_LENGTH_NONCES[count], header, None), "big") + MAC_SIZE
                position += HEADER_SIZE
            if end - position < body_size:
                break
            body = data[position : position + body_size]
            messages.append(decrypt(_BODY_NONCES[count], body, None))
            position += body_size
            body_size = None
            count += 1
            if count == _MESSAGES_PER_KEY:
                receiving.rotate()
                decrypt = receiving.aead.decrypt
                count = 0
        receiving.messages = count
        self._body_size = body_size
        return position
