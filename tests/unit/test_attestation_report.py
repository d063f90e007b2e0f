"""`GET /attestation`: what it answers, how often it asks the enclave, and that no nonce of a caller proves a channel."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from starlette.applications import Starlette

from host_backend.api.reports import KEPT_S, MAX_KEPT, PAUSE_S, Reports, _TooSoon
from host_backend.api.utility import utility_app
from host_backend.attestation.report import Shown, report_nonce
from host_backend.errors import AttestationRefused, EnclaveUnavailable, HostError
from host_backend.steps import Steps
from host_backend.watermark.memory import MemoryWatermarkStore
from tests.doubles.asgi import ask_app
from tests.doubles.google.tokens import DIGEST, Issuer, claims

NONCE = "caller-nonce_1"


class Enclave:
    """Answers as one does, after `gate` has opened."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.error: HostError | None = None
        self.token = Issuer().token(claims())
        self.gate = asyncio.Event()
        self.gate.set()
        self.now = 1000.0

    async def ask(self, nonce: bytes) -> Shown:
        self.asked.append(nonce)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return Shown(self.token, b"a" * 32, b"i" * 32, b"enclave", b"client")


def app(**enclaves: Enclave) -> Starlette:
    reports = {name: enclave.ask for name, enclave in enclaves.items()}
    return utility_app(
        *([], MemoryWatermarkStore(), list, lambda: False, lambda: iter(()), Steps()),  # type: ignore[arg-type]
        reports=reports,
    )


def ask(app: Starlette, query: str) -> tuple[int, dict[str, Any]]:
    answer = ask_app(app, "GET", "/attestation", query=query.removeprefix("?").encode())
    return answer.status, json.loads(answer.body)


def test_what_an_enclave_proves_is_shown() -> None:
    enclave = Enclave()
    status, body = ask(app(one=enclave), f"?nonce={NONCE}")
    assert (status, body["status"]) == (200, "token_not_verified")
    assert body["raw_token"] == enclave.token
    assert body["attestation"]["hardware"] == {
        "hwmodel": "GCP_AMD_SEV",
        "secboot": True,
        "dbgstat": "disabled-since-boot",
    }
    assert body["attestation"]["container"]["image_digest"] == DIGEST
    assert "env" not in body["attestation"]["container"]
    assert body["attestation"]["gce"]["project_id"] == "tz-signer-prod"
    assert body["nonce_info"] == {
        "caller_nonce": NONCE,
        "nonce": report_nonce(NONCE).hex(),
        "attested_key": (b"a" * 32).hex(),
        "inventory": (b"i" * 32).hex(),
        "enclave_key": b"enclave".hex(),
        "client_key": b"client".hex(),
    }
    assert enclave.asked == [report_nonce(NONCE)]


def test_no_nonce_of_a_caller_is_asked_with() -> None:
    """Whatever a caller names, the enclave gets a hash of it under a tag: no caller can choose what a host would make up."""
    for chosen in ("0" * 64, report_nonce(NONCE).hex()):
        enclave = Enclave()
        ask(app(one=enclave), f"?nonce={chosen}")
        assert enclave.asked != [bytes.fromhex(chosen)]
        assert enclave.asked == [report_nonce(chosen)]


@pytest.mark.parametrize(
    "query",
    ["", "?nonce=", "?nonce=short", f"?nonce={'n' * 75}", "?nonce=with%20blanks%20in", "?nonce=%22%3Cscript%3E%22aaaa"],
)
def test_a_nonce_must_be_there_and_well_formed(query: str) -> None:
    enclave = Enclave()
    status, body = ask(app(one=enclave), query)
    assert (status, body["status"]) == (400, "bad_request")
    assert not enclave.asked


