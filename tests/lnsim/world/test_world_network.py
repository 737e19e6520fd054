"""Connections in memory behave as asyncio's sockets do: order, backpressure, ends, resets, and links that fail."""

import asyncio

import pytest

from lnsim.world.loop import run
from lnsim.world.transport import WAY_BYTES
from lnsim.world.world import World
from node.errors import Refused

ADDRESS = "127.0.0.1:9735"

elapse = asyncio.sleep  # virtual time: nobody waits


class Log(asyncio.Protocol):
    """Remembers all that happens to it."""

    def __init__(self, *, keep_open=False):
        self.events = []
        self.data = b""
        self.keep_open = keep_open
        self.sizes = []

    def connection_made(self, transport):
        self.transport = transport
        self.events.append("made")

    def data_received(self, data):
        self.data += data
        self.sizes.append(len(data))

    def eof_received(self):
        self.events.append("eof")
        return self.keep_open

    def pause_writing(self):
        self.events.append("pause")

    def resume_writing(self):
        self.events.append("resume")

    def connection_lost(self, exc):
        self.events.append(type(exc).__name__ if exc else "lost")


class Pair:
    """A world of two processes, one connected to the other."""

    def __init__(self, seed=1):
        self.world = World(seed)
        self.runtimes = [self.world.process(name) for name in ("left", "right")]
        self.network = self.world.network

    async def join(self, address=ADDRESS, *, keep_open=False):
        self.far = Log(keep_open=keep_open)
        self.listener = await self.runtimes[1].listen(address, lambda: self.far)
        self.near = await self.runtimes[0].connect(address, lambda: Log(keep_open=keep_open))
        await elapse(1)
        return self.near, self.far


def story(tell):
    """Run `tell(pair)` in a world of its own."""

    async def told():
        pair = Pair()
        try:
            await tell(pair)
        finally:
            pair.world.close()
        assert pair.world.complaints == []

    run(told())


def test_bytes_keep_their_order_and_take_time():
    async def tell(pair):
        near, far = await pair.join()
        sent = bytes(range(256)) * 40
        for start in range(0, len(sent), 100):
            near.transport.write(sent[start : start + 100])
            await elapse(0.000_1 * (start % 7))
        assert len(far.data) < len(sent)
        await elapse(1)
        assert far.data == sent
        assert far.events == near.events == ["made"]

    story(tell)


def test_pieces_of_one_write_come_apart_now_and_then():
    async def tell(pair):
        near, far = await pair.join()
        for _ in range(300):
            near.transport.write(b"x" * 10)
            await elapse(1)
        assert set(far.sizes) > {10}
        assert sum(far.sizes) == 3_000

    story(tell)


def test_names_of_both_ends():
    async def tell(pair):
        near, far = await pair.join()
        assert near.transport.get_extra_info("peername") == ("127.0.0.1", 9735)
        assert far.transport.get_extra_info("peername") == near.transport.get_extra_info("sockname")
        near, _ = await pair.join("unix:/some/where")
        assert near.transport.get_extra_info("peername") == "/some/where"

    story(tell)


def test_who_does_not_read_holds_up_who_writes():
    async def tell(pair):
        near, far = await pair.join()
        far.transport.pause_reading()
        near.transport.write(bytes(WAY_BYTES))
        assert near.transport.get_write_buffer_size() == 0
        near.transport.write(bytes(100_000))
        assert near.transport.get_write_buffer_size() == 100_000
        assert near.events == ["made", "pause"]
        await elapse(10)
        assert far.data == b""
        far.transport.resume_reading()
        await elapse(1)
        assert len(far.data) == WAY_BYTES + 100_000
        assert near.events == ["made", "pause", "resume"]

    story(tell)


def test_a_close_flushes_and_both_sides_hear_of_it_in_order():
    async def tell(pair):
        near, far = await pair.join()
        far.transport.pause_reading()
        near.transport.write(bytes(WAY_BYTES + 5))
        near.transport.close()
        near.transport.write(b"swallowed")
        assert near.transport.is_closing()
        await elapse(1)
        assert near.events == ["made"]
        far.transport.resume_reading()
        await elapse(1)
        assert near.events == ["made", "lost"]
        assert far.events == ["made", "eof", "lost"]
        assert len(far.data) == WAY_BYTES + 5

    story(tell)


def test_an_abort_drops_what_is_unsent():
    async def tell(pair):
        near, far = await pair.join()
        near.transport.write(b"gone already")
        near.transport.write(bytes(WAY_BYTES))
        near.transport.abort()
        await elapse(1)
        assert near.events[-1] == "lost"
        assert len(far.data) == WAY_BYTES
        assert far.events == ["made", "eof", "lost"]

    story(tell)


def test_half_of_a_connection_may_end():
    async def tell(pair):
        near, far = await pair.join(keep_open=True)
        near.transport.write(b"question")
        near.transport.write_eof()
        await elapse(1)
        far.transport.write(b"answer")
        far.transport.close()
        await elapse(1)
        assert (far.data, near.data) == (b"question", b"answer")
        assert far.events == ["made", "eof", "lost"]
        assert near.events == ["made", "eof"]
        near.transport.close()
        await elapse(1)
        assert near.events == ["made", "eof", "lost"]
        assert far.events == ["made", "eof", "lost"]

    story(tell)


