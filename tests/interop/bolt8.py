"""Bare BOLT 8 peers of other libraries, in both roles: one connection each, init, pings, and what they saw of it."""

import json
from contextlib import asynccontextmanager

from msgspec import Struct
from processes import HERE, WHERE, Child, require

COMMANDS = {
    "pyln": (WHERE["pyln"], HERE / "pyln_bolt8.py"),
    "noise": ("node", HERE / "ldk/bolt8.mjs"),
}
# @node-dlc/noise keeps one chaining key for both directions, so it loses step at the second key change.
MAX_PINGS = {"pyln": 600, "noise": 400}


class Seen(Struct, frozen=True):
    """How the conversation went, from the other library's end."""

    node_id: str  # its own
    peer: str  # whom it has authenticated
    init: str  # the init message that it got, in hex
    pongs: int
    pings_answered: int
    other_types: tuple[int, ...]


class Listening(Struct, frozen=True):
    node_id: str
    port: int


async def dial(library: str, node_id: str, host: str, port: int, pings: int = 3) -> Seen:
    """Have the library connect to that node, exchange init and so many pings."""
    async with _running(library, "connect", node_id, host, port, pings) as read:
        return read(await read.line(), Seen)


@asynccontextmanager
async def listen(library: str, pings: int = 3):
    """A node of the library for one connection: yields (Listening, a coroutine function giving what it saw)."""
    async with _running(library, "listen", 0, pings) as read:
        listening = read(await read.line(), Listening)

        async def seen() -> Seen:
            return read(await read.line(), Seen)

        yield listening, seen


class _Reader:
    def __init__(self, child: Child) -> None:
        self._child = child

    async def line(self) -> dict:
        return json.loads(await self._child.process.stdout.readline() or b"{}")

    def __call__(self, fields: dict, kind: type):
        if set(fields) != set(kind.__struct_fields__):
            raise AssertionError(f"{self._child.name}: {fields} {self._child.log.read_text()[-1000:]}")
        if kind is Seen:
            fields["other_types"] = tuple(fields["other_types"])
        return kind(**fields)


@asynccontextmanager
async def _running(library: str, *arguments: object):
    require(library)
    child = Child(f"bolt8-{library}")
    try:
        await child.start(*COMMANDS[library], *(str(a) for a in arguments), stdin=True)
        yield _Reader(child)
    finally:
        await child.end(lambda process: process.terminate())
