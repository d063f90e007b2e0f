"""Which answer belongs to which call: they come in the order of the calls. Pure; knows no socket and no clock.

- A call's time limit runs from the moment it is at the head of the line: the enclave answers in order, and a signature
  behind a slow import is not late because of it.
- A call stays in line until its answer came, whether or not its caller still waits: that is what keeps the line right.
- Any doubt ends the line for good: every call in it is `Unanswered`, and so is every later one. No other error means
  that: any other result was read as the answer to the caller's own call.
"""

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from enclave_signer.protocol import codec
from enclave_signer.protocol.errors import Family, ProtocolError, WireError, family_of
from enclave_signer.protocol.framing import FrameDecoder, encode_frame
from enclave_signer.protocol.messages import Request, Result, Sign
from enclave_signer.protocol.sign_call import read_signature, sign_frame
from host_backend.errors import (
    AttestationRefused,
    BlobCorrupt,
    EnclaveRefused,
    EnclaveUnavailable,
    Garbled,
    HostError,
    Late,
    NotReleased,
    ReleaseDenied,
    SealerUnavailable,
    Unanswered,
    WatermarkRejected,
)

#: The longest message that tee-signer decodes, and what it says of a longer one. Source: seen on its wire.
TEE_SIGNER_MESSAGE_BYTES = 4096
_TOO_LONG = "invalid type: bytes"


class Waiter(Protocol):
    """A caller that waits for an answer; gets it at most once, and is free to leave."""

    def answered(self, result: Result) -> None:
        """Take the answer."""
        ...

    def failed(self, error: HostError) -> None:
        """Take the enclave's no, or `Unanswered`."""
        ...


@dataclass(frozen=True, slots=True)
class _Call:
    request: Request
    waiter: Waiter
    limit_s: float


class ReplyLine:
    """The calls in flight on one stream."""

    def __init__(self) -> None:
        self._frames = FrameDecoder()
        self._calls: deque[_Call] = deque()
        self._head_since = 0.0
        self._broken: Unanswered | None = None

    def __len__(self) -> int:
        """Return how many calls are in flight."""
        return len(self._calls)

    @property
    def ended(self) -> bool:
        """Whether the line has ended."""
        return self._broken is not None

    @property
    def broken(self) -> Unanswered | None:
        """Why the line has ended; None while it has not. A new error each time, as a raised one keeps its traceback."""
        return None if self._broken is None else type(self._broken)(str(self._broken))

    @property
    def next_deadline(self) -> float | None:
        """When the call at the head must be answered; None when none is in flight."""
        return self._head_since + self._calls[0].limit_s if self._calls else None

    def add(self, request: Request, waiter: Waiter, limit_s: float, now: float) -> bytes:
        """Put a call in line and return the frame to send.

        Args:
            request: The call.
            waiter: Gets its answer.
            limit_s: Seconds for the answer, once the call is at the head.
            now: Seconds on any clock that only goes forward; the same one for every method.

        Raises:
            Unanswered: The line has ended.
            ValueError: The call is too large for a frame; nothing was put in line.
        """
        if (broken := self.broken) is not None:
            raise broken
        # Encoded first: a call that is never sent must not stand in line, or every later answer would be another's.
        frame = sign_frame(request) if type(request) is Sign else encode_frame(codec.encode_request(request))
        if not self._calls:
            self._head_since = now
        self._calls.append(_Call(request, waiter, limit_s))
        return frame

    def begin(self, now: float) -> None:
        """Let the time of the call at the head run from now on: it is only sent now."""
        self._head_since = now

    def feed(self, data: bytes, now: float) -> None:
        """Take bytes from the enclave and tell the callers whose answers they hold.

        Raises:
            Garbled: They are no answers to these calls; the line has ended, close the stream.
        """
        self._frames.feed(data)
        try:
            while (frame := self._frames.next_frame()) is not None:
                self._answer(frame)
                self._head_since = now
        except ProtocolError as error:
            garbled = Garbled(f"the enclave's answer is garbled: {error}")
            self.end(garbled)
            raise garbled from error

    def _answer(self, frame: bytes) -> None:
        if not self._calls:
            raise ProtocolError("an answer came without a call")
        call = self._calls[0]
        try:
            result: Result = read_signature(frame) if type(call.request) is Sign else None
            if result is None:
                result = codec.decode_reply(call.request, frame)
        except WireError as error:
            refusal = _refusal(error, call.request)
            self._calls.popleft()
            call.waiter.failed(refusal)
            return
        self._calls.popleft()
        call.waiter.answered(result)

    def expire(self, now: float) -> Late | None:
        """End the line when the call at its head is late; return the reason if so."""
        deadline = self.next_deadline
        if deadline is None or now < deadline:
            return None
        late = Late("the enclave did not answer in time")
        self.end(late)
        return late

    def end(self, reason: Unanswered) -> None:
        """Fail every call in flight and every later one; the first reason stays."""
        if self._broken is not None:
            return
        self._broken = reason
        while self._calls:
            self._calls.popleft().waiter.failed(reason)


def _refusal(error: WireError, request: Request) -> HostError:  # noqa: PLR0911 -- one for each family
    """Return the enclave's no, by its family.

    Raises:
        ProtocolError: The enclave knows nothing of what this connection has done before.
    """
    match family_of(error.message):
        case Family.GUARD_REFUSED:
            # That level may never be asked for again.
            return WatermarkRejected(f"watermark validation failed in the enclave: {error}")
        case Family.UNAVAILABLE:
            return SealerUnavailable(f"the enclave's sealer: {error}")
        case Family.NOT_RELEASED:
            return NotReleased(f"the enclave's sealer: {error}")
        case Family.RELEASE_DENIED:
            return ReleaseDenied(f"the enclave refused: {error}")
        case Family.ATTESTATION_UNAVAILABLE:
            # Whether it can be trusted is not known at the moment.
            return EnclaveUnavailable(str(error))
        case Family.NOT_ATTESTED:
            return AttestationRefused([f"the enclave says: {error}"])
        case Family.CORRUPT:
            return BlobCorrupt(f"the enclave refused: {error}")
        case Family.BAD_HANDLE | Family.UNINITIALIZED | Family.INITIALIZED:
            raise ProtocolError(f"the enclave's session is not this connection's: {error}")
        case Family.REFUSED:
            return EnclaveRefused(f"the enclave refused: {error}{_why(error, request)}")


def _why(error: WireError, request: Request) -> str:
    """Return what the texts of a peer leave out."""
    if isinstance(request, Sign) and len(request.message) > TEE_SIGNER_MESSAGE_BYTES and _TOO_LONG in error.message:
        return (
            f": the message has {len(request.message)} bytes, and tee-signer takes {TEE_SIGNER_MESSAGE_BYTES} at most; "
            "enclave-signer takes all that Tezos has"
        )
    return ""
