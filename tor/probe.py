"""Is a frontend there? Connecting to it, or asking its readiness URL, within a time limit."""

import asyncio
import os

from tor.config import Target, split_address, split_url

MAX_STATUS_LINE = 256


async def probe(target: Target, timeout_s: float) -> tuple[bool, str]:
    """Whether the target may be given connections, and why not. Never raises for what a network does."""
    try:
        async with asyncio.timeout(timeout_s):
            if target.health:
                return await _ask(target.health)
            _, writer = await _connect(target.address)
            writer.close()
            return True, ""
    except TimeoutError:
        return False, f"no answer within {timeout_s:g} s"
    except OSError as error:
        return False, os.strerror(error.errno) if error.errno else str(error)


async def _connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if address.startswith("unix:"):
        return await asyncio.open_unix_connection(address.removeprefix("unix:"))
    host, port = split_address(address, "target")
    return await asyncio.open_connection(host, port)


async def _ask(url: str) -> tuple[bool, str]:
    host, port, path = split_url(url, "health")
    reader, writer = await asyncio.open_connection(host, port, limit=MAX_STATUS_LINE)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        try:
            words = (await reader.readline()).split(maxsplit=2)
        except ValueError:
            words = []
    finally:
        writer.close()
    if len(words) < 2 or not words[0].startswith(b"HTTP/"):
        return False, "the health URL does not speak HTTP"
    return words[1] == b"200", "" if words[
        1
    ] == b"200" else f"the health URL answers {words[1][:8].decode(errors='replace')}"
