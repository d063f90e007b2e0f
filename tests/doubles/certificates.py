"""An authority, and certificates that it signed, as PEM files; made for each test."""

import datetime
import ipaddress
from copy import copy
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = datetime.timedelta(days=1)


class Authority:
    """Signs certificates; writes files into a folder."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self._above = b""
        self._certificate = self._make(self._name, self._key.public_key(), authority=True)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def _make(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        *,
        authority: bool,
        begins: datetime.timedelta = -_DAY,
        ends: datetime.timedelta = _DAY,
        usage: x509.ObjectIdentifier | None = None,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        builder = x509.CertificateBuilder(
            self._name, subject, key, x509.random_serial_number(), now + begins, now + ends
        )
        builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        builder = builder.add_extension(names, critical=False)
        # Python 3.13 wants these.
        key_usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=authority,
            crl_sign=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = builder.add_extension(key_usage, critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return builder.add_extension(issuer, critical=False).sign(self._key, hashes.SHA256())

    def under(self, name: str) -> "Authority":
        """Return a holder of a common certificate who signs others with it, and shows it beside them."""
        holder = copy(self)
        holder._name, holder._key = _name(name), ec.generate_private_key(ec.SECP256R1())
        certificate = self._make(holder._name, holder._key.public_key(), authority=False)
        holder._above = certificate.public_bytes(serialization.Encoding.PEM)
        return holder

    def certificate(
        self,
        name: str,
        password: bytes | None = None,
        *,
        begins: datetime.timedelta = -_DAY,
        ends: datetime.timedelta = _DAY,
        usage: x509.ObjectIdentifier | None = None,
    ) -> tuple[Path, Path]:
        """Return the files of a certificate for 127.0.0.1 and of its key.

        It is good from `begins` to `ends`, counted from now; `usage` is all that it is for, None: anything.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._make(_name(name), key.public_key(), authority=False, begins=begins, ends=ends, usage=usage)
        files = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM) + self._above)
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password is not None:
            encryption = serialization.BestAvailableEncryption(password)
        files[1].write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        )
        return files


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
