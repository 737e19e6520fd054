"""What onions and their failures share: keys out of a shared secret, and the stream that hides bytes."""

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from node.crypto.hashes import hmac_sha256

# BOLT 4: every key hides one message only, so counter and nonce are zero
_ZERO_COUNTER_AND_NONCE = bytes(16)


def onion_key(kind: bytes, secret: bytes) -> bytes:
    """BOLT 4, key generation: the kind is rho, mu, um, pad or ammag."""
    return hmac_sha256(kind, secret)


def xor_stream(key: bytes, data: bytes) -> bytes:
    """The data under the key's ChaCha20 stream; twice gives the data back."""
    return Cipher(ChaCha20(key, _ZERO_COUNTER_AND_NONCE), None).encryptor().update(data)
