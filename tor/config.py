"""Configuration: one YAML file, checked strictly, every field with a default and a sentence about it.

Options that are tor's own keep the name that tor's manual has for them, in lower case and with underscores.
"""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import yaml
from msgspec import Meta, Struct

from tor.errors import Refused

MAX_APIS = 8  # a backend and its standbys, each of which may take its time to say no
MAX_PORT_LINES = 256  # weights repeat lines; a list in tor is no place for thousands
# tor reads a target as a word of a line: what would end the word has no place in a path.
PLAIN_PATH = re.compile(r"/[\w./@:+,-]+")
CLIENT_KEY = "^[A-Za-z2-7]{52}$"


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of the configuration file."""


def about(text: str, **limits: Any) -> Meta:
    """What a field is for, in one sentence."""
    return Meta(description=text, **limits)


class Control(Section, frozen=True):
    address: Annotated[str, about("tor's control socket or port: unix:PATH or HOST:PORT")] = (
        "unix:/run/tor/control"
    )
    password: Annotated[str, about("control password; better in password_file")] = ""
    password_file: Annotated[str, about("file whose first line is the control password")] = ""
    cookie_file: Annotated[str, about("the control cookie, where it is not where tor says it is")] = ""
    timeout_s: Annotated[float, about("longest wait for an answer of tor", gt=0, le=60)] = 5.0
    retry_s: Annotated[float, about("pause before tor is tried again", gt=0, le=60)] = 0.5
    watch_s: Annotated[float, about("how often tor is asked whether all is as it should be", gt=0, le=60)] = (
        2.0
    )


class Service(Section, frozen=True):
    mode: Annotated[
        str,
        about(
            "directory: a HiddenServiceDir, targets change live; ephemeral: ADD_ONION, for a tor whose files are not ours",
            pattern="^(directory|ephemeral)$",
        ),
    ] = "directory"
    directory: Annotated[
        str, about("directory mode: where tor keeps the service's key; as tor's user sees it")
    ] = "/var/lib/tor/lnsim"
    key_file: Annotated[
        str, about("ephemeral mode: the service's key, in the format of tor's own key file")
    ] = ""
    port: Annotated[int, about("the port of the onion address", ge=1, le=65535)] = 9735
    announce: Annotated[
        bool, about("announce the address by address_file and backend.api; false takes it back")
    ] = True
    address_file: Annotated[
        str, about("file that holds ADDRESS.onion:PORT while it is announced; empty: none")
    ] = ""
    keep: Annotated[bool, about("directory mode: the service stays in tor when lntor ends")] = True
    replace_s: Annotated[
        float, about("ephemeral mode: least time between changes of targets, each of which republishes", ge=1)
    ] = 30.0
    watch_key_s: Annotated[
        float, about("how often the network is asked whether another tor serves this key; 0: never", ge=0)
    ] = 600.0
    num_introduction_points: Annotated[
        Annotated[int, Meta(ge=3, le=20)] | None, about("directory mode; tor's default is 3")
    ] = None
    max_streams: Annotated[
        int, about("connections that one circuit may hold; 0: no limit", ge=0, le=65535)
    ] = 0
    max_streams_close_circuit: Annotated[bool, about("close the circuit that goes above max_streams")] = False
    pow_defenses_enabled: Annotated[bool, about("proof of work under attack; needs tor 0.4.8")] = False
    pow_queue_rate: Annotated[
        Annotated[int, Meta(ge=0)] | None, about("rendezvous requests taken a second")
    ] = None
    pow_queue_burst: Annotated[
        Annotated[int, Meta(ge=0)] | None, about("rendezvous requests taken at once")
    ] = None
    enable_intro_dos_defense: Annotated[
        bool, about("directory mode: limit rates at the introduction points")
    ] = False
    enable_intro_dos_rate_per_sec: Annotated[
        Annotated[int, Meta(ge=0)] | None, about("introductions a second")
    ] = None
    enable_intro_dos_burst_per_sec: Annotated[
        Annotated[int, Meta(ge=0)] | None, about("introductions at once")
    ] = None
    export_circuit_id: Annotated[
        bool, about("directory mode: each connection begins with a PROXY line that names its circuit")
    ] = False
    single_hop_mode: Annotated[
        bool, about("NOT ANONYMOUS: tor shows where this service is, for speed; tor has to be started so")
    ] = False
    authorized_clients: Annotated[
        dict[Annotated[str, Meta(pattern="^[a-z0-9_-]{1,16}$")], Annotated[str, Meta(pattern=CLIENT_KEY)]],
        about("only these clients find the service: name and x25519 public key in base32"),
    ] = {}
    onion_balance_master: Annotated[
        str,
        about("directory mode: address of the onionbalance in front", pattern=r"^([a-z2-7]{56}\.onion)?$"),
    ] = ""
    vanguards_lite_enabled: Annotated[
        bool | None, about("for the whole tor: guards against guard discovery; empty: as tor decides")
    ] = None


class Target(Section, frozen=True):
    address: Annotated[
        str, about("a frontend: HOST:PORT, [V6]:PORT or unix:PATH; an IP address, tor resolves no name")
    ]
    weight: Annotated[int, about("share of new connections beside the others", ge=1, le=16)] = 1
    health: Annotated[
        str, about("http://HOST:PORT/PATH that answers 200 while ready; empty: connecting is enough")
    ] = ""


class Check(Section, frozen=True):
    interval_s: Annotated[float, about("pause between checks of a target", gt=0, le=60)] = 0.5
    timeout_s: Annotated[float, about("longest wait for a target", gt=0, le=60)] = 1.0
    fall: Annotated[int, about("failed checks that take a target out", ge=1, le=100)] = 2
    rise: Annotated[int, about("good checks that put it back", ge=1, le=100)] = 2


class Admin(Section, frozen=True):
    socket: Annotated[str, about("Unix socket of status, metrics and drain; its owner's alone")] = (
        "/run/lntor/admin.sock"
    )
    metrics: Annotated[str, about("HOST:PORT for Prometheus, metrics only; empty: none")] = ""


class Backend(Section, frozen=True):
    api: Annotated[
        str | tuple[str, ...],
        about(
            "API of the backend, HOST:PORT or unix:PATH, that is told of the address; a list, with those of its standbys"
        ),
    ] = ()
    authority: Annotated[
        str, about("authority.pem of the `lnnode certs` that made the backend's certificate; empty: no TLS")
    ] = ""
    password_file: Annotated[str, about("file whose first line is the backend's api_onion_password")] = ""

    @property
    def apis(self) -> tuple[str, ...]:
        return ((self.api,) if self.api else ()) if isinstance(self.api, str) else self.api


class Log(Section, frozen=True):
    level: Annotated[str, about("debug, info, warning or error", pattern="^(debug|info|warning|error)$")] = (
        "info"
    )
    format: Annotated[str, about("json for machines, text for people", pattern="^(json|text)$")] = "json"


class Config(Section, frozen=True):
    """`lntor`: one onion service in front of several frontends."""

    control: Control = Control()
    service: Service = Service()
    targets: Annotated[tuple[Target, ...], about("the frontends", min_length=1)] = (
        Target(address="127.0.0.1:9735"),
    )
    check: Check = Check()
    backend: Backend = Backend()
    admin: Admin = Admin()
    log: Log = Log()


def load(path: Path) -> Config:
    """The configuration in `path`. Raises Refused with one line that names the file, the field and the remedy."""
    raw = _read(path)
    try:
        config = msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `")
        field = where.rstrip("`").removeprefix("$.") or "top level"
        raise Refused(
            f"{path}: {field}: {message}; `lntor config` shows every field with its meaning"
        ) from error
    try:
        check(config)
    except Refused as error:
        raise Refused(f"{path}: {error}") from error
    return config


def check(config: Config) -> None:
    """What the types can't say. Raises Refused."""
    _check_control(config.control)
    _check_service(config.service)
    _check_backend(config.backend)
    seen: set[str] = set()
    for number, target in enumerate(config.targets):
        field = f"targets[{number}]"
        check_target(target.address, f"{field}.address")
        if target.address in seen:
            raise Refused(f"{field}.address: {target.address} is there twice; give the first a weight of 2")
        seen.add(target.address)
        if target.health:
            split_url(target.health, f"{field}.health")
    if sum(target.weight for target in config.targets) > MAX_PORT_LINES:
        raise Refused(f"targets: weights add up to more than {MAX_PORT_LINES}; give smaller ones")
    if config.admin.metrics:
        split_address(config.admin.metrics, "admin.metrics")


