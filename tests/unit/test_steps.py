"""Work in steps: everything else goes on in between, one piece at a time, and what was made is shared for a second."""

import asyncio
import json

import pytest
from starlette.types import ASGIApp

from enclave_signer.protocol.messages import KeyType, Signature, SigningVersion
from host_backend.api.signing import signing_app
from host_backend.api.utility import utility_app
from host_backend.exposition import PART_BYTES, page
from host_backend.metrics import Metrics
from host_backend.metrics_page import metrics_page
from host_backend.policy import ANYONE, DEFAULT_POLICY, Caller
from host_backend.signer import Signer
from host_backend.steps import KEPT_S, PAUSE_S, STEP_S, Kept, Steps, Work
from host_backend.vault.vault import Vault
from host_backend.watermark.memory import MemoryWatermarkStore
from tests.doubles.asgi import ask
from tests.doubles.host_process import Answer
from tests.doubles.known_keys import FOUR
from tests.doubles.prometheus_page import library_page
from tests.doubles.step_clock import BusyClock, Clock, done, eager_steps


class Counted:
    """Work of some yields that notes how often it was begun, and what else went on at each."""

    def __init__(self, yields: int = 0) -> None:
        self.yields = yields
        self.begun = 0

    def make(self) -> Work[int]:
        self.begun += 1
        number = self.begun
        for _ in range(self.yields):
            yield None
        return number


def test_work_is_interrupted_when_a_step_is_over_and_not_before() -> None:
    clock = Clock()
    passes = 0

    def work() -> Work[list[int]]:
        seen = []
        for _ in range(3):
            for part in (0.4, 0.4, 0.4):
                clock.now += part * STEP_S
                yield None
            seen.append(passes)
        return seen

    async def scenario() -> tuple[list[int], int]:
        def count() -> None:
            nonlocal passes
            passes += 1
            asyncio.get_running_loop().call_soon(count)

        count()
        return await Steps(clock, lambda: asyncio.sleep(0)).count(work())

    seen, steps = asyncio.run(scenario())
    assert (seen, steps) == ([2, 3, 4], 4)


