"""What the tests put around an onion service: frontends behind it, clients in front, lntor between."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tor import admin

ROOT = Path(__file__).parents[2]
POLL_S = 0.05
# One stream of a client that has no fresh descriptor yet may take this long; what is awaited has its own limit.
DIAL_S = 15.0
# What takes a second, or three, where the machine does nothing else. Nothing is asserted of it but that it happens.
SOON_S = 20.0
# Every relay of the network keeps the descriptor, and each is told of a new one.
DIRECTORIES = 4
PERIODS = 2  # a service publishes for this period of the network and for the next


def require_tor() -> None:
    """Go on only where tor is installed: a user's run skips with the reason, CI fails."""
    if missing := [name for name in ("tor", "tor-gencert") if not shutil.which(name)]:
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up(f"real tor: no {' and no '.join(missing)} on this machine; Debian: apt-get install tor")


async def until(condition, timeout_s, what):
    """The first true value of `condition`, asked again and again, and how long that took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value, loop.time() - began
        if loop.time() - began > timeout_s:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        await asyncio.sleep(POLL_S)


async def published(lntor, uploads=0, timeout_s=60):
    """Until every directory was told after so many `uploads`.

    A client that is to reach the service again later comes only then, each time: whoever comes too early finds the old
    descriptor, or none, at each of so few directories, and asks none of them twice for a quarter of an hour.
    """
    enough = uploads + PERIODS * DIRECTORIES
    try:
        await until(lambda: lntor.status()["descriptor_uploads"] >= enough, timeout_s, "published everywhere")
    except TimeoutError as late:
        late.add_note(f"{lntor.status()}\n{lntor.log.read_text()[-2_000:]}\n{lntor.tor.log_text()[-2_000:]}")
        raise


class Frontend:
    """Says its name to whoever comes, then echoes."""

    def __init__(self, network, name):
        self.network, self.name = network, name
        self.port = network.free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.first_lines = []
        self.accepted = 0
        self._server = None

    async def start(self, *, expect_line=False):
        with self.network.inside():
            listening = socket.create_server(("127.0.0.1", self.port), backlog=512)

        async def serve(reader, writer):
            with suppress(OSError):
                if expect_line:
                    self.first_lines.append(await reader.readline())
                writer.write(self.name.encode() + b"\n")
                while data := await reader.read(1_000):
                    self.accepted += 1
                    writer.write(data)
                    await writer.drain()
            writer.close()

        self._server = await asyncio.start_server(serve, sock=listening)
        return self

    async def stop(self):
        """The listener goes away at once; connections that are open end by themselves."""
        if self._server is not None:
            self._server.close()
            self._server = None


class Refusal(Exception):  # noqa: N818 - an answer
    """The client tor's answer to a request: a SOCKS error code."""


async def dial(network, address, circuit="c"):
    """A stream to an onion address by the client tor; a `circuit` of its own for each name."""
    with network.inside():
        raw = socket.socket()
    raw.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", network.socks_port))
    except BaseException:
        raw.close()
        raise
    reader, writer = await asyncio.open_connection(sock=raw)
    try:
        async with asyncio.timeout(DIAL_S):
            host, port = address.split(":")
            name = circuit.encode()
            writer.write(b"\x05\x01\x02")
            assert await reader.readexactly(2) == b"\x05\x02"
            writer.write(b"\x01" + bytes([len(name)]) + name + b"\x01x")
            assert await reader.readexactly(2) == b"\x01\x00"
            onion = bytes([len(host)]) + host.encode() + int(port).to_bytes(2, "big")
            writer.write(b"\x05\x01\x00\x03" + onion)
            answer = await reader.readexactly(10)
    except BaseException:
        writer.close()
        raise
    if answer[1]:
        writer.close()
        raise Refusal(f"0x{answer[1]:02x}")
    return reader, writer


async def visit(network, address, circuit="c", say=b"hello"):
    """Which frontend answers, after an echo; None where the stream fails."""
    try:
        reader, writer = await dial(network, address, circuit)
    except (Refusal, OSError, TimeoutError, asyncio.IncompleteReadError):
        return None
    try:
        async with asyncio.timeout(DIAL_S):
            name = (await reader.readline()).decode().strip()
            writer.write(say)
            echoed = await reader.readexactly(len(say))
            return name if echoed == say else None
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return None
    finally:
        writer.close()


class Lntor:
    """`lntor run` as a process within the network, with a configuration of its own."""

    def __init__(self, network, directory, targets, *, tor=None, control=None, service=None, check=None):
        self.network, self.directory = network, directory
        self.tor = tor or network.service
        self.path = directory / "tor.yaml"
        self.log = directory / "stderr"
        self.socket = directory / "admin.sock"
        self.address_file = directory / "address"
        self.config = {
            "control": {"address": f"unix:{self.tor.control_socket}", "timeout_s": 3.0, **(control or {})},
            "service": {
                "directory": str(directory / "onion"),
                "address_file": str(self.address_file),
                "keep": False,
                **(service or {}),
            },
            "targets": targets,
            "check": check or {},
            "admin": {"socket": str(self.socket)},
        }
        self._process = None

    def write(self):
        self.path.write_text(json.dumps(self.config))

    def command(self, *words):
        return [sys.executable, "-c", "from tor.cli import main; main()", *words, "--config", str(self.path)]

    def start(self):
        self.write()
        with self.log.open("ab") as log, self.network.inside():
            self._process = subprocess.Popen(
                self.command("run"), cwd=ROOT, stderr=log, stdin=subprocess.DEVNULL
            )
        return self

    async def serving(self, timeout_s=40):
        """The address, once tor has the service."""
        await until(lambda: self.check() or self.address_file.exists(), timeout_s, "address file")
        return self.address_file.read_text().strip()

    def check(self):
        if self._process.poll() is not None:
            raise AssertionError(f"lntor has ended with {self._process.returncode}: {self.log.read_text()}")

    def status(self):
        return admin.call(str(self.socket), "GET", "/status")

    def signal(self, number):
        self._process.send_signal(number)

    async def call(self, *words, timeout_s=60):
        """Another lntor command: exit status and what it printed."""
        self.write()
        process = self._popen(words)
        output, _ = await asyncio.to_thread(process.communicate, timeout=timeout_s)
        return process.returncode, output

    def _popen(self, words):
        with self.network.inside():
            return subprocess.Popen(
                self.command(*words), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )

    async def ended(self, timeout_s=60):
        """Exit status and log of a run that ends by itself."""
        await asyncio.to_thread(self._process.wait, timeout_s)
        return self._process.returncode, self.log.read_text()

    async def stop(self):
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                await asyncio.to_thread(self._process.wait, 10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                raise AssertionError(f"lntor did not end: {self.log.read_text()}") from None
        shutil.rmtree(self.directory / "onion", ignore_errors=True)


class ControlProxy:
    """A Unix socket in front of a tor's control socket that can be cut."""

    def __init__(self, path, target):
        self.path, self.target = path, target
        self._writers = []
        self._server = None

    async def start(self):
        async def pump(reader, writer):
            with suppress(OSError):
                while data := await reader.read(4_096):
                    writer.write(data)
                    await writer.drain()
            writer.close()

        async def serve(reader, writer):
            tor_reader, tor_writer = await asyncio.open_unix_connection(str(self.target))
            self._writers += [writer, tor_writer]
            await asyncio.gather(pump(reader, tor_writer), pump(tor_reader, writer))

        self._server = await asyncio.start_unix_server(serve, str(self.path))
        return self

    def cut(self):
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def stop(self):
        self.cut()
        self._server.close()
        self.path.unlink(missing_ok=True)
