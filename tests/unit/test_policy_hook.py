"""The policy hook against a real HTTP server: what it is asked, what its answers mean, what counts as no answer."""

import asyncio
import base64
import json
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress

import pytest

from enclave_signer.protocol.messages import PublicKey
from enclave_signer.tezos import parse_public_key
from host_backend import policy_hook
from host_backend.config import HookConfig
from host_backend.errors import HookUnavailable, PolicyDenied
from host_backend.policy import Caller
from host_backend.policy_hook import MAX_ANSWER_BYTES, PolicyHook
from tests.doubles.asyncio_server import AsyncioServer
from tests.doubles.known_keys import FOUR, KEYS, KnownKey, transaction
from tests.doubles.octez_client import signature_by
from tests.doubles.policy_service import PolicyService, Question, Reply, running_policy_service

PKH = FOUR[0].pkh
CALLER = Caller(client=FOUR[1].pkh, source="10.0.0.1")
SIGNER = KEYS["hook_service_example"]


@pytest.fixture(scope="module")
def running() -> Iterator[PolicyService]:
    with running_policy_service() as service:
        yield service


@pytest.fixture
def service(running: PolicyService) -> PolicyService:
    running.questions.clear()
    running.heads.clear()
    running.reply = lambda _: Reply(200)
    return running


def public(*keys: KnownKey) -> tuple[PublicKey, ...]:
    return tuple(parse_public_key(key.public_key) for key in keys)


def ask(
    address: str, keys: tuple[PublicKey, ...] | None = None, message: bytes | None = b"\x05", **times: float
) -> None:
    hook = PolicyHook(HookConfig(address, keys, **times))
    asyncio.run(hook.check(PKH, message, CALLER))


def test_the_question(service: PolicyService) -> None:
    ask(service.address, message=transaction(1))
    (question,) = service.questions
    assert list(question) == ["request", "source", "client_key_hash", "public_key_hash", "nonce"]
    assert base64.b64decode(question["request"]) == transaction(1)
    assert (question["source"], question["client_key_hash"], question["public_key_hash"]) == (
        "10.0.0.1",
        CALLER.client,
        PKH,
    )
    assert len(base64.b64decode(question["nonce"])) == 32
    (head,) = service.heads
    assert (head["path"], head["content-type"]) == ("/hook?a=b", "application/json")
    assert head["host"] == f"127.0.0.1:{service.port}"

    asyncio.run(PolicyHook(HookConfig(service.address)).check(PKH, None, Caller()))
    assert service.questions[1]["request"] is None
    assert service.questions[1]["source"] == ""
    assert "client_key_hash" not in service.questions[1]
    assert service.questions[0]["nonce"] != service.questions[1]["nonce"]


def test_addresses_ask_in_turn(service: PolicyService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_hook, "HOOK_CONNECTIONS", 1)
    sources = [*["10.0.0.1"] * 4, "10.0.0.2"]

    async def scenario() -> None:
        hook = PolicyHook(HookConfig(service.address))
        await asyncio.gather(*(hook.check(PKH, None, Caller(source=source)) for source in sources))

    asyncio.run(scenario())
    assert [question["source"][-1] for question in service.questions] == ["1", "1", "2", "1", "1"]


def test_a_question_that_is_not_asked_in_time_says_so(service: PolicyService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_hook, "HOOK_CONNECTIONS", 1)

    async def scenario() -> None:
        hook = PolicyHook(HookConfig(service.address, None, 0.01))
        text = "policy hook: not asked within 0.01 s: it had 1 other questions all the time"
        async with hook._questions.turn("10.0.0.1"):
            with pytest.raises(HookUnavailable, match=f"^{text}$"):
                await hook.check(PKH, None, CALLER)

    asyncio.run(scenario())
    assert service.questions == []


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_yes(service: PolicyService, status: int) -> None:
    service.reply = lambda _: Reply(status)
    ask(service.address)


@pytest.mark.parametrize(("status", "line"), [(400, "400 Bad Request"), (403, "403 Forbidden"), (499, "499")])
def test_no(service: PolicyService, status: int, line: str) -> None:
    service.reply = lambda _: Reply(status, b"its words")
    with pytest.raises(PolicyDenied, match=rf"^policy hook: {line}$") as denied:
        ask(service.address)
    assert denied.value.violation == "policy_hook"


