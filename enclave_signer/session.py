"""What one connection may ask, in which order, and what each call does.

- A session is NEW until `Initialize` succeeds, then READY for good; any other call before that is "uninitialized",
  a second `Initialize` "already initialized".
- Where the image has rules for its clients, each call is checked before anything is done for it. Only there may a client
  use a key that another session has open (`UseKey`), before `Initialize`, which may have to ask a cloud.
- Handles are numbered in the order of the calls that made them, however these calls overlap.
- Nothing is signed that the guard does not allow; it is asked in the order of the calls, before a signature is begun.
- A blob that is open already, in this session or in another of the same credentials, is not shown to the sealer again:
  but for `PublicKeyFrom`, by which a host sees that a blob still opens, and for a gated key whose release has ended.
- A gated key is used only while its release is fresh; a call that uses it never waits for the next one.
- This room touches no socket and starts no task: it turns a call into an answer, or into work for the connection.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from enclave_signer.curves import SigningKey, curve
from enclave_signer.errors import AlreadyInitialized, KeyFault, NotAllowed, NotAttested, Uninitialized
from enclave_signer.guard import Guard, check_without_guard
from enclave_signer.keychain import Keychain
from enclave_signer.protocol.binding import Channel
from enclave_signer.protocol.calls import call_of
from enclave_signer.protocol.errors import Family
from enclave_signer.protocol.messages import (
    Attest,
    Attestation,
    Credentials,
    Generate,
    GenerateAndImport,
    GetPublicKey,
    GetPublicKeyFrom,
    Import,
    ImportedKey,
    ImportUnencrypted,
    Initialize,
    KeyType,
    ProvePossession,
    ProvePossessionOf,
    PublicKey,
    Request,
    Reseal,
    Result,
    SealedKey,
    Sign,
    Signature,
    SigningVersion,
    SignWith,
    UseKey,
)
from enclave_signer.rights import Rights
from enclave_signer.sealing.base import (
    GiveWay,
    Release,
    ReleaseOf,
    Resealing,
    Sealer,
    SealerSource,
    open_key,
    reseal_key,
    seal_key,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Computation:
    """A signature worth another core; safe to run in any thread."""

    run: Callable[[], Signature]


#: The last step of an opening: cheap, and taken in the order of the calls, so that handles are numbered in it.
Finish = Callable[[], Result | Computation]


@dataclass(frozen=True, slots=True)
class Opening:
    """Work of the sealer: may wait, gives way, overlaps with other openings; returns its last step."""

    run: Callable[[GiveWay], Awaitable[Finish]]


Outcome = Result | Computation | Opening


class Bond(Protocol):
    """What a session must know of its connection."""

    @property
    def private(self) -> bool:
        """Whether no other machine can read the stream."""
        ...

    @property
    def channel(self) -> Channel | None:
        """What a proof can be bound to; None where there is nothing."""
        ...

    @property
    def rights(self) -> Rights | None:
        """What its client may do; None: everything."""
        ...


class _WithinThisMachine:
    private = True
    channel = None
    rights = None


WITHIN_THIS_MACHINE = _WithinThisMachine()


class Prover(Protocol):
    """Proves what runs here."""

    async def attest(self, call: Attest, channel: Channel | None, open_keys: Iterable[PublicKey]) -> Attestation:
        """Return a proof; see `enclave_signer.attestation.attesting`."""
        ...


class Session:
    """The calls of one connection, its sealer and its keychain.

    Args:
        sealers: What opens the sealer that the credentials of `Initialize` ask for.
        keychain: The session's own.
        guard: The one of the process; without one whatever comes is signed, by a key that bakes.
        resealing: What may be resealed.
        prover: Proves what runs here; None where nothing does.
        bond: The connection.
        release_of: Tells which keys are gated, and by what.
    """

    def __init__(
        self,
        sealers: SealerSource,
        keychain: Keychain,
        guard: Guard | None,
        resealing: Resealing,
        prover: Prover | None = None,
        bond: Bond = WITHIN_THIS_MACHINE,
        release_of: ReleaseOf = lambda _blob, _credentials: None,
    ) -> None:
        self._sealers = sealers
        self._sealer: Sealer | None = None
        self._credentials = Credentials()
        self._resealing = resealing
        self._keychain = keychain
        self._guard = guard
        self._prover = prover
        self._bond = bond
        self._release_of = release_of

    def begin(self, request: Request) -> Outcome:  # noqa: PLR0911 -- one for each call
        """Return the result of a call, or the work that leads to it.

        Raises:
            EnclaveSignerError: The call is refused; the session goes on.
        """
        if isinstance(request, Sign):
            return self.sign(request.handle, request.message, request.version)
        if self._sealer is None and not self.holds_keys and not call_of(request).before_initialize:
            raise Uninitialized(Family.UNINITIALIZED)
        if (rights := self._bond.rights) is not None:
            rights.check_call(request, self._keychain.public_key)
        match request:
            case GetPublicKey(handle):
                return self._keychain.public_key(handle)
            case ProvePossession(handle):
                return self._prove_possession(self._keychain.key(handle))
            case ProvePossessionOf(handle, public_key):
                return self._prove_possession(self._keychain.key(handle), public_key)
            case Initialize(credentials):
                return self._initialize(credentials)
            case UseKey(pkh):
                return self._use(pkh)
            case Attest():
                return _opening(lambda _: self._attest(request), _as_it_is)
            case _:
                return self._open(request)

    def sign(self, handle: int, message: bytes, version: SigningVersion) -> Signature | Computation:
        """Do what `begin` does with `Sign`, the call that is made all the time.

        Raises:
            EnclaveSignerError: The call is refused; the session goes on.
        """
        if self._sealer is None and not self.holds_keys:
            raise Uninitialized(Family.UNINITIALIZED)
        if (rights := self._bond.rights) is not None and rights.narrowed("Sign"):
            rights.check("Sign", self._keychain.public_key(handle))
        return self._sign(self._keychain.key(handle), message, version)

    def waits_for_openings(self, request: Request) -> bool:
        """Whether a call must not begin before the openings ahead of it are finished.

        True for what reads the keychain or the state; the openings of a READY session overlap.
        """
        return self._sealer is None or call_of(request).reads_session

    def close(self, most: int | None = None) -> bool:
        """Drop every key that was opened, or that many; return whether some are left. The session is over."""
        return self._keychain.close(most)

    @property
    def holds_keys(self) -> bool:
        """Whether a key is open."""
        return len(self._keychain) > 0

    @property
    def ready(self) -> bool:
        """Whether `Initialize` succeeded, or a key is open that another session opened."""
        return self._sealer is not None or self.holds_keys

    def _initialize(self, credentials: Credentials) -> Opening:
        if self._sealer is not None:
            raise AlreadyInitialized(Family.INITIALIZED)

        def finish(sealer: Sealer) -> None:
            if self._sealer is not None:
                raise AlreadyInitialized(Family.INITIALIZED)
            self._sealer, self._credentials = sealer, credentials
            self._keychain.open_for(credentials)

        return _opening(lambda _: self._sealers.open_sealer(credentials), finish)

    def _sign(self, key: SigningKey, message: bytes, version: SigningVersion) -> Signature | Computation:
        if self._guard is None:
            check_without_guard(key.public_key, message)
        else:
            self._guard.check(key.public_key, message)
        if key.public_key.key_type.facts.slow:
            return Computation(lambda: key.sign(message, version))
        return key.sign(message, version)

    async def _attest(self, call: Attest) -> Attestation:
        if self._prover is None:
            raise NotAttested(f"{Family.NOT_ATTESTED}: this process proves nothing")
        return await self._prover.attest(call, self._bond.channel, self._keychain.public_keys_of_all())

    @staticmethod
    def _prove_possession(key: SigningKey, other: PublicKey | None = None) -> Signature | Computation:
        if key.public_key.key_type.facts.slow:
            return Computation(partial(key.prove_possession, other))
        return key.prove_possession(other)

    def _open(  # noqa: PLR0911 -- one line for each call
        self,
        request: Import | ImportUnencrypted | Generate | GenerateAndImport | SignWith | GetPublicKeyFrom | Reseal,
    ) -> Opening:
        sealer = self._sealer
        if sealer is None:
            raise Uninitialized(Family.UNINITIALIZED)
        match request:
            case Import(blob):
                return _opening(partial(self._opened, sealer, blob), partial(self._keep, blob))
            case ImportUnencrypted(private_key):
                self._require_private()
                return _opening(partial(seal_key, sealer, private_key), self._keep_sealed)
            case Generate(key_type):
                return _opening(partial(_new, sealer, key_type), _sealed)
            case GenerateAndImport(key_type):
                return _opening(partial(_new, sealer, key_type), self._keep_sealed)
            case SignWith(blob, message, version):
                return _opening(
                    partial(self._opened, sealer, blob),
                    lambda key: self._sign(self._released(blob, key), message, version),
                )
            case GetPublicKeyFrom(blob):
                # Never out of memory: a key open here may no longer open anywhere.
                return _opening(partial(open_key, sealer, blob), _public_key)
            case Reseal(blob, target):
                return _opening(partial(self._resealed, sealer, blob, target), _sealed)

    def _use(self, pkh: str) -> ImportedKey:
        if self._bond.rights is None:
            raise NotAllowed("not allowed: only a rule of the image lets a client use a key that another one opened")
        key, handle = self._keychain.use(pkh)
        return ImportedKey(key.public_key, handle)

    def _require_private(self) -> None:
        if not self._bond.private:
            raise KeyFault(
                "this enclave listens beyond its machine without TLS, and accepts no private key in clear: others on the network "
                "may have seen this one: do not use it"
            )

    async def _opened(self, sealer: Sealer, blob: bytes, give_way: GiveWay) -> SigningKey:
        found = self._keychain.find(blob)
        if found is not None and ((release := self._release(blob)) is None or release.fresh):
            return found
        return await open_key(sealer, blob, give_way)

    async def _resealed(self, sealer: Sealer, blob: bytes, target: str, give_way: GiveWay) -> tuple[bytes, SigningKey]:
        to = await self._resealing.open_target(blob, target, self._credentials)
        return await reseal_key(sealer, blob, to, give_way)

    def _keep(self, blob: bytes, key: SigningKey) -> ImportedKey:
        return ImportedKey(key.public_key, self._add(blob, key))

    def _keep_sealed(self, sealed: tuple[bytes, SigningKey]) -> SealedKey:
        blob, key = sealed
        return SealedKey(blob, key.public_key, self._add(blob, key))

    def _add(self, blob: bytes, key: SigningKey) -> int:
        release = self._release(blob)
        return self._keychain.add(blob, key, partial(release.check, blob) if release is not None else None)

    def _released(self, blob: bytes, key: SigningKey) -> SigningKey:
        if (release := self._release(blob)) is not None:
            # The key may have been denied while its blob was opened.
            release.check(blob)
        return key

    def _release(self, blob: bytes) -> Release | None:
        return self._release_of(blob, self._credentials)


def _opening(work: Callable[[GiveWay], Awaitable[T]], finish: Callable[[T], Result | Computation]) -> Opening:
    async def run(give_way: GiveWay) -> Finish:
        return partial(finish, await work(give_way))

    return Opening(run)


async def _new(sealer: Sealer, key_type: KeyType, give_way: GiveWay) -> tuple[bytes, SigningKey]:
    return await seal_key(sealer, curve(key_type).generate(), give_way)


def _sealed(sealed: tuple[bytes, SigningKey]) -> SealedKey:
    blob, key = sealed
    return SealedKey(blob, key.public_key)


def _as_it_is(attestation: Attestation) -> Attestation:
    return attestation


def _public_key(key: SigningKey) -> PublicKey:
    return key.public_key
