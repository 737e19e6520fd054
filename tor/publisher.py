"""Carries out what `publishing.step` decides: tells the backend of the address, off the loop."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from tor import backend, keyfile, publishing
from tor.config import Config
from tor.errors import Refused, Unavailable
from tor.offload import off_loop

END_S = 10.0  # systemd waits for ninety


class Publisher:
    """Of no effect where no backend is configured."""

    def __init__(
        self, config: Config, spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    ) -> None:
        self.state = publishing.State(config.service.announce)
        self._config = config
        self._spawn = spawn
        self._log = structlog.get_logger()

    def start(self) -> None:
        """What is not to be announced is taken back at once, also while tor is away."""
        service = self._config.service
        if service.announce or service.mode != "directory":
            return
        try:
            address = keyfile.address_in(Path(service.directory))
        except Refused:  # tor's connection will tell of it
            return
        if address is not None:
            self.serves(address)

    def serves(self, address: str) -> None:
        """The address of our service, without ".onion"."""
        self.post(publishing.Known(f"{address}.onion:{self._config.service.port}"))

    def post(self, event: publishing.Event) -> None:
        if not self._config.backend.apis:
            return
        self.state, effects = publishing.step(self.state, event, time.monotonic())
        for effect in effects:
            match effect:
                case publishing.Tell():
                    self._spawn(self._tell(effect))
                case _:
                    getattr(self._log, effect.level)(effect.event, **effect.facts)

    async def end(self) -> None:
        """A service that ends with lntor is nowhere to be reached: say so, once."""
        settings, state = self._config.backend, self.state
        if not settings.apis or not state.address or self._config.service.keep or not state.announce:
            return
        work = partial(backend.tell, settings, state.address, announce=False, first=state.api)
        try:
            await off_loop(work, END_S)
        except (Unavailable, TimeoutError) as error:
            why = str(error) or "the backend took too long"
            self._log.warning(
                "backend_not_told", why=why, then="it announces the address for ten minutes more"
            )

    async def _tell(self, effect: publishing.Tell) -> None:
        settings, address = self._config.backend, effect.address
        work = partial(backend.tell, settings, address, announce=effect.announce, first=effect.api)
        try:
            answer = await off_loop(work, backend.limit_s(settings))
        except (Unavailable, TimeoutError) as error:
            self.post(publishing.Failed(address, str(error) or "the backend took too long"))
        else:
            self.post(publishing.Told(address, answer.api, answer.announced))
