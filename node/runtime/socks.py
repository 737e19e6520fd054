"""Connections through a SOCKS5 proxy, which also resolves names: none is ever looked up here. Tor is such a proxy."""

import re
import socket

from msgspec import Struct

from node.errors import Refused
from node.runtime.addresses import split_address

# RFC 1928, and from 0xF0 on tor's own, which it sends where its SocksPort has the flag ExtendedErrors (tor's
# socks-extensions.txt).
REASONS = {
    0x01: "general failure: no circuit, or the other end refused",
    0x02: "its rules forbid it",
    0x03: "network unreachable",
    0x04: "host unreachable: the name does not resolve, or the onion service is not there",
    0x05: "connection refused",
    0x06: "no answer in time",
    0x07: "it knows no CONNECT",
    0x08: "it does not take this kind of address",
    0xF0: "onion service not found: it has no descriptor, so it is down or has never been",
    0xF1: "the onion service's descriptor is invalid",
    0xF2: "the onion service does not answer at its introduction points",
    0xF3: "no rendezvous with the onion service",
    0xF4: "the onion service asks for a client key, and this tor has none (ClientOnionAuthDir)",
    0xF5: "the onion service does not take this tor's client key",
    0xF6: "no valid onion address",
    0xF7: "the onion service's introduction points did not answer in time",
}
# python-socks gives the code of RFC 1928's errors; of others it says so.
UNKNOWN_CODE = re.compile(r"Invalid reply code: 0x([0-9a-f]{1,2})$", re.IGNORECASE)


class Proxy(Struct, frozen=True):
    """Where a SOCKS5 proxy is ("HOST:PORT"), and who asks: tor takes a circuit of its own for each user."""

    address: str
    user: str = ""
    password: str = ""


async def connect(proxy: Proxy, host: str, port: int) -> socket.socket:
    """A connected socket. Raises OSError that says why not, Refused for what is no host name."""
    # here, since only those who use a proxy need it
    from python_socks import (  # noqa: PLC0415 - as above
        ProxyConnectionError,
        ProxyError,
        ProxyType,
    )
    from python_socks.async_.asyncio import Proxy as Client  # noqa: PLC0415 - as above

    _, at, at_port = split_address(proxy.address)
    client = Client(ProxyType.SOCKS5, at, at_port, proxy.user or None, proxy.password or None, rdns=True)
    try:
        return await client.connect(host, port)
    except ProxyConnectionError as error:
        raise ConnectionRefusedError(f"no SOCKS proxy answers at {proxy.address}; is tor running?") from error
    except ProxyError as error:
        raise ConnectionRefusedError(f"the proxy at {proxy.address}: {_reason(error)}") from error
    except ValueError as error:  # a label that is empty or too long; or an answer that is not even text
        raise Refused(f"no host name, or no SOCKS proxy at {proxy.address}: {error}") from error


def _reason(error: Exception) -> str:
    code = getattr(error, "error_code", None)
    if code is None and (found := UNKNOWN_CODE.search(str(error))) is not None:
        code = int(found.group(1), 16)
    if code is None:
        return f"speaks no SOCKS5 with us: {error}" if str(error) else "closed the connection"
    return REASONS.get(code, f"error 0x{code:02x}")
