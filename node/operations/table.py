"""The frontends of a cluster as a table."""

from typing import Any

from rich.table import Column, Table

COLUMNS = ("frontend", "state", "sessions", "in", "out", "version", "delay", "queue", "graph", "heard")
STYLES = {"serving": "green", "syncing": "yellow", "draining": "yellow", "drained": "cyan"}


def frontends(view: dict[str, Any]) -> Table:
    """One line each; a version that is not the backend's stands out."""
    table = Table(*(Column(name, no_wrap=True) for name in COLUMNS), box=None, header_style="bold")
    for each in sorted(view["frontends"], key=lambda each: str(each["id"])):
        state, version = each["state"], each["version"]
        behind = each["graph_behind"]
        table.add_row(
            each["id"],
            f"[{STYLES[state]}]{state}[/]",
            str(each["sessions"]),
            _size(each["bytes_in"]),
            _size(each["bytes_out"]),
            version if version == view["backend"]["version"] else f"[yellow]{version}[/]",
            f"{each['delay_ms']:.1f} ms",
            _size(each["queue_bytes"]),
            "current" if behind <= 0 else f"{behind} behind for {each['graph_age_s']:.0f} s",
            f"{each['silent_s']:.1f} s ago",
        )
    for each in view["away"]:
        table.add_row(each["id"], "[yellow]away[/]", f"{each['held']} held")
    return table


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1_000:
            return f"{count:.0f} {unit}"
        count /= 1_000
    return f"{count:.1f} TB"
