"""What the routes of an address take and give, for programs (`/openapi.json`, OpenAPI 3.1) and for people (`/docs`).

Both are made of rows of `route_table`. The page needs nothing from elsewhere.
"""

import html
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping

from enclave_signer import __version__
from host_backend.api.route_table import ELSEWHERE, JSON, OPEN, Access, Answer, Described, Operation, Parameter

#: The pages run and fetch nothing; without an icon of its own a browser would ask for one.
PAGE_HEADERS = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:"}
_MESSAGE = "A JSON string: the hex of the whole message, magic byte first"
_FAILURE = {
    "type": "array",
    "minItems": 1,
    "maxItems": 1,
    "items": {
        "type": "object",
        "properties": {
            "id": {"const": "failure"},
            "kind": {"const": "temporary", "description": "always this; the status says whether to ask again"},
            "msg": {"type": "string"},
        },
    },
}
_TOKENS = {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}


def document(routes: Iterable[Described], access: Access = OPEN) -> bytes:
    """Return the description for programs."""
    paths: dict[str, dict[str, object]] = defaultdict(dict)
    for path, method, operation in routes:
        paths[path][method] = _operation(operation, access)
    components: dict[str, object] = {
        "schemas": {"Failure": _FAILURE},
        "responses": {
            name: {"x-status": answer.status, **_response([answer], {})} for name, answer in ELSEWHERE.items()
        },
    }
    if access.tokens:
        components["securitySchemes"] = _TOKENS
    info = {"title": "enclave-host", "version": __version__, "description": "A Tezos remote signer."}
    return json.dumps({"openapi": "3.1.0", "info": info, "paths": paths, "components": components}).encode() + b"\n"


def _operation(operation: Operation, access: Access) -> Mapping[str, object]:
    answers = _by_status(operation.answers(access))
    good = {operation.status: _good(operation)}
    described: dict[str, object] = {
        "summary": operation.summary,
        "parameters": [_parameter(parameter) for parameter in operation.takes(access)],
        "responses": {str(status): _response(answers[status], good.get(status, {})) for status in answers},
    }
    if operation.takes_message:
        schema = {"type": "string", "examples": ["03…"]}
        described["requestBody"] = {
            "required": True,
            "description": _MESSAGE,
            "content": {JSON: {"schema": schema}},
        }
    if access.tokens and not operation.gives_token:
        described["security"] = [{name: [] for name in _TOKENS}]
    return described


def _by_status(answers: Iterable[Answer]) -> Mapping[int, list[Answer]]:
    found: dict[int, list[Answer]] = defaultdict(list)
    for answer in answers:
        found[answer.status].append(answer)
    return dict(sorted(found.items()))


def _parameter(parameter: Parameter) -> Mapping[str, object]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required,
        "description": parameter.text,
        "schema": {"type": "string"},
    }


def _response(answers: Iterable[Answer], good: Mapping[str, object]) -> Mapping[str, object]:
    """Return answers of one status; `good` is the content of a good one."""
    content = dict(good)
    for answer in answers:
        if answer.media is not None and answer.media not in content:
            failure = answer.media == JSON and answer.failure
            content[answer.media] = {"schema": {"$ref": "#/components/schemas/Failure"}} if failure else {}
    described: dict[str, object] = {"description": _texts(answers)}
    return described | ({"content": content} if content else {})


def _good(operation: Operation) -> Mapping[str, object]:
    if not operation.good:
        return {operation.media: {}}
    value: dict[str, object] = {"type": "string"}
    if operation.good.endswith("keys"):
        value = {"type": "array", "items": {"type": "string"}}
    return {operation.media: {"schema": {"type": "object", "properties": {operation.good: value}}}}


def _texts(answers: Iterable[Answer]) -> str:
    return "; ".join(dict.fromkeys(answer.text for answer in answers))


_EXAMPLE = """<p>For example, with a key and a message of your own:</p>
<pre><code>curl -d '"03…"' 127.0.0.1:6732/keys/tz1…</code></pre>
<p><code>/healthz</code>, <code>/livez</code> and <code>/metrics</code> are at the utility address.</p>
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>enclave-host %(version)s</title>
<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,"><style>
body { color-scheme: light dark; overflow-wrap: anywhere;
  font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #222;
  background: #fff; }
code { font-family: ui-monospace, monospace; } pre { white-space: pre-wrap; }
h2 { margin: 2rem 0 .3rem; font-size: 1.1rem; }
h2 b { display: inline-block; min-width: 3.2rem; color: #fff; background: #2b6cb0; border-radius: 4px; padding: 0 .5rem;
  text-align: center; font-size: .85rem; margin-right: .5rem; } h2 b.get { background: #2f7d4f; }
table { border-collapse: collapse; width: 100%%; } td { border-top: 1px solid #ddd; padding: .2rem .6rem .2rem 0;
  vertical-align: top; } td:first-child { white-space: nowrap; width: 9rem; }
a { color: inherit; }
@media (max-width: 30rem) { td:first-child { width: 5.5rem; white-space: normal; } }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd; } td { border-color: #444; } }
</style></head><body><h1>enclave-host %(version)s</h1>
<p>A Tezos remote signer. For programs:
<a href="openapi.json"><code>openapi.json</code></a>.</p>
%(example)s%(routes)s</body></html>
"""


def page(routes: Iterable[Described], access: Access = OPEN) -> bytes:
    """Return the description for people, as one page of HTML."""
    routes = list(routes)
    shown = "".join(_section(path, method, operation, access) for path, method, operation in routes)
    shown += "<h2>Anything else</h2>" + _table(_rows(ELSEWHERE.values()))
    example = _EXAMPLE if any(operation.takes_message for _, _, operation in routes) else ""
    return (_PAGE % {"version": html.escape(__version__), "example": example, "routes": shown}).encode()


def _section(path: str, method: str, operation: Operation, access: Access) -> str:
    rows = [(parameter.name, f"{parameter.place}: {parameter.text}") for parameter in operation.takes(access)]
    if access.tokens and not operation.gives_token:
        rows.append(("authorization", "header: Bearer, and a token of POST /login"))
    if operation.takes_message:
        rows.append(("body", _MESSAGE))
    rows += _rows(operation.answers(access))
    title = f"<b class='{method}'>{method.upper()}</b><code>{html.escape(path)}</code>"
    head = f"<h2>{title}</h2><p>{html.escape(operation.summary)}</p>"
    return f"{head}{_table(rows)}\n"


def _rows(answers: Iterable[Answer]) -> list[tuple[str, str]]:
    return [
        (str(status), f"{' or '.join(dict.fromkeys(each.media or 'no body' for each in same))}: {_texts(same)}")
        for status, same in _by_status(answers).items()
    ]


def _table(rows: Iterable[tuple[str, str]]) -> str:
    cells = "".join(
        f"<tr><td><code>{html.escape(name)}</code></td><td>{html.escape(text)}</td></tr>" for name, text in rows
    )
    return f"<table>{cells}</table>"
