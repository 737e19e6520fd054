"""The admin listener: health, readiness and metrics over HTTP."""

from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from node.errors import Refused
from node.runtime.admin import admin
from node.runtime.histogram import Histogram
from node.runtime.metrics import counters, gauge, histogram, registry
from node.runtime.runtime import SystemRuntime


async def get(address: str, path: str) -> tuple[int, str]:
    def ask() -> tuple[int, str]:
        try:
            with urlopen(f"http://{address}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return await SystemRuntime(lambda *_: None).run_blocking("test", ask)


async def test_a_process_is_healthy_while_it_is_not_ready_and_says_why():
    reasons = ["backend away, 0 sessions held"]
    async with admin("127.0.0.1:0", lambda: reasons, registry()) as address:
        assert await get(address, "/healthz") == (200, "alive\n")
        assert await get(address, "/readyz") == (503, "backend away, 0 sessions held\n")
        reasons.clear()
        assert await get(address, "/readyz") == (200, "ready\n")
        assert (await get(address, "/drain"))[0] == 404


async def test_metrics_are_read_when_they_are_asked_for():
    value, took = [1], Histogram((0.1, 1.0))

    def gather():
        yield gauge("lnnode_depth", "about it", value[0])
        yield counters("lnnode_endings", "about it", ("cause",), [(("drained",), 2)])
        yield histogram("lnnode_wait_seconds", "about it", took)

    async with admin("127.0.0.1:0", list, registry(gather)) as address:
        value[0] = 7
        for each in (0.05, 0.5, 5.0):
            took.observe(each)
        lines = (await get(address, "/metrics"))[1].splitlines()

    assert "lnnode_depth 7.0" in lines
    assert 'lnnode_endings_total{cause="drained"} 2.0' in lines
    assert 'lnnode_wait_seconds_bucket{le="1.0"} 2.0' in lines
    assert 'lnnode_wait_seconds_bucket{le="+Inf"} 3.0' in lines
    assert any(line.startswith("process_cpu_seconds_total") for line in lines)


async def test_a_port_that_is_taken_is_named():
    async with admin("127.0.0.1:0", list, registry()) as address:
        with pytest.raises(Refused, match="choose another"):
            async with admin(address, list, registry()):
                pass
