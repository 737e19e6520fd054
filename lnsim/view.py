"""The live view of a demo: a pure function from a moment to the lines of a screen."""

from rich.text import Text

from lnsim import view_panels as panels
from lnsim import view_style as style
from lnsim.demo_state import Scene
from lnsim.view_topology import topology

MIN_WIDTH = 80
MIN_HEIGHT = 24
HEADER_ROWS = 1
MIN_PANEL_ROWS = 7
KEYS = (("k", "kill a frontend"), ("p", "pause"), ("q", "quit"))
TOR_KEYS = (KEYS[0], ("t", "restart tor"), *KEYS[1:])
SHORT_KEYS = (("k", "kill"), *KEYS[1:])  # where a large seed or a long phase needs the room
SHORT_TOR_KEYS = (("k", "kill"), ("t", "tor"), *KEYS[1:])
WIDE = 100  # columns from which the words about tor fit
ROOMY = 28  # rows from which the onion address has a line to itself
SPINNER = "◐◓◑◒"


def render(scene: Scene, width: int, height: int) -> Text:
    """A whole screen. Below 80x24 it says so instead."""
    if width < MIN_WIDTH or height < MIN_HEIGHT:
        return Text(f"the view needs {MIN_WIDTH}x{MIN_HEIGHT}, this terminal has {width}x{height}")
    footer = [*_onion(scene, width, height), *_footer(scene, width)]
    upper, lower, picture = _rows(scene, height - HEADER_ROWS - len(footer))
    left = width // 2
    right = width - left
    middle = panels.beside(
        panels.panel("processes", panels.processes(scene, left - 4), left, upper),
        panels.panel("payments", panels.payments(scene, right - 4, upper - 2), right, upper),
    )
    bottom = panels.beside(
        panels.panel("channels: hub | peer, sat", panels.channels(scene, left - 4, lower - 2), left, lower),
        panels.panel("events", panels.notes(scene, right - 4, lower - 2), right, lower),
    )
    lines = [_header(scene, width), *topology(scene, width, picture), *middle, *bottom, *footer]
    return Text("\n").join(lines)


def _rows(scene: Scene, free: int) -> tuple[int, int, int]:
    """Heights of the upper panels, the lower panels and the picture above them."""
    upper = max(MIN_PANEL_ROWS, len(scene.processes) + 2)
    lower = max(MIN_PANEL_ROWS, len(scene.peers) + 2)
    spare = free - upper - lower - 7
    if spare < 0:  # more peers or frontends than fit: the panels say how many are not shown
        return MIN_PANEL_ROWS, MIN_PANEL_ROWS, free - 2 * MIN_PANEL_ROWS
    extra = spare // 4
    upper, lower = min(upper + extra, 14), min(lower + extra, 20)
    return upper, lower, free - upper - lower


def _header(scene: Scene, width: int) -> Text:
    mark = "‖" if scene.paused else SPINNER[int(scene.now_s * 4) % len(SPINNER)]
    phase = "paused" if scene.paused else scene.phase
    left = Text.assemble(
        (" ↯ lnsim demo ", style.HUB_STRONG),
        (f" {panels.clock(scene.now_s)} ", style.TEXT),
        (f" seed {scene.seed}", style.DIM),
        (f" {mark} {phase} ", style.WARM if scene.paused else style.GOOD),
    )
    right = _keys(KEYS if scene.tor is None else TOR_KEYS)
    if left.cell_len + right.cell_len > width:
        right = _keys(SHORT_KEYS if scene.tor is None else SHORT_TOR_KEYS)
    return panels.fit(left, width - right.cell_len).append_text(right)


def _keys(keys: tuple[tuple[str, str], ...]) -> Text:
    text = Text()
    for key, meaning in keys:
        text.append(f"{key} ", style.KEY).append(f"{meaning}  ", style.DIM)
    return text


def _onion(scene: Scene, width: int, height: int) -> list[Text]:
    """How the onion service is, and its address."""
    tor = scene.tor
    if tor is None:
        return []
    line = Text.assemble((" tor ", style.ONION), panels.onion(tor, short=width < WIDE))
    if not tor.address or height < ROOMY:
        return [panels.fit(line, width)]
    address = Text.assemble((" by onion at ", style.DIM), (tor.address, style.ONION))
    return [panels.fit(line, width), panels.fit(address, width)]


def _footer(scene: Scene, width: int) -> list[Text]:
    """How to connect a peer of one's own."""
    if not scene.peer_address:
        return [Text(), Text(" starting chain, backend, frontends and peers …", style.DIM)]
    chain = Text.assemble(("chain ", style.CHAIN), (scene.chain_url, style.TEXT))
    more = Text.assemble(("  RPC credentials: ", style.DIM), ("lnsim demo address", style.TEXT))
    peer = Text.assemble((" connect a peer of yours to ", style.DIM), (scene.peer_address, style.TEXT))
    if peer.cell_len <= width:
        return [peer, Text.assemble(" ", chain, more)]
    node_id, _, address = scene.peer_address.partition("@")
    return [
        Text.assemble((" connect ", style.DIM), (f"{node_id}@", style.TEXT)),
        Text.assemble(
            " ",
            (address, style.TEXT),
            "  ",
            chain,
            ("  all of it: ", style.DIM),
            ("lnsim demo address", style.TEXT),
        ),
    ]
