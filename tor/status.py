"""What a keeper knows, for people, for programs, for Prometheus."""

import time
from collections.abc import Iterator
from typing import Any, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from tor import publishing
from tor.config import Config
from tor.elsewhere import PUBLISHED_AGAIN_S
from tor.keeper import ELSEWHERE, REFUSED, State, wanted
from tor.publisher import Publisher


def status(state: State, config: Config, now_s: float, told: publishing.State) -> dict[str, Any]:
    """One picture of the service; times are seconds ago."""
    return {
        "address": f"{state.address}.onion:{config.service.port}" if state.address else None,
        "mode": config.service.mode,
        "anonymous": not config.service.single_hop_mode,
        "tor": {"connected": state.connected, "version": state.tor_version or None},
        "serving": state.serving is not None,
        "in_sync": state.serving is not None and state.serving == wanted(state),
        "problem": state.problem or (REFUSED if state.refused else None),
        "published_ago_s": _ago_s(state.published_s, now_s),
        "served_elsewhere_ago_s": _ago_s(state.elsewhere_s, now_s),
        "key_compared_ago_s": _ago_s(state.compared_s, now_s),
        "backend": _backend(told, now_s) if config.backend.apis else None,
        "descriptor_uploads": state.uploads,
        "descriptor_failures": state.failed_uploads,
        "client_circuits": state.circuits,
        "targets": [
            {
                "address": each.address,
                "weight": each.weight,
                "up": each.up,
                "drained": each.drained,
                "since_s": round(now_s - each.since_s, 1) if each.up is not None else None,
                "detail": each.detail or None,
            }
            for each in state.targets
        ],
    }


def text(picture: dict[str, Any]) -> str:
    """The same for people."""
    tor = picture["tor"]
    lines = [
        f"address     {picture['address'] or 'not known yet'}",
        f"tor         {tor['version'] or 'unknown'}, {'connected' if tor['connected'] else 'NOT CONNECTED'}",
        f"service     {picture['mode']}, {'serving' if picture['serving'] else 'NOT SERVING'}",
        f"descriptor  {_published(picture)}",
        f"circuits    {picture['client_circuits']} of clients",
    ]
    if picture["backend"] is not None:
        lines.append(f"announced   {_announced(picture['backend'])}")
    if not picture["anonymous"]:
        lines.append("WARNING     single hop mode: this service is NOT ANONYMOUS")
    if picture["served_elsewhere_ago_s"] is not None:
        lines.append(f"WARNING     {ELSEWHERE} (seen {picture['served_elsewhere_ago_s']:.0f} s ago)")
    if picture["problem"]:
        lines.append(f"problem     {picture['problem']}")
    lines += [_target(each) for each in picture["targets"]]
    return "\n".join(lines)


def _backend(told: publishing.State, now_s: float) -> dict[str, Any]:
    said = told.announced is not None
    return {
        "announce": told.announce,
        "announced": publishing.is_announced(told),
        "api": told.api or None,
        "told_ago_s": round(now_s - told.told_s, 1) if said else None,
        "problem": told.problem or None,
    }


def _announced(backend: dict[str, Any]) -> str:
    ago_s, problem = backend["told_ago_s"], backend["problem"]
    when = "never so far" if ago_s is None else f"{ago_s:.0f} s ago by {backend['api']}"
    if problem:
        return f"PROBLEM: {problem} (last taken: {when})"
    if ago_s is None:
        return "not yet: the backend is told once tor has the service"
    return f"{'yes' if backend['announced'] else 'no, by service.announce'}; taken {when}"


def _ago_s(at_s: float | None, now_s: float) -> float | None:
    return None if at_s is None else round(now_s - at_s, 1)


def _published(picture: dict[str, Any]) -> str:
    ago_s = picture["published_ago_s"]
    return (
        "none published since lntor was connected to tor" if ago_s is None else f"published {ago_s:.0f} s ago"
    )


def _target(target: dict[str, Any]) -> str:
    state = {True: "up", False: "DOWN", None: "not checked yet"}[target["up"]]
    drained = ", drained" if target["drained"] else ""
    why = f" ({target['detail']})" if target["detail"] else ""
    since = f" for {target['since_s']:.0f} s" if target["since_s"] is not None else ""
    return f"target      {target['address']} weight {target['weight']}: {state}{since}{drained}{why}"


def _elsewhere(state: State) -> bool:
    """Nobody can see that the other has ended; until what it published is forgotten, it may not have."""
    return state.elsewhere_s is not None and time.monotonic() - state.elsewhere_s < PUBLISHED_AGAIN_S


class HasState(Protocol):
    """Whoever keeps a state."""

    @property
    def state(self) -> State: ...

    @property
    def config(self) -> Config: ...

    @property
    def publisher(self) -> Publisher: ...


class Metrics(Collector):
    """Figures of the state at the moment when they are asked for."""

    def __init__(self, keeper: HasState) -> None:
        self._keeper = keeper

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily | InfoMetricFamily]:
        state = self._keeper.state
        figures = {
            "connected": ("control connection to tor is up", state.connected),
            "serving": ("tor holds the service", state.serving is not None),
            "in_sync": ("tor has the targets that it should have", state.serving == wanted(state)),
            "client_circuits": ("rendezvous circuits of clients", state.circuits),
            "served_elsewhere": ("another tor served this key within three hours", _elsewhere(state)),
        }
        if self._keeper.config.backend.apis:
            told = publishing.is_announced(self._keeper.publisher.state)
            figures["announced"] = ("the backend took the address when it was told last", told)
        for name, (about, value) in figures.items():
            yield GaugeMetricFamily(f"lntor_{name}", about, float(value))
        yield CounterMetricFamily("lntor_control_connections", "control connections made", float(state.term))
        yield CounterMetricFamily("lntor_descriptor_uploads", "descriptors published", float(state.uploads))
        yield CounterMetricFamily(
            "lntor_descriptor_failures", "descriptors refused", float(state.failed_uploads)
        )
        yield InfoMetricFamily("lntor_tor", "the tor", {"version": state.tor_version})
        up = GaugeMetricFamily("lntor_target_up", "target passes its checks", labels=["target"])
        drained = GaugeMetricFamily("lntor_target_drained", "target gets nothing new", labels=["target"])
        for target in state.targets:
            up.add_metric([target.address], float(bool(target.up)))
            drained.add_metric([target.address], float(target.drained))
        yield from (up, drained)
