"""Invoices over time, and hashes that come twice."""

import asyncio

import pytest
from backend_bench import Bench

from node.backend import receiving
from node.channel import effects as fx
from node.channel import events as ev
from node.crypto import sphinx
from node.crypto.hashes import sha256
from node.errors import Refused
from node.payment import invoice as bolt11
from node.wire.bolt4 import HopPayload, PaymentData
from node.wire.codec import encode_tlvs

PREIMAGE, AMOUNT_MSAT = b"\7" * 32, 5_000_000


@pytest.fixture
async def bench(chain, tmp_path):
    made = await Bench(tmp_path / "node", chain).start()
    yield made
    assert not made.runtime.failures, "no task of the backend died"
    await made.drop()


async def invoice(bench, **changes):
    asked = asyncio.ensure_future(
        bench.backend.commands.invoice(**{"amount_msat": AMOUNT_MSAT, "description": "tea"} | changes)
    )
    await bench.until(asked.done)
    return asked.result()


async def pay(bench, alice, secret=None) -> bool:
    """Whether we took it; without a secret it is a keysend."""
    us, expiry = bench.backend.node_id, bench.chain.chain.height + 40
    final = (
        {"keysend_preimage": PREIMAGE}
        if secret is None
        else {"payment_data": PaymentData(secret, AMOUNT_MSAT)}
    )
    payload = HopPayload(amt_to_forward=AMOUNT_MSAT, outgoing_cltv_value=expiry, **final)
    onion = sphinx.build(bench.runtime.entropy(32), [(us, encode_tlvs(payload))], sha256(PREIMAGE))[0]
    before = len(alice.told(fx.HtlcFulfilled))
    alice.do(alice.half, ev.Add(99, AMOUNT_MSAT, sha256(PREIMAGE), expiry, onion))
    await bench.settle()
    return len(alice.told(fx.HtlcFulfilled)) > before


async def test_expired_invoices_make_room_for_new_ones(bench, monkeypatch):
    monkeypatch.setattr(receiving, "MAX_OPEN_INVOICES", 2)
    await invoice(bench, expiry_s=10)
    await invoice(bench, expiry_s=10)
    with pytest.raises(Refused, match="too many"):
        await invoice(bench)
    bench.runtime.time_s += 11
    await invoice(bench)


async def test_an_invoice_is_paid_once_and_its_record_stays(bench):
    alice = bench.peer("alice")
    await bench.connect(alice, bench.frontend())
    await bench.open_from(alice)
    made = await invoice(bench, preimage=PREIMAGE.hex())
    secret = bolt11.decode(made["bolt11"]).payment_secret
    assert not await pay(bench, alice, b"\1" * 32), "not without its secret"
    assert await pay(bench, alice, secret)
    assert not await pay(bench, alice, secret), "its preimage is sold"
    await pay(bench, alice)
    record = await bench.backend.commands.received(payment_hash=made["payment_hash"])
    assert (record["description"], record["paid"], record["keysend"]) == ("tea", True, False)
