"""A v3 descriptor as far as it can be read without its service's address, and what a directory answered. No IO."""

import base64
import re

from msgspec import Struct

CERTIFICATE = re.compile(
    r"descriptor-signing-key-cert\s+-----BEGIN ED25519 CERT-----\s+([\w+/=\s]+?)-----END", re.ASCII
)
REVISION = re.compile(r"^revision-counter (\d+)$", re.MULTILINE)
# tor's cert-spec, 2.1: version, type, expiration, key type, the certified key, number of extensions, then of the first
# its length, type and flags and the key that signed.
CERTIFIED_KEY = slice(7, 39)
SIGNED_WITH = slice(44, 76)

DIRECTORY = re.compile(r"\$([0-9A-F]{40})", re.ASCII)
CONTENT_WORDS = 4  # HS_DESC_CONTENT, the address, the descriptor's id, the directory


class Descriptor(Struct, frozen=True):
    """`blinded_key` stands for the service in one period; `signing_key` for one tor's descriptor of that period."""

    blinded_key: bytes
    signing_key: bytes
    revision: int


class Answer(Struct, frozen=True):
    """What a directory had under the blinded key that clients ask for at present: None, where it had nothing."""

    directory: str
    blinded_key: bytes
    found: Descriptor | None


def parse(text: str) -> Descriptor | None:
    """None for what is no descriptor, or was never published."""
    certificate, revision = CERTIFICATE.search(text), REVISION.search(text)
    if certificate is None or revision is None or int(revision.group(1)) == 0:
        return None
    try:
        raw = base64.b64decode(certificate.group(1))
    except ValueError:
        return None
    if len(raw) < SIGNED_WITH.stop:
        return None
    return Descriptor(raw[SIGNED_WITH], raw[CERTIFIED_KEY], int(revision.group(1)))


def answer(event: str) -> Answer | None:
    """What tor's event HS_DESC_CONTENT tells; None where no directory was asked."""
    words = event.partition("\n")[0].split()
    if len(words) < CONTENT_WORDS:
        return None
    directory, blinded_key = fingerprint(words[3]), key_of(words[2])
    if not directory or blinded_key is None:
        return None
    return Answer(directory, blinded_key, parse(event))


def fingerprint(name: str) -> str:
    """A relay's, out of the long name that tor's events have; empty for UNKNOWN."""
    found = DIRECTORY.match(name)
    return found.group(1) if found else ""


def key_of(descriptor_id: str) -> bytes | None:
    """The blinded key, of which a v3 descriptor's id in tor's events is the base64 without padding."""
    try:
        return base64.b64decode(f"{descriptor_id}=", validate=True)
    except ValueError:
        return None
