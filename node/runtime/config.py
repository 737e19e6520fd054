"""Configuration: one YAML file a process, checked strictly, every field with a default and a sentence about it.

Any field can be overridden from the environment: `LNNODE_` and its path in capitals, joined by double underscores
(`LNNODE_BITCOIND__WALLET=hot`).
"""

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import yaml
from msgspec import Meta

from node.errors import Refused
from node.runtime.addresses import is_loopback, split_address
from node.runtime.section import Section, about
from node.runtime.tor_config import TorConfig, check_announced, check_socks, check_tor

ENVIRONMENT_PREFIX = "LNNODE_"


Reach = Literal["ipv4", "ipv6", "dns", "onion"]


class LogConfig(Section, frozen=True):
    level: Annotated[str, about("debug, info, warning or error", pattern="^(debug|info|warning|error)$")] = (
        "info"
    )
    format: Annotated[str, about("json for machines, text for people", pattern="^(json|text)$")] = "json"


class BitcoindConfig(Section, frozen=True):
    url: Annotated[str, about("where bitcoind's RPC is")] = "http://127.0.0.1:18443"
    user: Annotated[str, about("RPC user; empty: use the cookie file")] = ""
    password: Annotated[str, about("RPC password")] = ""
    cookie_file: Annotated[str, about("bitcoind's .cookie, where no user is given")] = ""
    wallet: Annotated[str, about("name of the wallet that funds channels and receives what closes pay")] = ""
    zmq: Annotated[str, about("endpoint of zmqpubhashblock; empty: poll instead")] = ""
    poll_interval_s: Annotated[float, about("how often to ask for new blocks where ZMQ is silent", gt=0)] = (
        1.0
    )
    max_block_gap_s: Annotated[
        float | None,
        about(
            "no block for so long: alarm, no new channels and payments; null: 7200, and on regtest never, "
            "where blocks come on demand"
        ),
    ] = None


class FeeConfig(Section, frozen=True):
    base_msat: Annotated[int, about("fee for any forward", ge=0)] = 1_000
    ppm: Annotated[int, about("fee in millionths of the amount", ge=0)] = 200
    cltv_delta: Annotated[int, about("blocks between a forward's expiries", ge=18, le=2016)] = 80


class ChannelConfig(Section, frozen=True):
    minimum_depth: Annotated[int, about("confirmations that we ask for as accepter", ge=1, le=144)] = 3
    max_accepted_htlcs: Annotated[int, about("HTLC slots that we offer", ge=1, le=483)] = 30
    max_htlc_value_in_flight_msat: Annotated[int, about("most that a peer may have in flight", ge=1)] = (
        20_000_000_000
    )
    htlc_minimum_msat: Annotated[int, about("smallest HTLC that we accept", ge=0)] = 1
    to_self_delay: Annotated[int, about("blocks that a peer waits for its own money", ge=1, le=2016)] = 144
    max_dust_exposure_msat: Annotated[int, about("most that may be lost to fees in trimmed HTLCs", ge=0)] = (
        50_000_000
    )
    max_pending_per_peer: Annotated[int, about("unconfirmed channels that one peer may have open", ge=1)] = 3
    max_pending: Annotated[int, about("unconfirmed channels of all peers together", ge=1)] = 100
    max_peers_without_channels: Annotated[int, about("sessions of peers that have no channel", ge=1)] = 1_000
    feerate_per_kw: Annotated[int, about("fee rate where the chain has no estimate", ge=253)] = 2_500


class TlsConfig(Section, frozen=True):
    certificate: Annotated[str, about("this member's certificate; `lnnode certs` makes it")] = ""
    key: Annotated[str, about("the certificate's private key, readable for its owner alone")] = ""
    authority: Annotated[str, about("certificate of the authority; of the shared kind: the same file")] = ""
    revoked: Annotated[
        str, about("the authority's list of revoked certificates; read again when it changes")
    ] = ""
    clear_on_loopback: Annotated[
        bool,
        about("a link over TCP on this host may do without TLS: everybody on this host can then come in"),
    ] = False

    @property
    def configured(self) -> bool:
        return bool(self.certificate)


