import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.crypto.shachain import FIRST_INDEX, Shachain, secret_at
from node.errors import PeerFault

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "bolt3_shachain.json").read_bytes())
seeds = st.binary(min_size=32, max_size=32)


@pytest.mark.parametrize("vector", VECTORS["generation"], ids=lambda v: v["name"])
def test_generation_vectors(vector: dict) -> None:
    assert secret_at(bytes.fromhex(vector["seed"]), vector["index"]).hex() == vector["output"]


@pytest.mark.parametrize("vector", VECTORS["storage"], ids=lambda v: v["name"])
def test_storage_vectors(vector: dict) -> None:
    chain = Shachain()
    for insert in vector["inserts"]:
        secret = bytes.fromhex(insert["secret"])
        if insert["ok"]:
            chain = chain.insert(insert["index"], secret)
            assert chain.lookup(insert["index"]) == secret
        else:
            with pytest.raises(PeerFault):
                chain.insert(insert["index"], secret)


@settings(max_examples=20)
@given(seeds, st.integers(1, 600), st.integers(0, 700))
def test_whatever_was_inserted_is_found_and_nothing_else(seed: bytes, count: int, asked: int) -> None:
    chain = Shachain()
    for number in range(count):
        chain = chain.insert(FIRST_INDEX - number, secret_at(seed, FIRST_INDEX - number))
    expected = secret_at(seed, FIRST_INDEX - asked) if asked < count else None
    assert chain.lookup(FIRST_INDEX - asked) == expected
    assert len(chain.known) <= count.bit_length() + 1


def test_the_seed_is_the_last_secret() -> None:
    seed = bytes(range(32))
    assert secret_at(seed, 0) == seed
    chain = Shachain(tuple((1 << place, secret_at(seed, 1 << place)) for place in range(48)))
    full = chain.insert(0, seed)
    assert len(full.known) == 49
    assert full.lookup(0x123456789ABC) == secret_at(seed, 0x123456789ABC)
