"""A PostgreSQL server of the tests' own: a cluster in a temporary directory, on a Unix socket, durable as in earnest."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

DEBIAN = Path("/usr/lib/postgresql")
USER = "lnnode"
SETTINGS = "-c listen_addresses= -c fsync=on -c synchronous_commit=on -c full_page_writes=on"


def binaries() -> Path | None:
    """Where the server's programs are: Debian keeps them out of the PATH."""
    found = shutil.which("postgres")
    versions = sorted(DEBIAN.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return Path(found).parent if found else versions[-1].parent if versions else None


def require() -> Path:
    """The programs. Without them a user's run skips with the reason, CI fails."""
    found = binaries()
    if found is None:
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up("PostgreSQL: the server is not installed; run `make peers`, or apt-get install postgresql")
    return found


class Server:
    """Started and stopped at will; the databases survive."""

    def __init__(self) -> None:
        self._bin = require()
        self.directory = Path(tempfile.mkdtemp(prefix="pg-"))
        self._databases = 0
        if os.getuid() == 0:  # the server refuses to run as root
            owner = pwd.getpwnam("postgres")
            os.chown(self.directory, owner.pw_uid, owner.pw_gid)
        self._run("initdb", "-U", USER, "-A", "trust", "-E", "UTF8", "--no-locale", "-N")
        self.start()

    def _run(self, program: str, *arguments: str) -> None:
        user = "postgres" if os.getuid() == 0 else None
        command = [self._bin / program, "-D", self.directory / "data", *arguments]
        with (self.directory / "commands").open("ab") as log:
            subprocess.run(command, check=True, user=user, cwd=self.directory, stdout=log, stderr=log)

    def start(self) -> None:
        """Returns once it answers."""
        log = str(self.directory / "log")
        self._run("pg_ctl", "start", "-w", "-l", log, "-o", f"-k {self.directory} {SETTINGS}")

    def stop(self, how: str = "fast") -> None:
        """`immediate`: as if the machine's power had failed. Finds its process by the cluster's own pid file."""
        self._run("pg_ctl", "stop", "-w", "-m", how)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Every process of it is stopped where it is, for as long as the block lasts."""
        number = int((self.directory / "data" / "postmaster.pid").read_text().split()[0])
        ours = [postmaster := psutil.Process(number), *postmaster.children(recursive=True)]
        for process in ours:
            process.suspend()
        try:
            yield
        finally:
            for process in ours:
                process.resume()

    def url(self, name: str) -> str:
        return f"postgresql://{USER}@/{name}?host={self.directory}"

    def database(self, template: str = "template1") -> str:
        """The URL of a new one."""
        self._databases += 1
        name = f"t{self._databases}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def execute(self, sql: str, url: str | None = None) -> list:
        import psycopg

        with psycopg.connect(url or self.url("postgres"), autocommit=True) as db:
            done = db.execute(sql)
            return done.fetchall() if done.description else []

    def end(self) -> None:
        self.stop("immediate")
        shutil.rmtree(self.directory, ignore_errors=True)
