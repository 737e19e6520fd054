"""A disk that fills while payments run: the backend ends, having promised nothing that is not stored; with room it goes on."""

import asyncio
import os
import subprocess
from contextlib import suppress

import pytest
import pytest_asyncio
from test_kill import paying

from lnsim.cluster import HUB, Cluster, wait_until
from lnsim.demo_network import Network

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

SIZE_MB = 24


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory):
    """The hub's data_dir is a file system of its own; one has to be root to make it."""
    directory = tmp_path_factory.mktemp("run")
    place = directory / HUB
    place.mkdir()
    if os.getuid() != 0:
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up(
            "a small disk: only root can mount one; tests/node/backend/test_sqlite_store.py does with less"
        )
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", place]
    made = subprocess.run(mount, check=False, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"a small disk: {made.stderr.strip()}")
    yield directory
    subprocess.run(["umount", place], check=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(small_disk):
    said = []
    made = Cluster(small_disk, 2, ["payer", "payee"], lambda *what: said.append(what))
    try:
        await made.start()
        await Network(made, lambda *what: said.append(what)).build()
        yield made
    finally:
        await made.stop()
    assert not made.supervisor.given_up, said
    assert made.supervisor.left_over() == 0


def fill(ballast) -> None:
    """To the last block."""
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4_096))
    assert os.statvfs(ballast).f_bavail == 0


async def test_a_disk_that_fills_under_payments_costs_nothing_but_time(cluster: Cluster):
    backend, ballast = cluster.supervisor.children["backend"], cluster.directory / HUB / "ballast"
    ended = asyncio.get_running_loop().create_future()

    def make_room(_, status) -> None:
        """Once it has ended of it: before the supervisor starts it again."""
        ballast.unlink(missing_ok=True)
        if not ended.done():
            ended.set_result(status)

    backend.on_exit.append(make_room)
    async with paying(cluster) as traffic:
        fill(ballast)
        assert await asyncio.wait_for(ended, 60) == 1, "a status on which a supervisor starts it again"
        settled = traffic.settled

        async def usable() -> bool:
            listed = [await peer.call("channels") for peer in cluster.peers]
            return all(channel["usable"] for channels in listed for channel in channels)

        await wait_until(usable, 40, "every channel is reestablished")
        await traffic.settle(60)
        print(f"{settled} payments before, {traffic.settled} in all")
    said = (cluster.directory / "backend.log").read_text()
    assert "nothing is lost: make room, then start the backend again" in said
    assert "Traceback" not in said
