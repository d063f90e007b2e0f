"""A stream that encrypts, behind the interface of plain ones: shows that connections need know nothing of TLS."""

import socket
import ssl

import trio

from enclave_signer.serving.listeners import TcpListener
from enclave_signer.serving.peers import Peer, tcp_peer
from enclave_signer.serving.stream import Stream


class TlsStream:
    """TLS on a non-blocking socket; the handshake is part of the first `receive`."""

    def __init__(self, connected: socket.socket, context: ssl.SSLContext, peer: Peer) -> None:
        self._tls = context.wrap_socket(connected, server_side=True, do_handshake_on_connect=False)
        self._wait = trio.lowlevel.wait_readable
        self.peer = peer

    def receive(self, most: int) -> bytes | None:
        data = b""
        try:
            # A record at a time: all that has come may be several.
            while len(data) < most and (part := self._tls.recv(most - len(data))):
                data += part
        except ssl.SSLWantReadError:
            self._wait = trio.lowlevel.wait_readable
            return data or None
        except ssl.SSLWantWriteError:
            self._wait = trio.lowlevel.wait_writable
            return data or None
        return data

    def send(self, data: bytes | memoryview) -> int:
        try:
            return self._tls.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0

    async def wait_readable(self) -> None:
        if self._tls.pending():
            await trio.lowlevel.checkpoint()
        else:
            await self._wait(self._tls)

    async def wait_writable(self) -> None:
        await trio.lowlevel.wait_writable(self._tls)

    def shutdown(self) -> None:
        self._tls.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._tls.close()


class TlsListener(TcpListener):
    """Clients of a port who speak TLS."""

    def __init__(self, listening: socket.socket, context: ssl.SSLContext) -> None:
        listening.settimeout(0)
        super().__init__(listening)
        self._context = context

    def _stream(self, connected: socket.socket, address: tuple[str, int]) -> Stream:
        return TlsStream(connected, self._context, tcp_peer(*address[:2]))
