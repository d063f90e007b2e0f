"""A gated key: asked for once for all, remembered when it fails, used only while it is fresh."""

import math
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock, wait_all_tasks_blocked

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
from enclave_signer.sealing.releases import MAX_REFUSED, MAX_RELEASES, SHARED_S, Release

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

    async def unseal(self, which: bytes) -> UnsealedKey:
        return await (await self.providers.open_sealer(CREDENTIALS)).unseal(which)

    async def fails(self, which: bytes | None = None) -> EnclaveSignerError:
        with pytest.raises(EnclaveSignerError) as raised:
            await self.unseal(which or blob())
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


def test_a_hundred_callers_of_one_blob_ask_once() -> None:
    async def scenario(scene: Scene) -> None:
        outcomes = await scene.crowd(*[blob()] * 100)
        assert len(outcomes) == 100
        assert all(isinstance(each, UnsealedKey) for each in outcomes)
        assert (scene.broker.rounds, len(scene.broker.opened)) == (1, 1)

    play(scenario)


def test_of_a_hundred_blobs_one_is_asked_about_first() -> None:
    async def scenario(scene: Scene) -> None:
        outcomes = await scene.crowd(*map(blob, range(100)))
        assert all(isinstance(each, UnsealedKey) for each in outcomes)
        assert (scene.broker.rounds, len(scene.broker.opened)) == (1, 100)

    play(scenario)


@pytest.mark.parametrize(
    ("answer", "told"),
    [(DENIED, (ReleaseDenied, "policy")), (HELD, (NotReleased, "wait")), (DOWN, (NotReleased, "away"))],
)
def test_what_fails_fails_for_all_at_once_and_is_remembered(
    answer: EnclaveSignerError, told: tuple[type[Exception], str]
) -> None:
    async def scenario(scene: Scene) -> None:
        scene.broker.answer = answer
        for which in ([blob()] * 100, [*map(blob, range(100))]):
            outcomes = await scene.crowd(*which)
            assert {(type(each), str(each)) for each in outcomes} == {told}
            assert scene.broker.rounds == 1
        await trio.sleep(RETRY_S)
        await scene.fails()
        assert scene.broker.rounds == 2

    play(scenario)


def test_a_service_that_hangs_keeps_callers_no_longer_than_one_answer_may_take() -> None:
    async def scenario(scene: Scene) -> None:
        scene.broker.takes_s = math.inf
        began = trio.current_time()
        outcomes = await scene.crowd(*[blob(), blob(1)] * 50)
        assert {str(each) for each in outcomes} == {"the broker sealer did not answer within 5 s"}
        assert {type(each) for each in outcomes} == {NotReleased}
        assert (trio.current_time() - began, scene.broker.rounds) == (LIMIT_S, 1)

    play(scenario)


def test_a_storm_reaches_the_service_once_in_each_time_of_failure() -> None:
    async def scenario(scene: Scene) -> None:
        scene.broker.answer, scene.broker.takes_s = DOWN, 0.0
        with trio.move_on_after(10 * RETRY_S - 1):
            while True:
                await scene.fails()
                scene.use()
                await trio.sleep(0.1)
        assert scene.broker.rounds == 10

    play(scenario)


def test_a_caller_that_leaves_takes_nothing_away_from_the_others() -> None:
    async def scenario(scene: Scene) -> None:
        with trio.move_on_after(scene.broker.takes_s / 2):
            await scene.unseal(blob())
        await scene.unseal(blob())
        assert scene.broker.rounds == 1

    play(scenario)


def test_junk_is_not_remembered() -> None:
    async def scenario(scene: Scene) -> None:
        outcomes = await scene.crowd(blob() + b"junk", blob(1), blob(2))
        assert sorted(type(each).__name__ for each in outcomes) == ["BlobCorrupt", "UnsealedKey", "UnsealedKey"]
        assert scene.use() is None

    play(scenario)


def test_a_release_is_renewed_by_uses_that_do_not_wait() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.unseal(blob())
        for _ in range(200):
            await trio.sleep(1)
            assert scene.use() is None
        await wait_all_tasks_blocked()
        # Once every two thirds of its time.
        assert scene.broker.rounds == 1 + 200 // 40

    play(scenario)


def test_of_many_blobs_late_in_a_release_one_renews_it() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.unseal(blob())
        await trio.sleep(FRESH_S * 0.7)
        outcomes = await scene.crowd(*map(blob, range(1, 50)))
        assert all(isinstance(each, UnsealedKey) for each in outcomes)
        assert scene.broker.rounds == 2

    play(scenario)


