"""Where a demo or a run lives: one directory that is gone afterwards; a demo's has a socket for commands from elsewhere."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil

DEMO = "demo"
TEMPORARY = Path(tempfile.gettempdir())
MAX_REQUEST_BYTES = 4_096
ANSWER_TIMEOUT_S = 10.0
MAX_SOCKET_PATH = 70  # what a Unix socket's 107 bytes leave for the directory

Command = dict[str, Any]


class NoDemo(Exception):  # noqa: N818 - a fact, told to the user
    """No demo of this user is running."""


def _prefix(kind: str) -> str:
    return f"lnsim-{kind}-{os.getuid()}-"


def make_place(kind: str = DEMO) -> Path:
    """A directory of our own, named by user and process; what dead ones of its kind left is removed first."""
    for old in _places(kind):
        if not psutil.pid_exists(_pid(old)):
            shutil.rmtree(old, ignore_errors=True)
    place = TEMPORARY / f"{_prefix(kind)}{os.getpid()}"
    if len(str(place)) > MAX_SOCKET_PATH:
        place = Path("/tmp") / place.name  # noqa: S108 - made here, readable by us alone
    place.mkdir(mode=0o700)
    return place


def remove_place(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)


def _places(kind: str) -> list[Path]:
    """Newest first; only directories that belong to this user."""
    roots = {TEMPORARY, Path("/tmp")}  # noqa: S108 - see make_place
    found = [path for root in roots for path in root.glob(f"{_prefix(kind)}*") if _pid(path)]
    own = [path for path in found if not path.is_symlink() and path.stat().st_uid == os.getuid()]
    return sorted(own, key=lambda path: path.stat().st_mtime, reverse=True)


def _pid(place: Path) -> int:
    text = place.name.rpartition("-")[2]
    return int(text) if text.isdigit() else 0


async def listen(place: Path, obey: Callable[[Command], Awaitable[Command]]) -> asyncio.Server:
    """Answer commands of other terminals of the same user."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer = await obey(msgspec.json.decode(await reader.readline(), type=Command))
        except (msgspec.DecodeError, ValueError) as error:
            answer = {"error": str(error)}
        writer.write(msgspec.json.encode(answer) + b"\n")
        writer.close()

    path = place / "control.sock"
    return await asyncio.start_unix_server(serve, path, limit=MAX_REQUEST_BYTES)


async def tell(command: Command) -> Command:
    """Send a command to the newest demo of this user. Raises NoDemo."""
    for place in _places(DEMO):
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                reader, writer = await asyncio.open_unix_connection(place / "control.sock")
                writer.write(msgspec.json.encode(command) + b"\n")
                answer = msgspec.json.decode(await reader.readline(), type=Command)
                writer.close()
                return answer
        except (OSError, TimeoutError, msgspec.DecodeError):
            continue
    raise NoDemo("no demo is running; start one with `lnsim demo` in another terminal")
