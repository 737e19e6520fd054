"""A scenario file becomes values; a wrong one is refused with the path of the field and what would be right."""

from pathlib import Path

import pytest

from lnsim.scenario.load import dump, load
from lnsim.scenario.model import TorSpec
from lnsim.scenario.workloads import Kill, Payments, TorRestart
from node.errors import Refused

GOOD = """\
# A frontend may die under load:
# no payment is lost.
duration_s: 20
topology:
  peers:
    payers: {count: 3, channels: {each: 2}}
    idle: {count: 5}
workloads:
  - {run: payments, payers: [payers], payees: [payers, hub], rate_per_s: 5}
  - {run: kill, what: frontend, start_s: 5, every_s: 4}
expect:
  - payments.success_ratio >= 0.99
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "churn.yaml"
    path.write_text(text)
    return path


def refusal(tmp_path, text, *overrides):
    path = written(tmp_path, text)
    with pytest.raises(Refused) as refused:
        load(path, overrides)
    return str(refused.value).removeprefix(f"{path}: ")


def test_a_file_is_read_with_its_claim_and_name(tmp_path):
    scenario = load(written(tmp_path, GOOD))
    assert scenario.claim == "A frontend may die under load:\nno payment is lost."
    assert scenario.name == "churn"
    payments, kill = scenario.workloads
    assert isinstance(payments, Payments)
    assert payments.payees == ("payers", "hub")
    assert kill == Kill(what="frontend", start_s=5, every_s=4)
    assert scenario.expect[0] == "payments.success_ratio >= 0.99"


def test_what_is_written_is_read_back(tmp_path):
    scenario = load(written(tmp_path, GOOD))
    text = dump(scenario)
    assert load(written(tmp_path, text)) == scenario
    assert "timeout_s" not in text  # what is at its default is left out


def test_set_reaches_every_field(tmp_path):
    scenario = load(
        written(tmp_path, GOOD),
        ["workloads[0].rate_per_s=50", "topology.cluster.frontends=3", "workloads.1.what=f3", "seed=7"],
    )
    assert scenario.workloads[0].rate_per_s == 50
    assert scenario.workloads[1].what == "f3"
    assert (scenario.seed, scenario.topology.cluster.frontends) == (7, 3)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "rate_per_s: 5",
            "rate: 5",
            "workloads[0]: Object contains unknown field `rate`; known here: start_s,",
        ),
        ("count: 3", "count: three", "topology.peers.payers.count: Expected `int`, got `str`"),
        ("run: kill", "run: kil", "workloads[1].run: Invalid value 'kil'; known workloads: block_stall,"),
        (
            "what: frontend",
            "what: f9",
            'workloads[1].what: "f9" is no process of this scenario; one of frontend,',
        ),
        (
            "payers: [payers]",
            "payers: [idle]",
            'workloads[0].payers: "idle" is no group with channels; there are payers',
        ),
        ("start_s: 5", "start_s: 25", "workloads[1].start_s: before the end of the scenario at 20 s"),
        ("0.99", "soon", "expect[0]: 'payments.success_ratio >= soon' is no expectation; write"),
        ("rate_per_s: 5", "rate_per_s: 5, users: 2", "workloads[0].rate_per_s: either rate_per_s or users"),
        ("duration_s: 20", "duration_s: -1", "duration_s: Expected `float` > 0.0"),
        (
            "  peers:",
            "  cluster: {backend: {handshakes_per_s: many}}\n  peers:",
            "topology.cluster.backend.handshakes_per_s: Expected",
        ),
        (
            "  peers:",
            "  cluster: {channels: {max_htlcs: 3}}\n  peers:",
            "topology.cluster.channels: Object contains unknown field `max_htlcs`",
        ),
        (
            "  peers:",
            "  peeers:",
            "topology: Object contains unknown field `peeers`; known here: cluster, peers",
        ),
    ],
)
def test_a_wrong_field_is_named_with_what_was_expected(tmp_path, old, new, words):
    assert refusal(tmp_path, GOOD.replace(old, new, 1)).startswith(words)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("workloads[7].rate_per_s=1", "--set workloads[7].rate_per_s=1: there is no"),
        ("nonsense", "--set nonsense: write PATH=VALUE"),
        ("workloads[0].rate=1", "workloads[0]: Object contains unknown field `rate`"),
    ],
)
def test_a_wrong_override_is_named(tmp_path, override, words):
    assert refusal(tmp_path, GOOD, override).startswith(words)


def test_what_is_no_scenario_is_refused(tmp_path):
    assert "is not YAML" in refusal(tmp_path, "a: [")
    assert "holds no mapping" in refusal(tmp_path, "- 1")
    with pytest.raises(Refused, match="No such file"):
        load(tmp_path / "missing.yaml")


ONION = """\
# Peers come by the onion address.
duration_s: 20
modes: [cluster]
topology:
  cluster: {tor: {check: {fall: 3}}}
  peers: {idle: {count: 5, through: onion}}
workloads:
  - {run: tor_restart, start_s: 5}
"""


def test_an_onion_service_and_what_happens_to_it(tmp_path):
    scenario = load(written(tmp_path, ONION))
    assert scenario.topology.cluster.tor == TorSpec(check={"fall": 3})
    assert scenario.workloads == (TorRestart(start_s=5),)
    assert load(written(tmp_path, dump(scenario))) == scenario


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("modes: [cluster]\n", "", "modes: [cluster] where topology.cluster.tor is set: there is no tor in"),
        ("{tor: {check: {fall: 3}}}", "{}", "topology.peers.idle.through: there is no onion service"),
        (
            "{tor: {check: {fall: 3}}}\n  peers: {idle: {count: 5, through: onion}}",
            "{}",
            "workloads[0].run: there is no tor; topology.cluster.tor: {} makes",
        ),
        ("through: onion", "through: moon", "topology.peers.idle.through: one of direct, onion"),
        ("fall: 3", "fall: 0", "topology.cluster.tor.check.fall: Expected `int` >= 1"),
        ("check: {fall: 3}", "service: {port: 1}", "topology.cluster.tor.service.port: is set by the run"),
        ("check: {fall: 3}", "service: {pow: 1}", "topology.cluster.tor.service: Object contains unknown"),
        ("check: {fall: 3}", "checks: {}", "topology.cluster.tor: Object contains unknown field `checks`"),
    ],
)
def test_what_is_wrong_with_an_onion_service(tmp_path, old, new, words):
    assert old in ONION
    assert refusal(tmp_path, ONION.replace(old, new, 1)).startswith(words)
