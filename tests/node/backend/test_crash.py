"""DESIGN 9.2: killed at any store or send boundary, the backend comes back: every channel reestablishes, nothing is
paid twice, nothing is lost.

Alice forwards three payments through us to Bob (he settles one, fails one, cannot read one) and pays us; we pay Bob.
The run is repeated with the power cut before and after each commit, and before and after each message that leaves.
"""

import asyncio
import shutil

import msgspec
import pytest
from backend_bench import Bench, Crash, FastStore, Wire, assert_agree

from node.backend.receiving import Received
from node.channel import effects as fx
from node.channel import events as ev
from node.channel.model import Phase
from node.crypto import sphinx
from node.crypto.hashes import sha256
from node.link import frames
from node.payment import order, send
from node.wire.bolt4 import BADONION, HopPayload
from node.wire.codec import encode_tlvs

SETTLED, FAILED, MALFORMED, FOR_US, OURS = (sha256(b"preimage %d" % n) for n in range(5))
AMOUNT_MSAT, FEE_MSAT, FOR_US_MSAT, OURS_MSAT = 20_000_000, 5_000, 7_000_000, 9_000_000
MOMENTS = ("before a commit", "after a commit", "before a message", "after a message")


class Doomed:
    """Ends the process at one commit."""

    left, before = -1, True

    def commit(self, statements):
        self.left -= 1
        if self.left == 0 and self.before:
            raise Crash
        super().commit(statements)
        if self.left == 0:
            raise Crash


class DoomedStore(Doomed, FastStore):
    """In a file."""


class DoomedWire(Wire):
    """Ends the process at one message."""

    left, before = -1, True

    def write(self, data):
        is_peers = data[4] == frames.PEER
        self.left -= is_peers
        if is_peers and self.left == 0 and self.before:
            raise Crash
        super().write(data)
        if is_peers and self.left == 0:
            raise Crash


@pytest.fixture(scope="module")
def start(chain, tmp_path_factory):
    """Two channels, ready: the files and the peers' halves that each run begins with."""
    directory = tmp_path_factory.mktemp("start") / "node"

    async def make():
        bench = await Bench(directory, chain).start()
        alice, bob = bench.peer("alice"), bench.peer("bob")
        frontend = bench.frontend()
        for peer in (alice, bob):
            await bench.connect(peer, frontend)
        await bench.open_from(alice)
        await bench.open_to(bob)
        await bench.drop()
        return alice.snapshot(), bob.snapshot()

    return directory, asyncio.run(make())


def onion(node_id, payment_hash, *hops):
    payloads = [(hop, encode_tlvs(payload)) for hop, payload in hops]
    return sphinx.build(sha256(b"session" + payment_hash), payloads, payment_hash)[0]


class Story:
    """One run of everything that the module's docstring says."""

    def __init__(self, bench, snapshots) -> None:
        self.bench = bench
        self.alice, self.bob = bench.peer("alice"), bench.peer("bob")
        self.alice.restore(snapshots[0])
        self.bob.restore(snapshots[1])
        self.bob.answers = {
            sha256(SETTLED): lambda id_: ev.Fulfill(id_, SETTLED),
            sha256(FAILED): lambda id_: ev.Fail(id_, b"no" * 146),
            sha256(MALFORMED): lambda id_: ev.FailMalformed(id_, bytes(32), BADONION | 5),
            sha256(OURS): lambda id_: ev.Fulfill(id_, OURS),
        }
        self.ids = {}
        self.adds = []

    async def connect(self) -> None:
        frontend = self.bench.frontend()
        for peer in (self.alice, self.bob):
            await self.bench.connect(peer, frontend)
        await self.bench.settle()

    def ours_msat(self) -> int:
        return sum(self.bench.record(peer).channel.local_msat for peer in (self.alice, self.bob))

    def begin(self) -> None:
        us, height = self.bench.backend.node_id, self.bench.chain.chain.height
        alias = self.bench.record(self.bob).channel.alias
        for preimage in (SETTLED, FAILED, MALFORMED):
            payment_hash = sha256(preimage)
            hop = HopPayload(
                amt_to_forward=AMOUNT_MSAT, outgoing_cltv_value=height + 50, short_channel_id=alias
            )
            last = HopPayload(amt_to_forward=AMOUNT_MSAT, outgoing_cltv_value=height + 50)
            packet = onion(us, payment_hash, (us, hop), (self.bob.node_id, last))
            self.add(preimage, AMOUNT_MSAT + FEE_MSAT, height + 50 + 80, packet)
        payload = HopPayload(
            amt_to_forward=FOR_US_MSAT, outgoing_cltv_value=height + 40, keysend_preimage=FOR_US
        )
        self.add(FOR_US, FOR_US_MSAT, height + 40, onion(us, sha256(FOR_US), (us, payload)))
        self.paying = asyncio.ensure_future(self.pay())

    async def pay(self):
        node = self.bench.backend
        payment = order.pay_keysend(
            self.bob.node_id,
            source=node.node_id,
            amount_msat=OURS_MSAT,
            preimage=OURS,
            max_fee_msat=1_000,
            extra_expiry_delta=0,
            deadline_s=node.runtime.now() + 60,
        )
        return await node.sending.pay(payment)

    def add(self, preimage, amount_msat, expiry, packet) -> None:
        add = ev.Add(99, amount_msat, sha256(preimage), expiry, packet)
        self.adds.append(add)
        reply = next(e for e in self.alice.do(self.alice.half, add) if isinstance(e, fx.Reply))
        assert reply.error is None, reply.error
        self.ids[preimage] = reply.value

    def check(self, before_msat: int) -> None:
        fulfilled = {effect.htlc_id for effect in self.alice.told(fx.HtlcFulfilled)}
        removed = {
            effect.htlc_id
            for kind in (fx.HtlcFailed, fx.HtlcMalformed, fx.HtlcDropped)
            for effect in self.alice.told(kind)
        }
        for preimage, htlc_id in self.ids.items():
            assert (htlc_id in fulfilled) ^ (htlc_id in removed), "every payment ends, in one way"
            if preimage in (FAILED, MALFORMED):
                assert htlc_id in removed
        received = [payment_hash for _, payment_hash in self.bob.receives]
        assert len(received) == len(set(received)), "nobody is paid twice"
        assert (sha256(SETTLED) in received) == (self.ids[SETTLED] in fulfilled), "what Bob took, Alice paid"
        paid_bob, paid_us = sha256(OURS) in received, self.ids[FOR_US] in fulfilled
        gained = FEE_MSAT * (self.ids[SETTLED] in fulfilled) + FOR_US_MSAT * paid_us - OURS_MSAT * paid_bob
        assert self.ours_msat() - before_msat == gained, "no msat is lost or made"
        for peer in (self.alice, self.bob):
            assert self.bench.record(peer).channel.phase is Phase.NORMAL
            assert_agree(self.bench.record(peer), peer.half)
        self.check_store(paid_bob=paid_bob, paid_us=paid_us)

    def check_store(self, *, paid_bob: bool, paid_us: bool) -> None:
        rows = self.bench.backend.store.rows
        assert rows("SELECT count(*) FROM forwards") == [(0,)]
        assert rows("SELECT count(*) FROM payment_parts") == [(0,)]
        payments = [
            msgspec.msgpack.decode(data, type=send.Payment) for (data,) in rows("SELECT data FROM payments")
        ]
        assert [p.phase is send.Phase.SETTLED for p in payments] in (
            [paid_bob],
            [] if not paid_bob else [True],
        )
        invoices = [
            msgspec.msgpack.decode(data, type=Received) for (data,) in rows("SELECT data FROM invoices")
        ]
        assert [row.received_msat for row in invoices] == [FOR_US_MSAT] * paid_us


