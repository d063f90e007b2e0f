"""What the routes take and give, for programs (`/openapi.json`, OpenAPI 3.1) and for people (`/docs`).

Written by hand beside the routes, as those are plain ASGI; a test compares both. The page needs nothing from elsewhere.
"""

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass

from enclave_signer import __version__


@dataclass(frozen=True, slots=True)
class _Parameter:
    name: str
    place: str
    text: str

    def described(self) -> dict[str, object]:
        """Return it as OpenAPI has it."""
        required = self.place != "query"
        return {
            "name": self.name,
            "in": self.place,
            "required": required,
            "description": self.text,
            "schema": {"type": "string"},
        }


@dataclass(frozen=True, slots=True)
class Operation:
    """What one route takes and gives.

    Attributes:
        summary: What it is for.
        good: The member of a good answer's object; or its media type, where it is no such object.
        parameters: In path, query and headers.
        refusals: Statuses of other answers.
        takes_message: Whether the body is a message.
        status: Of a good answer.
    """

    summary: str
    good: str
    parameters: tuple[_Parameter, ...] = ()
    refusals: tuple[str, ...] = ()
    takes_message: bool = False
    status: str = "200"

    def described(self) -> dict[str, object]:
        """Return it as OpenAPI has it."""
        answers: dict[str, object] = {self.status: {"description": "ok", "content": self._good_content()}}
        for code in self.refusals:
            content = {"application/json": {"schema": {"$ref": "#/components/schemas/Failure"}}}
            answers[code] = {"description": _REFUSALS[code], "content": content}
        described: dict[str, object] = {
            "summary": self.summary,
            "parameters": [parameter.described() for parameter in self.parameters],
            "responses": answers,
        }
        if self.takes_message:
            schema = {"type": "string", "examples": ["03…"]}
            body = {"required": True, "description": _MESSAGE, "content": {"application/json": {"schema": schema}}}
            described["requestBody"] = body
        return described

    def _good_content(self) -> dict[str, object]:
        if "/" in self.good:
            return {self.good: {}}
        value: dict[str, object] = {"type": "string"}
        if self.good.endswith("keys"):
            value = {"type": "array", "items": {"type": "string"}}
        return {"application/json": {"schema": {"type": "object", "properties": {self.good: value}}}}


_MESSAGE = "A JSON string: the hex of the whole message, magic byte first"
_PKH = _Parameter("pkh", "path", "The key's hash: tz1…, tz2…, tz3… or tz4…")
_AUTHENTICATION = _Parameter(
    "authentication", "query", "Signature of the request, where server.authorized_keys is configured"
)
_VERSION = _Parameter("version", "query", "How a tz4 key signs: 1, or 2, which is the default and also what 3 means")
_BLS_PK = _Parameter("bls_pk", "query", "The key's own public key (BLpk…), which the authentication covers then")
_REFUSALS = {
    "400": "not well formed, or possession may not be proved",
    "401": "no credentials, or wrong ones",
    "403": "not allowed by policy",
    "404": "the key is in no vault",
    "409": "could be a double signature: never ask again",
    "413": "the body is larger than any message",
    "429": "wrong, as were many others just now: wait",
    "502": "the enclave refused, or signed wrongly",
    "503": "the enclave, a store or the policy hook is away, or too many requests wait: retry later",
}
_FAILURE = {
    "type": "array",
    "minItems": 1,
    "maxItems": 1,
    "items": {
        "type": "object",
        "properties": {
            "id": {"const": "failure"},
            "kind": {"const": "temporary"},
            "msg": {"type": "string"},
        },
    },
}

#: By path and method, as the routes are.
PATHS: Mapping[str, Mapping[str, Operation]] = {
    "/keys/{pkh}": {
        "get": Operation("A public key", "public_key", (_PKH,), ("400", "404", "502", "503")),
        "post": Operation(
            "Sign a message",
            "signature",
            (_PKH, _AUTHENTICATION, _VERSION),
            ("400", "401", "403", "404", "409", "413", "502", "503"),
            takes_message=True,
        ),
    },
    "/bls_prove_possession/{pkh}": {
        "get": Operation(
            "Prove possession of a tz4 key",
            "bls_prove_possession",
            (_PKH, _AUTHENTICATION, _BLS_PK),
            ("400", "401", "403", "404", "502", "503"),
        )
    },
    "/authorized_keys": {"get": Operation("Keys that may sign requests", "authorized_keys")},
    "/known_keys": {"get": Operation("Keys that are listed and in service", "known_keys")},
    "/mode": {"get": Operation("What this server is, and how it wants to be asked", "mode")},
    "/openapi.json": {"get": Operation("This description", "application/json")},
    "/docs": {"get": Operation("This description, for people", "text/html")},
    "/login": {
        "post": Operation(
            "Get a token; exists where server.jwt is configured",
            "text/plain",
            (_Parameter("username", "header", "Who asks"), _Parameter("password", "header", "Its password")),
            ("401", "429"),
            status="201",
        )
    },
}


def document() -> bytes:
    """Return the description for programs."""
    info = {"title": "enclave-host", "version": __version__, "description": "A Tezos remote signer."}
    paths = {
        path: {method: operation.described() for method, operation in methods.items()}
        for path, methods in PATHS.items()
    }
    components = {"schemas": {"Failure": _FAILURE}}
    return json.dumps({"openapi": "3.1.0", "info": info, "paths": paths, "components": components}).encode() + b"\n"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>enclave-host %(version)s</title>
<meta name="viewport" content="width=device-width"><style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
code { font-family: ui-monospace, monospace; } h2 { margin: 2rem 0 .3rem; font-size: 1.1rem; }
h2 b { display: inline-block; min-width: 3.2rem; color: #fff; background: #2b6cb0; border-radius: 4px; padding: 0 .5rem;
  text-align: center; font-size: .85rem; margin-right: .5rem; }
table { border-collapse: collapse; width: 100%%; } td { border-top: 1px solid #ddd; padding: .2rem .6rem .2rem 0;
  vertical-align: top; } td:first-child { white-space: nowrap; width: 9rem; }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd; } td { border-color: #444; } }
</style></head><body><h1>enclave-host %(version)s</h1>
<p>A Tezos remote signer, as <code>octez-client</code> knows it. For programs:
<a href="openapi.json"><code>openapi.json</code></a>.</p>
%(routes)s</body></html>
"""


def page() -> bytes:
    """Return the description for people, as one page of HTML."""
    routes = "".join(_section(path, method, PATHS[path][method]) for path in PATHS for method in PATHS[path])
    return (_PAGE % {"version": html.escape(__version__), "routes": routes}).encode()


def _section(path: str, method: str, operation: Operation) -> str:
    rows = [(parameter.name, f"{parameter.place}: {parameter.text}") for parameter in operation.parameters]
    if operation.takes_message:
        rows.append(("body", _MESSAGE))
    rows.append((operation.status, operation.good if "/" in operation.good else f'{{"{operation.good}": …}}'))
    rows += [(code, _REFUSALS[code]) for code in operation.refusals]
    table = "".join(
        f"<tr><td><code>{html.escape(name)}</code></td><td>{html.escape(text)}</td></tr>" for name, text in rows
    )
    head = f"<h2><b>{method.upper()}</b><code>{html.escape(path)}</code></h2><p>{html.escape(operation.summary)}</p>"
    return f"{head}<table>{table}</table>\n"
