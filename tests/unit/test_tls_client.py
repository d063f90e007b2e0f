"""The files that a host shows itself to an enclave with; each that cannot be used is named."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from enclave_signer.protocol.binding import key_digest
from host_backend.enclave.tls import TlsClient
from host_backend.errors import ConfigError
from tests.doubles.client_certificates import ClientFiles, client_files


def test_it_is_known_by_its_key(tmp_path: Path) -> None:
    files = client_files(tmp_path)
    assert key_digest(TlsClient(files.certificate, files.key).public_key) == files.digest


def rsa_key(_: Path) -> bytes:
    return rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("which", "content", "match"),
    [
        ("certificate", lambda _: None, r"client\.crt: No such file"),
        ("certificate", lambda _: b"text", r"client\.crt: holds no certificate in PEM form"),
        ("key", lambda _: None, r"client\.key: No such file"),
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
