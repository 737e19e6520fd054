"""What BOLT 8 puts into the Noise framework: secp256k1 as its DH, SHA-256 and ChaCha20-Poly1305."""

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from msgspec import Struct
from noise.backends.noise_backend import NoiseBackend

from node.crypto import hashes, keys

POINT_SIZE = 33


class KeyPair(Struct, frozen=True):
    """A key as noiseprotocol handles it: `private` is None for the other side's."""

    private: bytes | None
    public: bytes

    @property
    def public_bytes(self) -> bytes:
        return self.public

    @classmethod
    def from_secret(cls, secret: bytes) -> "KeyPair":
        return cls(secret, keys.public_key(secret))

    @classmethod
    def from_public_bytes(cls, point: bytes) -> "KeyPair":
        """Take a point unchecked: the ECDH that every received key goes through at once refuses a bad one."""
        return cls(None, point)

    def __repr__(self) -> str:
        return f"KeyPair({self.public.hex()})"


class Secp256k1:
    """The DH function: SHA-256 of the shared point in its compressed form."""

    dhlen = POINT_SIZE
    klass = KeyPair
    dh = staticmethod(keys.ecdh)


class ChaChaPoly:
    """The cipher function: each of its keys serves once or twice, so it keeps nothing."""

    def initialize(self, key: bytes) -> None:
        """Called with each new key, which `encrypt` and `decrypt` get as well."""

    def encrypt(self, key: bytes, counter: int, data: bytes, plaintext: bytes) -> bytes:
        return ChaCha20Poly1305(key).encrypt(nonce(counter), plaintext, data)

    def decrypt(self, key: bytes, counter: int, data: bytes, ciphertext: bytes) -> bytes:
        return ChaCha20Poly1305(key).decrypt(nonce(counter), ciphertext, data)


class Sha256:
    """The hash function, from hashlib: half the cost of noiseprotocol's own."""

    fn = None
    hashlen = 32
    blocklen = 64
    hash = staticmethod(hashes.sha256)


def nonce(counter: int) -> bytes:
    """32 zero bits, then the counter as 64 bits little-endian."""
    return bytes(4) + counter.to_bytes(8, "little")


def next_keys(chaining_key: bytes, material: bytes) -> tuple[bytes, bytes]:
    """The BOLT's HKDF: the next chaining key, and a key to encrypt with."""
    # RFC 5869 for two blocks, written out: its general form costs a third more
    pseudorandom = hashes.hmac_sha256(chaining_key, material)
    first = hashes.hmac_sha256(pseudorandom, b"\x01")
    return first, hashes.hmac_sha256(pseudorandom, first + b"\x02")


def _hkdf(chaining_key: bytes, material: bytes, outputs: int, hmac_hash_fn: object) -> tuple[bytes, bytes]:
    assert outputs == 2, "the XK pattern never asks for more"
    return next_keys(chaining_key, material)


def secp256k1_backend() -> NoiseBackend:
    """Everything that the protocol name of BOLT 8 refers to, for noiseprotocol to look up."""
    backend = NoiseBackend()
    backend.diffie_hellmans["secp256k1"] = Secp256k1
    backend.keypairs["secp256k1"] = KeyPair
    backend.ciphers["ChaChaPoly"] = ChaChaPoly
    backend.hashes["SHA256"] = Sha256
    backend.hmac = hashes.hmac_sha256  # asked for, and unused: the next line does its work
    backend.hkdf = _hkdf
    return backend
