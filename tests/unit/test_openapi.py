"""The description of the routes is that of the routes."""

import json
import re
from typing import Any

import pytest
from starlette.routing import Route

from host_backend.api.auth import RequestKeys
from host_backend.api.dispatch import SigningApplication
from host_backend.api.login import Login
from host_backend.api.openapi import document, page
from host_backend.api.route_table import FAMILIES, PATHS, REPORT, Access, operations
from host_backend.api.signing import signing_app
from host_backend.api.tokens import Tokens
from host_backend.errors import ConfigError, HostError
from host_backend.metrics import Metrics
from host_backend.signer import Signer
from host_backend.watermark.memory import MemoryWatermarkStore
from tests.doubles.asgi import ask_app

METRICS = Metrics(dict, "memory")
SIGNER = Signer({}, [], MemoryWatermarkStore())
ACCESSES = [Access(tokens=tokens, signed=signed) for tokens in (False, True) for signed in (False, True)]
of_every_access = pytest.mark.parametrize("access", ACCESSES, ids=repr)


def app_of(access: Access) -> SigningApplication:
    login = Login(Tokens({}), METRICS) if access.tokens else None
    return signing_app(SIGNER, METRICS, request_keys=RequestKeys([]) if access.signed else None, login=login)


@of_every_access
def test_every_route_is_described_and_no_other(access: Access) -> None:
    routes = {
        (route.path, method.lower())
        for route in app_of(access).routes
        if isinstance(route, Route)
        for method in route.methods or ()
    }
    paths = json.loads(document(operations(access), access))["paths"]
    assert routes == {(path, method) for path, methods in paths.items() for method in methods}
    assert routes == {(path, method) for path, method, _ in operations(access)}


def families_of(family: type[HostError]) -> list[type[HostError]]:
    return [family, *(each for child in family.__subclasses__() for each in families_of(child))]


def test_there_are_words_for_every_family_with_a_status_of_its_own() -> None:
    for family in families_of(HostError):
        known = next((each for each in family.__mro__ if each in FAMILIES), None)
        if known is None:
            # Bugs, and what no request meets.
            assert (
                issubclass(family, ConfigError) or family is HostError or family.__module__ != HostError.__module__
            ), family
        else:
            assert family.http_status == known.http_status, family


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        found = [value["$ref"]] if "$ref" in value else []
        return found + [each for member in value.values() for each in references(member)]
    return [each for member in value for each in references(member)] if isinstance(value, list) else []


@of_every_access
def test_the_document_for_programs(access: Access) -> None:
    described = json.loads(document(operations(access), access))
    assert described["openapi"].startswith("3.1")
    assert set(references(described)) == {"#/components/schemas/Failure"}
    schemes = set(described["components"].get("securitySchemes", {}))
    assert bool(schemes) is access.tokens
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            named = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path)), (path, method)
            wanted = {name for each in operation.get("security", []) for name in each}
            assert wanted == (set() if path == "/login" else schemes), path
            signed = any(each["name"] == "authentication" for each in operation["parameters"])
            assert signed is (access.signed and "/{pkh}" in path and operation["summary"] != "A public key"), path


def test_the_document_is_that_of_the_application() -> None:
    answer = ask_app(app_of(Access()), "GET", "/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.body == document(operations(Access()))


def test_the_page_for_people_fetches_nothing() -> None:
    answer = ask_app(app_of(Access()), "GET", "/docs")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.body == page(operations(Access()))
    access = Access(tokens=True, signed=True)
    text = page(operations(access), access).decode()
    assert not re.findall(r"(?:src=|https?://|@import|url\()", text)
    for path in PATHS:
        assert f"<code>{path}</code>" in text


def test_what_is_no_refusal_of_signatorys_form_is_not_described_as_one() -> None:
    """`/attestation` answers with `status` and `error`."""
    answers = json.loads(document([REPORT]))["paths"]["/attestation"]["get"]["responses"]
    for status in ("400", "429", "503"):
        assert answers[status]["content"]["application/json"] == {}
