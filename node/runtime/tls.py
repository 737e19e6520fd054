"""Mutual TLS 1.3 for the link: what this process shows, whom it believes, and who is believed no more.

OpenSSL checks chain, dates and purpose; name, role and revocation are checked here, on both sides, before the
protocol behind the connection exists. Files are read again when they change, so that a revocation counts within a
second, also for a link that is up.
"""

import asyncio
import datetime as dt
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from node.errors import Refused
from node.runtime import logs
from node.runtime.certificates import (
    Member,
    Role,
    member_of,
    read_certificate,
    read_key,
    read_revocations,
)
from node.runtime.config import TlsConfig

EXPIRES_SOON_DAYS = 30
OTHERS_RIGHTS = 0o077

log = logs.get("tls")
ProtocolFactory = Callable[[], asyncio.Protocol]


class Material:
    """What the files held when they were read; never changes."""

    def __init__(self, config: TlsConfig, role: Role, now_s: float) -> None:
        """Raises Refused with file, field and remedy."""
        certificate = read_certificate(
            _read(config.certificate, "certificate"), _named(config, "certificate")
        )
        authority = read_certificate(_read(config.authority, "authority"), _named(config, "authority"))
        key_path = _path(config.key)
        key = read_key(_read(config.key, "key"), _named(config, "key"))
        if key_path.stat().st_mode & OTHERS_RIGHTS:
            raise Refused(f"tls.key: {key_path}: others may read it; chmod 600 {key_path}")
        if key.public_key() != certificate.public_key():
            raise Refused(
                f"tls.key: {key_path}: does not fit tls.certificate {_path(config.certificate)}; "
                "name the two files that were issued together"
            )
        if not isinstance(authority.public_key(), ec.EllipticCurvePublicKey):
            raise Refused(f"{_named(config, 'authority')}: is no authority of `lnnode certs`")
        _check_dates(certificate, now_s, _named(config, "certificate"))
        _check_dates(authority, now_s, _named(config, "authority"))
        try:
            self.member = member_of(certificate)
        except Refused as error:
            raise Refused(f"{_named(config, 'certificate')}: {error}") from error
        if self.member.role not in (role, Role.SHARED):
            raise Refused(
                f"{_named(config, 'certificate')}: is that of a {self.member.role.value}, this is a {role.value}; "
                f"`lnnode certs issue NAME --role {role.value}`"
            )
        self.revoked: dict[int, dt.datetime] = {}
        if config.revoked:
            pem = _read(config.revoked, "revoked")
            self.revoked = read_revocations(pem, authority, _named(config, "revoked"))
        self.expires = certificate.not_valid_after_utc
        self.server = self._context(ssl.PROTOCOL_TLS_SERVER, config)
        self.client = self._context(ssl.PROTOCOL_TLS_CLIENT, config)

    def _context(self, protocol: Any, config: TlsConfig) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # a certificate names a member, wherever it runs
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_cert_chain(_path(config.certificate), _path(config.key))
            context.load_verify_locations(_path(config.authority))
        except ssl.SSLError as error:
            raise Refused(
                f"tls: {error.reason or error}; check certificate, key and authority with openssl x509"
            ) from error
        return context


