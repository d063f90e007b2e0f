"""Order of calls, handles, and what work a call turns into."""

from collections.abc import Callable

import pytest
import trio

from enclave_signer.errors import AlreadyInitialized, KeyFault, ReleaseDenied, SealingUnavailable, Uninitialized
from enclave_signer.guard import Guard
from enclave_signer.keychain import Keychain, OpenKeys
from enclave_signer.protocol.messages import (
    Credentials,
    Generate,
    GenerateAndImport,
    GetPublicKey,
    GetPublicKeyFrom,
    Import,
    ImportedKey,
    Initialize,
    KeyType,
    ProvePossession,
    ProvePossessionOf,
    PublicKey,
    Request,
    Reseal,
    SealedKey,
    Sign,
    Signature,
    SignWith,
)
from enclave_signer.sealing.base import Sealer, SealerSource
from enclave_signer.sealing.providers import Providers
from enclave_signer.sealing.resealing import ResealingByImage
from enclave_signer.session import Computation, Opening, Outcome, Session
from tests.doubles.passthrough_enclave import PassthroughSealer


def done(session: Session, request: Request) -> object:
    """Return the result of a call, with all the work it is."""
    outcome: Outcome = session.begin(request)
    if isinstance(outcome, Opening):
        outcome = trio.run(outcome.run, trio.lowlevel.checkpoint)()
    return outcome.run() if isinstance(outcome, Computation) else outcome


def session_of(open_keys: OpenKeys, provider: SealerSource | None = None) -> Session:
    resealing = ResealingByImage(Providers([PassthroughSealer()]), None)
    return Session(provider or PassthroughSealer(), Keychain(3, open_keys, "10.0.0.1"), Guard(100, print), resealing)


def many_keys(limit: int = 100) -> OpenKeys:
    return OpenKeys(limit, limit, 0, lambda: 0)


@pytest.fixture
def new() -> Session:
    return session_of(many_keys())


@pytest.fixture
def ready(new: Session) -> Session:
    done(new, Initialize(Credentials()))
    return new


CALLS: list[Request] = [
    Import(b""),
    Generate(KeyType.BLS),
    GenerateAndImport(KeyType.BLS),
    Sign(0, b""),
    SignWith(b"", b""),
    GetPublicKey(0),
    GetPublicKeyFrom(b""),
    Reseal(b"", ""),
    ProvePossession(0),
    ProvePossessionOf(0, PublicKey(KeyType.BLS, bytes(48))),
]


@pytest.mark.parametrize("request_", CALLS, ids=lambda call: type(call).__name__)
def test_nothing_works_before_initialize(new: Session, request_: Request) -> None:
    with pytest.raises(Uninitialized, match=r"^uninitialized$"):
        new.begin(request_)
    assert new.waits_for_openings(request_)


def test_initialize_works_once(ready: Session) -> None:
    assert ready.ready
    with pytest.raises(AlreadyInitialized, match=r"^already initialized$"):
        ready.begin(Initialize(Credentials()))


def test_a_failed_initialize_may_be_repeated() -> None:
    class Failing:
        async def open_sealer(self, credentials: Credentials) -> Sealer:
            raise SealingUnavailable("no answer")

    session = session_of(many_keys(), Failing())
    for _ in range(2):
        with pytest.raises(SealingUnavailable):
            done(session, Initialize(Credentials()))
        assert not session.ready


@pytest.mark.parametrize("key_type", KeyType)
def test_handles_count_up_and_belong_to_the_session(ready: Session, key_type: KeyType) -> None:
    first = done(ready, GenerateAndImport(key_type))
    assert isinstance(first, SealedKey)
    assert first.handle == 0
    again = done(ready, Import(first.blob))
    assert again == ImportedKey(first.public_key, 1)
    assert done(ready, GetPublicKey(1)) == done(ready, GetPublicKeyFrom(first.blob)) == first.public_key
    other = session_of(many_keys())
    done(other, Initialize(Credentials()))
    with pytest.raises(KeyFault, match="invalid handle"):
        other.begin(GetPublicKey(0))


def test_generate_keeps_nothing_open(ready: Session) -> None:
    sealed = done(ready, Generate(KeyType.ED25519))
    assert isinstance(sealed, SealedKey)
    assert sealed.handle is None
    with pytest.raises(KeyFault):
        ready.begin(GetPublicKey(0))


def test_handles_are_limited(ready: Session) -> None:
    for _ in range(3):
        done(ready, GenerateAndImport(KeyType.ED25519))
    with pytest.raises(KeyFault, match="holds 3 keys"):
        done(ready, GenerateAndImport(KeyType.ED25519))


@pytest.mark.parametrize("key_type", KeyType)
def test_only_slow_signatures_are_worth_another_core(ready: Session, key_type: KeyType) -> None:
    sealed = done(ready, GenerateAndImport(key_type))
    assert isinstance(sealed, SealedKey)
    signed = ready.begin(Sign(0, b"m"))
    assert isinstance(signed, Computation if key_type.facts.slow else Signature)
    first, again = done(ready, SignWith(sealed.blob, b"m")), done(ready, Sign(0, b"m"))
    assert (first == again) != key_type.facts.hedged


@pytest.mark.parametrize("handle", [-1, 1, 2**64 - 1])
@pytest.mark.parametrize("call", [GetPublicKey, ProvePossession, lambda handle: Sign(handle, b"m")])
def test_unknown_handles_are_refused(ready: Session, call: Callable[[int], Request], handle: int) -> None:
    done(ready, GenerateAndImport(KeyType.BLS))
    with pytest.raises(KeyFault, match="invalid handle"):
        ready.begin(call(handle))


def test_openings_overlap_and_readers_wait(ready: Session) -> None:
    for request in CALLS:
        reads = isinstance(request, Sign | GetPublicKey | ProvePossession | ProvePossessionOf)
        assert ready.waits_for_openings(request) == reads
    assert ready.waits_for_openings(Initialize(Credentials()))


def test_all_sessions_together_are_limited_and_a_closed_one_gives_its_keys_back() -> None:
    open_keys = many_keys(2)
    first, second = session_of(open_keys), session_of(open_keys)
    for session in (first, second):
        done(session, Initialize(Credentials()))
        done(session, GenerateAndImport(KeyType.ED25519))
    with pytest.raises(KeyFault, match="holds 2 opened keys"):
        done(second, GenerateAndImport(KeyType.ED25519))
    first.close()
    with pytest.raises(KeyFault, match="invalid handle"):
        first.begin(GetPublicKey(0))
    assert isinstance(done(second, GenerateAndImport(KeyType.ED25519)), SealedKey)


class Denied:
    """A release that is denied while a blob is opened."""

    fresh = False

    def check(self, blob: bytes) -> None:
        raise ReleaseDenied(f"denied {len(blob)}")


def test_a_key_that_was_denied_while_its_blob_was_opened_signs_nothing() -> None:
    resealing = ResealingByImage(Providers([PassthroughSealer()]), None)
    keychain = Keychain(3, many_keys(), "10.0.0.1")
    session = Session(PassthroughSealer(), keychain, None, resealing, release_of=lambda _blob, _credentials: Denied())
    done(session, Initialize(Credentials()))
    sealed = done(session, Generate(KeyType.ED25519))
    assert isinstance(sealed, SealedKey)
    assert isinstance(done(session, GetPublicKeyFrom(sealed.blob)), PublicKey)
    with pytest.raises(ReleaseDenied, match=f"denied {len(sealed.blob)}"):
        done(session, SignWith(sealed.blob, b"message"))
