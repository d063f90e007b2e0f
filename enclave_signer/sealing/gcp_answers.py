"""What an answer of Cloud KMS means: whole or not, and whose turn it is when it is a refusal.

- *Refused*: a person has to do something in Google Cloud first. The text says what, and to whom.
- *Unavailable*: the service, or the way to it. What may be over in a moment is asked again at once.
- *Corrupt*: the ciphertext, its header or the key are not those that were sealed.

Source: the table of statuses in Google's AIP-193, and the texts of Cloud KMS. This room knows no Google library.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from enclave_signer.errors import BlobCorrupt, SealingError, SealingRefused, SealingUnavailable
from enclave_signer.launcher import shown
from enclave_signer.sealing.crc32c import crc32c


class Method(StrEnum):
    """A method of Cloud KMS; the value is the end of its permission's name."""

    ENCRYPT = "Encrypt"
    DECRYPT = "Decrypt"


class TryAgain(SealingUnavailable):
    """No answer, or one that was damaged on its way; it may be over in a moment."""


class NotAuthenticated(SealingRefused):
    """Cloud KMS does not take the access token; another one may be taken."""


@dataclass(frozen=True, slots=True)
class Call:
    """What was asked, for texts.

    Attributes:
        method: What.
        key: Its name.
        principal: Whom IAM knows this image as.
    """

    method: Method
    key: str
    principal: str


#: Statuses of gRPC that say nothing about the call itself.
_MAY_PASS = {"UNAVAILABLE", "INTERNAL", "UNKNOWN", "ABORTED", "CANCELLED", "DATA_LOSS"}
_MEANINGS: Mapping[str, tuple[type[SealingError], str]] = {
    "PERMISSION_DENIED": (
        SealingRefused,
        (
            "{principal} has no permission cloudkms.cryptoKeyVersions.useTo{method} on {key}: "
            "grant it roles/cloudkms.cryptoKeyEncrypterDecrypter there, or correct the name of the key"
        ),
    ),
    "UNAUTHENTICATED": (NotAuthenticated, "Cloud KMS does not take the access token of {principal}"),
    "NOT_FOUND": (SealingRefused, "Cloud KMS knows no key {key}: make it, or correct the name"),
    "FAILED_PRECONDITION": (
        SealingRefused,
        "Cloud KMS cannot use {key}: enable or restore the version that it names; the key's purpose must be encryption",
    ),
    "RESOURCE_EXHAUSTED": (SealingUnavailable, "Cloud KMS: the project's quota is used up"),
    "DEADLINE_EXCEEDED": (SealingUnavailable, "Cloud KMS gave no answer in time for {key}"),
}


def failure(call: Call, status: str, details: str) -> SealingError:
    """Return the error that a status of gRPC means.

    Args:
        call: What was asked.
        status: The name of the status, such as `PERMISSION_DENIED`.
        details: What the service said.
    """
    said = f"({status}: {shown(details)})"
    if status == "INVALID_ARGUMENT" and "checksum" in details:
        return TryAgain(f"Cloud KMS: what was sent was damaged on its way {said}")
    if status == "INVALID_ARGUMENT" and call.method is Method.DECRYPT:
        return BlobCorrupt(f"blob corrupt: {call.key} does not open it {said}")
    if status in _MAY_PASS:
        return TryAgain(f"Cloud KMS gave no answer {said}")
    kind, text = _MEANINGS.get(status, (SealingRefused, "Cloud KMS refuses to use {key}"))
    return kind(f"{text.format(principal=call.principal, method=call.method, key=call.key)} {said}")


def check_encrypted(
    call: Call, *, version: str, ciphertext: bytes, checksum: int | None, plaintext_seen: bool, header_seen: bool
) -> None:
    """Do nothing if an answer to `Encrypt` is whole, and of the key that was asked.

    Args:
        call: What was asked.
        version: The version of the key that sealed.
        ciphertext: What it gave.
        checksum: What it says the CRC-32C of that is; None if it does not.
        plaintext_seen: That it checked our checksum of the plaintext.
        header_seen: The same, of the additional data; true where there were none.

    Raises:
        TryAgain: It is not.
    """
    if not version.startswith(f"{call.key}/cryptoKeyVersions/"):
        raise TryAgain(f"Cloud KMS sealed with {version[:200]!r}, not with {call.key}")
    if not plaintext_seen or not header_seen:
        raise TryAgain("Cloud KMS did not check what was sent")
    _check(ciphertext, checksum)


def check_decrypted(*, plaintext: bytes, checksum: int | None) -> None:
    """Do nothing if an answer to `Decrypt` is whole.

    Raises:
        TryAgain: It is not.
    """
    _check(plaintext, checksum)


def _check(data: bytes, checksum: int | None) -> None:
    if not data or checksum != crc32c(data):
        raise TryAgain("Cloud KMS: the answer was damaged on its way")
