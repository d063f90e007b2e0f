"""Sealing under keys of a key broker, over its double: handshakes that fail, each by name, and how often each thing is asked."""

import json
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx
import jwt
import pytest
import trio
import trio.testing

from enclave_signer.curves import SigningKey, curve
from enclave_signer.errors import (
    BlobCorrupt,
    ConfigError,
    ReleaseDenied,
    SealingError,
    SealingRefused,
    SealingUnavailable,
)
from enclave_signer.image import parse_image
from enclave_signer.protocol.blob import BlobHeader, parse_blob
from enclave_signer.protocol.messages import Credentials, KeyType, PrivateKey
from enclave_signer.sealing import kbs, releases
from enclave_signer.sealing.base import Sealer, open_key, seal_key
from enclave_signer.sealing.gated_rules import GatedRule
from enclave_signer.sealing.kbs import LIMIT_S, Kbs, open_kbs
from enclave_signer.sealing.kbs_client import agent_evidence
from enclave_signer.sealing.kbs_http import MAX_ANSWER_BYTES, Http
from enclave_signer.sealing.kbs_jwe import TeeKey
from enclave_signer.sealing.kbs_messages import attest_body, auth_body, report_data, sample_evidence
from enclave_signer.sealing.providers import Providers
from tests.doubles.certificates import Authority
from tests.doubles.google.http_service import Answered, Asked, http_service
from tests.doubles.kbs import Answer, KbsDouble, allow_all, default_policy, running_kbs, server_tls
from tests.doubles.kbs_image import KEK, OLD_KEK, OLD_RESOURCE, RESOURCE, kbs_image, name_of

T = TypeVar("T")

PRIVATE = PrivateKey(KeyType.ED25519, bytes(range(32)))
PUBLIC = curve(KeyType.ED25519).open(PRIVATE).public_key
BOTH = {RESOURCE: KEK, OLD_RESOURCE: OLD_KEK}
HANDSHAKE = ["auth", "attest", "resource"]


class Broker:
    """The double, and images that name it."""

    def __init__(self, double: KbsDouble, authority: Authority) -> None:
        self.double = double
        self.authority = authority
        double.resources = {RESOURCE: KEK}

    def provider(
        self,
        keys: Mapping[str, bytes] | None = None,
        *,
        tee: str = "sample",
        ca_file: Path | None = None,
        agent: str = "",
        answer_s: float = 8.0,
    ) -> Kbs:
        text = kbs_image(self.double.url, ca_file or self.authority.file, keys, tee)
        config = parse_image(text, "image.toml").kbs
        assert config is not None
        return open_kbs(config, agent, answer_s)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[KbsDouble, Authority]]:
    with running_kbs(tmp_path_factory.mktemp("kbs")) as both:
        yield both


@pytest.fixture
def broker(serving: tuple[KbsDouble, Authority]) -> Broker:
    double, authority = serving
    url = double.url
    # As new, but for the server, which knows it.
    double.__init__()  # type: ignore[misc]
    double.url = url
    return Broker(double, authority)


def with_sealer(
    provider: Kbs,
    scenario: Callable[[Sealer], Awaitable[T]],
    credentials: Credentials = Credentials(),  # noqa: B008
) -> T:
    async def main() -> T:
        return await scenario(await provider.open_sealer(credentials))

    return trio.run(main)


async def seal(sealer: Sealer) -> bytes:
    return (await seal_key(sealer, PRIVATE, trio.lowlevel.checkpoint))[0]


def opening(blob: bytes) -> Callable[[Sealer], Awaitable[SigningKey]]:
    async def open_it(sealer: Sealer) -> SigningKey:
        return await open_key(sealer, blob, trio.lowlevel.checkpoint)

    return open_it


def refusal_of(provider: Kbs) -> SealingError:
    """Return why there is no sealer."""
    with pytest.raises(SealingError) as raised:
        with_sealer(provider, seal)
    return raised.value


