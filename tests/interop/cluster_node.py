"""Our own node as the tests meet it: one backend and two frontends, each a process, on the tests' chain."""

import asyncio
import json
import signal
import sys
import tempfile
from pathlib import Path

import aiohttp
import yaml
from chain_rpc import JsonRpc
from ports import free_port
from processes import until

START_S = 30
STOP_S = 10
LNNODE = Path(sys.executable).with_name("lnnode")


class CallFailed(Exception):  # noqa: N818 - the node's answer
    """The node refused a call; the text is what a user would read."""


class Process:
    """One of the cluster's processes."""

    def __init__(self, kind: str, config: Path, log: Path) -> None:
        self._kind, self._config, self._log = kind, config, log
        self.process: asyncio.subprocess.Process | None = None
        self.facts: dict = {}

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                LNNODE, self._kind, self._config, stdout=asyncio.subprocess.PIPE, stderr=log
            )
        line = await asyncio.wait_for(self.process.stdout.readline(), START_S)
        assert line, f"{self._kind} ended: {self._log.read_text()[-2000:]}"
        self.facts = json.loads(line)

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        if self.process is None or self.process.returncode is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), STOP_S)
        except TimeoutError:
            await self.kill()
            raise
        assert self.process.returncode == 0, f"{self._kind}: {self._log.read_text()[-2000:]}"


class ClusterNode:
    """`async with ClusterNode(chain.rpc) as node`: `await node.invoice(amount_msat=...)` and all other API calls."""

    def __init__(self, chain: JsonRpc, name: str = "cluster", frontends: int = 2, **settings: object) -> None:
        self.chain, self.name, self.settings = chain, name, settings
        self._temporary = tempfile.TemporaryDirectory(prefix=f"{name}-")
        self.directory = Path(self._temporary.name)
        self.backend: Process | None = None
        self.frontends: dict[str, Process] = {}
        self._count = frontends
        self._http: aiohttp.ClientSession | None = None
        self.node_id = ""
        self.host, self.port = "127.0.0.1", 0

    async def __aenter__(self):
        try:
            await self._start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_exc: object) -> None:
        for process in (*self.frontends.values(), self.backend):
            if process is not None:
                await process.stop()
        if self._http is not None:
            await self._http.close()
        self._temporary.cleanup()

    async def _start(self) -> None:
        self._http = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.directory / "api.sock")))
        self.backend = Process("backend", self._configure_backend(), self.directory / "backend.log")
        await self.backend.start()
        self.node_id = self.backend.facts["node_id"]
        for number in range(self._count):
            await self.start_frontend(f"f{number + 1}")

    def _configure_backend(self) -> Path:
        bitcoind = {"url": self.chain.url, "user": self.chain.user, "password": self.chain.password}
        config = {
            "data_dir": str(self.directory),
            "alias": self.name,
            "flush_interval_s": 0.5,
            "bitcoind": {**bitcoind, "poll_interval_s": 0.2},
            "log": {"level": "debug", "format": "text"},
            **self.settings,
        }
        return self._write("backend", config)

    async def start_frontend(self, name: str) -> None:
        """Another process behind the one port that all frontends share."""
        config = {
            "id": name,
            "listen": f"{self.host}:{self.port or free_port()}",
            "backend": self.backend.facts["link"],
            "log": {"level": "debug", "format": "text"},
        }
        process = Process("frontend", self._write(name, config), self.directory / f"{name}.log")
        await process.start()
        self.port = int(process.facts["listen"].rpartition(":")[2])
        self.frontends[name] = process

    def _write(self, name: str, config: dict) -> Path:
        path = self.directory / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    def __getattr__(self, name: str):
        """Every call of the API by its name."""

        async def call(**arguments: object):
            async with self._http.post(f"http://node/{name}", json=arguments) as response:
                answer = await response.json()
            if response.status != 200:
                raise CallFailed(answer["error"])
            return answer

        return call

    async def connect_to(self, peer) -> None:
        await self.connect(node_id=peer.node_id, address=f"{peer.host}:{peer.port}")

    async def synced(self, height: int) -> None:
        async def there() -> bool:
            return (await self.getinfo())["block_height"] >= height

        await until(there, 20, f"{self.name}: block {height}")

    async def channel_with(self, node_id: str, timeout_s: float = 30) -> dict:
        """The first usable channel with that peer."""

        async def usable() -> dict | None:
            return next((c for c in await self.channels(node_id=node_id) if c["usable"]), None)

        return await until(usable, timeout_s, f"{self.name}: usable channel with {node_id}")

    async def no_channel_with(self, node_id: str, timeout_s: float = 30) -> None:
        async def gone() -> bool:
            return not await self.channels(node_id=node_id)

        await until(gone, timeout_s, f"{self.name}: no channel with {node_id}")

    async def frontend_of(self, node_id: str) -> str | None:
        return next(
            (p["frontend"] for p in await self.peers() if p["node_id"] == node_id and p["connected"]), None
        )

    async def graph_of(self, channels: int) -> None:
        """Until this many channels are known with both sides' terms."""

        async def complete() -> bool:
            known = (await self.graph())["channels"]
            return len([c for c in known if all(c["updates"])]) >= channels

        await until(complete, 30, f"{self.name}: {channels} channels in the graph")
