"""What one process proves: budgets, answers given twice, and refusals where nothing can be bound."""

from collections.abc import Awaitable, Callable

import pytest
import trio
from nacl.signing import VerifyKey
from trio.testing import MockClock

from enclave_signer.attestation.attesting import BURST, KEPT_S, MAX_KEPT, Attesting
from enclave_signer.attestation.base import NoAttester
from enclave_signer.errors import NotAttested, TokenUnavailable
from enclave_signer.protocol.binding import Channel, channel_statement, inventory_digest, token_nonce
from enclave_signer.protocol.messages import Attest, Attestation, KeyType, PublicKey, Purpose

CHANNEL = Channel(b"enclave", b"client", bytes(32))
OPEN = [PublicKey(KeyType.ED25519, bytes(32))]


class Attester:
    """Gives a token that names its nonce, after a while, or an error."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.takes_s = 0.0
        self.error: Exception | None = None

    async def token(self, nonce: str) -> str:
        self.asked.append(nonce)
        await trio.sleep(self.takes_s)
        if self.error is not None:
            raise self.error
        return f"token for {nonce}"


class World:
    def __init__(self) -> None:
        self.attester = Attester()
        self.attesting = Attesting(self.attester, trio.current_time)

    async def ask(self, purpose: Purpose, number: int = 0, channel: Channel | None = CHANNEL) -> Attestation:
        return await self.attesting.attest(Attest(bytes([number] * 32), purpose), channel, OPEN)


def play(main: Callable[[World], Awaitable[None]]) -> None:
    async def run() -> None:
        await main(World())

    trio.run(run, clock=MockClock(autojump_threshold=0))


def test_a_channel_is_proven_by_a_token_and_a_signature() -> None:
    async def main(world: World) -> None:
        answer = await world.ask(Purpose.CHANNEL)
        assert answer.inventory == inventory_digest(OPEN)
        nonce = token_nonce(Purpose.CHANNEL, bytes(32), CHANNEL, answer.attested_key, answer.inventory)
        assert answer.token == f"token for {nonce}"
        assert answer.channel_proof is not None
        VerifyKey(answer.attested_key).verify(
            channel_statement(bytes(32), CHANNEL, answer.attested_key), answer.channel_proof
        )

    play(main)


def test_a_session_costs_no_token() -> None:
    async def main(world: World) -> None:
        answers = [await world.ask(Purpose.SESSION, number) for number in range(200)]
        assert (world.attester.asked, answers[0].token, answers[0].inventory) == ([], None, None)
        assert {answer.attested_key for answer in answers} == {world.attesting.public_key}

    play(main)


def test_a_report_proves_no_channel() -> None:
    async def main(world: World) -> None:
        for channel in (CHANNEL, None):
            answer = await world.ask(Purpose.REPORT, 1, channel)
            assert (answer.channel_proof, answer.token is None) == (None, False)
        assert len(set(world.attester.asked)) == 2

    play(main)


@pytest.mark.parametrize("purpose", [Purpose.CHANNEL, Purpose.SESSION])
def test_where_there_is_no_channel_none_is_proven(purpose: Purpose) -> None:
    async def main(world: World) -> None:
        with pytest.raises(NotAttested, match=r"^not attested: this connection is not TLS"):
            await world.ask(purpose, channel=None)
        assert world.attester.asked == []

    play(main)


def test_outside_a_confidential_machine_it_is_said_so() -> None:
    async def main(_: World) -> None:
        attesting = Attesting(NoAttester(), trio.current_time)
        with pytest.raises(NotAttested, match=r"^not attested: .* has no \[attestation\]"):
            await attesting.attest(Attest(bytes(32), Purpose.CHANNEL), CHANNEL, [])

    play(main)


def test_the_same_question_is_asked_once_and_again_only_after_a_while() -> None:
    async def main(world: World) -> None:
        world.attester.takes_s = 1.0
        answers: list[Attestation] = []

        async def ask() -> None:
            answers.append(await world.ask(Purpose.CHANNEL))

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(ask)
        assert (len(answers), len({answer.token for answer in answers}), len(world.attester.asked)) == (100, 1, 1)
        await trio.sleep(KEPT_S)
        await ask()
        assert len(world.attester.asked) == 2

    play(main)


def test_reports_take_nothing_from_channels() -> None:
    async def main(world: World) -> None:
        refused = 0
        for number in range(100):
            try:
                await world.ask(Purpose.REPORT, number)
            except TokenUnavailable:
                refused += 1
        assert refused == 100 - BURST[Purpose.REPORT]
        for number in range(BURST[Purpose.CHANNEL]):
            await world.ask(Purpose.CHANNEL, number)
        with pytest.raises(TokenUnavailable, match=r"^attestation unavailable: too many tokens"):
            await world.ask(Purpose.CHANNEL, 99)
        await trio.sleep(1)
        await world.ask(Purpose.CHANNEL, 99)

    play(main)


def test_one_client_takes_nothing_from_another() -> None:
    async def main(world: World) -> None:
        other = Channel(b"enclave", b"another client", bytes(32))
        for number in range(MAX_KEPT):
            await world.ask(Purpose.CHANNEL, number)
            await trio.sleep(1)
        for number in range(200):
            with pytest.raises(TokenUnavailable):
                await world.ask(Purpose.CHANNEL, 50 + number % 100)
        for purpose in BURST:
            for number in range(BURST[purpose]):
                await world.ask(purpose, number, other)

    play(main)


def test_what_is_kept_is_bounded() -> None:
    async def main(world: World) -> None:
        for number in range(MAX_KEPT):
            await world.ask(Purpose.CHANNEL, number)
            await trio.sleep(1)
        with pytest.raises(TokenUnavailable, match="retry in a minute"):
            await world.ask(Purpose.CHANNEL, 200)

    play(main)


def test_reports_that_are_kept_take_no_room_from_channels() -> None:
    async def main(world: World) -> None:
        for number in range(MAX_KEPT):
            await world.ask(Purpose.REPORT, number)
            await trio.sleep(1)
        with pytest.raises(TokenUnavailable, match="retry in a minute"):
            await world.ask(Purpose.REPORT, 200)
        await world.ask(Purpose.CHANNEL)

    play(main)


def test_an_error_is_told_to_all_who_wait_and_not_kept() -> None:
    async def main(world: World) -> None:
        world.attester.takes_s, world.attester.error = 1.0, TokenUnavailable("attestation unavailable: not now")
        outcomes: list[str] = []

        async def ask() -> None:
            with pytest.raises(TokenUnavailable) as refusal:
                await world.ask(Purpose.CHANNEL)
            outcomes.append(str(refusal.value))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
        assert outcomes == ["attestation unavailable: not now"] * 2
        world.attester.error = None
        await world.ask(Purpose.CHANNEL)

    play(main)


def test_a_client_that_leaves_takes_the_token_from_no_other() -> None:
    async def main(world: World) -> None:
        world.attester.takes_s = 1.0
        answers: list[Attestation] = []

        async def second() -> None:
            answers.append(await world.ask(Purpose.CHANNEL))

        async with trio.open_nursery() as others, trio.open_nursery() as nursery:
            nursery.start_soon(world.ask, Purpose.CHANNEL)
            await trio.testing.wait_all_tasks_blocked()
            others.start_soon(second)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert ([answer.token is None for answer in answers], len(world.attester.asked)) == ([False], 1)

    play(main)


def test_a_bug_of_what_vouches_ends_no_daemon() -> None:
    async def main(world: World) -> None:
        world.attester.error = ZeroDivisionError()
        with pytest.raises(TokenUnavailable, match=r"^attestation unavailable: by a bug"):
            await world.ask(Purpose.CHANNEL)
        world.attester.error = None
        await world.ask(Purpose.CHANNEL)

    play(main)