class LimitsConfig(Section, frozen=True):
    """Of the whole node: the backend leases its frontends their parts."""

    handshakes: Annotated[int, about("handshakes of strangers in progress", ge=1)] = 2_000
    connections: Annotated[int, about("connections of peers", ge=1)] = 50_000
    connections_per_s: Annotated[int, about("new connections a second", ge=1)] = 2_000
    gossip_bytes_per_s: Annotated[int, about("gossip served on request, all peers together", ge=1)] = (
        64_000_000
    )
    handshakes_per_address: Annotated[int, about("the same from one address, or IPv6 /64", ge=1)] = 16
    connections_per_address: Annotated[int, about("the same from one address, or IPv6 /64", ge=1)] = 128
    connections_per_s_per_address: Annotated[int, about("the same from one address, or IPv6 /64", ge=1)] = 16
    gossip_bytes_per_s_per_peer: Annotated[int, about("gossip served to one peer on request", ge=1)] = (
        1_000_000
    )
    gossip_burst_per_peer: Annotated[
        int, about("bytes that one peer may have at once: a whole graph, and more", ge=1)
    ] = 128_000_000


Host = Annotated[str, Meta(max_length=300)]


class NodeKeyConfig(Section, frozen=True):
    """Where a frontend that runs handshakes itself has the node's key from; checked against the backend's."""

    provider: Annotated[str, about("seed, file, env or aws-sm", pattern="^(seed|file|env|aws-sm)$")] = "file"
    path: Annotated[str, about("seed: the backend's seed, on its own host; file: the key in hex")] = ""
    variable: Annotated[str, about("env: name of the environment variable with the key in hex")] = (
        "NODE_PRIV_KEY"
    )
    secret: Annotated[str, about("aws-sm: name of the secret that holds the key in hex")] = "node-priv-key"  # noqa: S105 - the name of it
    region: Annotated[str, about("aws-sm: region; empty: as the AWS libraries find it")] = ""
    endpoint: Annotated[str, about("aws-sm: URL of the service; empty: Amazon's own")] = ""


class BackendConfig(Section, frozen=True):
    """`lnnode backend`: channels, wallet, database, graph."""

    data_dir: Annotated[str, about("seed, database and sockets live here")] = "~/.lnnode"
    network: Annotated[
        str, about("mainnet, testnet, signet or regtest", pattern="^(mainnet|testnet|signet|regtest)$")
    ] = "regtest"
    accept_mainnet_without_onchain_claims: Annotated[
        bool,
        about("mainnet is refused until unilateral closes are claimed on-chain; true starts all the same"),
    ] = False
    alias: Annotated[str, about("name in the node_announcement, at most 32 bytes", max_length=32)] = "lnnode"
    color: Annotated[str, about("RRGGBB for maps of the network", pattern="^[0-9a-fA-F]{6}$")] = "3399ff"
    announce_addresses: Annotated[tuple[str, ...], about("HOST:PORT where peers reach the frontends")] = ()
    database: Annotated[str, about("postgresql://USER@HOST/NAME; empty: SQLite in DATA_DIR")] = ""
    lease_s: Annotated[
        float, about("with PostgreSQL: a backend that died is replaced after so long", ge=0.5)
    ] = 10.0
    link: Annotated[str, about("where frontends connect; empty: DATA_DIR/link.sock")] = ""
    api: Annotated[str, about("where the HTTP API listens; empty: DATA_DIR/api.sock")] = ""
    api_password: Annotated[str, about("asked for by the API where it listens on TCP")] = ""
    api_read_password: Annotated[str, about("opens only those calls that change nothing")] = ""
    api_onion_password: Annotated[
        str,
        about("for lntor on another host: opens onion_address alone, by which it has its address announced"),
    ] = ""
    api_tls: Annotated[bool, about("the API on TCP speaks TLS, with the certificate of tls")] = False
    handshakes: Annotated[
        str,
        about(
            "backend: frontends have no key; frontend: those that have one are believed who a peer is",
            pattern="^(backend|frontend)$",
        ),
    ] = "backend"
    admin: Annotated[
        str, about("where /healthz, /readyz and /metrics are served, to anyone; empty: nowhere")
    ] = ""
    handshakes_per_s: Annotated[int, about("handshakes with strangers, all frontends together", ge=1)] = 500
    flush_interval_s: Annotated[float, about("gossip goes on to peers this often", gt=0)] = 60.0
    reconnect: Annotated[bool, about("dial peers that we have channels with")] = True
    assume_channels_valid: Annotated[
        bool,
        about(
            "do not look up the funding outputs of public channels: for a pruned bitcoind, and for simulations; "
            "a stranger can then invent channels"
        ),
    ] = False
    bitcoind: BitcoindConfig = BitcoindConfig()
    fees: FeeConfig = FeeConfig()
    channels: ChannelConfig = ChannelConfig()
    limits: LimitsConfig = LimitsConfig()
    tor: TorConfig = TorConfig()
    tls: TlsConfig = TlsConfig()
    log: LogConfig = LogConfig()

    @property
    def directory(self) -> Path:
        return Path(self.data_dir).expanduser()

    @property
    def link_address(self) -> str:
        return self.link or f"unix:{self.directory / 'link.sock'}"

    @property
    def api_address(self) -> str:
        return self.api or f"unix:{self.directory / 'api.sock'}"


