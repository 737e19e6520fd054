"""BOLT 1: one session after its handshake: init first, then pings, and a route for everything else. Sans-IO.

A shell feeds decrypted messages, sends what `messages_to_send` gives, and calls `check` on all its sessions about
once a second: nothing else wakes up for a peer that is idle. Whatever a peer does wrong ends the session with
SessionFault or MalformedMessage; `notice.warning` words the goodbye.
"""

from msgspec import Struct

from node.errors import MalformedMessage, PeerFault
from node.peer.notice import notice, warning
from node.peer.routing import Route, route
from node.wire import bolt1
from node.wire.codec import decode_as, encode, message_type
from node.wire.features import MAX_FEATURE_BYTES, Feature, Features

CHAIN_HASH_SIZE = 32
# BOLT 7's longest address descriptor: type, length, 255 bytes of host name, port.
MAX_REMOTE_ADDR_SIZE = 259
# BOLT 1, ping: from here on no pong is wanted (and none would fit).
NO_PONG = 65_532
# Honest peers ping every 10 to 60 s; some do so in a burst after a reconnection.
MAX_PING_BURST = 10
PING_SPACING_S = 2.0

# BOLT 9: every node has these, whether its bits say so or not.
ASSUMED = Features.of(
    optional=(
        Feature.OPTION_DATA_LOSS_PROTECT,
        Feature.VAR_ONION_OPTIN,
        Feature.OPTION_STATIC_REMOTEKEY,
        Feature.PAYMENT_SECRET,
        Feature.OPTION_CHANNEL_TYPE,
    )
)


class SessionFault(PeerFault):
    """The peer, or its silence, ends the session; `cause` is one word, fit for a metric's label."""

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause


class SessionRules(Struct, frozen=True, kw_only=True):
    """What all sessions of a node have in common."""

    features: Features
    chain_hash: bytes
    init_timeout_s: float = 30.0
    ping_interval_s: float = 30.0
    # Each session's interval is longer by its own part of this, so that peers of one moment do not stay in step.
    ping_spread_s: float = 10.0
    ping_timeout_s: float = 60.0


