"""One embedded chain serves all tests of a module: mining it takes longer than most of them."""

import pytest

from lnsim.chain.embedded import EmbeddedNode
from node.backend.sqlite_store import SqliteStore


@pytest.fixture(scope="module")
def chain():
    node = EmbeddedNode(lambda: 1_760_000_000.0, blocks=130)
    yield node
    node.close()


class SqlitePlace:
    """A database that can be opened again and again."""

    def __init__(self, directory) -> None:
        self.path = directory / "x.sqlite"

    def open(self):
        return SqliteStore(self.path)


class PostgresPlace:
    """The same on a server; each opening is a backend's start."""

    def __init__(self, url, lease_s=30.0) -> None:
        self.url, self.lease_s = url, lease_s

    def open(self):
        from node.backend.lease import Lease
        from node.backend.postgres_store import PostgresStore, prepare

        prepare(self.url)
        lease = Lease(self.url, self.lease_s)
        left_s = lease.attempt()
        assert left_s is None, f"led by {lease.holder} for {left_s} s"
        return PostgresStore(self.url, lease)


@pytest.fixture(params=["sqlite", "postgres"])
def place(request, tmp_path):
    """Whatever holds of a store holds of both."""
    if request.param == "sqlite":
        return SqlitePlace(tmp_path)
    return PostgresPlace(request.getfixturevalue("postgres").database())
