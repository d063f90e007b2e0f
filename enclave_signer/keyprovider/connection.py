"""One client's connection: unary calls of gRPC over HTTP/2 in clear, answered one after another.

A connection has a number of bytes, of calls under way and of seconds; after them it ends, as after anything that is not
HTTP/2. Clients of the protocol open one for each call.
"""

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from enclave_signer.keyprovider.errors import KeyproviderError, Status, TooLarge, Unimplemented
from enclave_signer.keyprovider.grpc_messages import (
    ANSWER_HEADERS,
    CALLS,
    MAX_BODY_BYTES,
    NOT_GRPC,
    is_grpc,
    read_body,
    trailers,
    write_body,
)
from enclave_signer.serving.stream import Stream
from enclave_signer.sparse_log import SparseLog

logger = logging.getLogger(__name__)

#: Calls of one connection under way at once: a client has one.
MAX_CALLS = 4
#: Bytes that one connection may send in all: some dozen of the longest calls, thousands of the usual ones.
MAX_CONNECTION_BYTES = 16 * MAX_BODY_BYTES
#: Calls of one connection in all: those that are begun and given up cost time as well.
MAX_CALLS_IN_ALL = 64
#: Seconds for a whole connection: a key may take half of it to be opened.
CONNECTION_S = 60.0
#: Seconds for a client to take the last bytes.
GOODBYE_S = 1.0
#: Bytes taken at once: what is in them is parsed without a pause for others.
_READ_BYTES = 16384

_SETTINGS = {
    SettingCodes.MAX_CONCURRENT_STREAMS: MAX_CALLS,
    SettingCodes.MAX_HEADER_LIST_SIZE: H2Connection.DEFAULT_MAX_HEADER_LIST_SIZE,
}

#: Returns the answer to a request, given what it must ask for.
Answer = Callable[[bytes, str], Awaitable[bytes]]


@dataclass(slots=True)
class _Call:
    """A call under way; the rest of its answer is sent as the client makes room."""

    operation: str
    body: bytearray = field(default_factory=bytearray, repr=False)
    left: bytes | None = field(default=None, repr=False)


class GrpcConnection:
    """A connection.

    Args:
        stream: Of the client; closed at the end.
        answer: Answers the calls.
        refusals: Where refusals are logged.
    """

    def __init__(self, stream: Stream, answer: Answer, refusals: SparseLog) -> None:
        self._stream = stream
        self._answer = answer
        self._refusals = refusals
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        # From the start, not only once the client has acknowledged it.
        self._h2.local_settings = Settings(client=False, initial_values=_SETTINGS)
        self._calls: dict[int, _Call] = {}
        self._begun = 0
        self._whole = trio.CancelScope()
        #: Whether it waits for its client; otherwise the client waits for an answer.
        self.is_waiting = True

    def end(self) -> None:
        """Have `serve` end without another byte."""
        self._whole.cancel()

    async def serve(self) -> None:
        """Serve it to its end."""
        with self._whole:
            await self._serve()

    async def _serve(self) -> None:
        try:
            with suppress(OSError, ProtocolError), trio.move_on_after(CONNECTION_S):
                await self._exchange()
            with suppress(OSError, ProtocolError), trio.move_on_after(GOODBYE_S):
                self._h2.close_connection()
                await self._flush()
        finally:
            self._stream.close()

    async def _exchange(self) -> None:
        received = 0
        self._h2.initiate_connection()
        await self._flush()
        while received <= MAX_CONNECTION_BYTES:
            data = self._stream.receive(_READ_BYTES)
            if data is None:
                await self._stream.wait_readable()
                continue
            if not data:
                return
            received += len(data)
            for event in self._h2.receive_data(data):
                await self._take(event)
            self._send_the_rest()
            await self._flush()
            await trio.lowlevel.checkpoint()

    async def _take(self, event: Event) -> None:
        match event:
            case RequestReceived():
                self._begin_call(event)
            case DataReceived():
                self._h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
                self._add(event.stream_id or 0, event.data or b"")
            case StreamEnded():
                if (call := self._calls.get(event.stream_id or 0)) is not None and call.left is None:
                    await self._end_call(event.stream_id or 0, call)
            case StreamReset():
                self._calls.pop(event.stream_id or 0, None)

    def _begin_call(self, event: RequestReceived) -> None:
        self._begun += 1
        if self._begun > MAX_CALLS_IN_ALL:
            raise ProtocolError("too many calls")
        stream_id = event.stream_id or 0
        headers = {bytes(name): bytes(value) for name, value in event.headers or ()}
        if not is_grpc(headers):
            self._h2.send_headers(stream_id, NOT_GRPC, end_stream=True)
        elif (operation := CALLS.get(headers.get(b":path", b""))) is None:
            self._refuse(stream_id, Unimplemented("there are WrapKey and UnWrapKey of keyprovider.KeyProviderService"))
        else:
            self._calls[stream_id] = _Call(operation)

    def _add(self, stream_id: int, data: bytes) -> None:
        call = self._calls.get(stream_id)
        if call is None or call.left is not None:
            return
        call.body += data
        if len(call.body) > MAX_BODY_BYTES:
            del self._calls[stream_id]
            self._refuse(stream_id, TooLarge(f"the call has more than {MAX_BODY_BYTES} bytes"))
            # The rest of it is not read.
            self._h2.reset_stream(stream_id, ErrorCodes.NO_ERROR)

    async def _end_call(self, stream_id: int, call: _Call) -> None:
        self.is_waiting = False
        try:
            answer = await self._answer(read_body(bytes(call.body)), call.operation)
        except KeyproviderError as error:
            del self._calls[stream_id]
            self._refuse(stream_id, error)
        except Exception:
            logger.exception("bug: a call was not answered")
            del self._calls[stream_id]
            self._end(stream_id, Status.INTERNAL, "internal error")
        else:
            self._h2.send_headers(stream_id, ANSWER_HEADERS)
            call.body.clear()
            call.left = write_body(answer)
        finally:
            self.is_waiting = True

    def _refuse(self, stream_id: int, error: KeyproviderError) -> None:
        self._refusals.warn(
            "calls refused", source=self._stream.peer.source, status=error.status.name.lower(), why=str(error)
        )
        self._end(stream_id, error.status, str(error))

    def _end(self, stream_id: int, status: Status, text: str) -> None:
        self._h2.send_headers(stream_id, [*ANSWER_HEADERS, *trailers(status, text)], end_stream=True)

    def _send_the_rest(self) -> None:
        for stream_id, call in [*self._calls.items()]:
            while call.left:
                room = min(self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size)
                if room <= 0:
                    break
                self._h2.send_data(stream_id, call.left[:room])
                call.left = call.left[room:]
            if call.left is not None and not call.left:
                self._h2.send_headers(stream_id, trailers(Status.OK), end_stream=True)
                del self._calls[stream_id]

    async def _flush(self) -> None:
        data = memoryview(self._h2.data_to_send())
        while data:
            taken = self._stream.send(data)
            if not taken:
                await self._stream.wait_writable()
            data = data[taken:]
