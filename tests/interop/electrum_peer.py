"""Electrum's daemon as a Lightning node: started in a directory of its own, driven over its JSON-RPC."""

import ast
import json
import signal

from chain_rpc import JsonRpc, RpcFailed
from electrum_server import SAT, ElectrumServer
from peers import CHANNEL_S, PAYMENT_S, START_S, Payment, PaymentFailed, Peer, PeerChannel
from ports import free_port
from processes import PEERS, until

TREE = PEERS / "electrum"
USER, PASSWORD = "lnsim", "lnsim"
MSAT = 1000
FUNDS_BTC = 1
CLOSED = {"CLOSED", "REDEEMED"}


class ElectrumPeer(Peer):
    """One Electrum wallet with Lightning. It offers and accepts static_remotekey channels only, none announced."""

    def __init__(self, chain: JsonRpc, name: str = "electrum", **settings: object) -> None:
        super().__init__(chain, name)
        self.server = ElectrumServer(chain)
        self.settings = settings
        self._serving = False
        self._addresses: dict[str, str] = {}  # of nodes that we were told to connect to

    async def start(self) -> None:
        await self.server.__aenter__()
        self._serving = True
        self.port = free_port()
        self._configure()
        await self.child.start(
            "/usr/bin/python3", TREE / "usr/bin/electrum", "--regtest", "-v", "-D", self.child.directory, "daemon",
            PYTHONPATH=str(TREE / "usr/lib/python3/dist-packages"),
            LD_LIBRARY_PATH=":".join(str(path) for path in TREE.glob("usr/lib/*-linux-*")),
            PYTHONDONTWRITEBYTECODE="1",
            HOME=str(self.child.directory),
        )  # fmt: skip
        self.rpc = await until(self._rpc, START_S, f"{self.name}: its daemon")
        await self.rpc.call("create")
        await self.rpc.call("load_wallet")
        self.node_id = (await self.rpc.call("nodeid")).split("@")[0]
        await until(self._connected, START_S, f"{self.name}: connected to its server")

    def _configure(self) -> None:
        settings = {
            "config_version": 3,  # an older one makes it rewrite the server's address to TLS
            "oneserver": True, "auto_connect": False, "server": f"127.0.0.1:{self.server.port}:t",
            "rpcsock": "tcp", "rpchost": "127.0.0.1", "rpcport": 0, "rpcuser": USER, "rpcpassword": PASSWORD,
            "lightning_listen": f"127.0.0.1:{self.port}", "use_gossip": True, "check_updates": False,
            **self.settings,
        }  # fmt: skip
        directory = self.child.directory / "regtest"
        directory.mkdir()
        (directory / "config").write_text(json.dumps(settings))

    async def _rpc(self) -> JsonRpc | None:
        """Its JSON-RPC, once its lock file names the address and it answers there."""
        self.child.check()
        try:
            _, (host, port), _ = ast.literal_eval((self.child.directory / "regtest/daemon").read_text())
            rpc = JsonRpc(f"http://{host}:{port}/", USER, PASSWORD)
            await rpc.call("ping")
        except (OSError, SyntaxError, ValueError):
            return None  # not yet
        return rpc

    async def _connected(self) -> bool:
        self.child.check()
        info = await self.rpc.call("getinfo")
        return info["connected"] and info["blockchain_height"] == len(self.server.index.blocks) - 1

    async def stop(self) -> None:
        await self.child.end(lambda process: process.send_signal(signal.SIGTERM))
        if self._serving:
            await self.server.__aexit__()

    async def synced(self, height: int) -> None:
        async def there() -> bool:
            info = await self.rpc.call("getinfo")
            return info["blockchain_height"] >= height and await self.rpc.call("is_synchronized")

        await until(there, START_S, f"{self.name}: block {height}")

    async def address_on_chain(self) -> str:
        return await self.rpc.call("createnewaddress")

    async def balance_sat(self) -> int:
        """Confirmed, on-chain."""
        return round(float((await self.rpc.call("getbalance"))["confirmed"]) * SAT)

    async def fund(self, btc: float = FUNDS_BTC) -> None:
        """Give its wallet confirmed coins from the chain's: mines a block."""
        await self.chain.call("sendtoaddress", await self.address_on_chain(), btc)
        await self.chain.call("generatetoaddress", 1, await self.chain.call("getnewaddress"))

        async def arrived() -> bool:
            return await self.balance_sat() >= btc * SAT

        await until(arrived, START_S, f"{self.name}: its coins")

    async def connect(self, node_id: str, host: str, port: int) -> None:
        self._addresses[node_id] = f"{node_id}@{host}:{port}"
        await self.rpc.call("add_peer", connection_string=self._addresses[node_id])

        async def ready() -> bool:
            return node_id in await self.peers()

        await until(ready, START_S, f"{self.name}: connection to {node_id}")

    async def peers(self) -> list[str]:
        return [p["node_id"] for p in await self.rpc.call("list_peers") if p["initialized"]]

    async def open_channel(self, node_id: str, sat: int, push_msat: int = 0) -> str:
        """Wants `connect` to the node before: it opens channels only by address."""
        peer, push_btc = self._addresses[node_id], push_msat / MSAT / SAT
        arguments = {"connection_string": peer, "amount": sat / SAT, "push_amount": push_btc}
        funding = await self.rpc.call_long(CHANNEL_S, "open_channel", **arguments)
        return next(c.channel_id for c in await self.channels() if c.funding == funding)

    async def channels(self) -> list[PeerChannel]:
        listed = await self.rpc.call("list_channels")
        return [channel(c) for c in listed if c["type"] == "CHANNEL" and c["state"] not in CLOSED]

    async def invoice(self, amount_msat: int | None, description: str = "") -> str:
        """Whole satoshis only."""
        amount = (amount_msat or 0) / MSAT / SAT
        return (await self.rpc.call("add_request", amount=amount, memo=description))["lightning_invoice"]

    async def pay(self, bolt11: str, timeout_s: float = PAYMENT_S) -> Payment:
        try:
            paid = await self.rpc.call_long(timeout_s, "lnpay", invoice=bolt11)
        except RpcFailed as why:
            raise PaymentFailed(str(why), []) from None
        if not paid["success"]:
            raise PaymentFailed("failed", [{"log": line} for line in paid["log"]])
        return Payment(paid["payment_hash"], paid["preimage"], None)

    async def close(self, channel_id: str, *, force: bool = False) -> None:
        """Returns once the closing transaction is out."""
        point = next(c.funding for c in await self.channels() if c.channel_id == channel_id)
        await self.rpc.call_long(CHANNEL_S, "close_channel", channel_point=point, force=force)


def channel(fields: dict) -> PeerChannel:
    scid = fields["short_channel_id"]
    block, index, output = (int(part) for part in scid.split("x")) if scid else (0, 0, 0)
    local, remote = fields["local_balance"] * MSAT, fields["remote_balance"] * MSAT
    return PeerChannel(
        channel_id=fields["channel_id"],
        node_id=fields["remote_pubkey"],
        short_channel_id=block << 40 | index << 16 | output if scid else None,
        capacity_sat=(local + remote) // MSAT
        + fields["local_unsettled_sent"]
        + fields["remote_unsettled_sent"],
        local_msat=local,
        remote_msat=remote,
        usable=fields["state"] == "OPEN" and fields["peer_state"] == "GOOD",
        state=f"{fields['state']} {fields['peer_state']}",
        channel_type="static_remotekey",
        announced=False,
        funding=fields["channel_point"],
    )
