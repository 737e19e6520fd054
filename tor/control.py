"""The control connection to a tor, through stem's sockets and its authentication: blocking, but never for ever.

Not through stem.control.Controller: that one waits without a limit for a tor that hangs, and closing it while an event
arrives can lock both of its threads up for good.
"""

import contextlib
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, Self

import stem
import stem.connection
import stem.socket

from tor.errors import Refused, Unavailable

CLOSED = ""
# The third: in SAFECOOKIE tor proves that it knows the cookie, too.
WRONG_COOKIE = (
    stem.connection.IncorrectCookieValue,
    stem.connection.IncorrectCookieSize,
    stem.connection.AuthSecurityFailure,
)
OnEvent = Callable[[str], None]
"""Called with each event of tor, and with CLOSED as the last."""


class TorRefused(Exception):  # noqa: N818 - an answer
    """The answer of a tor that understood a command and will not carry it out."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{text} ({code})")
        self.code = code
        self.text = text


class _Socket(stem.socket.ControlSocket):  # type: ignore[misc]  # stem has no types
    """stem's socket, with a time limit until `limit` lifts it: for connecting and authenticating."""

    def __init__(self, address: str, timeout_s: float) -> None:
        super().__init__()
        self._address = address
        self._timeout_s = timeout_s
        self._raw: socket.socket | None = None

    def _make_socket(self) -> socket.socket:
        if self._address.startswith("unix:"):
            raw = socket.socket(socket.AF_UNIX)
            raw.settimeout(self._timeout_s)
            try:
                raw.connect(self._address.removeprefix("unix:"))
            except OSError:
                raw.close()
                raise
        else:
            host, _, port = self._address.rpartition(":")
            raw = socket.create_connection((host.strip("[]"), int(port)), self._timeout_s)
        self._raw = raw
        return raw

    def unlimited(self) -> None:
        assert self._raw is not None, "connected"
        self._raw.settimeout(None)


class Connection:
    """An authenticated control connection. Safe to use from any thread; `on_event` is called in a thread of its own."""

    def __init__(
        self,
        address: str,
        *,
        timeout_s: float = 5.0,
        password: str = "",
        cookie_file: str = "",
        on_event: OnEvent = lambda _: None,
    ) -> None:
        """Raises Unavailable where nobody answers in time, Refused where authentication can't work."""
        self.address = address
        self.timeout_s = timeout_s
        self._on_event = on_event
        self._replies: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._turn = threading.Lock()
        self._socket = _Socket(address, timeout_s)
        try:
            with _explained(address, timeout_s):
                self._socket.connect()
                self.method, self.tor_version = _authenticate(self._socket, password, cookie_file)
        except BaseException:
            self._socket.close()
            raise
        self._socket.unlimited()
        threading.Thread(target=self._read, name="tor control", daemon=True).start()

    def ask(self, command: str) -> list[str]:
        """The lines of tor's answer, without "OK". Raises TorRefused, or Unavailable when it says nothing in time."""
        with self._turn:
            try:
                self._socket.send(command)
                reply = self._replies.get(timeout=self.timeout_s)
            except queue.Empty:
                self.close()
                raise Unavailable(
                    f"tor at {self.address} said nothing for {self.timeout_s:g} s: it hangs, or is stopped"
                ) from None
            except stem.SocketError as error:
                raise Unavailable(f"tor at {self.address} closed the control connection") from error
        if reply is None:
            raise Unavailable(f"tor at {self.address} closed the control connection")
        return _lines(reply)

    def get_info(self, key: str) -> str:
        """One value of GETINFO, without its key."""
        return "\n".join(self.ask(f"GETINFO {key}")).removeprefix(f"{key}=").removeprefix("\n")

    def get_conf(self, key: str) -> list[tuple[str, str]]:
        """Options and their values as GETCONF lists them, in order; what is at its default is left out."""
        pairs = (line.partition("=") for line in self.ask(f"GETCONF {key}"))
        return [(name, value) for name, equals, value in pairs if equals]

    def set_conf(self, options: list[tuple[str, str | None]]) -> None:
        """Set options all at once; None puts one back to its default."""
        self.ask("SETCONF " + " ".join(_assignment(name, value) for name, value in options))

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> None:
        with contextlib.suppress(stem.SocketClosed):
            while True:
                try:
                    message = self._socket.recv()
                except stem.ProtocolError:
                    continue
                if message.content()[0][0] == "650":
                    self._on_event("\n".join(text for _, _, text in message.content()))
                else:
                    self._replies.put(message)
        self._socket.close()
        self._replies.put(None)
        self._on_event(CLOSED)


def _lines(reply: Any) -> list[str]:
    parts = reply.content()
    code, _, text = parts[-1]
    if not code.startswith("2"):
        raise TorRefused(code, text)
    return [text for _, _, text in parts if text != "OK"]


def _assignment(name: str, value: str | None) -> str:
    if value is None:
        return name
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{name}="{quoted}"'


def _authenticate(control: _Socket, password: str, cookie_file: str) -> tuple[str, str]:
    """Use the best method that tor offers and we have something for; its name, and tor's version."""
    offered = stem.connection.get_protocolinfo(control)
    methods = {str(method).upper() for method in offered.auth_methods}
    cookie = cookie_file or offered.cookie_path
    if password and "PASSWORD" in methods:
        stem.connection.authenticate_password(control, password)
        used = "password"
    elif "NONE" in methods:
        stem.connection.authenticate_none(control)
        used = "none"
    elif "SAFECOOKIE" in methods and cookie:
        stem.connection.authenticate_safecookie(control, cookie)
        used = "safecookie"
    elif "COOKIE" in methods and cookie:
        stem.connection.authenticate_cookie(control, cookie)
        used = "cookie"
    elif password:
        raise Refused(
            "control.password is set, but this tor takes none; add the line that `lntor torrc` prints, or unset it"
        )
    else:
        raise Refused(
            "this tor asks for a password; set control.password_file, or CookieAuthentication 1 in torrc"
        )
    return used, str(offered.tor_version).split(" ", 1)[0]


@contextlib.contextmanager
def _explained(address: str, timeout_s: float) -> Iterator[None]:
    """What stem and the system raise while connecting, said in our words, with a remedy."""
    try:
        yield
    except stem.connection.IncorrectPassword as error:
        raise Refused(
            "tor refuses the control password; make control.password_file agree with torrc's HashedControlPassword"
        ) from error
    except stem.connection.UnreadableCookieFile as error:
        raise Refused(
            f"the control cookie {error.cookie_path} can't be read; let this user read it (Debian: add it to the group "
            "debian-tor), or use a password"
        ) from error
    except WRONG_COOKIE as error:
        raise Refused(
            f"{error.cookie_path} is not the cookie of this tor; name the right one in control.cookie_file"
        ) from error
    except PermissionError as error:
        raise Refused(
            f"{address}: permission denied; let this user reach the control socket (Debian: the group debian-tor)"
        ) from error
    except TimeoutError as error:
        raise Unavailable(f"{address}: no connection within {timeout_s:g} s") from error
    except OSError as error:
        raise Unavailable(
            f"{address}: {error.strerror or error}; is tor running, with this control address?"
        ) from error
    except (stem.connection.AuthenticationFailure, stem.ControllerError) as error:
        raise Unavailable(
            f"{address}: no control connection within {timeout_s:g} s, or one that broke: {error}; "
            "tor hangs, is starting, or something else listens there"
        ) from error
