"""BOLT 8, the handshake: three acts in, the peer's identity and the transport keys out. Sans-IO.

noiseprotocol runs the XK pattern; the version byte, the acts' framing and the errors are here.
"""

from functools import lru_cache
from typing import Any, TypeVar

from cryptography.exceptions import InvalidTag
from msgspec import Struct
from noise.noise_protocol import NoiseProtocol

from node.errors import MalformedMessage
from node.peer.noise_backend import KeyPair, secp256k1_backend

ACT_ONE_SIZE = 50
ACT_TWO_SIZE = 50
ACT_THREE_SIZE = 66

PROTOCOL_NAME = b"Noise_XK_secp256k1_ChaChaPoly_SHA256"
PROLOGUE = b"lightning"
VERSION = b"\x00"

MAX_STATIC_KEYS = 8  # a process speaks for one node, or in a simulation for a few

T = TypeVar("T")

# noiseprotocol looks its functions up by name each time; a twin of one that has saves a tenth of the handshake.
_PROTOCOL = NoiseProtocol(PROTOCOL_NAME, secp256k1_backend())


class HandshakeFailed(MalformedMessage):
    """The handshake cannot go on; `act` (1 to 3) and `cause` (one word, fit for a metric's label) say where and why."""

    def __init__(self, act: int, cause: str) -> None:
        super().__init__(f"handshake act {act}: {cause}")
        self.act = act
        self.cause = cause


class HandshakeResult(Struct, frozen=True):
    """What a finished handshake leaves: who the peer is, and where both directions of the transport start."""

    remote_static: bytes
    send_key: bytes
    receive_key: bytes
    chaining_key: bytes

    def __repr__(self) -> str:
        return f"HandshakeResult({self.remote_static.hex()})"


class _Handshake:
    """What both roles share: the Noise state, reading and writing one act. Dead after its first failure."""

    __slots__ = ("_acts_done", "_noise", "_symmetric", "result")

    def __init__(self, noise: Any) -> None:
        self._noise = noise
        self._symmetric: Any = noise.symmetric_state
        self._acts_done = 0
        self.result: HandshakeResult | None = None

    def _write(self, act: int) -> bytes:
        state = self._advance(act)
        message = bytearray(VERSION)
        try:
            finished = state.write_message(b"", message)
        except ValueError:
            raise self._fail(act, "bad_key") from None
        if finished:
            self._finish(state.rs.public)
        return bytes(message)

    def _read(self, act: int, message: bytes, size: int) -> None:
        state = self._advance(act)
        if len(message) != size:
            raise self._fail(act, "bad_length")
        # BOLT 8: an act of an unknown version ends the attempt
        if message[:1] != VERSION:
            raise self._fail(act, "bad_version")
        try:
            finished = state.read_message(message[1:], bytearray())
        except InvalidTag:
            raise self._fail(act, "bad_mac") from None
        except ValueError:
            raise self._fail(act, "bad_key") from None
        if finished:
            self._finish(state.rs.public)

    def _advance(self, act: int) -> Any:
        assert self._noise is not None, "a handshake that ended takes no further act"
        assert self._acts_done == act - 1, f"act {act} is not the next one"
        self._acts_done = act
        return self._noise.handshake_state

    def _fail(self, act: int, cause: str) -> HandshakeFailed:
        self._noise = self._symmetric = None
        return HandshakeFailed(act, cause)

    def _finish(self, remote_static: bytes) -> None:
        self.result = HandshakeResult(
            remote_static=remote_static,
            send_key=self._noise.cipher_state_encrypt.k,
            receive_key=self._noise.cipher_state_decrypt.k,
            chaining_key=self._symmetric.ck,
        )
        self._noise = self._symmetric = None


@lru_cache(maxsize=MAX_STATIC_KEYS)
def _static(secret: bytes) -> KeyPair:
    """A node's key serves all its handshakes, so its public half is computed once."""
    return KeyPair.from_secret(secret)


