"""A gated key: asked for once for all, remembered when it fails, used only while it is fresh."""

import math

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock, wait_all_tasks_blocked

from enclave_signer.errors import (
    BlobCorrupt,
    EnclaveSignerError,
    NotReleased,
    ReleaseDenied,
)
from enclave_signer.protocol.blob import BlobHeader
from enclave_signer.protocol.messages import Credentials
from enclave_signer.sealing.base import UnsealedKey
from enclave_signer.sealing.gated_rules import GatedRule
from enclave_signer.sealing.providers import Providers
from enclave_signer.sealing.releases import MAX_RELEASES
from tests.doubles.gated_broker import (
    CREDENTIALS,
    DENIED,
    DOWN,
    FRESH_S,
    HELD,
    KEY,
    LIMIT_S,
    PUBLIC,
    RETRY_S,
    Broker,
    Identified,
    Keeper,
    Scene,
    blob,
    play,
)


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
