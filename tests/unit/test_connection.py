"""One stream to the enclave: whatever callers and enclave do, no one gets another's answer and no one waits for ever."""

import asyncio
import select
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import uvloop

from enclave_signer.protocol.framing import MAX_FRAME_BYTES
from enclave_signer.protocol.messages import (
    MAX_MESSAGE_BYTES,
    Credentials,
    Import,
    ImportedKey,
    Initialize,
    KeyType,
    PublicKey,
    Result,
    Sign,
    Signature,
)
from host_backend.addresses import Address
from host_backend.enclave.client import open_client
from host_backend.enclave.connection import EnclaveConnection, connect
from host_backend.enclave.endpoint import Endpoint
from host_backend.enclave.supervisor import LinkLimits
from host_backend.errors import EnclaveRefused, EnclaveUnavailable, Garbled, HostError, Unanswered
from tests.doubles.scripted_enclave import ScriptedEnclave, scripted_enclave

Scenario = Callable[[ScriptedEnclave, EnclaveConnection], Awaitable[None]]
LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
#: Seconds after which a test has failed, whatever it waits for.
PATIENCE_S = 60.0


def signature(number: int) -> Signature:
    return Signature(KeyType.P256, number.to_bytes(64, "big"))


def call(number: int) -> Sign:
    return Sign(number, b"m")


def play(
    scenario: Scenario,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop,
    *,
    sign_s: float = 600,
    sealer_s: float = 600,
) -> None:
    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S), scripted_enclave() as enclave:
            connection = await connect(
                Address("127.0.0.1", enclave.port), limits=LinkLimits(sign_s=sign_s, sealer_s=sealer_s)
            )
            try:
                await scenario(enclave, connection)
            finally:
                connection.close()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(run())


async def outcome(asked: Awaitable[Result]) -> Result | HostError:
    try:
        return await asked
    except HostError as error:
        return error


