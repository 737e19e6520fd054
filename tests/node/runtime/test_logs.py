"""What strangers say reaches a log line harmless and short."""

from hypothesis import given
from hypothesis import strategies as st

from node.runtime.logs import MAX_TEXT, safe_text


@given(st.binary(max_size=2_000))
def test_peers_text_is_printable_ascii_and_cut(data):
    text = safe_text(data)
    assert text.isascii()
    assert text.isprintable()
    assert len(text) <= 6 * MAX_TEXT


def test_plain_text_stays_as_it_is_and_lines_can_not_be_forged():
    assert safe_text(b"funding failed: 42") == "funding failed: 42"
    assert safe_text(b"a\nlevel=error\x1b[31m") == "a\\nlevel=error\\x1b[31m"
