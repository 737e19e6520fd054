"""The API of the node under test: its commands run within its process, and are lost with it."""

import asyncio
import random
from typing import Any

import msgspec

from lnsim.api_client import CALL_TIMEOUT_S, CallFailed, Unreachable
from lnsim.world.service import Service
from lnsim.world.trace import Trace
from node.backend.backend import Backend
from node.backend.commands import CALLS
from node.errors import Refused

LATENCY_S = (0.000_2, 0.002)  # each way
CALLER = "api"


class Hub:
    """A `lnsim.api_client.Node`; arguments and answers are plain data, as over HTTP."""

    def __init__(self, service: Service, trace: Trace, chance: random.Random) -> None:
        self.backend: Backend | None = None  # of the life that is up
        self._service = service
        self._trace = trace
        self._random = chance
        self._waiting: dict[asyncio.Future[Any], None] = {}
        service.ended.append(self._lost)

    async def call(self, name: str, **arguments: Any) -> Any:
        """Raises CallFailed with the node's words, Unreachable where nobody answers."""
        await asyncio.sleep(self._random.uniform(*LATENCY_S))
        runtime = self._service.runtime
        if runtime is None or self.backend is None or not self._service.up.is_set():
            raise Unreachable(f"backend/{name}: connection refused")
        body = msgspec.json.encode(arguments)
        self._trace.note(CALLER, self._service.name, name, body)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[answer] = None
        runtime.process.spawn(_answer(self.backend, name, msgspec.json.decode(body), answer), f"api {name}")
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                result = await answer
                await asyncio.sleep(self._random.uniform(*LATENCY_S))
        except TimeoutError as error:
            raise Unreachable(f"backend/{name}: no answer within {CALL_TIMEOUT_S:g} s") from error
        finally:
            del self._waiting[answer]
        return result

    def _lost(self) -> None:
        self.backend = None
        for answer in self._waiting:
            if not answer.done():
                answer.set_exception(Unreachable("backend: connection reset"))


async def _answer(
    backend: Backend, name: str, arguments: dict[str, Any], answer: "asyncio.Future[Any]"
) -> None:
    """Within the backend's process; says what its API would say."""
    try:
        found = await _outcome(backend, name, arguments)
    except (Refused, TypeError) as error:
        _settle(answer, CallFailed(str(error)))
    except Exception:
        _settle(answer, CallFailed("internal error, see the log"))
        raise  # to the loop's handler, which is told of tasks that failed unseen
    else:
        _settle(answer, found)


async def _outcome(backend: Backend, name: str, arguments: dict[str, Any]) -> Any:
    if name not in CALLS:
        raise Refused(f"no such call; there are: {', '.join(CALLS)}")
    return msgspec.json.decode(msgspec.json.encode(await getattr(backend.commands, name)(**arguments)))


def _settle(answer: "asyncio.Future[Any]", outcome: Any) -> None:
    if answer.done():
        return
    if isinstance(outcome, CallFailed):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)
