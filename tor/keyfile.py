"""The key of a v3 onion service, in the format of tor's own file: what it must be, its address, and a new one's place."""

import base64
import contextlib
import fcntl
import hashlib
import os
import secrets
import socket
import tempfile
from pathlib import Path
from typing import IO

from tor.errors import Refused, Unavailable

HEADER = b"== ed25519v1-secret: type0 ==\0\0\0"
PUBLIC_HEADER = b"== ed25519v1-public: type0 ==\0\0\0"
KEY_SIZE = 64
MACHINE_ID = Path("/etc/machine-id")
SECRET_FILE = "hs_ed25519_secret_key"  # noqa: S105 - a file's name
PUBLIC_FILE = "hs_ed25519_public_key"


def new_key() -> bytes:
    """Scalar and prefix of a new ed25519 key, 64 bytes."""
    digest = bytearray(hashlib.sha512(secrets.token_bytes(32)).digest())
    digest[0] &= 248
    digest[31] = (digest[31] & 63) | 64
    return bytes(digest)


def blob(key: bytes) -> str:
    """The key as ADD_ONION takes it."""
    return base64.b64encode(key).decode()


def read_key(path: Path) -> bytes | None:
    """The key in a file, None where there is no file. Raises Refused for one that is damaged or others can read."""
    try:
        data = path.read_bytes()
        mode = path.stat().st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refused(
            f"key file {path}: {error.strerror}; lntor has to run as the user whose key it is"
        ) from error
    if mode & 0o077:
        raise Refused(f"key file {path}: others can read it; chmod 600 {path}")
    if data.startswith(b"-----BEGIN RSA"):
        raise Refused(
            f"key file {path}: is the key of a v2 service, which tor serves no more; move it away for a new one"
        )
    if len(data) != len(HEADER) + KEY_SIZE or not data.startswith(HEADER):
        raise Refused(
            f"key file {path}: is no v3 key, or damaged ({len(data)} bytes); restore it, or move it away"
        )
    key = data[len(HEADER) :]
    if key[0] & 7 or key[31] & 0xC0 != 0x40:
        raise Refused(
            f"key file {path}: is damaged (no ed25519 scalar); restore it, or move it away for a new address"
        )
    return key


def write_key(path: Path, key: bytes) -> None:
    """Keep a key, whole or not at all, for its owner's eyes alone. Raises Refused where that is not possible."""
    write_atomically(path, HEADER + key, 0o600)


def write_atomically(path: Path, data: bytes, mode: int) -> None:
    try:
        number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(number, "wb") as file:
                os.fchmod(number, mode)
                file.write(data)
                file.flush()
                os.fsync(number)
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}; let lntor's user write in {path.parent}") from error


def check_directory(directory: Path) -> None:
    """A service directory that is there holds a sound key, or none yet. Raises Refused."""
    try:
        public = (directory / PUBLIC_FILE).read_bytes()
    except FileNotFoundError:
        public = None
    except OSError as error:
        raise Refused(
            f"{directory}: {error.strerror}; run lntor as tor's user (Debian: debian-tor)"
        ) from error
    key = read_key(directory / SECRET_FILE)
    if key is None:
        if public is not None:
            raise Refused(
                f"{directory}: has a public key and no secret one; restore {SECRET_FILE}, or move both away"
            )
        return
    if public is not None and (len(public) != 64 or not public.startswith(PUBLIC_HEADER)):
        raise Refused(f"{directory / PUBLIC_FILE}: is damaged; move it away, tor makes it anew")


def address_in(directory: Path) -> str | None:
    """The address that tor wrote into a service directory, without ".onion"."""
    try:
        text = (directory / "hostname").read_text().strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refused(
            f"{directory}: {error.strerror}; run lntor as tor's user (Debian: debian-tor)"
        ) from error
    return text.removesuffix(".onion") or None


def has_served(place: Path, address: str) -> bool:
    """Whether this key was published from this host before."""
    try:
        return _served_file(place).read_text() == _served_here(address)
    except OSError:
        return False


def note_served(place: Path, address: str) -> None:
    """Remember that this key was published from this host. Raises Refused where that can't be written."""
    write_atomically(_served_file(place), _served_here(address).encode(), 0o600)


def _served_file(place: Path) -> Path:
    return place.with_name(f"{place.name}.served")


def _served_here(address: str) -> str:
    """Of no use on another host: whoever copies a key may copy what lies beside it."""
    try:
        host = MACHINE_ID.read_text().strip()
    except OSError:
        host = socket.gethostname()
    return f"{address} {host}\n"


def lock(path: Path) -> IO[bytes]:
    """Hold the one right to serve a key on this host. Raises Unavailable while another lntor has it."""
    try:
        file = path.open("ab")
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}; let lntor's user write in {path.parent}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise Unavailable(
            f"another lntor serves this key ({path} is locked); end it, or give this one its own key"
        ) from error
    return file
