"""Real Lightning nodes of other implementations behind one small API; amounts in millisatoshi, ids in hex."""

from abc import ABC, abstractmethod

from chain_rpc import JsonRpc
from msgspec import Struct
from processes import Child, until

START_S = 30
CHANNEL_S = 30
PAYMENT_S = 60


class PeerChannel(Struct, frozen=True, kw_only=True):
    """One channel as the peer sees it."""

    channel_id: str
    node_id: str  # of the other end
    short_channel_id: int | None
    capacity_sat: int
    local_msat: int
    remote_msat: int
    usable: bool
    state: str  # the implementation's own word for it
    channel_type: str  # "anchors" or "static_remotekey"
    announced: bool
    funding: str  # txid:index, txid as RPC shows it


class Payment(Struct, frozen=True):
    payment_hash: str
    preimage: str
    fee_msat: int | None  # None where the implementation does not tell


class PaymentFailed(Exception):  # noqa: N818 - how a payment ended
    """Why it failed, and each failed attempt: LDK's have the onion's failure code and the node it came from."""

    def __init__(self, reason: str, attempts: list[dict]) -> None:
        super().__init__(f"{reason}: {attempts}")
        self.reason, self.attempts = reason, attempts

    @property
    def codes(self) -> list[int]:
        """The failure codes of BOLT 4 that came back, in order."""
        return [a["failure"]["code"] for a in self.attempts if a.get("failure")]


class Peer(ABC):
    """A running node of another implementation. Use it as `async with LdkPeer(chain) as peer`."""

    node_id: str
    port: int
    host = "127.0.0.1"

    def __init__(self, chain: JsonRpc, name: str) -> None:
        self.chain, self.name = chain, name
        self.child = Child(name)

    async def __aenter__(self):
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.stop()

    @property
    def address(self) -> str:
        return f"{self.node_id}@{self.host}:{self.port}"

    async def wait_channel_ready(self, node_id: str, timeout_s: float = CHANNEL_S) -> PeerChannel:
        """The first usable channel with that node."""
        what = f"{self.name}: usable channel with {node_id}"
        try:
            return await until(lambda: self._usable(node_id), timeout_s, what)
        except TimeoutError as late:
            late.add_note(f"its channels: {await self.channels()}")
            raise

    async def _usable(self, node_id: str) -> PeerChannel | None:
        self.child.check()
        return next((c for c in await self.channels() if c.node_id == node_id and c.usable), None)

    async def wait_no_channel(self, node_id: str, timeout_s: float = CHANNEL_S) -> None:
        """Until no open channel with that node is left."""

        async def gone() -> bool:
            return all(c.node_id != node_id for c in await self.channels())

        await until(gone, timeout_s, f"{self.name}: no channel with {node_id}")

    @abstractmethod
    async def start(self) -> None: ...

    @abstractmethod
    async def stop(self) -> None: ...

    @abstractmethod
    async def synced(self, height: int) -> None:
        """Until the peer has seen the block of that height."""

    @abstractmethod
    async def connect(self, node_id: str, host: str, port: int) -> None: ...

    @abstractmethod
    async def open_channel(self, node_id: str, sat: int, push_msat: int = 0) -> str:
        """Open a channel with a connected node; its id once the funding transaction is on its way."""

    @abstractmethod
    async def channels(self) -> list[PeerChannel]: ...

    @abstractmethod
    async def invoice(self, amount_msat: int | None, description: str = "") -> str: ...

    @abstractmethod
    async def pay(self, bolt11: str) -> Payment:
        """Pay and wait for the end of it; raises PaymentFailed."""

    @abstractmethod
    async def close(self, channel_id: str, *, force: bool = False) -> None:
        """Begin to close: together, or with the latest commitment transaction."""
