"""The link to one enclave: a connection for signatures that comes back by itself, and a second one for the rest.

- Calls that may leave the enclave (a new key, the first opening of a blob) take the second connection: answers come in
  order, and no signature shall wait for a sealer.
- Nor is a key ever opened on the connection in service: new keys come with a new connection, on which all good keys are
  opened while the old one goes on signing. Then it takes the old one's place, which ends when its last answer has come.
  If it cannot open what the old one holds, or fails, the old one stays, and it is tried again later.
- A connection that ends fails what is in flight. Only what is idempotent, and got no answer, is asked for once more, on
  the next one. An answer is final: the next connection may lead to an enclave that knows nothing of what this one said.
- The tasks in here end when the link is closed, and for no other reason.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TypeVar

from host_backend.enclave.client import EnclaveClient, SigningClient, open_client
from host_backend.enclave.endpoint import Endpoint
from host_backend.enclave.side_connection import SideConnection
from host_backend.enclave.supervisor import DEFAULT_LIMITS, LinkLimits, State, Supervisor
from host_backend.errors import EnclaveUnavailable, HostError, Unanswered
from host_backend.log import fields

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Opens all keys on a new connection; all known to open, if it shall replace one in service. Returns whether every stored
#: key is in service then.
Restore = Callable[[EnclaveClient, SigningClient | None], Awaitable[bool]]

#: Whether a key could be open on a new connection that is not open on the one in service.
KeyWaits = Callable[[SigningClient], bool]


class EnclaveLink:
    """One enclave, as long as somebody wants it. All methods belong to one event loop.

    Args:
        name: The vault's name, for the log.
        enclave: Where it is; its name is resolved anew at every attempt.
        restore: Opens all keys on a new connection.
        key_waits: Tells whether a key waits for a new connection.
        limits: Its times.
        jitter: Returns a number from 0 to 1, another one each time.
    """

    def __init__(
        self,
        name: str,
        enclave: Endpoint,
        restore: Restore,
        key_waits: KeyWaits,
        *,
        limits: LinkLimits = DEFAULT_LIMITS,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self.limits = limits
        self._enclave = enclave
        self._restore = restore
        self._key_waits = key_waits
        self._loop = asyncio.get_running_loop()
        self._table = Supervisor(limits, jitter, self._loop.time())
        self._client: SigningClient | None = None
        #: What is made to replace it; and what was replaced, and has answers to come.
        self._next: EnclaveClient | None = None
        self._leaving: set[SigningClient] = set()
        self._news = asyncio.Event()
        self._ended = asyncio.Event()
        self._wanted = asyncio.Event()
        self._settled = asyncio.Event()
        self._waiting = 0
        self._renewal_wanted = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False
        self._second = SideConnection(enclave, limits)
        #: Calls that were asked for once more on a new connection.
        self.retries = 0
        #: Why new keys cannot be brought in; None when they can, or there are none.
        self.renewal_problem: str | None = None

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
        """How often all keys were opened again because the connection had ended."""
        return max(0, self._table.restored_count - 1)

    @property
    def client(self) -> SigningClient | None:
        """The present connection for signatures; None while there is none."""
        return self._client

    @property
    def problem(self) -> str | None:
        """Why no signature can be asked for; None when one can."""
        if self._client is not None:
            return None
        return self._table.reason or f"{self.state} to the enclave at {self._enclave.address}"

    async def connect_once(self) -> None:
        """Make the first connection and open all keys, or fail; then keep the link up.

        Raises:
            EnclaveRefused, EnclaveUnavailable: The enclave does not answer, or not with yes.
        """
        await self._attempt(self.limits.sealer_s)
        self._start_tasks()

    async def keep_connecting(self) -> None:
        """Keep the link up from now on; return when the first attempt has ended, however, or takes long."""
        self._start_tasks()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.limits.start_s):
                await self._settled.wait()

    def _start_tasks(self) -> None:
        self._tasks = [
            asyncio.create_task(self._keep_up(), name=f"link of vault {self.name}"),
            asyncio.create_task(self._keep_renewing(), name=f"renewals of vault {self.name}"),
        ]

    async def aclose(self) -> None:
        """End all connections, and the tasks that make them."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client is not None:
            self._client.close()
        for client in tuple(self._leaving):
            client.close()
        self._second.close()
        self._tell()

    def renew(self) -> None:
        """Soon: if a key waits, open all keys on a new connection, and have it replace the one in service."""
        self._renewal_wanted.set()

    def keys_changed(self, *, whole: bool) -> None:
        """Note whether every stored key is in service."""
        self._table.keys_changed(whole=whole)

    async def ready(self, pkh: str | None = None) -> SigningClient:
        """Return the present connection, with a key open on it if one is named; wait for it up to a limit.

        Raises:
            EnclaveUnavailable: There is none; the text says why.
        """
        if (client := self._client_with(pkh)) is not None:
            return client
        self._waiting += 1
        self._wanted.set()
        try:
            async with asyncio.timeout(self.limits.ready_s):
                return await self._next_client(pkh)
        except TimeoutError:
            raise EnclaveUnavailable(self._why_not(pkh)) from None
        finally:
            self._waiting -= 1

    def _client_with(self, pkh: str | None) -> SigningClient | None:
        client = self._client
        return client if client is not None and (pkh is None or client.holds(pkh)) else None

    async def _next_client(self, pkh: str | None) -> SigningClient:
        while (client := self._client_with(pkh)) is None:
            if self._closed:
                raise EnclaveUnavailable("the connection to the enclave was closed")
            await self._news.wait()
        return client

    def _why_not(self, pkh: str | None) -> str:
        if self._client is None or pkh is None:
            return self.problem or "the enclave was not ready in time: retry later"
        return self.renewal_problem or f"{pkh} is not in service yet: retry later"

    def _tell(self) -> None:
        """Wake whoever waits for the connection in service to change."""
        self._news.set()
        self._news = asyncio.Event()

    async def ask_idempotent(self, ask: Callable[[SigningClient], Awaitable[T]]) -> tuple[SigningClient, T]:
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

    def second(self) -> AbstractAsyncContextManager[EnclaveClient]:
        """Give the connection for calls that may leave the enclave; see `SideConnection.use`."""
        return self._second.use()

    @asynccontextmanager
    async def separate(self) -> AsyncIterator[EnclaveClient]:
        """Give a connection that nobody else uses, and that is as patient as whoever opens keys at the time.

        Raises:
            EnclaveRefused, EnclaveUnavailable: It cannot be made.
        """
        patience_s = self.limits.sealer_s if self._table.serving else self._table.patience_s
        client = await open_client(self._enclave, limits=self.limits, patience_s=patience_s)
        try:
            yield client
        finally:
            client.close()

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
        try:
            client = await self._connect(patience_s)
            self._table.connected()
            whole = await self._restore(client, None)
            _check_not_ended(client)
        except HostError as error:
            if client is not None:
                client.close()
            self._lost(error)
            raise
        except BaseException:
            if client is not None:
                client.close()
            raise
        self._table.restored(self._loop.time(), whole=whole)
        self._put_into_service(client)
        logger.info("the link to the enclave is %s", self.state, extra=self._extra(started))

    async def _connect(self, patience_s: float) -> EnclaveClient:
        """Return a connection that takes itself out of service when it ends."""
        client: EnclaveClient | None = None

        def on_end(reason: Unanswered) -> None:
            if client is None:
                return
            self._leaving.discard(client)
            if self._client is client:
                self._client = None
                self._lost(reason)
                self._ended.set()
                if self._next is not None:
                    # The next attempt opens all keys, too, and does not wait as long for a silent enclave.
                    self._next.close()

        client = await open_client(self._enclave, limits=self.limits, patience_s=patience_s, on_end=on_end)
        return client

    def _put_into_service(self, client: EnclaveClient) -> None:
        self._client = client
        self.renewal_problem = None
        self._tell()
        self._settled.set()

    def _extra(self, started: float) -> dict[str, object]:
        return fields(vault=self.name, generation=self.generation, ms=f"{(time.monotonic() - started) * 1e3:.0f}")

    async def _keep_renewing(self) -> None:
        while True:
            await self._renewal_wanted.wait()
            await self._renewal_pause()
            self._renewal_wanted.clear()
            # Without a connection the next attempt opens all keys anyway.
            if (old := self._client) is not None and self._key_waits(old):
                await self._guarded_renewal(old)
            else:
                self.renewal_problem = None

    async def _renewal_pause(self) -> None:
        """Wait until the connection in service may be replaced; one that came back may be at once."""
        while (wait_s := self._table.next_renewal - self._loop.time()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._news.wait()

    async def _guarded_renewal(self, old: SigningClient) -> None:
        try:
            await self._renew(old)
        except HostError as error:
            self._renewal_failed(old, str(error))
        except Exception:
            # As for an attempt to connect: a bug in one renewal must not keep new keys out for ever.
            logger.exception("bringing new keys in failed by a bug", extra=fields(vault=self.name))
            self._renewal_failed(old, "it failed by a bug: see the log")

    async def _renew(self, old: SigningClient) -> None:
        """Open all keys on a new connection, and replace the old one by it; raises why not, and nothing has changed."""
        started = time.monotonic()
        client = await self._connect(self.limits.sealer_s)
        self._next = client
        try:
            _check_not_ended(old)
            whole = await self._restore(client, old)
            _check_not_ended(client)
        except BaseException:
            client.close()
            raise
        finally:
            self._next = None
        self._table.renewed(self._loop.time(), whole=whole)
        self._leaving.add(old)
        self._put_into_service(client)
        old.finish()
        # Each new key is told of by whoever knows it; of its connection there is nothing to know.
        logger.debug("all keys are on a new connection to the enclave", extra=self._extra(started))

    def _renewal_failed(self, old: SigningClient, reason: str) -> None:
        if self._client is not old:
            # The whole link failed, and comes back with all keys.
            return
        self._table.renewal_failed(self._loop.time())
        problem = f"new keys are not in service yet: {reason}"
        if self.renewal_problem != problem:
            self.renewal_problem = problem
            logger.error("%s", problem, extra=fields(vault=self.name))
        self._renewal_wanted.set()

    def _lost(self, reason: HostError) -> None:
        # An outage is told once, and its end; every attempt in between would fill the log.
        again = str(reason) == self._table.reason and not self._table.serving
        self._table.lost(str(reason), self._loop.time())
        self._settled.set()
        # Without a task the only attempt failed, and whoever asked for it is told.
        quiet = again or self._closed or not self._tasks
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


def _check_not_ended(client: SigningClient) -> None:
    if (end := client.broken) is not None:
        raise end
