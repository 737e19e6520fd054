"""Telling a node's backend the address by its HTTP API; blocking, one call at a time."""

import base64
import http.client
import json
import socket
import ssl
from pathlib import Path

from msgspec import Struct

from tor.config import Backend, first_line, split_address
from tor.errors import Refused, Unavailable

TIMEOUT_S = 5.0  # of each step: connecting, TLS, the answer
STEPS = 3
MAX_ANSWER = 65_536  # bytes
MAX_SAID = 400  # characters of what a backend says, in a line of ours
CALL = "onion_address"
OTHERS_RIGHTS = 0o007


class Answer(Struct, frozen=True):
    """`announced`: whether the backend announces the address now; `api`: which one said so."""

    api: str
    announced: bool


def limit_s(settings: Backend) -> float:
    """Within which `tell` is over, however slowly each of them answers."""
    return STEPS * TIMEOUT_S * len(settings.apis)


def tell(settings: Backend, address: str, *, announce: bool, first: str = "") -> Answer:
    """Tell whichever leads, beginning with `first`. Raises Unavailable with what each of them said."""
    said = []
    for api in sorted(settings.apis, key=lambda each: each != first):
        try:
            return Answer(api, ask(settings, api, address, announce=announce))
        except (Refused, Unavailable) as error:
            said.append(str(error))
    raise Unavailable("; ".join(said))


def ask(settings: Backend, api: str, address: str = "", *, announce: bool) -> bool:
    """Whether this backend announces the address now; without one nothing is changed.

    Raises Unavailable where nobody answers, Refused for what a person has to mend.
    """
    headers = _headers(settings)
    connection = _connection(settings, api)
    try:
        connection.connect()
        connection.request(
            "POST", f"/{CALL}", json.dumps({"address": address, "announce": announce}), headers
        )
        response = connection.getresponse()
        status, raw = response.status, response.read(MAX_ANSWER)
    except ssl.SSLCertVerificationError as error:
        raise Refused(
            f"{api}: its certificate is not a backend's of this authority ({error.verify_message}); backend.authority "
            "has to be the authority.pem of that backend's certificate"
        ) from error
    except ssl.SSLError as error:
        why = (error.reason or "hangs up").lower().replace("_", " ")
        raise Refused(
            f"{api}: no TLS there ({why}); set api_tls at the backend, or mend backend.api"
        ) from error
    except TimeoutError as error:
        raise Unavailable(f"{api}: nobody answers within {TIMEOUT_S:g} s") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise _not_understood(settings, api, error) from error
    finally:
        connection.close()
    return _understood(settings, api, status, raw)


def _headers(settings: Backend) -> dict[str, str]:
    if not settings.password_file:
        return {}
    path, field = settings.password_file, "backend.password_file"
    secret = first_line(path, field)
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:  # it went away meanwhile
        raise Refused(f"{field}: {path}: {error.strerror}") from error
    if mode & OTHERS_RIGHTS:
        raise Refused(f"{field}: {path}: everybody here can read it; chmod 640 {path}")
    return {"Authorization": "Basic " + base64.b64encode(f":{secret}".encode()).decode()}


class _OverUnixSocket(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("backend", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _connection(settings: Backend, api: str) -> http.client.HTTPConnection:
    if api.startswith("unix:"):
        return _OverUnixSocket(api.removeprefix("unix:"))
    host, port = split_address(api, "backend.api")
    if not settings.authority:
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # certificates name members, not hosts; OpenSSL asks for that of a server
    try:
        context.load_verify_locations(settings.authority)
    except OSError as error:
        why = "holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise Refused(
            f"backend.authority: {settings.authority}: {why}; copy the authority.pem of `lnnode certs` there"
        ) from error
    return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)


def _not_understood(settings: Backend, api: str, error: Exception) -> Refused | Unavailable:
    if (
        isinstance(error, http.client.HTTPException)
        and not settings.authority
        and not api.startswith("unix:")
    ):
        return Refused(f"{api}: no HTTP there; if the backend has api_tls, set backend.authority")
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return Unavailable(f"{api}: nobody answers ({why})")


def _understood(settings: Backend, api: str, status: int, raw: bytes) -> bool:
    try:
        answer = json.loads(raw)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise Refused(f"{api}: is no backend's API; backend.api is what the backend has in its field `api`")
    announced = answer.get("announced")
    if status == http.HTTPStatus.OK and isinstance(announced, bool):
        return announced
    if status == http.HTTPStatus.UNAUTHORIZED:
        wanted = "the backend's api_onion_password"
        if settings.password_file:
            raise Refused(f"{api}: wrong password; write {wanted} into {settings.password_file}")
        raise Refused(f"{api}: asks for a password; write {wanted} into a file, for backend.password_file")
    if status == http.HTTPStatus.NOT_FOUND:
        raise Refused(
            f"{api}: knows no call {CALL}: it is of an older release; upgrade the backend, or put the address into "
            "its announce_addresses"
        )
    raise Refused(f"{api}: {str(answer.get('error', f'status {status}'))[:MAX_SAID]}")
