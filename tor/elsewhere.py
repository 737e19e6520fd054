"""Does another tor serve our key? The network's directories hold what was published last, by whichever tor.

A tor makes a signing key of its own for each period, and numbers what it publishes by the time, in a way that depends
on the service's key alone. So a descriptor under our key, with a signing key that is not our tor's and a number above
that of our tor's latest, is another tor's; what we published before a restart has a lower number. A tor publishes for
two periods and shows its descriptor for one: while clients ask for the other's, half of the time, nothing can be told.
Blocking, all of it.
"""

import base64
import queue
import re
import secrets
import socket
import time

from msgspec import Struct

from tor.config import Config, password, split_address
from tor.control import CLOSED, Connection, TorRefused
from tor.errors import Unavailable

FETCH_S = 10.0
DIAL_S = 20.0  # a service that has gone is given up by tor after 3 to 14 s
DIALS = 2  # a circuit may break by itself
PUBLISHED_AGAIN_S = 3 * 3_600  # a descriptor is forgotten after this long, and published anew well before

CERTIFICATE = re.compile(
    r"descriptor-signing-key-cert\s+-----BEGIN ED25519 CERT-----\s+([\w+/=\s]+?)-----END", re.ASCII
)
REVISION = re.compile(r"^revision-counter (\d+)$", re.MULTILINE)
# tor's cert-spec, 2.1: version, type, expiration, key type, the certified key, number of extensions, then of the first
# its length, type and flags and the key that signed.
CERTIFIED_KEY = slice(7, 39)
SIGNED_WITH = slice(44, 76)


class Descriptor(Struct, frozen=True):
    """What can be read of a published descriptor without the service's address."""

    blinded_key: bytes
    signing_key: bytes
    revision: int


def parse(text: str) -> Descriptor | None:
    """None for what is no descriptor, or was never published."""
    certificate, revision = CERTIFICATE.search(text), REVISION.search(text)
    if certificate is None or revision is None or int(revision.group(1)) == 0:
        return None
    try:
        raw = base64.b64decode(certificate.group(1))
    except ValueError:
        return None
    if len(raw) < SIGNED_WITH.stop:
        return None
    return Descriptor(raw[SIGNED_WITH], raw[CERTIFIED_KEY], int(revision.group(1)))


def is_anothers(found: Descriptor, own: Descriptor) -> bool:
    """Whether another tor published `found` after our tor published `own`. Of another period's, nothing is known."""
    return (
        found.blinded_key == own.blinded_key
        and found.signing_key != own.signing_key
        and found.revision > own.revision
    )


def is_served_elsewhere(config: Config, address: str) -> bool:
    """While this tor serves: whether another one does, too, as far as a directory tells. Raises Unavailable."""
    found = fetch(config, address)
    with _connection(config) as connection:
        own = _own(connection, address)
    return found is not None and own is not None and is_anothers(found, own)


def fetch(config: Config, address: str) -> Descriptor | None:
    """What one of the network's directories has for the address. Raises Unavailable where none can be asked."""
    events: queue.SimpleQueue[str] = queue.SimpleQueue()
    deadline = time.monotonic() + FETCH_S
    with _connection(config, events) as connection:
        connection.ask("SETEVENTS HS_DESC_CONTENT")
        try:
            connection.ask(f"HSFETCH {address}")
        except TorRefused as error:
            raise Unavailable(f"tor does not look for {address}.onion: {error}") from error
        while (left_s := deadline - time.monotonic()) > 0:
            try:
                event = events.get(timeout=left_s)
            except queue.Empty:
                break
            if event == CLOSED:
                break
            if event.startswith(f"HS_DESC_CONTENT {address}"):
                return parse(event)
    raise Unavailable(f"no directory of the network was asked for {address}.onion within {FETCH_S:g} s")


def _own(connection: Connection, address: str) -> Descriptor | None:
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
