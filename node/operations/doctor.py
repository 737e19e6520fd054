"""Looks at a host before and while a process of a node runs on it, and says what to mend. Changes nothing."""

import asyncio
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, assert_never

import yaml
from msgspec import Struct

from node.errors import Refused
from node.operations import doctor_backend, doctor_tor
from node.operations.finding import Finding, Level, bad, good, warn
from node.runtime import tls
from node.runtime.addresses import split_address
from node.runtime.certificates import Role, member_of, read_certificate
from node.runtime.config import (
    KINDS,
    BackendConfig,
    FrontendConfig,
    StandaloneConfig,
    TlsConfig,
    load,
)
from node.runtime.files import raise_file_limit
from node.runtime.release import release
from node.runtime.section import Section

MIN_FILES = 4_096  # sockets are files
MIN_DAYS = 30  # that a certificate is still good for
REACH_TIMEOUT_S = 3.0


class Patient(Struct, frozen=True):
    kind: str
    config: Section


def patient(path: Path, kind: str | None) -> Patient:
    """The configuration, and what it is of: told by its fields unless said. Raises Refused."""
    name = kind or _guess(path)
    if name not in KINDS:
        raise Refused(f'"{name}" is no kind of process; there are {", ".join(KINDS)}')
    return Patient(name, load(KINDS[name], path))


def _guess(path: Path) -> str:
    try:
        raw: Any = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return "backend"  # `load` says what is wrong with it
    fields = set(raw) if isinstance(raw, dict) else set()
    if isinstance(raw, dict) and isinstance(raw.get("backend"), dict):
        return "standalone"
    others = set(FrontendConfig.__struct_fields__) - set(BackendConfig.__struct_fields__)
    return "frontend" if fields & others else "backend"


async def examine(who: Patient, now_s: float) -> list[Finding]:
    """All that was found, good news too."""
    found = [good(f"lnnode {release()}, configuration of a {who.kind}"), *_files()]
    config = who.config
    match config:
        case BackendConfig():
            found += [each async for each in _backend(config, now_s)]
            found += [each async for each in doctor_tor.socks("tor.socks", config.tor.socks, elsewhere=True)]
        case FrontendConfig():
            found += [each async for each in _frontend(config, now_s)]
            found += [each async for each in doctor_tor.socks("socks", config.socks, elsewhere=False)]
        case StandaloneConfig():
            found += _port("listen", config.listen)
            found += [each async for each in _backend(config.backend, now_s)]
            proxy = config.backend.tor.socks
            found += [each async for each in doctor_tor.socks("tor.socks", proxy, elsewhere=False)]
        case _:
            assert_never(config)  # type: ignore[arg-type]  # no other section is in KINDS
    return found


def worst(found: list[Finding]) -> Level:
    return max((each.level for each in found), default=Level.GOOD)


async def _backend(config: BackendConfig, now_s: float) -> AsyncIterator[Finding]:
    for name, address in (
        ("link", config.link_address),
        ("api", config.api_address),
        ("admin", config.admin),
    ):
        for finding in _port(name, address):
            yield finding
    for finding in (
        *certificates(config.tls, Role.BACKEND, now_s),
        *_secrets(config),
        *doctor_tor.address_file(config.tor),
        *doctor_backend.database(config, now_s),
    ):
        yield finding
    async for finding in doctor_backend.chain(config, now_s):
        yield finding
    for finding in doctor_backend.running(config):
        yield finding


async def _frontend(config: FrontendConfig, now_s: float) -> AsyncIterator[Finding]:
    for finding in (*certificates(config.tls, Role.FRONTEND, now_s), *_certified_name(config)):
        yield finding
    for name, address in (
        ("listen", config.listen),
        ("proxy_listen", config.proxy_listen),
        ("admin", config.admin),
    ):
        for finding in _port(name, address):
            yield finding
    reached = 0
    for address in config.backends:
        why = await _unreachable(address)
        reached += why is None
        yield (
            good(f"a backend listens at {address}")
            if why is None
            else warn(
                f"no backend answers at {address}: {why}",
                "right for a standby; else start it, or open its port",
            )
        )
    if not reached:
        yield bad(
            "no backend can be reached", "check `backend`, the firewall, and that `lnnode backend` runs"
        )


def _files() -> Iterator[Finding]:
    limit = raise_file_limit()
    if limit < MIN_FILES:
        yield warn(
            f"{limit} open files are allowed", f"raise LimitNOFILE to {MIN_FILES} or more: each peer is one"
        )
    else:
        yield good(f"{limit} open files are allowed")


def _port(name: str, address: str) -> Iterator[Finding]:
    """Whether it can be had, or somebody has it."""
    if not address:
        return
    kind, host, port = split_address(address)
    if kind == "unix":
        folder = Path(host).parent
        if folder.exists() and stat.S_IMODE(folder.stat().st_mode) & 0o002:
            yield bad(f"{name}: everybody may write to {folder}", f"chmod o-w {folder}")
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            yield warn(
                f"{name}: {address}: {error.strerror}",
                "right while this process runs; else find who has it (ss -ltnp), or choose another",
            )
        else:
            yield good(f"{name}: {address} is free")


def certificates(config: TlsConfig, role: Role, now_s: float) -> Iterator[Finding]:
    """Files, rights, dates and role, as a process would look at them at its start."""
    if not config.configured:
        return
    try:
        tls.check(config, role)
    except Refused as error:
        yield bad(f"certificates: {error}", "docs/hosts.md, certificates")
        return
    path = Path(config.certificate).expanduser()
    held = read_certificate(path.read_bytes(), "tls.certificate")
    days = int((held.not_valid_after_utc.timestamp() - now_s) / 86_400)
    if days < MIN_DAYS:
        yield warn(
            f"certificates: {path} ends in {days} days", "lnnode certs issue it again, and copy both files"
        )
    else:
        yield good(f"certificates: {path} is good for {days} days")


def _certified_name(config: FrontendConfig) -> Iterator[Finding]:
    """A frontend gets in under its certificate's name alone; systemd's unit gives it one, HOST-N."""
    path = Path(config.tls.certificate).expanduser()
    try:
        member = member_of(read_certificate(path.read_bytes(), "tls.certificate"))
    except (OSError, Refused):  # none, or one that was complained of
        return
    if member.role is Role.SHARED:
        return
    if config.id and config.id != member.name:
        yield bad(
            f'certificates: {path} is that of "{member.name}", not of "{config.id}"',
            f"lnnode certs issue {config.id}, or set id to {member.name}",
        )
    else:
        yield good(f'certificates: the backend takes this frontend as "{member.name}", and under no other id')


def _secrets(config: BackendConfig) -> Iterator[Finding]:
    from node.backend.identity import SEED_FILE  # noqa: PLC0415 - a frontend never needs it

    path = config.directory / SEED_FILE
    if not path.exists():
        yield warn(f"{path} is not there", "right before the first start; else restore it from your backup")
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        yield bad(f"{path} may be read by others ({mode:o})", f"chmod 600 {path}")
    else:
        yield good(f"{path} is its owner's alone")


async def _unreachable(address: str) -> str | None:
    kind, host, port = split_address(address)
    try:
        async with asyncio.timeout(REACH_TIMEOUT_S):
            if kind == "unix":
                _, writer = await asyncio.open_unix_connection(host)
            else:
                _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as error:
        return getattr(error, "strerror", None) or str(error) or "no answer in time"
    writer.close()
    return None
