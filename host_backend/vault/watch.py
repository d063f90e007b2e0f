"""Looking whether the key store has something new, and trying the keys that are due."""

import asyncio
import contextvars
import logging
from collections.abc import Sequence

from host_backend.enclave.link import EnclaveLink
from host_backend.errors import HostError
from host_backend.keystore.base import StoredKey
from host_backend.log import fields
from host_backend.vault.keyring import Keyring

logger = logging.getLogger(__name__)


class Watch:
    """Looks from time to time, and when somebody asks for a key that is not known.

    Args:
        vault: The vault's name, for the log.
        ring: Reads the store, and tries keys.
        link: Brings those that open into service.
    """

    def __init__(self, vault: str, ring: Keyring, link: EnclaveLink) -> None:
        self._vault = vault
        self._ring = ring
        self._link = link
        self._running: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._read_at = -link.limits.look_again_s
        self._looked_at = -link.limits.look_again_s

    def start(self) -> None:
        """Look from now on."""
        self._running = asyncio.create_task(self._run(), name=f"watch of vault {self._vault}")

    async def aclose(self) -> None:
        """Look no more."""
        tasks = [task for task in (self._running, self._looking, self._reading) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._pause_s())
            await self.look()

    def _pause_s(self) -> float:
        """Return the seconds until the next look; without a link to the enclave there is nothing that could be tried."""
        if self._link.client is None:
            return self._ring.look_s
        now = asyncio.get_running_loop().time()
        due_s = max(self._ring.keys.next_due(now) - now, self._link.limits.look_again_s)
        return min(self._ring.look_s, due_s)

    async def look(self) -> None:
        """See whether the store has new keys, and open them; many may ask at once, the store is asked seldom."""
        loop = asyncio.get_running_loop()
        if self._looking is None or self._looking.done():
            if loop.time() - self._looked_at < self._link.limits.look_again_s:
                return
            self._looked_at = loop.time()
            # The result does not belong to a request.
            self._looking = asyncio.create_task(self._look(), context=contextvars.Context())
        # A caller that leaves does not take the others' look away.
        await asyncio.wait([self._looking], timeout=self._link.limits.ready_s)

    async def read(self) -> None:
        """See whether the store has new keys, without waiting for any to be opened: a sealer may take long for others."""
        loop = asyncio.get_running_loop()
        if self._reading is None or self._reading.done():
            if loop.time() - self._read_at < self._link.limits.look_again_s:
                return
            self._read_at = loop.time()
            self._reading = asyncio.create_task(self._ring.look_again(), context=contextvars.Context())
        await asyncio.wait([self._reading], timeout=self._link.limits.ready_s)

    async def _look(self) -> None:
        await self.read()
        if (client := self._link.client) is not None:
            await self._ring.try_due(client, self._bring_in)
            self._bring_in()

    async def take_in(self, stored: Sequence[StoredKey]) -> None:
        """Bring keys into service that were stored a moment ago."""
        for key in stored:
            self._ring.keys.store(key.pkh, (key.blob,))
            try:
                await self._ring.try_out(key.pkh)
            except HostError as error:
                # It is stored: it is opened as soon as that can be done.
                logger.warning("stored, and not open yet: %s", error, extra=fields(pkh=key.pkh, vault=self._vault))
        self._bring_in()

    def _bring_in(self) -> None:
        """Tell the link what became of keys that were tried out; those that open come into service soon."""
        self._link.keys_changed(whole=self._ring.keys.whole)
        self._link.renew()
