"""bitcoind as scripted: the embedded chain's answers, until a test has it say what Core would say in trouble.

Shapes and texts are those of Bitcoin Core 28's RPC.
"""

import json
from collections.abc import Callable
from typing import Any

from lnsim.chain.embedded import EmbeddedNode
from lnsim.chain.rpc import answer
from node.backend.bitcoind import Bitcoind
from node.backend.bitcoind_rpc import BitcoindRpc

LOADING = (-28, "Verifying blocks…")
NO_WALLET = (-18, "Requested wallet does not exist or is not loaded")
WHICH_WALLET = (
    -19,
    "Multiple wallets are loaded. Please select which wallet to use by requesting the RPC through the URI path.",
)
NO_KEYS = (-4, "Error: This wallet has no available keys")


class CoreDouble:
    """Has what a bench asks of an `EmbeddedNode`; `client` gives the production client."""

    def __init__(self, node: EmbeddedNode) -> None:
        self._node = node
        self.is_there = True
        self.status = 0  # an HTTP status for everything
        self.error: tuple[int, str] | None = None  # for everything
        self.errors: dict[str, tuple[int, str]] = {}
        self.changes: dict[str, Callable[[Any], Any]] = {}  # of results
        self.asked: list[str] = []
        self.after: Callable[[str], None] = str  # told of what was done, before the answer leaves

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    def client(self, wallet: str | None = None) -> Bitcoind:
        return Bitcoind(BitcoindRpc(self, lambda: ("", ""), wallet=wallet, patience_s=0))

    async def post(
        self, path: str, body: bytes, headers: dict[str, str], timeout_s: float
    ) -> tuple[int, bytes]:
        if not self.is_there:
            raise ConnectionRefusedError("nothing answers at http://127.0.0.1:38332")
        if self.status:
            return self.status, b""
        requests = json.loads(body)
        replies = [self._reply(each) for each in (requests if isinstance(requests, list) else [requests])]
        return 200, json.dumps(replies if isinstance(requests, list) else replies[0]).encode()

    def _reply(self, request: dict[str, Any]) -> dict[str, Any]:
        method = request["method"]
        self.asked.append(method)
        error = self.error or self.errors.get(method)
        if error is not None:
            code, message = error
            return {"result": None, "error": {"code": code, "message": message}, "id": request["id"]}
        _, done = answer(json.dumps(request).encode(), self._node.session(""))
        self.after(method)
        reply = json.loads(done)
        if method in self.changes and reply.get("error") is None:
            reply["result"] = self.changes[method](reply["result"])
        return reply

    # troubles

    def says(self, **facts: Any) -> None:
        """In getblockchaininfo."""
        self.changes["getblockchaininfo"] = lambda info: info | facts