class Session:
    """One peer's session. Mutable, one owner; some 300 bytes while idle.

    `features` are the peer's, None until its init; `remote_addr` is our address as the peer sees it (BOLT 7
    descriptor); `latency_s` is what the last ping took; `last_received_s` may be moved forward by a shell that
    has held up reading on purpose.
    """

    __slots__ = (
        "_outgoing",
        "_ping_interval_s",
        "_pings_paid_until_s",
        "_pong_size",
        "_rules",
        "features",
        "last_received_s",
        "latency_s",
        "ping_sent_s",
        "remote_addr",
    )

    def __init__(
        self, rules: SessionRules, now_s: float, spread: float, remote_addr: bytes | None = None
    ) -> None:
        """Queue our init; `spread` in [0, 1) is this session's share of ping_spread_s, drawn by the shell.

        `remote_addr` tells the peer its public address, where it dialled us and we know it.
        """
        self._rules = rules
        self._ping_interval_s = rules.ping_interval_s + spread * rules.ping_spread_s
        self._outgoing = [encode(_init(rules, remote_addr))]
        self._pings_paid_until_s = now_s
        self._pong_size = 0
        self.features: Features | None = None
        self.remote_addr: bytes | None = None
        self.last_received_s = now_s
        self.ping_sent_s: float | None = None
        self.latency_s: float | None = None

    @property
    def ready(self) -> bool:
        """Whether the peer's init has come: BOLT 1 lets nothing but our init out before."""
        return self.features is not None

    def messages_to_send(self) -> list[bytes]:
        """What the session wants sent now, in order; each message is given once."""
        if not self._outgoing:
            return []
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def receive(self, message: bytes, now_s: float) -> Route:
        """Take one decrypted message; SESSION and IGNORE need nothing more of the caller.

        Raises SessionFault or MalformedMessage: the session is over.
        """
        where = route(message)
        if self.features is None:
            self._receive_first(message)
        elif where is Route.SESSION:
            self._receive(message, now_s)
        elif where is Route.FORBIDDEN:
            raise SessionFault("unknown_even", f"unknown even message type {message_type(message)}")
        self.last_received_s = now_s
        return where

    def next_deadline(self) -> float:
        """When `check` will have something to do, as things stand."""
        if self.features is None:
            return self.last_received_s + self._rules.init_timeout_s
        if self.ping_sent_s is None:
            return self.last_received_s + self._ping_interval_s
        return max(self.ping_sent_s, self.last_received_s) + self._rules.ping_timeout_s

    def check(self, now_s: float, pong_size: int) -> None:
        """Ping after silence, give up after too much of it; to be called now and then, a second is often enough.

        A ping sent now asks for `pong_size` bytes: drawn by the shell, one draw may serve all its sessions.
        Any message proves that the peer is alive, a pong or not: one that is busy sending gossip is not cut off.
        Raises SessionFault.
        """
        if now_s < self.next_deadline():
            return
        if self.features is None:
            raise SessionFault("no_init", f"no init within {self._rules.init_timeout_s:g} s")
        if self.ping_sent_s is not None:
            raise SessionFault("no_pong", f"silent for {self._rules.ping_timeout_s:g} s after a ping")
        self.ping_sent_s = now_s
        self._pong_size = pong_size
        self._outgoing.append(encode(bolt1.Ping(pong_size, b"")))

    def _receive_first(self, message: bytes) -> None:
        if message_type(message) != bolt1.Init.number:
            raise SessionFault("init_expected", f"init must come first, not {_described(message)}")
        init = decode_as(bolt1.Init, message)
        features = _compatible_features(init, self._rules.features)
        _check_networks(init.networks, self._rules.chain_hash)
        self.features = features
        if init.remote_addr is not None and len(init.remote_addr) <= MAX_REMOTE_ADDR_SIZE:
            self.remote_addr = init.remote_addr

    def _receive(self, message: bytes, now_s: float) -> None:
        match message_type(message):
            case bolt1.Ping.number:
                self._receive_ping(decode_as(bolt1.Ping, message), now_s)
            case bolt1.Pong.number:
                self._receive_pong(decode_as(bolt1.Pong, message), now_s)
            case _:
                raise SessionFault("second_init", "init comes only once")

    def _receive_ping(self, ping: bolt1.Ping, now_s: float) -> None:
        # Each ping uses up PING_SPACING_S of a budget that never exceeds MAX_PING_BURST of them.
        self._pings_paid_until_s = max(self._pings_paid_until_s, now_s) + PING_SPACING_S
        if self._pings_paid_until_s > now_s + MAX_PING_BURST * PING_SPACING_S:
            raise SessionFault("ping_flood", f"more than {MAX_PING_BURST} pings at once")
        # BOLT 1, ping: the pong has the size asked for; from NO_PONG on the ping is ignored
        if ping.num_pong_bytes < NO_PONG:
            self._outgoing.append(encode(bolt1.Pong(bytes(ping.num_pong_bytes))))

    def _receive_pong(self, pong: bolt1.Pong, now_s: float) -> None:
        if self.ping_sent_s is None:
            return
        if len(pong.ignored) == self._pong_size:
            self.latency_s = now_s - self.ping_sent_s
        else:
            self._outgoing.append(warning(f"pong of {len(pong.ignored)} bytes, not {self._pong_size}"))
        self.ping_sent_s = None


def _init(rules: SessionRules, remote_addr: bytes | None) -> bolt1.Init:
    return bolt1.Init(b"", rules.features.to_bytes(), networks=rules.chain_hash, remote_addr=remote_addr)


def _compatible_features(init: bolt1.Init, ours: Features) -> Features:
    """The peer's features. Raises SessionFault where BOLT 1 has us close: unknown even bits, missing dependencies."""
    if max(len(init.globalfeatures), len(init.features)) > MAX_FEATURE_BYTES:
        raise MalformedMessage(f"more than {MAX_FEATURE_BYTES} bytes of features")
    theirs = Features.from_bytes(init.globalfeatures) | Features.from_bytes(init.features)
    unknown = theirs.unknown_even(ours | ASSUMED)
    if unknown:
        named = ", ".join(map(str, unknown[:8]))
        raise SessionFault("features", f"compulsory features that we do not have: {named}")
    missing = (theirs | ASSUMED).missing_dependencies()
    if missing:
        feature, needed = missing[0]
        raise SessionFault("features", f"{feature.name.lower()} without {needed.name.lower()}")
    return theirs


def _check_networks(networks: bytes | None, chain_hash: bytes) -> None:
    """BOLT 1, init: a peer that names its chains must have ours among them."""
    if not networks:
        return
    if len(networks) % CHAIN_HASH_SIZE:
        raise MalformedMessage(f"networks of {len(networks)} bytes are no whole chain hashes")
    chains = (networks[i : i + CHAIN_HASH_SIZE] for i in range(0, len(networks), CHAIN_HASH_SIZE))
    if chain_hash not in chains:
        raise SessionFault("networks", "no chain in common")


def _described(message: bytes) -> str:
    number = message_type(message)
    if number in (bolt1.Error.number, bolt1.Warning.number):
        return f"{notice(message)!r}"
    return f"type {number}"
