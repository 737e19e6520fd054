"""Two lntor on two tors behind one address that onionbalance publishes: docs/tor.md, "Several tors".

onionbalance waits 45 s before it does anything, and a test network has it look every 20 s; hence a network of its own.
"""

import asyncio
import base64
import contextlib
import hashlib
import os
import subprocess

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from onion import ROOT, require_tor, until, visit

from tor.testnet import ONIONBALANCE_INTERVAL_S, TorNetwork

pytestmark = pytest.mark.tor

ONIONBALANCE = ROOT / ".peers/onionbalance/bin/onionbalance"
# onionbalance 0.2.4 loops for ever in most networks of four or fewer directories, looking for one that it has not chosen
# yet (hashring.get_responsible_hsdirs: a replica takes up to four, the second needs one more); two more than it needs.
RELAYS = 6
# 50 s on a machine that does nothing else, 45 of them onionbalance's own.
MASTER_S = 120
# It takes the two introduction points that have gone for there until a fetch fails, at most a minute later.
FAILOVER_S = 90


@pytest.fixture(scope="module")
def network():
    """One whose time periods are those that onionbalance expects, with directories enough for it."""
    require_tor()
    with TorNetwork(voting_interval_s=ONIONBALANCE_INTERVAL_S, relays=RELAYS) as network:
        yield network


def onion_of(public_key):
    """The address of a key: tor's rend-spec-v3, [ONIONADDRESS]."""
    checksum = hashlib.sha3_256(b".onion checksum" + public_key + b"\x03").digest()[:2]
    return base64.b32encode(public_key + checksum + b"\x03").decode().lower() + ".onion"


@contextlib.contextmanager
def onionbalance(network, tor, directory, key, instances):
    """The program itself, as `onionbalance-config` would have configured it."""
    if not ONIONBALANCE.exists():
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up("onionbalance: it is not installed; run `make peers`")
    (directory / "master.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    services = [{"key": "master.key", "instances": [{"address": each} for each in instances]}]
    (directory / "config.yaml").write_text(yaml.safe_dump({"services": services}))
    command = [ONIONBALANCE, "-s", tor.control_socket, "-c", directory / "config.yaml", "--is-testnet"]
    with (directory / "log").open("wb") as log, network.inside():
        process = subprocess.Popen([*command, "-v", "info"], stdout=log, stderr=log, cwd=directory)
    try:
        yield directory / "log"
        assert process.poll() is None, (directory / "log").read_text()[-2_000:]
    finally:
        process.kill()
        process.wait()


async def test_the_common_address_outlives_one_of_the_tors(network, lntor, tmp_path):
    key = Ed25519PrivateKey.generate()
    master = onion_of(key.public_key().public_bytes_raw())
    other = network.join("other", "SocksPort 0", wait=False)
    front = network.join("front", "SocksPort 0", wait=False)
    for each in (other, front):
        each.wait_bootstrapped(100, 60)
    instances = [
        lntor(tor=tor, service={"onion_balance_master": master}).start() for tor in (network.service, other)
    ]
    addresses = [(await each.serving()).partition(":")[0] for each in instances]
    assert master not in addresses
    with onionbalance(network, front, tmp_path, key, addresses) as log:
        address = f"{master}:9735"
        try:
            _, took_s = await until(lambda: visit(network, address, "first"), MASTER_S, "the common address")
        except TimeoutError:
            raise AssertionError(log.read_text()[-3_000:]) from None
        print(f"common address reachable {took_s:.1f} s after onionbalance began")
        network.service.stop()
        numbers = iter(range(1_000))
        _, took_s = await until(
            lambda: visit(network, address, f"after {next(numbers)}"), FAILOVER_S, "by the other tor"
        )
        print(f"one of two tors killed: reachable after {took_s:.1f} s")
        answers = await asyncio.gather(*(visit(network, address, f"more {n}") for n in range(5)))
        assert any(answers)