def ask_all(connection: EnclaveConnection, count: int) -> list[asyncio.Task[Result | HostError]]:
    return [asyncio.create_task(outcome(connection.ask(call(number)))) for number in range(count)]


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_many_calls_in_flight_get_their_answers(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def scenario(enclave: ScriptedEnclave, connection: EnclaveConnection) -> None:
        asked = ask_all(connection, 100)
        assert await enclave.take(100) == [call(number) for number in range(100)]
        for number in range(100):
            await (enclave.refuse(f"no {number}") if number % 7 == 3 else enclave.answer(signature(number)))
        for number, answer in enumerate(await asyncio.gather(*asked)):
            if number % 7 == 3:
                assert isinstance(answer, EnclaveRefused)
                assert str(answer) == f"the enclave refused: no {number}"
            else:
                assert answer == signature(number)
        assert connection.broken is None

    play(scenario, loop_factory)


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_callers_that_leave_do_not_shift_the_answers_of_others(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def scenario(enclave: ScriptedEnclave, connection: EnclaveConnection) -> None:
        asked = ask_all(connection, 20)
        await enclave.take(20)
        for number in (0, 1, 5, 6, 18):
            asked[number].cancel()
        for number in range(10):
            await enclave.answer(signature(number))
        await asked[9]
        asked[12].cancel()
        for number in range(10, 20):
            await enclave.answer(signature(number))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for number, answer in enumerate(answers):
            if number in (0, 1, 5, 6, 12, 18):
                assert isinstance(answer, asyncio.CancelledError)
            else:
                assert answer == signature(number)

    play(scenario, loop_factory)


def test_a_caller_that_leaves_before_its_call_is_written() -> None:
    async def scenario(enclave: ScriptedEnclave, connection: EnclaveConnection) -> None:
        first, second = ask_all(connection, 2)
        # Both have asked, nothing is written yet.
        asyncio.get_running_loop().call_soon(first.cancel)
        # Sent or not, the line must be right: it was put in line, so it is sent.
        assert await enclave.take(2) == [call(0), call(1)]
        await enclave.answer(signature(0))
        await enclave.answer(signature(1))
        assert await second == signature(1)
        assert first.cancelled()

    play(scenario)


def test_a_time_limit_of_the_caller_s_own_leaves_the_connection_whole() -> None:
    async def scenario(enclave: ScriptedEnclave, connection: EnclaveConnection) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await connection.ask(call(0))
        asked = asyncio.create_task(outcome(connection.ask(call(1))))
        (*_, last) = await enclave.take(2)
        assert last == call(1)
        await enclave.answer(signature(0))
        await enclave.answer(signature(1))
        assert await asked == signature(1)

    play(scenario)


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_a_lost_connection_fails_everything(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def scenario(enclave: ScriptedEnclave, connection: EnclaveConnection) -> None:
        asked = ask_all(connection, 5)
        await enclave.take(5)
        await enclave.answer(signature(0))
        assert await asked[0] == signature(0)
        await enclave.hang_up()
        for answer in await asyncio.gather(*asked[1:]):
            assert isinstance(answer, Unanswered)
            assert str(answer).startswith("the connection to the enclave was lost")
        for _ in range(2):
            with pytest.raises(Unanswered, match="was lost"):
                await connection.ask(call(9))
        assert isinstance(connection.broken, Unanswered)

    play(scenario, loop_factory)


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_a_late_answer_ends_the_connection(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def scenario(enclave: ScriptedEnclave, connection: EnclaveConnection) -> None:
        for answer in await asyncio.gather(*ask_all(connection, 3)):
            assert isinstance(answer, Unanswered)
            assert str(answer) == "the enclave did not answer in time"
        await enclave.ended.wait()
        with pytest.raises(Unanswered, match="did not answer in time"):
            await connection.ask(call(9))

    play(scenario, loop_factory, sign_s=0.05)


def block_loop(seconds: float) -> None:
    """Keep the event loop busy for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_an_answer_that_came_while_the_loop_was_late_is_no_late_answer(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def scenario(enclave: ScriptedEnclave, connection: EnclaveConnection) -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()

        def answer_late() -> None:
            loop.remove_reader(ours)
            enclave.answer_at_once(signature(0))
            # The answer is on its way, and this loop looks at nothing until its time is over.
            block_loop(0.1)

        with ours, theirs:
            (asked,) = ask_all(connection, 1)
            await enclave.take(1)
            # Called where a loop reads: uvloop looks at its timers next.
            loop.add_reader(ours, answer_late)
            theirs.send(b"x")
            assert await asked == signature(0)
        assert connection.alive

    play(scenario, loop_factory, sign_s=0.05)


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_the_time_of_a_call_runs_from_when_it_is_sent(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def scenario(enclave: ScriptedEnclave, connection: EnclaveConnection) -> None:
        (asked,) = ask_all(connection, 1)
        # It asks in the next pass of the loop, before this runs, and is sent in the one after.
        asyncio.get_running_loop().call_soon(block_loop, 0.1)
        assert await enclave.take(1) == [call(0)]
        await enclave.answer(signature(0))
        assert await asked == signature(0)

    play(scenario, loop_factory, sign_s=0.05)


def test_the_limit_of_a_signature_holds_after_a_longer_one() -> None:
    async def scenario(enclave: ScriptedEnclave, connection: EnclaveConnection) -> None:
        key = ImportedKey(PublicKey(KeyType.ED25519, bytes(32)), 0)
        imported = asyncio.create_task(outcome(connection.ask(Import(b"blob"))))
        await enclave.take(1)
        await enclave.answer(key)
        assert await imported == key
        # The timer of the import is still armed, for ten minutes.
        assert str(await outcome(connection.ask(call(0)))) == "the enclave did not answer in time"

    play(scenario, sign_s=0.05)


def test_a_signature_behind_a_slow_import_has_its_whole_limit_after_it() -> None:
    async def scenario(enclave: ScriptedEnclave, connection: EnclaveConnection) -> None:
        asked = [
            asyncio.create_task(outcome(connection.ask(request))) for request in (Import(b"blob"), call(1), call(2))
        ]
        await enclave.take(3)
        # More than the limit of a signature passes, and nothing is late.
        await asyncio.wait(asked, timeout=0.2)
        assert connection.broken is None
        await enclave.refuse("no such blob")
        assert isinstance(await asked[0], EnclaveRefused)
        for late in (await asked[1], await asked[2]):
            assert str(late) == "the enclave did not answer in time"

    play(scenario, sign_s=0.1)


@pytest.mark.parametrize("noise", [b"\xff\xff\xff\xff", b"\0\0\0\1\xff", b"\0\0\0\0"])
def test_a_garbled_answer_ends_the_connection(noise: bytes) -> None:
    async def scenario(enclave: ScriptedEnclave, connection: EnclaveConnection) -> None:
        asked = ask_all(connection, 3)
        await enclave.take(3)
        await enclave.answer(signature(0))
        await enclave.send(noise)
        first, *others = await asyncio.gather(*asked)
        assert first == signature(0)
        for other in others:
            assert isinstance(other, Garbled)
            assert str(other).startswith("the enclave's answer is garbled: ")
        await enclave.ended.wait()

    play(scenario)


def test_an_answer_without_a_call_ends_the_connection() -> None:
    async def scenario(enclave: ScriptedEnclave, connection: EnclaveConnection) -> None:
        await enclave.answer(signature(0))
        await enclave.ended.wait()
        with pytest.raises(Garbled, match="without a call"):
            await connection.ask(call(0))

    play(scenario)


def test_closing_fails_what_is_in_flight() -> None:
    async def scenario(enclave: ScriptedEnclave, connection: EnclaveConnection) -> None:
        asked = ask_all(connection, 3)
        await enclave.take(3)
        connection.close()
        for answer in await asyncio.gather(*asked):
            assert isinstance(answer, Unanswered)
            assert str(answer) == "the connection to the enclave was closed"
        await enclave.ended.wait()
        connection.close()

    play(scenario)


def test_finishing_waits_for_every_answer() -> None:
    async def scenario(enclave: ScriptedEnclave, connection: EnclaveConnection) -> None:
        # One of them is not even sent yet, and one caller leaves.
        asked = ask_all(connection, 2)
        await enclave.take(2)
        asked += [asyncio.create_task(outcome(connection.ask(call(2))))]
        await asyncio.sleep(0)
        connection.finish()
        asked[1].cancel()
        assert await enclave.take(1) == [call(2)]
        for number in range(3):
            assert connection.alive
            await enclave.answer(signature(number))
        assert [await asked[0], await asked[2]] == [signature(0), signature(2)]
        assert not connection.alive
        await enclave.ended.wait()

    play(scenario)


def test_finishing_what_is_idle_ends_it() -> None:
    async def scenario(enclave: ScriptedEnclave, connection: EnclaveConnection) -> None:
        connection.finish()
        assert not connection.alive
        await enclave.ended.wait()

    play(scenario)


def test_a_call_too_large_to_send_disturbs_nobody() -> None:
    async def scenario(enclave: ScriptedEnclave, connection: EnclaveConnection) -> None:
        with pytest.raises(ValueError, match="over the limit"):
            await connection.ask(Sign(0, bytes(MAX_FRAME_BYTES)))
        asked = asyncio.create_task(outcome(connection.ask(Sign(1, bytes(MAX_MESSAGE_BYTES)))))
        assert await enclave.take(1) == [Sign(1, bytes(MAX_MESSAGE_BYTES))]
        await enclave.answer(signature(1))
        assert await asked == signature(1)

    play(scenario)


def test_an_enclave_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(EnclaveUnavailable, match=rf"^the enclave at 127\.0\.0\.1:{port} cannot be reached: .+"):
        asyncio.run(connect(Address("127.0.0.1", port)))


@pytest.mark.parametrize("refused", [False, True])
def test_initialize(refused: bool) -> None:
    credentials = Credentials("pool", "key")

    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S), scripted_enclave() as enclave:
            opening = asyncio.create_task(open_client(Endpoint(Address("127.0.0.1", enclave.port), credentials)))
            assert await enclave.take(1) == [Initialize(credentials)]
            if refused:
                await enclave.refuse("not with that key")
                with pytest.raises(EnclaveRefused, match="the enclave refused: not with that key"):
                    await opening
            else:
                await enclave.answer(None)
                client = await opening
                assert client.alive
                client.close()
            await enclave.ended.wait()

    asyncio.run(run())


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_a_flood_of_calls_and_leavers(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Every third caller leaves at some moment of its own; the enclave answers as fast as it can."""

    async def serve(enclave: ScriptedEnclave, count: int) -> None:
        for _ in range(count):
            (request,) = await enclave.take(1)
            assert isinstance(request, Sign)
            await enclave.answer(signature(request.handle))

    async def leave(task: asyncio.Task[Result | HostError], turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()

    async def scenario(enclave: ScriptedEnclave, connection: EnclaveConnection) -> None:
        serving = asyncio.create_task(serve(enclave, 600))
        asked = ask_all(connection, 600)
        leavers = [asyncio.create_task(leave(asked[number], number % 40)) for number in range(0, 600, 3)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        await asyncio.gather(serving, *leavers)
        for number, answer in enumerate(answers):
            assert answer == signature(number) or (number % 3 == 0 and isinstance(answer, asyncio.CancelledError))

    play(partial(scenario), loop_factory)


def reset_stream() -> socket.socket:
    """Return a connection that its other end has reset."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        other.close()
    # Readable: the reset has come, and is not taken.
    assert select.select([stream], [], [], PATIENCE_S)[0]
    return stream


class ResetTransport(asyncio.Transport):
    """What an event loop has of a connection that was reset just now."""

    def __init__(self, stream: socket.socket) -> None:
        super().__init__({"socket": stream})
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


def test_a_connection_that_is_reset_before_it_begins_has_ended() -> None:
    async def run(transport: ResetTransport) -> None:
        ended: list[Unanswered] = []
        connection = EnclaveConnection(600, 600, ended.append)
        connection.connection_made(transport)
        assert ["the connection to the enclave was lost" in str(reason) for reason in ended] == [True]
        assert transport.aborted
        assert not connection.alive
        with pytest.raises(Unanswered, match="was lost"):
            await connection.ask(call(0))

    with reset_stream() as stream:
        asyncio.run(run(ResetTransport(stream)))
