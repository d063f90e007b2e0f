"""What an answer of Cloud KMS means, what checksums are, and which variables no one may set."""

import pytest

from enclave_signer.errors import BlobCorrupt, ConfigError, SealingRefused, SealingUnavailable
from enclave_signer.launcher import shown
from enclave_signer.sealing.crc32c import crc32c
from enclave_signer.sealing.gcp_answers import (
    Call,
    Method,
    NotAuthenticated,
    TryAgain,
    check_decrypted,
    check_encrypted,
    failure,
)
from enclave_signer.sealing.gcp_environment import check_environment
from enclave_signer.sealing.gcp_launcher import read_token

KEY = "projects/p/locations/l/keyRings/r/cryptoKeys/k"
ENCRYPT, DECRYPT = (Call(method, KEY, "principalSet://image") for method in Method)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        # RFC 3720, B.4.
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_checksums_are_those_of_the_rfc(data: bytes, value: int) -> None:
    assert crc32c(data) == value


@pytest.mark.parametrize(
    ("call", "status", "details", "kind", "text"),
    [
        (
            DECRYPT,
            "PERMISSION_DENIED",
            "",
            SealingRefused,
            "has no permission cloudkms.cryptoKeyVersions.useToDecrypt on",
        ),
        (
            ENCRYPT,
            "PERMISSION_DENIED",
            "",
            SealingRefused,
            "has no permission cloudkms.cryptoKeyVersions.useToEncrypt on",
        ),
        (DECRYPT, "UNAUTHENTICATED", "", NotAuthenticated, "does not take the access token of principalSet://image"),
        (DECRYPT, "NOT_FOUND", "", SealingRefused, f"Cloud KMS knows no key {KEY}: make it, or correct the name"),
        (DECRYPT, "FAILED_PRECONDITION", "", SealingRefused, "enable or restore the version"),
        (DECRYPT, "RESOURCE_EXHAUSTED", "", SealingUnavailable, "quota is used up"),
        (DECRYPT, "DEADLINE_EXCEEDED", "", SealingUnavailable, "gave no answer in time"),
        (DECRYPT, "UNAVAILABLE", "", TryAgain, "gave no answer"),
        (DECRYPT, "INTERNAL", "", TryAgain, "gave no answer"),
        (
            DECRYPT,
            "INVALID_ARGUMENT",
            "the ciphertext is invalid",
            BlobCorrupt,
            f"blob corrupt: {KEY} does not open it",
        ),
        (DECRYPT, "INVALID_ARGUMENT", "The checksum in field", TryAgain, "what was sent was damaged on its way"),
        (ENCRYPT, "INVALID_ARGUMENT", "The checksum in field", TryAgain, "what was sent was damaged on its way"),
        (ENCRYPT, "INVALID_ARGUMENT", "too long", SealingRefused, f"refuses to use {KEY} (INVALID_ARGUMENT: too long)"),
        (ENCRYPT, "UNIMPLEMENTED", "", SealingRefused, f"refuses to use {KEY}"),
    ],
)
def test_statuses(call: Call, status: str, details: str, kind: type[Exception], text: str) -> None:
    error = failure(call, status, details)
    assert type(error) is kind
    assert text in str(error)
    assert status in str(error)


def test_what_was_not_permitted_names_who_what_and_where() -> None:
    text = str(failure(DECRYPT, "PERMISSION_DENIED", "denied"))
    for part in ("principalSet://image", "useToDecrypt", KEY, "roles/cloudkms.cryptoKeyEncrypterDecrypter"):
        assert part in text


class TestWholeAnswers:
    """Damage on the way, in either direction, is seen."""

    def encrypted(
        self,
        *,
        version: str = f"{KEY}/cryptoKeyVersions/7",
        ciphertext: bytes = b"sealed",
        checksum: int | None = crc32c(b"sealed"),
        plaintext_seen: bool = True,
        header_seen: bool = True,
    ) -> None:
        check_encrypted(
            ENCRYPT,
            version=version,
            ciphertext=ciphertext,
            checksum=checksum,
            plaintext_seen=plaintext_seen,
            header_seen=header_seen,
        )

    def test_a_whole_one(self) -> None:
        self.encrypted()
        check_decrypted(plaintext=b"secret", checksum=crc32c(b"secret"))

    def test_another_key_in_the_answer(self) -> None:
        for version in (f"{KEY}2/cryptoKeyVersions/1", KEY, "", f"x{KEY}/cryptoKeyVersions/1"):
            with pytest.raises(TryAgain, match=f"not with {KEY}"):
                self.encrypted(version=version)

    def test_checksums_that_were_not_checked(self) -> None:
        with pytest.raises(TryAgain, match="did not check"):
            self.encrypted(plaintext_seen=False)
        with pytest.raises(TryAgain, match="did not check"):
            self.encrypted(header_seen=False)

    @pytest.mark.parametrize("checksum", [None, 0, 1])
    def test_a_damaged_answer(self, checksum: int | None) -> None:
        with pytest.raises(TryAgain, match="damaged on its way"):
            self.encrypted(checksum=checksum)
        with pytest.raises(TryAgain, match="damaged on its way"):
            check_decrypted(plaintext=b"secret", checksum=checksum)

    def test_nothing_is_no_answer(self) -> None:
        with pytest.raises(TryAgain):
            check_decrypted(plaintext=b"", checksum=crc32c(b""))


@pytest.mark.parametrize(
    "name",
    [
        "GOOGLE_SDK_PYTHON_LOGGING_SCOPE",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_API_USE_CLIENT_CERTIFICATE",
        "GOOGLE_CLOUD_UNIVERSE_DOMAIN",
        "GOOGLE_SDK_EXPERIMENTAL_PYTHON_REGIONAL_ACCESS_BOUNDARY_LOOKUP_ENABLED",
        "GOOGLE_AUTH_TRUST_BOUNDARY_ENABLED",
        "HTTPS_PROXY",
        "https_proxy",
        "grpc_proxy",
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
        "GRPC_TRACE",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "SSLKEYLOGFILE",
        "REQUESTS_CA_BUNDLE",
        "GCE_METADATA_HOST",
        "OTEL_TRACES_EXPORTER",
    ],
)
def test_variables_that_nobody_may_set(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} is set: ") as raised:
        check_environment({"PATH": "/bin", name: "the value"})
    assert "the value" not in str(raised.value)


def test_other_variables_may_be_set() -> None:
    check_environment({"PATH": "/bin", "HOSTNAME": "signer", "LANG": "C", "PYTHONUNBUFFERED": "1", "LISTEN_PORT": "1"})


def test_no_token_is_shown() -> None:
    assert shown("a eyJhbGciOi.J9-_.x b\nya29.d.secret-_") == "a (token) b (token)"
    assert len(shown("x" * 5000)) == 300


@pytest.mark.parametrize("data", [b"", b"a.b", b"a.b.c", b"e30.e30.e30", b"e30.W10.e30", b"e30.\xff.e30", b"x" * 40000])
def test_what_is_no_token(data: bytes) -> None:
    assert read_token(data, fresh=True) is None
