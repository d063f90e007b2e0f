"""A vault: one enclave, the blobs that belong to it, and the keys that are open there.

- What the enclave says is checked: the public key of every blob against the stored hash, every signature and proof
  against the key, before anyone gets it; BLS signatures right after, if that was asked for.
- The link comes back by itself, and so do the keys. A request waits for it up to a limit.
- A key that is not released yet is named, and is no fault of the vault.

The vault is usable as a library; `docs/library.md` has an example.
"""

import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from enclave_signer.curves import SignatureCheck
from enclave_signer.protocol.messages import (
    MAX_MESSAGE_BYTES,
    KeyType,
    PublicKey,
    Signature,
    SigningVersion,
)
from host_backend.arguments import require
from host_backend.attestation.report import Shown
from host_backend.enclave.client import EnclaveClient, SigningClient
from host_backend.enclave.endpoint import Endpoint
from host_backend.enclave.link import EnclaveLink
from host_backend.enclave.reporting import ask_report
from host_backend.enclave.supervisor import DEFAULT_LIMITS, LinkLimits, State
from host_backend.errors import EnclaveRefused, EnclaveUnavailable, KeyNotFound, MalformedRequest
from host_backend.keystore.base import KeyStore
from host_backend.leaving import waiting
from host_backend.vault.ahead import verified_ahead
from host_backend.vault.asking import Asking, why_not_open
from host_backend.vault.keyring import Keyring
from host_backend.vault.keys import Pauses, VaultKey
from host_backend.vault.proofs import check_proof, verified_proof
from host_backend.vault.provisioning import Provisioning
from host_backend.vault.verification import Verification, VerifyBls
from host_backend.vault.watch import Watch

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
        self.verification = Verification(name, verify_bls)
        self._enclave = enclave
        self.link = EnclaveLink(name, enclave, self._restore, self._key_waits, limits=limits, jitter=jitter)
        self._ring = Keyring(
            *(name, store, self.link.second, self.link.separate, on_key),
            pauses=Pauses(refused_s=limits.reopen_s),
            jitter=jitter,
            on_restored=on_restored,
        )
        self._watch = Watch(name, self._ring, self.link)
        self._asking = Asking(self.link, self._ring, self._watch, limits.signature_s)
        #: Makes keys, and takes them in; what it has stored is brought into service.
        self.provisioning = Provisioning(name, store, self.link.second, self._watch.take_in)

    @property
    def keys(self) -> tuple[VaultKey, ...]:
        """The keys that are not out of service, in the order in which they were opened first."""
        return self._ring.keys.ready

    @property
    def ready_count(self) -> int:
        """How many keys are not out of service."""
        return self._ring.keys.ready_count

    @property
    def quarantined(self) -> dict[str, str]:
        """Hashes of stored keys that cannot sign until the operator acts, and why."""
        return dict(self._ring.keys.quarantined)

    @property
    def out_of_service(self) -> dict[str, str]:
        """Hashes of all stored keys that cannot sign, and why; also where the sealer is away, or the entry is no key."""
        return {**self._ring.keys.out, **self._ring.damaged}

    @property
    def unreleased(self) -> dict[str, str]:
        """Hashes of stored keys that cannot sign until their service has released them to the enclave, and why."""
        return dict(self._ring.keys.unreleased)

    @property
    def problem(self) -> str | None:
        """Why the vault cannot sign at all; None when it can."""
        if self.link.client is not None:
            return None
        if self.link.state is State.RESTORING:
            opened, stored = self.progress
            return f"restoring: {opened} of {stored} keys dealt with"
        return self.link.problem

    @property
    def degraded(self) -> list[str]:
        """Faults while the vault can sign: keys out of service or not in it yet, a store that cannot be read."""
        reasons = [
            f"{pkh}: {reason}{'; it signs by what was stored before, until this host ends' if self.serves(pkh) else ''}"
            for pkh, reason in self.out_of_service.items()
            if pkh not in self._ring.keys.unreleased
        ]
        problems = (self._ring.store_problem, self._ring.gone_problem, self.link.renewal.problem)
        return reasons + [f"{self.name}: {problem}" for problem in problems if problem is not None]

    @property
    def progress(self) -> tuple[int, int]:
        """Keys that the present restoring, or the last one, has dealt with, and how many are stored."""
        return self._ring.restored_count, len(self._ring.keys)

    def serves(self, pkh: str) -> bool:
        """Return whether a key can be asked for a signature at this moment."""
        client = self.link.client
        return client is not None and client.holds(pkh) and pkh not in self._ring.keys.lapsed

    def opened(self, pkh: str) -> bool:
        """Return whether a key is in service; without a link to the enclave, whether it was and will be."""
        if self.link.client is not None:
            return self.serves(pkh)
        return pkh in self._ring.keys.opened and self._ring.keys.out_of_service(pkh) is None

    def holds(self, pkh: str) -> bool:
        """Return whether this vault holds a key.

        Raises:
            EnclaveRefused: It does, and the key is out of service.
        """
        keys = self._ring.keys
        reason = keys.quarantined.get(pkh) if pkh in keys else self._ring.damaged.get(pkh)
        if reason is not None and not self.serves(pkh):
            raise EnclaveRefused(f"{pkh} is out of service: {reason}")
        return pkh in keys

    def key(self, pkh: str) -> VaultKey:
        """Return a key that was opened.

        Raises:
            KeyNotFound: Not in this vault.
            EnclaveRefused: Out of service.
            EnclaveUnavailable: Not opened yet.
        """
        if not self.holds(pkh):
            raise KeyNotFound(f"{pkh} is not in vault {self.name}")
        key = self._ring.keys.opened.get(pkh)
        if key is None:
            waits = why_not_open(self._ring.keys, pkh)
            raise waits or EnclaveUnavailable(f"{pkh} is not open yet: {self.problem or 'retry later'}")
        return key

    async def opened_key(self, pkh: str) -> VaultKey:
        """Return a key; wait, up to a limit, for one that was never opened, or was stored a moment ago.

        Raises:
            KeyNotFound: Not in this vault.
            EnclaveRefused: Out of service.
            EnclaveUnavailable: Not opened yet: the enclave cannot be reached.
        """
        if not self.holds(pkh):
            await self.read_store()
        if self.holds(pkh) and pkh not in self._ring.keys.opened:
            await self._wait_until_open(pkh)
        return self.key(pkh)

    async def _wait_until_open(self, pkh: str) -> None:
        """Wait, up to a limit, for a stored key to be opened anywhere.

        Raises:
            EnclaveRefused: It does not open.
            EnclaveUnavailable: The enclave cannot be reached.
        """
        with waiting():
            await self.link.ready()
            if not self.serves(pkh):
                await self._watch.look(pkh)
        self.key(pkh)
        if (error := why_not_open(self._ring.keys, pkh)) is not None:
            raise error

    async def ready_key(self, pkh: str, version: SigningVersion) -> VaultKey:
        """Return a key that can be asked for a signature now; wait for that up to a limit.

        Raises:
            KeyNotFound: Not in this vault.
            MalformedRequest: The key's curve has no such version; the enclave is not asked.
            EnclaveRefused: Out of service.
            EnclaveUnavailable: The enclave cannot be reached.
        """
        # The usual case, without a look at anything else: a key open on the connection is in service.
        key = self._ring.keys.opened[pkh] if (at_hand := self.serves(pkh)) else await self.opened_key(pkh)
        if version not in key.public_key.key_type.facts.versions:
            raise _no_such_version(key.public_key.key_type, version)
        if not at_hand and not self.serves(pkh):
            await self._wait_until_open(pkh)
            with waiting():
                await self.link.ready(pkh)
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
        await (self.link.connect_once() if must_succeed else self.link.keep_connecting())
        self._watch.start()

    async def aclose(self) -> None:
        """End the connections to the enclave, and what was under way."""
        await self.verification.aclose()
        await self._watch.aclose()
        await self.link.aclose()

    async def _restore(self, client: EnclaveClient, serving: SigningClient | None) -> bool:
        return await self._ring.restore(client, serving)

    def _key_waits(self, serving: SigningClient) -> bool:
        return self._ring.key_waits(serving)

    def retry(self) -> None:
        """Try whatever is out of service again soon, whatever was said of it: somebody may have mended it."""
        self._ring.keys.retry()
        self._ring.forget_revision()

    async def read_store(self) -> None:
        """See whether the store has new keys; many may ask at once, the store is asked seldom, and no enclave is."""
        with waiting():
            await self._watch.read()

    async def look_again(self) -> None:
        """See whether the store has new keys, and open them; many may ask at once, the store is asked seldom."""
        await self._watch.look()

    async def sign(self, pkh: str, message: bytes, version: SigningVersion = SigningVersion.LATEST) -> Signature:
        """Return a verified signature. No policy, no watermark: those are the signer's.

        Raises:
            KeyNotFound, MalformedRequest: Such a key cannot sign this.
            EnclaveRefused, EnclaveUnavailable: The enclave did not sign, or signed wrongly.
            WatermarkRejected: Its guard has seen another message there.
        """
        require("pkh", pkh, str, "give a public key hash, tz1…")
        require("message", message, bytes, "give the bytes that are signed; bytes.fromhex makes them of hex")
        require("version", version, SigningVersion, "name one of them, such as SigningVersion.LATEST")
        return await self.sign_with(await self.ready_key(pkh, version), message, version)

    async def sign_with(self, key: VaultKey, message: bytes, version: SigningVersion) -> Signature:
        """Return a verified signature of a key that is at hand; see `sign`."""
        _check_size(message)
        expected = verified_ahead(key, message, version, self.link, self.verification)
        client, signature = await self._asking.ask(key.pkh, lambda client: client.sign(key.pkh, message, version))
        check = SignatureCheck(key.verifying_key, signature, message, version, expected)
        await self.verification.pass_signature(client, key, check)
        return signature

    async def report(self, nonce: bytes) -> Shown:
        """Return a token about the enclave, to be shown to others; see `ask_report`."""
        return await ask_report(self._enclave, nonce)

    async def prove_possession(self, pkh: str, other: PublicKey | None = None) -> Signature:
        """Return a verified proof of possession of a tz4 key.

        Args:
            pkh: The key's hash.
            other: The key that the proof is for, where it is another one: the common key of an account of several.

        Raises:
            KeyNotFound, MalformedRequest: No such key, or none that can prove it; or the other one is none.
            EnclaveRefused, EnclaveUnavailable: The enclave did not prove it.
        """
        key = await self.opened_key(pkh)
        check_proof(key, other)
        await self.ready_key(pkh, SigningVersion.LATEST)
        return await verified_proof(partial(self._asking.ask, pkh), self.verification, key, other)