def _check_control(control: Control) -> None:
    if control.address.startswith("unix:"):
        _check_path(control.address.removeprefix("unix:"), "control.address")
    else:
        split_address(control.address, "control.address")
    if control.password and control.password_file:
        raise Refused("control: password and password_file are both set; keep one")


def _check_service(service: Service) -> None:
    _check_path(service.directory, "service.directory")
    if service.mode == "directory":
        if service.key_file:
            raise Refused("service.key_file: is for ephemeral mode; here the key is in service.directory")
        return
    if not service.key_file:
        raise Refused(
            "service.key_file: ephemeral mode needs a file to keep its key in, or every start had a new address"
        )
    only_directory = {
        "num_introduction_points": service.num_introduction_points is not None,
        "export_circuit_id": service.export_circuit_id,
        "enable_intro_dos_defense": service.enable_intro_dos_defense,
        "onion_balance_master": bool(service.onion_balance_master),
    }
    for name, is_set in only_directory.items():
        if is_set:
            raise Refused(f"service.{name}: tor has it for directory mode only; set service.mode: directory")


def _check_backend(backend: Backend) -> None:
    """Whoever hears the password can have any address announced: it is not for a network to hear."""
    if len(backend.apis) > MAX_APIS:
        raise Refused(f"backend.api: more than {MAX_APIS}; name those of one node")
    if not backend.apis and (backend.authority or backend.password_file):
        raise Refused("backend.api: is missing; say where the backend's API listens, HOST:PORT")
    for address in backend.apis:
        if address.startswith("unix:"):
            _check_path(address.removeprefix("unix:"), "backend.api")
            continue
        host, _ = split_address(address, "backend.api")
        if not backend.password_file:
            raise Refused(
                "backend.password_file: is missing; name a file that holds the backend's api_onion_password"
            )
        if not backend.authority and not is_loopback(host):
            raise Refused(
                f"backend.authority: is missing: the password would go to {address} in clear; set api_tls at the "
                "backend, and name a copy of its authority.pem here"
            )


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_target(address: str, field: str) -> None:
    if address.startswith("unix:"):
        _check_path(address.removeprefix("unix:"), field)
        return
    host, _ = split_address(address, field)
    if not (re.fullmatch(r"\d{1,3}(\.\d{1,3}){3}", host) or ":" in host):
        raise Refused(
            f'{field}: "{host}" is no IP address; tor takes names for targets, but asks for them in clear'
        )


