"""A bare BOLT 8 and BOLT 1 peer over pyln.proto.wire: one connection, init, pings, and a JSON line about it.

    python pyln_bolt8.py connect NODE_ID HOST PORT PINGS
    python pyln_bolt8.py listen PORT PINGS         first prints {"node_id", "port"}; stays until the other end goes

Runs in a virtual environment of its own: it knows nothing of the project.
"""

import json
import os
import socket
import struct
import sys

from pyln.proto.wire import LightningConnection, PrivateKey, PublicKey

INIT, PING, PONG = 16, 18, 19
FEATURES = bytes.fromhex(
    "a282"
)  # 1, 7, 9, 13, 15: data loss, queries, TLV onions, static_remotekey, payment_secret
PONG_BYTES = 7
LIMIT_S = 20


class Whole:
    """A socket whose recv waits for all it was asked for: the library takes a short read for the end."""

    def __init__(self, sock):
        self._socket = sock
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # it sends a message in two pieces

    def recv(self, size):
        return self._socket.recv(size, socket.MSG_WAITALL)

    def send(self, data):
        self._socket.sendall(data)


def converse(sock, key, peer, pings):
    sock.settimeout(LIMIT_S)
    connection = LightningConnection(Whole(sock), peer, key, is_initiator=peer is not None)
    connection.shake()
    connection.send_message(struct.pack(">HHH", INIT, 0, len(FEATURES)) + FEATURES)
    init = connection.read_message()
    if struct.unpack_from(">H", init)[0] != INIT:
        raise ValueError(f"first came {init.hex()}, not init")
    result = {"pongs": 0, "pings_answered": 0, "other_types": [], "init": init.hex()}
    for _ in range(pings):
        connection.send_message(struct.pack(">HHH", PING, PONG_BYTES, 0))
        await_pong(connection, result)
    result = {"node_id": text(key.public_key()), "peer": text(connection.remote_pubkey), **result}
    print(json.dumps(result), flush=True)
    if peer is None:
        sock.settimeout(None)
        await_end(connection)


def await_end(connection):
    while True:
        try:
            connection.read_message()
        except ValueError:
            return


def await_pong(connection, result):
    while True:
        data = connection.read_message()
        (kind,) = struct.unpack_from(">H", data)
        if kind == PONG:
            if len(data) != 4 + PONG_BYTES:
                raise ValueError(f"pong of {len(data)} bytes")
            result["pongs"] += 1
            return
        if kind == PING:
            (wanted,) = struct.unpack_from(">H", data, 2)
            connection.send_message(struct.pack(">HH", PONG, wanted) + bytes(wanted))
            result["pings_answered"] += 1
        else:
            result["other_types"].append(kind)


def text(point):
    return point.serializeCompressed().hex()


def main(role, *args):
    key = PrivateKey(os.urandom(32))
    if role == "connect":
        node_id, host, port, pings = args
        sock = socket.create_connection((host, int(port)), timeout=LIMIT_S)
        converse(sock, key, PublicKey(bytes.fromhex(node_id)), int(pings))
        return
    port, pings = args
    with socket.create_server(("127.0.0.1", int(port))) as server:
        server.settimeout(LIMIT_S)
        print(json.dumps({"node_id": text(key.public_key()), "port": server.getsockname()[1]}), flush=True)
        sock, _ = server.accept()
    converse(sock, key, None, int(pings))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as why:  # noqa: BLE001 - whatever it was, the test reads it
        print(json.dumps({"error": repr(why)}))
        sys.exit(1)
