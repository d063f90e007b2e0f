"""What can go wrong inside the enclave, by what the caller should do.

Texts may cross the wire and reach logs: lower case, name the thing and the fix, never a secret, never a blob.
`ProtocolError` in `enclave_signer.protocol.errors` is the one other root: that room imports nothing of ours.
"""

from typing import ClassVar, TypeVar

from enclave_signer.protocol.errors import BadBlob, Family, UnknownBlobFormat

AnyError = TypeVar("AnyError", bound=Exception)


class EnclaveSignerError(Exception):
    """Root of everything the daemon refuses or fails at knowingly.

    Attributes:
        family: As what it crosses the wire.
    """

    family: ClassVar = Family.REFUSED


class ConfigError(EnclaveSignerError):
    """The daemon cannot start as asked; fix the flag, variable or file that the text names."""


class AddressUnavailable(EnclaveSignerError):
    """Another process listens on the address, or this machine does not have it; free it, or name another address."""


class Uninitialized(EnclaveSignerError):
    """A call came before `Initialize`; call in order. The text is the family's."""

    family = Family.UNINITIALIZED


class AlreadyInitialized(EnclaveSignerError):
    """A second `Initialize`; use the session as it is. The text is the family's."""

    family = Family.INITIALIZED


class NotAllowed(EnclaveSignerError):
    """The rules of the image do not let this client make this call with this key; change the image, or ask as another."""


class KeyFault(EnclaveSignerError):
    """The key asked for cannot do this; fix the request."""


class UnknownHandle(KeyFault):
    """No key is open under this handle; open one on this connection."""

    family = Family.BAD_HANDLE


class KeyNotOpen(EnclaveSignerError):
    """No session has this key open; retry when the program that opens it is connected."""

    family = Family.UNAVAILABLE


class SealingError(EnclaveSignerError):
    """Root of what a sealer may raise."""


class SealingRefused(SealingError):
    """The sealer said no (wrong KEK, no right to use it); retrying will not help."""


class SealingUnavailable(SealingError):
    """The sealer did not answer; retrying later may help."""

    family = Family.UNAVAILABLE


class NotReleased(SealingError):
    """The sealer will open this key when somebody has allowed it; retrying later may help."""

    family = Family.NOT_RELEASED


class ReleaseDenied(SealingError):
    """The sealer will not open this key for this image; retrying will not help until a policy is changed."""

    family = Family.RELEASE_DENIED


class BlobCorrupt(SealingError):
    """The blob is not what was sealed: truncated, altered, re-labelled; restore it from a backup."""

    family = Family.CORRUPT


class GuardRefused(EnclaveSignerError):
    """Signing this could be a double signature; never retry this level and round."""

    family = Family.GUARD_REFUSED


class NotAttested(EnclaveSignerError):
    """Nothing can be proven here: no confidential machine, or a connection that cannot be bound; retrying will not help."""

    family = Family.NOT_ATTESTED


class TokenUnavailable(EnclaveSignerError):
    """There is no attestation token at the moment; retrying later may help."""

    family = Family.ATTESTATION_UNAVAILABLE


class LauncherRefused(EnclaveSignerError):
    """The launcher gives this image no token; retrying will not help."""


class LauncherUnavailable(EnclaveSignerError):
    """The launcher gave no token; retrying later may help."""


def blob_error(error: BadBlob) -> SealingError:
    """Return the error of a sealer for a blob whose header cannot be read: what a later version sealed is not corrupt."""
    return SealingRefused(str(error)) if isinstance(error, UnknownBlobFormat) else BlobCorrupt(str(error))


def again(error: AnyError) -> AnyError:
    """Return an error for one more caller, caused by the first one: a raised error keeps its traceback.

    Args:
        error: Of a class that takes its `args`.
    """
    copy = type(error)(*error.args)
    copy.__cause__ = error
    return copy
