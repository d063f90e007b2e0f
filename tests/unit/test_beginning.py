"""Which requests begin in which pass of the event loop: few in each, addresses in turn, so that no signature waits long."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import cast

import pytest
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from enclave_signer.protocol.messages import PublicKey
from host_backend.api import beginning
from host_backend.api.access_log import came
from host_backend.api.beginning import OTHERS_PER_PASS, SIGNATURES_PER_PASS, Beginning, Line
from host_backend.api.dispatch import SigningApplication
from host_backend.api.listeners import HttpServer
from host_backend.app import _servers
from host_backend.config import load_config
from host_backend.errors import ClientLeft, KeyNotFound
from host_backend.leaving import leave
from host_backend.metrics import Metrics
from host_backend.octez.answers import Answers
from host_backend.octez.wire import AuthorizedKeysRequest, PublicKeyRequest, Request, SignRequest
from host_backend.signer import Signer
from host_backend.steps import Steps
from host_backend.watermark.memory import MemoryWatermarkStore
from tests.doubles.asgi import ask
from tests.doubles.host_process import write_config
from tests.doubles.known_keys import FOUR

ONE, OTHER, THIRD, FOURTH = "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"
CLIENTS = 64
#: Passes of a signature that is not refused.
PASSES = 10
BAKER, REFUSED = "/keys/baker", "/keys/refused"
SIGNATURE = b'"signature"'


class Passes:
    """A line, of which the passes are made by hand."""

    def __init__(self, per_pass: int) -> None:
        self._due: list[Callable[[], None]] = []
        self.line = Line(per_pass, self._due.append)
        self.begun: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def come(self, name: str, address: str) -> None:
        async def wait() -> None:
            await self.line.turn(address)
            self.begun.append(name)

        if self.line.begins():
            self.begun.append(name)
            return
        self.tasks.append(asyncio.create_task(wait()))
        await asyncio.sleep(0)

    async def next(self) -> list[str]:
        """Let a pass begin, and return what began in it."""
        (due,) = self._due
        self._due.clear()
        before = len(self.begun)
        due()
        for _ in self.tasks:
            await asyncio.sleep(0)
        return self.begun[before:]

    @property
    def at_rest(self) -> bool:
        return not self._due


def test_few_begin_in_a_pass_and_addresses_take_turns() -> None:
    async def scenario() -> None:
        passes = Passes(2)
        for name, address in (("a", ONE), ("b", ONE), ("c", ONE), ("d", ONE), ("e", OTHER), ("f", THIRD)):
            await passes.come(name, address)
        # One with half of its address in common is the same client.
        await passes.come("g", FOURTH)
        assert passes.begun == ["a", "b"]
        assert await passes.next() == ["c", "e"]
        await passes.come("h", OTHER)
        assert await passes.next() == ["f", "d"]
        assert await passes.next() == ["h", "g"]
        assert await passes.next() == []
        assert passes.at_rest

    asyncio.run(scenario())


def test_where_few_come_none_waits() -> None:
    async def scenario() -> None:
        passes = Passes(2)
        for number in range(3):
            await passes.come(f"{number} a", ONE)
            await passes.come(f"{number} b", ONE)
            assert await passes.next() == []
            assert passes.at_rest
        assert not passes.tasks

    asyncio.run(scenario())


def test_whose_client_left_takes_no_turn() -> None:
    async def scenario() -> None:
        passes = Passes(1)
        for name in ("a", "b", "c"):
            await passes.come(name, ONE)
        leave(passes.tasks[0])
        await asyncio.gather(passes.tasks[0], return_exceptions=True)
        assert await passes.next() == ["c"]

    asyncio.run(scenario())


def test_whose_client_left_before_it_was_looked_at_takes_no_turn() -> None:
    async def scenario() -> None:
        passes = Passes(1)
        await passes.come("a", ONE)
        gone = asyncio.create_task(passes.line.turn(ONE))
        leave(gone)
        with pytest.raises(ClientLeft):
            await gone
        await passes.come("b", ONE)
        assert await passes.next() == ["b"]

    asyncio.run(scenario())


class Application:
    """A host whose signatures take passes, or are refused at once; everything else is answered at once."""

    def __init__(self) -> None:
        self.app = SigningApplication([Route("/keys/{pkh}", _Keys(), methods=["POST"])])
        self.answered = 0
        self._clients: list[asyncio.Task[None]] = []

    async def _again(self, method: str, path: str) -> None:
        while True:
            await ask(self.app, method, path, address=ONE)
            self.answered += 1
            # The next request comes in the next pass at the earliest.
            await asyncio.sleep(0)

    @contextmanager
    def flooded(self, method: str, path: str) -> Iterator[None]:
        for _ in range(CLIENTS):
            self._clients.append(asyncio.create_task(self._again(method, path)))
        try:
            yield
        finally:
            for client in self._clients:
                client.cancel()

    async def answered_during_a_signature(self) -> int:
        """Return how many of the flood were answered while one signature was made."""
        for _ in range(3):
            await asyncio.sleep(0)
        before = self.answered
        assert (await ask(self.app, "POST", BAKER, address=ONE)).body == SIGNATURE
        return self.answered - before


class _Keys:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        if scope["path"] == BAKER:
            for _ in range(PASSES):
                await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": SIGNATURE})


def answered_during_a_signature(method: str, path: str) -> int:
    async def scenario() -> int:
        application = Application()
        with application.flooded(method, path):
            return await application.answered_during_a_signature()

    return asyncio.run(scenario())


def test_a_signature_waits_for_few_watchers(monkeypatch: pytest.MonkeyPatch) -> None:
    # They go on when it has ended.
    monkeypatch.setattr(beginning, "PAUSE_S", 3600.0)
    # What has begun already, and what begins before its first pass.
    assert answered_during_a_signature("GET", "/mode") <= 3 * OTHERS_PER_PASS < CLIENTS


def test_a_signature_waits_for_few_that_are_refused() -> None:
    # It waits behind those that came before, and then in its own passes for what begins there.
    most = CLIENTS + SIGNATURES_PER_PASS * (PASSES + 3)
    assert answered_during_a_signature("POST", REFUSED) <= most < CLIENTS * PASSES / 2


def test_others_go_on_while_signatures_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beginning, "PAUSE_S", 0.0)
    assert answered_during_a_signature("GET", "/mode") >= PASSES


def test_a_client_that_leaves_before_its_turn_has_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    began = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        began.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def scenario() -> None:
        other = partial(Beginning().other, app)
        paths = [f"/{number}" for number in range(OTHERS_PER_PASS + 1)]
        *_, last = (asyncio.create_task(ask(other, "GET", path, address=ONE)) for path in paths)
        await asyncio.sleep(0)
        leave(last)
        # The double expects an answer.
        with pytest.raises(ValueError, match="unpack"):
            await last
        assert began == paths[:-1]

    asyncio.run(scenario())
    assert caplog.messages == [f"GET /{OTHERS_PER_PASS}"]


def test_the_time_of_a_request_begins_before_its_turn() -> None:
    times: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        times.append(came(scope))
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def scenario() -> None:
        other = partial(Beginning().other, app)
        requests = [asyncio.create_task(ask(other, "GET", "/")) for _ in range(OTHERS_PER_PASS + 1)]
        await asyncio.sleep(0)
        assert len(times) == OTHERS_PER_PASS
        now = time.perf_counter()
        await asyncio.gather(*requests)
        assert times[-1] < now

    asyncio.run(scenario())


def test_both_ports_share_the_turns(tmp_path: Path) -> None:
    begun: list[str] = []

    async def utility(scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        begun.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def scenario() -> None:
        signing = SigningApplication([Route("/keys/{pkh}", _Keys(), methods=["POST"])])
        async with AsyncExitStack() as stack:
            servers = _servers(stack, load_config(write_config(tmp_path, 1)), signing, utility, 1)
            app = cast("HttpServer", servers["Utility HTTP server"]).config.app
            others = [asyncio.create_task(ask(signing, "GET", "/mode")) for _ in range(OTHERS_PER_PASS)]
            last = asyncio.create_task(ask(cast("ASGIApp", app), "GET", "/livez"))
            await asyncio.sleep(0)
            assert begun == []
            await asyncio.gather(*others, last)
            assert begun == ["/livez"]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("method", "path", "ahead", "request_"),
    [
        ("GET", "/mode", OTHERS_PER_PASS, AuthorizedKeysRequest()),
        ("POST", REFUSED, SIGNATURES_PER_PASS, SignRequest(FOUR[0].pkh, b"\x03")),
    ],
)
def test_octez_sockets_share_the_turns(method: str, path: str, ahead: int, request_: Request) -> None:
    async def scenario() -> None:
        signing = SigningApplication([Route("/keys/{pkh}", _Keys(), methods=["POST"])])
        signer = Signer({}, [], MemoryWatermarkStore())
        answers = Answers(signer, Metrics(dict, "memory"), None, Steps(), signing.beginning, list_keys=True)
        # Answered by their first step, once they begin.
        others = [asyncio.create_task(ask(signing, method, path)) for _ in range(ahead)]
        last = asyncio.create_task(answers.answer(request_, ONE))
        await asyncio.sleep(0)
        assert all(each.done() for each in others)
        assert not last.done()
        await last

    asyncio.run(scenario())


def test_a_client_of_octez_sockets_that_leaves_before_its_turn_asks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[str] = []

    class CountingSigner(Signer):
        async def public_key(self, pkh: str) -> PublicKey:
            asked.append(pkh)
            raise KeyNotFound(pkh)

    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        signer = CountingSigner({}, [], MemoryWatermarkStore())
        answers = Answers(signer, Metrics(dict, "memory"), None, Steps(), Beginning(), list_keys=True)
        hashes = [str(number) for number in range(OTHERS_PER_PASS + 1)]
        *_, last = requests = [asyncio.create_task(answers.answer(PublicKeyRequest(each), ONE)) for each in hashes]
        await asyncio.sleep(0)
        leave(last)
        await asyncio.gather(*requests)
        assert asked == hashes[:-1]

    asyncio.run(scenario())
    assert len(caplog.messages) == OTHERS_PER_PASS + 1
