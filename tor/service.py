"""A service in a tor: carried out there, asked about, taken away. Blocking; one control connection, one thread at a time."""

import os
import re
from pathlib import Path

from tor import keyfile, plan
from tor.config import Config, Service, password
from tor.control import Connection, OnEvent, TorRefused
from tor.errors import Refused, Unavailable

OLDEST_TOR = (0, 4, 7)
OLDEST_POW = (0, 4, 8)
EVENTS = "HS_DESC SIGNAL CONF_CHANGED"
OWN_CLIENTS = "lntor-"  # files of ours among a directory's authorized clients


def connect(config: Config, on_event: OnEvent) -> Connection:
    """A connection to a tor that can hold the service. Raises Refused for one that can't, Unavailable for none."""
    control = config.control
    connection = Connection(
        control.address,
        timeout_s=control.timeout_s,
        password=password(control),
        cookie_file=control.cookie_file,
        on_event=on_event,
    )
    try:
        check_version(connection.tor_version, config.service)
        check_single_hop(connection, config.service)
        if config.service.vanguards_lite_enabled is not None:
            on = "1" if config.service.vanguards_lite_enabled else "0"
            connection.set_conf([("VanguardsLiteEnabled", on)])
        connection.ask(f"SETEVENTS {EVENTS}")
    except BaseException:
        connection.close()
        raise
    return connection


def check_version(version: str, service: Service) -> None:
    numbers = tuple(map(int, re.findall(r"\d+", version)[:3]))
    if numbers < OLDEST_TOR:
        raise Refused(f"tor {version} is too old; lntor needs {_dotted(OLDEST_TOR)} or newer")
    if service.pow_defenses_enabled and numbers < OLDEST_POW:
        raise Refused(f"service.pow_defenses_enabled: needs tor {_dotted(OLDEST_POW)}, this one is {version}")


def check_single_hop(connection: Connection, service: Service) -> None:
    """Anonymity is a matter of how tor was started, and never to be guessed."""
    lines = dict(connection.get_conf("HiddenServiceSingleHopMode"))
    is_single_hop = lines.get("HiddenServiceSingleHopMode") == "1"
    if service.single_hop_mode and not is_single_hop:
        raise Refused(
            "service.single_hop_mode: tor has to be started so; put the lines of `lntor torrc` into its torrc"
        )
    if is_single_hop and not service.single_hop_mode:
        raise Refused(
            "this tor is in single hop mode: its services are NOT ANONYMOUS; set service.single_hop_mode: true if that "
            "is meant, or use another tor"
        )


def apply(connection: Connection, service: Service, ports: tuple[str, ...], *, replaces: bool) -> str:
    """Have tor serve with these ports; the address, without ".onion"."""
    try:
        if service.mode == "directory":
            return _apply_directory(connection, service, ports)
        return _apply_ephemeral(connection, service, ports, replaces=replaces)
    except TorRefused as error:
        raise Unavailable(f"tor will not serve: {error}") from error


def _apply_directory(connection: Connection, service: Service, ports: tuple[str, ...]) -> str:
    directory = Path(service.directory)
    keyfile.check_directory(directory)
    _place_files(directory, service)
    current = connection.get_conf("HiddenServiceOptions")
    refuse_twin(connection, service, current)
    connection.set_conf([*plan.merged(current, service.directory, plan.service_block(service, ports))])
    address = keyfile.address_in(directory)
    if address is None:
        raise Unavailable(f"{directory}: tor wrote no address there; it has to be a directory of this host")
    return address


def refuse_twin(connection: Connection, service: Service, current: plan.Options) -> None:
    """Two services of one key take turns in the network's directories: each seems to fail half of the time.

    Raises Unavailable where this tor has another; `current` is its HiddenServiceOptions.
    """
    address = keyfile.address_in(Path(service.directory))
    if address is None:
        return
    if address in ephemeral_addresses(connection):
        raise Unavailable(
            f"{address}.onion is already served by this tor, by another controller's ADD_ONION; end that"
        )
    for block in plan.blocks(current):
        other = plan.directory_of(block)
        if other == service.directory.rstrip("/"):
            continue
        try:
            same = keyfile.address_in(Path(other)) == address
        except Refused:  # not ours to read
            continue
        if same:
            raise Unavailable(
                f"{address}.onion is already served by this tor, from {other}; take that out of its torrc"
            )


def _apply_ephemeral(
    connection: Connection, service: Service, ports: tuple[str, ...], *, replaces: bool
) -> str:
    path = Path(service.key_file)
    key = keyfile.read_key(path)
    if key is None:
        key = keyfile.new_key()
        keyfile.write_key(path, key)
    command = plan.add_onion(service, keyfile.blob(key), ports)
    if replaces:
        for address in ephemeral_addresses(connection, own=True):
            connection.ask(f"DEL_ONION {address}")
    try:
        answer = connection.ask(command)
    except TorRefused as error:
        if "collision" in error.text:
            raise Unavailable(
                "this key's address is already served by this tor, by another controller; end that, or it will be tried again"
            ) from error
        raise
    return answer[0].removeprefix("ServiceID=")


def ephemeral_addresses(connection: Connection, *, own: bool = False) -> set[str]:
    """Services of this control connection, and unless only its `own` are meant those that live without one."""
    found: set[str] = set()
    for key in ("onions/current",) if own else ("onions/current", "onions/detached"):
        try:
            found |= set(connection.get_info(key).split())
        except TorRefused:  # "No onion services of the specified type."
            continue
    return found


def seen(connection: Connection, service: Service, address: str) -> tuple[tuple[str, ...] | None, int]:
    """The ports that tor has for the service (ephemeral: any, while it is there), and clients' circuits."""
    circuits = connection.get_info("circuit-status").count("PURPOSE=HS_SERVICE_REND")
    if service.mode == "directory":
        return plan.ports_of(connection.get_conf("HiddenServiceOptions"), service.directory), circuits
    return (() if address in ephemeral_addresses(connection, own=True) else None), circuits


def take_away(connection: Connection, service: Service) -> None:
    """Have tor serve no more, other services untouched; an ephemeral one ends with its connection by itself."""
    if service.mode == "directory":
        left = plan.merged(connection.get_conf("HiddenServiceOptions"), service.directory, [])
        connection.set_conf([*left] if left else [("HiddenServiceDir", None)])


def _place_files(directory: Path, service: Service) -> None:
    """Clients that are let in, and the address of an onionbalance in front, where tor looks for them."""
    if not service.authorized_clients and not service.onion_balance_master and not directory.exists():
        return
    _own_directory(directory)
    if service.onion_balance_master:
        _place(directory / "ob_config", f"MasterOnionAddress {service.onion_balance_master}\n")
    clients = directory / "authorized_clients"
    wanted = {f"{OWN_CLIENTS}{name}.auth": key for name, key in service.authorized_clients.items()}
    if wanted:
        _own_directory(clients)
    for stale in clients.glob(f"{OWN_CLIENTS}*.auth"):
        if stale.name not in wanted:
            stale.unlink()
    for name, key in wanted.items():
        _place(clients / name, f"descriptor:x25519:{key.upper()}\n")


def _own_directory(directory: Path) -> None:
    if directory.exists():
        return
    try:
        directory.mkdir(mode=0o700)
        _give(directory)
    except OSError as error:
        raise Refused(
            f"{directory}: {error.strerror}; let lntor's user write in {directory.parent}"
        ) from error


def _place(path: Path, text: str) -> None:
    keyfile.write_atomically(path, text.encode(), 0o600)
    _give(path)


def _give(path: Path) -> None:
    """What root makes belongs to the owner of where it is, who is tor."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
