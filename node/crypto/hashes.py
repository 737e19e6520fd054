"""The hashes of the BOLTs, each one call into C."""

import hmac
from hashlib import sha256 as _sha256

import wallycore
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def sha256(data: bytes) -> bytes:
    return _sha256(data).digest()


def hash256(data: bytes) -> bytes:
    """SHA-256 twice, as transaction ids and signature hashes are made."""
    return _sha256(_sha256(data).digest()).digest()


def ripemd160(data: bytes) -> bytes:
    # hashlib has it only where OpenSSL carries its legacy provider, and slower
    return bytes(wallycore.ripemd160(data))


def hash160(data: bytes) -> bytes:
    return bytes(wallycore.hash160(data))


def hmac_sha256(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def hkdf(secret: bytes, info: bytes, length: int = 32) -> bytes:
    """RFC 5869 with SHA-256 and no salt: independent keys out of one strong secret."""
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(secret)
