"""A new connection in place of the one in service, made ready while that one goes on signing.

- New keys come with it, and a new proof of the enclave before the present one expires.
- All good keys are opened on it; then it takes the old one's place, which ends when its last answer has come.
- If it cannot open what the old one holds, or fails, the old one stays, and it is tried again later.
- A connection whose proof cannot be renewed goes on as long as its proof lets it, and no longer.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol

from host_backend.enclave.client import EnclaveClient, SigningClient
from host_backend.enclave.in_service import InService
from host_backend.enclave.supervisor import Supervisor
from host_backend.errors import HostError
from host_backend.log import fields

logger = logging.getLogger(__name__)

#: Opens all keys on a new connection; all known to open, if it will replace one in service. Returns whether every stored
#: key is in service then.
Restore = Callable[[EnclaveClient, SigningClient | None], Awaitable[bool]]

#: Whether a key could be open on a new connection that is not open on the one in service.
KeyWaits = Callable[[SigningClient], bool]


class Connect(Protocol):
    """Makes a connection; proven by a new token if it must be so."""

    def __call__(self, *, by_new_token: bool) -> Awaitable[EnclaveClient]:
        """Return it."""
        ...


class Renewal:
    """Replaces the connection in service whenever a key waits for that, or its proof is due.

    Args:
        vault: The vault's name, for the log.
        service: Where the connection is.
        table: Says when.
        connect: Makes a connection.
        restore: Opens all keys on it.
        key_waits: Tells whether a key waits for one.

    Attributes:
        problem: Why the connection in service cannot be replaced; None when it can, or need not be.
    """

    def __init__(
        self,
        vault: str,
        service: InService,
        table: Supervisor,
        connect: Connect,
        restore: Restore,
        key_waits: KeyWaits,
    ) -> None:
        self._vault = vault
        self._service = service
        self._table = table
        self._connect = connect
        self._restore = restore
        self._key_waits = key_waits
        self._now = asyncio.get_running_loop().time
        self._wanted = asyncio.Event()
        #: The connection in preparation; and the replaced one, which has answers to come.
        self._next: EnclaveClient | None = None
        self._leaving: set[SigningClient] = set()
        self.problem: str | None = None

    def ask(self) -> None:
        """Soon: if a key waits, or the proof is due, replace the connection in service."""
        self._wanted.set()

    def insist(self) -> None:
        """At once: replace the connection in service if its proof is due; where there is none, try to make one."""
        if self._service.client is None:
            self._table.hurry()
            self._service.wanted.set()
        self._wanted.set()

    def ended(self, client: SigningClient) -> None:
        """Note that a connection has ended."""
        self._leaving.discard(client)

    def give_up(self) -> None:
        """End the connection in preparation: the link returns with all keys, and does not wait as long for a silent enclave."""
        if self._next is not None:
            self._next.close()

    def close(self) -> None:
        """End the connections that were replaced."""
        for client in tuple(self._leaving):
            client.close()

    async def run(self) -> None:
        """Bring keys in whenever that is asked for, until cancelled."""
        while True:
            await self._wanted.wait()
            await self._pause()
            self._wanted.clear()
            # Without a connection the next attempt opens all keys anyway.
            if (old := self._service.client) is not None and (old.proof_is_due or self._key_waits(old)):
                await self._guarded(old)
            else:
                self.problem = None

    async def _pause(self) -> None:
        """Wait until the connection in service may be replaced; one that came back may be at once."""
        while (wait_s := self._table.next_renewal - self._now()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._service.change()

    async def _guarded(self, old: SigningClient) -> None:
        try:
            await self._renew(old)
        except HostError as error:
            self._failed(old, str(error))
        except Exception:
            # The one catch-all of this task: a bug in one renewal must not keep new keys out for ever.
            logger.exception("bringing new keys in failed because of a bug", extra=fields(vault=self._vault))
            self._failed(old, "it failed because of a bug: see the log")

    async def _renew(self, old: SigningClient) -> None:
        """Open all keys on a new connection, and replace the old one by it; raises why not, and nothing has changed."""
        started = time.monotonic()
        client = await self._connect(by_new_token=old.proof_is_due)
        self._next = client
        try:
            old.require_alive()
            whole = await self._restore(client, old)
            client.require_alive()
        except BaseException:
            client.close()
            raise
        finally:
            self._next = None
        self._table.renewed(self._now(), whole=whole)
        self._leaving.add(old)
        self._service.put(client)
        self.problem = None
        old.finish()
        # The caller announces each new key; about its connection there is nothing to report.
        ms = f"{(time.monotonic() - started) * 1e3:.0f}"
        extra = fields(vault=self._vault, generation=self._table.generation, ms=ms)
        logger.debug("all keys are on a new connection to the enclave", extra=extra)

    def _failed(self, old: SigningClient, reason: str) -> None:
        if self._service.client is not old:
            # The whole link failed, and comes back with all keys.
            return
        self._table.renewal_failed(self._now())
        problem = f"new keys are not in service yet: {reason}"
        if old.proof_is_due:
            old.outlast_proof()
            until = datetime.fromtimestamp(old.good_until, UTC).isoformat(timespec="seconds")
            problem = f"the proof of the enclave could not be renewed, it signs on until {until}: {reason}"
        if self.problem != problem:
            self.problem = problem
            logger.error("%s", problem, extra=fields(vault=self._vault))
        self._wanted.set()
