"""Showing a demo: the live view on a terminal, plain lines elsewhere, nothing where only the summary is wanted."""

import asyncio
import contextlib
import io
import re
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.terminal_theme import TerminalTheme

from lnsim.demo_state import RUNNING, Health, Scene
from lnsim.view import render
from lnsim.view_panels import clock

FRAME_S = 1 / 10
LINE_S = 1.0
PICTURE_SIZE = (110, 34)
PICTURE_THEME = TerminalTheme(
    (38, 43, 53), (184, 192, 204), [(59, 66, 82)] * 8, [(76, 86, 106)] * 8
)  # only the background matters: every cell has a colour of its own

GetScene = Callable[[], Scene]
Press = Callable[[str], None]


class Screen:
    """The live view on the alternate screen."""

    async def run(self, scene: GetScene, press: Press) -> None:
        console = Console()
        with _keys(press), Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(render(scene(), console.width, console.height), refresh=True)
                await asyncio.sleep(FRAME_S)


class Lines:
    """One line a second and one for each event: for logs and pipes."""

    async def run(self, scene: GetScene, press: Press) -> None:
        told = 0.0
        while True:
            now = scene()
            for note in now.notes:
                if note.at_s > told:
                    print(f"{clock(note.at_s)}  {note.words()}", flush=True)  # noqa: T201 - this is the output
                    told = note.at_s
            if now.payments.attempted:
                print(_line(now), flush=True)  # noqa: T201 - this is the output
            await asyncio.sleep(LINE_S)


class Picture:
    """Draws the last moment of the payments into an SVG file, for documentation."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def run(self, scene: GetScene, press: Press) -> None:
        last = scene()
        try:
            while True:
                now = scene()
                last = now if now.phase == RUNNING else last
                await asyncio.sleep(FRAME_S)
        finally:
            save_picture(last, self._path)


def save_picture(scene: Scene, path: Path) -> None:
    width, height = PICTURE_SIZE
    console = Console(
        width=width,
        height=height,
        file=io.StringIO(),
        record=True,
        force_terminal=True,
        color_system="truecolor",
    )
    console.print(render(scene, width, height))
    svg = console.export_svg(title="lnsim demo", theme=PICTURE_THEME)
    # The reader's own monospace font will do: a picture fetches nothing.
    path.write_text(re.sub(r"@font-face \{[^}]*\}", "", svg))


class Silence:
    """For `--json`."""

    async def run(self, scene: GetScene, press: Press) -> None:
        await asyncio.Event().wait()


def choose_show(*, quiet: bool, picture: Path | None) -> Screen | Lines | Picture | Silence:
    if picture is not None:
        return Picture(picture)
    if quiet:
        return Silence()
    return Screen() if sys.stdout.isatty() and sys.stdin.isatty() else Lines()


def _line(scene: Scene) -> str:
    state = scene.payments
    rate = state.per_s[-1] if state.per_s else 0.0
    sessions = ", ".join(
        f"{f.name} {f.sessions if f.health is Health.UP else f.health.value}" for f in scene.frontends
    )
    return (
        f"{clock(scene.now_s)}  {scene.phase}: {rate:.0f}/s, {state.settled} settled, {state.failed} failed, "
        f"{state.pending} pending, p50 {state.p50_ms:.0f} ms, p99 {state.p99_ms:.0f} ms; sessions: {sessions}"
    )


@contextlib.contextmanager
def _keys(press: Press) -> Iterator[None]:
    """Single keys, unechoed, for as long as the view is up; Ctrl-C still interrupts."""
    loop = asyncio.get_running_loop()
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)

    def read() -> None:
        for key in sys.stdin.read(1):
            press(key.lower())

    tty.setcbreak(terminal)
    loop.add_reader(terminal, read)
    try:
        yield
    finally:
        loop.remove_reader(terminal)
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
