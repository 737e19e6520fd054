"""What we wait for on the chain, as a pure function: `step(watches, event) -> (watches, news)`.

A confirmation is told once it is as deep as asked, a spend when it is seen and again when a block holds it;
what a reorg takes back is told too, and the watch waits anew.
"""

from collections.abc import Iterable, Mapping
from typing import TypeVar, assert_never

from msgspec import Struct
from msgspec.structs import replace

from node.backend.block_follower import BlockConnected, BlockDisconnected
from node.backend.chain_client import BlockId, Outpoint
from node.bitcoin.block import Block, ChainTransaction

Key = str | bytes | int | tuple["Key", ...]  # the caller's name for a watch


class ConfirmWatch(Struct, frozen=True):
    """Waits for a transaction, named by its id or by a script that it pays."""

    key: Key
    min_depth: int
    txid: bytes | None = None
    script: bytes | None = None
    found: "Place | None" = None
    told: bool = False


class SpendWatch(Struct, frozen=True):
    key: Key
    outpoint: Outpoint
    mempool: bool = True  # whether an unconfirmed spend is of interest
    spender: bytes | None = None  # the txid
    height: int | None = None


class Place(Struct, frozen=True):
    height: int
    tx_index: int
    tx: ChainTransaction


class Register(Struct, frozen=True):
    watches: tuple[ConfirmWatch | SpendWatch, ...]


class Forget(Struct, frozen=True):
    key: Key


class TransactionSeen(Struct, frozen=True):
    """In the mempool."""

    tx: ChainTransaction


class Scanned(Struct, frozen=True):
    """A block of our own past, for the watches that came after it."""

    height: int
    block: Block
    keys: frozenset[Key]


Event = Register | Forget | TransactionSeen | Scanned | BlockConnected | BlockDisconnected


class Confirmed(Struct, frozen=True):
    key: Key
    height: int
    tx_index: int
    tx: bytes
    txid: bytes


class Unconfirmed(Struct, frozen=True):
    """A reorg took back what was told as confirmed."""

    key: Key


class Spent(Struct, frozen=True):
    """`height` is None while the spending transaction is in the mempool."""

    key: Key
    tx: bytes
    txid: bytes
    height: int | None


class Unspent(Struct, frozen=True):
    """A reorg took back the block with the spend; its transaction may come again."""

    key: Key


class NewTip(Struct, frozen=True):
    """The chain's last block now; comes before what the block brings. `time_s` is None after a step back."""

    height: int
    hash: bytes
    time_s: int | None


News = Confirmed | Unconfirmed | Spent | Unspent | NewTip


class Watches(Struct, frozen=True):
    tip: BlockId
    confirms: Mapping[Key, ConfirmWatch] = {}
    spends: Mapping[Key, SpendWatch] = {}
    by_txid: Mapping[bytes, frozenset[Key]] = {}
    by_script: Mapping[bytes, frozenset[Key]] = {}
    by_outpoint: Mapping[Outpoint, frozenset[Key]] = {}
    shallow: frozenset[Key] = frozenset()  # found, but not as deep as asked

    @property
    def unconfirmed_spends(self) -> dict[Outpoint, bytes | None]:
        """What to ask the mempool for: outpoints that no block spends, and the spender that we know of."""
        return {w.outpoint: w.spender for w in self.spends.values() if w.mempool and w.height is None}


def step(watches: Watches, event: Event) -> tuple[Watches, tuple[News, ...]]:
    """Advance by one event; pure, and total for every event."""
    match event:
        case Register(new):
            return _register(watches, new), ()
        case Forget(key):
            return _forget(watches, key), ()
        case TransactionSeen(tx):
            return _match_spends(watches, tx, None, None)
        case Scanned(height, block, keys):
            return _settle(*_match_block(watches, height, block, keys))
        case BlockConnected(height, block):
            tip = NewTip(height, block.hash, block.time_s)
            moved = replace(watches, tip=event.id)
            after, news = _settle(*_match_block(moved, height, block, None))
            return after, (tip, *news)
        case BlockDisconnected(height, _, tip_id):
            after, news = _undo(replace(watches, tip=tip_id), height)
            return after, (NewTip(tip_id.height, tip_id.hash, None), *news)
        case _:
            assert_never(event)


def _register(watches: Watches, new: Iterable[ConfirmWatch | SpendWatch]) -> Watches:
    new = tuple(new)
    for watch in new:
        if watch.key in watches.confirms or watch.key in watches.spends:
            watches = _forget(watches, watch.key)
    confirms, spends = dict(watches.confirms), dict(watches.spends)
    by_txid, by_script = dict(watches.by_txid), dict(watches.by_script)
    by_outpoint = dict(watches.by_outpoint)
    for watch in new:
        if isinstance(watch, SpendWatch):
            spends[watch.key] = watch
            by_outpoint[watch.outpoint] = by_outpoint.get(watch.outpoint, frozenset()) | {watch.key}
            continue
        confirms[watch.key] = watch
        if watch.txid is not None:
            by_txid[watch.txid] = by_txid.get(watch.txid, frozenset()) | {watch.key}
        if watch.script is not None:
            by_script[watch.script] = by_script.get(watch.script, frozenset()) | {watch.key}
    return replace(
        watches,
        confirms=confirms,
        spends=spends,
        by_txid=by_txid,
        by_script=by_script,
        by_outpoint=by_outpoint,
    )


