"""Those who ask for one right: who is answered next, and who has left."""

import asyncio
from collections import deque

from host_backend.watermark.rule import Mark, Verdict


class Request:
    """Somebody asks whether a message may be signed. Belongs to the event loop that runs when it is made.

    Attributes:
        asked: For which mark.
        begun: Done once it is more than waiting.
        answer: Its answer.
    """

    __slots__ = ("answer", "asked", "begun")

    def __init__(self, asked: Mark) -> None:
        loop = asyncio.get_running_loop()
        self.asked = asked
        self.begun: asyncio.Future[None] = loop.create_future()
        self.answer: asyncio.Future[Verdict] = loop.create_future()

    @property
    def left(self) -> bool:
        """Whether no caller waits for the answer, or has it already."""
        return self.begun.cancelled() or self.answer.done()

    def begin(self) -> None:
        """From now on it is more than waiting."""
        if not self.begun.done():
            self.begun.set_result(None)

    def end(self, outcome: Verdict | Exception) -> None:
        """Answer it; nothing happens where that was done."""
        if self.left:
            return
        self.begin()
        if isinstance(outcome, Exception):
            self.answer.set_exception(outcome)
        else:
            self.answer.set_result(outcome)


def next_group(requests: deque[Request]) -> list[Request]:
    """Take the next request, and those behind it that repeat it; callers that left are left out."""
    group: list[Request] = []
    while requests and (not group or _repeats(requests[0].asked, group[0].asked)):
        request = requests.popleft()
        if not request.left:
            group.append(request)
    return group


def _repeats(asked: Mark, other: Mark) -> bool:
    return asked.digest is not None and asked == other
