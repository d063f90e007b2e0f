"""What can go wrong on the wire, by who is at fault. This room's own root: it imports nothing of ours."""

from collections.abc import Iterator
from enum import StrEnum


class Family(StrEnum):
    """What an `Err` means for who asked; each is how such a text begins.

    A text that begins otherwise, as those of tee-signer do, is `REFUSED`.
    """

    #: Final; asking again will not help.
    REFUSED = "refused"
    #: What seals the keys gave no answer; asking later may help.
    UNAVAILABLE = "unavailable"
    #: The blob is not what was sealed, and will never open.
    CORRUPT = "blob corrupt"
    #: What seals the keys will give this one when somebody has allowed it; asking later may help.
    NOT_RELEASED = "not released yet"
    #: What seals the keys has decided not to give this one to this enclave. Final.
    RELEASE_DENIED = "release denied"
    #: Nothing can be proven here: this is no confidential machine, or this connection cannot be bound. Final.
    NOT_ATTESTED = "not attested"
    #: No token at the moment; asking later may help.
    ATTESTATION_UNAVAILABLE = "attestation unavailable"
    #: The handle is not open on this connection.
    BAD_HANDLE = "invalid handle"
    #: The call came before `Initialize`, or was a second one. Both texts are tee-signer's, too.
    UNINITIALIZED = "uninitialized"
    INITIALIZED = "already initialized"
    #: The guard refuses a double signature; this level and round must never be asked for again.
    GUARD_REFUSED = "guard refused"


def family_of(text: str) -> Family:
    """Return the family of the outermost text of an `Err`."""
    return next((family for family in Family if text.startswith(family)), Family.REFUSED)


def with_family(family: Family, text: str) -> str:
    """Return a text by which its family is known."""
    return text if family_of(text) is family else f"{family}: {text}"


class ProtocolError(Exception):
    """Root of everything the wire can raise."""


class BadFrame(ProtocolError):
    """The peer broke the framing; nothing after it can be trusted, so close the connection."""


class BadMessage(ProtocolError):
    """A good frame holds no valid message; the enclave answers `Err` and goes on, the host closes."""


class BadBlob(ProtocolError):
    """A sealed key whose header cannot be read: not one of ours, truncated or altered."""


class UnknownBlobFormat(BadBlob):
    """A sealed key in a format that a later version of this program may know."""


class WireError(ProtocolError):
    """The enclave's `Err` answer: `message` is the outermost text, `source` its cause.

    Signatory shows its users only the outermost text, so what matters stands there.
    """

    def __init__(self, message: str, source: "WireError | None" = None) -> None:
        super().__init__(message)
        self.message = message
        self.source = source

    def chain(self) -> Iterator[str]:
        """Yield the texts from the outermost to the first cause."""
        link: WireError | None = self
        while link is not None:
            yield link.message
            link = link.source

    def __str__(self) -> str:
        """Return the whole chain on one line."""
        return ": ".join(self.chain())
