"""The verdict in the terminal: what held, what did not and what it was instead, and the line that reproduces it."""

import re

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lnsim.report.quantity import seconds, told
from lnsim.report.result import Check, RunResult

COMPARED = re.compile(r"[<>=]")  # an expectation, unlike an invariant, compares a figure
GOOD, BAD, DIM = "green", "red", "bright_black"


def render(result: RunResult) -> RenderableType:
    parts: list[RenderableType] = [Text(), _headline(result), Text(result.claim, DIM), Text()]
    checks = Table.grid(padding=(0, 2))
    checks.add_column(width=1)
    checks.add_column(overflow="fold")
    checks.add_column(overflow="fold")
    for check in result.expectations:
        checks.add_row(*_row(check))
    for check in (each for each in result.invariants if not each.holds):
        checks.add_row(*_row(check))
    if checks.row_count:
        parts.append(checks)
    parts += [_invariants(result.invariants)] if result.invariants else []
    parts += [Text(f"! {complaint}", BAD) for complaint in result.complaints]
    parts += [Text(), Text.assemble(("reproduce  ", DIM), result.command), Text()]
    return Padding(Group(*parts), (0, 2))


def _headline(result: RunResult) -> Text:
    word, style = ("holds", GOOD) if result.holds else ("falls short", BAD)
    took = f"{result.mode}, seed {result.seed}, {seconds(result.duration_s)}"
    if result.mode == "world":
        took += f" in {seconds(result.wall_s)}"
    return Text.assemble(
        ("● ", style), (result.name, "bold"), " ", (word, f"bold {style}"), (f"   {took}", DIM)
    )


def _row(check: Check) -> tuple[Text, Text, Text]:
    style = GOOD if check.holds else BAD
    return (
        Text("✓" if check.holds else "✗", style),
        Text(check.text, "" if check.holds else "bold"),
        Text(found(check), DIM if check.holds else style),
    )


def _invariants(checks: list[Check]) -> Text:
    held = sum(check.holds for check in checks)
    if held == len(checks):
        return Text.assemble(("✓", GOOD), f"  {held} invariants hold: nothing was lost")
    return Text.assemble(
        ("✗", BAD), (f"  {len(checks) - held} of {len(checks)} invariants are broken", "bold")
    )


def found(check: Check) -> str:
    """What the run had where the check looked. An expectation's text begins with its metric, which has the unit."""
    if check.value is None:
        return "" if check.holds or not COMPARED.search(check.text) else "not measured"
    if isinstance(check.value, str):
        return check.value
    return told(check.text.split()[0] if check.text else "", check.value)
