"""What Prometheus hears of a backend: its frontends, channels, payments, database, chain. Read when it asks."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from node.backend.backend import Backend
from node.backend.cluster import graph_sequence, sessions
from node.backend.health import complaints
from node.backend.outlook import CAUSES
from node.runtime.metrics import counter, counters, gauge, gauges, histogram

Rows = list[tuple[tuple[str, ...], float]]


def gather(node: Backend) -> Iterator[Metric]:
    labels = ("node_id", "network", "version")
    row = ((node.node_id.hex(), node.config.network, node.version), 1.0)
    yield gauges("lnnode_backend_info", "this backend", labels, [row])
    yield gauge("lnnode_backend_ready", "whether it can do its work", not complaints(node))
    yield gauge("lnnode_epoch", "this backend's term of leadership", node.epoch)
    lease_s = node.store.lease_left_s
    if lease_s is not None:
        yield gauge("lnnode_lease_left_seconds", "until its term ends unless the lease is renewed", lease_s)
    if not node.running:  # a standby, or one on its way
        return
    yield from _links(node)
    yield from _peers(node)
    yield from _channels(node)
    yield from _payments(node)
    yield from _store_and_chain(node)
    yield from _graph(node)


def _links(node: Backend) -> Iterator[Metric]:
    links, name, by = list(node.switchboard.links.values()), "lnnode_link", ("frontend",)
    versions = {node.version, *(link.version for link in links)}
    yield gauge("lnnode_frontends", "frontends that are connected", len(links))
    yield gauge("lnnode_versions", "releases that run in this cluster; 1 but for an upgrade", len(versions))
    about = "frontends and what they run"
    rows: Rows = [((link.frontend_id, link.version, str(link.protocol)), 1.0) for link in links]
    yield gauges(f"{name}_info", about, ("frontend", "version", "protocol"), rows)
    now_s, sequence = node.runtime.monotonic(), node.graph.sequence
    ages = node.graph_ages
    figures: dict[str, tuple[str, list[float]]] = {
        "sessions": ("peers' sessions", [sessions(link) for link in links]),
        "draining": ("whether its peers are moved away", [link.draining for link in links]),
        "delay_seconds": ("there and back", [link.delay_s for link in links]),
        "silence_seconds": ("since it was last heard", [now_s - link.heard_s for link in links]),
        "queue_bytes": ("waiting to be written to it", [link.queue_bytes for link in links]),
        "graph_behind": (
            "changes of the graph that it lacks",
            [sequence - graph_sequence(each) for each in links],
        ),
        "graph_age_seconds": (
            "since the first of them",
            [ages.age_s(now_s, graph_sequence(each)) for each in links],
        ),
    }
    for figure, (about, values) in figures.items():
        rows = [((link.frontend_id,), value) for link, value in zip(links, values, strict=True)]
        yield gauges(f"{name}_{figure}", about, by, rows)


def _peers(node: Backend) -> Iterator[Metric]:
    board = node.switchboard
    connected = sum(1 for peer in board.peers.values() if peer.session is not None)
    yield gauge("lnnode_peers_connected", "peers with a session", connected)
    yield gauge("lnnode_peers_held", "sessions that frontends may hold for this backend", board.held.total())
    yield gauge("lnnode_peers_without_channels", "of them, those without channels", board.strangers)
    yield gauge("lnnode_dials", "connections that are being made", board.dials)
    yield gauge("lnnode_handshakes_waiting", "acts that wait for their turn", node.handshakes.waiting)
    yield counter("lnnode_handshakes_refused", "handshakes over the rate", node.handshakes.refused)


def _channels(node: Backend) -> Iterator[Metric]:
    phases: Counter[str] = Counter()
    htlcs, amounts = Counter(offered=0, received=0), Counter(offered=0, received=0)
    usable = local_msat = remote_msat = 0
    for record in node.channels.by_id.values():
        channel = record.channel
        phases[channel.phase.value] += 1
        usable += channel.is_usable
        htlcs.update(offered=len(channel.offered), received=len(channel.received))
        if channel.local_commit is not None:
            local_msat += channel.local_msat
            remote_msat += channel.remote_msat
            view = channel.local_view
            amounts.update(offered=view.offered_msat, received=view.received_msat)
    yield gauges("lnnode_channels", "channels by phase", ("phase",), _rows(phases))
    yield gauge("lnnode_channels_usable", "channels that can carry payments now", usable)
    sides: Rows = [(("local",), local_msat), (("remote",), remote_msat)]
    yield gauges("lnnode_channels_balance_msat", "what is whose", ("side",), sides)
    yield gauges("lnnode_htlcs_in_flight", "HTLCs under way", ("direction",), _rows(htlcs))
    yield gauges("lnnode_htlcs_in_flight_msat", "their amounts", ("direction",), _rows(amounts))


def _payments(node: Backend) -> Iterator[Metric]:
    done, sending, receiving = node.htlcs.counters, node.sending, node.receiving
    rows: Rows = [(("settled",), done.settled), (("failed",), done.failed)]
    yield counters("lnnode_forwards", "forwards that are over", ("outcome",), rows)
    yield counter("lnnode_forwards_fee_msat", "earned by forwards", done.fee_msat)
    yield gauge("lnnode_forwards_pending", "forwards under way", node.htlcs.pending_forwards)
    rows = [(("settled",), sending.settled), (("failed",), sending.failed)]
    yield counters("lnnode_payments_sent", "own payments that are over", ("outcome",), rows)
    yield gauge("lnnode_payments_pending", "own payments under way", sending.pending)
    yield counter("lnnode_payments_received", "payments received", receiving.count)
    yield counter("lnnode_payments_received_msat", "their amount", receiving.received_msat)


def _store_and_chain(node: Backend) -> Iterator[Metric]:
    chain = node.chain
    yield counter("lnnode_commits", "transactions of the database", node.store.commits)
    yield histogram(
        "lnnode_commit_seconds", "what a transaction took, its sync included", node.journal.commit_s
    )
    trouble = chain.outlook.trouble
    causes: Rows = [((cause,), trouble is not None and trouble.cause == cause) for cause in CAUSES]
    yield gauge("lnnode_chain_height", "height of the last block that was heard of", chain.height)
    yield gauge("lnnode_chain_age_seconds", "since a block last came", chain.outlook.block_age_s)
    yield gauges("lnnode_chain_trouble", "why no new channels are taken", ("cause",), causes)
    yield gauge("lnnode_chain_up", "whether the chain can be followed", chain.failure is None)
    yield gauge("lnnode_chain_feerate_per_kw", "what a commitment should pay", chain.feerate_per_kw)
    yield gauge("lnnode_chain_unconfirmed", "transactions of ours that wait for a block", chain.unconfirmed)


def _graph(node: Backend) -> Iterator[Metric]:
    graph, keeper = node.graph, node.keeper
    yield gauge("lnnode_graph_channels", "public channels", len(graph.channels))
    yield gauge("lnnode_graph_nodes", "public nodes", len(graph.nodes))
    yield gauge("lnnode_graph_sequence", "changes so far", graph.sequence)
    yield gauge("lnnode_graph_lookups", "announcements that the chain is asked about", keeper.lookups)
    rows = [((verdict.name.lower(),), float(count)) for verdict, count in keeper.verdicts.items()]
    yield counters("lnnode_gossip", "frontends' announcements by verdict", ("verdict",), rows)


def _rows(counts: Counter[str]) -> Rows:
    return [((name,), float(count)) for name, count in counts.items()]
