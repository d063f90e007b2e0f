"""How TLS to an enclave ends: all that came before the end is handed on, and the end is named for what it was."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from enclave_signer.serving.tls import _certificate
from host_backend.enclave.tls import TlsClient, TlsProtocol
from tests.doubles.client_certificates import client_files


class Wire:
    """A transport that keeps what was written."""

    def __init__(self) -> None:
        self.sent = b""

    def write(self, data: bytes) -> None:
        self.sent += data

    def abort(self) -> None:
        pass


class Inner(asyncio.Protocol):
    """Notes what it was given."""

    def __init__(self) -> None:
        self.given: list[str] = []

    def data_received(self, data: bytes) -> None:
        self.given.append(data.decode())

    def connection_lost(self, error: Exception | None) -> None:
        self.given.append(f"lost: {error}")


def enclave_end() -> SSL.Connection:
    key = ec.generate_private_key(ec.SECP256R1())
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate(_certificate(key))
    context.use_privatekey(key)
    end = SSL.Connection(context, None)
    end.set_accept_state()
    return end


async def given(folder: Path, last: Callable[[SSL.Connection], bytes]) -> list[str]:
    """Return what the inner protocol gets when the enclave's last bytes arrive at once, after a handshake."""
    files = client_files(folder)
    inner, wire, enclave = Inner(), Wire(), enclave_end()
    protocol = TlsProtocol(TlsClient(files.certificate, files.key), inner)
    protocol.connection_made(cast("asyncio.Transport", wire))
    while wire.sent:
        enclave.bio_write(wire.sent)
        wire.sent = b""
        with suppress(SSL.WantReadError):
            enclave.do_handshake()
        with suppress(SSL.WantReadError):
            protocol.data_received(enclave.bio_read(65536))
    await protocol.channel
    protocol.data_received(last(enclave))
    return inner.given


def ended(enclave: SSL.Connection, *answers: str) -> bytes:
    for answer in answers:
        enclave.send(answer.encode())
    enclave.shutdown()
    return enclave.bio_read(65536)


def broken(enclave: SSL.Connection) -> bytes:
    enclave.send(b"answer")
    return enclave.bio_read(65536) + b"no record of TLS"


@pytest.mark.parametrize(
    ("last", "first", "second"),
    [
        (lambda enclave: ended(enclave, "answer, ", "answer"), "answer, answer", "lost: it was ended"),
        (broken, "answer", "lost: TLS with the enclave failed: "),
    ],
    ids=["ended", "broken"],
)
def test_answers_that_arrive_together_with_the_end_are_handed_on_before_it(
    tmp_path: Path, last: Callable[[SSL.Connection], bytes], first: str, second: str
) -> None:
    answers, end = asyncio.run(given(tmp_path, last))
    assert answers == first
    assert end.startswith(second)


def test_an_enclave_that_ends_without_a_word_may_not_list_the_host(tmp_path: Path) -> None:
    (end,) = asyncio.run(given(tmp_path, ended))
    assert end.startswith("lost: the enclave ended it right after the TLS handshake: see whether its image lists")
