"""One cluster on hosts of its own, for all tests here in their order."""

import asyncio
import shutil

import pytest_asyncio
from deployed import Deployed
from hosts import Impossible, Lan, give_up
from processes import require
from traffic import Traffic

TOOLS = {
    "haproxy": "haproxy",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "nft": "nftables",
    "ip": "iproute2",
    "tc": "iproute2",
    "setpriv": "util-linux",
}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def site(tmp_path_factory):
    """The whole cluster of docs/operations.md, with LDK connected to it."""
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    if missing:
        give_up(f"apt-get install {' '.join(missing)}, or `make peers` as root")
    require("ldk")
    try:
        with Lan() as lan:
            made = Deployed(lan, tmp_path_factory.mktemp("hosts"))
            try:
                await made.start()
                yield made
            finally:
                await made.end()
    except Impossible as why:
        give_up(str(why))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def traffic(site):
    """LDK, which stays connected from here on."""
    made = Traffic(site, await site.start_ldk())
    staying = asyncio.create_task(made.stay())
    yield made
    made.leaving.set()
    await staying