def test_a_service_that_is_away_at_a_renewal_stops_nothing_before_the_end() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.unseal(blob())
        scene.broker.answer = DOWN
        used_s = 0
        while scene.use() is None:
            await trio.sleep(1)
            used_s += 1
        assert used_s == FRESH_S - 1
        error = scene.use()
        assert (type(error), str(error)) == (NotReleased, "away")
        scene.broker.answer = None
        await trio.sleep(RETRY_S)
        scene.use()
        await trio.sleep(scene.broker.takes_s + 0.1)
        assert scene.use() is None

    play(scenario)


def test_what_was_not_used_for_long_is_refused_once_and_asked_for_again() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.unseal(blob())
        await trio.sleep(FRESH_S)
        error = scene.use()
        assert isinstance(error, NotReleased)
        assert str(error) == f"the last release of {KEY} has ended, and it is asked for again"
        await trio.sleep(scene.broker.takes_s + 0.1)
        assert (scene.use(), scene.broker.rounds) == (None, 2)

    play(scenario)


@pytest.mark.parametrize("about", ["answer", "answer_to_blob"])
@pytest.mark.parametrize("refusal", [DENIED, SealingRefused("no right")])
def test_a_denial_ends_a_release_at_once_until_it_is_released_again(about: str, refusal: EnclaveSignerError) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.unseal(blob())
        await trio.sleep(FRESH_S * 0.7)
        setattr(scene.broker, about, refusal)
        assert scene.use() is None
        await trio.sleep(scene.broker.takes_s + 0.1)
        error = scene.use()
        assert (type(error), str(error)) == (ReleaseDenied, str(refusal))
        assert not scene.release.fresh
        setattr(scene.broker, about, None)
        await trio.sleep(RETRY_S)
        # Still no, until the service has said yes.
        assert type(scene.use()) is ReleaseDenied
        await trio.sleep(scene.broker.takes_s + 0.1)
        assert (scene.use(), scene.release.fresh) == (None, True)

    play(scenario)


def test_other_identities_have_a_release_of_their_own_and_there_is_a_most_of_them() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.unseal(blob())
        for number in range(2 * MAX_RELEASES):
            other = scene.providers.release(blob(), Credentials(f"pool {number}", None))
            assert other is not None
            assert not other.fresh
        assert len(scene.providers._releases) == MAX_RELEASES
        # Made-up credentials go first.
        assert scene.release.fresh

    play(scenario, Identified())


def test_credentials_that_are_made_up_have_no_release_of_their_own() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.unseal(blob())
        for number in range(10):
            other = await scene.providers.open_sealer(Credentials(f"pool {number}", f"key {number}"))
            await other.unseal(blob(number))
        assert scene.broker.rounds == 1
        scene.broker.answer = DENIED
        await trio.sleep(FRESH_S)
        assert type(await scene.fails()) is ReleaseDenied
        for number in range(10):
            release = scene.providers.release(blob(), Credentials(None, f"key {number}"))
            assert release is scene.release
        assert scene.broker.rounds == 2

    play(scenario)


def test_a_release_is_asked_for_with_the_key_of_the_blob_and_at_the_sealer_of_the_rule() -> None:
    other, broker = Broker(), Broker()
    other.name = "other"
    to_host = Credentials("pool", "key of the other")

    async def main() -> None:
        providers = Providers([other, broker], [GatedRule(KEY, broker.name, FRESH_S, RETRY_S)])
        async with providers.running():
            sealer = await providers.open_sealer(to_host)
            # A stranger's.
            with pytest.raises(BlobCorrupt):
                await sealer.unseal(BlobHeader(other.name, KEY, PUBLIC).encode() + b"junk")
            await sealer.unseal(blob())
        assert [each.encryption_key_path for each in broker.asked_for] == [KEY] * len(broker.asked_for)
        assert other.opened == []

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_what_is_not_listed_needs_no_release() -> None:
    async def scenario(scene: Scene) -> None:
        assert scene.providers.release(blob(key="broker:other"), CREDENTIALS) is None
        assert scene.providers.release(b"legacy", CREDENTIALS) is None
        assert scene.providers.release(b"TKSB junk", CREDENTIALS) is None

    play(scenario)


def test_initialize_does_not_wait_for_a_service_that_may_not_release() -> None:
    async def scenario(scene: Scene) -> None:
        scene.broker.answer = HELD
        await scene.providers.open_sealer(CREDENTIALS)
        assert scene.broker.rounds == 0

    play(scenario)


def test_what_a_provider_keeps_is_no_release() -> None:
    keeper = Keeper()

    async def scenario(scene: Scene) -> None:
        await scene.unseal(blob())
        keeper.answer = DENIED
        await trio.sleep(FRESH_S)
        scene.use()
        assert type(await scene.fails()) is ReleaseDenied
        assert keeper.released == [KEY, KEY]

    play(scenario, keeper)


