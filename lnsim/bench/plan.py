"""How much a run of the benchmarks does, and where it may put files."""

from pathlib import Path

from msgspec import Struct

from lnsim.graph_generator import CHANNELS, NODES


class Plan(Struct, frozen=True, kw_only=True):
    """The defaults are the sizes that the project's figures are given for."""

    directory: Path  # for sockets and databases; its owner removes it
    seconds: float = 5.0  # of measuring: each benchmark, each load of `forwards`
    channels: int = CHANNELS
    nodes: int = NODES
    signed_channels: int = 2_000  # making signatures takes longer than verifying them
    idle_peers: int = 2_000
    routes: int = 300
    in_flight: tuple[int, ...] = (1, 10, 50, 100, 300)
    database: str = ""  # an empty PostgreSQL database, for `store`

    def scratch(self, name: str) -> Path:
        """An empty directory for one benchmark."""
        path = self.directory / name
        path.mkdir()
        return path


def quick(directory: Path) -> Plan:
    """Seconds instead of minutes; the figures are rougher, and the graph a tenth."""
    return Plan(
        directory=directory,
        seconds=1.0,
        channels=CHANNELS // 10,
        nodes=NODES // 10,
        signed_channels=300,
        idle_peers=300,
        routes=60,
        in_flight=(1, 10, 100),
    )