class TestBlobs:
    """What a blob is, and whose."""

    def test_the_header_names_the_key_and_one_handshake_is_enough(self, broker: Broker) -> None:
        provider = broker.provider()
        blob = with_sealer(provider, seal)
        header, _, _ = parse_blob(blob)
        assert header == BlobHeader("kbs", name_of(), PUBLIC)
        assert with_sealer(provider, opening(blob)).public_key == PUBLIC
        assert broker.double.asked == HANDSHAKE

    def test_a_relabelled_blob_does_not_open(self, broker: Broker) -> None:
        provider = broker.provider()
        _, _, sealed = parse_blob(with_sealer(provider, seal))
        other = curve(KeyType.ED25519).open(PrivateKey(KeyType.ED25519, b"\1" * 32)).public_key
        with pytest.raises(BlobCorrupt, match="does not open under the key it names"):
            with_sealer(provider, opening(BlobHeader("kbs", name_of(), other).encode() + sealed))

    def test_what_is_not_listed_is_refused_by_name(self, broker: Broker) -> None:
        provider = broker.provider()
        for sealer, kek in (("local", name_of()), ("kbs", name_of(OLD_RESOURCE, OLD_KEK)), ("kbs", f"{name_of()}0")):
            with pytest.raises(SealingRefused, match=f"blob sealed by '{sealer}' under '{kek}', which this image does"):
                with_sealer(provider, opening(BlobHeader(sealer, kek, PUBLIC).encode() + bytes(60)))

    def test_a_session_may_ask_for_what_is_listed(self, broker: Broker) -> None:
        provider = broker.provider()
        assert with_sealer(provider, seal, Credentials(None, name_of()))
        with pytest.raises(SealingRefused, match="does not allow the key 'kbs:a/b/c#0123456789abcdef'"):
            with_sealer(provider, seal, Credentials(None, "kbs:a/b/c#0123456789abcdef"))
        elsewhere = Credentials(None, "projects/p/keys/k")
        with pytest.raises(SealingRefused, match="does not allow the key for sealing 'projects/p/keys/k'"):
            with_sealer(provider, seal, elsewhere)
        # What a blob is opened with stands in its header.
        assert with_sealer(provider, opening(with_sealer(provider, seal)), elsewhere).public_key == PUBLIC

    def test_a_new_tag_seals_and_the_old_one_opens(self, broker: Broker) -> None:
        broker.double.resources = dict(BOTH)
        before = with_sealer(broker.provider({OLD_RESOURCE: OLD_KEK}), seal)
        rotated = broker.provider(BOTH)
        after = with_sealer(rotated, seal)
        assert [parse_blob(blob)[0].kek for blob in (before, after)] == [name_of(OLD_RESOURCE, OLD_KEK), name_of()]
        for blob in (before, after):
            assert with_sealer(rotated, opening(blob)).public_key == PUBLIC
        # The operator deletes the old one: its blobs are refused by name, the others open.
        del broker.double.resources[OLD_RESOURCE]
        deleted = broker.provider(BOTH)
        assert with_sealer(deleted, opening(after)).public_key == PUBLIC
        with pytest.raises(SealingRefused, match=f"gives no resource {OLD_RESOURCE}"):
            with_sealer(deleted, opening(before))

    def test_another_key_under_the_same_tag_opens_nothing(self, broker: Broker) -> None:
        broker.double.resources = {RESOURCE: OLD_KEK}
        error = refusal_of(broker.provider())
        assert isinstance(error, SealingRefused)
        assert "is not the key that this image commits to" in str(error)


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
    """The authorities of the image, and no one else."""

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


