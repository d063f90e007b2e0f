"""Calls of Cloud Storage to a service that gives no end of an answer: each ends, and leaves room for the next."""

import asyncio
import json
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from host_backend.errors import StoreUnavailable
from host_backend.google import storage
from host_backend.google.objects import StoredObject
from host_backend.google.outcomes import OutcomeUnknown
from host_backend.google.storage import Bucket
from tests.doubles.certificates import Authority
from tests.doubles.google.buckets import bucket_at
from tests.doubles.google.http_service import Answered, Asked, http_service
from tests.doubles.processes import PATIENCE_S

#: The service here ends each connection.
CLOSE = {"Connection": "close"}
EMPTY = Answered(200, b"{}", headers=CLOSE)
FOUND = StoredObject("keys/tz1", 1, 100, "AAAAAA==", "2026-01-01T00:00:00+00:00", {})


class Service:
    """Has no end of its answers while it is ill."""

    def __init__(self) -> None:
        self.ill = True
        self.asked = threading.Semaphore(0)
        self.address = ""

    def answer(self, _: Asked) -> Answered | None:
        self.asked.release()
        return None if self.ill else EMPTY


@pytest.fixture(params=["http", "https"])
def service(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    running, tls = Service(), None
    if request.param == "https":
        authority, tls = Authority(tmp_path), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*authority.certificate("server"))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
    # As if a byte came now and then.
    monkeypatch.setattr(storage, "CALL_S", PATIENCE_S)
    with http_service(running.answer, tls=tls) as (_, port):
        running.address = f"{request.param}://127.0.0.1:{port}"
        yield running


def use(address: str, scenario: Callable[[Bucket], Awaitable[None]]) -> None:
    async def run() -> None:
        bucket = bucket_at(address)
        try:
            await scenario(bucket)
        finally:
            await bucket.aclose()

    asyncio.run(run())


def test_calls_without_an_end_leave_their_threads_to_others(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(bucket: Bucket) -> None:
        monkeypatch.setattr(storage, "LIMIT_S", 0.5)
        calls = [bucket.list("keys/") for _ in range(storage.CALLS)]
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(each) for each in ended] == [OutcomeUnknown] * storage.CALLS
        service.ill = False
        monkeypatch.setattr(storage, "LIMIT_S", PATIENCE_S / 4)
        assert await bucket.list("keys/") == ()

    use(service.address, scenario)


def test_closing_ends_calls_that_have_no_answer(service: Service) -> None:
    async def scenario(bucket: Bucket) -> None:
        call = asyncio.create_task(bucket.list("keys/"))
        await asyncio.to_thread(service.asked.acquire)
        await bucket.aclose()
        with pytest.raises(StoreUnavailable, match="could not be listed: "):
            await call

    use(service.address, scenario)


@contextmanager
def answering(content: bytes) -> Iterator[str]:
    with http_service(lambda _: Answered(200, content, headers=CLOSE)) as (_, port):
        yield f"http://127.0.0.1:{port}"


def test_the_pages_of_a_list_end_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "LIMIT_S", 0.5)

    async def scenario(bucket: Bucket) -> None:
        with pytest.raises(OutcomeUnknown, match="within"):
            await bucket.list("keys/")

    with answering(b'{"nextPageToken": "x"}') as address:
        use(address, scenario)


def test_no_more_of_an_answer_is_read_than_it_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "MAX_ANSWER_BYTES", 1000)

    async def scenario(bucket: Bucket) -> None:
        with pytest.raises(OutcomeUnknown, match="an answer has more than 1000 bytes"):
            await bucket.list("keys/")
        with pytest.raises(OutcomeUnknown, match="an answer has more than 65636 bytes"):
            await bucket.read(FOUND)

    with answering(json.dumps({"kind": "x" * 70_000}).encode()) as address:
        use(address, scenario)
