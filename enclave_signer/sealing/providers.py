"""The sealers of the process: which one serves a session, and which one opens a blob.

- A session seals with the sealer that its `Initialize` asked for: that of the first provider. A blob is opened by the
  provider that its header names; one without a header, by the one that takes such blobs.
- Sessions of the same credentials share a sealer. It is asked for once, however many sessions want it at a time, by a
  task of its own: a session that leaves takes nothing from the others. It is kept for as long as it says.
- When a provider gives no answer, the sealer that it gave for the same credentials last time goes on serving: keys that
  are remembered need no sealer, and all others get `unavailable`. A refusal stays a refusal.
- A provider has its own time limit; what takes longer is unavailable.
- A blob under a gated key is opened by the key's release. A provider that has gated keys is not asked at `Initialize`: it
  may not be released, and other providers' blobs open without it.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar
from weakref import WeakValueDictionary

import trio

from enclave_signer.errors import ReleaseDenied, SealingRefused, SealingUnavailable, again, blob_error
from enclave_signer.protocol.blob import is_ours, parse_blob, sealed_under
from enclave_signer.protocol.errors import BadBlob
from enclave_signer.protocol.messages import Credentials, PrivateKey, PublicKey
from enclave_signer.sealing.base import (
    IdentifiedProvider,
    KeepingProvider,
    Sealer,
    SealerProvider,
    SealerSource,
    UnsealedKey,
)
from enclave_signer.sealing.client_places import ClientPlaces, Clients
from enclave_signer.sealing.gated_rules import GatedRule
from enclave_signer.sealing.releases import MAX_RELEASES, Release

T = TypeVar("T")

#: Different credentials that are remembered: an image has one or two identities and keys to choose from.
MAX_REMEMBERED = 16


@dataclass(slots=True)
class _Opening:
    """A sealer that is asked for; or was, successfully."""

    done: trio.Event = field(default_factory=trio.Event)
    sealer: Sealer | None = None
    error: Exception | None = None
    until: float = 0.0


class Providers:
    """All providers of a process.

    Args:
        providers: With different names; sessions seal with the first.
        gated: The image's list of keys that are released only to the attested.

    Raises:
        ValueError: None, or two of one name.
    """

    def __init__(self, providers: Sequence[SealerProvider], gated: Sequence[GatedRule] = ()) -> None:
        self._by_name = {provider.name: provider for provider in providers}
        if not providers or len(self._by_name) != len(providers):
            raise ValueError("sealers must have different names, and there must be one")
        #: What sessions seal with.
        self.default = providers[0]
        self._for_legacy = next((each for each in providers if each.takes_legacy), None)
        self._openings: dict[tuple[str, Credentials], _Opening] = {}
        self._gated = gated
        #: By what is asked for: an identity and a key-encryption key.
        self._releases: dict[Credentials, Release] = {}
        #: Those, and others that open keys still have.
        self._used: WeakValueDictionary[Credentials, Release] = WeakValueDictionary()
        self._clients = Clients()
        self._nursery: trio.Nursery | None = None

    @property
    def names(self) -> str:
        """The names of all, that of the first first."""
        return ", ".join(self._by_name)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Let sealers be asked for meanwhile; let go of the providers at the end."""
        try:
            async with trio.open_nursery() as self._nursery:
                yield
                self._nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                for provider in self._by_name.values():
                    await provider.aclose()

    async def open_sealer(self, credentials: Credentials, client: ClientPlaces | None = None) -> Sealer:
        """Return what a session of these credentials seals and unseals with.

        Args:
            credentials: Of the session.
            client: Whose it is; None: the process's own.

        Raises:
            SealingRefused: They ask for something that the configuration does not allow.
            SealingUnavailable: No answer, retry later.
        """
        return await self._session_sealer(self.default, credentials, client)

    def for_client(self, client: str) -> SealerSource:
        """Return what opens sealers for the sessions of a client: an address, or what counts as it."""
        return _ClientSealers(self, self._clients.named(client))

    async def open_sealer_named(self, name: str, credentials: Credentials, client: str | None = None) -> Sealer:
        """Return what seals by the provider of that name, which must be here, for a client; otherwise as `open_sealer`."""
        places = None if client is None else self._clients.named(client)
        return await self._session_sealer(self._by_name[name], credentials, places)

    async def _session_sealer(
        self, provider: SealerProvider, credentials: Credentials, client: ClientPlaces | None = None
    ) -> Sealer:
        gated = any(rule.sealer == provider.name for rule in self._gated)
        sealer = None if gated else await self.sealer(provider, credentials)
        return _SessionSealer(self, provider, credentials, sealer, client)

    async def opener(self, blob: bytes, credentials: Credentials) -> tuple[SealerProvider, Sealer]:
        """Return what opens a blob.

        Raises:
            BlobCorrupt: Its header cannot be read.
            SealingError: Nothing here does, or its sealer cannot be had.
        """
        provider = self.named_by(blob)
        if provider is not self.default and is_ours(blob):
            # The key that a session names is one of the first provider's.
            credentials = replace(credentials, encryption_key_path=sealed_under(blob))
        return provider, await self.sealer(provider, credentials)

    def release(self, blob: bytes, credentials: Credentials) -> Release | None:
        """Return the release that a blob needs; None where it needs none.

        Raises:
            SealingRefused: The session asks for an identity that the configuration does not allow.
        """
        if not self._gated:
            return None
        try:
            key = sealed_under(blob)
        except BadBlob:
            return None
        rule = next((rule for rule in self._gated if rule.covers(key)), None)
        if rule is None:
            return None
        # Not what the blob names: strangers can write any sealer before any key.
        provider = self._by_name[rule.sealer]
        # What else a session names changes nothing at the service, and must not have it asked once more.
        identity = provider.identity(credentials) if isinstance(provider, IdentifiedProvider) else None
        place = Credentials(identity, key)
        release = self._releases.get(place)
        if release is None:
            self._forget_oldest_release()
            release = self._used.get(place) or Release(key, rule, partial(_released, provider, key, place), self._start)
            self._releases[place] = self._used[place] = release
        return release

    def _start(self, task: Callable[[], Awaitable[None]]) -> None:
        assert self._nursery is not None  # noqa: S101 -- sessions live within `running`
        self._nursery.start_soon(task)

    def _forget_oldest_release(self) -> None:
        if len(self._releases) >= MAX_RELEASES:
            # The oldest of those that matter least; open keys keep theirs, and it is found again.
            free = [place for place, each in self._releases.items() if not each.busy]
            least = min(free, key=lambda place: self._releases[place].matters, default=None)
            if least is not None:
                del self._releases[least]

    def named_by(self, blob: bytes) -> SealerProvider:
        """Return the provider whose sealers open a blob.

        Raises:
            BlobCorrupt: Its header cannot be read.
            SealingRefused: None does, or it has a format of a later version.
        """
        if not is_ours(blob) and self._for_legacy is not None:
            return self._for_legacy
        try:
            name = parse_blob(blob)[0].sealer
        except BadBlob as error:
            raise blob_error(error) from None
        if name not in self._by_name:
            raise SealingRefused(f"blob sealed by {name[:40]!r}, this enclave has {self.names}")
        return self._by_name[name]

    async def sealer(self, provider: SealerProvider, credentials: Credentials) -> Sealer:
        """Return a provider's sealer for these credentials, which sessions share.

        Raises:
            SealingError: It cannot be had.
        """
        place = provider.name, credentials
        known = self._openings.get(place)
        if known is not None and known.sealer is not None and trio.current_time() < known.until:
            # Invented credentials must not push out sealers that are in use.
            self._openings[place] = self._openings.pop(place)
            return known.sealer
        if known is None or known.done.is_set():
            known = self._begin(provider, credentials, known)
        await known.done.wait()
        if known.error is not None:
            raise again(known.error)
        assert known.sealer is not None  # noqa: S101 -- done without an error
        return known.sealer

    def _begin(self, provider: SealerProvider, credentials: Credentials, before: _Opening | None) -> _Opening:
        opening = _Opening()
        place = provider.name, credentials
        # The newest last, so that the oldest goes first.
        self._openings.pop(place, None)
        self._openings[place] = opening
        last = before.sealer if before is not None else None
        self._start(partial(self._open, provider, credentials, opening, last))
        return opening

    async def _open(
        self, provider: SealerProvider, credentials: Credentials, opening: _Opening, last: Sealer | None
    ) -> None:
        try:
            opening.sealer = await in_time(provider, lambda: provider.open_sealer(credentials))
            opening.until = trio.current_time() + opening.sealer.shared_s
        except SealingUnavailable as error:
            opening.sealer, opening.error = last, None if last is not None else error
        except Exception as error:  # noqa: BLE001 -- raised in those who wait, which tell refusals from bugs
            opening.error = error
        finally:
            if opening.sealer is None and self._openings.get((provider.name, credentials)) is opening:
                del self._openings[provider.name, credentials]
            self._forget_oldest()
            opening.done.set()

    def _forget_oldest(self) -> None:
        while len(self._openings) > MAX_REMEMBERED:
            oldest = next((place for place, each in self._openings.items() if each.done.is_set()), None)
            if oldest is None:
                # All are being asked for, by as many connections.
                return
            del self._openings[oldest]


