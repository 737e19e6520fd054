"""The running lntor: carries out what the keeper decides, and tells it what happens. The shell around `keeper.step`."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from tor import admin, keeper, keyfile, newcomer, service, status
from tor.config import Config, Target, load
from tor.control import CLOSED, Connection
from tor.errors import Refused, Unavailable
from tor.offload import off_loop
from tor.probe import probe
from tor.publisher import Publisher
from tor.publishing import Tick as PublisherTick
from tor.watch import KeyWatch

TICK_S = 0.25
MAX_ASKS = 8  # questions to tor in one piece of work, each with its own limit


class Server:
    """One service, from start to stop. `await run(stop)` returns once `stop` is set; Refused comes out of it at once."""

    def __init__(self, config: Config, path: Path) -> None:
        self.config = config
        self.state = keeper.new_state(rules(config), config.targets)
        self._path = path
        self._log = structlog.get_logger()
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._was_connected = False
        self._newcomer = newcomer.Newcomer(config)
        self._key_watch = KeyWatch(config, self._off_loop)
        self.publisher = Publisher(config, self._spawn)

    async def run(self, stop: asyncio.Event, ready: Callable[[], None] = lambda: None) -> None:
        holder = self._hold_key()
        endpoints = self._endpoints()
        try:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)
            self._announce(None)
            self.publisher.start()
            for endpoint in endpoints:
                endpoint.start()
            self._watch_targets()
            self._spawn(self._keep_connected())
            self._spawn(self._tick())
            if self.config.service.watch_key_s:
                self._spawn(self._key_watch.run(self._served_address, self.post))
            ready()
            stopped = asyncio.ensure_future(stop.wait())
            stopped.add_done_callback(self._stopped)
            await self._failure
        finally:
            await self._end(endpoints)
            admin.remove(self.config.admin.socket)
            holder.close()

    def post(self, event: keeper.Event) -> None:
        self.state, effects = keeper.step(self.state, event, time.monotonic())
        for effect in effects:
            match effect:
                case keeper.Note(level, name, facts):
                    getattr(self._log, level)(name, **facts)
                case keeper.Announce(address):
                    self._announce(address)
                    self.publisher.serves(address)
                case keeper.Apply():
                    self._spawn(self._apply(effect))

    def picture(self) -> dict[str, Any]:
        return status.status(self.state, self.config, time.monotonic(), self.publisher.state)

    def drain(self, address: str, on: bool) -> None:
        if address not in {target.address for target in self.state.targets}:
            known = ", ".join(target.address for target in self.state.targets)
            raise Refused(f'"{address}" is no target of this service; there are {known}')
        self.post(keeper.Drain(address, on))

    def _hold_key(self) -> Any:
        """Nobody else on this host serves our key, and it is sound."""
        settings = self.config.service
        place = Path(settings.directory if settings.mode == "directory" else settings.key_file)
        try:
            holder = keyfile.lock(place.with_name(f"{place.name}.lock"))
        except Unavailable as error:
            raise Refused(str(error)) from error
        try:
            if settings.mode == "directory":
                keyfile.check_directory(place)
            else:
                keyfile.read_key(place)
        except Refused:
            holder.close()
            raise
        return holder

    def _endpoints(self) -> list[admin.Endpoint]:
        registry = CollectorRegistry()
        registry.register(status.Metrics(self))
        full = admin.application(self.picture, self.drain, registry)
        endpoints = [admin.Endpoint(full, admin.listen_unix(Path(self.config.admin.socket)))]
        if self.config.admin.metrics:
            listening = admin.listen_tcp(self.config.admin.metrics)
            endpoints.append(admin.Endpoint(admin.metrics_application(registry), listening))
        return endpoints

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._failure.done():
            self._failure.set_exception(error)

    def _stopped(self, _: object) -> None:
        if not self._failure.done():
            self._failure.set_result(None)

    async def _end(self, endpoints: list[admin.Endpoint]) -> None:
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for endpoint in endpoints:
            await endpoint.stop()
        await self.publisher.end()
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                if not self.config.service.keep:
                    self._announce(None)
                    await self._off_loop(partial(service.take_away, connection, self.config.service))
            except (Unavailable, TimeoutError) as error:
                self._log.warning("not_taken_away", why=str(error))
            connection.close()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.post(keeper.Tick())
            self.publisher.post(PublisherTick())

    def _reload(self) -> None:
        """SIGHUP: the targets of the configuration file; all else stays until a restart."""
        try:
            fresh = load(self._path)
        except Refused as error:
            self._log.error("not_reloaded", why=str(error))
            return
        self.config = _with_targets(self.config, fresh.targets)
        if fresh != self.config:
            self._log.warning("reloaded_targets_only", why="other changes take a restart of lntor")
        self.post(keeper.Retarget(fresh.targets))
        self._watch_targets()

    def _watch_targets(self) -> None:
        wanted = {target.address: target for target in self.config.targets}
        for task in self._probes.values():
            task.cancel()
        self._probes = {address: self._spawn(self._watch(target)) for address, target in wanted.items()}

    async def _watch(self, target: Target) -> None:
        rules = self.config.check
        while True:
            ok, detail = await probe(target, rules.timeout_s)
            self.post(keeper.Probed(target.address, ok, detail))
            await asyncio.sleep(rules.interval_s)

    async def _keep_connected(self) -> None:
        while True:
            try:
                await self._attend()
            except (Unavailable, TimeoutError) as error:
                self._lose(str(error) or "tor took too long")
            except Refused as error:
                if not self._was_connected:
                    raise
                self._lose(str(error))
            await asyncio.sleep(self.config.control.retry_s)

    def _lose(self, why: str) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._key_watch.forget()
        self.post(keeper.Lost(why))

    async def _attend(self) -> None:
        """Connect, and ask tor again and again what it has, at once when it says that something changed."""
        loop = asyncio.get_running_loop()

        def told(text: str) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended before tor's last event
                loop.call_soon_threadsafe(self._told, text)

        connection = await self._off_loop(partial(service.connect, self.config, told))
        self._connection = connection
        self._was_connected = True
        self.post(keeper.Connected(connection.tor_version))
        while True:
            self._wake.clear()
            await self._look(connection)
            try:
                async with asyncio.timeout(self.config.control.watch_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _look(self, connection: Connection) -> None:
        settings = self.config.service
        async with self._turn:
            term = self.state.term
            work = partial(service.seen, connection, settings, self.state.address)
            ports, circuits = await self._off_loop(work)
            if settings.mode == "ephemeral" and ports is not None:
                ports = self.state.serving  # tor does not tell the ports of an ephemeral service
            self.post(keeper.Seen(term, ports, circuits))

    async def _apply(self, effect: keeper.Apply) -> None:
        connection = self._connection
        if connection is None:
            return
        work = partial(service.apply, connection, self.config.service, effect.ports, replaces=effect.replaces)
        try:
            await self._off_loop(partial(self._newcomer.admit, connection), newcomer.LIMIT_S)
            async with self._turn:
                address = await self._off_loop(work)
        except (Unavailable, Refused, TimeoutError) as error:
            if isinstance(error, newcomer.ServedElsewhere):
                self.post(keeper.Elsewhere())
            self.post(keeper.Failed(effect.term, str(error) or "tor took too long"))
        else:
            self.post(keeper.Applied(effect.term, effect.ports, address))

    def _served_address(self) -> str:
        return self.state.address if self.state.serving is not None else ""

    async def _off_loop(self, work: Callable[[], Any], more_s: float = 0.0) -> Any:
        return await off_loop(work, MAX_ASKS * self.config.control.timeout_s + more_s)

    def _told(self, text: str) -> None:
        """An event of tor."""
        if text == CLOSED:
            self._wake.set()
            return
        words = text.split()
        if words[0] != "HS_DESC":
            self._wake.set()
            return
        if len(words) > 2 and words[2] == self.state.address:
            self._key_watch.hear(text)
        if len(words) > 2 and (words[1] == "UPLOADED" or "REASON=UPLOAD_REJECTED" in words):
            self.post(keeper.Published(words[2], words[1] == "UPLOADED"))
            if words[1] == "UPLOADED" and words[2] == self.state.address:
                self._note_served()

    def _note_served(self) -> None:
        try:
            self._newcomer.published(self.state.address)
        except Refused as error:
            self._log.error("not_remembered", why=str(error))

    def _announce(self, address: str | None) -> None:
        """Have the file of the announced address say so: the backend reads it there."""
        settings = self.config.service
        if not settings.address_file:
            return
        path = Path(settings.address_file)
        try:
            if settings.announce and address is not None:
                keyfile.write_atomically(path, f"{address}.onion:{settings.port}\n".encode(), 0o644)
            elif not settings.announce or not settings.keep:
                path.unlink(missing_ok=True)
        except (OSError, Refused) as error:
            self._log.error("address_file", path=str(path), why=str(error))


def rules(config: Config) -> keeper.Rules:
    replace_s = config.service.replace_s if config.service.mode == "ephemeral" else 0.0
    return keeper.Rules(config.service.port, config.check.rise, config.check.fall, replace_s)


def _with_targets(config: Config, targets: tuple[Target, ...]) -> Config:
    return replace(config, targets=targets)
