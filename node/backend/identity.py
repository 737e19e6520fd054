"""Who a node is: the seed, what follows from it, and what it offers to peers."""

import errno
import os
from pathlib import Path

from node.backend.store import COPY, PUT_META, Parameters, Store
from node.crypto.hashes import hkdf
from node.errors import Refused
from node.wire.features import Feature, Features

SEED_FILE = "seed"
SEED_SIZE = 32

# Genesis block hashes, as messages carry them.
CHAIN_HASHES = {
    "mainnet": bytes.fromhex("6fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000"),
    "testnet": bytes.fromhex("43497fd7f826957108f4a30fd9cec3aeba79972084e90ead01ea330900000000"),
    "signet": bytes.fromhex("f61eee3b63a380a477a063af32b2bbc97c9ff9f01f2c4225e973988108000000"),
    "regtest": bytes.fromhex("06226e46111a0b59caaf126043eb5bbf28c34f3a5e332a1fc7b2b73cf188910f"),
}
INVOICE_NETWORKS = {"mainnet": "bitcoin", "testnet": "testnet", "signet": "signet", "regtest": "regtest"}

FEATURES = Features.of(
    compulsory=(Feature.VAR_ONION_OPTIN, Feature.OPTION_STATIC_REMOTEKEY, Feature.PAYMENT_SECRET),
    optional=(
        Feature.OPTION_DATA_LOSS_PROTECT,
        Feature.OPTION_UPFRONT_SHUTDOWN_SCRIPT,
        Feature.GOSSIP_QUERIES,
        Feature.GOSSIP_QUERIES_EX,
        Feature.BASIC_MPP,
        Feature.OPTION_SUPPORT_LARGE_CHANNEL,
        Feature.OPTION_ANCHORS,
        Feature.OPTION_SHUTDOWN_ANYSEGWIT,
        Feature.OPTION_CHANNEL_TYPE,
        Feature.OPTION_SCID_ALIAS,
        Feature.OPTION_SIMPLE_CLOSE,
        Feature.KEYSEND,
    ),
)


def load_seed(directory: Path, entropy: bytes, *, first: bool) -> bytes:
    """The node's seed; made from `entropy` at the first start, synced before anything depends on it."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / SEED_FILE
    if not path.exists():
        if not first:
            raise Refused(
                f"{path}: is not there, and the database needs the seed that it was begun with; "
                "restore it from your backup, or copy it from the other backend's host"
            )
        try:
            write_durably(path, entropy.hex().encode() + b"\n")
        except OSError as error:
            raise Refused(f"{path}: {error.strerror}; make room, or let our user write there") from error
    try:
        seed = bytes.fromhex(path.read_text().strip())
    except ValueError:
        seed = b""
    if len(seed) != SEED_SIZE:
        raise Refused(f"{path}: holds no seed of {SEED_SIZE} bytes in hex; restore it from your backup")
    return seed


def write_durably(path: Path, data: bytes) -> None:
    """Never leaves half a file behind, also when power fails or the disk is full. Raises OSError."""
    draft = path.with_suffix(".new")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        if os.write(handle, data) < len(data):  # the rest did not fit
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(draft))
        os.fsync(handle)
    finally:
        os.close(handle)
    draft.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def check_owner(known: bytes | None, node_id: bytes) -> None:
    """Raises Refused where a database is another node's; `known` is what it says, None if it is new."""
    if known is not None and known != node_id:
        raise Refused(
            f"the database is that of node {known.hex()}, the seed that of {node_id.hex()}; "
            "restore the seed, or name this node's own database"
        )


def remember(store: Store, node_id: bytes) -> None:
    """A term of leadership begins."""
    mine: list[Parameters] = [("node_id", node_id), ("epoch", store.epoch.to_bytes(8, "big"))]
    store.commit([("DELETE FROM meta WHERE key = ?", [(COPY,)]), (PUT_META, mine)])


def channel_seed(seed: bytes) -> bytes:
    return hkdf(seed, b"lnnode channel keys")
