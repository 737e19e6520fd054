"""The trace of a world: one line for everything that one process of it notices of another, in a hash and in a file."""

from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from zlib import crc32


class Trace:
    """Two runs of one seed have one `digest`; where they differ, the first differing lines of their files say where."""

    def __init__(self, now: Callable[[], float], path: Path | None = None) -> None:
        self._now = now
        self._hash = blake2b(digest_size=16)
        self._file = None if path is None else path.open("wb")
        self.lines = 0

    def note(self, source: str, target: str, kind: str, data: bytes = b"") -> None:
        """`data` counts with its length and a checksum."""
        line = b"%.9f %s %s %s %d %08x\n" % (
            self._now(),
            source.encode(),
            target.encode(),
            kind.encode(),
            len(data),
            crc32(data),
        )
        self._hash.update(line)
        self.lines += 1
        if self._file is not None:
            self._file.write(line)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
