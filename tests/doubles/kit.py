"""The operations kit of `contrib/`: its files, and what they name."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from tests.doubles.processes import ROOT

CONTRIB = ROOT / "contrib"
ALERTS = CONTRIB / "prometheus" / "alerts.yaml"
ALERT_TESTS = CONTRIB / "prometheus" / "alerts.test.yaml"
DASHBOARD = CONTRIB / "grafana" / "dashboard.json"
UNITS = tuple(sorted((CONTRIB / "systemd").glob("*.service")))
#: Where the units expect the programs.
INSTALLED = "/opt/enclave-signer/bin"

_LABELS = re.compile(r"\{[^}]*\}|\[[^\]]*\]|\b(?:by|without|on|ignoring)\s*\([^)]*\)|\boffset \w+")
_NAME = re.compile(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?!\s*\(|[\w:])")
_WORDS = {"and", "or", "unless", "bool"}


def alert_rules() -> list[dict[str, Any]]:
    """Return every alert rule."""
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def dashboard_expressions() -> list[str]:
    """Return the expression of every panel, with an interval where Grafana puts one."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [
        target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")
        for panel in panels
        for target in panel.get("targets", ())
    ]


def metrics_in(expression: str) -> set[str]:
    """Return the names of metrics in an expression of Prometheus."""
    return set(_NAME.findall(_LABELS.sub("", expression))) - _WORDS


def unit_lines(unit: Path) -> list[tuple[str, str]]:
    """Return the settings of a unit in order, repeated ones too."""
    lines = [line.partition("=") for line in unit.read_text().splitlines() if line and line[0] not in "#["]
    return [(name, value) for name, _, value in lines]
