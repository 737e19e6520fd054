"""PostgreSQL on a host, reached over the network with a password, as docs/database.md says."""

import secrets
import subprocess

from hosts import Host
from postgres_server import Server

ROLE, DATABASE, PORT = "lnnode", "lnnode", 5432
DURABLE = ("fsync=on", "synchronous_commit=on", "full_page_writes=on")


class Database(Server):
    """Its files and its administrator's socket are in a directory of this machine; its port is on the host alone."""

    def __init__(self, host: Host, address: str) -> None:
        self._host, self._address = host, address
        self._process: subprocess.Popen | None = None
        self.password = secrets.token_hex(16)
        super().__init__()

    @property
    def network_url(self) -> str:
        """What `database:` says; the password comes from the environment."""
        return f"postgresql://{ROLE}@{self._address}:{PORT}/{DATABASE}"

    def start(self) -> None:
        with (self.directory / "data" / "pg_hba.conf").open("a") as rules:
            rules.write(f"host {DATABASE} {ROLE} 10.0.0.0/24 scram-sha-256\n")
        settings = [
            f"listen_addresses={self._address}",
            f"unix_socket_directories={self.directory}",
            *DURABLE,
        ]
        argv = [self._bin / "postgres", "-D", self.directory / "data"]
        argv += [word for setting in settings for word in ("-c", setting)]
        log = self.directory / "log"
        self._process = self._host.popen(*argv, log=log, user="postgres", cwd=self.directory)

    def create(self) -> None:
        """The statements of docs/database.md; `lnnode` is the administrator's name here, so it only gets its password."""
        self.execute(f"ALTER ROLE {ROLE} LOGIN PASSWORD '{self.password}'")
        self.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE}")

    def is_up(self) -> bool:
        import psycopg

        try:
            return bool(self.execute("SELECT 1"))
        except psycopg.OperationalError:
            return False
