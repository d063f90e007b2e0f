"""Sealers are asked for once, kept as long as they say, and a blob is opened by the one that it names."""

import math
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from enclave_signer.curves import curve
from enclave_signer.errors import BlobCorrupt, EnclaveSignerError, SealingRefused, SealingUnavailable
from enclave_signer.protocol.blob import BlobHeader
from enclave_signer.protocol.messages import Credentials, KeyType, PrivateKey, PublicKey
from enclave_signer.sealing.base import Sealer, SealerProvider, UnsealedKey, open_key, seal_key
from enclave_signer.sealing.providers import MAX_REMEMBERED, Providers

CREDENTIALS = Credentials("pool", "key")
AWAY = SealingUnavailable("unavailable: no answer")


class Cloud:
    """A provider and its sealer; opens only what it sealed."""

    def __init__(self, name: str = "cloud", *, shared_s: float = math.inf, without_header: bool = False) -> None:
        self.name = name
        self.shared_s = shared_s
        self.takes_legacy = without_header
        self.limit_s = 10.0
        self.takes_s = 0.0
        self.error: Exception | None = None
        self.asked: list[Credentials] = []
        self.sealed: dict[bytes, PrivateKey] = {}
        self.closed = False

    async def open_sealer(self, credentials: Credentials) -> Sealer:
        self.asked.append(credentials)
        await trio.sleep(self.takes_s)
        if self.error is not None:
            raise self.error
        return self

    async def seal(self, private_key: PrivateKey, public_key: PublicKey) -> bytes:
        await trio.sleep(self.takes_s)
        blob = b"" if self.takes_legacy else BlobHeader(self.name, "kek", public_key).encode()
        blob += b"sealed %d" % len(self.sealed)
        self.sealed[blob] = private_key
        return blob

    async def unseal(self, blob: bytes) -> UnsealedKey:
        await trio.sleep(self.takes_s)
        if blob not in self.sealed:
            raise BlobCorrupt("blob corrupt: not sealed here")
        return UnsealedKey(self.sealed[blob], None)

    async def aclose(self) -> None:
        self.closed = True


def play(scenario: Callable[[Providers], Awaitable[None]], *clouds: SealerProvider) -> None:
    async def main() -> None:
        providers = Providers(clouds)
        async with providers.running():
            await scenario(providers)

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_many_sessions_at_once_ask_once() -> None:
    cloud = Cloud()
    cloud.takes_s = 2

    async def scenario(providers: Providers) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(providers.open_sealer, CREDENTIALS)
        assert trio.current_time() - began == 2
        await providers.open_sealer(CREDENTIALS)
        assert cloud.asked == [CREDENTIALS]
        await providers.open_sealer(Credentials("pool", "other"))
        assert len(cloud.asked) == 2

    began = 0.0

    async def from_now_on(providers: Providers) -> None:
        nonlocal began
        began = trio.current_time()
        await scenario(providers)

    play(from_now_on, cloud)
    assert cloud.closed


def test_whoever_leaves_takes_nothing_away_from_the_others() -> None:
    cloud = Cloud()
    cloud.takes_s = 2

    async def scenario(providers: Providers) -> None:
        with trio.move_on_after(1):
            await providers.open_sealer(CREDENTIALS)
        await providers.open_sealer(CREDENTIALS)
        assert cloud.asked == [CREDENTIALS]

    play(scenario, cloud)


def test_a_sealer_is_kept_for_as_long_as_it_says() -> None:
    cloud = Cloud(shared_s=60)

    async def scenario(providers: Providers) -> None:
        await providers.open_sealer(CREDENTIALS)
        await trio.sleep(59)
        await providers.open_sealer(CREDENTIALS)
        assert len(cloud.asked) == 1
        await trio.sleep(1)
        await providers.open_sealer(CREDENTIALS)
        assert len(cloud.asked) == 2

    play(scenario, cloud)


@pytest.mark.parametrize("error", [SealingRefused("not that one"), AWAY, RuntimeError("a bug")])
def test_a_failure_is_told_to_all_who_wait_and_not_remembered(error: Exception) -> None:
    cloud = Cloud()
    cloud.error, cloud.takes_s = error, 1
    failures: list[Exception] = []

    async def scenario(providers: Providers) -> None:
        async def ask() -> None:
            with pytest.raises(type(error), match=str(error)) as raised:
                await providers.open_sealer(CREDENTIALS)
            failures.append(raised.value)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
        assert len(set(map(id, failures))) == 3
        cloud.error = None
        await providers.open_sealer(CREDENTIALS)
        assert len(cloud.asked) == 2

    play(scenario, cloud)


