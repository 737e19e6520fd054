"""A wallet's keys: BIP 84 accounts and their addresses on regtest."""

from hashlib import sha256

import wallycore as wally
from msgspec import Struct

HRP = "bcrt"
HARDENED = 0x80000000
ACCOUNT = (84 | HARDENED, 1 | HARDENED, HARDENED)
ECDSA = wally.EC_FLAG_ECDSA | wally.EC_FLAG_GRIND_R


class KeyPlace(Struct, frozen=True):
    """Where in the account a script's key is: the branch (1 for change) and the index."""

    branch: int
    index: int

    @property
    def path(self) -> str:
        return f"m/84'/1'/0'/{self.branch}/{self.index}"


class Keys:
    """All keys of one wallet, derived from one seed."""

    def __init__(self, seed: bytes) -> None:
        master = wally.bip32_key_from_seed(sha256(seed).digest(), wally.BIP32_VER_TEST_PRIVATE, 0)
        account = wally.bip32_key_from_parent_path(master, list(ACCOUNT), wally.BIP32_FLAG_KEY_PRIVATE)
        self.fingerprint: bytes = bytes(wally.bip32_key_get_fingerprint(master))
        self._branches = [
            wally.bip32_key_from_parent(account, branch, wally.BIP32_FLAG_KEY_PRIVATE) for branch in (0, 1)
        ]
        self._next = [0, 0]
        self.places: dict[bytes, KeyPlace] = {}

    def new_script(self, *, change: bool) -> bytes:
        """The next unused P2WPKH output script."""
        place = KeyPlace(int(change), self._next[change])
        self._next[change] += 1
        script = b"\x00\x14" + bytes(wally.hash160(self.public(place)))
        self.places[script] = place
        return script

    def public(self, place: KeyPlace) -> bytes:
        return bytes(wally.bip32_key_get_pub_key(self._key(place)))

    def secret(self, place: KeyPlace) -> bytes:
        return bytes(wally.bip32_key_get_priv_key(self._key(place)))

    def sign(self, place: KeyPlace, digest: bytes) -> bytes:
        """A DER signature, low S and low R, without the sighash byte."""
        return bytes(wally.ec_sig_to_der(wally.ec_sig_from_bytes(self.secret(place), digest, ECDSA)))

    def _key(self, place: KeyPlace) -> object:
        return wally.bip32_key_from_parent(
            self._branches[place.branch], place.index, wally.BIP32_FLAG_KEY_PRIVATE
        )


def address_of(script: bytes) -> str | None:
    """The address of an output script, if it has one."""
    try:
        if script[:1] in (b"\x00", b"\x51"):
            return str(wally.addr_segwit_from_bytes(script, HRP, 0))
        return str(wally.scriptpubkey_to_address(script, wally.WALLY_NETWORK_BITCOIN_REGTEST))
    except ValueError:
        return None


def script_of(address: str) -> bytes | None:
    """The output script of an address of this chain."""
    try:
        if address.lower().startswith(HRP + "1"):
            return bytes(wally.addr_segwit_to_bytes(address, HRP, 0))
        return bytes(wally.address_to_scriptpubkey(address, wally.WALLY_NETWORK_BITCOIN_REGTEST))
    except ValueError:
        return None