@pytest.mark.parametrize("status", [301, 302, 307, 500, 503])
def test_neither(service: PolicyService, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    service.reply = lambda _: Reply(status, headers=(("location", service.address.replace("hook", "other")),))
    with pytest.raises(HookUnavailable, match=rf"^policy hook: {status} "):
        ask(service.address)
    assert len(service.questions) == 1


def answered(
    service: PolicyService, sign: KnownKey = SIGNER, *, status: int = 200, changes: Mapping[str, object] | None = None
) -> None:
    """Have the service answer as one that signs, but for some changes of the payload."""

    def reply(question: Question) -> Reply:
        values = {
            "status": status,
            "error": "",
            "public_key_hash": sign.pkh,
            "nonce": question["nonce"],
            **(changes or {}),
        }
        payload = json.dumps(values).encode()
        return signed(payload, signature_by(sign, payload), status)

    service.reply = reply


def signed(payload: bytes, signature: str, status: int = 200) -> Reply:
    return Reply(status, b'{ "payload" : %s , "signature":"%s" }\n' % (payload, signature.encode()))


@pytest.mark.parametrize("key", [SIGNER, *FOUR], ids=lambda key: str(key.name))
def test_signed_answers(service: PolicyService, key: KnownKey) -> None:
    answered(service, key)
    ask(service.address, public(SIGNER, *FOUR))
    answered(service, key, status=403, changes={"error": "not on a Sunday\n"})
    with pytest.raises(PolicyDenied, match=r"^policy hook: not on a Sunday\?$"):
        ask(service.address, public(SIGNER, *FOUR))
    answered(service, key, status=403)
    with pytest.raises(PolicyDenied, match=r"^policy hook: 403 Forbidden$"):
        ask(service.address, public(SIGNER, *FOUR))
    answered(service, key, status=500, changes={"error": "broken"})
    with pytest.raises(HookUnavailable, match=r"^policy hook: broken$"):
        ask(service.address, public(SIGNER, *FOUR))


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"status": 201}, HookUnavailable, "the policy hook reply status must match the HTTP header"),
        ({"status": "200"}, HookUnavailable, "the policy hook reply status must match the HTTP header"),
        ({"nonce": base64.b64encode(bytes(32)).decode()}, PolicyDenied, "nonce mismatch"),
        ({"nonce": "é"}, PolicyDenied, "nonce mismatch"),
        ({"nonce": None}, HookUnavailable, "policy hook: its reply must have texts"),
        ({"public_key_hash": "x"}, PolicyDenied, "policy hook: "),
        ({"public_key_hash": FOUR[0].pkh}, PolicyDenied, "public key not found"),
        ({"public_key_hash": FOUR[3].pkh}, HookUnavailable, "policy hook: wrong kind"),
        ({"public_key_hash": KEYS["alice"].pkh}, PolicyDenied, "invalid hook reply signature"),
        ({"error": 1}, HookUnavailable, "policy hook: its reply must have texts"),
    ],
)
def test_payloads_that_are_not_believed(
    service: PolicyService, changes: dict[str, object], error: type[Exception], text: str
) -> None:
    answered(service, changes=changes)
    with pytest.raises(error, match=f"^{text}"):
        ask(service.address, public(SIGNER, KEYS["alice"], FOUR[3]))


def test_no_keys_believe_nobody(service: PolicyService) -> None:
    answered(service)
    with pytest.raises(PolicyDenied, match=r"^public key not found$"):
        ask(service.address, ())


def test_a_signature_of_other_bytes(service: PolicyService) -> None:
    def reply(question: Question) -> Reply:
        values = {"status": 200, "public_key_hash": SIGNER.pkh, "nonce": question["nonce"]}
        # The same value, written otherwise.
        return signed(json.dumps(values, indent=1).encode(), signature_by(SIGNER, json.dumps(values).encode()))

    service.reply = reply
    with pytest.raises(PolicyDenied, match=r"^invalid hook reply signature$"):
        ask(service.address, public(SIGNER))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"yes",
        b"{}",
        b"[]",
        b'{"payload":{}}',
        b'{"payload":1,"signature":"x"}',
        b'{"payload":{"status":200},"signature":"x"}',
        b'{"payload":{},"payload":{},"signature":"x"}',
        b'{"payload":{},"signature":"x"} x',
        b'{"payload":{},"signature":"x"',
        b'{"payload":{},1:2}',
        b"\xff",
        b'{"payload":' + b"[" * 5000,
    ],
)
def test_bodies_that_are_no_signed_answer(service: PolicyService, body: bytes) -> None:
    service.reply = lambda _: Reply(200, body)
    with pytest.raises(HookUnavailable, match=r"^policy hook: its reply must be a JSON object"):
        ask(service.address, public(SIGNER))


