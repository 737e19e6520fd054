"""Parts of a frontend without sockets: what is written is kept, time stands still."""

import random
from typing import Any

from scripted_backend import FEATURES

from lnsim.graph_generator import REGTEST, TIMESTAMP
from node.frontend.connection import PeerConnection
from node.frontend.frontend import Frontend
from node.link import frames
from node.link.messages import Established, Welcome
from node.runtime.config import FrontendConfig
from node.runtime.runtime import SystemRuntime


class StillRuntime(SystemRuntime):
    def __init__(self) -> None:
        super().__init__(lambda _, __: None)
        self.random = random.Random(1)
        self.clock_s = 0.0

    def now(self) -> float:
        return TIMESTAMP

    def monotonic(self) -> float:
        return self.clock_s

    def spawn(self, work: Any, name: str) -> Any:
        work.close()  # dials and ports: there is no network here


class LoneTransport:
    """Takes everything, sends nothing."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.closed = self.aborted = self.paused = False

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 9735) if name == "peername" else None

    def set_write_buffer_limits(self, high: int) -> None:
        assert high

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True


def lone_frontend(*, welcomed: bool = True) -> tuple[Frontend, LoneTransport]:
    """A frontend whose backend is silent, and the transport of its link."""
    config = FrontendConfig(listen="", backend="unix:none")
    frontend = Frontend(StillRuntime(), config, "f1", "test")
    link = LoneTransport()
    frontend.uplink.connection_made(link)  # type: ignore[arg-type]  # it has what is used
    if welcomed:
        welcome = Welcome(1, 1, b"\2" * 33, REGTEST, FEATURES.to_bytes(), 0)
        frontend.uplink.data_received(frames.control(welcome))
    return frontend, link


def lone_connection(frontend: Frontend) -> tuple[PeerConnection, LoneTransport]:
    """A connection whose handshake has run, with keys of zeros both ways."""
    connection, socket = PeerConnection(frontend), LoneTransport()
    connection.connection_made(socket)  # type: ignore[arg-type]  # as above
    key = bytes(32)
    connection.established(Established(connection.number, b"\3" * 33, key, key, key))
    return connection, socket
