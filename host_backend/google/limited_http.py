"""HTTP for Google's libraries: each request within the limits of the call that it is part of.

Importing this module loads the library: 100 ms.
"""

import socket
from typing import Any

from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter
from requests.exceptions import RequestException
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection

from host_backend.google.call_limits import current

#: Bytes of an answer that are read at once.
_PART_BYTES = 65536


def limit(session: Session) -> None:
    """Keep all requests of a session within the limits of their calls, `call_limits`."""
    session.mount("https://", _Adapter())
    session.mount("http://", _Adapter())


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **how: Any) -> None:
        super().init_poolmanager(*args, **how)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **how: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **how)
        if isinstance(manager, ProxyManager):
            manager.pool_classes_by_scheme = _POOLS
        return manager

    def send(self, request: PreparedRequest, *args: Any, **how: Any) -> Response:
        # The answer is read here, even if it is asked for as a stream.
        response = super().send(request, *args, **{**how, "stream": True})
        call, content = current(), bytearray()
        for part in response.iter_content(_PART_BYTES):
            content += part
            if call is not None and len(content) > call.most_bytes:
                response.close()
                raise RequestException(f"an answer has more than {call.most_bytes} bytes")
        response._content = bytes(content)  # noqa: SLF001 -- as the library does without a stream
        return response


class _Http(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        connection = super()._new_conn()
        try:
            _use(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def putrequest(self, *args: Any, **how: Any) -> None:
        if self.sock is not None:
            _use(self.sock)
        super().putrequest(*args, **how)


class _Https(_Http, HTTPSConnection):
    pass


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https


_POOLS = {"http": _HttpPool, "https": _HttpsPool}


def _use(connection: socket.socket) -> None:
    if (call := current()) is not None:
        call.use(connection)
