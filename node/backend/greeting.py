"""Whether a frontend that says hello is taken in, and what it is told."""

from typing import Protocol

from node.link.messages import (
    MAX_FRONTEND_ID,
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    PROXIES,
    Dialling,
    Hello,
    Limits,
    Welcome,
)
from node.runtime.certificates import Member

HELLO_TIMEOUT_S = 10.0
MAX_FRONTENDS = 64  # far above any deployment; bounds what a leaked socket could make us hold


class Identity(Protocol):
    """What a Welcome says of the node."""

    epoch: int
    node_id: bytes
    chain_hash: bytes
    features: bytes
    limits: Limits
    dialling: Dialling

    @property
    def graph_sequence(self) -> int: ...
    def may_speak(self) -> bool:
        """Whether this backend leads, at this moment."""
        ...


class Caller(Protocol):
    """Who has connected to the link."""

    frontend_id: str

    def close(self) -> None: ...


class Callers:
    """Mutable; those that have not said hello yet, oldest first."""

    def __init__(self) -> None:
        self._until_s: dict[Caller, float] = {}

    def add(self, caller: Caller, now_s: float) -> None:
        """Too many, and the oldest goes."""
        self._until_s[caller] = now_s + HELLO_TIMEOUT_S
        if len(self._until_s) > MAX_FRONTENDS:
            oldest = next(iter(self._until_s))
            oldest.close()
            del self._until_s[oldest]

    def sweep(self, now_s: float) -> None:
        """Who does not say hello in time is let go."""
        for caller, until_s in list(self._until_s.items()):
            if caller.frontend_id or now_s > until_s:
                del self._until_s[caller]
                if not caller.frontend_id:
                    caller.close()


def name_of(hello: Hello) -> str:
    return hello.frontend_id[:MAX_FRONTEND_ID]


def protocol_of(hello: Hello) -> int:
    """The highest that both sides speak, if there is one."""
    return min(hello.protocol_max, PROTOCOL_MAX)


def objection(hello: Hello, identity: Identity, member: Member | None) -> str | None:
    """Why this frontend is not taken in; `member`: whose certificate came with it."""
    name = name_of(hello)
    if protocol_of(hello) < max(hello.protocol_min, PROTOCOL_MIN):
        return (
            f"link protocol {hello.protocol_min}-{hello.protocol_max}, we speak {PROTOCOL_MIN}-{PROTOCOL_MAX}"
        )
    if hello.highest_epoch > identity.epoch:
        return f"epoch {identity.epoch} is over, {hello.highest_epoch} was seen"
    if not (name and name.isprintable()):
        return "a frontend needs a name, of characters that can be printed"
    if member is not None and not member.speaks_for(name):
        return f'the certificate is that of "{member.name}", not of "{name}"'
    if identity.dialling.only and PROXIES not in hello.capabilities:
        return "this node speaks through Tor alone (tor.only), which this release can't; upgrade it"
    return None


def welcome(identity: Identity, protocol: int, *, frontend_handshakes: bool) -> Welcome:
    return Welcome(
        protocol=protocol,
        epoch=identity.epoch,
        node_id=identity.node_id,
        chain_hash=identity.chain_hash,
        features=identity.features,
        graph_sequence=identity.graph_sequence,
        limits=identity.limits,
        frontend_handshakes=frontend_handshakes,
        dialling=identity.dialling,
    )
