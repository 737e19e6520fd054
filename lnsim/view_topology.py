"""The picture of the network: peers, frontends, backend and chain, with payments running along the lines."""

from collections.abc import Iterator

from msgspec import Struct
from rich.text import Text

from lnsim import view_style as style
from lnsim.demo_state import HUB, FrontendState, Health, Pulse, Scene
from lnsim.view_canvas import Canvas, Point, s_curve

PULSE_S = 1.6
TAIL = 7  # points of a curve that glow behind a payment
BOX_ROWS = 3
FRONTEND_WIDTH = 13
BACKEND_WIDTH = 13
CHAIN_WIDTH = 11
ONION_WIDTH = 9
MAX_DOTS = 6  # sessions drawn in a frontend's box


class Places(Struct, frozen=True):
    """Where everything is, for one size of the picture."""

    peers: dict[str, int]  # rows
    frontends: dict[str, int]  # middle rows
    peer_edge: int
    frontend_x: int
    backend_x: int
    chain_x: int
    middle: int
    onion: tuple[int, int] | None  # left edge and middle row of tor, where there is one


def topology(scene: Scene, width: int, height: int) -> Iterator[Text]:
    canvas = Canvas(width, height)
    places = _places(scene, width, height)
    lines = _lines(scene, places)
    for index, peer in enumerate(scene.peers):
        if peer.name in lines:
            canvas.curve(lines[peer.name], style.peer_dim(index))
    _draw_onion(canvas, scene, places)
    for frontend in scene.frontends:
        if frontend.name in lines:
            canvas.curve(lines[frontend.name], style.FRAME)
    backend_end = places.backend_x + BACKEND_WIDTH
    canvas.curve(
        s_curve((backend_end, places.middle + 0.4), (places.chain_x - 0.5, places.middle + 0.4)), style.FRAME
    )
    for pulse in scene.pulses:
        _draw_pulse(canvas, scene, lines, pulse)
    _draw_nodes(canvas, scene, places)
    return canvas.lines()


def _places(scene: Scene, width: int, height: int) -> Places:
    names = [peer.name for peer in scene.peers]
    peer_edge = max((len(name) for name in names), default=4) + 4
    chain_x = width - CHAIN_WIDTH - 1
    free = chain_x - peer_edge - FRONTEND_WIDTH - BACKEND_WIDTH  # for three gaps, the first the widest
    frontend_x = peer_edge + free * 48 // 100
    backend_x = frontend_x + FRONTEND_WIDTH + free * 30 // 100
    return Places(
        peers=_spread(names, height),
        frontends=_spread([frontend.name for frontend in scene.frontends], height),
        peer_edge=peer_edge,
        frontend_x=frontend_x,
        backend_x=backend_x,
        chain_x=chain_x,
        middle=(height - 1) // 2,
        onion=_onion(scene, height, peer_edge, frontend_x),
    )


def _onion(scene: Scene, height: int, left: int, right: int) -> tuple[int, int] | None:
    """Half-way between peers and frontends."""
    if scene.tor is None:
        return None
    return left + (right - left - ONION_WIDTH) // 2, (height - 1) // 2


def _spread(names: list[str], height: int) -> dict[str, int]:
    """A row for each, with equal space around all of them."""
    return {name: int((number + 0.5) * height / len(names)) for number, name in enumerate(names)}


def _lines(scene: Scene, places: Places) -> dict[str, list[Point]]:
    """A curve for every session and every link that is up, from left to right."""
    lines = {}
    up = {frontend.name for frontend in scene.frontends if frontend.health is Health.UP}
    for peer in scene.peers:
        if peer.frontend in up:
            begin = (places.peer_edge - 0.5, places.peers[peer.name] + 0.4)
            end = (places.frontend_x - 0.5, places.frontends[peer.frontend] + 0.4)
            lines[peer.name] = _session(begin, end, places.onion if peer.by_onion else None)
    for name in up:
        begin = (places.frontend_x + FRONTEND_WIDTH, places.frontends[name] + 0.4)
        lines[name] = s_curve(begin, (places.backend_x - 0.5, places.middle + 0.4))
    return lines


