"""`lnnode certs`: a private authority for the link, one certificate a member, each revocable alone."""

import datetime as dt
import os
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509

from node.errors import Refused
from node.runtime.certificates import (
    Issued,
    Role,
    issue,
    member_of,
    new_authority,
    new_shared,
    read_certificate,
    read_revocations,
    revocations,
)

AUTHORITY_DAYS = 3_650
MEMBER_DAYS = 825

app = typer.Typer(no_args_is_help=True, help="Certificates for the link between hosts.")
Place = Annotated[Path, typer.Option("--dir", help="where authority and certificates are kept")]
DEFAULT_PLACE = Path("~/.lnnode/certs")


@app.command()
def init(
    place: Place = DEFAULT_PLACE,
    days: Annotated[int, typer.Option(min=1, help="for how long the authority is good")] = AUTHORITY_DAYS,
    *,
    shared: Annotated[bool, typer.Option("--shared", help="one certificate for all members instead")] = False,
) -> None:
    """Make an authority; or with --shared one certificate that all members use."""
    place = place.expanduser()
    for name in ("authority.pem", "shared.pem"):
        if (place / name).exists():
            raise Refused(f"{place / name}: is there already; choose another --dir")
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    if shared:
        _keep(place, "shared", new_shared(_now(), days))
        _show_settings(place, "shared", "shared")
        return
    authority = new_authority(_now(), days)
    _keep(place, "authority", authority)
    _write(place / "revoked.pem", revocations(authority, {}, _now()))
    (place / "issued").mkdir(mode=0o700)
    typer.echo(f"{place}: authority made; keep authority.key off all hosts that run a member")
    typer.echo("next: lnnode certs issue NAME --role backend, and one --role frontend for each frontend")


@app.command("issue")
def issue_member(
    name: Annotated[str, typer.Argument(help="the frontend's id, or any name for a backend")],
    role: Annotated[Role, typer.Option(help="what the member may be")] = Role.FRONTEND,
    place: Place = DEFAULT_PLACE,
    days: Annotated[int, typer.Option(min=1, help="for how long it is good")] = MEMBER_DAYS,
) -> None:
    """Make a member's certificate and key; again under the same name to renew it."""
    if role is Role.SHARED or name in ("authority", "revoked", "shared"):
        raise Refused(
            "a member is a backend or a frontend, and has a name of its own; --shared goes with init"
        )
    place = place.expanduser()
    issued = issue(_authority(place), name, role, _now(), days)
    serial = read_certificate(issued.certificate, name).serial_number
    _write(place / "issued" / f"{serial:x}.pem", issued.certificate)
    _keep(place, name, issued)
    _show_settings(place, name, "authority")


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="whose certificates are good no more, all of them")],
    place: Place = DEFAULT_PLACE,
) -> None:
    """Revoke all certificates that were issued under a name; copy the list to the members."""
    place = place.expanduser()
    authority = _authority(place)
    serials = _revoked(place, authority)
    found = [each for each in _issued(place) if member_of(each).name == name]
    if not found:
        raise Refused(f'nothing was issued to "{name}"; `lnnode certs show` lists who has a certificate')
    for certificate in found:
        serials.setdefault(certificate.serial_number, _now())
    _write(place / "revoked.pem", revocations(authority, serials, _now()))
    typer.echo(
        f"{name}: {len(found)} revoked; copy {place / 'revoked.pem'} to every member, none need restart"
    )


@app.command()
def show(place: Place = DEFAULT_PLACE) -> None:
    """List what was issued: name, role, serial number, end, state."""
    place = place.expanduser()
    if (place / "shared.pem").exists():
        _line(read_certificate(_read(place / "shared.pem"), "shared.pem"), "good")
        return
    authority = _authority(place)
    serials = _revoked(place, authority)
    issuer = read_certificate(authority.certificate, "authority.pem")
    typer.echo(f"authority until {issuer.not_valid_after_utc:%Y-%m-%d}")
    for certificate in sorted(
        _issued(place), key=lambda each: (member_of(each).name, each.not_valid_before_utc)
    ):
        since = serials.get(certificate.serial_number)
        expired = certificate.not_valid_after_utc < _now()
        _line(certificate, f"revoked {since:%Y-%m-%d}" if since else "expired" if expired else "good")


def _line(certificate: x509.Certificate, state: str) -> None:
    member, until = member_of(certificate), certificate.not_valid_after_utc
    typer.echo(f"{member.name}  {member.role.value}  {member.serial:x}  until {until:%Y-%m-%d}  {state}")


def _show_settings(place: Path, name: str, authority: str) -> None:
    """What the member's configuration says; the files go along."""
    typer.echo("tls:")
    typer.echo(f"  certificate: {place / name}.pem")
    typer.echo(f"  key: {place / name}.key")
    typer.echo(f"  authority: {place / authority}.pem")
    if authority == "authority":
        typer.echo(f"  revoked: {place / 'revoked.pem'}")


def _authority(place: Path) -> Issued:
    return Issued(_read(place / "authority.pem"), _read(place / "authority.key"))


def _revoked(place: Path, authority: Issued) -> dict[int, dt.datetime]:
    issuer = read_certificate(authority.certificate, "authority.pem")
    path = place / "revoked.pem"
    return read_revocations(_read(path), issuer, str(path))


def _issued(place: Path) -> list[x509.Certificate]:
    return [read_certificate(_read(path), str(path)) for path in (place / "issued").glob("*.pem")]


def _keep(place: Path, name: str, issued: Issued) -> None:
    """The key first, so that no certificate is ever without; nobody else may read it."""
    _write(place / f"{name}.key", issued.key)
    _write(place / f"{name}.pem", issued.certificate)


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all: members read these files while they change."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, data)
        os.fsync(handle)
    finally:
        os.close(handle)
    draft.rename(path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}; `lnnode certs init` makes it, --dir says where") from error


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(microsecond=0)
