"""A bare BOLT 8 and BOLT 1 peer over pyln.proto.wire: one connection, init, pings, and a JSON line about it.

    python pyln_bolt8.py connect NODE_ID HOST PORT PINGS
    python pyln_bolt8.py listen PORT PINGS         first prints {"node_id", "port"}; stays until the other end goes
    python pyln_bolt8.py relay                     pyln-proto as the transport of a node that has channels

`relay` reads a JSON line {"host", "port", "node_secret", "own_secret"} and prints {"port"}. Whoever connects there takes
it for the node, whose secret it has; for each such connection it makes one to the node as the owner of `own_secret`, and
hands messages over in the clear between the two. Once its input ends it prints how many of which type went
{"to_node", "from_node"}, and ends.

Runs in a virtual environment of its own: it knows nothing of the project.
"""

import json
import os
import select
import socket
import struct
import sys
import threading
from collections import Counter

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
        data = b""  # not MSG_WAITALL: a socket with a timeout does not heed it
        while len(data) < size and (more := self._socket.recv(size - len(data))):
            data += more
        return data

    def send(self, data):
        self._socket.sendall(data)


def converse(sock, key, peer, pings):
    connection = shaken(sock, peer, key)
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


class Relay:
    """One thread for each connection: the library rotates both directions' keys without a lock over both."""

    def __init__(self, host, port, node_secret, own_secret):
        self._far = (host, port)
        self._node_key, self._own_key = (
            PrivateKey(bytes.fromhex(node_secret)),
            PrivateKey(bytes.fromhex(own_secret)),
        )
        self.to_node, self.from_node = Counter(), Counter()

    def serve(self, server):
        while True:
            sock, _ = server.accept()
            threading.Thread(target=self._relay, args=(sock,), daemon=True).start()

    def _relay(self, near_socket):
        try:
            with near_socket, socket.create_connection(self._far, timeout=LIMIT_S) as far_socket:
                far = shaken(far_socket, self._node_key.public_key(), self._own_key)
                near = shaken(near_socket, None, self._node_key)
                ways = {near_socket: (near, far, self.to_node), far_socket: (far, near, self.from_node)}
                while True:
                    for readable in select.select(list(ways), [], [])[0]:
                        hand_over(*ways[readable])
        except (OSError, ValueError) as why:
            print(f"relay: {why!r}", file=sys.stderr)


def shaken(sock, peer, key):
    sock.settimeout(LIMIT_S)
    connection = LightningConnection(Whole(sock), peer, key, is_initiator=peer is not None)
    connection.shake()
    return connection


def hand_over(source, sink, counts):
    data = source.read_message()
    counts[struct.unpack_from(">H", data)[0]] += 1
    sink.send_message(data)


def relay():
    made = Relay(**json.loads(sys.stdin.readline()))
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=made.serve, args=(server,), daemon=True).start()
        print(json.dumps({"port": server.getsockname()[1]}), flush=True)
        sys.stdin.read()
        print(json.dumps({"to_node": made.to_node, "from_node": made.from_node}), flush=True)


def text(point):
    return point.serializeCompressed().hex()


def main(role, *args):
    if role == "relay":
        relay()
        return
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
