"""The parts of the view below the picture, each a list of lines of exactly the width asked for."""

from collections.abc import Sequence

from msgspec.structs import replace
from rich.style import Style
from rich.text import Text

from lnsim import view_style as style
from lnsim.demo_state import FrontendState, Health, Note, PeerState, ProcessState, Scene, TorState

BLOCKS = " ▁▂▃▄▅▆▇█"
EIGHTHS = " ▏▎▍▌▋▊▉█"
MSAT_PER_SAT = 1_000
NOTE_MARGIN = len("00:00 ✗ ")
FULL = 100  # percent
FOLD_S = 20.0  # failures of one disturbance


def panel(title: str, lines: Sequence[Text], width: int, height: int) -> list[Text]:
    """A frame with a title around what fits."""
    top = Text.assemble(("╭─ ", style.FRAME), (title, style.DIM), " ", no_wrap=True)
    top.append("─" * (width - top.cell_len - 1) + "╮", style.FRAME)
    body = []
    for row in range(height - 2):
        line = lines[row] if row < len(lines) else Text()
        body.append(Text.assemble(("│ ", style.FRAME), fit(line, width - 4), (" │", style.FRAME)))
    return [top, *body, Text(f"╰{'─' * (width - 2)}╯", style.FRAME)]


def fit(line: Text, width: int) -> Text:
    """Cut or padded to the width."""
    line = line.copy()
    line.truncate(max(width, 0), overflow="ellipsis", pad=True)
    return line


def beside(left: Sequence[Text], right: Sequence[Text]) -> list[Text]:
    return [Text.assemble(one, other) for one, other in zip(left, right, strict=True)]


