"""The landing page: what it tells, to people and to programs, and how little it costs."""

import asyncio
import json
import math
import re
from collections.abc import Mapping
from types import SimpleNamespace

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from host_backend.api.landing import CHECKED, MAX_KEYS, NO_CONNECTION, NOT_CHECKED, OVERDUE, wants_json
from host_backend.api.openapi import document, page
from host_backend.api.route_table import UTILITY
from host_backend.api.utility import utility_app
from host_backend.exposition import page as no_metrics
from host_backend.metrics import LastSigned
from host_backend.policy import DEFAULT_POLICY, KeyPolicy
from host_backend.steps import Steps
from host_backend.vault.vault import Vault
from host_backend.watermark.memory import MemoryWatermarkStore
from tests.doubles.asgi import ask, ask_app
from tests.unit.test_host_app import SomeVault

JSON = {"accept": "application/json"}
BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


class Shown(SomeVault):
    """A vault as the page sees it."""

    def __init__(self, *serving: str, out: Mapping[str, str] | None = None, problem: str | None = None) -> None:
        super().__init__(serving, out or {}, problem=problem)
        self._out = dict(out or {})
        client = None if problem else SimpleNamespace(proof=None, good_until=math.inf)
        self.link = SimpleNamespace(client=client, proof_overdue=False)  # type: ignore[assignment]

    @property
    def keys(self) -> tuple[object, ...]:  # type: ignore[override]
        return tuple(self._serving)


def app_of(
    *vaults: Vault, listed: str | tuple[str, ...] = "", signed: dict[str, LastSigned] | None = None
) -> Starlette:
    steps = Steps()
    return utility_app(
        vaults,
        MemoryWatermarkStore(),
        lambda: dict.fromkeys(listed, DEFAULT_POLICY),
        lambda: False,
        lambda: no_metrics(()),
        steps,
        signed,
    )


def test_programs_get_json() -> None:
    signed = {"a": LastSigned("attestation", 7, 1, 0.0), "c": LastSigned("generic", None, None, 86400.5)}
    app = app_of(Shown("a", "c", out={"b": "broken"}), listed="abc", signed=signed)
    answer = ask_app(app, "GET", "/", headers=JSON)
    assert (answer.status, answer.headers["vary"]) == (200, "accept")
    told = json.loads(answer.body)
    assert (told["ready"], told["degraded"]) == (True, True)
    assert told["vaults"] == [{"name": "v", "ready": True, "reason": None, "keys_ready": 2, "keys_out_of_service": 1}]
    assert [(key["pkh"], key["vault"], key["in_service"], key["reason"]) for key in told["keys"]] == [
        ("a", "v", True, None),
        ("b", None, False, "broken"),
        ("c", "v", True, None),
    ]
    assert [key["last_signature"] for key in told["keys"]] == [
        {"kind": "attestation", "level": 7, "round": 1, "at": "1970-01-01T00:00:00Z"},
        None,
        {"kind": "generic", "level": None, "round": None, "at": "1970-01-02T00:00:00Z"},
    ]
    assert told["attestation"] == {"checked": False, "text": NOT_CHECKED}


def test_what_is_proven_is_told_in_plain_words() -> None:
    proven, other, away = Shown("a"), Shown("b"), Shown(problem="no link")
    proven.link.client = SimpleNamespace(proof=object(), doubted=False, good_until=86_400.0)  # type: ignore[misc, assignment]
    proven.name, other.name = "one", "two"

    def told(*vaults: Vault) -> dict[str, object]:
        shown: dict[str, object] = json.loads(ask_app(app_of(*vaults), "GET", "/", headers=JSON).body)["attestation"]
        return shown

    text = CHECKED.format("1970-01-02 00:00:00Z")
    assert told(proven) == {"checked": True, "text": text}
    assert told(proven, other) == {"checked": False, "text": f"one: {text} two: {NOT_CHECKED}"}
    assert told(away) == {"checked": False, "text": NO_CONNECTION}
    assert told() == {"checked": False, "text": "There is no vault."}
    assert b"Checked: the enclave has proven" in ask_app(app_of(proven), "GET", "/").body


