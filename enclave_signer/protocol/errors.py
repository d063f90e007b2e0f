"""What can go wrong on the wire, by who is at fault. This room's own root: it imports nothing of ours."""

from collections.abc import Iterator

#: How the `Err` text begins when the enclave's guard refuses a double signature: what a host may act on.
GUARD_REFUSED = "guard refused"


class ProtocolError(Exception):
    """Root of everything the wire can raise."""


class BadFrame(ProtocolError):
    """The peer broke the framing; nothing after it can be trusted, so close the connection."""


class BadMessage(ProtocolError):
    """A good frame holds no valid message; the enclave answers `Err` and goes on, the host closes."""


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