def test_what_was_given_before_serves_while_the_provider_is_away() -> None:
    cloud = Cloud(shared_s=0)

    async def scenario(providers: Providers) -> None:
        await providers.open_sealer(CREDENTIALS)
        cloud.error = AWAY
        for _ in range(2):
            await providers.open_sealer(CREDENTIALS)
        with pytest.raises(SealingUnavailable):
            await providers.open_sealer(Credentials("pool", "other"))
        cloud.error = SealingRefused("no more")
        with pytest.raises(SealingRefused):
            await providers.open_sealer(CREDENTIALS)
        # A refusal stays one: nothing that was given before it serves again.
        cloud.error = AWAY
        with pytest.raises(SealingUnavailable):
            await providers.open_sealer(CREDENTIALS)

    play(scenario, cloud)


def test_credentials_that_strangers_make_up_are_forgotten() -> None:
    cloud = Cloud()

    async def scenario(providers: Providers) -> None:
        for number in range(MAX_REMEMBERED + 1):
            await providers.open_sealer(Credentials("pool", str(number)))
        await providers.open_sealer(Credentials("pool", str(MAX_REMEMBERED)))
        assert len(cloud.asked) == MAX_REMEMBERED + 1
        await providers.open_sealer(Credentials("pool", "0"))
        assert len(cloud.asked) == MAX_REMEMBERED + 2

    play(scenario, cloud)


def test_a_provider_that_hangs_is_unavailable_in_its_own_time() -> None:
    cloud = Cloud()
    cloud.takes_s = 3600

    async def scenario(providers: Providers) -> None:
        with pytest.raises(SealingUnavailable, match="the cloud sealer did not answer within 10 s"):
            await providers.open_sealer(CREDENTIALS)
        cloud.takes_s = 0
        sealer = await providers.open_sealer(CREDENTIALS)
        cloud.takes_s = 3600
        began = trio.current_time()
        for ask in (
            lambda: sealer.seal(PRIVATE, PUBLIC),
            lambda: sealer.unseal(BlobHeader("cloud", "", PUBLIC).encode() + b"x"),
        ):
            with pytest.raises(SealingUnavailable):
                await ask()
        assert trio.current_time() - began == 20

    play(scenario, cloud)


PRIVATE = PrivateKey(KeyType.ED25519, bytes(32))
PUBLIC = curve(KeyType.ED25519).open(PRIVATE).public_key


async def no_pause() -> None:
    await trio.lowlevel.checkpoint()


def test_a_blob_is_opened_by_the_sealer_that_it_names() -> None:
    new, old, bare = Cloud("new"), Cloud("old"), Cloud("bare", without_header=True)

    async def scenario(providers: Providers) -> None:
        sealer = await providers.open_sealer(CREDENTIALS)
        blob, key = await seal_key(sealer, PRIVATE, no_pause)
        assert blob in new.sealed
        for other in (old, bare):
            theirs = await other.seal(PRIVATE, PUBLIC)
            opened = await open_key(sealer, theirs, no_pause)
            assert opened.public_key == key.public_key
        # Only once each, with the session's credentials; the key that they name is one of the first sealer's.
        await open_key(sealer, next(iter(old.sealed)), no_pause)
        assert new.asked == bare.asked == [CREDENTIALS]
        assert old.asked == [replace(CREDENTIALS, encryption_key_path="kek")]

    play(scenario, new, old, bare)


@pytest.mark.parametrize(
    ("blob", "error", "text"),
    [
        (
            BlobHeader("foreign", "kek", PUBLIC).encode() + b"x",
            SealingRefused,
            "blob sealed by 'foreign', this enclave has cloud",
        ),
        (b"TKSB\x02\0\0", SealingRefused, "blob of format 2"),
        (b"TKSB\x01\xff\xff", BlobCorrupt, "truncated"),
        (b"anything else", BlobCorrupt, "first bytes are not TKSB"),
    ],
)
def test_what_no_sealer_opens(blob: bytes, error: type[EnclaveSignerError], text: str) -> None:
    async def scenario(providers: Providers) -> None:
        sealer = await providers.open_sealer(CREDENTIALS)
        with pytest.raises(error, match=text):
            await sealer.unseal(blob)

    play(scenario, Cloud())


def test_an_end_does_not_wait_for_a_provider() -> None:
    cloud = Cloud()
    cloud.takes_s = 3600

    async def main() -> None:
        providers = Providers([cloud])
        async with trio.open_nursery() as nursery, providers.running():
            nursery.start_soon(providers.open_sealer, CREDENTIALS)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert cloud.closed

    trio.run(main)


@pytest.mark.parametrize("names", [(), ("one", "one")])
def test_sealers_have_different_names(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="different names"):
        Providers([Cloud(name) for name in names])
