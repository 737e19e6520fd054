"""The Beanstalk bundle: what is in it starts a frontend, named by the instance metadata service."""

import base64
import os
import subprocess
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from node.cli import app
from node.operations.beanstalk import bundle


class Metadata(BaseHTTPRequestHandler):
    """Version 2: nothing without a token."""

    def do_PUT(self) -> None:
        self.answer("a token" if "X-aws-ec2-metadata-token-ttl-seconds" in self.headers else None)

    def do_GET(self) -> None:
        allowed = self.headers.get("X-aws-ec2-metadata-token") == "a token"
        self.answer("10.0.0.7" if allowed and self.path == "/latest/meta-data/local-ipv4" else None)

    def answer(self, text: str | None) -> None:
        self.send_response(401 if text is None else 200)
        self.end_headers()
        self.wfile.write((text or "").encode())

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def metadata():
    with HTTPServer(("127.0.0.1", 0), Metadata) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_same_release_makes_the_same_bundle(tmp_path: Path):
    first, second = tmp_path / "a.zip", tmp_path / "b.zip"
    assert CliRunner().invoke(app, ["bundle", "beanstalk", str(first)]).exit_code == 0
    bundle(second)
    assert first.read_bytes() == second.read_bytes()


def test_it_holds_a_frontend_and_nothing_of_a_simulation(tmp_path: Path):
    names = bundle(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.getinfo("run.sh").external_attr >> 16 & 0o111 == 0o111
        assert "prometheus-client" in archive.read("requirements.txt").decode()
        assert "kernel" not in archive.read("requirements.txt").decode()
    assert {"Procfile", "node/cli.py", "node/frontend/frontend.py"} <= set(names)
    assert not [name for name in names if name.startswith(("lnsim", "tests"))]


def test_it_starts_a_frontend_named_by_its_instance(tmp_path: Path, metadata: str):
    bundle(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        archive.extractall(tmp_path)
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nenv | grep ^LNNODE | sort; echo "$3"; ls secrets\n')
    for each in (python, tmp_path / "run.sh"):
        each.chmod(0o755)
    given = {"METADATA": metadata, "PYTHON": str(python), "LNNODE_BACKEND": "10.0.0.9:9736"}
    given["FILE_KEY.PEM".replace(".", "_")] = base64.b64encode(b"a key").decode()
    ran = subprocess.run(
        ["./run.sh"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], **given},
        check=False,
        capture_output=True,
        text=True,
    )

    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert "LNNODE_ID=10.0.0.7" in lines
    assert "LNNODE_BACKEND=10.0.0.9:9736" in lines
    assert "frontend" in lines
    assert (tmp_path / "secrets" / "key_pem").read_bytes() == b"a key"
    assert (tmp_path / "secrets" / "key_pem").stat().st_mode & 0o077 == 0


def test_a_place_that_can_not_be_written_is_named(tmp_path: Path):
    result = CliRunner().invoke(app, ["bundle", "beanstalk", str(tmp_path / "none" / "a.zip")])
    assert "name a file that can be written" in str(result.exception)
