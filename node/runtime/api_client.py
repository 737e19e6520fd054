"""Asking a running node through its HTTP API, one call at a time; for commands, which may block."""

import base64
import http.client
import json
import socket
from typing import Any

from node.errors import Refused
from node.runtime.addresses import split_address

ANSWER_S = 60.0


class _OverUnixSocket(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("lnnode", timeout=ANSWER_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def call(address: str, password: str, name: str, **arguments: object) -> Any:
    """The answer. Raises Refused where nobody answers, or the node says no."""
    kind, host, port = split_address(address)
    connection = (
        _OverUnixSocket(host) if kind == "unix" else http.client.HTTPConnection(host, port, timeout=ANSWER_S)
    )
    headers = {}
    if password:
        headers["Authorization"] = "Basic " + base64.b64encode(f":{password}".encode()).decode()
    try:
        connection.request("POST", f"/{name}", json.dumps(arguments), headers)
        answer = json.loads(connection.getresponse().read())
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Refused(
            f"no backend answers at {address} ({error}); name its API with --api or --config"
        ) from error
    finally:
        connection.close()
    if isinstance(answer, dict) and "error" in answer:
        raise Refused(str(answer["error"]))
    return answer
