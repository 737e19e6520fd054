"""The cluster of docs/operations.md, on hosts of this machine: the files of deploy/ as they stand, but for what is said here."""

import asyncio
import json
import os
import re
import secrets
import shutil
import socket
import ssl
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import yaml
from chain_rpc import JsonRpc
from database import Database
from hosts import Host, Lan
from ldk_peer import LdkPeer
from processes import Child, until
from unit import LNNODE, Unit

from lnsim.api_client import NodeApi

DEPLOY = Path(__file__).parents[2] / "deploy"
ADDRESSES = {
    "a": ("10.0.0.5",),  # load balancer
    "b": ("10.0.0.11",),  # frontends
    "c": ("10.0.0.12",),
    "d": ("10.0.0.21",),  # backends
    "e": ("10.0.0.22",),
    "f": ("10.0.0.23", "10.0.0.24"),  # PostgreSQL, bitcoind
    "g": ("10.0.0.30",),  # Prometheus
    "world": ("10.0.0.100", *(f"10.0.0.{number}" for number in range(101, 201))),  # peers
}
ROLES = {"a": "balancer", "b": "frontend", "c": "frontend", "d": "backend", "e": "backend", "f": "database"}
FRONTENDS = {"b": "b-1", "c": "c-1"}  # host: the id that its unit gives
BACKENDS = {"d": "backend-d", "e": "backend-e"}  # host: the name in its certificate
FRONT_DOOR = ("10.0.0.5", 9735)
RPC_PORT, ZMQ_PORT = 18443, 28332
LEASE_S = 5.0  # the default is 10: a story with three failovers is to be a short one
START_S = 30


class HostChild(Child):
    """One of the tests' peers, on a host."""

    def __init__(self, name: str, host: Host) -> None:
        super().__init__(name)
        self._host = host

    async def start(self, *command, **options) -> None:
        await super().start(*self._host.command(*command), **options)


class HostRpc(JsonRpc):
    """The chain's RPC, called from a host."""

    def __init__(self, host: Host, *where: str) -> None:
        super().__init__(*where)
        self._host = host

    def _call(self, method: str, body: bytes, timeout_s: float):
        return self._host.here(lambda: super(HostRpc, self)._call(method, body, timeout_s))


