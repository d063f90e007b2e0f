"""An enclave whose every answer a test gives by hand, over a real socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from enclave_signer.protocol import codec
from enclave_signer.protocol.errors import WireError
from enclave_signer.protocol.framing import FrameDecoder, encode_frame
from enclave_signer.protocol.messages import Request, Result
from tests.doubles.asyncio_server import AsyncioServer


class ScriptedEnclave:
    """Takes one connection; keeps the calls in order, and gives the answers of a test."""

    def __init__(self) -> None:
        self.calls: asyncio.Queue[Request] = asyncio.Queue()
        self.ended = asyncio.Event()
        self._made: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
        self.port = 0

    async def take(self, count: int) -> list[Request]:
        """Return the next calls."""
        return [await self.calls.get() for _ in range(count)]

    async def send(self, data: bytes) -> None:
        writer = await self._made
        writer.write(data)
        await writer.drain()

    async def answer(self, result: Result) -> None:
        await self.send(encode_frame(codec.encode_ok(result)))

    def answer_at_once(self, result: Result) -> None:
        """Answer without a pass of the event loop."""
        self._made.result().write(encode_frame(codec.encode_ok(result)))

    async def refuse(self, text: str) -> None:
        await self.send(encode_frame(codec.encode_error(WireError(text))))

    async def hang_up(self) -> None:
        (await self._made).transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._made.set_result(writer)
        frames = FrameDecoder()
        try:
            while data := await reader.read(65536):
                frames.feed(data)
                while (frame := frames.next_frame()) is not None:
                    self.calls.put_nowait(codec.decode_request(frame))
        except ConnectionError:
            pass
        finally:
            self.ended.set()
            writer.close()


@asynccontextmanager
async def scripted_enclave() -> AsyncIterator[ScriptedEnclave]:
    """Listen on a free port."""
    enclave = ScriptedEnclave()
    server = AsyncioServer(enclave._serve)
    await server.listen()
    enclave.port = server.port
    try:
        yield enclave
    finally:
        server.close()
