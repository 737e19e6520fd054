"""What a peer says in an error or a warning, made fit for our log; and what we say."""

from node.wire import bolt1
from node.wire.codec import decode, encode

# Long enough for every diagnosis seen in the wild, short enough that a peer cannot flood a log line by line.
MAX_NOTICE_CHARACTERS = 400


def printable(data: bytes) -> str:
    """BOLT 1, error: what is not printable ASCII is not printed as it came. Escaped, cut, marked where cut."""
    head = data[:MAX_NOTICE_CHARACTERS]
    text = "".join(chr(b) if 32 <= b <= 126 and b != 0x5C else f"\\x{b:02x}" for b in head)
    if len(data) <= MAX_NOTICE_CHARACTERS and len(text) <= MAX_NOTICE_CHARACTERS:
        return text
    return text[:MAX_NOTICE_CHARACTERS] + "..."


def notice(message: bytes) -> str:
    """The text of a raw error or warning, fit for a log. Raises MalformedMessage."""
    match decode(message):
        case bolt1.Error(_, data) | bolt1.Warning(_, data):
            return printable(data)
        case other:
            return type(other).__name__


def warning(text: str) -> bytes:
    """A raw warning about the session as a whole."""
    return encode(bolt1.Warning(bolt1.ALL_CHANNELS, printable(text.encode()).encode()))
