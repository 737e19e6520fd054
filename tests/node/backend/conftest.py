"""One embedded chain serves all tests of a module: mining it takes longer than most of them."""

import pytest

from lnsim.chain.embedded import EmbeddedNode


@pytest.fixture(scope="module")
def chain():
    node = EmbeddedNode(lambda: 1_760_000_000.0, blocks=130)
    yield node
    node.close()
