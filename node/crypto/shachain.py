"""BOLT 3's per-commitment secrets: made from one seed, and kept in 49 places by the one who receives them."""

from functools import lru_cache
from hashlib import sha256

from msgspec import Struct

from node.errors import PeerFault

INDEX_BITS = 48
FIRST_INDEX = (1 << INDEX_BITS) - 1  # the index counts down from here

# Neighbouring indexes share all hashes but those of their low bits: a channel's next 65,536 secrets then
# cost at most 16 hashes each instead of 48. Two entries for each of the channels one backend steps.
SHARED_BITS = 16
MAX_SHARED_PREFIXES = 8_192


def secret_at(seed: bytes, index: int) -> bytes:
    """The secret of `index`, out of the seed (BOLT 3, generate_from_seed)."""
    return _derive(_prefix_secret(seed, index >> SHARED_BITS), SHARED_BITS, index)


class Shachain(Struct, frozen=True):
    """Every secret received so far; at place B the newest (index, secret) whose index ends in B zero bits."""

    known: tuple[tuple[int, bytes], ...] = ()

    def insert(self, index: int, secret: bytes) -> "Shachain":
        """Take the next secret; PeerFault when an earlier one does not follow from it."""
        place = _trailing_zeros(index)
        assert place <= len(self.known), "secrets are inserted in falling order of index"
        # BOLT 3, insert_secret: all that it covers must derive from it
        if any(_derive(secret, place, covered) != earlier for covered, earlier in self.known[:place]):
            raise PeerFault(f"per-commitment secret {FIRST_INDEX - index} contradicts an earlier one")
        return Shachain((*self.known[:place], (index, secret), *self.known[place + 1 :]))

    def lookup(self, index: int) -> bytes | None:
        """The secret of `index`, None while it has not been received."""
        for place, (known_index, secret) in enumerate(self.known):
            if index >> place == known_index >> place:
                return _derive(secret, place, index)
        return None


def _trailing_zeros(index: int) -> int:
    return (index & -index).bit_length() - 1 if index else INDEX_BITS


@lru_cache(maxsize=MAX_SHARED_PREFIXES)
def _prefix_secret(seed: bytes, prefix: int) -> bytes:
    return _derive(seed, INDEX_BITS, prefix << SHARED_BITS)


def _derive(secret: bytes, bits: int, index: int) -> bytes:
    """Follow the low `bits` of the index, the highest first: for each one set, flip it and hash."""
    pending = index & ((1 << bits) - 1)
    while pending:
        bit = pending.bit_length() - 1
        pending ^= 1 << bit
        flipped = bytearray(secret)
        flipped[bit >> 3] ^= 1 << (bit & 7)
        secret = sha256(flipped).digest()
    return secret