class TestAway:
    """A broker that is down, or hangs."""

    def test_it_stops_nobody_who_has_the_key(self, tmp_path: Path) -> None:
        authority, double = Authority(tmp_path), KbsDouble()
        tls = server_tls(authority)
        broker = Broker(double, authority)
        with double.serving(tls) as port:
            provider = broker.provider()
            blob = with_sealer(provider, seal)
        assert with_sealer(provider, opening(blob)).public_key == PUBLIC
        assert with_sealer(provider, seal)
        restarted = broker.provider()
        error = refusal_of(restarted)
        assert isinstance(error, SealingUnavailable)
        assert f"the key broker at {double.url} gave no answer: " in str(error)
        with double.serving(tls, port):
            assert with_sealer(restarted, opening(blob)).public_key == PUBLIC

    @pytest.mark.parametrize("step", HANDSHAKE)
    def test_its_silence_has_a_limit(self, broker: Broker, step: str) -> None:
        broker.double.hang = {step}
        error = refusal_of(broker.provider(answer_s=0.2))
        broker.double.ended.set()
        assert isinstance(error, SealingUnavailable)
        assert "gave no answer within 0.2 s" in str(error)
        assert broker.provider().limit_s == LIMIT_S

    def test_a_hundred_sessions_ask_once(self, broker: Broker) -> None:
        provider = broker.provider()

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(provider.open_sealer, Credentials(str(number)))

        trio.run(main)
        assert broker.double.asked == HANDSHAKE

    def test_one_who_leaves_keeps_nobody_from_asking(self, broker: Broker) -> None:
        provider = broker.provider()
        hanging = trio.Event()

        async def leave(scope: trio.CancelScope) -> None:
            with scope:
                await provider.open_sealer(Credentials("first"))

        async def main() -> None:
            token, scope = trio.lowlevel.current_trio_token(), trio.CancelScope()
            broker.double.before["auth"] = lambda: token.run_sync_soon(hanging.set)
            broker.double.hang = {"auth"}
            async with trio.open_nursery() as nursery:
                nursery.start_soon(leave, scope)
                await hanging.wait()
                broker.double.hang, broker.double.before = set(), {}
                nursery.start_soon(provider.open_sealer, Credentials("second"))
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()

        trio.run(main)
        broker.double.ended.set()
        assert broker.double.asked == ["auth", *HANDSHAKE]

    def test_a_refusal_is_told_again_for_a_while(self, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
        broker.double.resources = {}
        provider = broker.provider()

        async def main() -> None:
            for _ in range(3):
                with pytest.raises(SealingRefused, match="gives no resource"):
                    await provider.open_sealer(Credentials())
            assert broker.double.asked == HANDSHAKE
            broker.double.resources = {RESOURCE: KEK}
            monkeypatch.setattr(kbs, "REFUSED_S", 0.0)
            await provider.open_sealer(Credentials())
            assert broker.double.asked == HANDSHAKE * 2

        trio.run(main)


def test_a_gated_key_is_fetched_for_each_release(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is kept no longer once the broker says no."""
    time = 0.0
    monkeypatch.setattr(releases, "now", lambda: time)
    provider = broker.provider()
    blob = with_sealer(provider, seal)
    broker.double.asked.clear()

    async def main() -> None:
        nonlocal time
        providers = Providers([provider], [GatedRule(name_of(), "kbs", fresh_s=60, retry_s=10)])
        async with providers.running():
            sealer = await providers.open_sealer(Credentials())
            # What was fetched before does not count.
            await sealer.unseal(blob)
            assert broker.double.asked == HANDSHAKE
            release = providers.release(blob, Credentials())
            assert release is not None
            broker.double.policy = default_policy
            time += 60
            for _ in range(2):
                with pytest.raises(ReleaseDenied):
                    await sealer.unseal(blob)
                with pytest.raises(ReleaseDenied):
                    release.check(blob)
            assert broker.double.asked == HANDSHAKE * 2
            with pytest.raises(SealingRefused):
                await sealer.seal(PRIVATE, PUBLIC)
            broker.double.policy = allow_all
            time += 10
            await sealer.unseal(blob)
            release.check(blob)
            assert broker.double.asked == HANDSHAKE * 3

    trio.run(main)


class TestAgent:
    """Evidence of hardware comes from the attestation agent."""

    def agent(self, asked: Asked) -> Answered:
        from base64 import urlsafe_b64decode
        from urllib.parse import parse_qs, urlsplit

        self.path = asked.path
        parts = urlsplit(asked.path)
        query = {name: value for name, (value,) in parse_qs(parts.query).items()}
        assert (parts.path, query["encoding"]) == ("/aa/evidence", "base64")
        report = urlsafe_b64decode(query["runtime_data"] + "=" * (-len(query["runtime_data"]) % 4))
        evidence = {"attestation_report": {"report_data": report.ljust(64, b"\0").hex()}, "cert_chain": None}
        return Answered(body=json.dumps(evidence).encode())

    def test_it_is_bound_to_the_handshake(self, broker: Broker) -> None:
        broker.double.policy = default_policy
        with http_service(self.agent) as (host, port):
            assert with_sealer(broker.provider(tee="snp", agent=f"http://{host}:{port}"), seal)
        assert "=" not in self.path.partition("runtime_data=")[2].partition("&")[0]

    @pytest.mark.parametrize(
        ("answer", "kind", "text"),
        [
            (Answered(404), SealingRefused, "must be of version 0.21 or later"),
            (
                Answered(500, b"no TSM eyJhbGciOiJF.eyJ4.c2ln"),
                SealingUnavailable,
                r"HTTP status 500 \(no TSM \(token\)\)",
            ),
            (Answered(200, b"evidence"), SealingRefused, "answer is no evidence"),
            (Answered(200, b'{"a":' * 5000 + b"1" + b"}" * 5000), SealingRefused, "answer is no evidence"),
            (Answered(200, b'{"quote": "\\ud800"}'), SealingRefused, "compare kbs.tee"),
            (Answered(200, b'{"attestation_report": {"report_data": "00"}}'), SealingRefused, "compare kbs.tee"),
            (Answered(200, bytes(MAX_ANSWER_BYTES + 1)), SealingRefused, "more than 262144 bytes"),
            (Answered(raw=b"HTTP/1.1 200 .\r\nContent-Length: 9\r\n\r\n{"), SealingUnavailable, "the connection broke"),
        ],
    )
    def test_what_it_may_answer(self, broker: Broker, answer: Answered, kind: type[SealingError], text: str) -> None:
        with http_service(lambda _: answer) as (host, port), pytest.raises(kind, match=text):
            with_sealer(broker.provider(tee="snp", agent=f"http://{host}:{port}"), seal)

    def test_its_silence_has_a_limit(self) -> None:
        with http_service(lambda _: None) as (host, port):
            ask = agent_evidence(f"http://{host}:{port}", 0.2)
            with pytest.raises(SealingUnavailable, match=r"the attestation agent at .* gave no answer within 0\.2 s"):
                trio.run(ask, bytes(48))

    def test_one_that_is_not_there_is_unavailable(self, broker: Broker) -> None:
        with http_service(self.agent) as (host, port):
            pass
        error = refusal_of(broker.provider(tee="snp", agent=f"http://{host}:{port}"))
        assert isinstance(error, SealingUnavailable)
        assert "the attestation agent at" in str(error)


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


class TestDouble:
    """The double refuses what the real one refuses, beyond what our client would ever send."""

    @pytest.fixture
    def client(self, broker: Broker) -> Iterator[httpx.Client]:
        trust = ssl.create_default_context(cafile=str(broker.authority.file))
        with httpx.Client(base_url=f"{broker.double.url}/kbs/v0", verify=trust, trust_env=False) as client:
            yield client

    def refused(self, answer: httpx.Response) -> tuple[int, str]:
        return answer.status_code, answer.json()["type"].rpartition("/")[2]

    def test_versions_and_machines(self, client: httpx.Client) -> None:
        for version in ("0.1.1", "0.4.1"):
            answer = client.post("/auth", json={"version": version, "tee": "sample", "extra-params": ""})
            assert self.refused(answer) == (401, "AttestationError")
            assert f"expect =0.4.0 while the request is {version}" in answer.json()["detail"]
        answer = client.post("/auth", json={"version": "0.4.0", "tee": "abacus", "extra-params": ""})
        assert "deserialize Request" in answer.json()["detail"]

    def test_what_attest_takes(self, broker: Broker, client: httpx.Client) -> None:
        jwk = TeeKey().jwk
        begun = [client.post("/auth", content=auth_body("sample")) for _ in range(2)]
        client.cookies.clear()
        (nonce, other), (cookie, _) = ([each.json()["nonce"] for each in begun], [_cookie(each) for each in begun])

        def attest(nonce: str, cookie: str, bound: str = "") -> httpx.Response:
            body = attest_body(nonce, jwk, sample_evidence(report_data(bound or nonce, jwk)))
            return client.post("/attest", content=body, headers={"Cookie": cookie})

        for bad in (
            attest(nonce, ""),
            attest(nonce, "kbs-session-id=x"),
            attest(other, cookie),
            attest(nonce, cookie, "x"),
        ):
            assert self.refused(bad) == (401, "AttestationError")
        first = attest(nonce, cookie)
        assert first.status_code == 200
        # Attested already: the old token, whatever is shown.
        assert attest(other, cookie).json() == first.json()
        broker.double.expire()
        assert self.refused(attest(nonce, cookie)) == (401, "AttestationError")

    def test_what_resource_takes(self, broker: Broker, client: httpx.Client) -> None:
        with_sealer(broker.provider(), seal)
        broker.double.policy = allow_all
        (session,) = broker.double.sessions.values()
        assert self.refused(client.get(f"/resource/{RESOURCE}")) == (401, "TokenNotFound")
        bearer = {"Authorization": f"Bearer {session.token}", "Cookie": "kbs-session-id=dead"}
        assert [*client.get(f"/resource/{RESOURCE}", headers=bearer).json()] == [
            *("protected", "encrypted_key", "iv", "ciphertext", "tag")
        ]
        for path in ("no/such/one", "two/parts", "a/b/..%2fc"):
            assert self.refused(client.get(f"/resource/{path}", headers=bearer)) == (401, "PluginInternalError")
        assert self.refused(client.get("/auth")) == (404, "PluginNotFound")
        broken = {"Authorization": f"Bearer {session.token}x"}
        assert self.refused(client.get(f"/resource/{RESOURCE}", headers=broken)) == (401, "TokenVerifierError")

    def test_the_operator_uploads_with_a_token(self, broker: Broker, client: httpx.Client) -> None:
        for claims, status in (({"role": "admin", "exp": 4e9}, 200), ({"exp": 4e9}, 401), ({"role": "admin"}, 401)):
            token: Any = jwt.encode(claims, broker.double.admin, "EdDSA")
            sent = client.post("/resource/a/b/c", content=KEK, headers={"Authorization": f"Bearer {token}"})
            assert sent.status_code == status
        assert broker.double.resources["a/b/c"] == KEK


def _cookie(answer: httpx.Response) -> str:
    return answer.headers["set-cookie"].partition(";")[0]
