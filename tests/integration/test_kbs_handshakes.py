"""Handshakes with a key broker, over its double: those that fail, each by name, TLS, and what is never said."""

import json
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
import trio
import trio.testing

from enclave_signer.errors import (
    ConfigError,
    SealingError,
    SealingRefused,
    SealingUnavailable,
)
from enclave_signer.image import parse_image
from enclave_signer.sealing.base import Sealer
from enclave_signer.sealing.kbs import open_kbs
from enclave_signer.sealing.kbs_http import MAX_ANSWER_BYTES, Http
from enclave_signer.sealing.kbs_jwe import TeeKey
from enclave_signer.sealing.kbs_messages import attest_body, auth_body, report_data, sample_evidence
from tests.doubles.certificates import Authority
from tests.doubles.kbs import Answer, KbsDouble, default_policy
from tests.doubles.kbs_broker import (
    HANDSHAKE,
    Broker,
    refusal_of,
    seal,
    with_sealer,
)
from tests.doubles.kbs_image import KEK, OLD_KEK, RESOURCE, kbs_image


def wrong_cookie(broker: KbsDouble) -> None:
    broker.cookie = "0" * 32


def old_nonce(broker: KbsDouble) -> None:
    broker.nonce = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def old_version(broker: KbsDouble) -> None:
    broker.version = "0.1.1"


def expires_before(step: str) -> Callable[[KbsDouble], None]:
    def change(broker: KbsDouble) -> None:
        broker.before[step] = broker.expire

    return change


def setting(**values: object) -> Callable[[KbsDouble], None]:
    def change(broker: KbsDouble) -> None:
        for name, value in values.items():
            setattr(broker, name, value)

    return change


def answering(step: str, status: int, body: bytes, **headers: str) -> Callable[[KbsDouble], None]:
    return setting(instead={step: Answer(status, body, headers)})


def sends_again(broker: KbsDouble) -> None:
    """Has every session attested, by another, before its cookie is given."""
    answer = broker.answer("POST", "/kbs/v0/auth", {}, auth_body("sample"))
    assert answer is not None
    cookie = answer.headers["Set-Cookie"].partition(";")[0]
    nonce, jwk = json.loads(answer.body)["nonce"], TeeKey().jwk
    attest = attest_body(nonce, jwk, sample_evidence(report_data(nonce, jwk)))
    attested = broker.answer("POST", "/kbs/v0/attest", {"cookie": cookie}, attest)
    assert attested is not None
    assert attested.status == 200
    broker.cookie = cookie.removeprefix("kbs-session-id=")


NO_SESSION = "does not accept this machine's evidence, or its session"


@pytest.mark.parametrize(
    ("change", "kind", "text", "handshakes"),
    [
        (wrong_cookie, SealingRefused, NO_SESSION, 2),
        (old_nonce, SealingRefused, NO_SESSION, 2),
        (expires_before("attest"), SealingRefused, NO_SESSION, 2),
        (expires_before("resource"), SealingRefused, "does not know the session any more, or it has expired", 2),
        (sends_again, SealingRefused, "session was attested already", 2),
        (old_version, SealingRefused, "speaks version 0.1.1 of the protocol, this image 0.4.0: use Trustee 0.14", 1),
        (setting(policy=default_policy), SealingRefused, f"resource policy keeps {RESOURCE} from this machine", 1),
        (setting(affirming=False), SealingRefused, "it must allow affirming evidence", 1),
        (setting(trusts_tokens=False), SealingRefused, "its signer is not trusted there", 2),
        (setting(resources={}), SealingRefused, f"gives no resource {RESOURCE}: most often there is none", 1),
        (setting(resources={RESOURCE: KEK.hex().encode()}), SealingRefused, "has 64 bytes, a key has 32", 1),
        (answering("auth", 200, b"<html>"), SealingRefused, "answer to auth is not one of a key broker", 1),
        (answering("auth", 200, b'{"nonce": "n"}'), SealingRefused, "answer to auth is not one of a key broker", 1),
        (setting(nonce="\ud800"), SealingRefused, "answer to auth is not one of a key broker", 1),
        (answering("auth", 302, b"", Location="http://evil"), SealingRefused, "answered auth with HTTP status 302", 1),
        (answering("attest", 200, b'{"token": "a.b.c"}'), SealingRefused, "answer to attest is not one", 1),
        (answering("resource", 200, b"[1]"), SealingRefused, "answer to resource is not one", 1),
        (answering("resource", 200, b"{}"), SealingRefused, f"answer for {RESOURCE} does not open", 1),
        (answering("attest", 200, bytes(MAX_ANSWER_BYTES + 1)), SealingRefused, "answered with more than 262144", 1),
        (answering("auth", 503, b"no healthy upstream"), SealingUnavailable, "HTTP status 503", 1),
        (answering("resource", 502, b""), SealingUnavailable, "HTTP status 502", 1),
    ],
)
def test_every_way_in_which_a_handshake_fails(
    broker: Broker, change: Callable[[KbsDouble], None], kind: type[SealingError], text: str, handshakes: int
) -> None:
    change(broker.double)
    broker.double.asked.clear()
    error = refusal_of(broker.provider())
    assert isinstance(error, kind)
    assert text in str(error)
    assert broker.double.asked.count("auth") == handshakes


