"""Known vulnerabilities of locked packages: found, accepted by name, and never taken for good where no one was asked."""

import json
from collections.abc import Iterable
from datetime import date
from typing import Any

import pytest

from supply_chain import page
from supply_chain.advisories import OLD_DAYS, judge, refreshed, report
from supply_chain.lock import EVERYTHING, PROGRAMS, ROOT, Locked, licence, locked
from supply_chain.sbom import sbom

TODAY = date(2026, 11, 26)
PACKAGE = Locked("left", "1.0", ("00" * 32,), ("enclave-signer",))
RECORD = {"id": "GHSA-1", "aliases": ["CVE-1"]}


def answer(*records: object, version: str = "1.0", asked: date = TODAY) -> dict[str, object]:
    return {"left": {"version": version, "asked": asked.isoformat(), "vulns": list(records)}}


@pytest.mark.parametrize(
    ("answers", "accepted", "codes"),
    [
        pytest.param(answer(), {}, (0, 0), id="nothing known"),
        pytest.param(answer(RECORD), {}, (1, 1), id="a known one"),
        pytest.param(answer(RECORD), {"CVE-1": "not called"}, (0, 0), id="accepted by its alias"),
        pytest.param(answer(RECORD), {"CVE-2": "not called"}, (1, 1), id="another is accepted"),
        pytest.param({}, {}, (1, 1), id="asked about nothing at all"),
        pytest.param(answer(version="0.9"), {}, (1, 1), id="asked about another version"),
        pytest.param(answer(asked=date.fromordinal(TODAY.toordinal() - OLD_DAYS)), {}, (0, 0), id="old enough"),
        pytest.param(answer(asked=date.fromordinal(TODAY.toordinal() - OLD_DAYS - 1)), {}, (0, 1), id="too old"),
    ],
)
def test_exit_codes(answers: dict[str, object], accepted: dict[str, str], codes: tuple[int, int]) -> None:
    found = judge([PACKAGE], answers, accepted, TODAY)
    assert (report(found, strict=False), report(found, strict=True)) == codes


def test_what_was_never_asked_about_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    found = judge([PACKAGE, Locked("right", "2.0", (), ())], answer(), {}, TODAY)
    assert (report(found, strict=False), report(found, strict=True)) == (0, 1)
    assert "1 of 2 packages" in (said := capsys.readouterr().out)
    assert "right" in said


def test_every_package_is_asked_about_and_records_are_stored_as_they_came() -> None:
    packages = [PACKAGE, Locked("right", "2.0", (), ())]

    def ask(path: str, body: Any = None) -> object:
        if path == "querybatch":
            assert [(query["package"]["name"], query["version"]) for query in body["queries"]] == [
                ("left", "1.0"),
                ("right", "2.0"),
            ]
            return {"results": [{}, {"vulns": [{"id": "GHSA-1", "modified": "2026-01-01T00:00:00Z"}]}]}
        assert path == "vulns/GHSA-1"
        return RECORD

    answers = refreshed(packages, TODAY, ask)
    assert {name: each["vulns"] for name, each in answers.items()} == {"left": [], "right": [RECORD]}
    assert judge(packages, answers, {}, TODAY).bad == ["right 2.0: CVE-1, GHSA-1"]
    with pytest.raises(ValueError, match="more records"):
        refreshed([PACKAGE], TODAY, lambda *_: {"results": [{"next_page_token": "more"}]})
    with pytest.raises(ValueError, match="zip"):
        refreshed(packages, TODAY, lambda *_: {"results": [{}]})


@pytest.mark.parametrize("file", [*PROGRAMS.values(), EVERYTHING])
def test_every_locked_package_is_read(file: str) -> None:
    text = (ROOT / file).read_text()
    assert len(locked(file)) == sum("==" in line.partition(" ")[0] for line in text.splitlines())
    assert sum(len(package.hashes) for package in locked(file)) == text.count("--hash=")
    assert all(package.hashes and package.via for package in locked(file))


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_list_has_each_package_with_licence_and_what_asks_for_it(program: str) -> None:
    listed = json.loads(sbom(program))
    assert sbom(program) == sbom(program)
    components = {each["bom-ref"]: each for each in listed["components"]}
    assert components.keys() == {package.purl for package in locked(PROGRAMS[program])}
    assert all(each["licenses"][0]["expression"] for each in components.values())
    reached, graph = {program}, {each["ref"]: each["dependsOn"] for each in listed["dependencies"]}
    while more := {other for one in reached for other in graph[one]} - reached:
        reached |= more
    assert reached == {program, *components}


def test_licences_of_the_programs_let_everybody_use_them() -> None:
    known = {"MIT", "MIT-0", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "MPL-2.0", "PSF-2.0"}
    for file in PROGRAMS.values():
        for package in locked(file):
            assert set(licence(package.name).split(" OR ")) & known, package.name


def without_sizes(rows: Iterable[str]) -> list[list[str]]:
    """Return the cells of a table but the fourth, which depends on the machine."""
    return [[cell for place, cell in enumerate(row.split(" | ")) if place != 3] for row in rows]


def test_the_page_is_that_of_the_requirements() -> None:
    written = page.PAGE.read_text()
    for table in page.tables():
        head = table.splitlines()[0]
        found = written[written.index(head) :].partition("\n\n")[0]
        assert without_sizes(found.splitlines()) == without_sizes(table.splitlines()), "python -m supply_chain.page"


def test_each_library_says_what_would_take_its_place() -> None:
    direct = {package.name for file in PROGRAMS.values() for package in locked(file) if "enclave-signer" in package.via}
    assert direct <= page.replacements().keys()
    assert page.reasons().keys() == page.replacements().keys()
