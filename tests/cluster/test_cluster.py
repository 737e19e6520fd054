"""The cluster of docs/operations.md on eight hosts, told in order: it comes up, is paid through, and is broken."""

import asyncio
import contextlib
import ssl

import pytest
from deployed import FRONTENDS, LEASE_S, talk_tls
from hosts import netem_refused
from processes import until
from unit import LNNODE

from lnsim.api_client import CallFailed, NodeApi

pytestmark = [pytest.mark.cluster, pytest.mark.asyncio(loop_scope="session")]

IDLE = 200
HELD_MSAT = 30_000_000
ONION = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion:9735"  # torproject.org's, of which lntor told
NOTICED_S = 10.0  # within 5 s, on a quiet machine
RECONNECT_S = 5.0
LATENCY_MS, LOSS_PERCENT = 40.0, 1.0
SERVERS = {"b-1": "f1", "c-1": "f2"}  # a frontend's name in the balancer's configuration
TARGETS = ["10.0.0.5:8404", *(f"10.0.0.{number}:9740" for number in (11, 12, 21, 22))]


async def test_it_comes_up_as_the_document_says(site):
    await until(lambda: serving(site), 20, "both frontends serve")
    shown = site.lnnode(site.leader, "cluster", "--config", site.config(site.leader))
    print(shown)
    assert set(FRONTENDS.values()) <= set(shown.split())

    await until(lambda: taken_in(site), 20, "the balancer takes both")


@pytest.mark.parametrize("host", ["b", "c", "d", "e"])
async def test_the_doctor_is_content_on_each_host(site, host):
    said = site.lnnode(host, "doctor", site.config(host))
    print(said)
    assert "BAD" not in said


async def test_ldk_comes_in_through_the_balancer_opens_a_channel_and_pays_both_ways(site, traffic):
    ldk = traffic.ldk
    await until(traffic.frontend, 20, "LDK has a session")
    await ldk.open_channel(site.node_id, 1_000_000, 400_000_000)
    await site.mine(6)
    await ldk.wait_channel_ready(site.node_id)
    traffic.before = await traffic.books()
    async with traffic.running():
        pass
    print(f"{traffic.settled} payments settled, {traffic.failed} failed")


async def test_the_node_knows_where_its_peers_are(site, traffic):
    (peer,) = [each for each in await site.api.call("peers") if each["node_id"] == traffic.ldk.node_id]
    assert peer["address"].rpartition(":")[0] == "10.0.0.100", "the balancer told by PROXY v2"


async def test_idle_peers_spread_over_both_frontends(site, traffic):
    site.start_idle_peers(IDLE)
    await until(lambda: everybody_in(site), 30, f"{IDLE} idle peers are in")
    spread = await site.sessions()
    print(f"sessions: {spread}")
    assert min(spread.values()) > IDLE // 4


async def test_a_drained_frontend_is_taken_out_and_its_peers_go_to_the_other(site, traffic):
    drained = await traffic.frontend()
    (other,) = set(FRONTENDS.values()) - {drained}
    server = SERVERS[drained]
    async with traffic.running():
        print(
            site.lnnode(site.leader, "drain", drained, "--over", "2s", "--config", site.config(site.leader))
        )

        async def gone():
            return (await site.frontends())[drained] == "drained"

        await until(gone, 30, f"{drained} is drained")
        assert (await site.balancer())[server] == "NOLB", "no new peers, and no connection cut"
        await until(lambda: at(traffic, other), 20, f"LDK is at {other}")
        await until(lambda: everybody_in(site), 30, "everybody came in elsewhere")
    assert await site.sessions() == {drained: 0, other: IDLE + 1}
    site.lnnode(site.leader, "undrain", drained, "--config", site.config(site.leader))
    await until(lambda: taken_in(site), 20, "the balancer takes both")


async def test_a_frontend_is_killed_while_payments_run(site, traffic):
    killed = await traffic.frontend()
    host = host_of(killed)
    async with traffic.running():
        began_s = now_s()
        site.units[host].kill()
        await until(lambda: away(site, killed), 20, f"{killed} is away")
        await until(traffic.frontend, 20, "LDK has a session")
        print(f"LDK is back after {now_s() - began_s:.1f} s")
        site.units[host].start()
        await until(lambda: serving(site), 30, "both serve")


