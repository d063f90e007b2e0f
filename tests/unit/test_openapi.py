"""The description of the routes is that of the routes."""

import json
import re
from typing import Any

from starlette.routing import Route

from host_backend.api.login import Login
from host_backend.api.openapi import PATHS
from host_backend.api.signing import signing_app
from host_backend.api.tokens import Tokens
from host_backend.metrics import Metrics
from host_backend.signer import Signer
from host_backend.watermark.memory import MemoryWatermarkStore
from tests.doubles.asgi import ask_app

METRICS = Metrics(dict, "memory")
SIGNER = Signer({}, [], MemoryWatermarkStore())


def test_every_route_is_described_and_no_other() -> None:
    app = signing_app(SIGNER, METRICS, login=Login(Tokens({}), METRICS))
    routes = {
        (route.path, method.lower())
        for route in app.routes
        if isinstance(route, Route)
        for method in route.methods or ()
    }
    assert routes == {(path, method) for path, methods in PATHS.items() for method in methods}


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        found = [value["$ref"]] if "$ref" in value else []
        return found + [each for member in value.values() for each in references(member)]
    return [each for member in value for each in references(member)] if isinstance(value, list) else []


def test_the_document_for_programs() -> None:
    answer = ask_app(signing_app(SIGNER, METRICS), "GET", "/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    document = json.loads(answer.body)
    assert document["openapi"].startswith("3.1")
    assert set(references(document)) == {"#/components/schemas/Failure"}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            named = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path)), (path, method)
            assert operation["responses"]


def test_the_page_for_people_fetches_nothing() -> None:
    answer = ask_app(signing_app(SIGNER, METRICS), "GET", "/docs")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    text = answer.body.decode()
    assert not re.findall(r"(?:src=|https?://|@import|url\()", text)
    for path in PATHS:
        assert f"<code>{path}</code>" in text
