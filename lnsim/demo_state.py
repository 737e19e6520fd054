"""What a demo looks like at one moment: frozen values, enough to draw it and nothing more."""

from enum import Enum

from msgspec import Struct

HUB = "hub"
RUNNING = "running"  # the phase in which payments are begun


class Health(Enum):
    STARTING = "starting"
    UP = "up"
    DOWN = "down"


class FrontendState(Struct, frozen=True, kw_only=True):
    name: str
    health: Health = Health.UP
    sessions: int = 0
    messages_in: int = 0
    messages_out: int = 0
    in_per_s: float = 0.0
    out_per_s: float = 0.0


class ProcessState(Struct, frozen=True, kw_only=True):
    """One process, or several drawn as one."""

    name: str
    health: Health = Health.UP
    pid: int | None = None
    cpu_share: float = 0.0  # of one core
    rss_mb: float = 0.0


class TorState(Struct, frozen=True, kw_only=True):
    """The onion service in front of the frontends, and the tor that serves it."""

    health: Health = Health.STARTING
    address: str = ""  # ADDRESS.onion:PORT
    bootstrapped: int = 0  # percent
    published_ago_s: float | None = None  # None: not since tor was started
    targets: tuple[tuple[str, bool], ...] = ()  # frontends, and whether tor gives them connections
    circuits: int = 0  # of clients
    streams: int = 0  # connections of clients


class PeerState(Struct, frozen=True, kw_only=True):
    """A simulated peer and its channel with the hub."""

    name: str
    frontend: str | None = None  # that holds its session
    hub_msat: int = 0
    peer_msat: int = 0
    usable: bool = False
    by_onion: bool = False


class Pulse(Struct, frozen=True):
    """A payment on its way across the picture, by names of nodes."""

    payer: str
    payee: str
    began_s: float
    settled: bool


class PaymentsState(Struct, frozen=True, kw_only=True):
    attempted: int = 0
    settled: int = 0
    failed: int = 0
    pending: int = 0
    per_s: tuple[float, ...] = ()  # settled, oldest first, one value a tick
    p50_ms: float = 0.0
    p99_ms: float = 0.0


class Note(Struct, frozen=True):
    """A line of the log; kind is good, bad or info. Of failed payments the text is why, and there may be many."""

    at_s: float
    kind: str
    text: str
    failed: int = 0

    def words(self) -> str:
        if not self.failed:
            return self.text
        return f"{self.failed} payment{'s' if self.failed > 1 else ''} failed: {self.text}"

    def short_words(self) -> str:
        return f"{self.failed} failed: {self.text}" if self.failed else self.text


class Scene(Struct, frozen=True, kw_only=True):
    seed: int
    now_s: float = 0.0  # since the start
    phase: str = "starting"
    paused: bool = False
    height: int = 0
    commits_per_s: float = 0.0
    frontends: tuple[FrontendState, ...] = ()
    processes: tuple[ProcessState, ...] = ()
    peers: tuple[PeerState, ...] = ()
    pulses: tuple[Pulse, ...] = ()
    payments: PaymentsState = PaymentsState()
    notes: tuple[Note, ...] = ()
    peer_address: str = ""  # NODE_ID@HOST:PORT for a peer of one's own
    chain_url: str = ""
    tor: TorState | None = None