async def test_a_frontend_cut_off_is_noticed_and_its_peers_come_in_elsewhere(site, traffic):
    """Its cable is pulled: nobody is told that a connection ended."""
    lost = await traffic.frontend()
    (other,) = set(FRONTENDS.values()) - {lost}
    host = site.hosts[host_of(lost)]
    async with traffic.running():
        began_s = now_s()
        host.cut()

        async def after(happened, what):
            await until(happened, NOTICED_S, what)
            return now_s() - began_s

        noticed_s, ldk_s, everybody_s = await asyncio.gather(
            after(lambda: away(site, lost), f"{lost} is noticed to be away"),
            after(lambda: at(traffic, other), f"LDK is at {other}"),
            after(lambda: all_at(site, other), f"everybody is at {other}"),
        )
        print(f"noticed {noticed_s:.1f} s, LDK elsewhere {ldk_s:.1f} s, everybody {everybody_s:.1f} s")
        shown = site.lnnode(site.leader, "cluster", "--config", site.config(site.leader))
        assert set(FRONTENDS.values()) & set(shown.split()) == {other}
        assert (await site.balancer())[SERVERS[lost]] == "DOWN"
        await until(lambda: firing(site, "HostGone"), 20, "Prometheus says so")
    host.heal()
    await until(lambda: serving(site), 30, "both serve")
    await until(lambda: taken_in(site), 20, "the balancer takes both")


async def test_the_leader_is_killed_the_standby_leads_and_a_held_payment_comes_to_its_end(site, traffic):
    killed, ldk = site.leader, traffic.ldk
    assert (await site.api.call("onion_address", address=ONION))["announced"]
    await ldk.hold()
    held = await ldk.do("invoice", amount_msat=HELD_MSAT)
    paying = asyncio.create_task(called(site.api, "pay", bolt11=held["bolt11"], timeout_s=60))
    await ldk.event("payment_claimable", payment_hash=held["payment_hash"])
    began_s = now_s()
    site.units[killed].kill()
    await site.taken_over(site.standby, 2 * LEASE_S)
    print(f"the standby leads after {now_s() - began_s:.1f} s, a lease is {LEASE_S:g} s")
    await paying
    await until(lambda: serving(site), 30, "both serve")
    await ldk.wait_channel_ready(site.node_id)
    await ldk.hold(False)
    await ldk.do("claim", payment_hash=held["payment_hash"])

    async def settled():
        paid = await site.api.call("payments")
        return any(
            each["payment_hash"] == held["payment_hash"] and each["status"] == "settled" for each in paid
        )

    await until(settled, 30, "the held payment is settled, by the backend that did not send it")
    assert ONION in await announced(site), "by the backend that was not told of it"
    await site.api.call("onion_address", address=ONION, announce=False)
    assert ONION not in await announced(site)
    await until(lambda: everybody_in(site), 30, "everybody is in again")
    await site.stand_by(killed)
    async with traffic.running():
        pass


async def announced(site):
    """Where the node's own announcement says that it is reached."""
    nodes = (await site.api.call("graph"))["nodes"]
    return next(each["addresses"] for each in nodes if each["node_id"] == site.node_id)


async def test_a_leader_cut_off_from_the_database_falls_silent_and_the_standby_leads(site, traffic):
    lonely, database = site.leader, site.hosts["f"].address
    async with traffic.running():
        site.hosts[lonely].lose(database)
        began_s = now_s()
        await site.taken_over(site.standby, 2 * LEASE_S + RECONNECT_S)
        print(f"the standby leads after {now_s() - began_s:.1f} s, a lease is {LEASE_S:g} s")
        await until(lambda: serving(site), 30, "both frontends are with the new one")
        await until(lambda: firing(site, "LeaseRunsOut"), 20, "Prometheus says so")
        assert await NodeApi(f"unix:{site.etc(lonely) / 'var' / 'api.sock'}").call("peers") != []
    assert "lease_ran_out" in site.units[lonely].said()
    site.hosts[lonely].find(database)

    async def ended():
        return site.units[lonely].process.poll() is not None

    await until(ended, 30, "the old one finds that another leads, and ends")
    assert site.units[lonely].process.returncode == 1, "so that systemd starts it again"
    await site.stand_by(lonely)


async def test_payments_go_on_over_a_slow_and_lossy_line(site, traffic):
    for name in ("b", "c"):
        site.hosts[name].delay(LATENCY_MS, LOSS_PERCENT)
    shaped_by = {site.hosts[name].shaped_by for name in ("b", "c")}
    began_s, before = now_s(), traffic.settled
    try:
        async with traffic.running():
            await traffic.settle(10)
            links = (await site.api.call("cluster"))["frontends"]
    finally:
        for name in ("b", "c"):
            site.hosts[name].hasten()
    delays = {each["id"]: each["delay_ms"] for each in links}
    print(
        f"by {shaped_by}: {traffic.settled - before} payments in {now_s() - began_s:.1f} s, link {delays} ms"
    )
    assert min(delays.values()) > 2 * LATENCY_MS
    assert await serving(site)


