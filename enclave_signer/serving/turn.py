"""The calls of one turn on their way to answers in the same order. What waits for the sealer waits side by side."""

import logging

import trio

from enclave_signer.errors import EnclaveSignerError
from enclave_signer.protocol import codec
from enclave_signer.protocol.errors import BadMessage, Family, WireError, with_family
from enclave_signer.protocol.framing import encode_frame
from enclave_signer.protocol.messages import Request, Result, Signature
from enclave_signer.protocol.sign_call import read_sign, signature_frame
from enclave_signer.serving.fairness import LARGE_FRAME_BYTES, Pace
from enclave_signer.serving.workers import Workers
from enclave_signer.session import Computation, Finish, Opening, Session
from enclave_signer.tezos import masked

logger = logging.getLogger(__name__)

_INTERNAL_ERROR = encode_frame(codec.encode_error(WireError("internal error: the daemon's log has it")))


class Turn:
    """The turn of one connection, again and again.

    Args:
        session: What the calls are for.
        workers: Do the slow computations.
        pace: The connection's part of the event loop.
    """

    def __init__(self, session: Session, workers: Workers, pace: Pace) -> None:
        self._session = session
        self._workers = workers
        self._pace = pace
        self._answers: list[bytes] = []
        self._openings: list[tuple[int, Opening]] = []
        self._computations: list[tuple[int, Computation]] = []

    @property
    def unfinished(self) -> bool:
        """Whether some calls are not answered yet."""
        return bool(self._computations or self._openings)

    def sign(self, frame: bytes | BadMessage) -> bool:
        """Begin the call in a frame if it is a plain `Sign` and need not wait; return whether it was."""
        if type(frame) is not bytes or self._openings or len(frame) > LARGE_FRAME_BYTES:
            return False
        asked = read_sign(frame)
        if asked is None:
            return False
        try:
            outcome = self._session.sign(*asked)
        except Exception as error:  # noqa: BLE001 -- `_encode` tells refusals from bugs
            self._answers.append(_encode(error))
            return True
        if type(outcome) is Signature:
            self._answers.append(signature_frame(outcome))
        else:
            self._answers.append(_INTERNAL_ERROR)
            self._settle(len(self._answers) - 1, outcome)
        return True

    async def take(self, frame: bytes | BadMessage) -> None:
        """Begin the call in a frame, or refuse it."""
        index = len(self._answers)
        self._answers.append(_INTERNAL_ERROR)
        if isinstance(frame, BadMessage):
            self._answers[index] = _encode(frame)
            return
        try:
            request = await self._decode_large(frame) if len(frame) > LARGE_FRAME_BYTES else codec.decode_request(frame)
            if self._openings and self._session.waits_for_openings(request):
                await self._finish_openings()
            outcome = self._session.begin(request)
        except Exception as error:  # noqa: BLE001 -- `_encode` tells refusals from bugs
            self._answers[index] = _encode(error)
            return
        if isinstance(outcome, Opening):
            self._openings.append((index, outcome))
        else:
            self._settle(index, outcome)

    def leave(self) -> None:
        """Have the workers forget this client, and the keys that hang on it."""
        self._workers.leave(self)

    async def _decode_large(self, frame: bytes) -> Request:
        async with self._pace.round.large.turn(len(frame)):
            return codec.decode_request(frame)

    async def finish(self) -> None:
        """Return once every call is answered."""
        if self._openings:
            await self._finish_openings()
        if self._computations:
            computations, self._computations = self._computations, []
            jobs = [computation.run for _, computation in computations]
            outcomes = await self._workers.run(self, jobs)
            self._pace.begin()
            for (index, _), outcome in zip(computations, outcomes, strict=True):
                await self._pace.give_way()
                self._answers[index] = _encode(outcome)

    def answers(self) -> bytes:
        """Return the frames that answer the calls, in order, and start an empty turn."""
        answers, self._answers = self._answers, []
        return b"".join(answers)

    def _settle(self, index: int, outcome: Result | Computation) -> None:
        if isinstance(outcome, Computation):
            self._computations.append((index, outcome))
        else:
            self._answers[index] = _encode(outcome)

    async def _finish_openings(self) -> None:
        openings, self._openings = self._openings, []
        finishes: dict[int, Finish | Exception] = {}

        async def run(index: int, opening: Opening) -> None:
            try:
                await self._pace.give_way()
                finishes[index] = await opening.run(self._pace.give_way)
            except Exception as error:  # noqa: BLE001 -- an outcome; `_encode` tells refusals from bugs
                finishes[index] = error

        if len(openings) == 1:
            await run(*openings[0])
        else:
            async with trio.open_nursery() as nursery:
                for index, opening in openings:
                    nursery.start_soon(run, index, opening)
                    await self._pace.give_way()
        for index, _ in openings:
            await self._pace.give_way()
            self._finish(index, finishes[index])

    def _finish(self, index: int, finish: Finish | Exception) -> None:
        if isinstance(finish, Exception):
            self._answers[index] = _encode(finish)
            return
        try:
            self._settle(index, finish())
        except Exception as error:  # noqa: BLE001 -- as above
            self._answers[index] = _encode(error)


def _encode(outcome: Result | Exception) -> bytes:
    """Return the frame of the answer that an outcome is; a bug is logged here, and its text is kept from the peer."""
    if type(outcome) is Signature:
        return signature_frame(outcome)
    if not isinstance(outcome, Exception):
        return encode_frame(codec.encode_ok(outcome))
    if isinstance(outcome, BadMessage | EnclaveSignerError):
        family = Family.REFUSED if isinstance(outcome, BadMessage) else outcome.family
        return encode_frame(codec.encode_error(WireError(with_family(family, masked(str(outcome))))))
    logger.error("a call failed because of a bug", exc_info=outcome)
    return _INTERNAL_ERROR
