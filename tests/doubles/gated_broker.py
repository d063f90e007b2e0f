"""A service that releases a gated key or does not, as it is set; and callers of that key, by the clock of a test."""

import math
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from enclave_signer.errors import (
    BlobCorrupt,
    EnclaveSignerError,
    NotReleased,
    ReleaseDenied,
    SealingRefused,
    SealingUnavailable,
)
from enclave_signer.protocol.blob import BlobHeader
from enclave_signer.protocol.messages import Credentials, KeyType, PrivateKey, PublicKey
from enclave_signer.sealing.base import Sealer, UnsealedKey
from enclave_signer.sealing.gated_rules import GatedRule
from enclave_signer.sealing.providers import Providers
from enclave_signer.sealing.releases import Release

BROKER, KEY = "broker", "broker:key"
CREDENTIALS = Credentials()
FRESH_S, RETRY_S, LIMIT_S = 60.0, 10.0, 5.0
DENIED, HELD, DOWN = ReleaseDenied("policy"), NotReleased("wait"), SealingUnavailable("away")
PUBLIC = PublicKey(KeyType.ED25519, bytes(32))


class Broker:
    """A provider and its sealer: what it answers is set; counts how often it is asked for its key, and for a blob."""

    shared_s = math.inf
    takes_legacy = False
    limit_s: float | None = LIMIT_S

    def __init__(self) -> None:
        self.name = BROKER
        self.asked_for: list[Credentials] = []
        #: To a question for the key; and to one for a blob.
        self.answer: Exception | None = None
        self.answer_to_blob: Exception | None = None
        #: Blobs of a version of the key that is gone.
        self.gone: set[bytes] = set()
        #: A blob that is answered only when the event is set.
        self.answers_late: bytes | None = None
        self.late = trio.Event()
        #: Other such blobs, each with its event.
        self.waits: dict[bytes, trio.Event] = {}
        self.takes_s = 1.0
        self.blob_takes_s = 0.0
        self.rounds = 0
        self.opened: list[bytes] = []

    async def open_sealer(self, credentials: Credentials) -> Sealer:
        self.asked_for.append(credentials)
        self.rounds += 1
        await trio.sleep(self.takes_s)
        if self.answer is not None:
            raise self.answer
        return self

    async def seal(self, private_key: PrivateKey, public_key: PublicKey) -> bytes:
        raise NotImplementedError

    async def unseal(self, blob: bytes) -> UnsealedKey:
        await trio.sleep(self.blob_takes_s)
        self.opened.append(blob)
        if blob in self.waits:
            await self.waits[blob].wait()
        if self.answer_to_blob is not None:
            raise self.answer_to_blob
        if blob == self.answers_late:
            await self.late.wait()
        if blob in self.gone:
            raise SealingRefused("too old")
        if blob.endswith(b"junk"):
            raise BlobCorrupt("blob corrupt: junk")
        return UnsealedKey(PrivateKey(KeyType.ED25519, bytes(32)), None)

    async def aclose(self) -> None:
        """Let go of nothing."""


class Identified(Broker):
    """Has any number of identities."""

    def identity(self, credentials: Credentials) -> str:
        return str(credentials.wip_provider_path)


class Keeper(Broker):
    """Keeps what it got once, unless it is asked for a release."""

    def __init__(self) -> None:
        super().__init__()
        self.released: list[str] = []

    async def open_sealer(self, credentials: Credentials) -> Sealer:
        return self

    async def release(self, key: str, credentials: Credentials) -> Sealer:
        self.released.append(key)
        return await super().open_sealer(credentials)


def blob(number: int = 0, key: str = KEY) -> bytes:
    return BlobHeader(BROKER, key, PUBLIC).encode() + b"%d" % number


class Scene:
    """Providers with one gated key, and callers of it."""

    def __init__(self, providers: Providers, broker: Broker) -> None:
        self.broker = broker
        self.providers = providers

    @property
    def release(self) -> Release:
        release = self.providers.release(blob(), CREDENTIALS)
        assert release is not None
        return release

    async def unseal(self, which: bytes, client: str = "host") -> UnsealedKey:
        return await (await self.providers.for_client(client).open_sealer(CREDENTIALS)).unseal(which)

    async def fails(self, which: bytes | None = None, client: str = "host") -> EnclaveSignerError:
        with pytest.raises(EnclaveSignerError) as raised:
            await self.unseal(which or blob(), client)
        return raised.value

    def use(self, which: bytes | None = None) -> EnclaveSignerError | None:
        try:
            self.release.check(which or blob())
        except EnclaveSignerError as error:
            return error
        return None

    async def crowd(self, *blobs: bytes) -> list[UnsealedKey | EnclaveSignerError]:
        """Return what many callers get that come at once, one for each blob."""
        outcomes: list[UnsealedKey | EnclaveSignerError] = []

        async def call(which: bytes) -> None:
            try:
                outcomes.append(await self.unseal(which))
            except EnclaveSignerError as error:
                outcomes.append(error)

        async with trio.open_nursery() as nursery:
            for which in blobs:
                nursery.start_soon(call, which)
        return outcomes


def play(scenario: Callable[[Scene], Awaitable[None]], broker: Broker | None = None) -> None:
    broker = broker or Broker()

    async def main() -> None:
        providers = Providers([broker], [GatedRule(KEY, broker.name, FRESH_S, RETRY_S)])
        async with providers.running():
            await scenario(Scene(providers, broker))

    trio.run(main, clock=MockClock(autojump_threshold=0))
