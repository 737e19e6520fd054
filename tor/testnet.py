"""A private Tor network on loopback: one authority, three relays, a tor for services, a tor for clients; real tor.

Four relays are the least that onion services work with. The first consensus is asked for once every relay has
published, instead of being awaited: a clock would have it made too early (without the relays) or much too late.
"""

import contextlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from tor.daemon import Daemon
from tor.errors import Refused
from tor.namespace import Namespace

RELAYS = 3
START_S = 90.0
JOIN_S = 60.0
# Long, since hidden service directories change every 24 of them; the vote itself is triggered.
VOTING_INTERVAL_S = 1_800
ONIONBALANCE_INTERVAL_S = 20  # what `onionbalance --is-testnet` takes for granted
TRIGGERED_INTERVAL_S = 5

RELAY = """
Address 127.0.0.1
AssumeReachable 1
ExitRelay 0
SocksPort 0
ContactInfo nobody@invalid
GeoIPFile /dev/null
GeoIPv6File /dev/null
ServerDNSDetectHijacking 0
ServerDNSTestAddresses
ServerDNSResolvConfFile /dev/null
ServerDNSAllowBrokenConfig 1
VanguardsLiteEnabled 0
TestingMinTimeToReportBandwidth 1 day
"""  # The last: or one relay would report a bandwidth before the others, and be taken for every hop.
AUTHORITY = f"""
AuthoritativeDirectory 1
V3AuthoritativeDirectory 1
TestingDirAuthVoteGuard *
TestingDirAuthVoteHSDir *
TestingMinExitFlagThreshold 0
TestingMinFastFlagThreshold 0
MinUptimeHidServDirectoryV2 0
AuthDirTestEd25519LinkKeys 0
V3AuthNIntervalsValid 2
V3AuthVotingInterval {VOTING_INTERVAL_S}
V3AuthVoteDelay 2
V3AuthDistDelay 2
TestingV3AuthInitialVotingInterval {VOTING_INTERVAL_S}
TestingV3AuthInitialVoteDelay 2
TestingV3AuthInitialDistDelay 2
"""


