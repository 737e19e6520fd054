"""The Electrum protocol (1.4) in front of a bitcoind-like JSON-RPC: what one Electrum client needs, no more."""

import asyncio
import contextlib
import json
from collections import defaultdict
from hashlib import sha256
from typing import Self

from chain_rpc import JsonRpc, RpcFailed

from node.bitcoin.block import Block, ChainTransaction, parse_block, parse_transaction

POLL_S = 0.1
MAX_LINE = 1 << 22  # a broadcast transaction in hex
SAT = 100_000_000
RELAY_FEE_BTC = 0.00001
MAX_HEADERS = 2016
NO_BLOCK = bytes(32)  # what the genesis block follows


def script_hash(script: bytes) -> str:
    return sha256(script).digest()[::-1].hex()


def text(hash_: bytes) -> str:
    return hash_[::-1].hex()


class Index:
    """The chain by script: which transactions touch one, and what they leave to it."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.mempool: dict[bytes, ChainTransaction] = {}
        self.transactions: dict[bytes, ChainTransaction] = {}
        self._touching: dict[str, list[tuple[int, bytes]]] = defaultdict(list)

    def push(self, block: Block) -> None:
        height = len(self.blocks)
        self.blocks.append(block)
        for tx in block.transactions:
            self.transactions[tx.txid] = tx
            for script in self._scripts(tx):
                self._touching[script].append((height, tx.txid))

    def pop(self) -> None:
        gone = len(self.blocks) - 1
        for history in self._touching.values():
            while history and history[-1][0] == gone:
                history.pop()
        for tx in self.blocks.pop().transactions:
            del self.transactions[tx.txid]

    def history(self, script: str) -> list[tuple[int, bytes]]:
        """(height, txid): confirmed ones in the chain's order, then height 0 for the mempool's."""
        waiting = sorted(txid for txid, tx in self.mempool.items() if script in self._scripts(tx))
        return self._touching.get(script, []) + [(self._waiting_height(txid), txid) for txid in waiting]

    def unspent(self, script: str) -> list[dict]:
        history = self.history(script)
        spent = {i.outpoint for _, txid in history for i in self.find(txid).inputs}
        return [
            {"tx_hash": text(txid), "tx_pos": vout, "height": max(height, 0), "value": output.sat}
            for height, txid in history
            for vout, output in enumerate(self.find(txid).outputs)
            if script_hash(output.script) == script and (txid, vout) not in spent
        ]

    def entry(self, height: int, txid: bytes) -> dict:
        entry = {"tx_hash": text(txid), "height": height}
        if height > 0:
            return entry
        tx = self.find(txid)
        given = sum(self.find(i.txid).outputs[i.vout].sat for i in tx.inputs)
        return {**entry, "fee": given - sum(output.sat for output in tx.outputs)}

    def find(self, txid: bytes) -> ChainTransaction:
        return self.mempool.get(txid) or self.transactions[txid]

    def status(self, script: str) -> str | None:
        history = self.history(script)
        if not history:
            return None
        return sha256("".join(f"{text(txid)}:{height}:" for height, txid in history).encode()).hexdigest()

    def _waiting_height(self, txid: bytes) -> int:
        return -1 if any(i.txid in self.mempool for i in self.mempool[txid].inputs) else 0

    def _scripts(self, tx: ChainTransaction) -> set[str]:
        scripts = {script_hash(output.script) for output in tx.outputs}
        for spent in tx.inputs:
            source = self.mempool.get(spent.txid) or self.transactions.get(spent.txid)
            if source:
                scripts.add(script_hash(source.outputs[spent.vout].script))
        return scripts


class Client:
    """One connection: what it subscribed to, and the answers it gets."""

    def __init__(self, server: "ElectrumServer", writer: asyncio.StreamWriter) -> None:
        self.server, self.index, self.writer = server, server.index, writer
        self.follows_headers = False
        self.scripts: dict[str, str | None] = {}

    async def answer(self, request: dict) -> None:
        name = request["method"].removeprefix("blockchain.").replace(".", "_")
        method = getattr(self, f"do_{name}", self.unknown)
        try:
            reply = {"result": await method(*request.get("params", []))}
        except (RpcFailed, KeyError, IndexError) as why:
            reply = {"error": {"code": 1, "message": f"{request['method']}: {why}"}}
        self.send({"jsonrpc": "2.0", "id": request["id"], **reply})

    async def unknown(self, *_params):
        raise KeyError("no such method")

    def send(self, message: dict) -> None:
        self.writer.write(json.dumps(message).encode() + b"\n")

    def notify(self) -> None:
        """Tell the client what changed since it last heard."""
        if self.follows_headers:
            tip = [self.server.tip()]
            self.send({"jsonrpc": "2.0", "method": "blockchain.headers.subscribe", "params": tip})
        for script, known in self.scripts.items():
            if (now := self.index.status(script)) != known:
                self.scripts[script] = now
                params = [script, now]
                self.send({"jsonrpc": "2.0", "method": "blockchain.scripthash.subscribe", "params": params})

    async def do_server_version(self, *_names):
        return ["lnsim test server", "1.4"]

    async def do_server_features(self):
        genesis = text(self.index.blocks[0].hash)
        return {"genesis_hash": genesis, "hash_function": "sha256", "protocol_max": "1.4", "hosts": {}}

    async def do_server_ping(self):
        return None

    async def do_server_banner(self):
        return ""

    async def do_server_donation_address(self):
        return ""

    async def do_server_peers_subscribe(self):
        return []

    async def do_mempool_get_fee_histogram(self):
        return []

    async def do_estimatefee(self, _blocks):
        return RELAY_FEE_BTC

    async def do_relayfee(self):
        return RELAY_FEE_BTC

    async def do_headers_subscribe(self):
        self.follows_headers = True
        return self.server.tip()

    async def do_block_header(self, height, _checkpoint=0):
        return self.index.blocks[height].header.hex()

    async def do_block_headers(self, start, count, _checkpoint=0):
        blocks = self.index.blocks[start : start + min(count, MAX_HEADERS)]
        joined = b"".join(b.header for b in blocks)
        return {"hex": joined.hex(), "count": len(blocks), "max": MAX_HEADERS}

    async def do_scripthash_subscribe(self, script):
        self.scripts[script] = self.index.status(script)
        return self.scripts[script]

    async def do_scripthash_unsubscribe(self, script):
        return self.scripts.pop(script, "") != ""

    async def do_scripthash_get_history(self, script):
        return [self.index.entry(height, txid) for height, txid in self.index.history(script)]

    async def do_scripthash_get_mempool(self, script):
        return [self.index.entry(h, txid) for h, txid in self.index.history(script) if h <= 0]

    async def do_scripthash_listunspent(self, script):
        return self.index.unspent(script)

    async def do_scripthash_get_balance(self, script):
        unspent = self.index.unspent(script)
        confirmed = sum(coin["value"] for coin in unspent if coin["height"])
        return {"confirmed": confirmed, "unconfirmed": sum(coin["value"] for coin in unspent) - confirmed}

    async def do_transaction_get(self, txid, _verbose=False):
        return self.index.find(bytes.fromhex(txid)[::-1]).raw.hex()

    async def do_transaction_broadcast(self, raw):
        txid = await self.server.rpc.call("sendrawtransaction", raw)
        await self.server.refresh()
        return txid

    async def do_transaction_get_merkle(self, txid, height):
        hashes = [tx.txid for tx in self.index.blocks[height].transactions]
        position = hashes.index(bytes.fromhex(txid)[::-1])
        return {"block_height": height, "pos": position, "merkle": merkle_branch(hashes, position)}

    async def do_transaction_id_from_pos(self, height, position, merkle=False):
        hashes = [tx.txid for tx in self.index.blocks[height].transactions]
        txid = text(hashes[position])
        return {"tx_hash": txid, "merkle": merkle_branch(hashes, position)} if merkle else txid


class ElectrumServer:
    def __init__(self, rpc: JsonRpc) -> None:
        self.rpc, self.index = rpc, Index()
        self.host, self.port = "127.0.0.1", 0
        self._clients: set[Client] = set()
        self._refreshing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self.refresh()
        self._server = await asyncio.start_server(self._serve, self.host, 0, limit=MAX_LINE)
        self.port = self._server.sockets[0].getsockname()[1]
        self._polling = asyncio.create_task(self._poll())
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._polling.cancel()
        self._server.close()
        for client in self._clients:
            client.writer.close()
        await asyncio.gather(self._polling, return_exceptions=True)

    def tip(self) -> dict:
        height = len(self.index.blocks) - 1
        return {"height": height, "hex": self.index.blocks[height].header.hex()}

    async def refresh(self) -> None:
        """Take over what is new on the chain and in the mempool, and tell the clients."""
        async with self._refreshing:
            kept, fresh = await self._changed_blocks()
            mempool = await self._mempool()
            if kept == len(self.index.blocks) and not fresh and set(mempool) == set(self.index.mempool):
                return
            # From here on nothing waits: no client ever sees one part new and the other old.
            while len(self.index.blocks) > kept:
                self.index.pop()
            for block in fresh:
                self.index.push(block)
            self.index.mempool = mempool
            for client in self._clients:
                client.notify()

    async def _changed_blocks(self) -> tuple[int, list[Block]]:
        """How many of our blocks still stand, and those that follow them."""
        fresh: list[Block] = []
        heights = {block.hash: height for height, block in enumerate(self.index.blocks)}
        cursor = bytes.fromhex(await self.rpc.call("getbestblockhash"))[::-1]
        while cursor not in heights and cursor != NO_BLOCK:
            raw = await self.rpc.call("getblock", text(cursor), 0)
            fresh.append(parse_block(bytes.fromhex(raw)))
            cursor = fresh[-1].previous
        return heights.get(cursor, -1) + 1, fresh[::-1]

    async def _mempool(self) -> dict[bytes, ChainTransaction]:
        waiting = [bytes.fromhex(txid)[::-1] for txid in await self.rpc.call("getrawmempool")]
        return {txid: self.index.mempool.get(txid) or await self._transaction(txid) for txid in waiting}

    async def _transaction(self, txid: bytes) -> ChainTransaction:
        return parse_transaction(bytes.fromhex(await self.rpc.call("getrawtransaction", text(txid))))

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            with contextlib.suppress(
                OSError, RpcFailed
            ):  # the chain may end before we do, or reorganise meanwhile
                await self.refresh()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Client(self, writer)
        self._clients.add(client)
        try:
            while line := await reader.readline():
                await client.answer(json.loads(line))
                await writer.drain()
        except (ConnectionError, ValueError):
            pass  # it went away, or tried TLS first
        finally:
            self._clients.discard(client)
            writer.close()


def merkle_branch(hashes: list[bytes], position: int) -> list[str]:
    """The siblings on the way from one transaction to the block's root."""
    branch = []
    while len(hashes) > 1:
        if len(hashes) % 2:
            hashes = [*hashes, hashes[-1]]
        branch.append(text(hashes[position ^ 1]))
        hashes = [
            sha256(sha256(left + right).digest()).digest()
            for left, right in zip(hashes[::2], hashes[1::2], strict=True)
        ]
        position //= 2
    return branch