def _check_path(path: str, field: str) -> None:
    if not PLAIN_PATH.fullmatch(path):
        raise Refused(
            f'{field}: "{path}" will not do; an absolute path of letters, digits and ._-/@:+, please'
        )


def split_address(address: str, field: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isascii() and port.isdigit() and 1 <= int(port) <= 65_535):
        raise Refused(f'{field}: "{address}" is no address; say HOST:PORT, [V6]:PORT or unix:PATH')
    if (":" in bare) != (host != bare) or not re.fullmatch(r"[\w.:%-]+", bare):
        raise Refused(f'{field}: "{address}" is no address; an IPv6 address stands in brackets: [::1]:9735')
    return bare, int(port)


def split_url(url: str, field: str) -> tuple[str, int, str]:
    """Host, port and path of an http URL."""
    found = re.fullmatch(r"http://([^/\s]+)(/\S*)", url)
    if not found:
        raise Refused(f'{field}: "{url}" is no URL of this kind: http://HOST:PORT/PATH')
    return *split_address(found.group(1), field), found.group(2)


def password(control: Control) -> str:
    """The control password, or "". Raises Refused where its file can't be read."""
    if not control.password_file:
        return control.password
    return first_line(control.password_file, "control.password_file")


def first_line(path: str, field: str) -> str:
    """Raises Refused where the file can't be read."""
    try:
        return (Path(path).read_text().splitlines() or [""])[0]
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is no text"
        raise Refused(f"{field}: {path}: {why}; let lntor's user read it") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text())
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}; name a configuration file that can be read") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise Refused(f"{path}{line}: is not YAML: {getattr(error, 'problem', error)}") from error
    if raw is not None and not isinstance(raw, dict):
        raise Refused(f"{path}: holds no mapping; write lines such as `service: {{port: 9735}}`")
    return raw or {}


T = TypeVar("T", bound=Struct)


def documented_defaults(kind: type[T] | type[Config] = Config, indent: str = "") -> str:
    """A YAML file with every field at its default, each under a comment that says what it is for."""
    lines = [f"# {kind.__doc__}"] if not indent else []
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    for field in info.fields:
        if isinstance(field.type, msgspec.inspect.StructType):
            lines += [f"{indent}{field.name}:", documented_defaults(field.type.cls, indent + "  ").rstrip()]
            continue
        extra = getattr(field.type, "extra_json_schema", None) or {}
        default = field.default if field.default is not msgspec.NODEFAULT else {}
        value = yaml.safe_dump(msgspec.to_builtins(default), default_flow_style=True, width=1_000)
        lines.append(f"{indent}# {extra.get('description', '')}")
        lines.append(f"{indent}{field.name}: {value.removesuffix('...' + chr(10)).strip()}")
    return "\n".join(lines) + "\n"
