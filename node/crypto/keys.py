"""Secrets, points and signatures on secp256k1: libsecp256k1 called with as little around it as Python allows.

Points are 33 compressed bytes, secrets and digests 32, signatures 64 (compact, low S). Wrong lengths of
what we make ourselves are our own bugs and assert; whatever a peer can send is answered by a value.
Nothing here is shared between calls but the parsed points, so any thread may call.
"""

from functools import lru_cache
from typing import Any

from coincurve._libsecp256k1 import ffi, lib
from coincurve.context import GLOBAL_CONTEXT

# Parsing a point costs a square root, an eighth of a verification. Room for every node of the public
# network (some 17 thousand) and the HTLC keys of the busiest channels; about 250 bytes each.
MAX_PARSED_POINTS = 32_768

_CONTEXT = GLOBAL_CONTEXT.ctx
_NULL = ffi.NULL
_POINT = ffi.typeof("secp256k1_pubkey *")
_SIGNATURE = ffi.typeof("secp256k1_ecdsa_signature *")
_RECOVERABLE = ffi.typeof("secp256k1_ecdsa_recoverable_signature *")
_BYTES_32 = ffi.typeof("char[32]")
_BYTES_33 = ffi.typeof("char[33]")
_BYTES_64 = ffi.typeof("char[64]")
_SIZE = ffi.typeof("size_t *")
_UCHARS = ffi.typeof("unsigned char *")

_new, _cast, _unpack = ffi.new, ffi.cast, ffi.unpack
_parse_signature = lib.secp256k1_ecdsa_signature_parse_compact
_verify_signature = lib.secp256k1_ecdsa_verify


def is_valid_point(point: bytes) -> bool:
    return _parsed(point) is not None


def is_valid_secret(secret: bytes) -> bool:
    return len(secret) == 32 and bool(lib.secp256k1_ec_seckey_verify(_CONTEXT, secret))


def public_key(secret: bytes) -> bytes:
    point = _new(_POINT)
    _must(len(secret) == 32 and lib.secp256k1_ec_pubkey_create(_CONTEXT, point, secret))
    return _serialized(point)


def verify(point: bytes, digest: bytes, signature: bytes) -> bool:
    """Whether `signature` is a low-S signature of `digest` by `point`; garbage is merely not."""
    return _is_signed(_parsed(point), digest, signature)


def verify_once(point: bytes, digest: bytes, signature: bytes) -> bool:
    """`verify` for a point that will not come again: it must not push a busy one out of the cache."""
    return _is_signed(_parse(point), digest, signature)


def _is_signed(key: Any | None, digest: bytes, signature: bytes) -> bool:
    if key is None or len(digest) != 32 or len(signature) != 64:
        return False
    parsed = _new(_SIGNATURE)
    # libsecp256k1 refuses a high S by itself
    return bool(
        _parse_signature(_CONTEXT, parsed, signature) and _verify_signature(_CONTEXT, parsed, digest, key)
    )


def sign(secret: bytes, digest: bytes) -> bytes:
    """The RFC 6979 signature, low S, compact."""
    signature, out = _new(_SIGNATURE), _new(_BYTES_64)
    _must(
        len(secret) == 32
        and len(digest) == 32
        and lib.secp256k1_ecdsa_sign(_CONTEXT, signature, digest, secret, _NULL, _NULL)
    )
    lib.secp256k1_ecdsa_signature_serialize_compact(_CONTEXT, _cast(_UCHARS, out), signature)
    return bytes(_unpack(out, 64))


def sign_recoverable(secret: bytes, digest: bytes) -> bytes:
    """65 bytes: the compact signature, then the recovery id, as BOLT 11 carries it."""
    signature, out, recovery_id = _new(_RECOVERABLE), _new(_BYTES_64), ffi.new("int *")
    _must(
        len(secret) == 32
        and len(digest) == 32
        and lib.secp256k1_ecdsa_sign_recoverable(_CONTEXT, signature, digest, secret, _NULL, _NULL)
    )
    lib.secp256k1_ecdsa_recoverable_signature_serialize_compact(
        _CONTEXT, _cast(_UCHARS, out), recovery_id, signature
    )
    return bytes(_unpack(out, 64)) + bytes((recovery_id[0],))


