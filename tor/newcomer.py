"""A key's first start on this host: it is published only once nobody else demonstrably serves it.

Demonstrably: a descriptor is in the network, and somebody answers at the address while we do not serve it. A descriptor
alone says nothing, for it stays three hours after its service has gone. A key that was published from this host before
is published again without a question: what restarts must come back at once, by itself.
"""

from pathlib import Path

from tor import keyfile, plan
from tor.config import Config
from tor.control import Connection
from tor.elsewhere import DIAL_S, DIALS, FETCH_S, answers, ask
from tor.errors import Unavailable

# A tor that is not connected to its network yet can't ask; one that never is can't serve either, and harms nobody.
MAX_ASKED = 5
LIMIT_S = FETCH_S + DIALS * DIAL_S


class ServedElsewhere(Unavailable):
    """Another tor answers for the address."""


class Newcomer:
    """Mutable; one for the life of an lntor. Blocking."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._place = Path(config.service.directory)
        # tor alone tells the address of a key file; an ephemeral service has one only once it is published.
        self._admitted = config.service.mode != "directory"
        self._noted = ""
        self._met = False
        self._asked = 0

    def admit(self, connection: Connection) -> None:
        """Raises ServedElsewhere while another tor answers, Unavailable while that can't be asked yet."""
        if not self._admitted:
            self._meet(connection)
            self._admitted = True

    def _meet(self, connection: Connection) -> None:
        address = keyfile.address_in(self._place)
        if address is None or keyfile.has_served(self._place, address):
            return
        options = connection.get_conf("HiddenServiceOptions")
        if plan.ports_of(options, self._config.service.directory) is not None:
            return  # its torrc has it, so it was published already
        if (self._met or self._is_published(address)) and answers(self._config, address):
            self._met = True
            raise ServedElsewhere(
                f"{address}.onion is served by another tor, which answers; end lntor and tor there, or give this host "
                "a key of its own; it will be tried again"
            )

    def _is_published(self, address: str) -> bool:
        self._asked += 1
        try:
            return ask(self._config, address).found is not None
        except Unavailable:
            if self._asked < MAX_ASKED:
                raise
            return False

    def published(self, address: str) -> None:
        """Published it has been, so from now on it comes back without a question."""
        if self._config.service.mode == "directory" and address != self._noted:
            self._noted = address
            keyfile.note_served(self._place, address)
