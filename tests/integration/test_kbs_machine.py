"""The evidence of the machine for a key broker, and what the broker's double refuses of it."""

import json
import ssl
from collections.abc import Iterator
from typing import Any

import httpx
import jwt
import pytest
import trio
import trio.testing

from enclave_signer.errors import (
    SealingError,
    SealingRefused,
    SealingUnavailable,
)
from enclave_signer.sealing.kbs_client import agent_evidence
from enclave_signer.sealing.kbs_http import MAX_ANSWER_BYTES
from enclave_signer.sealing.kbs_jwe import TeeKey
from enclave_signer.sealing.kbs_messages import attest_body, auth_body, report_data, sample_evidence
from tests.doubles.google.http_service import Answered, Asked, http_service
from tests.doubles.kbs import allow_all, default_policy
from tests.doubles.kbs_broker import (
    Broker,
    refusal_of,
    seal,
    with_sealer,
)
from tests.doubles.kbs_image import KEK, RESOURCE


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
