"""What tor is told: the option lines of a service directory, the ADD_ONION command. Pure: settings in, text out."""

from collections.abc import Iterable, Sequence

from tor.config import Service

Options = list[tuple[str, str]]

# A target that every connection fails at once: for when nothing may be given to any frontend.
NOWHERE = "unix:/nonexistent/lntor"


def port_lines(port: int, targets: Iterable[tuple[str, int]]) -> tuple[str, ...]:
    """One line for each share of each (target, weight): tor draws among the lines."""
    return tuple(f"{port} {target}" for target, weight in targets for _ in range(weight))


def service_block(service: Service, ports: Sequence[str]) -> Options:
    """The torrc lines of this service, its directory first."""
    yes = [
        ("HiddenServiceMaxStreamsCloseCircuit", service.max_streams_close_circuit),
        ("HiddenServicePoWDefensesEnabled", service.pow_defenses_enabled),
        ("HiddenServiceEnableIntroDoSDefense", service.enable_intro_dos_defense),
        ("HiddenServiceOnionBalanceInstance", bool(service.onion_balance_master)),
    ]
    numbers = [
        ("HiddenServiceNumIntroductionPoints", service.num_introduction_points),
        ("HiddenServiceMaxStreams", service.max_streams or None),
        ("HiddenServicePoWQueueRate", service.pow_queue_rate),
        ("HiddenServicePoWQueueBurst", service.pow_queue_burst),
        ("HiddenServiceEnableIntroDoSRatePerSec", service.enable_intro_dos_rate_per_sec),
        ("HiddenServiceEnableIntroDoSBurstPerSec", service.enable_intro_dos_burst_per_sec),
    ]
    return [
        ("HiddenServiceDir", service.directory),
        *(("HiddenServicePort", line) for line in ports),
        *((name, "1") for name, on in yes if on),
        *((name, str(number)) for name, number in numbers if number is not None),
        *([("HiddenServiceExportCircuitID", "haproxy")] if service.export_circuit_id else []),
    ]


def blocks(options: Options) -> list[Options]:
    """The services in an answer to GETCONF HiddenServiceOptions, each beginning with its directory."""
    found: list[Options] = []
    for name, value in options:
        if name == "HiddenServiceDir":
            found.append([])
        if found:
            found[-1].append((name, value))
    return found


def directory_of(block: Options) -> str:
    return block[0][1].rstrip("/")


def merged(current: Options, directory: str, block: Options) -> Options:
    """All services of a tor with ours replaced or added; an empty block leaves it out. tor takes all or none."""
    others = [each for each in blocks(current) if directory_of(each) != directory.rstrip("/")]
    return [option for each in others for option in each] + block


def ports_of(current: Options, directory: str) -> tuple[str, ...] | None:
    """The targets that tor has for our service, None where it has no such service."""
    for block in blocks(current):
        if directory_of(block) == directory.rstrip("/"):
            return tuple(value for name, value in block if name == "HiddenServicePort")
    return None


def add_onion(service: Service, key_blob: str, ports: Sequence[str]) -> str:
    flags = [
        *(["MaxStreamsCloseCircuit"] if service.max_streams_close_circuit else []),
        *(["NonAnonymous"] if service.single_hop_mode else []),
        *(["V3Auth"] if service.authorized_clients else []),
    ]
    numbers = [
        ("MaxStreams", service.max_streams or None),
        ("PoWDefensesEnabled", 1 if service.pow_defenses_enabled else None),
        ("PoWQueueRate", service.pow_queue_rate),
        ("PoWQueueBurst", service.pow_queue_burst),
    ]
    words = [
        f"ADD_ONION ED25519-V3:{key_blob}",
        *([f"Flags={','.join(flags)}"] if flags else []),
        *(f"{name}={number}" for name, number in numbers if number is not None),
        *(f"Port={line.replace(' ', ',', 1)}" for line in ports),
        *(f"ClientAuthV3={key.upper()}" for key in service.authorized_clients.values()),
    ]
    return " ".join(words)
