"""The link to one enclave: a connection for signatures that comes back by itself, and a second one for the rest.

- Calls that may leave the enclave (a new key, the first opening of a blob) take the second connection: answers come in
  order, and no signature shall wait for a sealer.
- A connection that ends fails what is in flight. Only what is idempotent, and got no answer, is asked for once more, on
  the next one. An answer is final: the next connection may lead to an enclave that knows nothing of what this one said.
- The task in here ends when the link is closed, and for no other reason.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from host_backend.enclave.client import EnclaveClient, Endpoint, open_client
from host_backend.enclave.supervisor import DEFAULT_LIMITS, LinkLimits, State, Supervisor
from host_backend.errors import EnclaveUnavailable, HostError, Unanswered
from host_backend.log import fields

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Opens all keys on a new connection; returns whether every stored key is in service.
Restore = Callable[[EnclaveClient], Awaitable[bool]]


class EnclaveLink:
    """One enclave, as long as somebody wants it. All methods belong to one event loop.

    Args:
        name: The vault's name, for the log.
        enclave: Where it is; its name is resolved anew at every attempt.
        restore: Opens all keys on a new connection.
        limits: Its times.
        jitter: Returns a number from 0 to 1, another one each time.
    """

    def __init__(
        self,
        name: str,
        enclave: Endpoint,
        restore: Restore,
        *,
        limits: LinkLimits = DEFAULT_LIMITS,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self.limits = limits
        self._enclave = enclave
        self._restore = restore
        self._loop = asyncio.get_running_loop()
        self._table = Supervisor(limits, jitter, self._loop.time())
        self._client: EnclaveClient | None = None
        self._up = asyncio.Event()
        self._ended = asyncio.Event()
        self._wanted = asyncio.Event()
        self._settled = asyncio.Event()
        self._waiting = 0
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._second: EnclaveClient | None = None
        self._second_lock = asyncio.Lock()
        self._second_users = 0
        self._second_timer: asyncio.TimerHandle | None = None
        #: Calls that were asked for once more on a new connection.
        self.retries = 0

    @property
    def state(self) -> State:
        """What the link is doing."""
        return self._table.state

    @property
    def generation(self) -> int:
        """Connections for signatures that were made so far; the present one's number."""
        return self._table.generation

    @property
    def reconnects(self) -> int:
        """How often all keys were opened again."""
        return max(0, self._table.restored_count - 1)

    @property
    def client(self) -> EnclaveClient | None:
        """The present connection for signatures; None while there is none."""
        return self._client

    @property
    def problem(self) -> str | None:
        """Why no signature can be asked for; None when one can."""
        if self._client is not None:
            return None
        return self._table.reason or f"{self.state} to the enclave at {self._enclave.host}:{self._enclave.port}"

    async def connect_once(self) -> None:
        """Make the first connection and open all keys, or fail; then keep the link up.

        Raises:
            EnclaveRefused, EnclaveUnavailable: The enclave does not answer, or not with yes.
        """
        await self._attempt(self.limits.sealer_s)
        self._task = asyncio.create_task(self._keep_up(), name=f"link of vault {self.name}")

    async def keep_connecting(self) -> None:
        """Keep the link up from now on; return when the first attempt has ended, however, or takes long."""
        self._task = asyncio.create_task(self._keep_up(), name=f"link of vault {self.name}")
        with suppress(TimeoutError):
            async with asyncio.timeout(self.limits.start_s):
                await self._settled.wait()

    async def aclose(self) -> None:
        """End both connections, and the task that makes them."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._client is not None:
            self._client.close()
        self._close_second()
        self._up.set()

    def keys_changed(self, *, whole: bool) -> None:
        """Note whether every stored key is in service."""
        self._table.keys_changed(whole=whole)

    async def ready(self) -> EnclaveClient:
        """Return the present connection; wait for it up to a limit.

        Raises:
            EnclaveUnavailable: There is none; the text says why.
        """
        if self._client is not None:
            return self._client
        self._waiting += 1
        self._wanted.set()
        try:
            async with asyncio.timeout(self.limits.ready_s):
                return await self._next_client()
        except TimeoutError:
            raise EnclaveUnavailable(self.problem or "the enclave was not ready in time: retry later") from None
        finally:
            self._waiting -= 1

    async def _next_client(self) -> EnclaveClient:
        while (client := self.client) is None:
            if self._closed:
                raise EnclaveUnavailable("the connection to the enclave was closed")
            await self._up.wait()
        return client

    async def ask_idempotent(self, ask: Callable[[EnclaveClient], Awaitable[T]]) -> tuple[EnclaveClient, T]:
        """Return the answer of a call that may be made twice, and the connection that it came from.

        Raises:
            EnclaveRefused, EnclaveUnavailable, WatermarkRejected: As `ask` does, at once or when it was asked again.
        """
        client = self._client or await self.ready()
        try:
            return client, await ask(client)
        except Unanswered:
            self.retries += 1
        client = await self.ready()
        return client, await ask(client)

    @asynccontextmanager
    async def second(self) -> AsyncIterator[EnclaveClient]:
        """Give the connection for calls that may leave the enclave; it is made when needed, and kept for a while.

        Raises:
            EnclaveRefused, EnclaveUnavailable: It cannot be made.
        """
        self._second_users += 1
        try:
            async with self._second_lock:
                if self._closed:
                    raise EnclaveUnavailable("the connection to the enclave was closed")
                if self._second is None or not self._second.alive:
                    self._second = await open_client(self._enclave, limits=self.limits)
                client = self._second
            yield client
        finally:
            self._second_users -= 1
            if self._second_users == 0:
                self._arm_second_timer()

    @asynccontextmanager
    async def separate(self) -> AsyncIterator[EnclaveClient]:
        """Give a connection that nobody else uses, and that is as patient as the attempt to restore keys.

        Raises:
            EnclaveRefused, EnclaveUnavailable: It cannot be made.
        """
        client = await open_client(self._enclave, limits=self.limits, patience_s=self._table.patience_s)
        try:
            yield client
        finally:
            client.close()

    def _arm_second_timer(self) -> None:
        if self._second_timer is not None:
            self._second_timer.cancel()
        self._second_timer = self._loop.call_later(self.limits.second_idle_s, self._close_second_if_idle)

    def _close_second_if_idle(self) -> None:
        if self._second_users == 0:
            self._close_second()

    def _close_second(self) -> None:
        if self._second_timer is not None:
            self._second_timer.cancel()
            self._second_timer = None
        if self._second is not None:
            self._second.close()
            self._second = None

    async def _keep_up(self) -> None:
        while True:
            if self._client is None:
                with suppress(HostError):
                    await self._guarded_attempt()
            if self._client is not None:
                await self._ended.wait()
            await self._pause()
            self._table.due(self._loop.time())

    async def _guarded_attempt(self) -> None:
        try:
            await self._attempt(self._table.patience_s)
        except HostError:
            raise
        except Exception:
            # The one catch-all of this task: a bug in one attempt must not leave the host without its enclave for ever.
            logger.exception("an attempt to reach the enclave failed by a bug", extra=fields(vault=self.name))
            self._lost(EnclaveUnavailable("an attempt to reach the enclave failed by a bug: see the log"))

    async def _attempt(self, patience_s: float) -> None:
        """Connect, open all keys, and put the connection into service; raises why not, and has noted it then."""
        started = time.monotonic()
        self._ended.clear()
        client: EnclaveClient | None = None
        end: Unanswered | None = None

        def on_end(reason: Unanswered) -> None:
            nonlocal end
            end = reason
            if client is not None and self._client is client:
                self._client = None
                self._up.clear()
                self._lost(reason)
                self._ended.set()

        try:
            client = await open_client(self._enclave, limits=self.limits, patience_s=patience_s, on_end=on_end)
            self._table.connected()
            whole = await self._restore(client)
            _check_not_ended(end)
        except HostError as error:
            if client is not None:
                client.close()
            self._lost(error)
            raise
        except BaseException:
            if client is not None:
                client.close()
            raise
        client.be_patient(self.limits.sealer_s)
        self._client = client
        self._table.restored(self._loop.time(), whole=whole)
        self._up.set()
        self._settled.set()
        extra = fields(vault=self.name, generation=self.generation, ms=f"{(time.monotonic() - started) * 1e3:.0f}")
        logger.info("the link to the enclave is %s", self.state, extra=extra)

    def _lost(self, reason: HostError) -> None:
        # An outage is told once, and its end; every attempt in between would fill the log.
        again = str(reason) == self._table.reason and not self._table.serving
        self._table.lost(str(reason), self._loop.time())
        self._settled.set()
        # Without the task the only attempt failed, and whoever asked for it is told.
        quiet = again or self._closed or self._task is None
        logger.log(
            logging.DEBUG if quiet else logging.ERROR,
            "no link to the enclave: %s",
            reason,
            extra=fields(vault=self.name),
        )

    async def _pause(self) -> None:
        while (wait_s := self._table.next_attempt(wanted=self._waiting > 0) - self._loop.time()) > 0:
            self._wanted.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wanted.wait()


def _check_not_ended(end: Unanswered | None) -> None:
    if end is not None:
        raise EnclaveUnavailable(str(end))
