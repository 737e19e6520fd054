"""The parts of a demo that need no process: words, plans, books, and the place where it lives."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lnsim import demo_place
from lnsim.api_client import NodeApi
from lnsim.cli import app
from lnsim.demo_check import Books, books, verdict
from lnsim.demo_options import BadArgument, Fault, Options, check_faults, duration, fault
from lnsim.demo_traffic import Outcome, Plan, Traffic

PEERS = ["alice", "bob", "carol"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("20s", 20), ("20", 20), ("1.5m", 90), ("250ms", 0.25), ("1h", 3600)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "-1s", "soon", "5d"])
def test_no_durations(text: str) -> None:
    with pytest.raises(BadArgument, match="say 20s"):
        duration(text)


def test_faults() -> None:
    assert fault("frontend@8s") == Fault("frontend", 8)
    assert fault("f2@1m") == Fault("f2", 60)
    for wrong in ("frontend", "alice@3s", "f0@1s", "frontend@"):
        with pytest.raises(BadArgument):
            fault(wrong)


@pytest.mark.parametrize(
    "arguments",
    [
        ["demo", "--for", "soon"],
        ["demo", "--kill", "moon@3s"],
        ["demo", "--peers", "1"],
        ["demo", "--frontends", "x"],
        ["demo", "--kill", "f9@1s", "--for", "5s"],
    ],
)
def test_a_users_error_is_told_with_status_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (Options(faults=(Fault("f9", 1),)), "--kill f9@1s: there are only f1 and f2"),
        (Options(faults=(Fault("f2", 1),), frontends=1), "--kill f2@1s: there is only f1"),
        (Options(faults=(Fault("f4", 1),), frontends=3), "--kill f4@1s: there are only f1 to f3"),
        (
            Options(for_s=5, faults=(Fault("frontend", 50),)),
            "--kill frontend@50s comes after the end (--for 5s)",
        ),
    ],
)
def test_a_kill_that_cannot_happen_is_refused(options: Options, told: str) -> None:
    with pytest.raises(BadArgument) as refused:
        check_faults(options)
    assert str(refused.value) == told


def test_kills_that_can_happen() -> None:
    check_faults(Options(for_s=5, faults=(Fault("frontend", 1), Fault("f2", 4.9), Fault("backend", 2))))


def test_same_seed_same_payments() -> None:
    one, two, other = Plan(7, PEERS), Plan(7, PEERS), Plan(8, PEERS)
    first = [one.next() for _ in range(200)]
    assert first == [two.next() for _ in range(200)]
    assert first != [other.next() for _ in range(200)]
    assert all(payment.payer != payment.payee and payment.amount_msat >= 1_000 for payment in first)
    assert {payment.keysend for payment in first} == {True, False}
    assert "hub" in {payment.payer for payment in first}
    assert "hub" in {payment.payee for payment in first}


class FakeNode:
    """Settles every payment for a fee of one satoshi."""

    async def call(self, name: str, **arguments: Any) -> Any:
        if name == "invoice":
            return {"bolt11": f"lnbcrt{arguments['amount_msat']}"}
        return {"status": "settled", "fee_msat": 1_000, "latency_ms": 5.0, "payment_hash": "aa"}


async def test_traffic_keeps_the_books() -> None:
    nodes = {name: FakeNode() for name in ("hub", *PEERS)}
    told: asyncio.Queue[Any] = asyncio.Queue()
    traffic = Traffic(nodes, {name: name for name in nodes}, Plan(1, PEERS), 1e6, told.put_nowait)
    running = asyncio.create_task(traffic.run())
    for _ in range(100):
        await told.get()
    running.cancel()
    await traffic.drain(1)
    assert traffic.counts["settled"] == traffic.attempted >= 100
    assert sum(traffic.balance_msat.values()) == 0, "a payment moves msat, never makes or loses it"
    assert traffic.pending == 0


async def test_a_socket_that_nobody_answers_is_told_in_words(tmp_path: Path) -> None:
    nodes = {"hub": NodeApi(f"unix:{tmp_path / 'api.sock'}"), **{name: FakeNode() for name in PEERS}}
    told: asyncio.Queue[Outcome] = asyncio.Queue()
    traffic = Traffic(nodes, {name: name for name in nodes}, Plan(1, PEERS), 1e6, told.put_nowait)
    running = asyncio.create_task(traffic.run())
    while (outcome := await told.get()).status == "settled":
        pass
    running.cancel()
    await traffic.drain(1)
    assert (outcome.status, outcome.reason) == ("unknown", "backend not reachable")


def channel(local: int, remote: int, **changes: Any) -> dict[str, Any]:
    return {
        "channel_id": "aa" * 32,
        "phase": "normal",
        "usable": True,
        "capacity_sat": 10,
        "local_msat": local,
        "remote_msat": remote,
        "offered": 0,
        "received": 0,
        "offered_msat": 0,
        "received_msat": 0,
        **changes,
    }


def two_ends(hub_msat: int, **changes: Any) -> Books:
    rest_msat = 10_000 - hub_msat
    return Books({"hub": [channel(hub_msat, rest_msat)], "bob": [channel(rest_msat, hub_msat, **changes)]})


def test_books_that_balance() -> None:
    result = verdict(two_ends(6_000), two_ends(4_000), {"hub": -2_000, "bob": 2_000})
    assert result.msat_conserved
    assert (result.htlcs_lost, result.channels_closed, result.complaints) == (0, 0, ())


@pytest.mark.parametrize(
    "after",
    [two_ends(4_001), two_ends(4_000, local_msat=5_999), Books({"hub": [channel(4_000, 6_000)], "bob": []})],
)
def test_books_that_do_not_balance(after: Books) -> None:
    assert not verdict(two_ends(6_000), after, {"hub": -2_000, "bob": 2_000}).msat_conserved


def test_a_channel_that_is_no_longer_open() -> None:
    assert verdict(two_ends(5_000), two_ends(5_000, phase="closing"), {}).channels_closed == 1


def test_an_htlc_that_stays() -> None:
    after = two_ends(5_000, offered=1, offered_msat=100, local_msat=4_900)
    assert verdict(two_ends(5_000), after, {}).htlcs_lost == 1


async def test_books_wait_for_rest() -> None:
    class Busy:
        looks = 0

        async def call(self, name: str, **arguments: Any) -> Any:
            self.looks += 1
            return [channel(1, 2, offered=int(self.looks < 3))]

    node = Busy()
    found = await books({"hub": node})
    assert node.looks == 3
    assert found.complaints == ()


async def test_guests_and_their_channels_are_left_out() -> None:
    before = two_ends(6_000)

    class Hub:
        async def call(self, name: str, **arguments: Any) -> Any:
            return [*before.channels["hub"], channel(1, 2, channel_id="bb" * 32, usable=False)]

    found = await books({"hub": Hub()}, before)
    assert found == Books({"hub": before.channels["hub"]})
    assert verdict(before, two_ends(4_000), None).msat_conserved, "somebody paid through us"
    assert not verdict(before, two_ends(4_000, local_msat=1), None).msat_conserved


async def test_another_terminal_reaches_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_place, "TEMPORARY", tmp_path)
    dead = tmp_path / f"lnsim-demo-{os.getuid()}-4194399"  # above any process id of Linux
    dead.mkdir()
    place = demo_place.make_place()
    assert not dead.exists(), "what a dead demo left goes"

    async def obey(command: dict[str, Any]) -> dict[str, Any]:
        return {"killed": command["kill"]}

    server = await demo_place.listen(place, obey)
    assert await demo_place.tell({"kill": "f1"}) == {"killed": "f1"}
    server.close()
    demo_place.remove_place(place)
    assert not place.exists()
