"""What is in deploy/ fits this release: its configurations have only fields that there are."""

import ast
import json
import re
import tomllib
from pathlib import Path

import msgspec
import pytest
import yaml

from node.runtime.config import BackendConfig, FrontendConfig, Section

DEPLOY = Path(__file__).parents[3] / "deploy"


def manifests(name: str) -> list[dict]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text()))


def embedded(name: str, key: str) -> dict:
    (found,) = (each["data"][key] for each in manifests(name) if each["kind"] == "ConfigMap")
    return yaml.safe_load(found)


@pytest.mark.parametrize(
    ("name", "kind"), [("backend", BackendConfig), ("frontend", FrontendConfig)], ids=["backend", "frontend"]
)
def test_kubernetes_configurations_have_fields_that_there_are(name: str, kind: type[Section]):
    config = msgspec.convert(embedded(f"{name}.yaml", f"{name}.yaml"), kind)
    assert config.admin.endswith(":9740")


def test_a_pod_has_time_to_drain():
    (deployment,) = (each for each in manifests("frontend.yaml") if each["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    config = msgspec.convert(embedded("frontend.yaml", "frontend.yaml"), FrontendConfig)
    (wait_s,) = (int(each["lifecycle"]["preStop"]["exec"]["command"][1]) for each in pod["containers"])
    assert pod["terminationGracePeriodSeconds"] >= wait_s + config.drain_s + 10


@pytest.mark.parametrize("path", sorted((DEPLOY / "systemd").iterdir()), ids=lambda path: path.name)
def test_units_are_hardened_and_restart(path: Path):
    unit = path.read_text()
    for line in (
        "Restart=on-failure",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "CapabilityBoundingSet=",
    ):
        assert re.search(rf"^{re.escape(line)}$", unit, re.MULTILINE), line


def test_every_alarm_says_what_and_what_next():
    (group,) = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert set(rule["annotations"]) == {"summary", "description"}


def test_panels_of_the_dashboard_do_not_overlap():
    panels = json.loads((DEPLOY / "grafana" / "lnnode.json").read_text())["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not taken & cells, panel["title"]
        taken |= cells


def test_every_weak_point_names_a_test_that_there_is():
    text = (DEPLOY.parent / "docs" / "from-eclair.md").read_text()
    rows = re.findall(r"^\| (\d+) \|.*`(tests/[\w/]+\.py)` \|$", text, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 26))
    assert [path for _, path in rows if not (DEPLOY.parent / path).is_file()] == []


def test_every_attack_names_tests_that_there_are():
    text = (DEPLOY.parent / "docs" / "operations.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", text)
    assert len(named) > 20
    missing = [
        (path, name) for path, name in named if f"def {name}(" not in (DEPLOY.parent / path).read_text()
    ]
    assert missing == []


def test_the_base_is_young_and_small():
    """Python 3.11 to 3.13; a frontend's host installs neither the simulator nor anything that only it needs."""
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11,<3.14"
    base = {re.split(r"[\[<>=; ]", line)[0] for line in project["dependencies"]}
    only_simulated = {"plotly", "psutil", "py-bitcoinkernel", "ray", "stem", "boto3"}
    assert not base & only_simulated
    for path in (DEPLOY.parent / "node").rglob("*.py"):
        ast.parse(path.read_text(), str(path), feature_version=(3, 11))


def test_every_alarm_is_in_the_operators_table():
    (group,) = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    text = (DEPLOY.parent / "docs" / "operations.md").read_text()
    assert [rule["alert"] for rule in group["rules"] if rule["alert"] not in text] == []
