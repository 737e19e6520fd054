"""The view of a demo: a pure function, so every moment can be drawn at every size."""

import io

import pytest
from demo_scenes import NODE_ID, ONION, by_onion, running
from msgspec.structs import replace
from rich.cells import cell_len
from rich.console import Console

from lnsim.demo_state import Health, Note, Scene
from lnsim.view import render

ONIONS = [by_onion(health) for health in Health]
SIZES = [(80, 24), (100, 30), (140, 45), (240, 70)]


def drawn(scene: Scene, width: int, height: int) -> str:
    console = Console(width=width, height=height, file=io.StringIO(), record=True)
    console.print(render(scene, width, height), end="")
    return console.export_text()


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("scene", [running(), running(killed=True), running(peers=8), Scene(seed=1), *ONIONS])
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


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_onion_service_is_seen(width: int, height: int) -> None:
    text = drawn(by_onion(), width, height)
    for word in (
        "100%",
        "published 01:05 ago",
        "f1 ✗",
        "f2 ✓",
        "3 circuits",
        "2 streams",
        "3 circ",
        "t restart tor",
    ):
        assert word in text or (word == "t restart tor" and "t tor" in text), word
    assert (ONION in text) == (height >= 28)
    away = drawn(by_onion(Health.DOWN), width, height)
    assert "restarting …" in away
    assert "down" in away
    assert "being built" in drawn(by_onion(Health.STARTING), width, height)
    assert "tor" not in drawn(running(), width, height)


def test_a_killed_frontend_is_seen() -> None:
    text = drawn(running(killed=True), 80, 24)
    assert "f1 down" in text
    assert "○" in text, "a peer without a session"
    assert "f1 killed, 2 sessions cut" in text


def test_equal_failures_are_one_line_and_leave_the_kill_in_sight() -> None:
    failures = tuple(
        Note(61.5 + tick / 2, "bad", reason, failed=3)
        for tick in range(7)
        for reason in ("no usable channel", "backend not reachable")
    )
    scene = running(killed=True)
    text = drawn(replace(scene, notes=(*scene.notes[:4], *failures)), 80, 24)
    assert "✗ 21 failed: no usable channel" in text
    assert "✗ 21 failed: backend not" in text
    assert "f1 killed, 2 sessions cut" in text
    wide = drawn(replace(scene, notes=failures), 110, 34)
    assert "✗ 21 payments failed: no usable channel" in wide


def test_failures_far_apart_stay_apart() -> None:
    notes = (Note(1, "bad", "no way", failed=1), Note(61, "bad", "no way", failed=2))
    text = drawn(replace(running(), notes=notes), 100, 30)
    assert "00:01 ✗ 1 payment failed: no way" in text
    assert "01:01 ✗ 2 payments failed: no way" in text


@pytest.mark.parametrize("phase", ["running", "opening channels", "checking the books"])
@pytest.mark.parametrize("seed", [42, 999_999])
def test_the_seed_is_never_cut(seed: int, phase: str) -> None:
    title = drawn(replace(running(), seed=seed, phase=phase), 80, 24).split("\n")[0]
    assert f"seed {seed} " in title
    assert phase in title
    assert "q quit" in title


def test_credentials_are_no_password() -> None:
    assert "RPC credentials: lnsim demo address" in drawn(running(), 140, 45)


def test_a_small_terminal_is_told() -> None:
    assert "needs 80x24" in drawn(running(), 60, 20)


def test_every_character_takes_one_cell() -> None:
    """The picture is drawn cell by cell: a wide one would push all that is right of it."""
    text = drawn(running(), 140, 45) + drawn(by_onion(), 140, 45)
    assert {character for character in text if cell_len(character) != 1} <= {"\n"}
