"""Asking a running node through its HTTP API, one call at a time; for commands, which may block."""

import base64
import http.client
import json
import socket
import ssl
from pathlib import Path
from typing import Any

from msgspec import Struct

from node.errors import Refused
from node.runtime.addresses import split_address
from node.runtime.config import BackendConfig

ANSWER_S = 60.0


class Api(Struct, frozen=True):
    """Where a backend's API is. `authority`: the file of who vouches for its certificate, where it speaks TLS."""

    address: str
    password: str = ""
    authority: str = ""


class NobodyAnswers(Refused):
    """No backend is there; nothing was asked."""


class _OverUnixSocket(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("lnnode", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def api_of(config: BackendConfig) -> Api:
    authority = config.tls.authority if config.api_tls else ""
    return Api(config.api_address, config.api_password, authority)


def call(api: Api, name: str, *, answer_s: float = ANSWER_S, **arguments: object) -> Any:
    """The answer. Raises NobodyAnswers, and Refused where the node says no."""
    connection = _connection(api, answer_s)
    headers = {}
    if api.password:
        headers["Authorization"] = "Basic " + base64.b64encode(f":{api.password}".encode()).decode()
    try:
        connection.connect()
        connection.request("POST", f"/{name}", json.dumps(arguments), headers)
        answer = json.loads(connection.getresponse().read())
    except (ConnectionRefusedError, FileNotFoundError) as error:
        raise NobodyAnswers(
            f"no backend answers at {api.address} ({error}); name its API with --api or --config"
        ) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Refused(f"{api.address}: {error or type(error).__name__}; {_hint(api)}") from error
    finally:
        connection.close()
    if isinstance(answer, dict) and "error" in answer:
        raise Refused(str(answer["error"]))
    return answer


def _connection(api: Api, answer_s: float) -> http.client.HTTPConnection:
    kind, host, port = split_address(api.address)
    if kind == "unix":
        return _OverUnixSocket(host, answer_s)
    if not api.authority:
        return http.client.HTTPConnection(host, port, timeout=answer_s)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # certificates name members, not hosts; OpenSSL asks for that of a server
    try:
        context.load_verify_locations(Path(api.authority).expanduser())
    except OSError as error:
        raise Refused(f"{api.authority}: {error}; name the file authority.pem of `lnnode certs`") from error
    return http.client.HTTPSConnection(host, port, timeout=answer_s, context=context)


def _hint(api: Api) -> str:
    return (
        "is its certificate of this authority?"
        if api.authority
        else "does it speak TLS? name --authority FILE"
    )
