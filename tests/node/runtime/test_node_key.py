"""The node's key on a frontend: from a seed, a file, the environment or AWS Secrets Manager."""

from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from node.crypto.derivation import node_secret
from node.errors import Refused
from node.runtime.config import NodeKeyConfig
from node.runtime.node_key import load

KEY = bytes(range(1, 33))


def written(path: Path, text: str, mode: int = 0o600) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_a_file(tmp_path: Path) -> None:
    path = written(tmp_path / "key", KEY.hex() + "\n")

    assert load(NodeKeyConfig(provider="file", path=path), {}) == KEY


def test_the_backends_own_seed(tmp_path: Path) -> None:
    path = written(tmp_path / "seed", KEY.hex() + "\n")

    assert load(NodeKeyConfig(provider="seed", path=path), {}) == node_secret(KEY)


def test_the_environment() -> None:
    assert load(NodeKeyConfig(provider="env"), {"NODE_PRIV_KEY": KEY.hex()}) == KEY
    assert load(NodeKeyConfig(provider="env", variable="X"), {"X": KEY.hex()}) == KEY


@pytest.fixture(scope="module")
def aws():
    """Amazon's service, as moto plays it."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        yield f"http://{host}:{port}"
    server.stop()


def test_aws_secrets_manager(aws: str) -> None:
    boto3.client("secretsmanager", region_name="eu-west-1", endpoint_url=aws).create_secret(
        Name="node-priv-key", SecretString=KEY.hex()
    )

    assert load(NodeKeyConfig(provider="aws-sm", region="eu-west-1", endpoint=aws), {}) == KEY


def test_a_secret_that_is_not_there_is_named(aws: str) -> None:
    config = NodeKeyConfig(provider="aws-sm", region="eu-west-1", endpoint=aws, secret="other")
    with pytest.raises(Refused, match=r"node_key.secret: other: .*ResourceNotFound"):
        load(config, {})


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("00" * 32, 0o600, "holds no key of 32 bytes"),
        ("ab" * 31, 0o600, "holds no key of 32 bytes"),
        ("secret!", 0o600, "holds no key of 32 bytes"),
        (KEY.hex(), 0o640, "others may read it; chmod 600"),
    ],
)
def test_what_is_no_key_is_refused_and_not_shown(tmp_path: Path, text: str, mode: int, says: str) -> None:
    path = written(tmp_path / "key", text, mode)
    with pytest.raises(Refused, match=says) as refused:
        load(NodeKeyConfig(path=path), {})
    assert text not in str(refused.value)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"node_key\.path: .*none: No such file"):
        load(NodeKeyConfig(path=str(tmp_path / "none")), {})
    with pytest.raises(Refused, match=r"node_key\.variable: NODE_PRIV_KEY is not set"):
        load(NodeKeyConfig(provider="env"), {})
