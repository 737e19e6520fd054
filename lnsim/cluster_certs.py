"""Certificates for a cluster whose link is TLS: an authority for one run."""

import datetime as dt
from pathlib import Path

from node.runtime.certificates import Issued, Role, issue, new_authority, revocations

DAYS = 2


class Certificates:
    """Files in a directory of their own, and what a configuration says of them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True)
        self._authority = new_authority(_now(), DAYS)
        (directory / "authority.pem").write_bytes(self._authority.certificate)
        (directory / "revoked.pem").write_bytes(revocations(self._authority, {}, _now()))

    @property
    def authority(self) -> Issued:
        return self._authority

    def section(self, name: str, role: Role) -> dict[str, str]:
        """The `tls` section of a member, its certificate made."""
        issued = issue(self._authority, name, role, _now(), DAYS)
        key = self._directory / f"{name}.key"
        key.touch(mode=0o600)
        key.write_bytes(issued.key)
        (self._directory / f"{name}.pem").write_bytes(issued.certificate)
        files = {
            "certificate": f"{name}.pem",
            "key": key.name,
            "authority": "authority.pem",
            "revoked": "revoked.pem",
        }
        return {field: str(self._directory / file) for field, file in files.items()}


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(microsecond=0)
