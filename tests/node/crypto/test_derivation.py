import json
from pathlib import Path

from node.crypto.derivation import (
    channel_keys,
    derive_public_key,
    derive_revocation_public_key,
    derive_revocation_secret,
    derive_secret,
    per_commitment_point,
    per_commitment_secret,
)
from node.crypto.keys import public_key
from node.crypto.shachain import FIRST_INDEX, secret_at

VECTORS = Path(__file__).parents[2] / "vectors" / "bolt3_keys.json"


def test_key_derivation_vectors() -> None:
    v = {
        name: bytes.fromhex(value)
        for name, value in json.loads(VECTORS.read_bytes()).items()
        if name != "source"
    }
    assert public_key(v["base_secret"]) == v["base_point"]
    assert public_key(v["per_commitment_secret"]) == v["per_commitment_point"]
    assert derive_public_key(v["base_point"], v["per_commitment_point"]) == v["localpubkey"]
    assert derive_secret(v["base_secret"], v["per_commitment_point"]) == v["localprivkey"]
    assert derive_revocation_public_key(v["base_point"], v["per_commitment_point"]) == v["revocationpubkey"]
    assert derive_revocation_secret(v["base_secret"], v["per_commitment_secret"]) == v["revocationprivkey"]


def test_commitment_numbers_count_up() -> None:
    seed = bytes([9] * 32)
    assert per_commitment_secret(seed, 0) == secret_at(seed, FIRST_INDEX)
    assert per_commitment_secret(seed, 5) == secret_at(seed, FIRST_INDEX - 5)
    assert per_commitment_point(seed, 5) == public_key(per_commitment_secret(seed, 5))


def test_channels_have_their_own_keys_and_do_not_print_them() -> None:
    node_secret = bytes([3] * 32)
    one, two = (channel_keys(bytes([1] * 32), index, node_secret) for index in (1, 2))
    secrets = [getattr(keys, name) for keys in (one, two) for name in keys.__struct_fields__[:-1]]
    assert len(set(secrets)) == 12
    assert one == channel_keys(bytes([1] * 32), 1, node_secret)
    assert repr(one) == str(one) == f"{one}" == "ChannelKeys(...)"
