from concurrent.futures import ThreadPoolExecutor

import coincurve
import pytest
import wallycore
from hypothesis import given, settings
from hypothesis import strategies as st

from node.crypto.keys import (
    add_points,
    add_products,
    add_secrets,
    ecdh,
    is_valid_point,
    is_valid_secret,
    mul_secrets,
    public_key,
    recover,
    sign,
    sign_recoverable,
    tweak_add_point,
    tweak_mul_point,
    verify,
    verify_once,
)

ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
scalars = st.integers(1, ORDER - 1).map(lambda n: n.to_bytes(32, "big"))
digests = st.binary(min_size=32, max_size=32)


def negated(secret: bytes) -> bytes:
    return (ORDER - int.from_bytes(secret, "big")).to_bytes(32, "big")


@settings(max_examples=25)
@given(scalars, digests)
def test_signs_as_other_libraries_do(secret: bytes, digest: bytes) -> None:
    signature = sign(secret, digest)
    assert signature == bytes(wallycore.ec_sig_from_bytes(secret, digest, wallycore.EC_FLAG_ECDSA))
    assert sign_recoverable(secret, digest) == coincurve.PrivateKey(secret).sign_recoverable(
        digest, hasher=None
    )
    assert public_key(secret) == coincurve.PrivateKey(secret).public_key.format()
    assert verify(public_key(secret), digest, signature)
    assert verify_once(public_key(secret), digest, signature)
    assert recover(digest, sign_recoverable(secret, digest)) == public_key(secret)


@settings(max_examples=25)
@given(scalars, digests, st.integers(0, 63), st.integers(1, 255))
def test_a_changed_signature_is_none(secret: bytes, digest: bytes, at: int, flip: int) -> None:
    changed = bytearray(sign(secret, digest))
    changed[at] ^= flip
    assert not verify(public_key(secret), digest, bytes(changed))


def test_high_s_is_refused() -> None:
    secret, digest = bytes([1] * 32), bytes([2] * 32)
    low = sign(secret, digest)
    assert not verify(public_key(secret), digest, low[:32] + negated(low[32:]))


@settings(max_examples=100)
@given(
    st.binary(max_size=70),
    st.binary(max_size=40),
    st.binary(max_size=80) | st.binary(min_size=64, max_size=65),
)
def test_garbage_is_an_answer_not_an_exception(point: bytes, digest: bytes, signature: bytes) -> None:
    assert not verify(point, digest, signature)
    assert not verify_once(point, digest, signature)
    assert not verify(public_key(bytes([1] * 32)), digest, signature)
    assert recover(digest, signature) in {None, recover(digest, signature)}
    assert is_valid_point(point) in {True, False}


@pytest.mark.parametrize(
    "point", [bytes(33), b"\x02" + b"\xff" * 32, b"\x05" + bytes(32), b"", b"\x04" + bytes(64), b"\x02" * 32]
)
def test_no_points(point: bytes) -> None:
    assert not is_valid_point(point)
    for use in (
        ecdh,
        lambda secret, p: tweak_mul_point(p, secret),
        lambda secret, p: add_points(public_key(secret), p),
    ):
        with pytest.raises(ValueError, match="invalid point"):
            use(bytes([1] * 32), point)


@pytest.mark.parametrize("secret", [bytes(32), ORDER.to_bytes(32, "big"), b"\xff" * 32, b"\x01" * 31])
def test_no_secrets(secret: bytes) -> None:
    assert not is_valid_secret(secret)
    for use in (public_key, lambda s: sign(s, bytes(32)), lambda s: ecdh(s, public_key(bytes([1] * 32)))):
        with pytest.raises(ValueError, match="invalid point"):
            use(secret)


@settings(max_examples=25)
@given(scalars, scalars, scalars)
def test_tweaks_of_points_and_secrets_agree(a: bytes, b: bytes, c: bytes) -> None:
    assert tweak_mul_point(public_key(a), b) == public_key(mul_secrets(a, b))
    assert ecdh(a, public_key(b)) == ecdh(b, public_key(a))
    if b not in {a, negated(a)}:
        total = public_key(add_secrets(a, b))
        assert tweak_add_point(public_key(a), b) == total == add_points(public_key(a), public_key(b))
        # (a + b) * c == a * c + b * c
        assert tweak_mul_point(total, c) == add_products(public_key(a), c, public_key(b), c)
        assert tweak_mul_point(total, c) == public_key(add_secrets(mul_secrets(a, c), mul_secrets(b, c)))


def test_a_sum_of_nothing_is_our_bug() -> None:
    secret = bytes([7] * 32)
    with pytest.raises(ValueError, match="invalid"):
        add_secrets(secret, negated(secret))
    with pytest.raises(ValueError, match="invalid"):
        add_points(public_key(secret), public_key(negated(secret)))


def test_threads_do_not_disturb_each_other() -> None:
    """The handshakes run beside the loop, and libsecp256k1 releases the interpreter lock."""

    def sign_and_verify(n: int) -> bool:
        secret, digest = n.to_bytes(32, "big"), (n * n).to_bytes(32, "big")
        return verify(public_key(secret), digest, sign(secret, digest))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(sign_and_verify, range(1, 400)))