def test_an_answer_without_end_in_size(service: PolicyService) -> None:
    service.reply = lambda _: Reply(200, bytes(MAX_ANSWER_BYTES))
    ask(service.address)
    service.reply = lambda _: Reply(200, bytes(MAX_ANSWER_BYTES + 1))
    with pytest.raises(HookUnavailable, match=r"^policy hook: its answer is over 65536 bytes$"):
        ask(service.address)


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def ask_raw(serve: Serve, timeout_s: float) -> None:
    """Ask a server that speaks as it likes."""

    served = asyncio.Event()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            served.set()

    async def run() -> None:
        server = AsyncioServer(serve_one)
        await server.listen()
        try:
            await PolicyHook(HookConfig(f"http://127.0.0.1:{server.port}", None, timeout_s)).check(PKH, b"\3", CALLER)
        finally:
            await served.wait()
            server.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "the connection ended before the answer|its answer is not HTTP"),
        (b"SSH-2.0\r\n\r\n", "its answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n1", "its answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 5000, "its answer is not HTTP"),
    ],
)
def test_what_is_no_answer(data: bytes, text: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(data)

    with pytest.raises(HookUnavailable, match=f"^policy hook: ({text})"):
        ask_raw(serve, 60)


def test_a_hook_that_never_ends_its_answer() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n1")
        await reader.read()

    with pytest.raises(HookUnavailable, match=r"^policy hook: no answer within 0\.05 s$"):
        ask_raw(serve, 0.05)


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(HookUnavailable, match=r"^policy hook: Connection refused$"):
        ask(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "ä" * 70, "\udcff"])
def test_a_name_that_cannot_be_looked_up(host: str) -> None:
    with pytest.raises(HookUnavailable, match=r"^policy hook: its address cannot be used: "):
        ask(f"http://{host}:1/x")


@pytest.mark.parametrize("more", ["ä", " x"])
def test_a_path_that_no_request_can_have(service: PolicyService, more: str) -> None:
    with pytest.raises(HookUnavailable, match=r"^policy hook: its address cannot be used: "):
        ask(service.address + more)
    assert service.questions == []


def test_so_many_questions_at_a_time_the_others_wait_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_hook, "HOOK_CONNECTIONS", 2)
    asked: list[bytes] = []
    waiting: list[asyncio.Event] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split()[0])
        asked.append(base64.b64decode(json.loads(await reader.readexactly(length))["request"]))
        waiting.append(asyncio.Event())
        await waiting[-1].wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def run() -> None:
        server = AsyncioServer(serve)
        await server.listen()
        hook = PolicyHook(HookConfig(f"http://127.0.0.1:{server.port}", None, 60))
        questions = [asyncio.create_task(hook.check(PKH, bytes([number]), CALLER)) for number in range(6)]
        for answered in range(6):
            while len(asked) < min(answered + 2, 6):
                await asyncio.wait([*questions], timeout=0.01)
            assert len(asked) == min(answered + 2, 6)
            waiting[answered].set()
            await asyncio.wait(questions, return_when=asyncio.FIRST_COMPLETED)
            questions = [question for question in questions if not question.done()]
        assert sorted(asked) == [bytes([number]) for number in range(6)]
        # The time of a waiting request runs.
        hook = PolicyHook(HookConfig(f"http://127.0.0.1:{server.port}", None, 0.05))
        late = await asyncio.gather(*(hook.check(PKH, b"", CALLER) for _ in range(4)), return_exceptions=True)
        assert [type(each) for each in late] == [HookUnavailable] * 4
        for event in waiting:
            event.set()
        server.close()

    asyncio.run(run())