class TorNetwork:
    """`with TorNetwork() as network:` is a network that is up; afterwards nothing of it is left.

    It lives in a network namespace of its own where that is allowed, and else on ports of the machine's loopback.
    """

    def __init__(
        self, *, namespace: bool = True, voting_interval_s: int = VOTING_INTERVAL_S, relays: int = RELAYS
    ) -> None:
        """`voting_interval_s`: between votes after the first; at least 10, a divisor of a day.

        `relays`: beside the authority, which is one too.
        """
        self.directory = Path(tempfile.mkdtemp(prefix="tornet-"))  # short: a Unix socket's path has 108 bytes
        self.daemons: list[Daemon] = []
        self._namespace = _namespace() if namespace else None
        self._authority_line = ""
        self._voting_interval_s = voting_interval_s
        self._relays = relays

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def is_isolated(self) -> bool:
        return self._namespace is not None

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets made and processes started in this block see the network. Never await in it."""
        with self._namespace.inside() if self._namespace else contextlib.nullcontext():
            yield

    def _start(self) -> None:
        if not shutil.which("tor") or not shutil.which("tor-gencert"):
            raise Refused("there is no tor on this machine; Debian: apt-get install tor")
        authority = self._authority()
        relays = [authority, *(self._relay(f"relay{number}") for number in range(self._relays))]
        for each in relays:
            each.start()
        self._vote(authority, relays)
        for each in relays[1:]:
            each.signal(signal.SIGHUP)  # fetches the consensus now
        for each in relays[1:]:
            _wait_microdescriptors(each, len(relays))
        self.service = self.join("service", "SocksPort 0", wait=False)
        self.socks_port = self.free_port()
        self.client = self.join("client", f"SocksPort 127.0.0.1:{self.socks_port} ExtendedErrors", wait=False)
        for each in (self.service, self.client):
            each.wait_bootstrapped(100, START_S)

    def join(self, name: str, *lines: str, wait: bool = True) -> Daemon:
        """One more tor that is no relay; up when this returns, unless it is not waited for."""
        daemon = self._daemon(name, *lines)
        daemon.start()
        if wait:
            daemon.wait_bootstrapped(100, JOIN_S)
        return daemon

    def stop(self) -> None:
        for daemon in self.daemons:
            daemon.stop()
        if self._namespace is not None:
            self._namespace.close()
            self._namespace = None
        shutil.rmtree(self.directory, ignore_errors=True)

    def free_port(self) -> int:
        with self.inside(), socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            return port

    def _daemon(self, name: str, *lines: str) -> Daemon:
        daemon = Daemon(name, self.directory / name, (self._authority_line, *lines), self.inside)
        self.daemons.append(daemon)
        return daemon

    def _relay(self, name: str, *lines: str) -> Daemon:
        return self._daemon(
            name, *RELAY.splitlines(), f"ORPort 127.0.0.1:{self.free_port()} IPv4Only", *lines
        )

    def _authority(self) -> Daemon:
        directory = self.directory / "authority"
        port, directory_port = self.free_port(), self.free_port()
        identity = _certificate(directory / "keys", directory_port)
        fingerprint = _fingerprint(directory)
        self._authority_line = f"DirAuthority authority orport={port} v3ident={identity} 127.0.0.1:{directory_port} {fingerprint}"
        offset_s = int(time.time() - 60) % VOTING_INTERVAL_S  # no vote comes by itself for half an hour
        return self._daemon(
            "authority",
            *RELAY.splitlines(),
            *AUTHORITY.splitlines(),
            f"ORPort 127.0.0.1:{port} IPv4Only",
            f"DirPort 127.0.0.1:{directory_port}",
            f"TestingV3AuthVotingStartOffset {offset_s}",
        )

    def _vote(self, authority: Daemon, relays: list[Daemon]) -> None:
        """Have the consensus made as soon as every relay can be in it."""
        count = len(relays)
        with authority.control() as control:

            def published() -> bool:
                for each in relays:
                    each.check("publish")  # a port that was free a moment ago may be taken
                return (
                    len(re.findall(r"^router ", control.get_info("desc/all-recent"), re.MULTILINE)) >= count
                )

            authority.wait(published, START_S, "descriptors of all relays")
            control.set_conf(
                [
                    ("V3AuthVotingInterval", str(self._voting_interval_s)),
                    ("TestingV3AuthInitialVotingInterval", str(TRIGGERED_INTERVAL_S)),
                    ("TestingV3AuthVotingStartOffset", str(int(time.time() + 2) % TRIGGERED_INTERVAL_S)),
                ]
            )
        consensus = authority.directory / "cached-microdesc-consensus"
        authority.wait(
            lambda: (
                consensus.exists() and len(re.findall(r"^r ", consensus.read_text(), re.MULTILINE)) >= count
            ),
            START_S,
            "a consensus of all relays",
        )
        if self._voting_interval_s == VOTING_INTERVAL_S:
            self._vote_late(authority)

    def _vote_late(self, authority: Daemon) -> None:
        """Have the next vote a whole long interval from now, instead of at the next half hour of the clock.

        A tor numbers its descriptors by the seconds since its consensus's twenty-four rounds began. Where the next
        consensus is of another rhythm than the first, two tors of one key that hold one each count from different
        moments, and directories refuse the descriptors of whoever counts less.
        """
        with authority.control() as control:
            control.set_conf(
                [
                    ("TestingV3AuthInitialVotingInterval", str(VOTING_INTERVAL_S)),
                    ("TestingV3AuthVotingStartOffset", str(int(time.time() - 1) % VOTING_INTERVAL_S)),
                ]
            )


def _wait_microdescriptors(relay: Daemon, count: int) -> None:
    """Clients ask a relay for these; one that finds none waits for long. What it says of its bootstrap may lag."""

    def has_all() -> bool:
        files = relay.directory.glob("cached-microdescs*")
        return sum(file.read_bytes().count(b"onion-key\n") for file in files) >= count

    relay.wait(has_all, START_S, "microdescriptors of all relays")


def _namespace() -> Namespace | None:
    try:
        return Namespace()
    except OSError:  # not root: loopback of the machine does as well, only less strictly
        return None


def _certificate(keys: Path, directory_port: int) -> str:
    """Make an authority's keys; the fingerprint of its identity."""
    keys.mkdir(mode=0o700, parents=True)
    keys.parent.chmod(0o700)
    address = f"127.0.0.1:{directory_port}"
    subprocess.run(
        ["tor-gencert", "--create-identity-key", "-m", "12", "-a", address, "--passphrase-fd", "0"],
        cwd=keys,
        input=b"nothing secret\n",
        check=True,
        capture_output=True,
    )
    found = re.search(r"^fingerprint (\w+)$", (keys / "authority_certificate").read_text(), re.MULTILINE)
    assert found is not None, "tor-gencert always writes the fingerprint"
    return found.group(1)


def _fingerprint(directory: Path) -> str:
    """Have a tor make its relay keys; their fingerprint."""
    empty = directory / "empty"
    empty.touch()
    command: list[str | Path] = [
        "tor",
        "--defaults-torrc",
        empty,
        "-f",
        empty,
        "--list-fingerprint",
        "--orport",
        "1",
        "--quiet",
    ]
    nobody: list[str | Path] = ["--dirserver", f"xyzzy 127.0.0.1:1 {'f' * 40}", "--datadirectory", directory]
    subprocess.run([*command, *nobody], check=True, capture_output=True)
    return (directory / "fingerprint").read_text().split(maxsplit=1)[1].replace(" ", "").strip()