class FrontendConfig(Section, frozen=True):
    """`lnnode frontend`: connections and gossip, no keys, no state."""

    id: Annotated[str, about("names this frontend in logs and metrics; empty: f and the process id")] = ""
    listen: Annotated[str, about("where peers connect; frontends of one host share it")] = "0.0.0.0:9735"
    backend: Annotated[
        str | tuple[str, ...], about("the backend's link address; a list, with those of its standbys")
    ] = "unix:~/.lnnode/link.sock"
    max_connections: Annotated[int, about("sockets that this frontend holds at most", ge=1)] = 20_000
    backend_away_timeout_s: Annotated[float, about("sessions are held this long without a backend", gt=0)] = (
        60.0
    )
    reconnect_s: Annotated[float, about("pause before the backend is tried again", gt=0)] = 0.5
    proxy_listen: Annotated[
        str, about("where a load balancer connects; every connection names its peer first")
    ] = ""
    proxy_on_listen: Annotated[bool, about("proxy_from may connect to `listen` as well, in the same way")] = (
        False
    )
    proxy_from: Annotated[
        tuple[Host, ...], about("addresses and networks whose PROXY header is believed")
    ] = ()
    limits_exempt: Annotated[
        tuple[Host, ...], about("addresses and networks without a limit of their own: a Tor daemon, a proxy")
    ] = ("127.0.0.0/8", "::1")
    handshakes: Annotated[
        str,
        about(
            "backend: no key is here; frontend: with a node_key, where the backend agrees",
            pattern="^(backend|frontend)$",
        ),
    ] = "backend"
    node_key: NodeKeyConfig = NodeKeyConfig()
    tls: TlsConfig = TlsConfig()
    admin: Annotated[
        str, about("where /healthz, /readyz and /metrics are served, to anyone; empty: nowhere")
    ] = ""
    drain_s: Annotated[float, about("when told to end, let peers go evenly over this time first", ge=0)] = 0.0
    reaches: Annotated[
        tuple[Reach, ...], about("what it can dial, by itself or through the proxy: ipv4, ipv6, dns, onion")
    ] = ("ipv4", "ipv6", "dns", "onion")
    socks: Annotated[
        str, about("HOST:PORT of this host's SOCKS proxy; empty: the one that the backend names in tor.socks")
    ] = ""
    log: LogConfig = LogConfig()

    @property
    def backends(self) -> tuple[str, ...]:
        return (self.backend,) if isinstance(self.backend, str) else self.backend


class StandaloneConfig(Section, frozen=True):
    """`lnnode standalone`: a backend and one frontend in one process."""

    listen: Annotated[str, about("where peers connect")] = "127.0.0.1:9735"
    backend: BackendConfig = BackendConfig()


