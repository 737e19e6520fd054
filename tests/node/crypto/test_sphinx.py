import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.crypto.hashes import hmac_sha256
from node.crypto.keys import ecdh, public_key
from node.crypto.onionkeys import onion_key, xor_stream
from node.crypto.sphinx import (
    INVALID_ONION_HMAC,
    INVALID_ONION_KEY,
    INVALID_ONION_PAYLOAD,
    INVALID_ONION_VERSION,
    ONION_LENGTH,
    BadOnion,
    Peeled,
    build,
    peel,
)
from node.errors import Refused

VECTOR = json.loads((Path(__file__).parents[2] / "vectors" / "bolt4_onion.json").read_bytes())
SESSION_KEY = bytes([0x41] * 32)
DATA = bytes([0x42] * 32)


def hop_secret(index: int) -> bytes:
    return (index + 1000).to_bytes(32, "big")


def peel_all(onion: bytes, secrets: list[bytes], data: bytes) -> list[Peeled]:
    layers: list[Peeled] = []
    for secret in secrets:
        layers.append(peel(secret, onion, data))
        onion = layers[-1].next_onion or b""
    assert layers[-1].next_onion is None
    return layers


def without_length(framed: bytes) -> bytes:
    return framed[3:] if framed[0] == 0xFD else framed[1:]


def test_onion_vector() -> None:
    given_ = VECTOR["generate"]
    data = bytes.fromhex(given_["associated_data"])
    hops = [(bytes.fromhex(h["pubkey"]), without_length(bytes.fromhex(h["payload"]))) for h in given_["hops"]]
    onion, secrets = build(bytes.fromhex(given_["session_key"]), hops, data)
    assert onion.hex() == VECTOR["onion"]
    layers = peel_all(onion, [bytes.fromhex(secret) for secret in VECTOR["decode"]], data)
    assert [layer.payload for layer in layers] == [payload for _, payload in hops]
    assert tuple(layer.shared_secret for layer in layers) == secrets


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.binary(min_size=2, max_size=32) | st.binary(min_size=250, max_size=270), min_size=1, max_size=4
    )
    | st.lists(st.binary(min_size=2, max_size=14), min_size=20, max_size=27),
    st.binary(max_size=40),
)
def test_every_hop_reads_its_own_payload(payloads: list[bytes], data: bytes) -> None:
    keys = [hop_secret(index) for index in range(len(payloads))]
    onion, secrets = build(
        SESSION_KEY, [(public_key(k), p) for k, p in zip(keys, payloads, strict=True)], data
    )
    assert len(onion) == ONION_LENGTH
    layers = peel_all(onion, keys, data)
    assert [layer.payload for layer in layers] == payloads
    assert [layer.shared_secret for layer in layers] == list(secrets)


def test_the_largest_payload_fits_and_one_byte_more_does_not() -> None:
    hop = public_key(hop_secret(0))
    onion, _ = build(SESSION_KEY, [(hop, bytes(1300 - 3 - 32))], b"")
    assert peel(hop_secret(0), onion, b"").payload == bytes(1300 - 3 - 32)
    for hops in (
        [(hop, bytes(1300 - 3 - 31))],
        [(hop, bytes(600))] * 3,
        [],
        [(b"\x02" + b"\xff" * 32, b"ab")],
    ):
        with pytest.raises(Refused):
            build(SESSION_KEY, hops, b"")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, ONION_LENGTH - 1), st.integers(1, 255))
def test_a_changed_byte_is_noticed(at: int, flip: int) -> None:
    onion, _ = build(SESSION_KEY, [(public_key(hop_secret(0)), b"ab")], DATA)
    changed = bytearray(onion)
    changed[at] ^= flip
    with pytest.raises(BadOnion) as bad:
        peel(hop_secret(0), bytes(changed), DATA)
    expected = {INVALID_ONION_VERSION} if at == 0 else {INVALID_ONION_HMAC}
    if 1 <= at <= 33:
        expected.add(INVALID_ONION_KEY)
    assert bad.value.failure_code in expected
    assert bad.value.shared_secret is None


def test_failure_codes_by_cause() -> None:
    onion, _ = build(SESSION_KEY, [(public_key(hop_secret(0)), b"ab")], DATA)
    for broken, data, code in (
        (b"\x01" + onion[1:], DATA, INVALID_ONION_VERSION),
        (b"", DATA, INVALID_ONION_VERSION),
        (onion[:-1], DATA, INVALID_ONION_VERSION),
        (onion[:1] + b"\x02" + b"\xff" * 32 + onion[34:], DATA, INVALID_ONION_KEY),
        (onion, b"other", INVALID_ONION_HMAC),
    ):
        with pytest.raises(BadOnion) as bad:
            peel(hop_secret(0), broken, data)
        assert bad.value.failure_code == code


@pytest.mark.parametrize(
    "start",
    ["00", "01", "fd00fc", "fd04f2", "fdffff", "fe00000010", "ff0000000000000010"],
    ids=["empty", "reserved", "not minimal", "hmac does not fit", "too long", "four bytes", "eight bytes"],
)
def test_payload_lengths_that_cannot_be(start: str) -> None:
    """Authentic, yet malformed: the origin can be told so, encrypted, with the secret that comes along."""
    secret = ecdh(SESSION_KEY, public_key(hop_secret(0)))
    clear = bytes.fromhex(start).ljust(1300, b"\x02")
    payloads = xor_stream(onion_key(b"rho", secret), clear)
    mac = hmac_sha256(onion_key(b"mu", secret), payloads + DATA)
    with pytest.raises(BadOnion) as bad:
        peel(hop_secret(0), b"\0" + public_key(SESSION_KEY) + payloads + mac, DATA)
    assert bad.value.failure_code == INVALID_ONION_PAYLOAD
    assert bad.value.shared_secret == secret
