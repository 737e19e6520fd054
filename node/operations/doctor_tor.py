"""The doctor's look at what a node has to do with Tor: the SOCKS proxy, and the file with its onion address."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from node.operations.finding import Finding, bad, good, warn
from node.runtime.addresses import split_address
from node.runtime.tor_config import TorConfig

GREETING = b"\x05\x02\x00\x02"  # SOCKS5, without authentication or with a name and a password
TIMEOUT_S = 3.0


async def socks(field: str, address: str, *, elsewhere: bool) -> AsyncIterator[Finding]:
    """`elsewhere`: the frontends that use it may be on other hosts."""
    if not address:
        return
    why = await _no_proxy(address)
    if why is None:
        yield good(f"{field}: a SOCKS proxy answers at {address}")
    elif elsewhere:
        yield warn(f"{field}: {address}: {why}", "right if frontends are on other hosts, and tor is there")
    else:
        yield bad(f"{field}: {address}: {why}", "start tor, or mend the address (torrc: SocksPort)")


async def _no_proxy(address: str) -> str | None:
    _, host, port = split_address(address)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(GREETING)
                answer = await reader.readexactly(2)
            finally:
                writer.close()
    except asyncio.IncompleteReadError:
        return "speaks no SOCKS5"
    except (OSError, TimeoutError) as error:
        return getattr(error, "strerror", None) or str(error) or "no answer in time"
    return None if answer[:1] == GREETING[:1] else "speaks no SOCKS5"


def address_file(config: TorConfig) -> Iterator[Finding]:
    if not config.address_file:
        return
    path = Path(config.address_file).expanduser()
    try:
        address = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        yield warn(
            f"tor.address_file: {path}: {getattr(error, 'strerror', None) or error}",
            "is lntor running, with service.address_file, and may this user read it?",
        )
        return
    said = "announced" if config.announce else "not announced (tor.announce)"
    yield good(f"tor.address_file: {address or 'empty'}, {said}")