def _session(begin: Point, end: Point, onion: tuple[int, int] | None) -> list[Point]:
    if onion is None:
        return s_curve(begin, end)
    x, y = onion
    inward = s_curve(begin, (x - 0.5, y + 0.4))
    return inward + s_curve((x + ONION_WIDTH, y + 0.4), end)


def _draw_onion(canvas: Canvas, scene: Scene, places: Places) -> None:
    tor = scene.tor
    if tor is None or places.onion is None:
        return
    x, y = places.onion
    up = tor.health is Health.UP
    colour = style.ONION if up else style.HEALTH[tor.health]
    if canvas.height > BOX_ROWS + 1:
        words = f"{tor.circuits} circ" if up else "down" if tor.address else "…"
        canvas.box(
            x, y - 1, ONION_WIDTH, [("tor", style.ONION_STRONG if up else colour), (words, colour)], colour
        )
    else:
        canvas.text(x, y, f"[{'tor':^{ONION_WIDTH - 2}}]", colour)


def _draw_pulse(canvas: Canvas, scene: Scene, lines: dict[str, list[Point]], pulse: Pulse) -> None:
    """A comet from payer to payee; one that failed never gets further than the backend."""
    frontend_of = {peer.name: peer.frontend for peer in scene.peers}
    road = _half(lines, frontend_of, pulse.payer)
    if pulse.settled:
        road = road + _half(lines, frontend_of, pulse.payee)[::-1]
    head = int((scene.now_s - pulse.began_s) / PULSE_S * (len(road) + TAIL))
    index = next((i for i, peer in enumerate(scene.peers) if peer.name == pulse.payer), None)
    colour = style.HUB if index is None else style.peer(index)
    if not pulse.settled:
        colour = style.BAD
    for place in range(max(0, head - TAIL), min(head + 1, len(road))):
        canvas.dot(road[place], colour)
    if 0 <= head < len(road):
        x, y = road[head]
        canvas.text(int(x), int(y), "●", style.STRONG if pulse.settled else style.BAD)


def _half(lines: dict[str, list[Point]], frontend_of: dict[str, str | None], name: str) -> list[Point]:
    """The way from a node to the backend."""
    if name == HUB:
        return []
    return lines.get(name, []) + lines.get(frontend_of.get(name) or "", [])


def _draw_nodes(canvas: Canvas, scene: Scene, places: Places) -> None:
    for index, peer in enumerate(scene.peers):
        connected = peer.frontend is not None
        colour = style.peer(index) if connected else style.DIM
        label = f"{peer.name:>{places.peer_edge - 4}} {'◉' if connected else '○'}"
        canvas.text(1, places.peers[peer.name], label, colour)
    for frontend in scene.frontends:
        _draw_frontend(canvas, frontend, places, canvas.height)
    x, y = places.backend_x, places.middle
    rate = scene.payments.per_s[-1] if scene.payments.per_s else 0.0
    if canvas.height > BOX_ROWS + 1:
        lines = [("backend", style.HUB_STRONG), (f"↯ {rate:.0f}/s", style.TEXT)]
        canvas.box(x, y - 1, BACKEND_WIDTH, lines, style.HUB)
        blocks = [("chain", style.CHAIN), (f"▣ {scene.height}", style.TEXT)]
        canvas.box(places.chain_x, y - 1, CHAIN_WIDTH, blocks, style.CHAIN)
    else:
        canvas.text(x, y, "[ backend ]".center(BACKEND_WIDTH), style.HUB_STRONG)
        canvas.text(places.chain_x, y, f"[▣ {scene.height}]".center(CHAIN_WIDTH), style.CHAIN)


def _draw_frontend(canvas: Canvas, frontend: FrontendState, places: Places, height: int) -> None:
    x, y = places.frontend_x, places.frontends[frontend.name]
    up = frontend.health is Health.UP
    label = (
        f"{frontend.name} {'•' * min(frontend.sessions, MAX_DOTS) or 'idle' if up else frontend.health.value}"
    )
    colour = style.HUB if up else style.HEALTH[frontend.health]
    if height >= BOX_ROWS * len(places.frontends):
        inside = style.STRONG if up else colour
        canvas.box(x, y - 1, FRONTEND_WIDTH, [(label, inside)], colour)
    else:
        canvas.text(x, y, f"[{label:^{FRONTEND_WIDTH - 2}}]", colour)
