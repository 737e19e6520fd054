"""The node's key where a frontend is to have it: for handshakes alone, though whoever has it may speak for the node.

It opens onions and signs invoices and announcements, but moves no money: channels and wallet have keys of their own,
which the backend derives from its seed and keeps.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from node.crypto.derivation import node_secret
from node.crypto.keys import is_valid_secret
from node.errors import Refused
from node.runtime.config import NodeKeyConfig

OTHERS_RIGHTS = 0o077
KEY_SIZE = 32


def load(config: NodeKeyConfig, environment: Mapping[str, str] = os.environ) -> bytes:
    """The key, from where the configuration says. Raises Refused with field and remedy."""
    match config.provider:
        case "seed":
            return node_secret(_hex(_read(config.path), f"node_key.path: {config.path}", valid=False))
        case "env":
            text = environment.get(config.variable, "")
            if not text:
                raise Refused(f"node_key.variable: {config.variable} is not set in the environment")
            return _hex(text, f"node_key.variable: {config.variable}")
        case "aws-sm":
            return _hex(_secret(config), f"node_key.secret: {config.secret}")
        case _:
            return _hex(_read(config.path), f"node_key.path: {config.path}")


def _read(name: str) -> str:
    path = Path(name).expanduser()
    try:
        if path.stat().st_mode & OTHERS_RIGHTS:
            raise Refused(f"node_key.path: {path}: others may read it; chmod 600 {path}")
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "is no text"
        raise Refused(f"node_key.path: {path}: {why}; `lnnode node-key` writes it on the backend") from error


def _hex(text: str, what: str, *, valid: bool = True) -> bytes:
    try:
        secret = bytes.fromhex(text.strip())
    except ValueError:
        secret = b""
    if len(secret) != KEY_SIZE or (valid and not is_valid_secret(secret)):
        raise Refused(f"{what}: holds no key of {KEY_SIZE} bytes in hex")  # never what it does hold
    return secret


def _secret(config: NodeKeyConfig) -> str:
    """The secret's string in AWS Secrets Manager."""
    try:
        import boto3  # noqa: PLC0415 - an extra
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - as above
    except ImportError as error:
        raise Refused("node_key.provider: aws-sm needs boto3; pip install 'lnsim[aws]'") from error
    try:
        client = boto3.client(
            "secretsmanager", region_name=config.region or None, endpoint_url=config.endpoint or None
        )
        answer = client.get_secret_value(SecretId=config.secret)
    except (BotoCoreError, ClientError, ValueError) as error:
        raise Refused(f"node_key.secret: {config.secret}: {error}") from error
    return str(answer.get("SecretString", ""))