def recover(digest: bytes, signature: bytes) -> bytes | None:
    """The point that made this 65-byte signature, or None when there is none."""
    if len(digest) != 32 or len(signature) != 65 or signature[64] > 3:
        return None
    parsed, point = _new(_RECOVERABLE), _new(_POINT)
    found = lib.secp256k1_ecdsa_recoverable_signature_parse_compact(
        _CONTEXT, parsed, signature, signature[64]
    ) and lib.secp256k1_ecdsa_recover(_CONTEXT, point, parsed, digest)
    return _serialized(point) if found else None


def ecdh(secret: bytes, point: bytes) -> bytes:
    """SHA-256 of the compressed shared point."""
    out = _new(_BYTES_32)
    key = _parsed(point)
    _must(
        key is not None
        and len(secret) == 32
        and lib.secp256k1_ecdh(_CONTEXT, _cast(_UCHARS, out), key, secret, _NULL, _NULL)
    )
    return bytes(_unpack(out, 32))


def tweak_add_point(point: bytes, scalar: bytes) -> bytes:
    """The sum of a point and scalar * G."""
    # libsecp256k1's own tweak multiplies the point by one on the way: an eighth slower, measured
    key, tweak = _parsed(point), _new(_POINT)
    _must(key is not None and len(scalar) == 32 and lib.secp256k1_ec_pubkey_create(_CONTEXT, tweak, scalar))
    return _serialized(_sum(key, tweak))


def tweak_mul_point(point: bytes, scalar: bytes) -> bytes:
    """The product of a scalar and a point."""
    return _serialized(_product(point, scalar))


def add_points(a: bytes, b: bytes) -> bytes:
    return _serialized(_sum(_parsed(a), _parsed(b)))


def add_products(a: bytes, x: bytes, b: bytes, y: bytes) -> bytes:
    """The point x * a + y * b."""
    return _serialized(_sum(_product(a, x), _product(b, y)))


def add_secrets(a: bytes, b: bytes) -> bytes:
    return _tweaked_secret(lib.secp256k1_ec_seckey_tweak_add, a, b)


def mul_secrets(a: bytes, b: bytes) -> bytes:
    return _tweaked_secret(lib.secp256k1_ec_seckey_tweak_mul, a, b)


def _tweaked_secret(tweak: Any, secret: bytes, scalar: bytes) -> bytes:
    out = _new(_BYTES_32, secret)
    _must(len(secret) == 32 and len(scalar) == 32 and tweak(_CONTEXT, _cast(_UCHARS, out), scalar))
    return bytes(_unpack(out, 32))


def _parse(point: bytes) -> Any | None:
    if len(point) != 33:
        return None
    key = _new(_POINT)
    return key if lib.secp256k1_ec_pubkey_parse(_CONTEXT, key, point, 33) else None


# shared by all callers: to be read, never changed
_parsed = lru_cache(maxsize=MAX_PARSED_POINTS)(_parse)


def _product(point: bytes, scalar: bytes) -> Any:
    key = _parsed(point)
    _must(key is not None and len(scalar) == 32)
    product = _new(_POINT, key[0])  # type: ignore[index]  # _must refuses None
    _must(lib.secp256k1_ec_pubkey_tweak_mul(_CONTEXT, product, scalar))
    return product


def _sum(a: Any, b: Any) -> Any:
    total = _new(_POINT)
    _must(a is not None and b is not None and lib.secp256k1_ec_pubkey_combine(_CONTEXT, total, (a, b), 2))
    return total


def _serialized(point: Any) -> bytes:
    out, size = _new(_BYTES_33), _new(_SIZE, 33)
    lib.secp256k1_ec_pubkey_serialize(_CONTEXT, _cast(_UCHARS, out), size, point, lib.SECP256K1_EC_COMPRESSED)
    return bytes(_unpack(out, 33))


def _must(done: object) -> None:
    """What peers send was checked at the edge: here an invalid point or secret is our own bug."""
    if not done:
        raise ValueError("invalid point, secret or scalar")