class Deployed:
    """Everything by the letters of the hosts it is on. Each step is one of the document's."""

    def __init__(self, lan: Lan, directory: Path) -> None:
        self.lan, self.directory = lan, directory
        self.hosts = {name: lan.host(name, *addresses) for name, addresses in ADDRESSES.items()}
        self.units: dict[str, Unit] = {}
        self.node_id = ""
        self.leader = ""  # the host of the backend that leads, as far as the test has seen
        self.database: Database | None = None
        self.chain: HostRpc | None = None
        self.ldk: LdkPeer | None = None
        for name in self.hosts:
            (directory / name).mkdir()

    def etc(self, host: str) -> Path:
        """Stands for /etc/lnnode of that host."""
        return self.directory / host

    # the steps

    async def start(self) -> None:
        await self.start_chain()
        await self.start_database()
        for host, role in ROLES.items():
            self.raise_firewall(host, role)
        self.make_certificates()
        await self.start_backends()
        await self.start_frontends()
        self.start_balancer()
        self.start_prometheus()

    async def start_chain(self) -> None:
        """Stands for bitcoind, with a wallet of the node's own."""
        host, password = self.hosts["f"], secrets.token_hex(16)
        argv = [LNNODE.with_name("lnsim"), "chain", "--datadir", self.etc("f"), "--host", ADDRESSES["f"][1]]
        argv += ["--rpc-port", RPC_PORT, "--zmq-port", ZMQ_PORT]
        argv += ["--rpcuser", "lnnode", "--rpcpassword", password, "--blocks", 120]
        log = self.etc("f") / "chain.log"
        host.popen(*argv, log=log)

        async def up() -> bool:
            return seen(log, "rpc_url")

        await until(up, START_S, "the chain")
        url = f"http://{ADDRESSES['f'][1]}:{RPC_PORT}"
        self.chain = HostRpc(self.hosts["f"], url, "lnnode", password)
        wallet = HostRpc(self.hosts["f"], f"{url}/wallet/lnnode", "lnnode", password)
        await self.chain.call("createwallet", "lnnode")
        miner = HostRpc(self.hosts["f"], f"{url}/wallet/", "lnnode", password)
        await miner.call("sendtoaddress", await wallet.call("getnewaddress"), 5)
        self.chain = miner
        await self.mine(1)

    async def mine(self, blocks: int) -> None:
        await self.chain.call("generatetoaddress", blocks, await self.chain.call("getnewaddress"))

    async def start_database(self) -> None:
        self.database = Database(self.hosts["f"], ADDRESSES["f"][0])

        async def up() -> bool:
            return self.database.is_up()

        await until(up, START_S, "PostgreSQL")
        self.database.create()

    def raise_firewall(self, host: str, role: str) -> None:
        """Its role's chain is kept, the others go, as the file says."""
        kept = {role, "bitcoind"} if host == "f" else {role}
        text = (DEPLOY / "firewall" / "nftables.conf").read_text().replace("38332", str(RPC_PORT))
        for chain in {"balancer", "frontend", "backend", "database", "bitcoind"} - kept:
            text = re.sub(rf"    chain {chain} {{\n.*?\n    }}\n", "", text, flags=re.DOTALL)
            text = text.replace(f"        jump {chain}\n", "")
        path = self.etc(host) / "nftables.conf"
        path.write_text(text)
        self.hosts[host].run("nft", "-f", path)
        if host == "f":  # the peers outside have no bitcoind of their own
            rule = f"add rule inet lnnode bitcoind ip saddr 10.0.0.100 tcp dport {RPC_PORT} accept"
            self.hosts[host].run("nft", rule)

    def make_certificates(self) -> None:
        """On the load balancer's host, which runs no member."""
        place = self.etc("a") / "certs"
        run = self.hosts["a"].run
        run(LNNODE, "certs", "init", "--dir", place)
        members = [(name, "backend") for name in BACKENDS.values()]
        members += [(name, "frontend") for name in FRONTENDS.values()]
        for name, role in members:
            run(LNNODE, "certs", "issue", name, "--role", role, "--dir", place)
        for host, name in {**BACKENDS, **FRONTENDS}.items():
            for file in (f"{name}.pem", f"{name}.key", "authority.pem", "revoked.pem"):
                shutil.copy(place / file, self.etc(host) / file)

    def tls(self, host: str, name: str) -> dict:
        place = self.etc(host)
        files = {"certificate": f"{name}.pem", "key": f"{name}.key"}
        files |= {"authority": "authority.pem", "revoked": "revoked.pem"}
        return {key: str(place / file) for key, file in files.items()}

    def write(self, host: str, name: str, config: dict) -> None:
        (self.etc(host) / name).write_text(yaml.safe_dump(config))

    async def start_backends(self) -> None:
        for host, name in BACKENDS.items():
            self.configure_backend(host, name)
        await self.lead(self.unit("d", "lnnode-backend"))
        shutil.copy(self.etc("d") / "var" / "seed", self.etc("e") / "var" / "seed")
        await self.stand_by("e")

    def configure_backend(self, host: str, name: str) -> None:
        (self.etc(host) / "var").mkdir(mode=0o700)
        bitcoind = {"url": f"http://{ADDRESSES['f'][1]}:{RPC_PORT}", "user": "lnnode", "wallet": "lnnode"}
        bitcoind["zmq"] = f"tcp://{ADDRESSES['f'][1]}:{ZMQ_PORT}"
        config = {
            "data_dir": str(self.etc(host) / "var"),
            "network": "regtest",
            "alias": "mynode",
            "announce_addresses": ["10.0.0.5:9735"],
            "admin": f"{ADDRESSES[host][0]}:9740",
            "link": "0.0.0.0:9736",
            "database": self.database.network_url,
            "lease_s": LEASE_S,
            "bitcoind": bitcoind,
            "tls": self.tls(host, name),
        }
        self.write(host, "backend.yaml", config)
        environment = {"PGPASSWORD": self.database.password, "LNNODE_BITCOIND__PASSWORD": self.chain.password}
        lines = [f"{key}={value}\n" for key, value in environment.items()]
        (self.etc(host) / "backend.env").write_text("".join(lines))

    async def stand_by(self, host: str) -> None:
        standby = self.unit(host, "lnnode-backend", "--standby").start()
        await until(lambda: is_ready(standby), START_S, f"{host} stands by")
        assert standby.ready["ready"] == "standby"

    async def lead(self, unit: Unit) -> None:
        unit.start()
        await until(lambda: leads(unit), START_S, f"{unit.host.name} leads")
        self.leader, self.node_id = unit.host.name, unit.ready["node_id"]

    async def start_frontends(self) -> None:
        for host in FRONTENDS:
            self.configure_frontend(host)
            unit = self.unit(host, "lnnode-frontend@1").start()
            await until(lambda unit=unit: is_ready(unit), START_S, f"{host} serves")

    def configure_frontend(self, host: str) -> None:
        address = ADDRESSES[host][0]
        config = {
            "listen": "0.0.0.0:9735",
            "backend": [f"{ADDRESSES[each][0]}:9736" for each in BACKENDS],
            "proxy_on_listen": True,
            "proxy_from": list(ADDRESSES["a"]),
            "tls": self.tls(host, FRONTENDS[host]),
        }
        self.write(host, "frontend.yaml", config)
        (self.etc(host) / "frontend-1.env").write_text(f"LNNODE_ADMIN={address}:9740\n")

    def start_balancer(self) -> None:
        """As it stands; but nowhere does a test have 40,000 peers, and the open files for them."""
        text = (DEPLOY / "haproxy" / "haproxy.cfg").read_text().replace("maxconn 40000", "maxconn 4000")
        path = self.etc("a") / "haproxy.cfg"
        path.write_text(text)
        self.hosts["a"].run("haproxy", "-c", "-f", path)
        self.hosts["a"].popen("haproxy", "-f", path, log=self.etc("a") / "haproxy.log")

    def start_prometheus(self) -> None:
        """As it stands, only that a minute lasts six seconds: every `for` is a tenth, and it looks every second."""
        place = self.etc("g")
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        self.write("g", "prometheus.yml", config)
        rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
        for rule in (rule for group in rules["groups"] for rule in group["rules"]):
            rule["for"] = a_tenth(rule["for"])
        self.write("g", "alerts.yml", rules)
        run = self.hosts["g"].run
        run("promtool", "check", "config", place / "prometheus.yml")
        argv = [f"--config.file={place / 'prometheus.yml'}", f"--storage.tsdb.path={place / 'tsdb'}"]
        argv.append("--web.listen-address=10.0.0.30:9090")
        self.hosts["g"].popen("prometheus", *argv, log=place / "prometheus.log")

    def unit(self, host: str, name: str, *options: str) -> Unit:
        made = self.units[host] = Unit(self.hosts[host], name, self.etc(host), *options)
        return made

    # asking

    @property
    def api(self) -> NodeApi:
        """Of the backend that leads, on its own host."""
        return NodeApi(f"unix:{self.etc(self.leader) / 'var' / 'api.sock'}")

    def lnnode(self, host: str, *argv: object, check: bool = True) -> str:
        """What an operator types there: with the unit's environment, where the passwords are."""
        environment = {**os.environ, **self.units[host].environment}
        return self.hosts[host].run(LNNODE, *argv, check=check, env=environment).stdout

    def config(self, host: str) -> Path:
        return self.etc(host) / ("backend.yaml" if host in BACKENDS else "frontend.yaml")

    async def frontends(self) -> dict[str, str]:
        """What `lnnode cluster` shows: id and state."""
        return {each["id"]: each["state"] for each in (await self.api.call("cluster"))["frontends"]}

    async def sessions(self) -> dict[str, int]:
        return {each["id"]: each["sessions"] for each in (await self.api.call("cluster"))["frontends"]}

    async def prometheus(self, query: str) -> list[dict]:
        """Each result's labels, its value under "value"."""
        text = await fetch(self.hosts["g"], f"http://10.0.0.30:9090/api/v1/query?{encoded(query)}")
        found = json.loads(text)["data"]["result"]
        return [{**each["metric"], "value": float(each["value"][1])} for each in found]

    async def balancer(self) -> dict[str, str]:
        """HAProxy's word on each server: UP, DOWN, NOLB (takes no new peers)."""
        text = await fetch(self.hosts["g"], "http://10.0.0.5:8404/metrics")
        pattern = r'haproxy_server_status{proxy="frontends",server="(\w+)",state="(\w+)"} 1'
        return dict(re.findall(pattern, text))

    async def taken_over(self, by: str, within_s: float) -> None:
        """Until the backend of that host, which stood by, leads."""
        await until(lambda: leads(self.units[by]), within_s, f"{by} leads")
        self.leader = by

    @property
    def standby(self) -> str:
        return "e" if self.leader == "d" else "d"

    # peers

    async def start_ldk(self) -> LdkPeer:
        """On the host outside; it listens to nobody, so that every connection comes in through the balancer."""
        world = self.hosts["world"]
        rpc = HostRpc(world, self.chain.url, self.chain.user, self.chain.password)
        self.ldk = LdkPeer(rpc, "ldk")
        self.ldk.child = HostChild("ldk", world)
        await self.ldk.start()
        return self.ldk

    def start_idle_peers(self, count: int) -> None:
        script, (_, *sources) = Path(__file__).with_name("idle_peers.py"), ADDRESSES["world"]
        door = f"{FRONT_DOOR[0]}:{FRONT_DOOR[1]}"
        argv = [sys.executable, script, self.node_id, door, count, *sources]
        root = str(Path(__file__).parents[2])
        log = self.etc("world") / "idle.log"
        self.hosts["world"].popen(*argv, log=log, env={**os.environ, "PYTHONPATH": root})

    async def end(self) -> None:
        if self.ldk is not None:
            await self.ldk.stop()
        for host in sorted(self.units, key=(*FRONTENDS, self.standby, self.leader).index):
            self.units[host].stop()
        if self.database is not None:
            self.database.end()


def encoded(query: str) -> str:
    return urllib.parse.urlencode({"query": query})


async def fetch(host: Host, url: str) -> str:
    def ask() -> str:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()

    return await asyncio.to_thread(host.here, ask)


def seen(log: Path, text: str) -> bool:
    return text in log.read_text()


async def is_ready(unit: Unit) -> bool:
    return unit.ready is not None


async def leads(unit: Unit) -> bool:
    return unit.ready is not None and unit.ready["ready"] == "backend"


def a_tenth(duration: str) -> str:
    units_ms = {"s": 1_000, "m": 60_000, "h": 3_600_000}
    return f"{int(duration[:-1]) * units_ms[duration[-1]] // 10}ms"


def talk_tls(address: str, port: int, context: ssl.SSLContext) -> bytes:
    """What the other side says to whoever comes with that certificate, or none: nothing where it hangs up."""
    with socket.create_connection((address, port), timeout=3) as plain:
        try:
            with context.wrap_socket(plain) as talk:
                talk.sendall(b"\0" * 64)
                return talk.recv(100)
        except (ssl.SSLError, ConnectionResetError, BrokenPipeError):
            return b""