def test_nothing_is_done_between_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event loop that is never idle would leave no time to the thread that writes marks."""
    pauses = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("host_backend.steps.asyncio.sleep", sleep)
    assert asyncio.run(Steps(BusyClock()).count(Counted(yields=3).make())) == (1, 4)
    assert pauses == [PAUSE_S] * 3
    assert PAUSE_S > 0


def test_one_piece_of_work_at_a_time() -> None:
    order = []

    def work(name: str) -> Work[None]:
        for _ in range(3):
            order.append(name)
            yield None

    async def scenario() -> None:
        steps = eager_steps()
        await asyncio.gather(steps.do(work("a")), steps.do(work("b")))

    asyncio.run(scenario())
    assert order == ["a", "a", "a", "b", "b", "b"]


def test_whoever_asks_meanwhile_gets_the_same_answer_even_when_the_first_leaves() -> None:
    work = Counted(yields=5)

    async def scenario() -> list[int]:
        kept = Kept(eager_steps(), work.make, always=True)
        first = asyncio.create_task(kept.get())
        others = [asyncio.create_task(kept.get()) for _ in range(9)]
        await asyncio.sleep(0)
        first.cancel()
        return await asyncio.gather(*others)

    assert asyncio.run(scenario()) == [1] * 9
    assert work.begun == 1


@pytest.mark.parametrize(
    ("always", "yields", "is_kept"), [(True, 0, True), (True, 5, True), (False, 0, False), (False, 5, True)]
)
def test_an_answer_is_kept_for_a_second(*, always: bool, yields: int, is_kept: bool) -> None:
    clock, work = Clock(), Counted(yields)

    async def scenario() -> list[int]:
        kept = Kept(eager_steps(), work.make, always=always, clock=clock)
        answers = []
        for now in (0, KEPT_S - 0.001, KEPT_S, 2 * KEPT_S - 0.001, 2 * KEPT_S):
            clock.now = now
            answers.append(await kept.get())
        return answers

    assert asyncio.run(scenario()) == ([1, 1, 2, 2, 3] if is_kept else [1, 2, 3, 4, 5])


def test_work_that_fails_is_told_to_all_who_ask_and_begun_anew() -> None:
    begun = 0

    def make() -> Work[str]:
        nonlocal begun
        begun += 1
        yield None
        if begun == 1:
            raise ValueError("a bug")
        return "made"

    async def scenario() -> None:
        kept = Kept(eager_steps(), make, always=True)
        results = await asyncio.gather(kept.get(), kept.get(), return_exceptions=True)
        assert [str(each) for each in results] == ["a bug", "a bug"]
        assert await kept.get() == "made"

    asyncio.run(scenario())


def test_a_page_of_many_series_is_made_in_steps_and_in_parts() -> None:
    pkhs = {f"tz1{number:033d}": DEFAULT_POLICY for number in range(1000)}
    metrics = Metrics(lambda: pkhs, "file")
    for pkh in pkhs:
        metrics.handled(pkh, 200, 0.001)
    parts, steps = asyncio.run(eager_steps().count(metrics_page(metrics, [])))
    # Everything else may go on after each series.
    assert steps > 1000
    assert len(parts) > 1
    assert all(len(part) < PART_BYTES + 1024 for part in parts)
    text = b"".join(parts).decode()
    assert text == library_page(metrics) == b"".join(done(metrics_page(metrics, []))).decode()


def test_what_is_counted_while_a_page_is_made_harms_nothing() -> None:
    metrics = Metrics(lambda: {"a", "b", "c"}, "file")
    metrics.handled("a", 200, 0.001)
    work = metrics_page(metrics, [])
    try:
        while True:
            next(work)
            metrics.handled("b", 200 + len(metrics.handled_requests.values), 0.001)
    except StopIteration as end:
        text = b"".join(end.value).decode()
    assert 'sign_handler_requests_total{address="a",status="200"} 1.0\n' in text


class QuickSigner(Signer):
    """A signer that needs no enclave."""

    async def sign(
        self,
        pkh: str,
        message: bytes,
        version: SigningVersion = SigningVersion.LATEST,
        caller: Caller = ANYONE,
    ) -> Signature:
        return Signature(KeyType.ED25519, bytes(64))


def test_signatures_are_given_while_a_page_of_many_keys_is_made() -> None:
    done_in_order: list[str] = []
    pkhs = {f"tz1{number:033d}": DEFAULT_POLICY for number in range(1000)}
    metrics = Metrics(lambda: pkhs, "file")
    for pkh in pkhs:
        metrics.handled(pkh, 200, 0.001)

    def make() -> Work[tuple[bytes, ...]]:
        parts = yield from metrics_page(metrics, [])
        done_in_order.append("page")
        return parts

    async def scenario() -> None:
        watched = utility_app([], MemoryWatermarkStore(), dict, lambda: False, make, eager_steps())
        signing = signing_app(QuickSigner({}, [], MemoryWatermarkStore()), Metrics(dict, "memory"))
        asked = asyncio.create_task(ask(watched, "GET", "/metrics"))
        await asyncio.sleep(0)
        for _ in range(3):
            assert (await ask(signing, "POST", f"/keys/{FOUR[0].pkh}", b'"03"')).signature.startswith("edsig")
            done_in_order.append("signature")
        assert b"sign_handler_requests_total" in (await asked).body

    asyncio.run(scenario())
    assert done_in_order == ["signature", "signature", "signature", "page"]


def test_health_and_known_keys_of_many_keys_are_made_in_steps() -> None:
    pkhs = {f"tz1{number:033d}": DEFAULT_POLICY for number in range(1000)}
    looks = 0

    class SomeVault(Vault):
        def __init__(self) -> None:
            self.name = "v"

        problem = None
        out_of_service = {}  # noqa: RUF012 -- as the property that it stands for
        unreleased = {}  # noqa: RUF012 -- as above
        degraded = []  # noqa: RUF012 -- as above

        def serves(self, pkh: str) -> bool:
            return self.opened(pkh)

        def holds(self, pkh: str) -> bool:
            return self.opened(pkh)

        def opened(self, pkh: str) -> bool:
            nonlocal looks
            looks += 1
            return not pkh.endswith("7")

    vaults: list[Vault] = [SomeVault()]
    store = MemoryWatermarkStore()
    health = utility_app(vaults, store, lambda: pkhs, lambda: False, lambda: page(()), eager_steps())
    keys = signing_app(
        QuickSigner(dict.fromkeys(pkhs, DEFAULT_POLICY), vaults, store),
        Metrics(dict, "memory"),
        steps=eager_steps(),
    )

    async def scenario(app: ASGIApp, path: str) -> Answer:
        asked = asyncio.create_task(ask(app, "GET", path))
        for _ in range(10):
            await asyncio.sleep(0)
        assert 0 < looks < 20
        return await asked

    answer = asyncio.run(scenario(health, "/healthz"))
    idle = [pkh for pkh in pkhs if pkh.endswith("7")]
    assert json.loads(answer.body) == {"ready": True, "degraded": [f"{pkh}: in no vault" for pkh in idle]}
    looks = 0
    answer = asyncio.run(scenario(keys, "/known_keys"))
    assert json.loads(answer.body) == {"known_keys": [pkh for pkh in pkhs if not pkh.endswith("7")]}
