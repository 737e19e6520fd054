"""The backend and its frontends, as an operator wants to see them, and the one thing to be asked of them: to drain."""

from typing import TYPE_CHECKING

from node.backend import views
from node.backend.links import FrontendLink
from node.backend.views import View
from node.errors import Refused
from node.link import frames
from node.link.messages import DRAINS, Drain

if TYPE_CHECKING:
    from node.backend.backend import Backend

MAX_DRAIN_S = 86_400.0


def cluster(node: "Backend") -> View:
    """Who is here, what each does, and how it is."""
    return {
        "backend": {
            "node_id": node.node_id.hex(),
            "version": node.version,
            "network": node.config.network,
            "epoch": node.epoch,
            "block_height": node.chain.height,
            "chain_failure": node.chain.failure,
            "chain_trouble": trouble.text if (trouble := node.chain.outlook.trouble) else None,
            "channels": len(node.channels.by_id),
            "graph_sequence": node.graph.sequence,
        },
        "frontends": [_frontend(node, link) for link in node.switchboard.links.values()],
        "away": [{"id": name, "held": count} for name, count in sorted(node.switchboard.held.items())],
    }


def drain(node: "Backend", frontend: str, over_s: float | None) -> View:
    """Ask a frontend to drain (None: to serve again). Raises Refused."""
    link = node.switchboard.links.get(frontend)
    if link is None:
        known = ", ".join(sorted(node.switchboard.links)) or "none"
        raise Refused(f'there is no frontend "{frontend}"; connected are: {known}')
    if over_s is not None and over_s > MAX_DRAIN_S:
        raise Refused(f"over_s: at most {MAX_DRAIN_S:g}")
    if DRAINS not in link.capabilities:
        raise Refused(f"{frontend} runs {link.version}, which can't be drained; stop it instead")
    link.drained = over_s is not None
    link.write(frames.control(Drain(over_s)))
    return _frontend(node, link)


def _frontend(node: "Backend", link: FrontendLink) -> View:
    now_s, sequence = node.runtime.monotonic(), graph_sequence(link)
    return {
        **views.frontend(link),
        "state": _state(link),
        "protocol": link.protocol,
        "capabilities": list(link.capabilities),
        "queue_bytes": link.queue_bytes,
        "silent_s": round(now_s - link.heard_s, 3),
        "graph_behind": node.graph.sequence - sequence,
        "graph_age_s": round(node.graph_ages.age_s(now_s, sequence), 3),
    }


def _state(link: FrontendLink) -> str:
    if link.draining:
        return "draining" if sessions(link) else "drained"
    return "serving" if link.status is None or link.status.ready else "syncing"


def sessions(link: FrontendLink) -> int:
    """Of peers that have shown who they are."""
    return sum(1 for session in link.sessions.values() if session.node_id)


def graph_sequence(link: FrontendLink) -> int:
    return link.status.graph_sequence if link.status else 0
