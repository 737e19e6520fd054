"""BOLT 8, appendix A: every handshake and the key rotation, fed whole, in sevens and byte by byte."""

import json
from pathlib import Path
from typing import Any

import pytest

from node.peer.connection import NoiseConnection
from node.peer.handshake import HandshakeFailed, HandshakeResult, Initiator, Responder
from node.peer.transport import Transport

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "bolt8_transport.json").read_text())
CAUSES = {
    "BAD_VERSION": "bad_version",
    "BAD_PUBKEY": "bad_key",
    "BAD_TAG": "bad_mac",
    "BAD_CIPHERTEXT": "bad_mac",
}
whole_and_in_pieces = pytest.mark.parametrize("chunk", [1 << 16, 7, 1])


def connection(vector: dict[str, Any]) -> NoiseConnection:
    static, ephemeral = bytes.fromhex(vector["ls.priv"]), bytes.fromhex(vector["e.priv"])
    if "rs.pub" in vector:
        return NoiseConnection(Initiator(static, ephemeral, bytes.fromhex(vector["rs.pub"])))
    return NoiseConnection(Responder(static, ephemeral))


def pieces(data: bytes, chunk: int) -> list[bytes]:
    return [data[i : i + chunk] for i in range(0, len(data), chunk)]


def play(peer: NoiseConnection, steps: list[tuple[str, str]], chunk: int) -> None:
    for kind, text in steps:
        if kind == "output":
            assert peer.data_to_send().hex() == text
        else:
            for piece in pieces(bytes.fromhex(text), chunk):
                assert peer.receive(piece) == []


def test_the_vectors_are_all_there() -> None:
    assert len(VECTORS["handshakes"]) == 15
    assert sum("error" in vector for vector in VECTORS["handshakes"]) == 13


@whole_and_in_pieces
@pytest.mark.parametrize("vector", VECTORS["handshakes"], ids=lambda vector: vector["name"])
def test_handshake(vector: dict[str, Any], chunk: int) -> None:
    peer = connection(vector)
    act, _, error = vector.get("error", "").partition("_")
    if not error:
        play(peer, vector["steps"], chunk)
        assert peer.established
        assert peer.result is not None
        assert peer.result.send_key.hex() == vector["sk"]
        assert peer.result.receive_key.hex() == vector["rk"]
    elif error == "READ_FAILED":
        play(peer, vector["steps"], chunk)
        assert not peer.established
    else:
        with pytest.raises(HandshakeFailed) as failed:
            play(peer, vector["steps"], chunk)
        assert (failed.value.act, failed.value.cause) == (int(act[-1]), CAUSES[error])
        assert not peer.established


@whole_and_in_pieces
def test_key_rotation(chunk: int) -> None:
    vector = VECTORS["messages"]
    keys = (bytes.fromhex(vector[name]) for name in ("sk", "rk", "ck"))
    initiator = HandshakeResult(b"", *keys)
    responder = HandshakeResult(b"", initiator.receive_key, initiator.send_key, initiator.chaining_key)
    sender, receiver = Transport(initiator), Transport(responder)
    packets = [sender.encrypt([b"hello"]) for _ in range(1002)]
    for index, packet in vector["outputs"].items():
        assert packets[int(index)].hex() == packet
    assert Transport(initiator).encrypt([b"hello"] * 1002) == b"".join(packets)
    received = [m for piece in pieces(b"".join(packets), chunk) for m in receiver.receive(piece)]
    assert received == [b"hello"] * 1002
