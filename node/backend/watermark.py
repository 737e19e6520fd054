"""How far the database had come, noted outside of it: an older copy put in its place is found out at the start."""

from pathlib import Path

import msgspec

from node.backend.identity import write_durably
from node.backend.store import Position
from node.errors import Ended, Refused

FILE = "watermark"

WARNING = (
    "what this node has signed and revoked since is not in it, and a peer whose channel is closed from such an old "
    "state may take all of it. Put the newest copy back; only if there is none, start once with "
    "--accept-older-database: then no channel is closed by us before its peer has shown where it stands"
)


class Mark(msgspec.Struct, frozen=True):
    """Written after what it names is durable, so a sound database is never behind it."""

    node_id: str
    epoch: int
    commits: int


class Watermark:
    """A small file beside the seed."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._noted: Mark | None = None

    def vouches(self, found: Position) -> bool:
        """Whether there is a note, and the database is not behind it."""
        mark = self._read()
        return mark is not None and not _is_older(found, mark)

    def check(self, found: Position) -> None:
        """Raises Refused for an older copy."""
        mark = self._read()
        if mark is not None and _is_older(found, mark):
            raise Refused(
                f"the database is an older copy: it ends with term {found.epoch} and transaction {found.commits}, "
                f"{self._path} knows of term {mark.epoch} and transaction {mark.commits}; {WARNING}"
            )

    def _read(self) -> Mark | None:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Mark)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            raise Refused(f"{self._path}: {error}; remove it if the database is surely the newest") from error

    def note(self, node_id: bytes, position: Position) -> None:
        """Only what is durable, and only if there is news. Raises Ended; the note before it stays, which is older."""
        mark = Mark(node_id.hex(), position.epoch, position.commits)
        if mark != self._noted:
            try:
                write_durably(self._path, msgspec.json.encode(mark) + b"\n")
            except OSError as error:
                raise Ended(
                    f"{self._path}: {error.strerror}; nothing is lost: make room, then start the backend again"
                ) from error
            self._noted = mark


def _is_older(found: Position, mark: Mark) -> bool:
    """In either count: a term may begin without a transaction, so a new one alone says nothing."""
    return found.epoch < mark.epoch or found.commits < mark.commits