KINDS: dict[str, type[Section]] = {
    "backend": BackendConfig,
    "frontend": FrontendConfig,
    "standalone": StandaloneConfig,
}

C = TypeVar("C", bound=Section)


def load(kind: type[C], path: Path | None, environment: Mapping[str, str] = os.environ) -> C:
    """The configuration in `path` (None: defaults), environment applied.

    Raises Refused with one line that names the file, the field and the remedy.
    """
    raw = {} if path is None else _read(path)
    source = "the defaults" if path is None else str(path)
    overrides = {k: v for k, v in environment.items() if k.startswith(ENVIRONMENT_PREFIX)}
    for name, text in sorted(overrides.items()):
        keys = [key.lower() for key in name.removeprefix(ENVIRONMENT_PREFIX).split("__")]
        if keys[0] in kind.__struct_fields__:  # one environment may serve several processes
            _override(raw, keys, text, name)
            source += f" with {name}"
    try:
        config = msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise Refused(f"{source}: {_explain(error, kind)}") from error
    _check_database(config, source)
    _check_addresses(config, source)
    inner = config.backend if isinstance(config, StandaloneConfig) else config
    if isinstance(config, StandaloneConfig) and split_address(config.backend.link_address)[0] != "unix":
        raise Refused(f"{source}: backend.link: standalone's own frontend needs unix:PATH")
    _check_link(inner, source)
    _check_front(config, source)
    _check_api(inner, source)
    _check_bitcoind(inner, source)
    _check_tor(inner, source, config.listen if isinstance(config, StandaloneConfig) else "")
    return config


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text())
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}; name a configuration file that can be read") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        raise Refused(f"{path}{line}: is not YAML: {getattr(error, 'problem', error)}") from error
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise Refused(f"{path}: holds no mapping; write lines such as `alias: mynode`")
    return raw


def _override(raw: dict[str, Any], keys: list[str], text: str, name: str) -> None:
    for key in keys[:-1]:
        raw = raw.setdefault(key, {})
        if not isinstance(raw, dict):
            raise Refused(f"{name}: {key} is no section; its fields can't be set")
    try:
        raw[keys[-1]] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise Refused(f"{name}: is not YAML: {getattr(error, 'problem', error)}; put it in quotes") from error


def _explain(error: msgspec.ValidationError, kind: type[Section]) -> str:
    message, _, where = str(error).partition(" - at `")
    field = where.rstrip("`").removeprefix("$.") or "top level"
    known = ", ".join(kind.__struct_fields__)
    remedy = (
        f"known fields here are: {known}"
        if "unknown field" in message and field in ("$", "top level")
        else ""
    )
    name = next((name for name, known in KINDS.items() if known is kind), "backend")
    remedy = remedy or f"`lnnode check-config {name} --defaults` shows every field with its meaning"
    return f"{field}: {message}; {remedy}"


def _check_addresses(config: Section, source: str) -> None:
    for name in ("link", "api", "listen", "backends", "proxy_listen", "admin"):
        for address in _addresses(config, name):
            try:
                split_address(address)
            except Refused as error:
                raise Refused(f"{source}: {name.removesuffix('s')}: {error}") from error


def _addresses(config: Section, name: str) -> tuple[str, ...]:
    """Those that are set, of a field that has one or of one that has several."""
    value = getattr(config, name, "")
    return (value,) if value and isinstance(value, str) else tuple(value)


def _check_database(config: Section, source: str) -> None:
    """The URL is not shown: it may hold a password."""
    if isinstance(config, StandaloneConfig) and config.backend.database:
        raise Refused(f"{source}: backend.database: a standalone node has its own; use `lnnode backend`")
    if isinstance(config, FrontendConfig) and not config.backends:
        raise Refused(f"{source}: backend: names none; say unix:PATH")
    database = getattr(config, "database", "")
    if database and not database.startswith(("postgresql://", "postgres://")):
        raise Refused(f"{source}: database: is no PostgreSQL URL; say postgresql://USER@HOST/NAME")


