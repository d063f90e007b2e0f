"""The link to one enclave: a connection for signatures that comes back by itself, and a second one for the rest.

- Calls that may leave the enclave (a new key, the first opening of a blob) take the second connection: answers come in
  order, and no signature may wait for a sealer.
- Nor is a key ever opened on the connection in service: new keys come with a new connection (`renewal`).
- A connection that ends fails the calls in flight. Only idempotent calls without an answer are asked once more, on
  the next one. An answer is final: the next connection may lead to an enclave that knows nothing of what this one said.
- The tasks in here end when the link is closed, and for no other reason.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import TypeVar

from host_backend.enclave.client import EnclaveClient, SigningClient, open_client
from host_backend.enclave.endpoint import Endpoint
from host_backend.enclave.in_service import InService
from host_backend.enclave.questions import Questions
from host_backend.enclave.renewal import KeyWaits, Renewal, Restore
from host_backend.enclave.rereading import reread
from host_backend.enclave.side_connection import SideConnection
from host_backend.enclave.supervisor import DEFAULT_LIMITS, LinkLimits, State, Supervisor
from host_backend.errors import AttestationRefused, EnclaveUnavailable, HostError, NoLongerTrusted, Unanswered
from host_backend.log import fields

logger = logging.getLogger(__name__)

T = TypeVar("T")


class EnclaveLink:
    """One enclave, as long as somebody wants it. All methods belong to one event loop.

    Args:
        name: The vault's name, for the log.
        enclave: Where it is; its name is resolved again at every attempt.
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
        self._loop = asyncio.get_running_loop()
        self._table = Supervisor(limits, jitter, self._loop.time())
        self._service = InService()
        connect = partial(self._connect, limits.sealer_s)
        #: Brings new keys in.
        self.renewal = Renewal(name, self._service, self._table, connect, restore, key_waits)
        #: Uses the files that the enclave is reached and judged by as they are now.
        self.reread = partial(reread, name, enclave, self.renewal)
        self._ended, self._settled = asyncio.Event(), asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False
        self._second = SideConnection(enclave, limits)
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
        """How often all keys were opened again because the connection had ended."""
        return max(0, self._table.restored_count - 1)

    @property
    def client(self) -> SigningClient | None:
        """The present connection for signatures; None while there is none."""
        return self._service.client

    @property
    def problem(self) -> str | None:
        """Why no signature can be asked for; None when one can."""
        if self.client is not None:
            return None
        return self._table.reason or f"{self.state} to the enclave at {self._enclave.address}"

    @property
    def proof_overdue(self) -> bool:
        """Whether another proof of the enclave was due and could not be had."""
        return self.client is not None and self.client.proof_is_due and self.renewal.problem is not None

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
        questions = Questions(self._service, self.renewal, self.limits.check_s)
        tasks = {"link": self._keep_up(), "renewals": self.renewal.run(), "questions": questions.run()}
        self._tasks = [asyncio.create_task(run, name=f"{what} of vault {self.name}") for what, run in tasks.items()]

    async def aclose(self) -> None:
        """End all connections, and the tasks that make them."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.renewal.close()
        self._second.close()
        self._service.close()

    def renew(self) -> None:
        """Soon: if a key waits, open all keys on a new connection, and have it replace the one in service."""
        self.renewal.ask()

    def keys_changed(self, *, whole: bool) -> None:
        """Note whether every stored key is in service."""
        self._table.keys_changed(whole=whole)

    async def ready(self, pkh: str | None = None) -> SigningClient:
        """Return the present connection, with a key open on it if one is named; wait for it up to a limit.

        Raises:
            EnclaveUnavailable: There is none; the text says why.
        """
        if (client := self._service.with_key(pkh)) is not None:
            return client
        try:
            return await self._service.wait_for(pkh, self.limits.ready_s)
        except TimeoutError:
            raise EnclaveUnavailable(self._why_not(pkh)) from None

    def _why_not(self, pkh: str | None) -> str:
        if self.client is None or pkh is None:
            return self.problem or "the enclave was not ready in time: retry later"
        return self.renewal.problem or f"{pkh} is not in service yet: retry later"

    async def ask_idempotent(self, ask: Callable[[SigningClient], Awaitable[T]]) -> tuple[SigningClient, T]:
        """Return the answer of a call that may be made twice, and the connection that it came from.

        Raises:
            EnclaveRefused, EnclaveUnavailable, WatermarkRejected: As `ask` does, at once or when it was asked again.
        """
        client = self.client or await self.ready()
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
        """Give a connection that no other task uses, with the time limits of opening keys.

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
            if self.client is None:
                with suppress(HostError):
                    await self._guarded_attempt()
            if self.client is not None:
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
            logger.exception("an attempt to reach the enclave failed because of a bug", extra=fields(vault=self.name))
            self._lost(EnclaveUnavailable("an attempt to reach the enclave failed because of a bug: see the log"))

    async def _attempt(self, patience_s: float) -> None:
        """Connect, open all keys, and put the connection into service; raises why not, and has noted it then."""
        started = time.monotonic()
        self._ended.clear()
        client: EnclaveClient | None = None
        try:
            client = await self._connect(patience_s)
            self._table.connected()
            whole = await self._restore(client, None)
            client.require_alive()
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
        self._service.put(client)
        self.renewal.problem = None
        self._settled.set()
        ms = f"{(time.monotonic() - started) * 1e3:.0f}"
        extra = fields(vault=self.name, generation=self.generation, ms=ms)
        logger.log(logging.INFO if whole else logging.WARNING, "the link to the enclave is %s", self.state, extra=extra)

    async def _connect(self, patience_s: float, *, by_new_token: bool = False) -> EnclaveClient:
        """Return a connection that takes itself out of service when it ends, perhaps proven by a new token."""
        client: EnclaveClient | None = None

        def on_end(reason: Unanswered) -> None:
            if client is None:
                return
            self.renewal.ended(client)
            if self._service.take_out(client):
                self._lost(reason)
                self._ended.set()
                self.renewal.give_up()

        client = await open_client(
            self._enclave, limits=self.limits, patience_s=patience_s, on_end=on_end, by_new_token=by_new_token
        )
        return client

    def _lost(self, reason: HostError) -> None:
        # An outage is logged once, and its end; every attempt in between would fill the log.
        again = str(reason) == self._table.reason and not self._table.serving
        refused = isinstance(reason, AttestationRefused | NoLongerTrusted)
        self._table.lost(str(reason), self._loop.time(), refused=refused)
        self._settled.set()
        # Without a task the only attempt failed, and its caller gets the error.
        quiet = again or self._closed or not self._tasks
        logger.log(
            logging.DEBUG if quiet else logging.ERROR,
            "no link to the enclave: %s",
            reason,
            extra=fields(vault=self.name),
        )

    async def _pause(self) -> None:
        while (wait_s := self._table.next_attempt(wanted=self._service.waiting > 0) - self._loop.time()) > 0:
            self._service.wanted.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._service.wanted.wait()
