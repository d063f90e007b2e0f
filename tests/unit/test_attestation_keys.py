"""Google's keys: fetched over a real connection, kept, and fetched again when that is due."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from host_backend.attestation import keys
from host_backend.attestation.keys import (
    FRESH_S,
    KEPT_S,
    MAX_BYTES,
    PATH,
    PAUSE_S,
    RETRY_S,
    KeyPlace,
    KeySource,
    fetch_keys,
)
from host_backend.attestation.trust import TrustedKeys
from host_backend.errors import KeysUnavailable
from tests.doubles.asyncio_server import AsyncioServer
from tests.doubles.certificates import Authority
from tests.doubles.google.http_service import Answered, http_service
from tests.doubles.google.tokens import JWKS_PATH, Issuer, claims


def server_context(authority: Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.certificate("google"))
    return context


def fetched(place: KeyPlace) -> TrustedKeys:
    return asyncio.run(fetch_keys(place))


def test_the_path_is_google_s() -> None:
    assert PATH == JWKS_PATH


def test_keys_are_fetched_from_the_host_that_an_authority_vouches_for(tmp_path: Path) -> None:
    authority, issuer = Authority(tmp_path), Issuer()
    with http_service(issuer.answer, tls=server_context(authority)) as (host, port):
        place = KeyPlace(host, port, tls=ssl.create_default_context(cafile=str(authority.file)))
        assert list(fetched(place).by_id) == issuer.kids
        with pytest.raises(KeysUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            fetched(KeyPlace(host, port))
        for fault in (
            Answered(500),
            Answered(302, headers={"Location": f"https://{host}:{port}{PATH}"}),
            Answered(200, b"[]"),
            Answered(200, b"x"),
            Answered(200, b"[" * MAX_BYTES),
            Answered(200, b" " * (MAX_BYTES + 1)),
            Answered(raw=b"no HTTP at all\r\n\r\n"),
            Answered(raw=b"HTTP/1.1 200 .\r\nContent-Length: 5\r\n\r\n{"),
        ):
            issuer.fault = fault
            with pytest.raises(KeysUnavailable, match="Google's keys"):
                fetched(place)
    with pytest.raises(KeysUnavailable, match="refused"):
        fetched(place)


def test_an_answer_without_end_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "LIMIT_S", 0.2)
    authority = Authority(tmp_path)

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while True:
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                await writer.drain()

    async def run() -> None:
        server = AsyncioServer(drip)
        await server.listen(context=server_context(authority))
        place = KeyPlace("127.0.0.1", server.port, tls=ssl.create_default_context(cafile=str(authority.file)))
        try:
            with pytest.raises(KeysUnavailable, match=r"127\.0\.0\.1: no answer within 0\.2 s$"):
                await fetch_keys(place)
        finally:
            server.close()

    asyncio.run(run())


class Google:
    """Publishes keys, or does not; counts how often it was asked."""

    def __init__(self) -> None:
        self.issuer = Issuer()
        self.away = False
        self.asked = 0
        self.was_asked = asyncio.Event()
        self.answers = asyncio.Event()
        self.answers.set()
        self.now = 1000.0
        self.source = KeySource(self.fetch, lambda: self.now)

    async def fetch(self) -> TrustedKeys:
        self.asked += 1
        self.was_asked.set()
        await self.answers.wait()
        if self.away:
            raise KeysUnavailable("away")
        return TrustedKeys.from_jwks(self.issuer.jwks())

    async def keys(self) -> set[str]:
        return set((await self.source.keys_for(self.issuer.token(claims()))).by_id)


def run(scenario: Callable[[Google], Awaitable[None]]) -> None:
    async def play() -> None:
        await scenario(Google())

    asyncio.run(play())


def test_keys_are_kept_for_an_hour() -> None:
    async def scenario(google: Google) -> None:
        for _ in range(3):
            assert await google.keys() == {"kid-1", "kid-2"}
        assert google.asked == 1
        google.now += FRESH_S
        await google.keys()
        assert google.asked == 2

    run(scenario)


def test_many_who_ask_at_once_cost_one_fetch() -> None:
    async def scenario(google: Google) -> None:
        await asyncio.gather(*(google.keys() for _ in range(20)))
        assert google.asked == 1

    run(scenario)


def test_a_new_key_is_found_once_a_minute_at_most() -> None:
    async def scenario(google: Google) -> None:
        await google.keys()
        google.issuer.rotate()
        for _ in range(3):
            with pytest.raises(KeysUnavailable, match="no key with the id"):
                await google.keys()
        assert google.asked == 1
        google.now += PAUSE_S
        assert await google.keys() == {"kid-2", "kid-3"}
        assert google.asked == 2

    run(scenario)


def test_after_a_failure_an_unknown_key_is_asked_for_again_soon() -> None:
    async def scenario(google: Google) -> None:
        google.away = True
        for _ in range(3):
            with pytest.raises(KeysUnavailable, match="away"):
                await google.keys()
        assert google.asked == 1
        google.away = False
        google.now += RETRY_S
        assert await google.keys() == {"kid-1", "kid-2"}

    run(scenario)


def test_while_google_is_away_known_keys_count_for_a_day() -> None:
    async def scenario(google: Google) -> None:
        await google.keys()
        google.away = True
        google.now += FRESH_S
        assert await google.keys() == {"kid-1", "kid-2"}
        google.now += PAUSE_S / 2
        assert await google.keys() == {"kid-1", "kid-2"}
        assert google.asked == 2
        google.now += KEPT_S - FRESH_S
        with pytest.raises(KeysUnavailable, match="away"):
            await google.keys()

    run(scenario)


def test_a_caller_that_leaves_takes_no_fetch_from_the_next_one() -> None:
    async def scenario(google: Google) -> None:
        google.answers.clear()
        leaving, staying = (asyncio.create_task(google.keys()) for _ in range(2))
        await google.was_asked.wait()
        leaving.cancel()
        google.answers.set()
        assert await staying == {"kid-1", "kid-2"}

    run(scenario)


def test_what_is_no_token_has_nothing_fetched() -> None:
    async def scenario(google: Google) -> None:
        assert not (await google.source.keys_for("no token")).by_id
        assert google.asked == 0

    run(scenario)