def _check_size(message: bytes) -> None:
    if len(message) > MAX_MESSAGE_BYTES:
        raise MalformedRequest(f"message of {len(message)} bytes, the limit is {MAX_MESSAGE_BYTES}")


def _no_such_version(key_type: KeyType, version: SigningVersion) -> MalformedRequest:
    facts = key_type.facts
    others = " or ".join(str(int(other)) for other in sorted(facts.versions - {SigningVersion.LATEST}))
    advice = f"use version {others}" if others else "it has only the latest one: leave `version` out"
    return MalformedRequest(f"version {int(version)} cannot be signed by a {facts.address} key: {advice}")


@asynccontextmanager
async def open_vault(
    store: KeyStore,
    enclave: Endpoint,
    *,
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
        enclave: Where the enclave is, and what its sealer uses.
        name: How the vault is called in texts.
        must_succeed: Whether an enclave that does not answer is an error; else it is waited for.
        verify_bls: Whether BLS signatures are verified before they are released (`inline`), or right after
            (`background`): then a wrong one is out when it is found. Other curves, public keys and proofs are always
            verified before.
        limits: Times of the link.
        on_key: Called with every key when it comes into service for the first time.
        on_restored: Called after each key of a restore with the number done, and the total.

    Raises:
        EnclaveRefused, EnclaveUnavailable: The enclave does not answer, or not with yes.
        ConfigError, StoreUnavailable: The store cannot be read.
    """
    vault = Vault(name, store, enclave, verify_bls=verify_bls, limits=limits, on_key=on_key, on_restored=on_restored)
    try:
        await vault.start(must_succeed=must_succeed)
        yield vault
    finally:
        await vault.aclose()