def _forget(watches: Watches, key: Key) -> Watches:
    def without(index: Mapping[bytes, frozenset[Key]], name: bytes | None) -> dict[bytes, frozenset[Key]]:
        return _drop(index, name, key)

    confirm, spend = watches.confirms.get(key), watches.spends.get(key)
    return replace(
        watches,
        confirms={k: w for k, w in watches.confirms.items() if k != key},
        spends={k: w for k, w in watches.spends.items() if k != key},
        by_txid=without(watches.by_txid, confirm.txid if confirm else None),
        by_script=without(watches.by_script, confirm.script if confirm else None),
        by_outpoint=_drop(watches.by_outpoint, spend.outpoint if spend else None, key),
        shallow=watches.shallow - {key},
    )


def _match_block(
    watches: Watches, height: int, block: Block, only: frozenset[Key] | None
) -> tuple[Watches, tuple[News, ...]]:
    news: tuple[News, ...] = ()
    for tx_index, tx in enumerate(block.transactions):
        watches = _match_confirms(watches, tx, Place(height, tx_index, tx), only)
        watches, spent = _match_spends(watches, tx, height, only)
        news += spent
    return watches, news


def _match_confirms(
    watches: Watches, tx: ChainTransaction, place: Place, only: frozenset[Key] | None
) -> Watches:
    keys = watches.by_txid.get(tx.txid, frozenset())
    if watches.by_script:
        for output in tx.outputs:
            keys |= watches.by_script.get(output.script, frozenset())
    fresh = [k for k in _allowed(keys, only) if watches.confirms[k].found is None]
    if not fresh:
        return watches
    found = {k: replace(watches.confirms[k], found=place) for k in fresh}
    return replace(watches, confirms={**watches.confirms, **found}, shallow=watches.shallow.union(fresh))


def _match_spends(
    watches: Watches, tx: ChainTransaction, height: int | None, only: frozenset[Key] | None
) -> tuple[Watches, tuple[News, ...]]:
    found: dict[Key, SpendWatch] = {}
    for i in tx.inputs:
        for key in _allowed(watches.by_outpoint.get(i.outpoint, frozenset()), only):
            watch = watches.spends[key]
            unconfirmed_news = watch.mempool and watch.spender != tx.txid
            if watch.height is None and (height is not None or unconfirmed_news):
                found[key] = replace(watch, spender=tx.txid, height=height)
    if not found:
        return watches, ()
    news = tuple(Spent(key, tx.raw, tx.txid, height) for key in found)
    return replace(watches, spends={**watches.spends, **found}), news


def _settle(watches: Watches, news: tuple[News, ...]) -> tuple[Watches, tuple[News, ...]]:
    """Tell the confirmations that are deep enough now."""
    told: dict[Key, ConfirmWatch] = {}
    for key in sorted(watches.shallow, key=repr):
        watch = watches.confirms[key]
        place = watch.found
        if place and watches.tip.height - place.height + 1 >= watch.min_depth:
            told[key] = replace(watch, told=True)
            news += (Confirmed(key, place.height, place.tx_index, place.tx.raw, place.tx.txid),)
    if not told:
        return watches, news
    return replace(
        watches, confirms={**watches.confirms, **told}, shallow=watches.shallow - told.keys()
    ), news


def _undo(watches: Watches, height: int) -> tuple[Watches, tuple[News, ...]]:
    """Take back what the disconnected block at `height` brought."""
    lost = {k: w for k, w in watches.confirms.items() if w.found and w.found.height >= height}
    freed = {k: w for k, w in watches.spends.items() if w.height is not None and w.height >= height}
    news: list[News] = [Unconfirmed(key) for key, watch in lost.items() if watch.told]
    news += [Unspent(key) for key in freed]
    confirms = {k: replace(w, found=None, told=False) for k, w in lost.items()}
    spends = {k: replace(w, spender=None, height=None) for k, w in freed.items()}
    after = replace(
        watches,
        confirms={**watches.confirms, **confirms},
        spends={**watches.spends, **spends},
        shallow=watches.shallow - lost.keys(),
    )
    return after, tuple(news)


def _allowed(keys: frozenset[Key], only: frozenset[Key] | None) -> list[Key]:
    """In an order that is the same in every run."""
    return sorted(keys if only is None else keys & only, key=repr) if keys else []


K = TypeVar("K")


def _drop(index: Mapping[K, frozenset[Key]], name: K | None, key: Key) -> dict[K, frozenset[Key]]:
    after = dict(index)
    if name is not None and name in after:
        after[name] -= {key}
        if not after[name]:
            del after[name]
    return after
