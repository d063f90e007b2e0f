"""A TCP proxy between host and enclave that does to whole frames what bad networks, middle boxes and bugs do.

It runs in a thread of its own. What happens to a frame is drawn from a seeded generator; nothing happens until a fault is
named, and what was held back passes when it is healed.
"""

import asyncio
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum

import cbor2

#: Seconds that a delayed frame is kept, at most.
LONGEST_DELAY_S = 0.1
#: An announced length above this is no frame of the enclave's wire.
_MAX_FRAME_BYTES = 1 << 17


class Fault(StrEnum):
    """What happens to frames while it lasts."""

    NONE = "none"
    DROP = "drop"
    DELAY = "delay"
    #: The connection ends in the middle of a frame.
    TRUNCATE = "truncate"
    #: Byte by byte, each in a segment of its own.
    SPLIT = "split"
    #: Answers only: a call twice would be the host's doing.
    DUPLICATE = "duplicate"
    #: Two answers in the other order.
    REORDER = "reorder"
    RESET = "reset"
    #: Nothing passes, on old connections and new ones; when it ends, what was held passes.
    BLACK_HOLE = "black hole"
    #: As if no one were there: every connection is reset, and every new one.
    AWAY = "away"
    #: Answers only: one bit of the frame is another one. Not among `FAULTS`, after which every key signs at once: of an
    #: answer to `Import` it takes a key out of service for a while.
    GARBLE = "garble"


FAULTS = tuple(fault for fault in Fault if fault not in {Fault.NONE, Fault.GARBLE})
#: Faults of which a frame has its chance; the others last.
_BY_CHANCE = frozenset(Fault) - {Fault.NONE, Fault.BLACK_HOLE, Fault.AWAY}


class FaultProxy:
    """Use `fault_proxy`. Its methods may be called from any thread."""

    def __init__(self, enclave: tuple[str, int], seed: int, one_in: int) -> None:
        self._enclave = enclave
        self._chance = random.Random(seed)
        self._one_in = one_in
        self._fault = Fault.NONE
        self._healed: asyncio.Event
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port = 0
        #: How often each fault was done to a frame or a connection.
        self.done: Counter[Fault] = Counter()
        self.connections = 0
        #: Every message that the host has asked the enclave to sign, done something to or not.
        self.messages: set[bytes] = set()

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def begin(self, fault: Fault) -> None:
        self._loop.call_soon_threadsafe(self._begin, fault)

    def heal(self) -> None:
        """End the fault; returns when it has ended."""
        healed = threading.Event()

        def end() -> None:
            self._begin(Fault.NONE)
            healed.set()

        self._loop.call_soon_threadsafe(end)
        assert healed.wait(60)

    def point_to(self, enclave: tuple[str, int]) -> None:
        self._enclave = enclave

    def start(self) -> None:
        self._thread.start()
        assert self._listening.wait(60)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._healed = asyncio.Event()
        self._healed.set()
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        self._loop.run_forever()
        server.close()
        for task in self._tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def _begin(self, fault: Fault) -> None:
        self._fault = fault
        if fault is Fault.NONE:
            self._healed.set()
            return
        self._healed.clear()
        if fault is Fault.AWAY:
            for writer in list(self._writers):
                _reset(writer)

    def _hits(self) -> Fault:
        """Draw what happens to the next frame."""
        fault = self._fault
        if fault in _BY_CHANCE and self._chance.randrange(self._one_in):
            return Fault.NONE
        if fault is not Fault.NONE:
            self.done[fault] += 1
        return fault

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        to_enclave: asyncio.StreamWriter | None = None
        self._writers.add(writer)
        try:
            if self._fault is Fault.AWAY:
                self.done[Fault.AWAY] += 1
                _reset(writer)
                return
            with suppress(OSError):
                from_enclave, to_enclave = await asyncio.open_connection(*self._enclave)
                self._writers.add(to_enclave)
                pipes = (
                    asyncio.create_task(_Pipe(self, reader, to_enclave, calls=True).run()),
                    asyncio.create_task(_Pipe(self, from_enclave, writer, calls=False).run()),
                )
                try:
                    await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for pipe in pipes:
                        pipe.cancel()
                    await asyncio.gather(*pipes, return_exceptions=True)
        except asyncio.CancelledError:
            # The proxy stops. asyncio's server of Python 3.11 takes a cancelled task for a failed one.
            return
        finally:
            for each in (writer, to_enclave):
                if each is not None:
                    self._writers.discard(each)
                    each.close()
            self._tasks.discard(task)


