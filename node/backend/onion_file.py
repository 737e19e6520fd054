"""The file beside us in which lntor keeps an onion address, and what such an address has to look like."""

from functools import partial
from pathlib import Path

from node.errors import MalformedMessage, Refused
from node.runtime import logs
from node.runtime.addresses import join_address, kind_of, split_address
from node.runtime.runtime import Runtime
from node.wire.addresses import encode_address

MAX_SIZE = 200  # bytes: an address has 67

log = logs.get("onion")


class OnionFile:
    def __init__(self, runtime: Runtime, path: Path) -> None:
        self._runtime = runtime
        self._path = path
        self._complaint = ""
        self._looking = False

    async def look(self) -> str:
        """The address in it, or nothing."""
        if self._looking:
            return ""
        self._looking = True
        try:
            found = await self._runtime.run_blocking("onion file", partial(_read, self._path))
        except (OSError, Refused) as error:
            self._complain(error)
            return ""
        finally:
            self._looking = False
        self._complaint = ""
        return found

    def _complain(self, error: Exception) -> None:
        """Once for each cause."""
        complaint = getattr(error, "strerror", None) or str(error)
        if complaint != self._complaint:
            log.warning("no_onion_address", file=str(self._path), why=complaint, remedy="is lntor running?")
        self._complaint = complaint


def onion_address(text: str) -> str:
    """The v3 onion address and port in `text`, in the one form that we keep. Raises Refused."""
    remedy = "ADDRESS.onion:PORT is what `lntor address` prints"
    if kind_of(text) != "onion":
        raise Refused(f'"{text}" is no onion address; {remedy}')
    try:
        _, host, port = split_address(text)
        encode_address(host, port)
    except (Refused, MalformedMessage) as error:
        raise Refused(f"{error}; {remedy}") from error
    return join_address(host.lower(), port)


def _read(path: Path) -> str:
    """Raises OSError or Refused."""
    with path.open("rb") as file:
        return onion_address(file.read(MAX_SIZE).decode("ascii", "replace").strip())
