"""bitcoind's JSON-RPC as the drivers need it: one call at a time, never blocking the loop."""

import asyncio
import base64
import json
import urllib.error
import urllib.request

TIMEOUT_S = 30


class RpcFailed(Exception):  # noqa: N818 - the server's answer
    """The server answered with an error: its text, and the code where it sent one."""

    def __init__(self, method: str, message: str, code: int = 0) -> None:
        super().__init__(f"{method}: {message}")
        self.code = code


class JsonRpc:
    """A JSON-RPC server over HTTP with Basic authentication: bitcoind's, and Electrum's daemon's."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url, self.user, self.password = url, user, password
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._headers = {"authorization": f"Basic {token}", "content-type": "application/json"}

    async def call(self, method: str, *args, **named):
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": named or list(args)}
        return await asyncio.to_thread(self._call, method, json.dumps(body).encode(), TIMEOUT_S)

    async def call_long(self, timeout_s: float, method: str, **named):
        """A call whose answer may take its time, such as a payment."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": named}
        return await asyncio.to_thread(self._call, method, json.dumps(body).encode(), timeout_s)

    def _call(self, method: str, body: bytes, timeout_s: float):
        request = urllib.request.Request(self.url, body, self._headers)
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                text = answer.read()
        except urllib.error.HTTPError as refusal:
            with (
                refusal
            ):  # bitcoind sends its errors as status 500 with the usual JSON, Electrum as bare text
                text = refusal.read()
        try:
            reply = json.loads(text)
        except ValueError:
            raise RpcFailed(method, text.decode(errors="replace")) from None
        if reply.get("error"):
            raise RpcFailed(method, reply["error"]["message"], reply["error"].get("code", 0))
        return reply["result"]
