"""`lnsim chain`, as a user runs it, where it cannot do what it was told."""

import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lnsim.cli import app


@pytest.mark.parametrize("option", ["--rpc-port", "--zmq-port"])
def test_a_port_in_use_is_told(option: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(app, ["chain", "--datadir", str(tmp_path), option, port])
    assert result.exit_code == 2
    assert result.output == f"lnsim: {option} {port} is in use; choose another, or 0 for a free one\n"
    assert list(tmp_path.iterdir()) == [], "what it made is gone"


def test_no_port_at_all_is_told() -> None:
    assert CliRunner().invoke(app, ["chain", "--rpc-port", "70000"]).exit_code == 2