async def test_tc_shapes_the_line():
    """Counted, so that nobody takes the substitute for the real thing."""
    if (why := netem_refused()) is not None:
        pytest.skip(
            f"NO NETEM IN THIS KERNEL ({why}): tests/cluster/slow_cable.py delays and loses packets instead"
        )


@pytest.mark.parametrize("holds", ["no certificate", "a certificate of another authority"])
async def test_a_stranger_on_the_link_port_gets_nowhere(site, holds):
    """From a frontend's host: the firewall lets nobody else come so far."""
    frontends = await site.frontends()
    place = site.etc("world") / "certs"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if holds != "no certificate":
        site.hosts["world"].run(LNNODE, "certs", "init", "--dir", place)
        site.hosts["world"].run(LNNODE, "certs", "issue", "b-1", "--dir", place)
        context.load_cert_chain(place / "b-1.pem", place / "b-1.key")
    address = site.hosts[site.leader].address
    assert await asyncio.to_thread(site.hosts["b"].here, lambda: talk_tls(address, 9736, context)) == b""
    with pytest.raises(TimeoutError):
        await asyncio.to_thread(site.hosts["world"].here, lambda: talk_tls(address, 9736, context))
    assert await site.frontends() == frontends


async def test_a_whole_host_goes_and_comes_back(site, traffic):
    """A frontend's: everything on it ends, its cable with it; then it is there again, as its units start it."""
    gone = await traffic.frontend()
    host = host_of(gone)
    async with traffic.running():
        site.hosts[host].cut()
        site.units[host].kill()
        await until(lambda: away(site, gone), NOTICED_S, f"{gone} is noticed to be away")
        await until(lambda: everybody_in(site), 30, "everybody came in elsewhere")
    site.hosts[host].heal()
    site.units[host].start()
    await until(lambda: serving(site), 30, "both serve")
    await until(lambda: taken_in(site), 20, "the balancer takes both")


async def test_prometheus_has_seen_it_all_and_cried_no_wolf(site):
    up = {each["instance"]: each["value"] for each in await site.prometheus("up")}
    assert up == dict.fromkeys(TARGETS, 1.0)
    fired = await site.prometheus('count by (alertname) (count_over_time(ALERTS{alertstate="firing"}[1h]))')
    names = {each["alertname"] for each in fired}
    print(f"fired: {sorted(names)}")
    assert names >= {"HostGone", "LeaseRunsOut"}
    assert not names & {
        "TwoBackendsReady",
        "ChainLost",
        "ChainStalls",
        "CommitsSlow",
        "FilesRunOut",
        "VersionsDiffer",
    }


async def test_every_millisatoshi_is_where_the_payments_say(site, traffic):
    before, after = traffic.before, await traffic.books()
    received_msat = traffic.ldk_received_msat
    assert after.ldk_msat - before.ldk_msat == received_msat - traffic.ldk_sent_msat
    assert after.ours_msat - before.ours_msat == traffic.ldk_sent_msat - received_msat
    assert (after.we_paid_msat, after.we_received_msat) == (received_msat, traffic.ldk_sent_msat)
    assert (after.ldk_total_msat, after.ours_total_msat) == (before.ldk_total_msat, before.ours_total_msat)
    print(f"{traffic.settled} settled, {traffic.failed} failed, {after}")


def now_s() -> float:
    return asyncio.get_running_loop().time()


def host_of(frontend: str) -> str:
    return next(host for host, name in FRONTENDS.items() if name == frontend)


async def called(api, name, **arguments) -> None:
    """A call that nobody will be there to answer."""
    with contextlib.suppress(CallFailed):
        await api.call(name, **arguments)


async def everybody_in(site) -> bool:
    try:
        return sum((await site.sessions()).values()) == IDLE + 1
    except CallFailed:
        return False


async def all_at(site, frontend: str) -> bool:
    return (await site.sessions())[frontend] == IDLE + 1


async def at(traffic, frontend: str) -> bool:
    return await traffic.frontend() == frontend


async def away(site, frontend: str) -> bool:
    return frontend not in await site.frontends()


async def serving(site) -> bool:
    return await site.frontends() == dict.fromkeys(FRONTENDS.values(), "serving")


async def taken_in(site) -> bool:
    return await site.balancer() == dict.fromkeys(SERVERS.values(), "UP")


async def firing(site, alert: str) -> bool:
    return bool(await site.prometheus(f'ALERTS{{alertname="{alert}",alertstate="firing"}}'))