@lru_cache(maxsize=MAX_STATIC_KEYS)
def _awaiting(static_secret: bytes) -> Any:
    """The Noise state that every handshake of this responder begins with: to be copied, never used."""
    return _begun(_static(static_secret), None)


def _begun(static: KeyPair, remote_static: KeyPair | None) -> Any:
    """The Noise state before act one; who knows its peer is the initiator."""
    noise: Any = _twin(_PROTOCOL)
    noise.prologue = PROLOGUE
    noise.initiator = remote_static is not None
    noise.keypairs = {"s": static, "rs": remote_static}
    noise.initialise_handshake_state()
    return noise


def _copied(state: Any) -> Any:
    """A Noise state of its own, in everything that a handshake changes."""
    noise = _twin(state)
    noise.handshake_state = handshake = _twin(state.handshake_state)
    noise.symmetric_state = handshake.symmetric_state = symmetric = _twin(state.symmetric_state)
    noise.cipher_state_handshake = symmetric.cipher_state = _twin(symmetric.cipher_state)
    handshake.noise_protocol = symmetric.noise_protocol = noise
    handshake.message_patterns = handshake.message_patterns.copy()
    return noise


def _twin(thing: T) -> T:
    """`copy.copy` of a plain object, without its search for how that is done."""
    twin = object.__new__(type(thing))
    twin.__dict__.update(thing.__dict__)
    return twin


class Initiator(_Handshake):
    """The side that dials, and knows whom: `act_one()`, then `act_two(...)`, then `result` is there."""

    __slots__ = ()
    wanted = ACT_TWO_SIZE

    def __init__(self, static_secret: bytes, ephemeral_secret: bytes, remote_static: bytes) -> None:
        super().__init__(_begun(_static(static_secret), KeyPair.from_public_bytes(remote_static)))
        self._noise.handshake_state.e = KeyPair.from_secret(ephemeral_secret)

    def act_one(self) -> bytes:
        """The 50 bytes that open the handshake; HandshakeFailed if the remote static key is no point."""
        return self._write(1)

    def act_two(self, message: bytes) -> bytes:
        """Take the responder's 50 bytes, give the 66 of act three; sets `result`. Raises HandshakeFailed."""
        self._read(2, message, ACT_TWO_SIZE)
        return self._write(3)

    def receive(self, message: bytes) -> bytes:
        """The one act that this side gets, `wanted` bytes; the answer to send."""
        return self.act_two(message)


class Responder(_Handshake):
    """The side that is dialled: `act_one(...)`, then `act_three(...)`, then `result` is there."""

    __slots__ = ("_ephemeral_secret",)

    def __init__(self, static_secret: bytes, ephemeral_secret: bytes) -> None:
        super().__init__(_copied(_awaiting(static_secret)))
        self._ephemeral_secret = ephemeral_secret

    def act_one(self, message: bytes) -> bytes:
        """Take the initiator's 50 bytes, give the 50 of act two. Raises HandshakeFailed."""
        self._read(1, message, ACT_ONE_SIZE)
        # Only now: whoever does not know our node id costs one ECDH and nothing more.
        self._noise.handshake_state.e = KeyPair.from_secret(self._ephemeral_secret)
        return self._write(2)

    def act_three(self, message: bytes) -> None:
        """Take the initiator's 66 bytes; sets `result`. Raises HandshakeFailed."""
        self._read(3, message, ACT_THREE_SIZE)

    @property
    def wanted(self) -> int:
        """The size of the act that comes next."""
        return ACT_ONE_SIZE if self._acts_done == 0 else ACT_THREE_SIZE

    def receive(self, message: bytes) -> bytes:
        """Whichever act comes next, `wanted` bytes; the answer to send, empty after act three."""
        if self._acts_done == 0:
            return self.act_one(message)
        self.act_three(message)
        return b""
