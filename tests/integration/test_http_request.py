"""Whom an HTTP request of the daemon reaches by TLS, and what it keeps to itself."""

import ssl
from pathlib import Path

import pytest
import trio

from enclave_signer.http_request import HttpAnswer, HttpRequest, NoHttpAnswer, ask, open_tls
from tests.doubles.certificates import Authority
from tests.doubles.google.http_service import Answered, http_service

REQUEST = HttpRequest("POST", "127.0.0.1", "/v1/token", "text/plain", b"secret")


def asked(folder: Path, host: str) -> HttpAnswer:
    """Return the answer of a service that has a certificate for 127.0.0.1."""
    certificate, key = Authority(folder).certificate("service")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)

    async def main(port: int) -> HttpAnswer:
        return await ask(lambda: open_tls(host, port), REQUEST, 10)

    with http_service(lambda given: Answered(200, given.body), tls=tls) as (_, port):
        return trio.run(main, port)


def test_a_certified_service_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    assert asked(tmp_path, "127.0.0.1").body == b"secret"
    assert not (tmp_path / "keys").exists()


def test_another_name_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    with pytest.raises(NoHttpAnswer, match="certificate"):
        asked(tmp_path, "localhost")


def test_a_service_that_nobody_certifies_is_not(tmp_path: Path) -> None:
    with pytest.raises(NoHttpAnswer, match="certificate"):
        asked(tmp_path, "127.0.0.1")


def test_the_body_is_not_shown() -> None:
    assert "secret" not in repr(REQUEST)
    assert "secret" not in repr(HttpAnswer(200, {}, b"secret"))
