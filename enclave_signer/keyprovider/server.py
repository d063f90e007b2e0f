"""The server: takes clients of gRPC on every address that is configured, until it is cancelled."""

import logging
from collections.abc import Sequence

import trio

from enclave_signer import log
from enclave_signer.keyprovider.answering import Answering
from enclave_signer.keyprovider.connection import GrpcConnection
from enclave_signer.serving.listeners import Listener, rest_if_exhausted
from enclave_signer.serving.stream import Stream
from enclave_signer.sparse_log import SparseLog

logger = logging.getLogger(__name__)

#: Connections of one listener at once, each 4 MB at worst: those of a port take none from a socket. One more takes the
#: place of the oldest whose client waits for no answer.
MAX_CONNECTIONS = 16


class Server:
    """Serves clients.

    Args:
        listeners: Where they come in; the caller closes them.
        answering: Answers their requests.
    """

    def __init__(self, listeners: Sequence[Listener], answering: Answering) -> None:
        self._listeners = listeners
        self._answering = answering
        self._refusals = SparseLog()
        self._full = SparseLog()

    async def serve(self) -> None:
        """Serve for ever."""
        async with trio.open_nursery() as nursery:
            for listener in self._listeners:
                nursery.start_soon(self._accept, listener)

    async def _accept(self, listener: Listener) -> None:
        served: dict[GrpcConnection, None] = {}
        async with trio.open_nursery() as nursery:
            while True:
                await listener.wait()
                try:
                    stream = listener.accept()
                except OSError as error:
                    await rest_if_exhausted(error, self._full)
                    continue
                if stream is None:
                    continue
                if len(served) < MAX_CONNECTIONS or self._makes_room(served):
                    connection = GrpcConnection(stream, self._answering.answer, self._refusals)
                    served[connection] = None
                    nursery.start_soon(self._serve, stream, connection, served)
                else:
                    self._full.warn("connections refused, there are too many", limit=MAX_CONNECTIONS)
                    stream.close()

    def _makes_room(self, served: dict[GrpcConnection, None]) -> bool:
        oldest = next((connection for connection in served if connection.is_waiting), None)
        if oldest is None:
            return False
        self._full.warn("silent connections ended, there are too many", limit=MAX_CONNECTIONS)
        del served[oldest]
        oldest.end()
        return True

    async def _serve(self, stream: Stream, connection: GrpcConnection, served: dict[GrpcConnection, None]) -> None:
        log.adds(source=stream.peer.source)
        try:
            await connection.serve()
        except Exception:
            logger.exception("bug: a connection ended")
        finally:
            served.pop(connection, None)