@pytest.mark.parametrize(("doubted", "overdue"), [(True, False), (False, True)])
def test_a_proof_that_is_overdue_is_not_called_checked(*, doubted: bool, overdue: bool) -> None:
    vault = Shown("a")
    client = SimpleNamespace(proof=SimpleNamespace(outlasts_to=86_400.0), doubted=doubted)
    vault.link = SimpleNamespace(client=client, proof_overdue=overdue)  # type: ignore[assignment]
    told = json.loads(ask_app(app_of(vault), "GET", "/", headers=JSON).body)["attestation"]
    assert told == {"checked": False, "text": OVERDUE.format("1970-01-02 00:00:00Z")}


def test_people_get_a_page_that_runs_and_fetches_nothing() -> None:
    app = app_of(Shown("a", out={"b": '<script>"&'}), listed="ab", signed={"a": LastSigned("block", 7, 0, 0.0)})
    answer = ask_app(app, "GET", "/", headers=BROWSER)
    text = answer.body.decode()
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; ")
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert "&lt;script&gt;" in text
    assert "Ready to sign, degraded: " in text
    assert b">Ready to sign<" in ask_app(app_of(Shown("a"), listed="a"), "GET", "/").body
    assert not re.findall(r"<script|src=|https?://|@import|url\(", text)
    assert "last signed: block at level 7, round 0, 1970-01-01 00:00:00 UTC" in text
    assert len(answer.body) < 8192


def test_a_host_that_cannot_sign_says_so() -> None:
    app = app_of(Shown(out={"a": "broken"}, problem="no link"), listed="a")
    assert b"Not ready" in ask_app(app, "GET", "/").body
    told = json.loads(ask_app(app, "GET", "/", headers=JSON).body)
    assert (told["ready"], told["vaults"][0]["reason"], told["vaults"][0]["keys_ready"]) == (False, "no link", 0)
    answer = ask_app(app, "GET", "/health")
    assert (answer.status, json.loads(answer.body)) == (503, {"status": "not ready"})
    answer = ask_app(app_of(Shown("a"), listed="a"), "GET", "/health")
    assert (answer.status, json.loads(answer.body)) == (200, {"status": "ok"})


def test_the_page_is_bounded_whatever_is_listed() -> None:
    app = app_of(listed=tuple(map(str, range(10_000))))
    told = json.loads(ask_app(app, "GET", "/", headers=JSON).body)
    assert (len(told["keys"]), told["keys_total"]) == (MAX_KEYS, 10_000)
    page = ask_app(app, "GET", "/").body
    assert f"and {10_000 - MAX_KEYS} more".encode() in page
    assert len(page) < 200_000


@pytest.mark.parametrize(
    ("accept", "json_wanted"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", True),
        ("application/json, */*", True),
        (BROWSER["accept"], False),
    ],
)
def test_who_wants_json(accept: str, json_wanted: bool) -> None:
    assert wants_json(accept) is json_wanted


def test_the_page_is_made_once_for_all_who_ask_meanwhile() -> None:
    made = []

    def listed() -> dict[str, KeyPolicy]:
        made.append(1)
        return {"a": DEFAULT_POLICY}

    no_vaults = utility_app([], MemoryWatermarkStore(), listed, lambda: False, lambda: no_metrics(()), Steps())

    async def ask_at_once() -> None:
        answers = [ask(no_vaults, "GET", "/", headers=headers) for headers in (JSON, BROWSER) * 20]
        assert {answer.status for answer in await asyncio.gather(*answers)} == {200}

    asyncio.run(ask_at_once())
    # Once for the health, once for the keys.
    assert len(made) == 2


def test_every_route_is_described_and_no_other() -> None:
    app = app_of()
    routes = {(route.path, "get") for route in app.routes if isinstance(route, Route)}
    assert routes == {(path, method) for path, method, _ in UTILITY}
    assert ask_app(app, "GET", "/openapi.json").body == document(UTILITY)
    shown = ask_app(app, "GET", "/docs")
    assert shown.body == page(UTILITY)
    assert "default-src 'none'" in shown.headers["content-security-policy"]
    described = json.loads(document(UTILITY))["paths"]
    assert described["/healthz"]["get"]["responses"]["503"]["content"]["application/json"] == {}
    told = json.loads(ask_app(app, "GET", "/", headers=JSON).body)
    assert set(told["endpoints"]) == set(described)