def _check_bitcoind(config: Section, source: str) -> None:
    """What would otherwise be found out by a node that waits in vain."""
    if not isinstance(config, BackendConfig):
        return
    bitcoind = config.bitcoind
    if not bitcoind.url.startswith(("http://", "https://")):
        raise Refused(f'{source}: bitcoind.url: "{bitcoind.url}" is no URL; say http://HOST:PORT')
    if not bitcoind.user and not bitcoind.cookie_file:
        raise Refused(f"{source}: bitcoind: name its cookie_file (its .cookie), or set user and password")
    if bitcoind.zmq and not bitcoind.zmq.startswith(("tcp://", "ipc://")):
        raise Refused(f'{source}: bitcoind.zmq: "{bitcoind.zmq}" is no endpoint; say tcp://HOST:PORT')


def _check_tor(config: Section, source: str, listen: str) -> None:
    """`listen`: where a standalone node's own frontend does."""
    if isinstance(config, BackendConfig):
        check_announced(config.announce_addresses, source)
        elsewhere = {
            "bitcoind.url": config.bitcoind.url,
            "bitcoind.zmq": config.bitcoind.zmq,
            "database": config.database,
        }
        check_tor(config.tor, source, config.announce_addresses, elsewhere, listen)


def _check_link(config: Section, source: str) -> None:
    """Transport keys of peers go over the link: never in clear where others listen, or come in by themselves."""
    if not isinstance(config, BackendConfig | FrontendConfig):
        return
    tls = config.tls
    if any((tls.certificate, tls.key, tls.authority)):
        for part in ("certificate", "key", "authority"):
            if not getattr(tls, part):
                raise Refused(f"{source}: tls.{part}: is missing; `lnnode certs` makes all three files")
        return
    name = "link" if isinstance(config, BackendConfig) else "backend"
    for address in _addresses(config, "link" if name == "link" else "backends"):
        if split_address(address)[0] != "tcp" or (tls.clear_on_loopback and is_loopback(address)):
            continue
        remedy = "set tls.certificate, tls.key and tls.authority (`lnnode certs` makes them)"
        if is_loopback(address):
            remedy += ", use unix:PATH, or set tls.clear_on_loopback"
        raise Refused(f"{source}: {name}: TLS is missing for {address}; {remedy}")


def _check_front(config: Section, source: str) -> None:
    """Whom a frontend believes in front of it."""
    if not isinstance(config, FrontendConfig):
        return
    check_socks(config.socks, f"{source}: socks")
    for field in ("proxy_from", "limits_exempt"):
        for network in getattr(config, field):
            try:
                ipaddress.ip_network(network, strict=False)
            except ValueError as error:
                raise Refused(f"{source}: {field}: {error}; say an address, or NETWORK/BITS") from error
    if (config.proxy_listen or config.proxy_on_listen) and not config.proxy_from:
        raise Refused(f"{source}: proxy_from: is missing; list the addresses of the load balancers")
    if (
        config.handshakes == "frontend"
        and config.node_key.provider in ("seed", "file")
        and not config.node_key.path
    ):
        raise Refused(f"{source}: node_key.path: is missing; name the file")


def _check_api(config: Section, source: str) -> None:
    """Whoever reaches the API can spend; a socket file is its owner's alone, a port is everybody's."""
    if not isinstance(config, BackendConfig):
        return
    if split_address(config.api_address)[0] == "tcp" and not config.api_password:
        raise Refused(f"{source}: api: listens on TCP for everybody; set api_password, or use unix:PATH")
    taken = {config.api_password: "api_password"}
    for field in ("api_read_password", "api_onion_password"):
        if not (password := getattr(config, field)):
            continue
        if not config.api_password:
            raise Refused(f"{source}: {field}: without api_password everybody may do everything; set both")
        if password in taken:
            raise Refused(f"{source}: {field}: is {taken[password]}; choose another one")
        taken[password] = field
    if config.api_tls and not config.tls.configured:
        raise Refused(f"{source}: api_tls: needs tls.certificate and tls.key; `lnnode certs` makes them")