@dataclass(frozen=True, slots=True)
class _ClientSealers:
    """Sealers for the sessions of one client."""

    providers: Providers
    client: ClientPlaces

    async def open_sealer(self, credentials: Credentials) -> Sealer:
        """Return a sealer; see `SealerSource`."""
        return await self.providers.open_sealer(credentials, self.client)


class _SessionSealer:
    """Seals with one provider's sealer; opens whatever any of them sealed."""

    def __init__(
        self,
        providers: Providers,
        provider: SealerProvider,
        credentials: Credentials,
        sealer: Sealer | None,
        client: ClientPlaces | None,
    ) -> None:
        self._client = client
        self._providers = providers
        self._provider = provider
        self._credentials = credentials
        #: None where it is asked for only when something is sealed.
        self._sealer = sealer
        self.shared_s = sealer.shared_s if sealer is not None else 0.0

    async def seal(self, private_key: PrivateKey, public_key: PublicKey) -> bytes:
        """Return a blob; see `Sealer`."""
        async with self._place(self._provider):
            sealer = self._sealer or await self._providers.sealer(self._provider, self._credentials)
            return await in_time(self._provider, lambda: sealer.seal(private_key, public_key))

    async def unseal(self, blob: bytes) -> UnsealedKey:
        """Return the key in a blob; see `Sealer`."""
        if (release := self._providers.release(blob, self._credentials)) is not None:
            async with self._place(self._provider):
                return await release.unseal(blob, self._client.name if self._client is not None else "")
        async with self._place(self._providers.named_by(blob)):
            provider, sealer = await self._providers.opener(blob, self._credentials)
            return await in_time(provider, lambda: sealer.unseal(blob))

    def _place(self, provider: SealerProvider) -> AbstractAsyncContextManager[None]:
        if self._client is None or provider.limit_s is None:
            return nullcontext()
        return self._client.place()


