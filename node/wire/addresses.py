"""The addresses in a node_announcement: BOLT 7's address descriptors."""

import ipaddress
import re
from base64 import b32decode, b32encode
from hashlib import sha3_256
from typing import NamedTuple

from node.errors import MalformedMessage

IPV4, IPV6, ONION_V2, ONION_V3, NAME = 1, 2, 3, 4, 5
SIZES = {IPV4: 4, IPV6: 16, ONION_V2: 10, ONION_V3: 35}
MAX_ADDRESSES = 16  # of one node that we look at: strangers announce what they like
MAX_NAME = 255
ONION = ".onion"
ONION_VERSION = b"\x03"
_HOST_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")


class Address(NamedTuple):
    host: str
    port: int


def decode_addresses(descriptors: bytes) -> tuple[Address, ...]:
    """All that can be used; BOLT 7: from the first of unknown type on, nothing can."""
    found: list[Address] = []
    names = 0
    while descriptors and len(found) < MAX_ADDRESSES:
        kind = descriptors[0]
        start, size = (2, descriptors[1]) if kind == NAME and len(descriptors) > 1 else (1, SIZES.get(kind))
        if size is None or len(descriptors) < start + size + 2:
            break
        body, port = descriptors[start : start + size], descriptors[start + size : start + size + 2]
        names += kind == NAME
        host = _host(kind, body) if kind != NAME or names == 1 else None  # BOLT 7: no more than one
        if host is not None and any(port):
            found.append(Address(host, int.from_bytes(port, "big")))
        descriptors = descriptors[start + size + 2 :]
    return tuple(found)


def _host(kind: int, body: bytes) -> str | None:
    if kind in (IPV4, IPV6):
        return str(ipaddress.ip_address(body))
    if kind == ONION_V3:
        return b32encode(body).decode().lower() + ONION if _is_onion_v3(body) else None
    if kind == NAME:
        name = body.decode("ascii", "replace")
        return name if _HOST_NAME.fullmatch(name) else None
    return None


def encode_address(host: str, port: int) -> bytes:
    """The descriptor of an IP address, a v3 onion address or a host name. Raises MalformedMessage."""
    if not port:
        raise MalformedMessage("port 0 can't be reached")
    end = port.to_bytes(2, "big")
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return _encode_name(host) + end
    return bytes((IPV4 if ip.version == 4 else IPV6,)) + ip.packed + end


def _encode_name(host: str) -> bytes:
    if host.lower().endswith(ONION):
        return bytes((ONION_V3,)) + onion_key(host)
    if not _HOST_NAME.fullmatch(host) or len(host) > MAX_NAME:
        raise MalformedMessage(f'"{host}" is no host name')
    return bytes((NAME, len(host))) + host.encode()


def onion_key(host: str) -> bytes:
    """The 35 bytes that a v3 onion address is made of. Raises MalformedMessage."""
    label = host.lower().removesuffix(ONION)
    try:
        body = b32decode(label.upper())
    except ValueError as error:
        raise MalformedMessage(f'"{host}" is no onion address') from error
    if not _is_onion_v3(body):
        raise MalformedMessage(f'"{host}" is no v3 onion address, or has a typing error')
    return body


def _is_onion_v3(body: bytes) -> bool:
    """Tor's rend-spec-v3: public key, checksum, version."""
    if len(body) != SIZES[ONION_V3]:
        return False
    key, checksum, version = body[:32], body[32:34], body[34:]
    return version == ONION_VERSION and checksum == sha3_256(b".onion checksum" + key + version).digest()[:2]
