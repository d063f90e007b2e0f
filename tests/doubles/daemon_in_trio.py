"""A daemon in this process, on real sockets, under a clock that jumps when nothing moves: for what takes minutes."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import cbor2
import trio
from trio.testing import MockClock

from enclave_signer.addresses import Address
from enclave_signer.config import Limits
from enclave_signer.protocol.framing import encode_frame
from enclave_signer.sealing.base import SealerProvider
from enclave_signer.sealing.providers import Providers
from enclave_signer.serving.listeners import Listener, listen
from enclave_signer.serving.server import Server
from tests.doubles.passthrough_enclave import PassthroughSealer


def frame(call: object) -> bytes:
    """Return a call as it is sent."""
    return encode_frame(cbor2.dumps(call))


#: Seconds of the clock that jumps, not of the wall.
PATIENCE_S = 1_000_000
INITIALIZE = frame({"Initialize": {}})


class World:
    """A serving daemon, and the clients that a test opens."""

    def __init__(self, server: Server, port: int, streams: AsyncExitStack) -> None:
        self.server = server
        self.port = port
        self._streams = streams

    async def connect_unix(self, path: Path) -> trio.SocketStream:
        """Return a new connection to a Unix socket."""
        return await self._streams.enter_async_context(await trio.open_unix_socket(path))

    async def connect(self, *, initialize: bool = True, address: str = "127.0.0.1") -> trio.SocketStream:
        """Return a new connection; all addresses of 127.0.0.0/8 are this machine's."""
        opened = await trio.open_tcp_stream("127.0.0.1", self.port, local_address=address)
        stream = await self._streams.enter_async_context(opened)
        if initialize:
            await stream.send_all(INITIALIZE)
            assert await receive(stream) == {"Ok": None}
        return stream


async def exactly(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = await stream.receive_some(size - len(data))
        assert part, "the daemon closed the connection"
        data += part
    return data


async def receive(stream: trio.abc.ReceiveStream) -> object:
    head = await exactly(stream, 4)
    return cbor2.loads(await exactly(stream, int.from_bytes(head, "big")))


async def call(stream: trio.abc.Stream, request: object) -> object:
    """Return the answer to one call."""
    await stream.send_all(frame(request))
    return await receive(stream)


def run(
    main: Callable[[World], Awaitable[None]],
    provider: SealerProvider | None = None,
    *,
    limits: Limits,
    open_listener: Callable[[], Listener] = lambda: listen(Address("127.0.0.1", 0)),
) -> None:
    """Run a test against a daemon, and stop it."""

    async def serve() -> None:
        listener = open_listener()
        address = listener.address
        server = Server(listener, Providers([provider or PassthroughSealer()]), limits)
        async with trio.open_nursery() as nursery, AsyncExitStack() as streams:
            nursery.start_soon(server.serve)
            # A test that waits for what never comes fails: the clock jumps there.
            with trio.fail_after(PATIENCE_S):
                await main(World(server, address.port if isinstance(address, Address) else 0, streams))
            server.stop()

    # The clock jumps only when nothing has moved for this long in real time: loopback is far faster.
    trio.run(serve, clock=MockClock(autojump_threshold=0.2))
