"""`/openapi.json` describes what the host answers: each answer of the table is played, and is described, and no other is."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.types import ASGIApp

from enclave_signer.tezos import parse_public_key
from host_backend.addresses import Address
from host_backend.api import login
from host_backend.api.auth import RequestKeys
from host_backend.api.bodies import MAX_BODY_BYTES
from host_backend.api.http_framing import MAX_HEAD_BYTES
from host_backend.api.left_requests import LEFT_REQUESTS_OF_ADDRESS
from host_backend.api.listeners import HttpServer, bind
from host_backend.api.login import Login
from host_backend.api.route_table import Access
from host_backend.api.signing import signing_app
from host_backend.api.tokens import Tokens
from host_backend.authentication import authentication_bytes
from host_backend.config import JwtCredentials, JwtUser
from host_backend.errors import (
    EnclaveRefused,
    EnclaveUnavailable,
    Garbled,
    HookUnavailable,
    SealerUnavailable,
    StoreUnavailable,
    TooManyWait,
)
from host_backend.metrics import Metrics
from host_backend.policy import KeyPolicy
from host_backend.signer import Signer
from host_backend.watermark.memory import MemoryWatermarkStore
from tests.doubles.failing_vault import FailingVault
from tests.doubles.host_process import Answer
from tests.doubles.known_keys import FOUR, KEYS, attestation
from tests.doubles.octez_client import signature_by
from tests.doubles.processes import PATIENCE_S

JSON, TEXT, HTML = "application/json", "text/plain", "text/html"
TZ1, TZ2, _, TZ4 = (key.pkh for key in FOUR)
#: Listed, and in no vault.
MISSING = KEYS["alice"].pkh
AUTH = KEYS["auth"]
USER, PASSWORD = "alice", "a Password 1 of some length"
ACCESSES = [Access(tokens=tokens, signed=signed) for tokens in (False, True) for signed in (False, True)]


@dataclass(frozen=True)
class Play:
    """A request, and its answer: status and media type.

    Attributes:
        method: Of the request.
        route: As it is described.
        status: Of the answer.
        media: Of the answer; None: it has no body.
        pkh: For the route.
        message: To be signed; the body, as a client sends it.
        body: Another body.
        headers: Of the request.
        error: What the enclave does.
        token: Whether a token comes with it, where there are any.
        signed: Whether the request is signed, where requests are.
        host: Whether the request names its host.
        crowded: Whether the server takes no more requests.
        log_fails: Whether there is a bug wherever something is logged.
    """

    method: str
    route: str
    status: int
    media: str | None
    pkh: str = TZ1
    message: bytes = b""
    body: bytes = b""
    headers: tuple[str, ...] = ()
    error: Exception | None = None
    token: bool = True
    signed: bool = True
    host: bool = True
    crowded: bool = False
    log_fails: bool = False


KEY, PROOF = "/keys/{pkh}", "/bls_prove_possession/{pkh}"
LISTS = ("/authorized_keys", "/known_keys", "/mode", "/openapi.json")
#: The message of the marks; another one at its level.
MESSAGE, OTHER = attestation(5), attestation(5, payload=b"\x23" * 32)


def plays(access: Access) -> Iterator[Play]:
    """Yield what there is to play, in this order: a mark comes before what it refuses."""
    yield from plays_of_keys()
    yield from plays_of_signing()
    yield from plays_of_proofs()
    for route in LISTS:
        yield Play("GET", route, 200, JSON)
    yield Play("GET", "/docs", 200, HTML)
    if access.signed:
        yield Play("POST", KEY, 401, JSON, message=MESSAGE, signed=False)
        yield Play("GET", PROOF, 401, JSON, TZ4, signed=False)
        yield Play("GET", PROOF, 503, JSON, TZ4, error=TooManyWait("as others wait"))
    if access == Access():
        yield Play("POST", KEY, 403, JSON, message=MESSAGE, headers=("Origin: https://example.com",))
        yield Play("GET", PROOF, 403, JSON, TZ4, headers=("Origin: https://example.com",))
    routes = [("GET", route) for route in (KEY, PROOF, *LISTS, "/docs")] + [("POST", KEY)]
    if access.tokens:
        for method, route in routes:
            yield Play(method, route, 401, TEXT, token=False)
        yield from plays_of_login()
        routes.append(("POST", "/login"))
    for method, route in routes:
        yield Play(method, route, 400, TEXT, host=False)
        yield Play(method, route, 431, None, headers=(f"x: {'x' * MAX_HEAD_BYTES}",))
        yield Play(method, route, 503, TEXT, crowded=True)
        yield Play(method, route, 500, JSON, "no-hash", log_fails=True)


def plays_of_keys() -> Iterator[Play]:
    yield Play("GET", KEY, 200, JSON)
    yield Play("GET", KEY, 400, JSON, "no-hash")
    yield Play("GET", KEY, 404, JSON, MISSING)
    yield Play("GET", KEY, 500, JSON, error=KeyError("bug"))
    yield Play("GET", KEY, 502, JSON, error=EnclaveRefused("no"))
    yield Play("GET", KEY, 503, JSON, error=EnclaveUnavailable("away"))


def plays_of_signing() -> Iterator[Play]:
    yield Play("POST", KEY, 200, JSON, message=MESSAGE)
    yield Play("POST", KEY, 400, JSON, body=b"03")
    yield Play("POST", KEY, 403, JSON, TZ2, MESSAGE)
    yield Play("POST", KEY, 404, JSON, MISSING, MESSAGE)
    yield Play("POST", KEY, 409, JSON, message=OTHER)
    yield Play("POST", KEY, 413, JSON, body=bytes(MAX_BODY_BYTES + 1))
    for status, error in (
        (500, KeyError("bug")),
        (502, EnclaveRefused("no")),
        (502, Garbled("what")),
        (503, EnclaveUnavailable("away")),
        (503, SealerUnavailable("away")),
        (503, HookUnavailable("away")),
        (503, StoreUnavailable("away")),
        (503, TooManyWait("as others wait")),
    ):
        yield Play("POST", KEY, status, JSON, message=MESSAGE, error=error)


def plays_of_proofs() -> Iterator[Play]:
    yield Play("GET", PROOF, 200, JSON, TZ4)
    yield Play("GET", PROOF, 400, JSON, TZ1)
    yield Play("GET", PROOF, 403, JSON, TZ2)
    yield Play("GET", PROOF, 404, JSON, MISSING)
    for status, error in (
        (500, KeyError("bug")),
        (502, EnclaveRefused("no")),
        (502, Garbled("what")),
        (503, EnclaveUnavailable("away")),
        (503, HookUnavailable("away")),
    ):
        yield Play("GET", PROOF, status, JSON, TZ4, error=error)


def plays_of_login() -> Iterator[Play]:
    right, wrong = (
        (f"username: {USER}", f"password: {password}") for password in (PASSWORD, "another Password 1 of some length")
    )
    yield Play("POST", "/login", 201, TEXT, headers=right, token=False)
    yield Play("POST", "/login", 401, TEXT, token=False)
    yield Play("POST", "/login", 429, TEXT, headers=wrong, token=False)


#: Of paths and methods that are in no row.
ELSEWHERE = (
    Play("GET", "/nothing", 404, TEXT, token=False),
    Play("PUT", KEY, 405, None, token=False),
    Play("HEAD", "/mode", 405, None, token=False),
)


@dataclass
class Stage:
    """The application, on two servers, and what it depends on."""

    access: Access
    vault: FailingVault = field(default_factory=lambda: FailingVault(TZ1, TZ4))
    tokens: Tokens = field(
        default_factory=lambda: Tokens({USER: JwtUser(JwtCredentials(PASSWORD, "a Secret 1 of more than 32 chars"))})
    )
    port: int = 0
    crowded_port: int = 0

    def app(self) -> ASGIApp:
        policy = KeyPolicy(frozenset({"attestation"}), allow_proof_of_possession=True)
        signer = Signer(dict.fromkeys((TZ1, TZ4, MISSING), policy), [self.vault], MemoryWatermarkStore())
        metrics = Metrics(dict, "memory")
        keys = RequestKeys([parse_public_key(AUTH.public_key)]) if self.access.signed else None
        return signing_app(
            signer, metrics, request_keys=keys, login=Login(self.tokens, metrics) if self.access.tokens else None
        )

    @asynccontextmanager
    async def set_up(self) -> AsyncIterator[None]:
        app = self.app()
        listeners = [bind(Address("127.0.0.1", 0)) for _ in range(2)]
        self.port, self.crowded_port = (listener.getsockname()[1] for listener in listeners)
        servers = [HttpServer(app, listener, max_connections=64) for listener in listeners]
        for _ in range(LEFT_REQUESTS_OF_ADDRESS):
            servers[1].left_requests._count("127.0.0.1", asyncio.Future())
        running = [asyncio.create_task(server.serve()) for server in servers]
        try:
            yield
        finally:
            for server in servers:
                server.should_exit = True
            await asyncio.gather(*running)

    async def play(self, played: Play) -> Answer:
        """Make a request, and return its answer."""
        self.vault.error = played.error
        reader, writer = await asyncio.open_connection("127.0.0.1", self.crowded_port if played.crowded else self.port)
        try:
            body = json.dumps(played.message.hex()).encode() if played.message else played.body
            with failing_log() if played.log_fails else nullcontext():
                writer.write(self._head(played, len(body)) + body)
                return await answer_of(reader, played.method)
        finally:
            writer.close()

    def _head(self, played: Play, length: int) -> bytes:
        path = played.route.format(pkh=played.pkh) + self._query(played)
        lines = [f"{played.method} {path} HTTP/1.1", *played.headers, f"Content-Length: {length}"]
        if played.host:
            lines.append("Host: h")
        if self.access.tokens and played.token:
            lines += [f"Authorization: Bearer {self.tokens.login(USER, PASSWORD)}", f"username: {USER}"]
        return "\r\n".join([*lines, "\r\n"]).encode()

    def _query(self, played: Play) -> str:
        if not (self.access.signed and played.signed and played.pkh.startswith("tz")):
            return ""
        # A proof signs the same bytes as an empty message.
        return f"?authentication={signature_by(AUTH, authentication_bytes(played.pkh, played.message))}"


class Unwritable(logging.Handler):
    """A bug."""

    def emit(self, record: logging.LogRecord) -> None:
        raise KeyError(record.name)


@contextmanager
def failing_log() -> Iterator[None]:
    """Have every access line raise what no one expects."""
    logger, handler = logging.getLogger("host_backend.api.access_log"), Unwritable()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


async def answer_of(reader: asyncio.StreamReader, method: str) -> Answer:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    length = 0 if method == "HEAD" else int(headers["content-length"])
    return Answer(int(first.split()[1]), headers, await reader.readexactly(length))


def media_of(answer: Answer) -> str | None:
    media = answer.headers.get("content-type")
    assert (media is None) is (answer.body == b"")
    return media and media.partition(";")[0]


Told = set[tuple[str, str, int, str | None]]


def told(described: dict[str, Any]) -> Told:
    """Return method, path, status and media type of every answer in a description."""
    return {
        (method.upper(), path, int(status), media)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
        for status, response in operation["responses"].items()
        for media in response.get("content", [None])
    }


@pytest.mark.parametrize("access", ACCESSES, ids=repr)
def test_what_is_described_is_what_is_answered(access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    # So that the first wrong password is one too many, and no answer is held back.
    monkeypatch.setattr(login, "HELD_PER_ADDRESS", 0)
    stage, answered = Stage(access), set[tuple[str, str, int, str | None]]()

    async def play_all() -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_S), stage.set_up():
            described = json.loads((await stage.play(Play("GET", "/openapi.json", 200, JSON))).body)
            assert isinstance(described, dict)
            for played in (*plays(access), *ELSEWHERE):
                answer = await stage.play(played)
                assert (answer.status, media_of(answer)) == (played.status, played.media), played
                if played.media == JSON and played.status >= 400:
                    # It has the form of a refusal; of a bug nothing is shown.
                    assert (answer.message == "internal error") is (played.status == 500)
                answered.add((played.method, played.route, answer.status, media_of(answer)))
            return described

    described = asyncio.run(play_all())
    elsewhere = {
        (each["x-status"], *each.get("content", [None])) for each in described["components"]["responses"].values()
    }
    assert elsewhere == {(played.status, played.media) for played in ELSEWHERE}
    assert told(described) == answered - {(each.method, each.route, each.status, each.media) for each in ELSEWHERE}
