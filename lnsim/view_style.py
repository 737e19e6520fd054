"""The colours of the view: few, and calm on dark as on light terminals."""

from rich.style import Style

from lnsim.demo_state import Health

TEXT = Style.parse("#b8c0cc")
STRONG = Style.parse("bold #d8dee9")
DIM = Style.parse("#6b7486")
FRAME = Style.parse("#434c5e")
KEY = Style.parse("bold #ebcb8b")
GOOD = Style.parse("#a3be8c")
BAD = Style.parse("#d0737d")
WARM = Style.parse("#ebcb8b")
HUB = Style.parse("#88c0d0")
HUB_STRONG = Style.parse("bold #88c0d0")
ONION = Style.parse("#b48ead")
ONION_STRONG = Style.parse("bold #b48ead")
CHAIN = Style.parse("#d08770")
HEALTH = {Health.UP: TEXT, Health.STARTING: DIM, Health.DOWN: BAD}
NOTES = {"good": GOOD, "bad": BAD, "info": DIM}

_PEERS = ("#81a1c1", "#b48ead", "#8fbcbb", "#d9b779", "#a3be8c", "#c99a8d")
_PEERS_DIM = ("#45566b", "#5d4c60", "#4b6262", "#6b5c40", "#566349", "#65504a")


def peer(index: int) -> Style:
    return Style.parse(_PEERS[index % len(_PEERS)])


def peer_dim(index: int) -> Style:
    return Style.parse(_PEERS_DIM[index % len(_PEERS_DIM)])
