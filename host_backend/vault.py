"""A vault: one enclave, the blobs that belong to it, and the keys that are open there.

- A key is announced only after its blob is durable.
- What the enclave says is checked: the public key of every blob against the stored hash, the public key of an import
  against the secret, every signature and proof against the key, before anyone gets it; BLS signatures right after, if
  that was asked for.
- The link comes back by itself, and so do the keys. A request waits for it up to a limit.

The vault is usable as a library; `docs/library.md` has an example.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from enclave_signer.curves import CurveError, curve
from enclave_signer.protocol.codec import MAX_MESSAGE_BYTES
from enclave_signer.protocol.messages import Credentials, KeyType, PrivateKey, Signature, SigningVersion
from enclave_signer.tezos import public_key_hash
from host_backend.enclave.client import EnclaveClient, Endpoint, SigningClient
from host_backend.enclave.link import EnclaveLink
from host_backend.enclave.supervisor import DEFAULT_LIMITS, LinkLimits, State
from host_backend.errors import EnclaveRefused, EnclaveUnavailable, HostError, KeyNotFound, MalformedRequest
from host_backend.keyring import Keyring, VaultKey, checked_key
from host_backend.keystore.base import KeyStore
from host_backend.log import fields
from host_backend.verification import Verification, VerifyBls

logger = logging.getLogger(__name__)


class Vault:
    """The keys of one enclave. Use `open_vault`."""

    def __init__(
        self,
        name: str,
        store: KeyStore,
        enclave: Endpoint,
        *,
        verify_bls: VerifyBls = "inline",
        limits: LinkLimits = DEFAULT_LIMITS,
        jitter: Callable[[], float] = random.random,
        on_key: Callable[[VaultKey], None] = lambda _: None,
        on_restored: Callable[[int, int], None] = lambda _done, _all: None,
    ) -> None:
        self.name = name
        self._verification = Verification(name, verify_bls)
        self._limits = limits
        self._link = EnclaveLink(name, enclave, self._restore, self._key_waits, limits=limits, jitter=jitter)
        self._ring = Keyring(name, store, self._link.second, self._link.separate, on_key, on_restored)
        self._watching: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._looked_at = -limits.look_again_s
        self._reopen_at = 0.0

    @property
    def keys(self) -> tuple[VaultKey, ...]:
        """The keys that are in service, in stored order."""
        return tuple(key for pkh, key in self._ring.keys.items() if pkh not in self._ring.quarantined)

    @property
    def quarantined(self) -> dict[str, str]:
        """Hashes of stored keys that cannot sign, and why."""
        return dict(self._ring.quarantined)

    @property
    def problem(self) -> str | None:
        """Why the vault cannot sign at all; None when it can."""
        if self._link.client is not None:
            return None
        if self.state is State.RESTORING:
            opened, stored = self.progress
            return f"restoring: {opened} of {stored} keys dealt with"
        return self._link.problem

    @property
    def degraded(self) -> list[str]:
        """What is wrong while the vault can sign: keys out of service or not in it yet, a store that cannot be read."""
        reasons = [f"{pkh}: {reason}" for pkh, reason in self._ring.quarantined.items()]
        problems = (self._ring.store_problem, self._link.renewal_problem)
        return reasons + [f"{self.name}: {problem}" for problem in problems if problem is not None]

    @property
    def state(self) -> State:
        """What the link to the enclave is doing."""
        return self._link.state

    @property
    def generation(self) -> int:
        """Connections for signatures that were made so far."""
        return self._link.generation

    @property
    def reconnects(self) -> int:
        """How often all keys were opened again because the connection had ended."""
        return self._link.reconnects

    @property
    def retries(self) -> int:
        """Calls that were asked for once more on a new connection."""
        return self._link.retries

    @property
    def verification_failures(self) -> int:
        """Signatures and proofs of the enclave that were wrong."""
        return self._verification.failures

    @property
    def progress(self) -> tuple[int, int]:
        """Keys that the present restoring, or the last one, has dealt with, and how many are stored."""
        return self._ring.restored_count, self._ring.stored_count

    def serves(self, pkh: str) -> bool:
        """Return whether a key can be asked for a signature at this moment."""
        client = self._link.client
        return client is not None and client.holds(pkh)

    def opened(self, pkh: str) -> bool:
        """Return whether a key was opened at least once, and is not out of service."""
        return pkh in self._ring.keys and pkh not in self._ring.quarantined

    def find(self, pkh: str) -> bool:
        """Return whether this vault holds a key.

        Raises:
            EnclaveRefused: It does, and the key is out of service.
        """
        if pkh in self._ring.quarantined:
            raise EnclaveRefused(f"{pkh} is out of service: {self._ring.quarantined[pkh]}")
        return pkh in self._ring.keys or self._ring.stores(pkh)

    def key(self, pkh: str) -> VaultKey:
        """Return a key that was opened.

        Raises:
            KeyNotFound: Not in this vault.
            EnclaveRefused: Out of service.
            EnclaveUnavailable: Not opened yet.
        """
        if not self.find(pkh):
            raise KeyNotFound(f"{pkh} is not in vault {self.name}")
        if pkh not in self._ring.keys:
            raise EnclaveUnavailable(f"{pkh} is not open yet: {self.problem or 'retry later'}")
        return self._ring.keys[pkh]

    async def opened_key(self, pkh: str) -> VaultKey:
        """Return a key; wait, up to a limit, for one that was never opened, or was stored a moment ago.

        Raises:
            KeyNotFound: Not in this vault.
            EnclaveRefused: Out of service.
            EnclaveUnavailable: Not opened yet: the enclave cannot be reached.
        """
        if not self.find(pkh):
            await self.look_again()
        elif pkh not in self._ring.keys:
            await self._wait_until_open(pkh)
        return self.key(pkh)

    async def _wait_until_open(self, pkh: str) -> None:
        """Wait, up to a limit, for a stored key to be opened anywhere.

        Raises:
            EnclaveRefused: It does not open.
            EnclaveUnavailable: The enclave cannot be reached.
        """
        if not (await self._link.ready()).holds(pkh):
            await self.look_again()
        self.key(pkh)

    async def ready_key(self, pkh: str, version: SigningVersion) -> VaultKey:
        """Return a key that can be asked for a signature now; wait for that up to a limit.

        Raises:
            KeyNotFound: Not in this vault.
            MalformedRequest: The key's curve has no such version; no enclave shall hear of it.
            EnclaveRefused: Out of service.
            EnclaveUnavailable: The enclave cannot be reached.
        """
        # The usual case, without a look at anything else: what is open on the connection is in service.
        key = self._ring.keys[pkh] if self.serves(pkh) else await self.opened_key(pkh)
        if version is SigningVersion.V0 and key.public_key.key_type is KeyType.BLS:
            raise MalformedRequest("version 0 cannot be signed by a tz4 key: use version 1 or 2")
        if not self.serves(pkh):
            await self._wait_until_open(pkh)
            await self._link.ready(pkh)
        return key

    async def start(self, *, must_succeed: bool) -> None:
        """Read the store, connect, and open all keys; from then on the vault looks after itself.

        Args:
            must_succeed: Whether an enclave that does not answer is an error; else it is waited for for ever, and this
                returns after the first attempt.

        Raises:
            ConfigError, StoreUnavailable: The store cannot be read.
            EnclaveRefused, EnclaveUnavailable: The enclave does not answer, or not with yes.
        """
        await self._ring.load()
        await (self._link.connect_once() if must_succeed else self._link.keep_connecting())
        self._reopen_at = asyncio.get_running_loop().time() + self._limits.reopen_s
        self._watching = asyncio.create_task(self._watch(), name=f"watch of vault {self.name}")

    async def aclose(self) -> None:
        """End the connections to the enclave, and what was under way."""
        await self._verification.aclose()
        tasks = [task for task in (self._watching, self._looking) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._link.aclose()

    async def _restore(self, client: EnclaveClient, serving: SigningClient | None) -> bool:
        return await self._ring.restore(client, serving)

    def _key_waits(self, serving: SigningClient) -> bool:
        return self._ring.key_waits(serving)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._limits.watch_s)
            await self.look_again()

    async def look_again(self) -> None:
        """See whether the store has new keys, and open them; many may ask at once, the store is asked seldom."""
        loop = asyncio.get_running_loop()
        if self._looking is None or self._looking.done():
            if loop.time() - self._looked_at < self._limits.look_again_s:
                return
            self._looked_at = loop.time()
            self._looking = asyncio.create_task(self._look())
        # Whoever leaves does not take the others' look away.
        await asyncio.wait([self._looking], timeout=self._limits.ready_s)

    async def _look(self) -> None:
        await self._ring.look_again()
        client = self._link.client
        if client is None:
            return
        now = asyncio.get_running_loop().time()
        reopen = now >= self._reopen_at
        if reopen:
            self._reopen_at = now + self._limits.reopen_s
        await self._ring.try_missing(client, reopen=reopen, on_tried=self._bring_in)
        self._bring_in()

    def _bring_in(self) -> None:
        """Tell the link what became of keys that were tried out; those that open come into service soon."""
        self._link.keys_changed(whole=not self._ring.quarantined)
        self._link.renew()

    async def generate(self, key_type: KeyType) -> VaultKey:
        """Make a key inside the enclave and store its blob.

        Raises:
            EnclaveRefused, EnclaveUnavailable: The enclave did not make it.
            ConfigError, StoreUnavailable: Its blob could not be stored: there is no such key.
        """
        async with self._link.second() as second:
            sealed = await second.generate(key_type)
        key = checked_key(sealed.public_key, public_key_hash(sealed.public_key))
        if sealed.public_key.key_type is not key_type:
            raise EnclaveRefused(f"the enclave made a key of type {sealed.public_key.key_type}, not {key_type}")
        return await self._keep(key, sealed.blob)

    async def import_key(self, private_key: PrivateKey, *, replace: bool = False) -> VaultKey:
        """Have a key sealed by the enclave and store its blob; a key already stored stays as it is.

        Args:
            private_key: The secret.
            replace: Whether a stored blob that takes this key out of service may be replaced; the store keeps it aside.

        Raises:
            MalformedRequest: The secret is no private key of its curve.
            EnclaveRefused, EnclaveUnavailable: The enclave did not take it; or it is stored, and out of service.
            ConfigError, StoreUnavailable: Its blob could not be stored.
        """
        try:
            expected = curve(private_key.key_type).open(private_key).public_key
        except CurveError as error:
            raise MalformedRequest(f"not a private key: {error}") from None
        pkh = public_key_hash(expected)
        if pkh in self._ring.quarantined and not replace:
            raise EnclaveRefused(
                f"{pkh} is stored already, and out of service: {self._ring.quarantined[pkh]}: "
                "to have the stored blob replaced, import the key again with --replace"
            )
        async with self._link.second() as second:
            sealed = await second.import_unencrypted(private_key)
        if sealed.public_key != expected:
            raise EnclaveRefused("the enclave sealed another key than it was given: nothing was stored")
        return await self._keep(checked_key(sealed.public_key, pkh), sealed.blob, replace=replace)

    async def _keep(self, key: VaultKey, blob: bytes, *, replace: bool = False) -> VaultKey:
        if replace and key.pkh in self._ring.quarantined:
            await self._ring.replace(key, blob)
        elif not await self._ring.add(key, blob):
            logger.info("already stored: kept as it was", extra=fields(pkh=key.pkh, vault=self.name))
            # Another process may have stored it a moment ago.
            return await self.opened_key(key.pkh)
        try:
            await self._ring.try_out(key.pkh)
        except HostError as error:
            # It is stored: it is opened as soon as that can be done.
            logger.warning("stored, and not open yet: %s", error, extra=fields(pkh=key.pkh, vault=self.name))
        self._bring_in()
        self.find(key.pkh)
        return key

    async def sign(self, pkh: str, message: bytes, version: SigningVersion = SigningVersion.LATEST) -> Signature:
        """Return a verified signature. No policy, no watermark: those are the signer's.

        Raises:
            KeyNotFound, MalformedRequest: Such a key cannot sign this.
            EnclaveRefused, EnclaveUnavailable: The enclave did not sign, or signed wrongly.
            WatermarkRejected: Its guard has seen another message there.
        """
        return await self.sign_with(await self.ready_key(pkh, version), message, version)

    async def sign_with(self, key: VaultKey, message: bytes, version: SigningVersion) -> Signature:
        """Return a verified signature of a key that is at hand; see `sign`."""
        if len(message) > MAX_MESSAGE_BYTES:
            raise MalformedRequest(f"message of {len(message)} bytes, the limit is {MAX_MESSAGE_BYTES}")
        client, signature = await self._ask(lambda client: client.sign(key.pkh, message, version))

        def verify() -> None:
            key.verifying_key.verify(signature, message, version)

        await self._verification.pass_signature(client, key, verify)
        return signature

    async def prove_possession(self, pkh: str) -> Signature:
        """Return a verified proof of possession of a tz4 key.

        Raises:
            KeyNotFound, MalformedRequest: No such key, or none that can prove it.
            EnclaveRefused, EnclaveUnavailable: The enclave did not prove it.
        """
        key = await self.opened_key(pkh)
        if key.public_key.key_type is not KeyType.BLS:
            raise MalformedRequest("proof of possession is not supported: only tz4 keys have it")
        await self.ready_key(pkh, SigningVersion.LATEST)
        client, proof = await self._ask(lambda client: client.prove_possession(pkh))
        await self._verification.check(client, key, lambda: key.verifying_key.verify_possession(proof))
        return proof

    async def _ask(self, ask: Callable[[SigningClient], Awaitable[Signature]]) -> tuple[SigningClient, Signature]:
        limit_s = self._limits.signature_s
        try:
            async with asyncio.timeout(limit_s):
                return await self._link.ask_idempotent(ask)
        except TimeoutError:
            raise EnclaveUnavailable(f"the enclave gave no signature within {limit_s:g} s") from None


@asynccontextmanager
async def open_vault(
    store: KeyStore,
    *,
    host: str,
    port: int,
    credentials: Credentials | None = None,
    name: str = "vault",
    must_succeed: bool = True,
    verify_bls: VerifyBls = "inline",
    limits: LinkLimits = DEFAULT_LIMITS,
    on_key: Callable[[VaultKey], None] = lambda _: None,
    on_restored: Callable[[int, int], None] = lambda _done, _all: None,
) -> AsyncIterator[Vault]:
    """Connect to an enclave, restore every stored key, keep the link up, and close it at the end.

    Args:
        store: Where the blobs are kept.
        host: The enclave's address.
        port: The enclave's port.
        credentials: What the enclave's sealer shall use; the `local` sealer needs none.
        name: How the vault is called in texts.
        must_succeed: Whether an enclave that does not answer is an error; else it is waited for.
        verify_bls: Whether BLS signatures are verified before they are released (`inline`), or right after
            (`background`): then a wrong one is out when it is found. Other curves, public keys and proofs are always
            verified before.
        limits: Times of the link.
        on_key: Told of every key when it comes into service for the first time.
        on_restored: Told, after each key of a restoring, how many it has dealt with, and of how many.

    Raises:
        EnclaveRefused, EnclaveUnavailable: The enclave does not answer, or not with yes.
        ConfigError, StoreUnavailable: The store cannot be read.
    """
    enclave = Endpoint(host, port, credentials or Credentials())
    vault = Vault(name, store, enclave, verify_bls=verify_bls, limits=limits, on_key=on_key, on_restored=on_restored)
    try:
        await vault.start(must_succeed=must_succeed)
        yield vault
    finally:
        await vault.aclose()
