"""Signature operations as Core counts them."""

import pytest

from lnsim.chain.sigops import charged_vsize, count

KEY = b"\x21" + bytes(33)
CHECKSIG, CHECKMULTISIG, OP_2 = b"\xac", b"\xae", b"\x52"


@pytest.mark.parametrize(
    ("script", "accurate", "total"),
    [
        (b"", True, 0),
        (KEY + CHECKSIG, True, 1),
        (OP_2 + KEY + KEY + OP_2 + CHECKMULTISIG, True, 2),
        (OP_2 + KEY + KEY + OP_2 + CHECKMULTISIG, False, 20),
        (KEY + CHECKMULTISIG, True, 20),
        (b"\x02\xac\xac" + CHECKSIG, True, 1),  # pushed data is no operation
        (b"\x4c\x02\xac\xac" + CHECKSIG, True, 1),
        (CHECKSIG + b"\x4b\xac\xac", True, 1),  # nothing counts behind a broken push
    ],
)
def test_count(script, accurate, total):
    assert count(script, accurate=accurate) == total


def test_many_operations_are_charged_as_size():
    assert charged_vsize(400, 2) == 100
    assert charged_vsize(400, 100) == 500