class Tls:
    """What one process takes part with: its material, re-read when files change, and the connections that rest on it."""

    def __init__(self, config: TlsConfig, role: Role, now: Callable[[], float]) -> None:
        """Raises Refused."""
        self._config = config
        self._role = role
        self._now = now
        self._stamp = self._stamps()
        self._material = Material(config, role, now())
        self._live: dict[asyncio.Transport, Member] = {}
        self._warn_of_expiry()

    @property
    def member(self) -> Member:
        return self._material.member

    @property
    def server_context(self) -> ssl.SSLContext:
        return self._material.server

    @property
    def client_context(self) -> ssl.SSLContext:
        return self._material.client

    def admit(self, transport: asyncio.Transport) -> Member:
        """Who is at the other end. Raises Refused for whom OpenSSL believes and we do not."""
        self._reread()
        member = peer_of(transport)
        if member is None:
            raise Refused("it showed no certificate")
        wanted = Role.FRONTEND if self._role is Role.BACKEND else Role.BACKEND
        if member.role not in (wanted, Role.SHARED):
            raise Refused(f'"{member.name}" is a {member.role.value}, not a {wanted.value}')
        if since := self._material.revoked.get(member.serial):
            raise Refused(
                f'"{member.name}", certificate {member.serial:x}, is revoked since {since:%Y-%m-%d}'
            )
        self._live[transport] = member
        return member

    def sweep(self) -> None:
        """Once a second: what has changed in the files counts for connections that are up as well."""
        self._reread()
        for transport, member in list(self._live.items()):
            if transport.is_closing():
                del self._live[transport]
            elif member.serial in self._material.revoked:
                log.error("link_revoked", member=member.name, serial=f"{member.serial:x}")
                del self._live[transport]
                transport.abort()

    def _reread(self) -> None:
        stamp = self._stamps()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._material = Material(self._config, self._role, self._now())
        except Refused as error:  # half written, perhaps: what was read before stays in force
            log.error("tls_files_unusable", error=str(error))
            return
        log.info("tls_files_read", member=self.member.name, revoked=len(self._material.revoked))
        self._warn_of_expiry()

    def _stamps(self) -> tuple[tuple[int, int, int], ...]:
        """Tells apart two states of the files without reading them."""
        config = self._config
        stamps = []
        for name in (config.certificate, config.key, config.authority, config.revoked):
            try:
                status = _path(name).stat() if name else None
            except OSError:
                status = None
            stamps.append((status.st_mtime_ns, status.st_size, status.st_ino) if status else (0, 0, 0))
        return tuple(stamps)

    def _warn_of_expiry(self) -> None:
        left = self._material.expires - dt.datetime.fromtimestamp(self._now(), dt.UTC)
        if left.days < EXPIRES_SOON_DAYS:
            log.warning("certificate_expires_soon", member=self.member.name, days=left.days)


class Gate(asyncio.Protocol):
    """Stands before a protocol that exists only once the other end's certificate has been looked at."""

    def __init__(self, tls: Tls, factory: ProtocolFactory) -> None:
        self._tls = tls
        self._factory = factory
        self.inner: asyncio.Protocol | None = None
        self.refused = ""

    def connection_made(self, transport: Any) -> None:
        try:
            self._tls.admit(transport)
        except Refused as error:
            self.refused = str(error)
            transport.abort()
            return
        self.inner = self._factory()
        transport.set_protocol(self.inner)
        self.inner.connection_made(transport)


def load(config: TlsConfig, role: Role, now: Callable[[], float]) -> Tls | None:
    """None where nothing is configured. Raises Refused."""
    return Tls(config, role, now) if config.configured else None


def check(config: TlsConfig, role: Role) -> None:
    """Raises Refused where a process with this configuration would."""
    Material(config, role, time.time())


def peer_of(transport: asyncio.Transport) -> Member | None:
    """The member at the other end of a TLS connection; None where there is no TLS. Raises Refused."""
    link = transport.get_extra_info("ssl_object")
    raw = None if link is None else link.getpeercert(binary_form=True)
    return None if raw is None else member_of(x509.load_der_x509_certificate(raw))


def explain(error: BaseException) -> str:
    """What went wrong with a TLS handshake, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is no good: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    return str(error) or type(error).__name__


def _path(name: str) -> Path:
    return Path(name).expanduser()


def _named(config: TlsConfig, field: str) -> str:
    return f"tls.{field}: {_path(getattr(config, field))}"


def _read(name: str, field: str) -> bytes:
    try:
        return _path(name).read_bytes()
    except OSError as error:
        raise Refused(
            f"tls.{field}: {_path(name)}: {error.strerror}; `lnnode certs` makes the files, copy them here"
        ) from error


def _check_dates(certificate: x509.Certificate, now_s: float, what: str) -> None:
    now = dt.datetime.fromtimestamp(now_s, dt.UTC)
    if now > certificate.not_valid_after_utc:
        raise Refused(f"{what}: expired on {certificate.not_valid_after_utc:%Y-%m-%d}; issue it anew")
    if now < certificate.not_valid_before_utc:
        raise Refused(f"{what}: begins on {certificate.not_valid_before_utc:%Y-%m-%d %H:%M}; check the clock")