async def in_time(provider: SealerProvider, ask: Callable[[], Awaitable[T]]) -> T:
    """Return the answer of a provider or of one of its sealers.

    Raises:
        SealingUnavailable: It has none within its time.
    """
    if provider.limit_s is None:
        return await ask()
    with trio.move_on_after(provider.limit_s):
        return await ask()
    raise SealingUnavailable(f"the {provider.name} sealer did not answer within {provider.limit_s:g} s")


async def _released(
    provider: SealerProvider, key: str, credentials: Credentials, sealer: Sealer | None, blob: bytes
) -> tuple[Sealer, UnsealedKey]:
    """Return the sealer of a gated key, a new one where none is given, and the key in a blob; in the time of one answer.

    Raises:
        SealingError: As the provider or its sealer says.
    """

    async def ask() -> tuple[Sealer, UnsealedKey]:
        opened = sealer or await _just_released(provider, key, credentials)
        return opened, await opened.unseal(blob)

    return await in_time(provider, ask)


async def _just_released(provider: SealerProvider, key: str, credentials: Credentials) -> Sealer:
    try:
        if isinstance(provider, KeepingProvider):
            return await provider.release(key, credentials)
        return await provider.open_sealer(credentials)
    except SealingRefused as error:
        # No blob was shown yet: this is about the key.
        raise ReleaseDenied(str(error)) from None