def test_a_refusal_is_about_the_key_only_where_no_blob_was_shown() -> None:
    async def scenario(scene: Scene) -> None:
        scene.broker.answer_to_blob = SealingRefused("not this one")
        assert type(await scene.fails(blob(1))) is SealingRefused
        scene.broker.answer_to_blob = None
        await scene.unseal(blob(2))
        scene.broker.answer = SealingRefused("no key")
        await trio.sleep(FRESH_S)
        assert type(await scene.fails(blob(3))) is ReleaseDenied
        assert type(await scene.fails(blob(2))) is ReleaseDenied
        assert scene.broker.rounds == 3

    play(scenario)


def test_a_blob_of_a_version_that_is_gone_keeps_no_other_from_service() -> None:
    async def scenario(scene: Scene) -> None:
        old, new = blob(1), blob(2)
        await scene.unseal(new)
        await scene.unseal(old)
        scene.broker.gone.add(old)
        await trio.sleep(FRESH_S * 0.7)
        # The release is renewed with the blob that opened last.
        assert scene.use(new) is None
        await trio.sleep(scene.broker.takes_s + 0.1)
        assert (type(scene.use(old)), scene.broker.rounds) == (ReleaseDenied, 2)
        assert type(scene.use(new)) is NotReleased
        await trio.sleep(scene.broker.takes_s + 0.1)
        for _ in range(3 * int(FRESH_S)):
            assert (scene.use(new), scene.use(old)) == (None, None)
            await trio.sleep(1)
        assert type(await scene.fails(old)) is SealingRefused
        assert scene.use(new) is None

    play(scenario)


def test_a_blob_that_opens_does_not_wait_for_the_failure_of_another() -> None:
    async def scenario(scene: Scene) -> None:
        old, new = blob(1), blob(2)
        await scene.unseal(old)
        scene.broker.gone.add(old)
        await trio.sleep(FRESH_S)
        for _ in range(3):
            assert type(await scene.fails(old)) is ReleaseDenied
        assert scene.broker.rounds == 2
        await scene.unseal(new)
        assert scene.use(old) is None

    play(scenario)


@pytest.mark.parametrize("age_s", [SHARED_S + 0.1, FRESH_S * 0.7])
def test_a_blob_that_is_being_opened_at_a_denial_is_not_used(age_s: float) -> None:
    """Whether or not it renews the release."""

    async def scenario(scene: Scene) -> None:
        scene.broker.takes_s = 0.0
        await scene.unseal(blob())
        await trio.sleep(age_s)
        late = scene.broker.late = trio.Event()
        scene.broker.answers_late = blob(1)
        async with trio.open_nursery() as nursery:
            outcomes: list[EnclaveSignerError] = []

            async def call() -> None:
                outcomes.append(await scene.fails(blob(1)))

            nursery.start_soon(call)
            await wait_all_tasks_blocked()
            await trio.sleep(0.1)
            scene.broker.answer_to_blob = DENIED
            assert type(await scene.fails()) is ReleaseDenied
            scene.broker.answer_to_blob = None
            late.set()
        assert [(type(each), str(each)) for each in outcomes] == [(ReleaseDenied, "policy")]
        assert not scene.release.fresh

    play(scenario)


def test_junk_without_end_keeps_no_key_from_its_release() -> None:
    async def scenario(scene: Scene) -> None:
        async def attack() -> None:
            number = 0
            while True:
                number += 1
                await scene.fails(blob(number) + b"junk")

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(attack)
            await wait_all_tasks_blocked()
            with trio.fail_after(10 * LIMIT_S):
                await scene.unseal(blob())
            for _ in range(3 * int(FRESH_S)):
                assert scene.use() is None
                await trio.sleep(1.001)
            # Not used for long: the blob that opened last is asked about first.
            await trio.sleep(FRESH_S)
            with trio.fail_after(2 * LIMIT_S):
                await scene.unseal(blob(0) + b"2")
            nursery.cancel_scope.cancel()

    broker = Broker()
    broker.takes_s = 0.1
    broker.blob_takes_s = 0.1
    play(scenario, broker)


def test_a_key_whose_blobs_are_all_refused_is_denied_and_is_not_asked_for_without_end() -> None:
    async def scenario(scene: Scene) -> None:
        blobs = [blob(number) for number in range(20)]
        await scene.crowd(*blobs)
        scene.broker.answer_to_blob, scene.broker.takes_s = SealingRefused("no right"), 0.0
        await trio.sleep(FRESH_S)
        scene.broker.opened.clear()
        assert type(scene.use(blobs[-1])) is NotReleased
        await wait_all_tasks_blocked()
        with trio.move_on_after(10 * RETRY_S - 1):
            while True:
                assert {type(each) for each in await scene.crowd(*blobs)} == {ReleaseDenied}
                assert type(scene.use(blobs[-1])) is ReleaseDenied
                await trio.sleep(1)
        assert len(scene.broker.opened) == 10 * MAX_REFUSED

    play(scenario)
