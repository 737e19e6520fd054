"""The onion address that lntor keeps in a file beside us: announced while it is there."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from node.errors import MalformedMessage, Refused
from node.runtime import logs
from node.runtime.addresses import kind_of, split_address
from node.runtime.runtime import Runtime
from node.runtime.tor_config import TorConfig
from node.wire.addresses import encode_address

GONE_AFTER_S = 600.0  # lntor or its host being restarted is not worth two announcements to the whole network
MAX_SIZE = 200  # bytes: an address has 67

log = logs.get("onion")


class OnionFile:
    def __init__(self, runtime: Runtime, config: TorConfig) -> None:
        self._runtime = runtime
        self._path = (
            Path(config.address_file).expanduser() if config.address_file and config.announce else None
        )
        self._seen_s = runtime.monotonic()
        self._complaint = ""
        self._looking = False
        self.address = ""

    @property
    def is_watched(self) -> bool:
        return self._path is not None

    def resume(self, announced: Iterable[str]) -> None:
        """After a restart: the onion address among those that we last announced holds until the file is gone for long."""
        if self._path is not None:
            self.address = next((each for each in announced if kind_of(each) == "onion"), "")

    async def look(self) -> bool:
        """Whether `address` has changed."""
        if self._path is None or self._looking:
            return False
        self._looking = True
        try:
            found = await self._runtime.run_blocking("onion file", partial(_read, self._path))
            self._seen_s, self._complaint = self._runtime.monotonic(), ""
        except (OSError, MalformedMessage, Refused) as error:
            self._complain(error)
            found = self.address if self._runtime.monotonic() - self._seen_s < GONE_AFTER_S else ""
        finally:
            self._looking = False
        changed = found != self.address
        if changed:
            log.info("onion_address", address=found or None, before=self.address or None)
        self.address = found
        return changed

    def _complain(self, error: Exception) -> None:
        """Once for each cause."""
        complaint = getattr(error, "strerror", None) or str(error)
        if complaint != self._complaint:
            log.warning("no_onion_address", file=str(self._path), why=complaint, remedy="is lntor running?")
        self._complaint = complaint


def _read(path: Path) -> str:
    """Raises OSError, MalformedMessage or Refused."""
    with path.open("rb") as file:
        address = file.read(MAX_SIZE).decode("ascii", "replace").strip()
    if kind_of(address) != "onion":
        raise Refused("holds no onion address")
    encode_address(*split_address(address)[1:])
    return address.lower()
