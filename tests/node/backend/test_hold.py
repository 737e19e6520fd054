"""Held payments: killed at any moment they are still held, or claimed, or given back; never half of them."""

import asyncio
import shutil

import pytest
from backend_bench import Bench, Crash, assert_agree
from test_crash import MOMENTS, DoomedStore, DoomedWire

from node.channel import effects as fx
from node.channel import events as ev
from node.channel.model import Phase
from node.crypto import sphinx
from node.crypto.hashes import sha256
from node.errors import Refused
from node.payment import invoice as bolt11
from node.payment.receive import HOLD_MARGIN_BLOCKS
from node.wire.bolt4 import HopPayload, PaymentData
from node.wire.codec import encode_tlvs

PREIMAGE = b"\5" * 32
HASH = sha256(PREIMAGE)
AMOUNT_MSAT, PART_MSAT = 8_000_000, 4_000_000
EXPIRY_BLOCKS = 200


@pytest.fixture(scope="module")
def start(chain, tmp_path_factory):
    """A channel, and an invoice whose preimage we do not have: what each run begins with."""
    directory = tmp_path_factory.mktemp("start") / "node"

    async def make():
        bench = await Bench(directory, chain).start()
        alice = bench.peer("alice")
        await bench.connect(alice, bench.frontend())
        await bench.open_from(alice)
        made = await ask(bench, "invoice", amount_msat=AMOUNT_MSAT, hold=True, payment_hash=HASH.hex())
        assert "preimage" not in made
        await bench.drop()
        return alice.snapshot(), made["bolt11"]

    return directory, *asyncio.run(make())


class Stage:
    """We, and Alice who pays us in two parts."""

    def __init__(self, bench, snapshot, text) -> None:
        self.bench, self.alice = bench, bench.peer("alice")
        self.alice.restore(snapshot)
        self.secret = bolt11.decode(text).payment_secret
        self.began = 0
        self.before_msat = self.record.channel.local_msat

    @property
    def record(self):
        return self.bench.record(self.alice)

    async def connect(self) -> None:
        await self.bench.connect(self.alice, self.bench.frontend())
        await self.bench.settle()

    async def restart(self) -> None:
        await self.bench.drop()
        await self.bench.start()
        await self.connect()

    def pay(self) -> None:
        us, expiry = self.bench.backend.node_id, self.bench.chain.chain.height + EXPIRY_BLOCKS
        for _ in range(2):
            payload = HopPayload(
                amt_to_forward=PART_MSAT,
                outgoing_cltv_value=expiry,
                payment_data=PaymentData(self.secret, AMOUNT_MSAT),
            )
            onion = sphinx.build(self.bench.runtime.entropy(32), [(us, encode_tlvs(payload))], HASH)[0]
            self.alice.do(self.alice.half, ev.Add(99, PART_MSAT, HASH, expiry, onion))
            self.began += 1

    async def see(self):
        return await ask(self.bench, "received", payment_hash=HASH.hex())

    def ends(self) -> tuple[int, int]:
        """Parts that Alice has had settled and given back."""
        alice = self.alice
        settled = {e.htlc_id for e in alice.told(fx.HtlcFulfilled)}
        return len(settled), len({e.htlc_id for e in alice.told(fx.HtlcFailed)})

    def check(self, *, paid: bool) -> None:
        assert not self.bench.runtime.failures
        assert self.ends() == ((2, 0) if paid else (0, 2))
        assert self.record.channel.phase is Phase.NORMAL
        assert_agree(self.record, self.alice.half)
        assert self.record.channel.local_msat - self.before_msat == AMOUNT_MSAT * paid


async def ask(bench, name, **arguments):
    asked = asyncio.ensure_future(getattr(bench.backend.commands, name)(**arguments))
    await bench.until(asked.done)
    answer = asked.result()
    await bench.settle()
    return answer


@pytest.fixture
async def stage(chain, start, tmp_path):
    shutil.copytree(start[0], tmp_path / "n")
    made = Stage(await Bench(tmp_path / "n", chain).start(), *start[1:])
    await made.connect()
    yield made
    await made.bench.drop()


async def test_held_until_settled(stage):
    stage.pay()
    await stage.bench.settle()
    seen = await stage.see()
    assert (seen["state"], seen["held_msat"], seen["parts"], seen["paid"]) == ("held", AMOUNT_MSAT, 2, False)
    (listed,) = await ask(stage.bench, "invoices", state="held")
    assert listed == seen
    settled = await ask(stage.bench, "settle", preimage=PREIMAGE.hex())
    assert (settled["state"], settled["received_msat"], settled["held_msat"]) == ("settled", AMOUNT_MSAT, 0)
    assert (await ask(stage.bench, "settle", preimage=PREIMAGE.hex()))["state"] == "settled", "twice is once"
    with pytest.raises(Refused, match="paid"):
        await ask(stage.bench, "cancel", payment_hash=HASH.hex())
    assert await ask(stage.bench, "invoices") == []
    stage.check(paid=True)


