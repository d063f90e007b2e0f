"""Certificates that hosts show to enclaves, self-signed, as PEM files."""

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL, crypto

from enclave_signer.protocol.binding import key_digest
from enclave_signer.serving.tls import _certificate, public_key_bytes


@dataclass(frozen=True)
class ClientFiles:
    """One host's certificate."""

    certificate: Path
    key: Path
    digest: str


def client_files(folder: Path, name: str = "client") -> ClientFiles:
    """Write a certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    files = ClientFiles(folder / f"{name}.crt", folder / f"{name}.key", key_digest(public_key_bytes(key.public_key())))
    files.certificate.write_bytes(_certificate(key).public_bytes(Encoding.PEM))
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


def unreadable_certificate(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a certificate of version 5, as DER: OpenSSL takes it, and the library for certificates does not."""
    # Version 3 is written as 2.
    version_3, version_5 = bytes.fromhex("a003020102"), bytes.fromhex("a003020104")
    return _certificate(key).public_bytes(Encoding.DER).replace(version_3, version_5, 1)


def show_unreadable(context: SSL.Context, folder: Path) -> None:
    """Have connections show a certificate that cannot be read."""
    key = ec.generate_private_key(ec.SECP256R1())
    file = folder / "unreadable.der"
    file.write_bytes(unreadable_certificate(key))
    context.use_certificate_file(str(file), crypto.FILETYPE_ASN1)
    context.use_privatekey(key)
