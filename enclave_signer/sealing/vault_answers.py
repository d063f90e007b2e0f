"""The meaning of answers from Vault and OpenBao: a result or an error for each item of a batch.

- *Refused*: an administrator of the server has to change something first; the text names it.
- *Unavailable*: the server is down, sealed, or limits the rate of requests.
- *Corrupt*: the ciphertext, its header or the key are not those that were sealed.
- The error of each item counts, not the status: a batch with one bad item has status 400.

Source: the API of OpenBao 2.7, as observed; that of Vault, as documented. This room knows no library.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from enclave_signer.errors import BlobCorrupt, SealingError, SealingRefused, SealingUnavailable
from enclave_signer.launcher import shown
from enclave_signer.sealing.vault_config import TransitKey

#: Types whose ciphertext binds the blob's header, with keys of 256 bits.
KEY_TYPES = ("aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305")
_RIGHT_IS_MISSING = "1 error occurred"
_CIPHERTEXT = re.compile(rb"vault:v([0-9]{1,9}):([A-Za-z0-9+/]+={0,2})")


class Method(StrEnum):
    """An operation of a key; the value is its name in paths and policies."""

    ENCRYPT = "encrypt"
    DECRYPT = "decrypt"


class PermissionDenied(SealingRefused):
    """The server does not take the token; another one may be taken."""


class BatchRefused(SealingRefused):
    """The server does not take the items together; it may take them in parts.

    Attributes:
        alone: What it means for an item that was asked for alone.
    """

    def __init__(self, alone: SealingError) -> None:
        super().__init__(str(alone))
        self.alone = alone


@dataclass(frozen=True, slots=True)
class VaultAnswer:
    """An answer whose body is a JSON object, or none at all.

    Attributes:
        status: Three digits.
        fields: Of the object.
        said: Its errors as one line of text, without secrets.
        for_people: Returns a text of it as one line, without the secrets of the request.
    """

    status: int
    fields: Mapping[str, object]
    said: str
    for_people: Callable[[str], str] = shown

    @property
    def data(self) -> Mapping[str, object]:
        """The field `data`; empty where there is none."""
        data = self.fields.get("data")
        return data if isinstance(data, dict) else {}

    @property
    def summary(self) -> str:
        """Its status and errors in brackets, as they end the text of an error of ours."""
        return f"({self.status}: {self.said or 'nothing said'})"


#: Texts of status 400 that are about the key; all others are about the ciphertext.
_OF_THE_KEY = (
    ("too old", "{key} opens no blobs of so old a version: lower its min_decryption_version, or reseal from a backup"),
    (
        "version is too new",
        "the blob names a version that {key} does not have: is the server's key from an old backup?",
    ),
    ("encryption key not found", "there is no key {key}: create it, or correct the name"),
    ("soft-deleted", "{key} is deleted softly: restore it"),
    ("non-AEAD", f"{{key}} must be of a type that binds the header of a blob: {', '.join(KEY_TYPES)}"),
    ("missing 'context'", "{key} is a derived key: use one that is not"),
)


def failure(answer: VaultAnswer, method: Method, key: TransitKey) -> SealingError:
    """Return the error for an answer without results."""
    if answer.status == 400:
        if "complexity" in answer.said:
            return BatchRefused(
                SealingRefused(
                    f"the server takes fewer items in one request: raise max_request_json_strings {answer.summary}"
                )
            )
        error = item_failure(answer.said, method, key)
        return BatchRefused(error) if isinstance(error, BlobCorrupt) else error
    return _of_status(answer, f"{key.mount}/{method}/{key.key}", "update", key)


def _of_status(answer: VaultAnswer, path: str, right: str, key: TransitKey) -> SealingError:
    said = answer.summary
    if answer.status == 403:
        # The server lists one error where the token is valid: a new login would not help, and strangers could cause many.
        kind = SealingRefused if _RIGHT_IS_MISSING in said else PermissionDenied
        return kind(f"the server denies {right} on {path}: correct the policy of this image's token {said}")
    if answer.status == 404:
        return SealingRefused(f"the server has nothing at {path}: enable transit there, or correct {key.name} {said}")
    return unavailable(answer) or SealingRefused(f"the server refuses to use {key.name} {said}")


def unavailable(answer: VaultAnswer) -> SealingUnavailable | None:
    """Return the error for a temporary status; None for any other."""
    status, said = answer.status, answer.summary
    if status == 429:
        return SealingUnavailable(f"the server's rate limit quota is used up {said}")
    if status == 503:
        return SealingUnavailable(f"the server is sealed, or not ready: unseal it {said}")
    if 300 <= status < 400:
        return SealingUnavailable(f"the server sends requests elsewhere, as a standby does: name the active one {said}")
    if status >= 500 or status == 200:
        return SealingUnavailable(f"the server gave no answer that means anything {said}")
    return None


def item_failure(said: str, method: Method, key: TransitKey) -> SealingError:
    """Return the error for the error text of one item."""
    for begin, text in _OF_THE_KEY:
        if begin in said:
            return SealingRefused(f"{text.format(key=key.name)} ({said})")
    if method is Method.DECRYPT:
        return BlobCorrupt(
            f"blob corrupt: {key.name} does not open it; if all blobs say so, the server has another key of this name "
            f"({said})"
        )
    return SealingRefused(f"the server does not seal under {key.name} ({said})")


def read_batch(answer: VaultAnswer, method: Method, key: TransitKey, count: int) -> Sequence[str | SealingError]:
    """Return the outcome of each item: a ciphertext, a plaintext in base64, or its error.

    Args:
        answer: To a batch.
        method: The operation.
        key: The key.
        count: Items in the batch.

    Raises:
        BatchRefused: The server did not take them together.
        SealingError: It gave no results.
    """
    results = answer.data.get("batch_results")
    if answer.status not in {200, 400} or results is None:
        raise failure(answer, method, key)
    if not isinstance(results, list) or len(results) != count:
        raise SealingUnavailable(f"the server answered another number of items than the {count} asked")
    return [_item(result, method, key, answer.for_people) for result in results]


def _item(result: object, method: Method, key: TransitKey, for_people: Callable[[str], str]) -> str | SealingError:
    if isinstance(result, dict):
        error = result.get("error")
        if isinstance(error, str) and error:
            return item_failure(for_people(error), method, key)
        value = result.get("ciphertext" if method is Method.ENCRYPT else "plaintext")
        if isinstance(value, str) and value:
            return value
    return SealingUnavailable("the server answered an item with neither a result nor an error")


def check_key(answer: VaultAnswer, key: TransitKey) -> None:
    """Check that a key exists and may seal: an encryption could create it, or might not authenticate the header.

    Args:
        answer: To a request for the key's description.
        key: The key.

    Raises:
        PermissionDenied: The server does not take the token.
        SealingRefused: The key does not exist, or must not seal.
        SealingUnavailable: No answer.
    """
    if answer.status == 404:
        raise SealingRefused(f"there is no key {key.name}: create it, or correct the name; nothing was sealed")
    if answer.status != 200:
        raise _of_status(answer, f"{key.mount}/keys/{key.key}", "read", key)
    data = answer.data
    if data.get("type") not in KEY_TYPES:
        other = answer.for_people(str(data.get("type")))[:40]
        raise SealingRefused(f"{key.name} is of type {other!r}: it must be {' or '.join(KEY_TYPES)}")
    for flag, why in (
        ("derived", "it is derived from a context, and blobs have none"),
        ("exportable", "it can be taken out of the server"),
        ("allow_plaintext_backup", "it can be taken out of the server by a backup"),
    ):
        if data.get(flag) is not False:
            raise SealingRefused(f"{key.name} must not be used to seal: {why} ({flag} is not false)")


def check_ciphertext(ciphertext: bytes) -> str:
    """Return the ciphertext of a blob as text.

    Only one spelling is accepted, because the version is not authenticated: the server opens `v0` and `v01` like `v1`.

    Raises:
        BlobCorrupt: It is no ciphertext, or has another spelling.
    """
    match = _CIPHERTEXT.fullmatch(ciphertext)
    if match is None:
        raise BlobCorrupt("blob corrupt: its header is not followed by a ciphertext of Vault or OpenBao")
    if match[1].startswith(b"0"):
        raise BlobCorrupt(f"blob corrupt: its ciphertext is relabelled as version {match[1].decode()}")
    if _decoded(match[2]) is None:
        raise BlobCorrupt("blob corrupt: its ciphertext is truncated or altered")
    return ciphertext.decode()


def plaintext(answered: str) -> bytes:
    """Return the decoded plaintext of an item.

    Raises:
        SealingUnavailable: It is not in base64.
    """
    data = _decoded(answered.encode())
    if data is None:
        raise SealingUnavailable("the server answered a plaintext that is not in base64")
    return data


def _decoded(text: bytes) -> bytes | None:
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    return data if base64.b64encode(data) == text else None
