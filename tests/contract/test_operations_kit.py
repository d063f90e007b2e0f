"""The operations kit names only what exists: metrics, documents, programs, folders."""

import json
import re

import pytest

from host_backend.metrics import Histograms, Metrics
from host_backend.readings import build_reading, host_readings, process_readings
from host_backend.watermark.memory import MemoryWatermarkStore
from tests.contract.markdown import DOCS, ROOT, anchors
from tests.doubles.kit import DASHBOARD, INSTALLED, UNITS, alert_rules, dashboard_expressions, metrics_in, unit_lines


def exported() -> set[str]:
    """Return the name of every series that the host exports."""
    names = set()
    for table in Metrics(list, "file").tables():
        endings = ("_bucket", "_sum", "_count") if isinstance(table, Histograms) else ("_total",)
        names |= {table.name + ending for ending in endings}
    readings = [build_reading("0"), *host_readings([], MemoryWatermarkStore()), *process_readings()]
    return names | {f"{reading.name}_total" if reading.counts else reading.name for reading in readings}


def test_names_are_found_in_expressions() -> None:
    text = 'sum by (le) (rate(a_bucket{b="c",d=~"e"}[5m])) > 0 or (f unless f offset 10m) / on (g) h:i'
    assert metrics_in(text) == {"a_bucket", "f", "h:i"}


@pytest.mark.parametrize("rule", alert_rules(), ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_metrics_that_are_exported_and_names_a_page(rule: dict[str, dict[str, str]]) -> None:
    assert metrics_in(str(rule["expr"])) <= exported() | {"up"}
    assert rule["labels"]["severity"] in {"page", "look"}
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert not anchor or anchor in anchors(ROOT / page)
    assert (ROOT / page).is_file()


@pytest.mark.parametrize("expression", dashboard_expressions())
def test_a_panel_asks_for_metrics_that_are_exported(expression: str) -> None:
    assert metrics_in(expression)
    assert metrics_in(expression) <= exported()


def test_panels_lie_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_the_host_comes_after_the_enclave_and_does_not_end_with_it() -> None:
    enclave, host = (dict(unit_lines(unit)) for unit in sorted(UNITS, reverse=True))
    assert enclave["Before"] == "enclave-host.service"
    for setting in ("After", "Wants"):
        assert "enclave-signer.service" in host[setting].split()
    assert not {"Requires", "BindsTo", "PartOf"} & host.keys()
    assert enclave["User"] == host["User"]
    # Each has a folder that the other cannot look into.
    for one, other in ((enclave, host), (host, enclave)):
        assert one["InaccessiblePaths"] == f"-/var/lib/{other['StateDirectory']}"


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_starts_a_program_as_the_install_page_installs_it(unit) -> None:  # type: ignore[no-untyped-def]
    settings = dict(unit_lines(unit))
    program = unit.stem
    assert settings["ExecStart"].startswith(f"{INSTALLED}/{program} ")
    page = (DOCS / "install.md").read_text()
    assert INSTALLED in page
    for path in re.findall(r"/(?:etc|var)/\S+", settings["ExecStart"]):
        assert path in page
