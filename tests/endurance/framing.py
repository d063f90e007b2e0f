"""What our protocol takes for requests, beside what h11 does: `python -m tests.endurance.framing N`.

N connections with a few requests each, most of them odd somewhere: every framing header, offers to change the protocol, chunks,
trailers, ends of lines, and bytes at random; cut into reads in every way. The requests executed must be, one by one, what h11
reads at that place: method, target and body. Ours may stop earlier, and then ends the connection; it never goes further.

The connections are the same in every run.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import h11
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from host_backend.api.known_heads import KnownHead, KnownHeads, KnownHeadsProtocol
from tests.doubles.odd_requests import Maker

SEED = 20261126
#: Disagreements that are kept to be shown.
SHOWN = 20
#: Turns of the loop that an answer takes at most, with the tasks that it wakes.
TURNS = 12
Read = tuple[bytes, bytes, bytes]


@dataclass
class Counts:
    """What was sent and read, and what must never happen."""

    connections: int = 0
    #: Requests that both took, and those after which ours had ended.
    requests: int = 0
    refused: int = 0
    #: Requests that ours took without its parser.
    known: int = 0
    #: Kinds of request that were executed.
    kinds: Counter[str] = field(default_factory=Counter)
    disagreements: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"{'connections':<26}{self.connections:>9}",
            f"{'requests that both took':<26}{self.requests:>9}",
            f"{'where h11 goes further':<26}{self.refused:>9}",
            f"{'taken without the parser':<26}{self.known:>9}",
        ]
        lines += [f"{kind:<26}{count:>9}" for kind, count in sorted(self.kinds.items())]
        return "\n".join([*lines, f"{'disagreements':<26}{len(self.disagreements):>9}", *self.disagreements[:SHOWN]])


class Recorded(KnownHeadsProtocol):
    """Keeps the target as it came."""

    #: Requests that were taken without the parser.
    known_count = 0

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._keep()

    def _take(self, known: KnownHead, body: bytes) -> None:
        super()._take(known, body)
        type(self).known_count += 1
        self._keep()

    def _keep(self) -> None:
        self.cycle.scope["target"] = self.url  # type: ignore[typeddict-unknown-key]


class Wire(asyncio.Transport):
    """Takes the written bytes, and closes."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += b"" if self.closed else bytes(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


@dataclass
class Reading:
    """What a connection was taken for: heads that began something, requests that were whole; whether it has ended."""

    begun: list[tuple[bytes, bytes]] = field(default_factory=list)
    whole: list[Read] = field(default_factory=list)
    ended: bool = False
    #: How it stopped in the middle of a body, and what it answered.
    in_body: bool = False
    answers: bytes = b""


class Ours:
    """Our protocol, without sockets."""

    def __init__(self) -> None:
        self._config = uvicorn.Config(self._answer, http=Recorded, lifespan="off", log_config=None, interface="asgi3")
        self._config.load()
        Recorded.heads, Recorded.known_count = KnownHeads(), 0
        self._reading = Reading()
        #: Whether answers are given at the end of a head, so that no one waits for a body.
        self.answers_early = False

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"].encode()
        self._reading.begun.append((method, scope["target"]))
        if self.answers_early:
            await self._send(send)
            return
        body, more = b"", True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            body += event["body"]
            more = event["more_body"]
        self._reading.whole.append((method, scope["target"], body))
        await self._send(send)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def read(self, reads: Sequence[bytes], *, hasty: bool) -> Reading:
        """Read a connection; hasty: the next bytes are there before anything is answered."""
        self._reading = Reading()
        wire = Wire()
        state = ServerState()
        protocol = Recorded(self._config, state, {})
        protocol.connection_made(wire)
        for data in reads:
            protocol.data_received(data)
            if not hasty:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        for _ in range(TURNS):
            await asyncio.sleep(0)
        self._reading.ended, self._reading.answers = wire.closed, wire.written
        self._reading.in_body = protocol._in_body
        protocol.connection_lost(None)
        await asyncio.gather(*state.tasks)
        return self._reading


def by_h11(reads: Sequence[bytes]) -> Reading:
    """Let h11 read a connection."""
    reading = Reading()
    connection = h11.Connection(h11.SERVER)
    body = b""
    request = h11.Request(method="GET", target="/", headers=[("host", "h")])
    try:
        for data in reads:
            connection.receive_data(data)
            while True:
                event = connection.next_event()
                if isinstance(event, h11.Request):
                    request, body = event, b""
                    reading.begun.append((event.method, event.target))
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    reading.whole.append((request.method, request.target, body))
                    status = 405 if request.method == b"CONNECT" else 200
                    connection.send(h11.Response(status_code=status, headers=[("content-length", "0")]))
                    connection.send(h11.EndOfMessage())
                    if connection.our_state is h11.MUST_CLOSE:
                        reading.ended = True
                        return reading
                    connection.start_next_cycle()
                else:
                    break
    except h11.ProtocolError:
        reading.ended = True
    return reading


def fault(ours: Reading, theirs: Reading) -> str | None:
    """Say what must not be; None: ours took what h11 did, or stopped before."""
    if ours.begun != theirs.begun[: len(ours.begun)]:
        return "a request is executed that h11 does not see"
    if ours.whole != theirs.whole[: len(ours.whole)]:
        return "a request has another body"
    if len(ours.begun) < len(theirs.begun) and not ours.ended:
        return "ours waits where h11 goes on"
    right, refusals = (ours.answers.count(b"HTTP/1.1 %d" % status) for status in (200, 400))
    if right > len(ours.begun) or right + refusals > len(ours.begun) + (not ours.in_body) or refusals > 1:
        return "there are more answers than requests"
    return None


def connections(count: int, seed: int = SEED) -> Iterator[tuple[list[bytes], bool]]:
    """Yield so many connections, and whether all is there before anything is answered."""
    maker = Maker(seed)
    for number in range(count):
        yield maker.connection(), number % 2 == 0


def _kinds(data: bytes, reading: Reading) -> Iterator[str]:
    for method, target, body in reading.whole:
        if target != b"/last":
            yield f"{method.decode()} executed"
        if b"/smuggled" in body:
            yield "with a request as body"
    sent = data.lower()
    if any(target == b"/last" for _, target, _ in reading.whole):
        yield "connections to their end"
        if b"\r\nupgrade:" in sent:
            yield "the same with an offer"
        if b"chunked" in sent:
            yield "the same in chunks"


async def _run(count: int) -> Counts:
    counts = Counts()
    ours = Ours()
    for number, (reads, hasty) in enumerate(connections(count)):
        ours.answers_early = number % 8 < 2
        reading, theirs = await ours.read(reads, hasty=hasty), by_h11(reads)
        counts.connections += 1
        counts.requests += len(reading.begun)
        counts.refused += len(reading.begun) < len(theirs.begun)
        counts.kinds.update(_kinds(b"".join(reads), reading))
        if text := fault(reading, theirs):
            sizes = [*map(len, reads)] if len(reads) < 20 else "byte by byte"
            counts.disagreements.append(
                f"{text}: {b''.join(reads)!r}, in reads of {sizes}: ours {reading}, h11 {theirs}"
            )
    counts.known = Recorded.known_count
    return counts


def run(count: int) -> Counts:
    """Compare so many connections."""
    return asyncio.run(_run(count))


if __name__ == "__main__":
    outcome = run(int(sys.argv[1]))
    print(outcome)
    sys.exit(1 if outcome.disagreements else 0)
