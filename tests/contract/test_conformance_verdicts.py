"""The verdicts of `conformance/` have the form of their schema, and are what was recorded; the runner stands alone."""

import ast
import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract import conformance_data
from tests.contract.conformance_data import ROOT, VERDICTS, by_signatory, load
from tests.doubles.json_schema import problems
from tests.doubles.known_keys import FOUR

CONFORMANCE = ROOT / "conformance"
GROUPS = ("messages", "sequences", "http", "wire", "frames")
SCHEMA: dict[str, Any] = json.loads((CONFORMANCE / "schema.json").read_text())
FILES: dict[str, dict[str, Any]] = {name: json.loads((VERDICTS / f"{name}.json").read_text()) for name in GROUPS}
OTHERS = {"signatory", "octez", "octez-signer", "tee-signer", "taquito 21"}


def test_the_files_are_those_of_the_schema() -> None:
    assert sorted(path.stem for path in VERDICTS.iterdir()) == sorted(GROUPS)
    assert [one["$ref"].removeprefix("#/$defs/") for one in SCHEMA["anyOf"]] == [*GROUPS]


@pytest.mark.parametrize("group", GROUPS)
def test_a_file_has_the_form_of_its_schema(group: str) -> None:
    assert FILES[group]["group"] == group
    assert not [*problems(FILES[group], SCHEMA["$defs"][group], SCHEMA)]
    assert not [*problems(FILES[group], SCHEMA, SCHEMA)]


def test_the_schema_refuses_other_forms() -> None:
    assert [*problems({}, SCHEMA, SCHEMA)]
    wrong = json.loads(json.dumps(FILES["http"]))
    wrong["verdicts"][0]["status"] = "200"
    wrong["verdicts"][1]["colour"] = "green"
    found = [*problems(wrong, SCHEMA["$defs"]["http"], SCHEMA)]
    assert len(found) == 2
    assert found[1] == "/verdicts/1: colour is not known"


@pytest.mark.parametrize("group", GROUPS)
def test_every_verdict_has_its_own_name_and_says_where_it_comes_from(group: str) -> None:
    names = [verdict["name"] for verdict in FILES[group]["verdicts"]]
    assert len(names) == len(set(names))
    for verdict in FILES[group]["verdicts"]:
        assert verdict["source"]
        # A verdict that no one shares says why it is right all the same.
        assert verdict["agreed_by"] or verdict["why"] or group == "messages"
        if group != "messages":
            assert set(verdict["agreed_by"]) <= OTHERS


def test_made_files_are_what_the_vectors_say() -> None:
    """`python -m tests.contract.conformance_data` writes them again."""
    assert (VERDICTS / "messages.json").read_text() == conformance_data.messages()
    assert (VERDICTS / "wire.json").read_text() == conformance_data.wire()


def recorded() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield HTTP verdicts that were recorded, with the step of the recording that each names."""
    groups = {group["name"]: group["steps"] for group in load("signatory-http-transcripts.json")["groups"]}
    for verdict in FILES["http"]["verdicts"]:
        if found := re.search(r"\(main of 2026-04-22\): (.+), (\d+)$", verdict["source"]):
            yield verdict, groups[found[1]][int(found[2])]


def test_recorded_http_answers_are_the_recorded_ones() -> None:
    pairs = [*recorded()]
    assert len(pairs) == 33
    for verdict, step in pairs:
        path = verdict["path"].replace("{key}", FOUR[0].pkh).replace("version=2", "version=1")
        assert (verdict["method"], path, verdict["body"]) == (step["method"], step["path"], step["request_body"])
        assert verdict["status"] == [step["status"]]


@pytest.mark.parametrize("group", ["messages", "sequences", "http"])
def test_signatory_agrees_where_it_gave_the_same_answers(group: str) -> None:
    names = {verdict["name"] for verdict in FILES[group]["verdicts"]}
    different = load("signatory-verdicts.json")["different"].get(group, {})
    assert {name for name in different if name not in names and name.rpartition(": ")[0] not in names} == set()
    for verdict in FILES[group]["verdicts"]:
        assert ("signatory" in verdict["agreed_by"]) == by_signatory(group, verdict["name"]), verdict["name"]


def test_frames_are_those_of_octez() -> None:
    vectors = load("octez-sockets.json")
    frames = {frame[4:] for frame in (*vectors["requests"].values(), *vectors["refused"].values())}
    for verdict in FILES["frames"]["verdicts"]:
        for step in verdict["steps"]:
            if (
                verdict["agreed_by"] == ["octez"]
                and "{" not in step.get("request", "{")
                and step["answer"] != "refused"
            ):
                assert step["request"] in frames


def test_the_runner_needs_nothing_of_this_project() -> None:
    """Python's standard library, and `cryptography` if it is there."""
    tree = ast.parse((CONFORMANCE / "run.py").read_text())
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported - sys.stdlib_module_names == {"cryptography"}


def test_the_licence_comes_with_a_copy_of_the_folder() -> None:
    assert (CONFORMANCE / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
