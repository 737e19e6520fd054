"""What is wrong with this host's tor, and what to change. Looks, and changes nothing."""

import asyncio
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from msgspec import Struct

from tor import admin, backend, elsewhere, keyfile, plan, service
from tor.config import Config, Target, password
from tor.control import Connection, TorRefused
from tor.errors import Refused, Unavailable
from tor.keeper import ELSEWHERE
from tor.offload import off_loop
from tor.probe import probe
from tor.torrc import outside_profile, target_path

GOOD, WARNING, BAD = "ok", "warning", "BAD"
PROFILE = "system_tor"
LOCAL_PROFILE = Path("/etc/apparmor.d/local/system_tor")
MAX_ASKS = 8


class Finding(Struct, frozen=True):
    """`level` is one of ok, warning, BAD."""

    level: str
    about: str
    text: str


async def findings(config: Config) -> list[Finding]:
    """Everything that was looked at, in the order in which an operator would mend it."""
    found = [*_key(config)]
    limit_s = MAX_ASKS * config.control.timeout_s + elsewhere.FETCH_S
    try:
        found += await off_loop(partial(_tor, config), limit_s)
    except (Refused, Unavailable, TimeoutError) as error:
        found.append(Finding(BAD, "control", str(error) or "tor took too long"))
    checks = await asyncio.gather(*(probe(target, config.check.timeout_s) for target in config.targets))
    for target, (ok, why) in zip(config.targets, checks, strict=True):
        text = "answers" if ok else f"{why}; {_remedy(target)}"
        found.append(Finding(GOOD if ok else BAD, f"target {target.address}", text))
    return found + await _backends(config)


def _remedy(target: Target) -> str:
    if target.health:
        return f"`curl {target.health}` says more; start or mend this frontend, or take it out of targets"
    return "start this frontend, or take it out of targets"


async def _backends(config: Config) -> list[Finding]:
    """Each is asked, so that a standby's wrong password is seen before it leads."""
    settings, announce = config.backend, config.service.announce
    found, silent = [], []
    for api in settings.apis:
        about = f"backend {api}"
        try:
            await off_loop(partial(backend.ask, settings, api, announce=announce), backend.limit_s(settings))
        except Refused as error:
            found.append(Finding(BAD, about, _without(api, error)))
        except (Unavailable, TimeoutError) as error:
            silent.append((about, _without(api, error) or "took too long"))
        else:
            what = "takes the address" if announce else "is told that nothing is announced"
            found.append(Finding(GOOD, about, what))
    level, hint = BAD, "start it, or mend backend.api or the firewall"
    if found:  # one of them is there
        level, hint = WARNING, "right for a standby"
    return found + [Finding(level, about, f"{why}; {hint}") for about, why in silent]


def _without(api: str, error: Exception) -> str:
    return str(error).removeprefix(f"{api}: ")


def _key(config: Config) -> Iterator[Finding]:
    settings = config.service
    try:
        if settings.mode == "directory":
            directory = Path(settings.directory)
            keyfile.check_directory(directory)
            address = keyfile.address_in(directory)
            yield Finding(GOOD, "key", f"{address}.onion" if address else f"tor will make one in {directory}")
            parent = directory.parent
            if not directory.exists() and not os.access(parent, os.W_OK | os.X_OK):
                yield Finding(BAD, "key", f"{parent}: this user can't write there; run lntor as tor's user")
        else:
            key = keyfile.read_key(Path(settings.key_file))
            yield Finding(
                GOOD, "key", f"in {settings.key_file}" if key else f"will be made in {settings.key_file}"
            )
    except Refused as error:
        yield Finding(BAD, "key", str(error))


def _tor(config: Config) -> list[Finding]:
    control = config.control
    with Connection(
        control.address,
        timeout_s=control.timeout_s,
        password=password(control),
        cookie_file=control.cookie_file,
    ) as connection:
        found = [Finding(GOOD, "control", f"{control.address}, authenticated by {connection.method}")]
        for check in (_version, _modes, _bootstrap, _clock, _reach, _twin, _elsewhere):
            found += check(connection, config)
        return found


def _version(connection: Connection, config: Config) -> Iterator[Finding]:
    try:
        service.check_version(connection.tor_version, config.service)
    except Refused as error:
        yield Finding(BAD, "version", str(error))
    else:
        yield Finding(GOOD, "version", f"tor {connection.tor_version}")
    if connection.get_info("status/version/current") in ("obsolete", "unrecommended"):
        yield Finding(WARNING, "version", "the network advises against this version; upgrade tor")


