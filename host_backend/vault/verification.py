"""Nothing that an enclave signed is believed: every signature and proof is checked against its key.

- Before it is released; BLS signatures right after, where that was asked for, and while few enough are waiting.
- One that is wrong ends the connection that it came from, is counted, and is logged as an error.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

from enclave_signer.curves import CurveError, SignatureCheck
from host_backend.enclave.client import SigningClient
from host_backend.errors import EnclaveRefused
from host_backend.log import fields
from host_backend.vault.batches import Batches
from host_backend.vault.keys import VaultKey

logger = logging.getLogger(__name__)

#: Signatures that are verified in the background at once: 80 ms of work. Beyond that they are verified before release.
BACKGROUND_LIMIT = 64

#: When BLS signatures are verified: before they are released, or right after. The other curves always before.
VerifyBls = Literal["inline", "background"]


class Verification:
    """Checks what one vault's enclave signed."""

    def __init__(self, vault: str, verify_bls: VerifyBls) -> None:
        self._vault = vault
        self._in_background = verify_bls == "background"
        self._batches = Batches()
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_was_slow = True
        #: Signatures and proofs that were wrong.
        self.failures = 0

    @property
    def may_begin(self) -> bool:
        """Whether a slow signature that is awaited alone gains by a verification begun before it is there.

        It does not keep others from the event loop where the last signature was slow, and by itself, too.
        """
        return not self._in_background and self._last_was_slow and self._batches.quiet

    async def pass_signature(self, client: SigningClient, key: VaultKey, check: SignatureCheck) -> None:
        """Return when a signature may be released.

        Args:
            client: The connection that it came from.
            key: The key that was asked for.
            check: The signature, and what it must be.

        Raises:
            EnclaveRefused: It is wrong.
        """
        facts = key.public_key.key_type.facts
        self._last_was_slow = slow = facts.slow
        # Only a baker is in a hurry.
        if slow and facts.bakes and self._in_background and len(self._tasks) < BACKGROUND_LIMIT:
            task = asyncio.create_task(self._check_later(client, key, check))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif slow:
            await self._check_slow(client, key, check)
        else:
            try:
                check.verify()
            except CurveError as error:
                raise self._wrong(client, key, error) from error

    async def check(self, client: SigningClient, key: VaultKey, verify: Callable[[], None]) -> None:
        """Check a proof before it is released.

        Args:
            client: The connection that it came from.
            key: The key that was asked for.
            verify: Raises `CurveError` when the proof is wrong; runs in another thread.

        Raises:
            EnclaveRefused: It is wrong.
        """
        try:
            await asyncio.to_thread(verify)
        except CurveError as error:
            raise self._wrong(client, key, error) from error

    async def aclose(self) -> None:
        """Wait for signatures being verified: a wrong one that is out must become known."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _check_slow(self, client: SigningClient, key: VaultKey, check: SignatureCheck) -> None:
        try:
            await self._batches.verify(check)
        except CurveError as error:
            raise self._wrong(client, key, error) from error

    async def _check_later(self, client: SigningClient, key: VaultKey, check: SignatureCheck) -> None:
        try:
            # A wrong signature was counted and logged, and has ended the connection.
            with suppress(EnclaveRefused):
                await self._check_slow(client, key, check)
        except Exception:
            logger.exception(
                "a signature that was released is not verified, because of a bug",
                extra=fields(pkh=key.pkh, vault=self._vault),
            )

    def _wrong(self, client: SigningClient, key: VaultKey, error: CurveError) -> EnclaveRefused:
        self.failures += 1
        # Whatever else this connection says cannot be trusted either.
        client.close()
        text = f"the enclave's signature does not verify for {key.pkh}: {error}"
        logger.error("%s", text, extra=fields(pkh=key.pkh, vault=self._vault))
        return EnclaveRefused(text)