def test_writing_to_who_is_gone_ends_in_a_reset():
    async def tell(pair):
        near, far = await pair.join(keep_open=True)
        far.transport.close()
        await elapse(1)
        assert near.events == ["made", "eof"]
        near.transport.write(b"anybody?")
        await elapse(1)
        assert near.events == ["made", "eof", "ConnectionResetError"]

    story(tell)


def test_nobody_listens():
    async def tell(pair):
        with pytest.raises(ConnectionRefusedError):
            await pair.runtimes[0].connect(ADDRESS, Log)
        with pytest.raises(Refused):
            await pair.runtimes[0].connect("nowhere", Log)
        await pair.join()
        with pytest.raises(Refused, match="in use"):
            await pair.runtimes[0].listen(ADDRESS, Log)
        pair.listener.close()
        with pytest.raises(ConnectionRefusedError):
            await pair.runtimes[0].connect(ADDRESS, Log)

    story(tell)


def test_a_shared_port_is_served_by_all_who_listen():
    async def tell(pair):
        served = [0, 0]

        def factory(number):
            served[number] += 1
            return Log()

        for number, runtime in enumerate(pair.runtimes):
            await runtime.listen(ADDRESS, lambda n=number: factory(n), share_port=True)
        for _ in range(40):
            await pair.runtimes[0].connect(ADDRESS, Log)
        await elapse(1)
        assert sum(served) == 40
        assert min(served) > 5

    story(tell)


def test_a_clogged_link_delivers_later_what_it_held():
    async def tell(pair):
        near, far = await pair.join()
        pair.network.clog("left", "right")
        near.transport.write(b"late")
        await elapse(60)
        assert far.data == b""
        pair.network.mend("right", "left")
        await elapse(1)
        assert far.data == b"late"

    story(tell)


def test_a_delayed_link_keeps_its_order():
    async def tell(pair):
        near, far = await pair.join()
        pair.network.delay("left", "right", 5.0)
        near.transport.write(b"one ")
        await elapse(1)
        pair.network.mend("left", "right")
        near.transport.write(b"two")
        await elapse(1)
        assert far.data == b""
        await elapse(4)
        assert far.data == b"one two"

    story(tell)


def test_a_cut_link_resets_and_refuses():
    async def tell(pair):
        near, far = await pair.join()
        pair.network.cut("left", "right")
        await elapse(1)
        assert near.events == far.events == ["made", "ConnectionResetError"]
        with pytest.raises(ConnectionRefusedError):
            await pair.runtimes[0].connect(ADDRESS, Log)
        pair.network.mend("left", "right")
        await pair.runtimes[0].connect(ADDRESS, Log)

    story(tell)


def test_a_cancelled_dial_leaves_no_connection():
    async def tell(pair):
        await pair.runtimes[1].listen(ADDRESS, Log)
        for pause_s in (0.0, 0.000_1, 0.01, 0.02, 0.03, 0.06):
            dial = asyncio.create_task(pair.runtimes[0].connect(ADDRESS, Log))
            await elapse(pause_s)
            if dial.cancel():
                await asyncio.wait([dial])
                await elapse(1)
                assert dial.cancelled()
                assert not pair.runtimes[0].process.ends
                assert not pair.runtimes[1].process.ends
            else:
                dial.result().transport.close()

    story(tell)


def test_a_killed_process_says_nothing_more_but_what_left_it_arrives():
    async def tell(pair):
        near, far = await pair.join()
        process = pair.runtimes[0].process
        seen = []

        async def work():
            try:
                await elapse(1)
                seen.append("went on")
            finally:
                near.transport.write(b"last words")

        process.spawn(work(), "work")
        near.transport.write(b"sent in time")
        await asyncio.sleep(0)
        process.kill()
        await elapse(10)
        assert seen == []
        assert far.data == b"sent in time"
        assert far.events[-1] in ("lost", "ConnectionResetError")
        assert near.events == ["made"]
        assert not process.tasks

    story(tell)


def test_a_paused_process_has_everything_later():
    async def tell(pair):
        near, far = await pair.join()
        seen = []
        process = pair.runtimes[1].process

        async def work():
            for number in range(4):
                await elapse(1)
                seen.append((number, asyncio.get_running_loop().time()))

        before_s = asyncio.get_running_loop().time()
        process.spawn(work(), "work")
        await elapse(1.5)
        process.pause()
        near.transport.write(b"hello?")
        await elapse(10)
        assert far.data == b""
        assert len(seen) == 1
        process.go_on()
        await elapse(5)
        assert far.data == b"hello?"
        assert [round(s - before_s, 6) for _, s in seen] == [1.0, 11.5, 12.5, 13.5]

    story(tell)


def test_a_lane_does_one_thing_after_the_other_and_a_kill_may_leave_it_done_and_unheard_of():
    async def tell(pair):
        runtime = pair.runtimes[0]
        runtime.disk_delay_s = 1.0
        loop, done = asyncio.get_running_loop(), []
        began_s = loop.time()
        await asyncio.gather(*(runtime.run_blocking("store", lambda n=n: done.append(n)) for n in range(3)))
        assert done == [0, 1, 2]
        assert 3.0 < loop.time() - began_s < 3.1
        with pytest.raises(ZeroDivisionError):
            await runtime.run_blocking("other", lambda: 1 / 0)
        heard = []

        async def commit():
            await runtime.run_blocking("store", lambda: done.append("row"))
            heard.append("row")

        task = runtime.process.spawn(commit(), "commit")
        for _ in range(1_000):
            if "row" not in done:
                await elapse(0.002)
        runtime.process.kill()
        await asyncio.wait([task])
        assert heard == []

    story(tell)
