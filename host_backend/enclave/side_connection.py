"""The connection for calls that may leave the enclave: made when needed, kept for a while, never used for signatures."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from host_backend.enclave.client import EnclaveClient, open_client
from host_backend.enclave.endpoint import Endpoint
from host_backend.enclave.supervisor import LinkLimits
from host_backend.errors import EnclaveUnavailable


class SideConnection:
    """One connection, shared by all who ask for new keys, or try blobs out. All methods belong to one event loop."""

    def __init__(self, enclave: Endpoint, limits: LinkLimits) -> None:
        self._enclave = enclave
        self._limits = limits
        self._client: EnclaveClient | None = None
        self._lock = asyncio.Lock()
        self._users = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @asynccontextmanager
    async def use(self) -> AsyncIterator[EnclaveClient]:
        """Give the connection.

        Raises:
            EnclaveRefused, EnclaveUnavailable: It cannot be made.
        """
        self._users += 1
        try:
            async with self._lock:
                self._require_open()
                if self._client is not None and self._client.doubted:
                    self._client.finish()
                if self._client is None or self._client.doubted or not self._client.alive:
                    self._client = await open_client(self._enclave, limits=self._limits)
                    if self._closed:
                        # While this one was being made.
                        self._end()
                        self._require_open()
                client = self._client
            yield client
        finally:
            self._users -= 1
            if self._users == 0:
                self._arm_timer()

    def _require_open(self) -> None:
        if self._closed:
            raise EnclaveUnavailable("the connection to the enclave was closed")

    def close(self) -> None:
        """End it for good."""
        self._closed = True
        self._end()

    def _arm_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._limits.second_idle_s, self._end_if_idle)

    def _end_if_idle(self) -> None:
        if self._users == 0:
            self._end()

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._client is not None:
            self._client.close()
            self._client = None
