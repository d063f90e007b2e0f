"""What the keyprovider refuses, by what the caller should do, with the status of gRPC for it.

Source of the numbers: gRPC, "Status codes and their use in gRPC". Texts never quote a layer's key.
"""

from enum import IntEnum
from typing import ClassVar

from enclave_signer.errors import EnclaveSignerError


class Status(IntEnum):
    """Statuses of gRPC that are answered here."""

    OK = 0
    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class KeyproviderError(EnclaveSignerError):
    """Root of what the keyprovider answers in place of a result.

    Attributes:
        status: As what it crosses the wire.
    """

    status: ClassVar = Status.INTERNAL


class BadRequest(KeyproviderError):
    """The request or its packet is not one; fix the request, or get the image again."""

    status = Status.INVALID_ARGUMENT


class NotAllowed(KeyproviderError):
    """The configuration, or the sealer, does not allow it; retrying will not help."""

    status = Status.PERMISSION_DENIED


class KekMissing(KeyproviderError):
    """The key may be used, and is not there; store it."""

    status = Status.NOT_FOUND


class KekDamaged(KeyproviderError):
    """The stored file does not give the key; restore it, or correct the configuration."""


class TooLarge(KeyproviderError):
    """The request is longer than any real one."""

    status = Status.RESOURCE_EXHAUSTED


class Unimplemented(KeyproviderError):
    """There is no such call, or no such encoding of it."""

    status = Status.UNIMPLEMENTED


class KekUnavailable(KeyproviderError):
    """The key cannot be opened at the moment; retrying later may help."""

    status = Status.UNAVAILABLE