def test_a_session_that_is_lost_once_is_not_noticed(broker: Broker) -> None:
    def once() -> None:
        broker.double.before.clear()
        broker.double.expire()

    for step in ("attest", "resource"):
        broker.double.before[step] = once
        assert with_sealer(broker.provider(), seal)
    assert broker.double.asked == ["auth", "attest", *HANDSHAKE, *HANDSHAKE, *HANDSHAKE]


def test_each_handshake_has_a_key_and_a_nonce_of_its_own(broker: Broker) -> None:
    for _ in range(2):
        with_sealer(broker.provider(), seal)
    one, two = (json.loads(body)["runtime-data"] for body in broker.double.bodies if b"runtime-data" in body)
    assert one["nonce"] != two["nonce"]
    assert one["tee-pubkey"]["x"] != two["tee-pubkey"]["x"]


class TestTls:
    """The authorities of the image, and nobody else."""

    def test_another_authority_is_refused(self, broker: Broker, tmp_path: Path) -> None:
        other = Authority(tmp_path, "other")
        error = refusal_of(broker.provider(ca_file=other.file))
        assert isinstance(error, SealingRefused)
        assert "is not certified by an authority of kbs.ca_file" in str(error)
        assert broker.double.asked == []

    def test_another_name_is_refused(self, broker: Broker) -> None:
        broker.double.url, url = broker.double.url.replace("127.0.0.1", "localhost"), broker.double.url
        error = refusal_of(broker.provider())
        broker.double.url = url
        assert isinstance(error, SealingRefused)
        assert "is not certified" in str(error)

    def test_a_file_without_certificate_stops_the_start(self, broker: Broker, tmp_path: Path) -> None:
        (tmp_path / "empty.pem").write_text("nothing")
        for name, text in (("empty.pem", "holds no certificate"), ("missing.pem", "No such file")):
            with pytest.raises(ConfigError, match=text):
                broker.provider(ca_file=tmp_path / name)

    def test_without_tls_where_that_is_allowed(self, broker: Broker) -> None:
        plain = KbsDouble()
        plain.resources = {RESOURCE: KEK}
        with plain.serving(None):
            config = parse_image(kbs_image(plain.url, None), "image.toml").kbs
            assert config is not None
            assert with_sealer(open_kbs(config), seal)
            # TLS to a port that speaks none.
            error = refusal_of(
                Broker(setting_url(plain, plain.url.replace("http:", "https:")), broker.authority).provider()
            )
        assert isinstance(error, SealingRefused)
        assert "does not speak TLS as it must" in str(error)


def setting_url(double: KbsDouble, url: str) -> KbsDouble:
    double.url = url
    return double


class Endless(httpx.AsyncByteStream):
    """An answer that does not end."""

    sent = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await trio.lowlevel.checkpoint()
            self.sent += 65536
            yield bytes(65536)


def test_an_answer_without_end_is_not_read_on() -> None:
    endless = Endless()

    class Transport(httpx.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, stream=endless, request=request)

    async def main() -> None:
        async with Transport() as connection:
            await Http("the key broker", "https://kbs.example", None, 2.0).ask(connection, "GET", "/")

    with pytest.raises(SealingRefused, match="answered with more than 262144 bytes"):
        trio.run(main)
    assert endless.sent <= MAX_ANSWER_BYTES + 2 * 65536


def test_nothing_secret_is_said(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    provider = broker.provider()
    blob = with_sealer(provider, seal)
    (session,) = broker.double.sessions.values()
    broker.double.resources = {RESOURCE: OLD_KEK}
    said = f"{refusal_of(broker.provider())!r}"
    said += f"{provider!r} {with_sealer(provider, _shown)} " + caplog.text
    assert session.token is not None
    cookie = next(iter(broker.double.sessions))
    for secret in (KEK.hex(), OLD_KEK.hex(), repr(KEK)[2:-1], session.token, session.nonce, cookie, blob.hex()):
        assert secret not in said


async def _shown(sealer: Sealer) -> str:
    return f"{sealer!r} {vars(sealer)!r}"
