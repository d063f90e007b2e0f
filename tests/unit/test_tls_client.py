"""The files that a host shows itself to an enclave with; each that cannot be used is named."""

import asyncio
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL

from enclave_signer.protocol.binding import key_digest
from host_backend.enclave.tls import TlsClient, TlsProtocol
from host_backend.errors import ConfigError, EnclaveUnavailable
from tests.doubles.client_certificates import ClientFiles, client_files, show_unreadable
from tests.unit.test_secret_keys import raw_key


def test_it_is_known_by_its_key(tmp_path: Path) -> None:
    files = client_files(tmp_path)
    assert key_digest(TlsClient(files.certificate, files.key).public_key) == files.digest


def rsa_key(_: Path) -> bytes:
    return rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def short_key(_: Path) -> bytes:
    der = raw_key(0x70, 0, 31)
    return b"-----BEGIN PRIVATE KEY-----\n" + b64encode(der) + b"\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("which", "content", "match"),
    [
        ("certificate", lambda _: None, r"client\.crt: No such file"),
        ("certificate", lambda _: b"text", r"client\.crt: holds no certificate in PEM form"),
        ("key", lambda _: None, r"client\.key: No such file"),
        ("key", short_key, r"client\.key: holds no key in PEM form without a password"),
        ("key", lambda _: b"text", r"client\.key: holds no key in PEM form without a password"),
        ("key", lambda folder: client_files(folder, "other").key.read_bytes(), r"client\.key: is not the key of .*crt"),
        ("key", rsa_key, r"client\.key: must be a key on a curve"),
    ],
)
def test_what_cannot_be_used(tmp_path: Path, which: str, content: Callable[[Path], bytes | None], match: str) -> None:
    files: ClientFiles = client_files(tmp_path)
    path: Path = getattr(files, which)
    data = content(tmp_path)
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
    with pytest.raises(ConfigError, match=match):
        TlsClient(files.certificate, files.key)


class ToEnclave(asyncio.Transport):
    """Carries what a host says to an enclave's TLS."""

    def __init__(self, enclave: SSL.Connection) -> None:
        super().__init__()
        self._enclave = enclave
        self.aborted = False

    def write(self, data: object) -> None:
        self._enclave.bio_write(cast("bytes", data))

    def abort(self) -> None:
        self.aborted = True


def test_a_certificate_that_cannot_be_read_is_refused_with_words(tmp_path: Path) -> None:
    files = client_files(tmp_path)
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    show_unreadable(context, tmp_path)
    enclave = SSL.Connection(context, None)
    enclave.set_accept_state()

    async def scenario() -> None:
        transport = ToEnclave(enclave)
        protocol = TlsProtocol(TlsClient(files.certificate, files.key), asyncio.Protocol())
        protocol.connection_made(transport)
        with pytest.raises(SSL.WantReadError):
            enclave.do_handshake()
        protocol.data_received(enclave.bio_read(65536))
        with pytest.raises(EnclaveUnavailable, match="showed a certificate that cannot be read: 4 is not a valid X509"):
            await protocol.channel
        assert transport.aborted

    asyncio.run(scenario())
