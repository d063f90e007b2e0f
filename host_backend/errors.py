"""What the host refuses or fails at, by what the caller should do; the table of `docs/architecture.md` in code.

Each family carries its HTTP status, its exit code and its log level, so that no room decides these twice.
Texts: lower case, name the thing and the fix, no secret, no blob.
"""

import errno
import logging
import os
from collections.abc import Iterable
from typing import ClassVar


class HostError(Exception):
    """Root of everything the host refuses or fails at knowingly."""

    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    log_level: ClassVar[int] = logging.ERROR
    #: Seconds after which a client may ask again, where that is worth telling: `Retry-After`.
    retry_after_s: ClassVar[int | None] = None


class ConfigError(HostError):
    """The configuration or the command line is wrong; the text names the place and the fix."""

    exit_code = 2


class StateConflict(ConfigError):
    """The present state does not allow this: in use, taken, missing, damaged; the text names it and the fix.

    The configuration may be right, so the exit code is not that of a configuration to correct.
    """

    exit_code = 1


class MalformedRequest(HostError):
    """The request is not well formed; fix it."""

    http_status = 400
    exit_code = 2
    log_level = logging.INFO


class TooLarge(MalformedRequest):
    """The body is longer than any message; send less."""

    http_status = 413


class ClientLeft(MalformedRequest):
    """The client left while its request waited; it gets no answer, and nothing was signed."""


class NotAuthenticated(HostError):
    """The caller did not say who it is, or not in a way that can be believed; give credentials."""

    http_status = 401
    log_level = logging.WARNING


class TooManyLogins(NotAuthenticated):
    """The password is wrong, as were many others from this address just now; wait."""

    http_status = 429


class PolicyDenied(HostError):
    """The policy does not allow this; stop, or change the policy.

    Attributes:
        violation: What it does not allow, in one word of a known few, for metrics.
    """

    http_status = 403
    log_level = logging.WARNING

    def __init__(self, text: str, *, violation: str) -> None:
        super().__init__(text)
        self.violation = violation


class ProofDenied(PolicyDenied):
    """The policy allows no proof of possession: 400, as Signatory answers; change the policy."""

    http_status = 400


class KeyNotFound(HostError):
    """No vault holds this key; check the configuration."""

    http_status = 404
    log_level = logging.WARNING


class WatermarkRejected(HostError):
    """Signing this could be a double signature; never retry this level and round."""

    http_status = 409
    log_level = logging.WARNING


class EnclaveRefused(HostError):
    """The enclave answered, and the answer is no, or wrong; look at the enclave."""

    http_status = 502


class BlobCorrupt(EnclaveRefused):
    """The enclave answered that a sealed key is not what was sealed; restore it from a backup, or import the key again."""


class ReleaseDenied(EnclaveRefused):
    """The enclave answered that its key's service will not release the key to it; look at that service's policy."""


class AttestationRefused(EnclaveRefused):
    """The enclave's evidence does not show what it must; stop: it may be another enclave, or none.

    Attributes:
        reasons: Every mismatch, each with the claim that it is about.
    """

    def __init__(self, reasons: Iterable[str]) -> None:
        self.reasons = tuple(reasons)
        super().__init__("the evidence was refused: " + "; ".join(self.reasons))


class EnclaveUnavailable(HostError):
    """The enclave did not answer in time, or is not ready; retry later."""

    http_status = 503


class KeysUnavailable(EnclaveUnavailable):
    """The keys that sign evidence cannot be had, so that nothing was proven; retry later."""


class SealerUnavailable(EnclaveUnavailable):
    """The enclave answered, and what seals its keys did not; retry later."""


class NotReleased(SealerUnavailable):
    """The enclave answered, and what seals its keys has not released this one yet; retry later."""

    # The shortest time for which an enclave remembers that a key was not released.
    retry_after_s = 5


class Unanswered(EnclaveUnavailable):
    """The connection ended before an answer to this call was read.

    Nothing else may be asked for once more by the host itself: an answer that was read is final, whatever became of the
    connection afterwards.
    """


class Late(Unanswered):
    """The enclave did not answer in time to the call that was first in line, and the host ended the connection."""


class NoLongerTrusted(Unanswered):
    """The host ended the connection, because the enclave was refused; look at the enclave, or at the policy."""


class Garbled(Unanswered):
    """What came on the connection was no answer to the calls; look at the enclave."""

    http_status = 502


class HookUnavailable(HostError):
    """The policy hook did not answer as it should, so nothing was signed; look at it, retry later."""

    http_status = 503


class StoreUnavailable(HostError):
    """A key or watermark store did not answer, so nothing was signed; look at the disk or Firestore, retry later."""

    http_status = 503


class TooManyWait(HostError):
    """Too many requests of this kind wait already; send fewer at once, retry later."""

    http_status = 503
    log_level = logging.WARNING


def reason_of(error: OSError) -> str:
    """Return what the system says of an error, without the addresses that libraries put into the text."""
    if error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno)
    return error.strerror or str(error)
