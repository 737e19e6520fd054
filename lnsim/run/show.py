"""What a person sees of a run: a live screen, plain lines, or nothing."""

import asyncio
import time
from typing import Protocol

from rich.console import Console
from rich.live import Live

from lnsim.run.runner import Run
from lnsim.run.screen import render

FRAME_S = 0.2
LINE_S = 2.0


class Show(Protocol):
    def say(self, kind: str, text: str) -> None:
        """A word while it goes on; kind is good, bad or info."""
        ...

    async def run(self, run: Run) -> None:
        """Until cancelled."""
        ...


class Quiet:
    """For machines."""

    def say(self, kind: str, text: str) -> None:
        pass

    async def run(self, run: Run) -> None:
        pass


class Lines:
    """For logs and pipes: a line for each event, and one now and then for the figures."""

    def say(self, kind: str, text: str) -> None:
        print(f"{kind:4}  {text}", flush=True)  # noqa: T201 - this is the output

    async def run(self, run: Run) -> None:
        told = 0
        while True:
            await asyncio.sleep(LINE_S)
            marks = run.stage.recorder.marks
            for mark in marks[told:]:
                print(f"{mark.at_s:6.1f} s  {mark.text}", flush=True)  # noqa: T201 - this is the output
            told = len(marks)
            if run.phase == "running":
                value = run.stage.recorder.counter
                print(  # noqa: T201 - this is the output
                    f"{run.now_s:6.1f} s  {value('payments.settled'):.0f} payments settled, "
                    f"{value('payments.failed'):.0f} failed",
                    flush=True,
                )


class Screen:
    """For a terminal."""

    def __init__(self) -> None:
        self._words: list[tuple[str, str]] = []

    def say(self, kind: str, text: str) -> None:
        self._words.append((kind, text))

    async def run(self, run: Run) -> None:
        console, drawn_s = Console(), 0.0
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                if time.perf_counter() - drawn_s >= FRAME_S:  # minutes of a virtual world pass in a second
                    live.update(render(run, self._words, console.width, console.height), refresh=True)
                    drawn_s = time.perf_counter()
                await asyncio.sleep(FRAME_S)
