"""The sides of a link as this release has them, on real sockets."""

from collections.abc import Callable
from typing import Any

from link_recording import ALICE, BOB, BOBS_DOOR, StillRuntime
from noise_client import NoiseClient

from lnsim.chain.embedded import EmbeddedNode
from lnsim.graph_generator import TIMESTAMP
from node.backend.backend import Backend
from node.frontend.frontend import Frontend
from node.runtime.config import BackendConfig, FrontendConfig
from node.standalone import open_store

LINK = "unix:link.sock"
FLUSH_INTERVAL_S = 0.05


async def backend_of_today(runtime: StillRuntime) -> tuple[Backend, EmbeddedNode]:
    """In the current directory. It believes in channels that a generator made."""
    chain = EmbeddedNode(lambda: TIMESTAMP)
    config = BackendConfig(
        data_dir="data",
        link=LINK,
        flush_interval_s=FLUSH_INTERVAL_S,
        reconnect=False,
        assume_channels_valid=True,
    )
    store = open_store(config)
    backend = Backend(runtime, config, chain.client(""), store, "recorded", chain.hints())
    await backend.start()
    return backend, chain


async def frontend_of_today(runtime: StillRuntime, backend: str) -> Frontend:
    config = FrontendConfig(listen="127.0.0.1:0", backend=backend, reconnect_s=0.01)
    frontend = Frontend(runtime, config, "f1", "recorded")
    await frontend.start()
    return frontend


def backend_steps(backend: Backend) -> dict[str, Callable[[], Any]]:
    """What its operator does."""
    commands = backend.commands
    alice, bob = (NoiseClient(name, None).node_id.hex() for name in (ALICE, BOB))
    return {
        "dial_bob": lambda: commands.connect(node_id=bob, address=BOBS_DOOR),
        "drain": lambda: commands.drain(frontend="f1", over_s=3_600.0),
        "undrain": lambda: commands.undrain(frontend="f1"),
        "disconnect_alice": lambda: commands.disconnect(node_id=alice),
    }