def test_of_several_vaults_one_is_named() -> None:
    one, two = Enclave(), Enclave()
    both = app(one=one, two=two)
    assert ask(both, f"?nonce={NONCE}")[0] == 400
    assert ask(both, f"?nonce={NONCE}&vault=three")[1]["error"].startswith("vault must be one of one, two")
    assert ask(both, f"?nonce={NONCE}&vault=two")[0] == 200
    assert (len(one.asked), len(two.asked)) == (0, 1)


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (AttestationRefused(["the enclave says: not attested"]), "not_in_confidential_space"),
        (EnclaveUnavailable("away"), "attestation_error"),
    ],
)
def test_an_enclave_that_proves_nothing(error: HostError, word: str) -> None:
    enclave = Enclave()
    enclave.error = error
    status, body = ask(app(one=enclave), f"?nonce={NONCE}")
    assert (status, body) == (503, {"status": word, "error": str(error)})


def test_an_answer_that_is_no_token() -> None:
    enclave = Enclave()
    enclave.token = "<html>"
    status, body = ask(app(one=enclave), f"?nonce={NONCE}")
    assert (status, body["status"]) == (503, "attestation_error")


def run(scenario: Callable[[Enclave, Reports], Coroutine[None, None, None]]) -> None:
    async def main() -> None:
        enclave = Enclave()
        await scenario(enclave, Reports(enclave.ask, lambda: enclave.now))

    asyncio.run(main())


def test_one_new_nonce_in_five_seconds_each_kept_for_a_minute() -> None:
    async def scenario(enclave: Enclave, reports: Reports) -> None:
        await reports.get("nonce-number-0")
        for stranger in range(100):
            with pytest.raises(_TooSoon):
                await reports.get(f"of-a-stranger-{stranger}")
            await reports.get("nonce-number-0")
        assert len(enclave.asked) == 1
        enclave.now += PAUSE_S
        await reports.get("nonce-number-1")
        enclave.now += KEPT_S - PAUSE_S
        await reports.get("nonce-number-0")
        assert len(enclave.asked) == 3

    run(scenario)


def test_those_who_ask_for_the_same_share_one_token_also_when_the_first_leaves() -> None:
    async def scenario(enclave: Enclave, reports: Reports) -> None:
        enclave.gate.clear()
        first, *others = (asyncio.create_task(reports.get(NONCE)) for _ in range(5))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        enclave.gate.set()
        assert len({id(shown) for shown in await asyncio.gather(*others)}) == 1
        assert len(enclave.asked) == 1

    run(scenario)


def test_a_failure_is_not_kept_and_costs_the_pause() -> None:
    async def scenario(enclave: Enclave, reports: Reports) -> None:
        enclave.error = EnclaveUnavailable("away")
        with pytest.raises(EnclaveUnavailable):
            await reports.get(NONCE)
        enclave.error = None
        with pytest.raises(_TooSoon):
            await reports.get(NONCE)
        enclave.now += PAUSE_S
        await reports.get(NONCE)
        assert len(enclave.asked) == 2

    run(scenario)


def test_what_is_kept_is_bounded_also_while_an_enclave_does_not_answer() -> None:
    async def scenario(enclave: Enclave, reports: Reports) -> None:
        for number in range(3 * MAX_KEPT):
            with pytest.MonkeyPatch.context() as patch:
                # As if a minute never passed.
                patch.setattr("host_backend.api.reports.KEPT_S", 1e9)
                enclave.now += PAUSE_S
                try:
                    await reports.get(f"nonce-number-{number}")
                except _TooSoon:
                    assert number >= MAX_KEPT
        assert len(reports._kept) == len(enclave.asked) == MAX_KEPT

    run(scenario)


def test_it_is_there_only_where_it_was_asked_for_and_described_there() -> None:
    without = utility_app([], MemoryWatermarkStore(), list, lambda: False, lambda: iter(()), Steps())  # type: ignore[arg-type,return-value]
    for served, shown in ((without, False), (app(one=Enclave()), True)):
        routes = {getattr(route, "path", "") for route in served.routes}
        assert ("/attestation" in routes) is shown
        description = ask_app(served, "GET", "/openapi.json")
        assert description.status == 200
        described = json.loads(description.body)["paths"]
        assert routes == set(described)
        if shown:
            assert set(described["/attestation"]["get"]["responses"]) >= {"200", "400", "429", "503"}
