"""What a backend finds when it starts, and what the chain may answer meanwhile."""

import sqlite3

import pytest
from backend_bench import Bench

from node.backend.chain_client import RpcError
from node.backend.sqlite_store import SqliteStore
from node.errors import Refused
from node.link import frames
from node.link import messages as lm


async def test_a_database_of_another_seed_is_refused(chain, tmp_path):
    """The channels in it have keys that the new seed does not give."""
    bench = await Bench(tmp_path / "node", chain).start()
    await bench.drop()
    (tmp_path / "node" / "seed").write_text("11" * 32)
    with pytest.raises(Refused, match="seed"):
        await bench.start()
    bench.backend.store.close()


async def test_a_seed_is_never_made_for_a_database_that_has_one(chain, tmp_path):
    bench = await Bench(tmp_path / "node", chain).start()
    await bench.drop()
    (tmp_path / "node" / "seed").unlink()
    with pytest.raises(Refused, match="seed"):
        await bench.start()
    bench.backend.store.close()


def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "theirs.sqlite"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE songs (title TEXT)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(Refused, match=r"theirs\.sqlite"):
        SqliteStore(path)
    assert path.read_bytes() == before


class Sulking:
    """A bitcoind that answers some calls with an error of its own."""

    def __init__(self, client, methods):
        self._client, self.methods = client, methods

    def __getattr__(self, name):
        if name not in self.methods:
            return getattr(self._client, name)

        async def refuse(*_args, **_options):
            raise RpcError(-1, "Block not available (pruned data)")

        return refuse


@pytest.mark.parametrize(
    "method", ["fee_estimate", "txout", "block_txids", "raw_transaction", "block_hashes"]
)
async def test_an_error_of_bitcoind_never_ends_the_backend(chain, tmp_path, method):
    bench = await Bench(tmp_path / "node", chain).start()
    frontend = bench.frontend()
    sulking = Sulking(bench.backend.client, {method})
    bench.backend.chain._client = bench.backend.chain._lookup._client = sulking
    raw = bytearray(b"\x01\x00" + bytes(430))
    raw[260:292] = bench.backend.chain_hash
    raw[292:300] = (1 << 40).to_bytes(8, "big")
    frontend.raw(frames.offer(1, 1, bytes(raw)))
    bench.backend.chain.watch_public(1 << 40)
    bench.chain.mine(1)
    await bench.settle()
    assert not bench.runtime.failures
    assert len(frontend.last(lm.Verdicts).verdicts) == 1
    await bench.drop()
