"""What Prometheus hears of a frontend. Everything is read when it asks."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from node.frontend.frontend import Frontend
from node.frontend.health import complaints
from node.runtime.metrics import counter, counters, gauge, gauges, histogram

QUANTILES = (0.5, 0.9, 0.99, 1.0)


def gather(frontend: Frontend) -> Iterator[Metric]:
    labels = ((frontend.id, frontend.version), 1.0)
    yield gauges("lnnode_frontend_info", "this frontend", ("frontend", "version"), [labels])
    yield gauge("lnnode_frontend_ready", "whether it should be sent peers", not complaints(frontend))
    yield gauge("lnnode_frontend_draining", "whether its peers are moved away", frontend.draining is not None)
    yield from _link(frontend)
    yield from _sessions(frontend)
    yield from _gossip(frontend)


def _link(frontend: Frontend) -> Iterator[Metric]:
    uplink, name = frontend.uplink, "lnnode_frontend_link"
    silent_s = frontend.runtime.monotonic() - uplink.heard_s if uplink.welcomed else 0.0
    yield gauge(f"{name}_up", "whether the backend has welcomed it", uplink.welcomed is not None)
    yield counter(f"{name}_welcomes", "times that a backend welcomed it", uplink.welcomes)
    yield gauge(
        f"{name}_protocol", "protocol of the link", uplink.welcomed.protocol if uplink.welcomed else 0
    )
    yield gauge(f"{name}_silence_seconds", "since the backend was last heard", silent_s)
    yield gauge(f"{name}_queue_bytes", "waiting to be written to the backend", uplink.queue_bytes)
    yield gauge("lnnode_frontend_epoch", "highest term of a backend that it has seen", uplink.highest_epoch)


def _sessions(frontend: Frontend) -> Iterator[Metric]:
    states, latencies = Counter({"handshake": 0, "init": 0, "ready": 0}), []
    unread = 0
    for connection in frontend.connections.values():
        session = connection.session
        states["handshake" if session is None else "ready" if session.ready else "init"] += 1
        unread += connection.unread
        if session is not None and session.latency_s is not None:
            latencies.append(session.latency_s)
    name = "lnnode_frontend"
    yield gauges(
        f"{name}_sessions", "connections by state", ("state",), [((s,), n) for s, n in states.items()]
    )
    yield gauge(f"{name}_sessions_unread", "sessions that are not read until someone keeps up", unread)
    yield gauge(f"{name}_sessions_held", "sessions that wait for a backend to adopt them", frontend.held)
    messages = (frontend.messages_in, frontend.messages_out)
    traffic = (frontend.bytes_in, frontend.bytes_out)
    yield counters(f"{name}_messages", "peers' messages", ("direction",), _both(messages))
    yield counters(f"{name}_traffic_bytes", "peers' bytes, encrypted", ("direction",), _both(traffic))
    endings = frontend.endings
    about = "handshakes that came to nothing"
    yield counters(f"{name}_handshakes_failed", about, ("cause",), _by_cause(endings.handshakes))
    refused = [((cause,), float(count)) for cause, count in frontend.admission.refused.items()]
    about = "connections turned away at the door, by the limit that was reached"
    yield counters(f"{name}_refused", about, ("cause",), refused)
    about = "sessions that are over"
    yield counters(f"{name}_sessions_ended", about, ("cause",), _by_cause(endings.sessions))
    latencies.sort()
    quantiles = (
        [((str(q),), latencies[int(q * (len(latencies) - 1))]) for q in QUANTILES] if latencies else []
    )
    yield gauges(f"{name}_ping_seconds", "last ping of each session", ("quantile",), quantiles)


def _gossip(frontend: Frontend) -> Iterator[Metric]:
    gossip, name = frontend.gossip, "lnnode_frontend"
    verdicts = [((verdict.name.lower(),), count) for verdict, count in gossip.verdicts.items()]
    yield counters(
        f"{name}_gossip", "announcements by verdict, own and the backend's", ("verdict",), verdicts
    )
    yield histogram(f"{name}_verdict_seconds", "from an offer to the backend's verdict", gossip.verdict_s)
    waiting = [((where,), count) for where, count in gossip.waiting.items()]
    yield gauges(f"{name}_gossip_waiting", "announcements on their way", ("where",), waiting)
    yield gauge(f"{name}_graph_current", "whether its copy of the graph is current", gossip.current)
    yield gauge(f"{name}_graph_sequence", "last change in its copy of the graph", gossip.graph.sequence)
    yield gauge(f"{name}_graph_channels", "channels in its copy of the graph", len(gossip.graph.channels))
    yield gauge(f"{name}_graph_nodes", "nodes in its copy of the graph", len(gossip.graph.nodes))


def _both(pair: tuple[int, int]) -> list[tuple[tuple[str, ...], float]]:
    return [(("in",), pair[0]), (("out",), pair[1])]


def _by_cause(counts: Counter[str]) -> list[tuple[tuple[str, ...], float]]:
    return [((cause,), count) for cause, count in counts.items()]
