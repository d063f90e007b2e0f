"""Answers that are written by one call."""

import asyncio
import gc
import weakref
from types import SimpleNamespace
from typing import cast

import pytest
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from host_backend.api.http_protocol import MAX_WAITING
from host_backend.api.whole_answers import WholeAnswer, send_whole, takes_whole
from tests.doubles.http_server import REQUEST, Connect, Patient, rest, serve

HEAD = b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n"


class Cycle(SimpleNamespace):
    """A request of uvicorn's, to which a weak reference may lead."""


async def whole(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer every request by one write."""
    del receive
    await send_whole(scope, send, 200, b"text/plain", b"ok")


def answered(*, keep_alive: bool = True, disconnected: bool = False) -> list[bytes | str]:
    """The functions called to answer a request, in order."""
    calls: list[bytes | str] = []
    cycle = Cycle(
        scope={},
        flow=SimpleNamespace(write_paused=False),
        disconnected=disconnected,
        default_headers=[(b"date", b"today")],
        keep_alive=keep_alive,
        transport=SimpleNamespace(write=calls.append, close=lambda: calls.append("close")),
        message_event=asyncio.Event(),
        on_response=lambda: calls.append("next"),
    )
    asyncio.run(WholeAnswer(cast("RequestResponseCycle", cycle)).send(200, b"text/plain", b"ok"))
    return calls


@pytest.mark.parametrize(
    ("keep_alive", "calls"),
    [
        (True, [HEAD + b"\r\nok", "next"]),
        (False, [HEAD + b"connection: close\r\n\r\nok", "close", "next"]),
    ],
)
def test_an_answer_is_one_write(keep_alive: bool, calls: list[bytes | str]) -> None:
    assert answered(keep_alive=keep_alive) == calls


def test_nothing_is_written_to_a_client_that_has_left() -> None:
    assert answered(disconnected=True) == []


def test_a_server_without_the_extension_gets_the_two_events() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(send_whole({}, send, 200, b"text/plain", b"ok"))
    assert sent == [
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"text/plain"), (b"content-length", b"2")],
        },
        {"type": "http.response.body", "body": b"ok"},
    ]


def test_requests_sent_ahead_are_answered_in_turn_and_the_last_one_closes() -> None:
    last = REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")

    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(REQUEST * MAX_WAITING + last)
        for _ in range(MAX_WAITING):
            assert b"connection: close" not in await reader.readuntil(b"\r\n\r\nok")
        assert (await rest(reader)).endswith(b"connection: close\r\n\r\nok")

    serve(Patient, scenario, whole)


def test_the_server_takes_answers_as_a_whole() -> None:
    cycle = Cycle(scope={})
    takes_whole(cast("RequestResponseCycle", cycle))
    (extension,) = cycle.scope["extensions"].values()
    assert isinstance(extension, WholeAnswer)


@pytest.mark.parametrize("as_a_whole", [True, False])
def test_what_was_answered_does_not_wait_for_the_garbage_collector(as_a_whole: bool) -> None:
    cycle = Cycle(
        scope={},
        flow=SimpleNamespace(write_paused=False),
        disconnected=False,
        default_headers=[],
        keep_alive=True,
        transport=SimpleNamespace(write=lambda _: None),
        message_event=asyncio.Event(),
        on_response=lambda: None,
    )
    takes_whole(cast("RequestResponseCycle", cycle))
    left, (answer,) = weakref.ref(cycle), cycle.scope["extensions"].values()
    gc.disable()
    try:
        if as_a_whole:
            asyncio.run(answer.send(200, b"text/plain", b"ok"))
        del cycle, answer
        assert left() is None
    finally:
        gc.enable()
