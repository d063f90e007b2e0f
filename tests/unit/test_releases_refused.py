"""A gated key that is denied, or whose blobs do not open: what that says of the key, and what strangers can make of it."""

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked

from enclave_signer.errors import (
    BlobCorrupt,
    EnclaveSignerError,
    NotReleased,
    ReleaseDenied,
    SealingRefused,
)
from enclave_signer.sealing.gated_rules import GatedRule
from enclave_signer.sealing.providers import Providers
from enclave_signer.sealing.refusals import MAX_REFUSED
from enclave_signer.sealing.releases import MAX_RELEASES, SHARED_S
from enclave_signer.sealing.vain_blobs import MAX_VAIN
from tests.doubles.gated_broker import (
    BROKER,
    CREDENTIALS,
    DENIED,
    DOWN,
    FRESH_S,
    LIMIT_S,
    RETRY_S,
    Broker,
    Scene,
    blob,
    play,
)


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
                await scene.fails(blob(number) + b"junk", client=f"stranger {number}")

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


def in_doubt(scene_of: Callable[[Scene], Awaitable[None]]) -> Callable[[Scene], Awaitable[None]]:
    """Return a scenario that begins when the blob that opened was refused, and would open again."""

    async def scenario(scene: Scene) -> None:
        await scene.unseal(blob())
        await trio.sleep(FRESH_S)
        scene.broker.answer_to_blob = SealingRefused("no right")
        assert type(scene.use()) is NotReleased
        await trio.sleep(1)
        assert type(scene.use()) is ReleaseDenied
        scene.broker.answer_to_blob = None
        await scene_of(scene)

    return scenario


def test_strangers_blobs_do_not_keep_a_key_denied() -> None:
    async def scenario(scene: Scene) -> None:
        async def attack(stranger: int) -> None:
            number = 0
            while True:
                number += 1
                scene.broker.gone.add(made_up := blob(1000 * stranger + number))
                await scene.fails(made_up, client=f"stranger {stranger}")
                await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            for stranger in range(1, 9):
                nursery.start_soon(attack, stranger)
            await trio.sleep(RETRY_S)
            assert scene.use() is not None
            await trio.sleep(2 * scene.broker.takes_s)
            assert scene.use() is None
            nursery.cancel_scope.cancel()

    broker = Broker()
    broker.takes_s = 0.1
    play(in_doubt(scenario), broker)


def test_what_opened_before_does_not_wait_for_strangers_blobs() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.unseal(blob())
        await scene.unseal(blob(1))
        async with trio.open_nursery() as nursery:
            await trio.sleep(FRESH_S)
            scene.broker.gone.add(blob(1))
            assert type(scene.use()) is NotReleased
            await trio.sleep(RETRY_S)
            late = scene.broker.late = trio.Event()
            scene.broker.answers_late = blob(2)
            nursery.start_soon(scene.crowd, blob(2))
            await wait_all_tasks_blocked()
            with trio.fail_after(LIMIT_S / 2):
                await scene.unseal(blob())
            late.set()

    play(scenario)


def test_a_client_has_few_blobs_asked_about_in_vain() -> None:
    async def scenario(scene: Scene) -> None:
        for client in ("one", "two"):
            scene.broker.opened.clear()
            outcomes = [await scene.fails(blob(number) + b"junk", client) for number in range(2 * MAX_VAIN)]
            assert [type(each) for each in outcomes] == [BlobCorrupt] * MAX_VAIN + [NotReleased] * MAX_VAIN
            assert len(scene.broker.opened) == MAX_VAIN
        # Neither another client's blobs, nor what opened before.
        await scene.unseal(blob(0))
        await scene.unseal(blob(0), "two")
        await trio.sleep(RETRY_S)
        assert type(await scene.fails(blob(1) + b"junk", "two")) is BlobCorrupt

    broker = Broker()
    broker.takes_s = 0.0
    play(scenario, broker)


@pytest.mark.parametrize("refusal", [DENIED, SealingRefused("no right")])
@pytest.mark.parametrize("later", [None, DOWN])
def test_an_older_yes_releases_no_key_that_was_denied_since(
    refusal: EnclaveSignerError, later: EnclaveSignerError | None
) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.unseal(blob())
        await trio.sleep(FRESH_S * 0.7)
        broker = scene.broker
        asked_first, fails_later = trio.Event(), trio.Event()
        async with trio.open_nursery() as nursery:
            for which, event in ((blob(1), asked_first), (blob(2), fails_later)):
                broker.waits[which] = event
                nursery.start_soon(scene.crowd, which)
                await wait_all_tasks_blocked()
            # Asked about beside them, and answered first.
            broker.answer_to_blob = refusal
            assert scene.use() is None
            await trio.sleep(broker.takes_s + 0.1)
            assert type(scene.use()) is ReleaseDenied
            broker.answer_to_blob = later
            fails_later.set()
            await wait_all_tasks_blocked()
            broker.answer_to_blob = None
            asked_first.set()
        assert not scene.release.fresh
        assert type(scene.use()) is ReleaseDenied

    play(scenario)


def test_an_open_key_keeps_its_release_whatever_is_made_up() -> None:
    async def scenario() -> None:
        broker = Broker()
        providers = Providers([broker], [GatedRule(f"{BROKER}/", BROKER, FRESH_S, RETRY_S)])
        async with providers.running():
            release = providers.release(blob(key=f"{BROKER}/key"), CREDENTIALS)
            assert release is not None
            for number in range(2 * MAX_RELEASES):
                providers.release(blob(key=f"{BROKER}/{number}"), CREDENTIALS)
            assert providers.release(blob(key=f"{BROKER}/key"), CREDENTIALS) is release

    trio.run(scenario)