def bar(share: float, width: int, full: Style, empty: Style) -> Text:
    """A bar with eighths of a cell."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    whole, rest = divmod(eighths, 8)
    filled = "█" * whole + (EIGHTHS[rest] if rest else "")
    return Text.assemble((filled, full), ("░" * (width - len(filled)), empty))


def sparkline(values: Sequence[float], width: int, height: int) -> list[Text]:
    """The newest `width` values, `height` rows high, scaled to the largest."""
    shown = list(values[-width:])
    largest = max([*shown, 1.0])
    rows = []
    for row in range(height - 1, -1, -1):
        cells = []
        for value in shown:
            eighths = round(value / largest * height * 8) - row * 8
            cells.append(BLOCKS[min(max(eighths, 0), 8)])
        rows.append(Text("".join(cells).rjust(width), style.GOOD if row < height - 1 else style.WARM))
    return rows


def processes(scene: Scene, width: int) -> list[Text]:
    """CPU and memory of each; messages a second where it is a frontend."""
    frontends = {frontend.name: frontend for frontend in scene.frontends}
    return [_process(row, frontends.get(row.name), scene.commits_per_s, width) for row in scene.processes]


def _process(row: ProcessState, frontend: FrontendState | None, commits_per_s: float, width: int) -> Text:
    name = Text(f"{row.name:<8}", style.HEALTH[row.health])
    if row.health is not Health.UP:
        words = "starting …" if row.health is Health.STARTING else "killed, restarting …"
        return Text.assemble(name, (words, style.HEALTH[row.health]))
    size = max(4, width - 34)
    share = bar(row.cpu_share, size, style.WARM if row.cpu_share > 0.8 else style.HUB, style.FRAME)
    figures = Text(f"{row.cpu_share * 100:4.0f}%{row.rss_mb:5.0f}M", style.DIM)
    traffic = Text()
    if frontend is not None:
        traffic = Text(f"  ↓{frontend.in_per_s:<4.0f} ↑{frontend.out_per_s:<4.0f}", style.TEXT)
    elif row.name == "backend":
        traffic = Text(f" {commits_per_s:.0f} fsync/s", style.TEXT)
    return Text.assemble(name, share, figures, traffic)


def payments(scene: Scene, width: int, height: int) -> list[Text]:
    """The sparkline between what a person asks first and the counts."""
    state = scene.payments
    rate = state.per_s[-1] if state.per_s else 0.0
    first = Text.assemble(
        (f"{rate:.0f}", style.STRONG), (" a second", style.DIM),
        ("   p50 ", style.DIM), (f"{state.p50_ms:.0f}", style.STRONG), (" ms", style.DIM),
        ("   p99 ", style.DIM), (f"{state.p99_ms:.0f}", style.STRONG), (" ms", style.DIM),
    )  # fmt: skip
    last = Text.assemble(
        (f"{state.settled:,}", style.GOOD), (" settled  ", style.DIM),
        (f"{state.failed:,}", style.BAD if state.failed else style.DIM), (" failed  ", style.DIM),
        (f"{state.pending}", style.TEXT), (" pending", style.DIM),
    )  # fmt: skip
    return [first, *sparkline(state.per_s, width, max(1, height - 2)), last]


def channels(scene: Scene, width: int, height: int) -> list[Text]:
    """Who holds how much of each channel: the hub from the left, the peer from the right."""
    rows = [_channel(peer, index, width) for index, peer in enumerate(scene.peers)]
    if len(rows) > height:
        hidden = len(rows) - height + 1
        rows = [*rows[: height - 1], Text(f"and {hidden} more", style.DIM)]
    return rows


def _channel(peer: PeerState, index: int, width: int) -> Text:
    name = Text(f"{peer.name:<8}", style.peer(index) if peer.usable else style.DIM)
    total_msat = peer.hub_msat + peer.peer_msat
    if not total_msat:
        return Text.assemble(name, ("no channel yet", style.DIM))
    size = max(6, width - 22)
    eighths = round(peer.hub_msat / total_msat * size * 8)
    whole, rest = divmod(eighths, 8)
    ours, theirs = (style.HUB, style.peer_dim(index)) if peer.usable else (style.FRAME, style.FRAME)
    line = Text.assemble(name, (f"{_sat(peer.hub_msat):>6} ", style.HUB))
    line.append("█" * whole, ours)
    if rest and whole < size:
        line.append(EIGHTHS[rest], ours + Style(bgcolor=theirs.color))
    line.append("█" * (size - whole - bool(rest)), theirs)
    return line.append(f" {_sat(peer.peer_msat):<6}", style.peer(index) if peer.usable else style.DIM)


def _sat(amount_msat: int) -> str:
    sat = amount_msat / MSAT_PER_SAT
    return f"{sat / 1e6:.2f}M" if sat >= 1e6 else f"{sat / 1e3:.0f}k"


def notes(scene: Scene, width: int, height: int) -> list[Text]:
    """The newest at the bottom; failures for the same reason, close to each other, are one."""
    marks = {"good": "✓", "bad": "✗", "info": "·"}
    return [
        Text.assemble(
            (f"{clock(note.at_s)} ", style.DIM),
            (f"{marks[note.kind]} ", style.NOTES[note.kind]),
            (
                _words(note, width - NOTE_MARGIN),
                style.TEXT if note.kind == "info" else style.NOTES[note.kind],
            ),
        )
        for note in _folded(scene.notes)[-height:]
    ]


def _words(note: Note, width: int) -> str:
    words = note.words()
    return words if len(words) <= width else note.short_words()


def _folded(notes: Sequence[Note]) -> list[Note]:
    lines: list[Note] = []
    places: dict[str, int] = {}  # of the line that failures are added to, by their reason
    for note in notes:
        place = places.get(note.text) if note.failed else None
        if place is not None and note.at_s - lines[place].at_s < FOLD_S:
            lines[place] = replace(lines[place], failed=lines[place].failed + note.failed)
            continue
        if note.failed:
            places[note.text] = len(lines)
        lines.append(note)
    return lines


def onion(tor: TorState, *, short: bool) -> Text:
    """One line: its tor, its descriptor, its targets, its clients; the figures alone where it is to be short."""
    if tor.health is Health.STARTING:
        return Text("a private network is being built …", style.DIM)
    line = Text(f"{tor.bootstrapped}%", style.GOOD if tor.bootstrapped == FULL else style.BAD)
    line.append("" if short else " bootstrapped", style.DIM)
    line.append_text(_descriptor(tor))
    line.append("  targets", style.DIM)
    for name, is_up in tor.targets:
        line.append(f" {name} {'✓' if is_up else '✗'}", style.GOOD if is_up else style.BAD)
    line.append(f"  {tor.circuits}", style.TEXT).append(" circuits", style.DIM)
    return line.append(f"  {tor.streams}", style.TEXT).append(" streams", style.DIM)


def _descriptor(tor: TorState) -> Text:
    if tor.health is Health.DOWN:
        return Text("  restarting …", style.BAD)
    if tor.published_ago_s is None:
        return Text("  not published", style.WARM)
    return Text.assemble(
        ("  published ", style.DIM), (clock(tor.published_ago_s), style.TEXT), (" ago", style.DIM)
    )


def clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes:02}:{rest:02}"