async def test_held_until_cancelled(stage):
    stage.pay()
    await stage.bench.settle()
    assert (await ask(stage.bench, "cancel", payment_hash=HASH.hex()))["state"] == "cancelled"
    assert (await ask(stage.bench, "cancel", payment_hash=HASH.hex()))["state"] == "cancelled"
    with pytest.raises(Refused, match="cancelled"):
        await ask(stage.bench, "settle", preimage=PREIMAGE.hex())
    stage.check(paid=False)
    stage.pay()
    await stage.bench.settle()
    assert stage.ends() == (0, 4), "a cancelled invoice takes nothing"
    await stage.restart()
    assert (await stage.see())["state"] == "cancelled"


async def test_a_held_set_outlives_a_restart_its_invoice_and_the_final_delta(stage):
    """None of the checks on arrival is made again: what was held stays so."""
    stage.pay()
    await stage.bench.settle()
    await stage.bench.drop()
    stage.bench.chain.mine(EXPIRY_BLOCKS - HOLD_MARGIN_BLOCKS - 1)
    await stage.bench.start()
    stage.bench.runtime.time_s += 10_000
    await stage.connect()
    assert (await stage.see())["state"] == "held"
    stage.bench.backend.receiving.sweep()
    await ask(stage.bench, "settle", preimage=PREIMAGE.hex())
    stage.check(paid=True)


async def test_what_is_held_goes_back_before_it_endangers_the_channel(stage):
    stage.pay()
    await stage.bench.settle()
    release_height = (await stage.see())["release_height"]
    stage.bench.chain.mine(EXPIRY_BLOCKS - HOLD_MARGIN_BLOCKS)
    backend = stage.bench.backend
    await stage.bench.until(lambda: backend.htlcs.height == release_height)
    with pytest.raises(Refused, match="late"):
        await ask(stage.bench, "settle", preimage=PREIMAGE.hex())
    backend.receiving.sweep()
    await stage.bench.settle()
    assert (await stage.see())["state"] == "cancelled"
    stage.check(paid=False)


async def test_nothing_to_settle(stage):
    with pytest.raises(Refused, match="open"):
        await ask(stage.bench, "settle", preimage=PREIMAGE.hex())
    with pytest.raises(Refused, match="no such invoice"):
        await ask(stage.bench, "settle", preimage=(b"\6" * 32).hex())
    with pytest.raises(Refused, match="there was an invoice"):
        await ask(stage.bench, "invoice", amount_msat=1, hold=True, payment_hash=HASH.hex())
    for wrong in ({"hold": False}, {"hold": True, "preimage": PREIMAGE.hex()}):
        with pytest.raises(Refused, match="payment_hash"):
            await ask(stage.bench, "invoice", amount_msat=1, payment_hash=HASH.hex(), **wrong)
    made = await ask(stage.bench, "invoice", amount_msat=1, hold=True)
    assert sha256(bytes.fromhex(made["preimage"])).hex() == made["payment_hash"], "who settles needs it"


async def killed(chain, start, directory, moment: str, count: int, *, settles: bool) -> bool:
    """One run with the power cut at one moment; whether there was such a moment."""
    shutil.copytree(start[0], directory)
    store = DoomedStore(directory / "db.sqlite")
    bench = await Bench(directory, chain).start(store)
    stage = Stage(bench, *start[1:])
    await stage.connect()
    doomed = store
    if "message" in moment:
        doomed = bench.frontends[0].wire
        doomed.__class__ = DoomedWire
    doomed.left, doomed.before = count, moment.startswith("before")
    stage.pay()
    await bench.settle()
    command = (
        ("settle", {"preimage": PREIMAGE.hex()}) if settles else ("cancel", {"payment_hash": HASH.hex()})
    )
    if not bench.runtime.failures:
        await command_until_killed(bench, *command)
    crashed = bool(bench.runtime.failures)
    if crashed:
        assert isinstance(bench.runtime.failures[0], Crash), bench.runtime.failures
        await stage.restart()
        await bench.settle()
        state = (await stage.see())["state"]
        done = "settled" if settles else "cancelled"
        assert state in ("open", "held", done)
        assert sum(stage.ends()) == (2 if state == done else 0), "all of it or nothing"
        if state == "open":  # Alice died with her parts unsigned, or took them back
            stage.pay()
            await bench.settle()
            assert (await stage.see())["state"] == "held"
        await ask(bench, *command[:1], **command[1])
    stage.check(paid=settles)
    await bench.drop()
    return crashed


async def command_until_killed(bench, name, arguments) -> None:
    asked = asyncio.ensure_future(getattr(bench.backend.commands, name)(**arguments))
    await bench.until(lambda: asked.done() or bool(bench.runtime.failures))
    await bench.settle()
    if not asked.done():
        asked.cancel()


@pytest.mark.parametrize("settles", [True, False], ids=["settled", "cancelled"])
@pytest.mark.parametrize("moment", MOMENTS)
async def test_killed_at_any_moment_it_is_held_or_done(chain, start, tmp_path, moment, settles):
    count = 1
    while await killed(chain, start, tmp_path / str(count), moment, count, settles=settles):
        count += 1
    assert count > 4, "there are that many moments"