class _Pipe:
    """One direction of one connection."""

    def __init__(
        self, proxy: FaultProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, calls: bool
    ) -> None:
        self._proxy = proxy
        self._reader = reader
        self._writer = writer
        self._calls = calls
        self._held: bytes | None = None
        stream = writer.get_extra_info("socket")
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def run(self) -> None:
        """Pass frames until either side ends."""
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await self._reader.readexactly(4)
                (length,) = struct.unpack(">I", head)
                assert length <= _MAX_FRAME_BYTES
                await self._pass(head + await self._reader.readexactly(length))

    async def _pass(self, frame: bytes) -> None:
        if self._calls:
            self._record(frame)
        treatment: dict[Fault, Callable[[bytes], Awaitable[None]]] = {
            Fault.DROP: self._drop,
            Fault.DELAY: self._delay,
            Fault.TRUNCATE: self._truncate,
            Fault.SPLIT: self._split,
            Fault.DUPLICATE: self._write if self._calls else self._duplicate,
            Fault.REORDER: self._write if self._calls else self._reorder,
            Fault.RESET: self._reset,
            Fault.GARBLE: self._write if self._calls else self._garble,
            Fault.BLACK_HOLE: self._wait,
        }
        await treatment.get(self._proxy._hits(), self._write)(frame)

    def _record(self, frame: bytes) -> None:
        call = cbor2.loads(frame[4:])
        if "Sign" in call:
            self._proxy.messages.add(bytes(call["Sign"]["message"]))

    async def _write(self, frame: bytes) -> None:
        self._writer.write(frame)
        if self._held is not None:
            held, self._held = self._held, None
            self._writer.write(held)
        await self._writer.drain()

    async def _drop(self, frame: bytes) -> None:
        del frame

    async def _delay(self, frame: bytes) -> None:
        await asyncio.sleep(self._proxy._chance.uniform(0, LONGEST_DELAY_S))
        await self._write(frame)

    async def _truncate(self, frame: bytes) -> None:
        self._writer.write(frame[: self._proxy._chance.randrange(1, len(frame))])
        await self._writer.drain()
        raise ConnectionResetError

    async def _split(self, frame: bytes) -> None:
        for place in range(len(frame)):
            self._writer.write(frame[place : place + 1])
            await self._writer.drain()
            await asyncio.sleep(0)

    async def _duplicate(self, frame: bytes) -> None:
        await self._write(frame + frame)

    async def _garble(self, frame: bytes) -> None:
        place, bit = self._proxy._chance.randrange(4, len(frame)), self._proxy._chance.randrange(8)
        await self._write(frame[:place] + bytes([frame[place] ^ 1 << bit]) + frame[place + 1 :])

    async def _reorder(self, frame: bytes) -> None:
        if self._held is not None:
            await self._write(frame)
            return
        self._held = frame
        asyncio.get_running_loop().create_task(self._let_go())

    async def _let_go(self) -> None:
        """Let the held answer pass when no other one comes: it was the last."""
        await asyncio.sleep(LONGEST_DELAY_S)
        if self._held is not None:
            held, self._held = self._held, None
            with suppress(OSError):
                self._writer.write(held)

    async def _reset(self, frame: bytes) -> None:
        del frame
        _reset(self._writer)
        raise ConnectionResetError

    async def _wait(self, frame: bytes) -> None:
        await self._proxy._healed.wait()
        await self._write(frame)


def _reset(writer: asyncio.StreamWriter) -> None:
    stream = writer.get_extra_info("socket")
    with suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextmanager
def fault_proxy(enclave: tuple[str, int], seed: int, *, one_in: int = 10) -> Iterator[FaultProxy]:
    """Listen on a free port; while a fault lasts it is done to one frame in so many."""
    proxy = FaultProxy(enclave, seed, one_in)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
