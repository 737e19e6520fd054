"""The watch over a key that is served: has the network asked now and then, and says what `ours` makes of the answers."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, assert_never

import structlog

from tor import keeper, ours
from tor.config import Config
from tor.descriptor import Answer, Descriptor
from tor.elsewhere import FETCH_S, ask, shown
from tor.errors import Refused, Unavailable
from tor.ours import Ours, Verdict

MAX_ASKED = 3  # at once: an answer may say that clients ask for the other period

OffLoop = Callable[[Callable[[], Any], float], Awaitable[Any]]


class KeyWatch:
    """Mutable; one for the life of an lntor, in its loop."""

    def __init__(self, config: Config, off_loop: OffLoop) -> None:
        self._config = config
        self._off_loop = off_loop
        self._ours = Ours()
        self._wake = asyncio.Event()
        self._log = structlog.get_logger()

    def hear(self, text: str) -> None:
        """An event HS_DESC of our service."""
        event = ours.heard(text)
        if event is None:
            return
        before, self._ours = self._ours, ours.hear(self._ours, event)
        if ours.to_learn(self._ours) is not None and ours.to_learn(before) is None:
            self._wake.set()

    def forget(self) -> None:
        """The control connection has gone, and perhaps its tor."""
        self._ours = ours.forgotten(self._ours)

    async def run(self, address: Callable[[], str], post: Callable[[keeper.Event], None]) -> None:
        """`address` is empty while nothing is served."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.service.watch_key_s):
                    await self._wake.wait()
            self._wake.clear()
            for _ in range(MAX_ASKED):
                if not address():
                    break
                self._post(await self._look(address()), post)
                if ours.to_learn(self._ours) is None:
                    break

    async def _look(self, address: str) -> Verdict:
        asked, directory = self._ours, ours.where(self._ours)
        try:
            answer, own = await self._off_loop(partial(self._asked, address, directory), FETCH_S)
        except (Unavailable, Refused, TimeoutError) as error:
            self._log.debug("key_not_watched", why=str(error))
            if directory:
                self._ours = ours.without(self._ours, directory)
            return Verdict.UNKNOWN
        self._ours, verdict = ours.judged(self._ours, asked, answer, own)
        return verdict

    def _asked(self, address: str, directory: str) -> tuple[Answer, Descriptor | None]:
        return ask(self._config, address, directory), shown(self._config, address)

    def _post(self, verdict: Verdict, post: Callable[[keeper.Event], None]) -> None:
        match verdict:
            case Verdict.UNKNOWN:
                return
            case Verdict.OURS:
                post(keeper.Compared())
            case Verdict.ANOTHERS:
                post(keeper.Compared())
                post(keeper.Elsewhere())
            case _:
                assert_never(verdict)
