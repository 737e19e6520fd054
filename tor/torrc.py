"""The lines that an operator puts into torrc, and into AppArmor's profile of tor, for a configuration of ours."""

import hashlib
import secrets
from collections.abc import Iterator

from tor import plan
from tor.config import Config, Target, password

S2K_COUNT = 96  # as tor itself writes it: 65536 bytes are hashed
# What Debian's profile of tor lets it reach without a word.
APPARMOR_OPEN = ("/run/tor/",)


def torrc(config: Config, *, with_service: bool) -> str:
    """All lines, each with a word on what it is for."""
    return (
        "\n".join(
            [
                *_control(config),
                *_modes(config),
                *(_service(config) if with_service else []),
                *_apparmor(config),
            ]
        )
        + "\n"
    )


def _control(config: Config) -> Iterator[str]:
    address = config.control.address
    yield "# Lets lntor in."
    if address.startswith("unix:"):
        yield f"ControlSocket {address.removeprefix('unix:')} GroupWritable RelaxDirModeCheck"
        yield "ControlSocketsGroupWritable 1"
    else:
        yield f"ControlPort {address}"
        if not address.startswith(("127.", "[::1]")):
            yield "# Whoever reaches this port and has the password owns this tor; the password travels in clear."
    if secret := password(config.control):
        yield f"HashedControlPassword {hashed_password(secret)}"
    else:
        yield "CookieAuthentication 1"
        yield "CookieAuthFileGroupReadable 1"
        if config.control.cookie_file:
            yield f"CookieAuthFile {config.control.cookie_file}"


def _modes(config: Config) -> Iterator[str]:
    if config.service.single_hop_mode:
        yield ""
        yield "# NOT ANONYMOUS: everybody can find out where the services of this tor are. No SOCKS on such a tor."
        yield "HiddenServiceNonAnonymousMode 1"
        yield "HiddenServiceSingleHopMode 1"
        yield "SocksPort 0"
    if config.service.vanguards_lite_enabled is not None:
        yield ""
        yield f"VanguardsLiteEnabled {int(config.service.vanguards_lite_enabled)}"


def _service(config: Config) -> Iterator[str]:
    yield ""
    yield "# The service itself: tor serves it from its start on; lntor replaces the targets as frontends come and go."
    if config.service.mode == "directory":
        targets = [(target.address, target.weight) for target in config.targets]
        for name, value in plan.service_block(config.service, plan.port_lines(config.service.port, targets)):
            yield f"{name} {value}"
    else:
        yield "# (ephemeral mode: nothing to write, the service lives with lntor's control connection)"


def _apparmor(config: Config) -> Iterator[str]:
    paths = [target_path(target) for target in config.targets if outside_profile(target)]
    if paths:
        yield ""
        yield "# Not for torrc: Debian's AppArmor profile keeps tor from these sockets. Put the lines without # into"
        yield "# /etc/apparmor.d/local/system_tor, then: apparmor_parser -r /etc/apparmor.d/system_tor"
        for path in paths:
            yield f"#   {path} rw,"


def target_path(target: Target) -> str:
    return target.address.removeprefix("unix:")


def outside_profile(target: Target) -> bool:
    return target.address.startswith("unix:") and not target_path(target).startswith(APPARMOR_OPEN)


def hashed_password(secret: str) -> str:
    """As `tor --hash-password` prints it: OpenPGP's iterated and salted SHA-1."""
    salt = secrets.token_bytes(8)
    count = (16 + (S2K_COUNT & 15)) << ((S2K_COUNT >> 4) + 6)
    data = salt + secret.encode()
    repeated = (data * (count // len(data) + 1))[:count]
    digest = hashlib.sha1(repeated).hexdigest()  # noqa: S324 - tor's format
    return f"16:{salt.hex()}{S2K_COUNT:02X}{digest}".upper()
