import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from node.crypto.failures import build_failure, unwrap_failure, wrap_failure
from node.crypto.hashes import hmac_sha256
from node.crypto.onionkeys import onion_key

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "bolt4_errors.json").read_bytes())
secrets_ = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=20, unique=True)


def test_the_short_failure_vector() -> None:
    vector = VECTORS["short"]
    secrets = [bytes.fromhex(hop["hop_shared_secret"]) for hop in vector["hops"]]
    for hop, secret in zip(vector["hops"], secrets, strict=True):
        assert onion_key(b"ammag", secret).hex() == hop["ammag_key"]
    message = bytes.fromhex(vector["failure_message"])
    packet = build_failure(secrets[-1], message)
    assert wrap_failure(secrets[-1], packet)[32:].hex() == vector["hops"][-1]["payload"]
    for secret in reversed(secrets[:-1]):
        packet = wrap_failure(secret, packet)
    assert packet.hex() == vector["packet"]
    assert unwrap_failure(secrets, packet) == (4, message)


def test_the_long_failure_vector() -> None:
    """The erring node of this vector pads to more than it must: its packet is taken as it came."""
    vector = VECTORS["long"]
    secrets = [bytes.fromhex(secret) for secret in vector["shared_secrets"]]
    packets = [bytes.fromhex(vector["packets"][0])]
    for secret in reversed(secrets[:-1]):
        packets.append(wrap_failure(secret, packets[-1]))
    assert [packet.hex() for packet in packets] == vector["packets"]
    # message, length of the padding, padding: 1024 bytes of message and padding together
    message, padding = bytes.fromhex(vector["encoded_failure_message"])[:320], 704
    assert vector["encoded_failure_message"] == (message + padding.to_bytes(2, "big") + bytes(padding)).hex()
    assert unwrap_failure(secrets, packets[-1]) == (4, message)


@settings(max_examples=30, deadline=None)
@given(secrets_, st.data(), st.binary(max_size=400))
def test_the_origin_learns_who_failed_and_why(
    secrets: list[bytes], data: st.DataObject, message: bytes
) -> None:
    failing = data.draw(st.integers(0, len(secrets) - 1))
    packet = build_failure(secrets[failing], message)
    for secret in reversed(secrets[:failing]):
        packet = wrap_failure(secret, packet)
    assert len(packet) >= 32 + 2 + 256 + 2
    assert unwrap_failure(secrets, packet) == (failing, message)
    assert unwrap_failure(secrets[failing + 1 :], packet) is None


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=400), secrets_)
def test_hostile_packets_are_nobodys(packet: bytes, secrets: list[bytes]) -> None:
    assert unwrap_failure(secrets, packet) is None


def test_an_authentic_but_cut_packet_still_names_its_hop() -> None:
    """The erring node vouched for nonsense: it is to blame, and its message is what there is of it."""
    secret = bytes([5] * 32)
    for body, message in ((b"", b""), (b"\x00", b""), (b"\xff\xff\x20\x02", b"\x20\x02")):
        packet = wrap_failure(secret, hmac_sha256(onion_key(b"um", secret), body) + body)
        assert unwrap_failure([secret], packet) == (0, message)
