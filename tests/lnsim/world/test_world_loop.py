"""Virtual time: nothing is waited for, the order never varies, and a world in which nothing can happen says so."""

import asyncio
import threading

import pytest

from lnsim.world import loop as world_loop
from lnsim.world.loop import Stuck, VirtualLoop, run

elapse = asyncio.sleep  # virtual time: nobody waits


def test_time_jumps_to_the_next_timer():
    async def story():
        loop = asyncio.get_running_loop()
        await elapse(3_600)
        hour = loop.time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await asyncio.Event().wait()
        return hour, loop.time()

    assert run(story()) == (3_600.0, 3_660.0)


def test_equal_times_come_in_the_order_in_which_they_were_set():
    async def story():
        loop, seen = asyncio.get_running_loop(), []
        for number in range(5):
            loop.call_at(1.0, seen.append, number)
        loop.call_at(0.5, loop.call_at, 1.0, seen.append, "late")
        loop.call_at(1.0, loop.call_soon, seen.append, "soon")
        await elapse(1)
        await elapse(1)
        return seen

    assert run(story()) == [0, 1, 2, 3, 4, "late", "soon"]


def test_a_cancelled_timer_neither_fires_nor_takes_time():
    async def story():
        loop, seen = asyncio.get_running_loop(), []
        timers = [loop.call_later(10, seen.append, number) for number in range(1_000)]
        for timer in timers[1:]:
            timer.cancel()
        assert timers[1].cancelled()
        await elapse(20)
        return seen, loop.time()

    assert run(story()) == ([0], 20.0)


def test_the_end_of_all_possibilities_names_who_waits():
    async def story():
        await asyncio.create_task(asyncio.Event().wait(), name="for a miracle")

    with pytest.raises(Stuck, match="for a miracle"):
        run(story())


def test_a_loop_that_never_lets_go_is_found(monkeypatch):
    monkeypatch.setattr(world_loop, "MAX_TURNS_AT_ONCE", 1_000)

    async def story():
        loop = asyncio.get_running_loop()

        def again():
            loop.call_soon(again)

        again()
        await elapse(1)

    with pytest.raises(Stuck, match="1000 turns at"):
        run(story())


def test_threads_are_refused():
    async def story():
        loop = asyncio.get_running_loop()
        with pytest.raises(RuntimeError, match="run_blocking"):
            loop.run_in_executor(None, print)
        caught = []

        def elsewhere():
            try:
                loop.call_soon_threadsafe(print)
            except RuntimeError as error:
                caught.append(str(error))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        return caught

    assert "no threads" in run(story())[0]


def test_what_fails_in_a_callback_reaches_the_handler():
    async def story():
        loop, seen = asyncio.get_running_loop(), []
        loop.set_exception_handler(lambda _, context: seen.append(context["exception"]))
        loop.call_soon(int, "x")
        await elapse(1)
        return seen

    assert isinstance(run(story())[0], ValueError)


def test_it_is_a_loop_for_runners():
    async def story():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(elapse(n, n)) for n in range(3)]
        return [task.result() for task in tasks]

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(story()) == [0, 1, 2]


def test_who_sleeps_for_what_rounding_left_over_gets_there():
    async def story():
        loop = asyncio.get_running_loop()
        await elapse(1_000_000.1)
        before_s = loop.time()
        await elapse(1e-20)
        return loop.time() - before_s

    assert 0 < run(story()) < 1e-8
