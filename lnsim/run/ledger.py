"""What the payments of a run did to whom: the expectation that balances are held against at the end."""

from collections import Counter, defaultdict
from collections.abc import Mapping

from lnsim.api_client import CallFailed, Node
from lnsim.scenario.workloads import HUB


class Ledger:
    """Mutable; one for all workloads of a run that move msat. Nodes go by name, hub included."""

    def __init__(self, nodes: Mapping[str, Node], node_ids: Mapping[str, str]) -> None:
        self.nodes = nodes
        self.node_ids = node_ids
        self.moved_msat: Counter[str] = Counter()
        self.opened: set[str] = set()  # ids of channels that the run itself opened,
        self.closed: set[str] = set()  # and of those that it closed
        self.first_block: int | None = None  # from which on fees are counted
        self._known: dict[str, set[str]] = defaultdict(set)  # payment hashes, by payer
        self._unknown: set[str] = set()  # payers with payments that nobody told us the end of

    @property
    def touched_the_chain(self) -> bool:
        return bool(self.opened or self.closed)

    def settled(self, payer: str, payee: str, amount_msat: int, fee_msat: int, payment_hash: str) -> None:
        self._known[payer].add(payment_hash)
        self._move(payer, payee, amount_msat, fee_msat)

    def failed(self, payer: str, payment_hash: str) -> None:
        self._known[payer].add(payment_hash)

    def unknown(self, payer: str) -> None:
        """A call broke off: what became of the payment is asked for at the end."""
        self._unknown.add(payer)

    def pushed(self, opener: str, msat: int) -> None:
        """What the opener of a channel gave the node under test with it."""
        self.moved_msat[opener] -= msat
        self.moved_msat[HUB] += msat

    async def learn_unknown(self) -> int:
        """Ask payers what became of payments that we had no answer for; how many of them had settled."""
        names = {node_id: name for name, node_id in self.node_ids.items()}
        learnt = 0
        for payer in sorted(self._unknown):
            for found in await self.nodes[payer].call("payments", count=MAX_ASKED):
                if found["payment_hash"] in self._known[payer]:
                    continue
                if found["status"] == "pending":
                    raise CallFailed(f"{payer}: payment {found['payment_hash'][:8]} has no end")
                self._known[payer].add(found["payment_hash"])
                if found["status"] == "settled":
                    learnt += 1
                    payee = names[found["destination"]]
                    self._move(payer, payee, found["amount_msat"], found["fee_msat"])
        self._unknown.clear()
        return learnt

    def _move(self, payer: str, payee: str, amount_msat: int, fee_msat: int) -> None:
        self.moved_msat[payer] -= amount_msat + fee_msat
        self.moved_msat[payee] += amount_msat
        self.moved_msat[HUB] += fee_msat  # the only node that forwards


MAX_ASKED = 10_000  # the newest payments of a node: what its API gives at most
