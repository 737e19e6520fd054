"""BOLT 3 key derivation: every commitment's own keys, and a channel's secrets out of the node's seed."""

from msgspec import Struct

from node.crypto.hashes import hkdf, sha256
from node.crypto.keys import (
    add_products,
    add_secrets,
    is_valid_secret,
    mul_secrets,
    public_key,
    tweak_add_point,
)
from node.crypto.shachain import FIRST_INDEX, secret_at


class ChannelKeys(Struct, frozen=True):
    """The secrets of one channel; printing them shows nothing."""

    funding_secret: bytes
    revocation_base_secret: bytes
    payment_base_secret: bytes
    delayed_payment_base_secret: bytes
    htlc_base_secret: bytes
    commitment_seed: bytes
    node_secret: bytes

    def __repr__(self) -> str:
        return "ChannelKeys(...)"


def node_secret(seed: bytes) -> bytes:
    """The node's key; channels have keys of their own."""
    secret = hkdf(seed, b"lnnode node key")
    assert is_valid_secret(secret), "one seed in 2^128 would not do"
    return secret


def channel_keys(seed: bytes, index: int, node_secret: bytes) -> ChannelKeys:
    """The secrets of the node's channel number `index`; the same seed gives the same ones for ever."""
    info = b"channel" + index.to_bytes(8, "big")
    return ChannelKeys(
        funding_secret=hkdf(seed, info + b"funding"),
        revocation_base_secret=hkdf(seed, info + b"revocation"),
        payment_base_secret=hkdf(seed, info + b"payment"),
        delayed_payment_base_secret=hkdf(seed, info + b"delayed payment"),
        htlc_base_secret=hkdf(seed, info + b"htlc"),
        commitment_seed=hkdf(seed, info + b"commitment"),
        node_secret=node_secret,
    )


def per_commitment_secret(seed: bytes, commitment_number: int) -> bytes:
    """The secret of a commitment; the number counts up from zero, BOLT 3's index down from 2^48 - 1."""
    return secret_at(seed, FIRST_INDEX - commitment_number)


def per_commitment_point(seed: bytes, commitment_number: int) -> bytes:
    return public_key(per_commitment_secret(seed, commitment_number))


def derive_public_key(basepoint: bytes, per_commitment_point: bytes) -> bytes:
    return tweak_add_point(basepoint, sha256(per_commitment_point + basepoint))


def derive_secret(base_secret: bytes, per_commitment_point: bytes) -> bytes:
    return add_secrets(base_secret, sha256(per_commitment_point + public_key(base_secret)))


def derive_revocation_public_key(revocation_basepoint: bytes, per_commitment_point: bytes) -> bytes:
    return add_products(
        *(revocation_basepoint, sha256(revocation_basepoint + per_commitment_point)),
        *(per_commitment_point, sha256(per_commitment_point + revocation_basepoint)),
    )


def derive_revocation_secret(revocation_base_secret: bytes, per_commitment_secret: bytes) -> bytes:
    basepoint = public_key(revocation_base_secret)
    point = public_key(per_commitment_secret)
    return add_secrets(
        mul_secrets(revocation_base_secret, sha256(basepoint + point)),
        mul_secrets(per_commitment_secret, sha256(point + basepoint)),
    )
