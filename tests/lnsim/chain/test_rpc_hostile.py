"""No request, however odd, gets anything but a JSON-RPC answer."""

import inspect
from decimal import Decimal
from types import UnionType
from typing import get_args, get_origin

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnsim.chain.embedded import EmbeddedNode
from lnsim.chain.rpc import answer
from lnsim.chain.rpc.protocol import METHODS

PSBT = (
    "cHNidP8BAFICAAAAAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAAAAAAD9////AegDAAAAAAAAFgAUAAAAAAAAAAAAAAAAAA"
    "AAAAAAAAAAAAAAAAEBH4gTAAAAAAAAFgAUAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
)
KNOWN = [
    "00" * 32,
    "11" * 32,
    "0200",
    "zz",
    "",
    "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202",
    "020000000001e80300000000000016001400000000000000000000000000000000000000000000000000",
    PSBT,
]
KEYS = [
    "txid", "vout", "sequence", "weight", "changePosition", "feeRate", "fee_rate", "input_weights", "minconf",
    "subtractFeeFromOutputs", "changeAddress", "conf_target", "scriptPubKey", "amount", "data", KNOWN[5],
]  # fmt: skip
leaf = st.none() | st.booleans() | st.integers(-2, 2**40) | st.floats(-1, 30) | st.sampled_from(KNOWN)
value = st.recursive(
    leaf,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def node():
    node = EmbeddedNode(lambda: 1_700_000_000.0, blocks=101)
    node.wallets.create("other")
    yield node
    node.close()


texts = st.sampled_from(KNOWN)
numbers = st.integers(-2, 120) | st.integers(0, 2**40)
places = st.fixed_dictionaries(
    {"txid": texts, "vout": numbers}, optional={"sequence": value, "weight": value}
)
previous = st.fixed_dictionaries(
    {"txid": texts, "vout": numbers, "scriptPubKey": texts | value, "amount": value}
)
FITTING = {
    str: texts,
    int: numbers,
    bool: st.booleans(),
    Decimal: numbers | st.floats(-1, 60) | texts,
    list: st.lists(texts | places | previous | value, max_size=3),
    dict: st.dictionaries(st.sampled_from(KEYS), value | texts | st.lists(places, max_size=2), max_size=3),
}


def fitting(annotation):
    """Values of the type that a parameter asks for."""
    kinds = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return st.one_of(FITTING[get_origin(kind) or kind] for kind in kinds if kind is not type(None))


@st.composite
def calls(draw):
    name = draw(st.sampled_from(sorted(set(METHODS) - {"generatetoaddress", "generate"})))
    parameters = list(inspect.signature(METHODS[name]).parameters.values())[1:]
    count = draw(st.integers(0, len(parameters)))
    return name, [draw(fitting(p.annotation) | value) for p in parameters[:count]]


@settings(max_examples=300, deadline=None)
@given(call=calls(), wallet=st.sampled_from([None, "", "", "", "other", "nobody"]))
def test_every_request_gets_an_answer(node, call, wallet):
    method, params = call
    body = msgspec.json.encode({"id": 1, "method": method, "params": params})
    status, text = answer(body, node.session(wallet))
    shown = msgspec.json.decode(text)
    assert status in (200, 400, 404, 500)
    assert set(shown) == {"id", "result", "error"}


@given(st.binary(max_size=60) | value.map(msgspec.json.encode))
def test_every_body_gets_an_answer(node, body):
    msgspec.json.decode(answer(body, node.session(""))[1])