async def told(bench, story, start_again) -> bool:
    """The story from its beginning to its end, with a new life where the power was cut; whether it was."""
    before_msat = story.ours_msat()
    story.begin()
    await bench.settle()
    crashed = bool(bench.runtime.failures)
    if crashed:
        assert isinstance(bench.runtime.failures[0], Crash), bench.runtime.failures
        story.paying.cancel()
        await bench.drop()
        await start_again()
        await story.connect()
        await bench.settle()
    else:
        _, result = await story.paying
        assert result.preimage == OURS
    assert not bench.runtime.failures
    story.check(before_msat)
    await bench.drop()
    return crashed


async def run(chain, start, directory, moment: str | None, count: int) -> bool:
    """Whether the power was cut: otherwise the story has fewer such moments."""
    shutil.copytree(start[0], directory)
    bench = Bench(directory, chain)
    store = DoomedStore(directory / "db.sqlite")
    await bench.start(store)
    story = Story(bench, start[1])
    await story.connect()
    if moment is not None and "commit" in moment:
        store.left, store.before = count, moment.startswith("before")
    elif moment is not None:
        bench.frontends[0].wire.__class__ = DoomedWire
        bench.frontends[0].wire.left, bench.frontends[0].wire.before = count, moment.startswith("before")
    return await told(bench, story, bench.start)


async def test_undisturbed_every_payment_ends_as_it_should(chain, start, tmp_path):
    assert not await run(chain, start, tmp_path / "n", None, 0)


@pytest.mark.parametrize("moment", MOMENTS)
async def test_killed_at_any_moment_nothing_is_lost_or_paid_twice(chain, start, tmp_path, moment):
    count = 1
    while await run(chain, start, tmp_path / str(count), moment, count):
        count += 1
    assert count > 5, "the story has that many moments"


async def test_a_preimage_is_kept_even_where_upstream_can_not_take_it_now(chain, start, tmp_path):
    """DESIGN 4: stored first of all, then settles upstream, whatever else fails, across restarts."""
    shutil.copytree(start[0], tmp_path / "n")
    bench = await Bench(tmp_path / "n", chain).start()
    story = Story(bench, start[1])
    await story.connect()
    before_msat = story.ours_msat()
    apply = bench.backend.channels.apply

    def faulty(record, event):
        assert not isinstance(event, ev.Fulfill), "a fault of ours"
        return apply(record, event)

    bench.backend.channels.apply = faulty
    story.begin()
    await bench.settle()
    story.paying.cancel()
    assert not story.alice.told(fx.HtlcFulfilled)
    await bench.drop()
    await bench.start()
    await story.connect()
    assert not bench.runtime.failures
    assert story.ids[SETTLED] in {effect.htlc_id for effect in story.alice.told(fx.HtlcFulfilled)}
    story.check(before_msat)
    await bench.drop()


async def test_an_htlc_that_is_asked_about_again_is_not_forwarded_again(chain, start, tmp_path):
    shutil.copytree(start[0], tmp_path / "n")
    bench = await Bench(tmp_path / "n", chain).start()
    story = Story(bench, start[1])
    await story.connect()
    story.bob.answers.clear()
    story.begin()
    await bench.settle()
    record = bench.record(story.alice)
    for htlc in record.channel.received.values():
        onion = next(effect.onion for effect in story.adds if effect.payment_hash == htlc.payment_hash)
        again = fx.HtlcReady(msgspec.structs.replace(htlc, onion=onion))
        bench.backend.htlcs.htlc_ready(record, again)
    await bench.settle()
    received = [payment_hash for _, payment_hash in story.bob.receives]
    assert len(received) == len(set(received)) == 4
    story.paying.cancel()
    await bench.drop()
