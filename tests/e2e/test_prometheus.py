"""A real Prometheus scrapes a running cluster: what rules and dashboards ask for is there, under that name."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from ports import free_port

from lnsim.cluster import Hub, Purse, wait_until

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
HUB = "hub"
NAME = re.compile(r"\b(?:lnnode|process)_[a-z0-9_]+")
# There only with a PostgreSQL database, or once something of the kind has happened.
SOMETIMES = {
    "lnnode_lease_left_seconds",
    "lnnode_frontend_sessions_ended_total",
    "lnnode_frontend_handshakes_failed_total",
    "lnnode_frontend_gossip_total",
    "lnnode_frontend_ping_seconds",
    "lnnode_channels",
}

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None and Path(f"/usr/sbin/{name}").exists():  # of no user's PATH but root's
        path = f"/usr/sbin/{name}"
    if path is None:
        missing = f"{name} is missing: apt-get install prometheus haproxy"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return path


def dashboards() -> list[str]:
    panels = json.loads((DEPLOY / "grafana" / "lnnode.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def rules() -> list[str]:
    groups = msgspec.yaml.decode(ALERTS.read_bytes())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


async def test_promtool_finds_rules_and_configuration_good():
    for what in (["rules", ALERTS], ["config", DEPLOY / "prometheus" / "prometheus.yml"]):
        argv = [tool("promtool"), "check", *map(str, what)]
        checked = await asyncio.to_thread(subprocess.run, argv, check=False, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr


async def test_haproxy_takes_its_configuration():
    argv = [tool("haproxy"), "-c", "-f", str(DEPLOY / "haproxy" / "haproxy.cfg")]
    checked = await asyncio.to_thread(subprocess.run, argv, check=False, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


class Prometheus:
    def __init__(self, directory: Path, targets: dict[str, list[str]]) -> None:
        self.port = free_port()
        jobs = [{"job_name": name, "static_configs": [{"targets": each}]} for name, each in targets.items()]
        config = {"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "scrape_configs": jobs}
        config["rule_files"] = [str(ALERTS)]
        path = directory / "prometheus.yml"
        path.write_bytes(msgspec.yaml.encode(config))
        argv = [tool("prometheus"), f"--config.file={path}", f"--storage.tsdb.path={directory / 'tsdb'}"]
        argv.append(f"--web.listen-address=127.0.0.1:{self.port}")
        self.log = (directory / "prometheus.log").open("wb")
        self.process = subprocess.Popen(argv, stdout=self.log, stderr=self.log)

    async def ask(self, what: str, **query: str) -> dict:
        url = f"http://127.0.0.1:{self.port}/api/v1/{what}?{urllib.parse.urlencode(query)}"
        text = await asyncio.to_thread(lambda: fetch(url))
        return json.loads(text)["data"] if text else {}

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        self.log.close()


def fetch(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return ""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scraped(tmp_path_factory):
    """A backend, two frontends, and a Prometheus that has heard of all three."""
    tool("prometheus")
    directory = tmp_path_factory.mktemp("run")
    hub = Hub(directory, 2, lambda *_: None)
    ports = [f"127.0.0.1:{free_port()}" for _ in range(3)]
    prometheus = None
    try:
        await hub.start_chain({HUB: Purse()})
        await hub.start_backend({"admin": ports[0]})
        for name, admin in zip(hub.frontends, ports[1:], strict=True):
            await hub.start_frontend(name, {"admin": admin})
        prometheus = Prometheus(directory, {"lnnode-backend": ports[:1], "lnnode-frontend": ports[1:]})

        async def up() -> bool:
            found = (await prometheus.ask("query", query="up == 1")).get("result", [])
            return len(found) == 3

        await wait_until(up, 60, "all three are scraped")
        yield hub, prometheus, ports
    finally:
        if prometheus is not None:
            prometheus.stop()
        await hub.stop()


async def test_every_name_that_rules_and_dashboards_ask_for_is_exported(scraped):
    _, prometheus, ports = scraped
    exported = set(await prometheus.ask("label/__name__/values"))
    asked = {name for query in (*dashboards(), *rules()) for name in NAME.findall(query)}
    typed = "".join(await asyncio.gather(*(asyncio.to_thread(fetch, f"http://{p}/metrics") for p in ports)))

    assert not asked - exported - SOMETIMES
    for name in SOMETIMES - {"lnnode_lease_left_seconds"}:  # without a sample yet, but declared
        assert f"# TYPE {name} " in typed


async def test_every_query_is_one_that_prometheus_understands(scraped):
    _, prometheus, _ = scraped
    for query in dashboards():
        assert (await prometheus.ask("query", query=query)).get("resultType") == "vector", query


async def test_a_healthy_cluster_raises_no_alarm_that_pages(scraped):
    _, prometheus, _ = scraped
    alerts = (await prometheus.ask("alerts"))["alerts"]
    loud = [each for each in alerts if each["labels"]["severity"] == "page" and each["state"] == "firing"]
    assert loud == []  # until its first scrape, everything is pending


async def test_a_drained_frontend_is_not_ready_and_serves_again(scraped):
    hub, prometheus, ports = scraped
    assert fetch(f"http://{ports[1]}/readyz") == "ready\n"
    await hub.api.call("drain", frontend="f1", over_s=0.0)

    async def drained() -> bool:
        states = {each["id"]: each["state"] for each in (await hub.api.call("cluster"))["frontends"]}
        found = await prometheus.ask("query", query="lnnode_frontend_ready == 0")
        return states == {"f1": "drained", "f2": "serving"} and len(found["result"]) == 1

    await wait_until(drained, 30, "f1 is drained")
    await hub.api.call("undrain", frontend="f1")

    async def serving() -> bool:
        return await asyncio.to_thread(fetch, f"http://{ports[1]}/readyz") == "ready\n"

    await wait_until(serving, 30, "f1 serves again")