def _modes(connection: Connection, config: Config) -> Iterator[Finding]:
    try:
        service.check_single_hop(connection, config.service)
    except Refused as error:
        yield Finding(BAD, "anonymity", str(error))
    else:
        if config.service.single_hop_mode:
            yield Finding(WARNING, "anonymity", "single hop mode: this service is NOT ANONYMOUS")
    if ("Sandbox", "1") in connection.get_conf("Sandbox") and config.service.mode == "directory":
        yield Finding(
            BAD, "sandbox", "tor's Sandbox 1 allows no new service; Sandbox 0, or `lntor torrc --service`"
        )


def _bootstrap(connection: Connection, config: Config) -> Iterator[Finding]:
    words = connection.get_info("status/bootstrap-phase")
    percent = words.partition("PROGRESS=")[2].split(" ")[0]
    if percent == "100":
        yield Finding(GOOD, "bootstrap", "tor is connected to its network")
    else:
        summary = words.partition('SUMMARY="')[2].partition('"')[0]
        yield Finding(
            BAD,
            "bootstrap",
            f"at {percent} % ({summary}); wait, or look at tor's log, the firewall, the clock",
        )


def _clock(connection: Connection, config: Config) -> Iterator[Finding]:
    """A tor takes no consensus from the future or long past; a wrong clock also breaks descriptors without a word."""
    try:
        begin, end = (
            datetime.strptime(connection.get_info(f"consensus/{which}"), "%Y-%m-%d %H:%M:%S")
            .replace(tzinfo=UTC)
            .timestamp()
            for which in ("valid-after", "valid-until")
        )
    except (TorRefused, ValueError):
        yield Finding(WARNING, "clock", "tor has no consensus yet to compare the clock with")
        return
    if begin <= time.time() <= end:
        yield Finding(GOOD, "clock", "within the consensus")
    else:
        yield Finding(BAD, "clock", "outside the consensus' time; set the clock (timedatectl set-ntp true)")


def _reach(connection: Connection, config: Config) -> Iterator[Finding]:
    """Whether tor itself may reach Unix sockets: AppArmor and systemd hide places that we can see."""
    process = Path("/proc") / connection.get_info("process/pid")
    for target in config.targets:
        if not target.address.startswith("unix:"):
            continue
        path = target_path(target)
        if outside_profile(target) and _confined(process) and not _allowed(path):
            line = f"put '{path} rw,' into {LOCAL_PROFILE}, then apparmor_parser -r /etc/apparmor.d/{PROFILE}"
            yield Finding(BAD, f"target {target.address}", f"AppArmor keeps tor from it; {line}")
        elif Path(path).exists() and _hidden(process, path):
            text = "systemd hides it from tor (PrivateTmp, ProtectHome); use a path in /run"
            yield Finding(BAD, f"target {target.address}", text)


def _twin(connection: Connection, config: Config) -> Iterator[Finding]:
    """In ephemeral mode a running lntor would look like one."""
    if config.service.mode == "directory":
        try:
            service.refuse_twin(connection, config.service, connection.get_conf("HiddenServiceOptions"))
        except Unavailable as error:
            yield Finding(BAD, "key", str(error))


def _elsewhere(connection: Connection, config: Config) -> Iterator[Finding]:
    """Whether another tor serves the same key: only the network knows, and a running lntor can compare more of it."""
    if config.service.mode != "directory":
        yield from _told_by_lntor(config)
        return
    directory = Path(config.service.directory)
    address = keyfile.address_in(directory)
    if address is None:
        return
    try:
        options = connection.get_conf("HiddenServiceOptions")
        if plan.ports_of(options, config.service.directory) is not None:
            told = [*_told_by_lntor(config)]
            yield from told
            if not told and elsewhere.is_served_elsewhere(config, address):
                yield Finding(BAD, "key", ELSEWHERE)
        elif elsewhere.ask(config, address).found is not None and not keyfile.has_served(directory, address):
            yield Finding(
                WARNING, "key", "published lately, not from this host: is another tor still serving it?"
            )
    except Unavailable as error:
        yield Finding(WARNING, "key", f"whether another tor serves it could not be seen: {error}")


def _told_by_lntor(config: Config) -> Iterator[Finding]:
    try:
        ago_s = admin.call(config.admin.socket, "GET", "/status")["served_elsewhere_ago_s"]
    except (Refused, Unavailable):  # none runs, or it is not ours to ask
        return
    if ago_s is not None and ago_s < elsewhere.PUBLISHED_AGAIN_S:
        yield Finding(BAD, "key", f"{ELSEWHERE} (seen {ago_s:.0f} s ago)")


def _confined(process: Path) -> bool:
    try:
        return (process / "attr/current").read_text().startswith(PROFILE)
    except OSError:
        return False


def _allowed(path: str) -> bool:
    try:
        lines = LOCAL_PROFILE.read_text().splitlines()
    except OSError:
        return False
    return any(line.strip().startswith(path) for line in lines)


def _hidden(process: Path, path: str) -> bool:
    try:
        return not (process / "root" / path.lstrip("/")).exists()
    except OSError:
        return False
