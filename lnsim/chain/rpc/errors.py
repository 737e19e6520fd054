"""Bitcoin Core's RPC error codes."""

from node.errors import Refused

MISC = -1
TYPE = -3
WALLET = -4
NO_KEY = -5
FUNDS = -6
PARAMETER = -8
DESERIALIZATION = -22
VERIFY = -25
VERIFY_REJECTED = -26
ALREADY_IN_CHAIN = -27
WALLET_NOT_FOUND = -18
WALLET_NOT_SPECIFIED = -19
WALLET_ALREADY_LOADED = -35
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
PARSE = -32700


class RpcError(Refused):
    """An error that the client shall see with this code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
