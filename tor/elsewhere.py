"""Asks the network and our tor what they have of a key; see `ours` for what that tells. Blocking, all of it."""

import queue
import re
import secrets
import socket
import time

from tor.config import Config, password, split_address
from tor.control import CLOSED, Connection, TorRefused
from tor.descriptor import Answer, Descriptor, answer, parse
from tor.errors import Unavailable
from tor.ours import is_anothers

FETCH_S = 10.0
DIAL_S = 20.0  # a service that has gone is given up by tor after 3 to 14 s
DIALS = 2  # a circuit may break by itself
PUBLISHED_AGAIN_S = 3 * 3_600  # a descriptor is forgotten after this long, and published anew well before


def is_served_elsewhere(config: Config, address: str) -> bool:
    """While this tor serves: whether another one does, too, as far as a directory and this tor tell by themselves.

    A tor shows one of its two periods' descriptors; while clients ask for the other's this is False. Raises Unavailable.
    """
    found, own = ask(config, address).found, shown(config, address)
    return found is not None and own is not None and is_anothers(found, own)


def ask(config: Config, address: str, directory: str = "") -> Answer:
    """What one of the network's directories has for the address: that one, or any that a client would ask.

    tor asks for the present period only. Raises Unavailable where none can be asked.
    """
    events: queue.SimpleQueue[str] = queue.SimpleQueue()
    deadline = time.monotonic() + FETCH_S
    with _connection(config, events) as connection:
        try:
            connection.ask("SETEVENTS HS_DESC_CONTENT")
            connection.ask(f"HSFETCH {address} SERVER={directory}" if directory else f"HSFETCH {address}")
        except TorRefused as error:
            raise Unavailable(f"tor does not look for {address}.onion: {error}") from error
        while (left_s := deadline - time.monotonic()) > 0:
            try:
                event = events.get(timeout=left_s)
            except queue.Empty:
                break
            if event == CLOSED:
                break
            if event.startswith(f"HS_DESC_CONTENT {address} "):
                answered = answer(event)
                if answered is not None and directory in ("", answered.directory):
                    return answered
    raise Unavailable(f"no directory of the network answered for {address}.onion within {FETCH_S:g} s")


def shown(config: Config, address: str) -> Descriptor | None:
    """What our tor shows of what it published for the address. Raises Unavailable."""
    with _connection(config) as connection:
        try:
            return parse(connection.get_info(f"hs/service/desc/id/{address}"))
        except TorRefused:
            return None


def answers(config: Config, address: str) -> bool:
    """Whether somebody accepts a connection to the address, by a SOCKS port of this tor; False without such a port."""
    with _connection(config) as connection:
        ports = re.findall(r'"([^"]+)"', connection.get_info("net/listeners/socks"))
    if not ports:
        return False
    return any(_dial(ports[0], f"{address}.onion", config.service.port) for _ in range(DIALS))


def _dial(socks: str, host: str, port: int) -> bool:
    """One connection on a circuit of its own: RFC 1928 with RFC 1929, the name resolved by tor."""
    user = secrets.token_hex(8).encode()
    greeting = b"\x05\x01\x02", b"\x01" + bytes([len(user)]) + user + b"\x01x"
    request = b"\x05\x01\x00\x03" + bytes([len(host)]) + host.encode() + port.to_bytes(2, "big")
    try:
        with _socks_socket(socks) as stream:
            for step in (*greeting, request):
                stream.sendall(step)
                answer = stream.recv(2 if step is not request else 10)
                if len(answer) < 2 or (step is not greeting[0] and answer[1] != 0):
                    return False
            return True
    except OSError:
        return False


def _socks_socket(address: str) -> socket.socket:
    if not address.startswith("unix:"):
        return socket.create_connection(split_address(address, "SocksPort"), DIAL_S)
    stream = socket.socket(socket.AF_UNIX)
    stream.settimeout(DIAL_S)
    stream.connect(address.removeprefix("unix:"))
    return stream


def _connection(config: Config, events: queue.SimpleQueue[str] | None = None) -> Connection:
    control = config.control
    return Connection(
        control.address,
        timeout_s=control.timeout_s,
        password=password(control),
        cookie_file=control.cookie_file,
        on_event=events.put if events is not None else lambda _: None,
    )
