"""The view of a demo: a pure function, so every moment can be drawn at every size."""

import io

import pytest
from demo_scenes import NODE_ID, running
from rich.cells import cell_len
from rich.console import Console

from lnsim.demo_state import Scene
from lnsim.view import render

SIZES = [(80, 24), (100, 30), (140, 45), (240, 70)]


def drawn(scene: Scene, width: int, height: int) -> str:
    console = Console(width=width, height=height, file=io.StringIO(), record=True)
    console.print(render(scene, width, height), end="")
    return console.export_text()


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("scene", [running(), running(killed=True), running(peers=8), Scene(seed=1)])
def test_fills_the_screen_exactly(scene: Scene, width: int, height: int) -> None:
    lines = drawn(scene, width, height).split("\n")
    assert len(lines) == height
    assert max(cell_len(line) for line in lines) <= width


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_says_what_a_person_wants_to_know(width: int, height: int) -> None:
    text = drawn(running(), width, height)
    for word in (
        "alice", "erin", "f1", "f2", "backend", "chain", "117", "p50", "p99", "2,466 settled", "seed 42",
        "kill a frontend", "pause", "quit", NODE_ID, "127.0.0.1:38411", "http://127.0.0.1:41873", "3.80M",
    ):  # fmt: skip
        assert word in text, word


def test_a_killed_frontend_is_seen() -> None:
    text = drawn(running(killed=True), 80, 24)
    assert "f1 down" in text
    assert "○" in text, "a peer without a session"
    assert "f1 killed, 2 sessions cut" in text


def test_a_small_terminal_is_told() -> None:
    assert "needs 80x24" in drawn(running(), 60, 20)


def test_every_character_takes_one_cell() -> None:
    """The picture is drawn cell by cell: a wide one would push all that is right of it."""
    text = drawn(running(), 140, 45)
    assert {character for character in text if cell_len(character) != 1} <= {"\n"}
