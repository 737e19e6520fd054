"""The onion addresses that lntor tells of, by the API or by a file beside us: announced until it takes them back."""

from pathlib import Path

from node.backend.journal import Journal
from node.backend.onion_file import OnionFile, onion_address
from node.backend.store import PUT_META, Store
from node.errors import Refused
from node.runtime import logs
from node.runtime.runtime import Runtime
from node.runtime.tor_config import TorConfig

GONE_AFTER_S = 600.0  # lntor or its host being restarted is not worth two announcements to the whole network
MAX_ONIONS = 4  # several tors, each with its own; a tor host that was taken over fills no announcement
MAX_CHANGES = 8  # at once, then one every CHANGE_EVERY_S: each is written, and heard by the whole network
CHANGE_EVERY_S = 60.0
STORED = "onions"

log = logs.get("onion")


class Onions:
    """One list, whoever told of an address; it outlives the process, and is the next leader's too."""

    def __init__(self, runtime: Runtime, journal: Journal, config: TorConfig) -> None:
        self._runtime = runtime
        self._journal = journal
        self._announce = config.announce
        self._file = (
            OnionFile(runtime, Path(config.address_file).expanduser()) if config.address_file else None
        )
        self._filed = ""  # what the file held last
        self._heard_s: dict[str, float] = {}  # when each was last told of
        self._counted_s = 0.0  # each change takes CHANGE_EVERY_S; until when they have taken it

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(self._heard_s)

    @property
    def is_due(self) -> bool:
        """Whether there is anything to look at."""
        return bool(self._heard_s) or (self._announce and self._file is not None)

    def load(self, store: Store) -> None:
        """What was announced before holds, as if it had just been heard: lntor says so again, or it goes in time."""
        stored = (store.meta(STORED) or b"").decode().split()
        if self._announce:
            self._heard_s = dict.fromkeys(stored, self._runtime.monotonic())
        elif stored:
            self._keep()

    def hear(self, text: str) -> bool:
        """Whether `addresses` has changed. Raises Refused."""
        address = onion_address(text)
        self.check(announce=True)
        is_new = address not in self._heard_s
        if is_new and len(self._heard_s) >= MAX_ONIONS:
            raise Refused(
                f"{MAX_ONIONS} others are announced already; end an lntor, or wait {GONE_AFTER_S:g} s after its end"
            )
        if is_new:
            self._count()
        self._heard_s[address] = self._runtime.monotonic()
        if is_new:
            log.info("onion_address", address=address)
            self._keep()
        return is_new

    def check(self, *, announce: bool) -> None:
        """Raises Refused where nothing may be announced."""
        if announce and not self._announce:
            raise Refused(
                "tor.announce is false at the backend; set it to true there, and restart the backend"
            )

    def withdraw(self, text: str) -> bool:
        """Whether `addresses` has changed; what the file holds stays. Raises Refused."""
        address = onion_address(text)
        if address == self._filed or address not in self._heard_s:
            return False
        self._count()
        return self._drop(address, "taken back")

    async def look(self) -> bool:
        """Now and then: at the file, and for what has not been heard of for long. Whether `addresses` has changed."""
        changed = False
        if self._file is not None and self._announce:
            changed = self._heard_of_file(await self._file.look())
        oldest_s = self._runtime.monotonic() - GONE_AFTER_S
        gone = [address for address, heard_s in self._heard_s.items() if heard_s < oldest_s]
        for address in gone:
            self._drop(address, f"not heard of for {GONE_AFTER_S:g} s")
        return changed or bool(gone)

    def _heard_of_file(self, found: str) -> bool:
        if not found:
            return False
        before, self._filed = self._filed, found
        replaced = before not in ("", found) and self._drop(before, "replaced")
        try:
            return self.hear(found) or replaced
        except Refused as error:
            if found != before:
                log.warning("no_onion_address", address=found, why=str(error))
            return replaced

    def _count(self) -> None:
        """One change more. Raises Refused, and lntor asks again: what it says then holds."""
        now_s = self._runtime.monotonic()
        if self._counted_s > now_s + (MAX_CHANGES - 1) * CHANGE_EVERY_S:
            raise Refused(
                "changed too often; tried again by itself: does an lntor start and end all the time, or has somebody "
                "else its password?"
            )
        self._counted_s = max(self._counted_s, now_s) + CHANGE_EVERY_S

    def _drop(self, address: str, why: str) -> bool:
        if self._heard_s.pop(address, None) is None:
            return False
        if address == self._filed:
            self._filed = ""
        log.info("onion_address_gone", address=address, why=why)
        self._keep()
        return True

    def _keep(self) -> None:
        self._journal.write(PUT_META, STORED, " ".join(self._heard_s).encode())
