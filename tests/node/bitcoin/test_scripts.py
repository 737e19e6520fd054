import pytest
import wallycore
from hypothesis import given, settings
from hypothesis import strategies as st

from node.bitcoin.scripts import funding_script, is_standard_shutdown_script, number, p2wpkh, p2wsh
from node.crypto.keys import public_key

DATA = bytes(range(1, 90))


@settings(max_examples=50)
@given(st.integers(17, 300) | st.integers(0x7F00, 0x8100) | st.integers(17, 0xFFFFFFFF))
def test_numbers_are_the_shortest_that_are_not_negative(value: int) -> None:
    data = number(value)[1:]
    assert number(value)[0] == len(data)
    assert int.from_bytes(data, "little") == value
    assert data[-1] < 0x80
    assert data[-1] or data[-2] >= 0x80


def test_small_numbers_are_opcodes() -> None:
    assert [number(value) for value in range(17)] == [b"\x00", *(bytes([0x51 + n]) for n in range(16))]


def test_programs_are_libwallys() -> None:
    point = public_key(bytes([1] * 32))
    script = funding_script(point, public_key(bytes([2] * 32)))
    assert script == funding_script(public_key(bytes([2] * 32)), point)
    assert p2wpkh(point) == bytes(wallycore.witness_program_from_bytes(point, wallycore.WALLY_SCRIPT_HASH160))
    assert p2wsh(script) == bytes(wallycore.witness_program_from_bytes(script, wallycore.WALLY_SCRIPT_SHA256))


ALWAYS, ANY_SEGWIT, SIMPLE_CLOSE, NEVER = "always", "any segwit", "simple close", "never"


@pytest.mark.parametrize(
    ("script", "when"),
    [
        (b"\x00\x14" + DATA[:20], ALWAYS),
        (b"\x00\x20" + DATA[:32], ALWAYS),
        (b"\x00\x15" + DATA[:21], NEVER),
        (b"\x00\x14" + DATA[:32], NEVER),
        (b"\x00\x20" + DATA[:20], NEVER),
        (b"\x51\x20" + DATA[:32], ANY_SEGWIT),
        (b"\x51\x02" + DATA[:2], ANY_SEGWIT),
        (b"\x60\x28" + DATA[:40], ANY_SEGWIT),
        (b"\x51\x01" + DATA[:1], NEVER),
        (b"\x60\x29" + DATA[:41], NEVER),
        (b"\x51\x20" + DATA[:31], NEVER),
        (b"\x50\x20" + DATA[:32], NEVER),
        (b"\x61\x20" + DATA[:32], NEVER),
        (b"\x6a\x06" + DATA[:6], SIMPLE_CLOSE),
        (b"\x6a\x4b" + DATA[:75], SIMPLE_CLOSE),
        (b"\x6a\x4c\x4c" + DATA[:76], SIMPLE_CLOSE),
        (b"\x6a\x4c\x50" + DATA[:80], SIMPLE_CLOSE),
        (b"\x6a\x05" + DATA[:5], NEVER),
        (b"\x6a\x06" + DATA[:7], NEVER),
        (b"\x6a\x4c\x4b" + DATA[:75], NEVER),
        (b"\x6a\x4c\x51" + DATA[:81], NEVER),
        (b"\x6a\x4d\x50\x00" + DATA[:80], NEVER),
        (b"\x6a\x4c", NEVER),
        (b"\x6a", NEVER),
        (b"", NEVER),
        (b"\x76\xa9\x14" + DATA[:20] + b"\x88\xac", NEVER),
        (b"\xa9\x14" + DATA[:20] + b"\x87", NEVER),
    ],
)
def test_shutdown_scripts(script: bytes, when: str) -> None:
    for any_segwit in (False, True):
        for simple_close in (False, True):
            allowed = {ALWAYS: True, ANY_SEGWIT: any_segwit, SIMPLE_CLOSE: simple_close, NEVER: False}[when]
            assert is_standard_shutdown_script(script, any_segwit, simple_close) == allowed


@settings(max_examples=100)
@given(st.binary(max_size=90))
def test_any_bytes_have_an_answer(script: bytes) -> None:
    assert is_standard_shutdown_script(script, any_segwit=True, simple_close=True) in {True, False}
