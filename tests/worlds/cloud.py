"""Firestore as the product's transactions need it: documents, versions, and answers that come late or never.

There are no locks to wait for: a commit is aborted when what its transaction has read was changed, as the service does where
it is optimistic. A call that was sent is done though its host is killed meanwhile.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from random import Random
from typing import Any

from host_backend.config.google_places import FirestorePlace
from host_backend.google.documents import Document, Field, Write
from host_backend.google.firestore import CALL_S
from host_backend.google.outcomes import Conflict, Contended, OutcomeUnknown
from tests.worlds.clock import Process

#: What may happen to a call.
CLOUD_FAULTS = ("late", "lost", "answer lost", "aborted")
PLACE = FirestorePlace("project", "(default)", "watermark")
STORE_ID = "store-of-this-world"


class Cloud:
    """The documents of a world.

    Attributes:
        faults: What happens to the next calls, the first one first.
    """

    def __init__(self, chance: Random, process: Process) -> None:
        self.chance = chance
        self.process = process
        self.faults: list[str] = []
        self._numbers = count(1)
        self._documents: dict[str, Document] = {}
        self._reads: dict[bytes, dict[str, tuple[int, int]]] = {}
        store: dict[str, Field] = {"id": STORE_ID, "layout": 1, "place": PLACE.name, "made_by": "init", "chains": ()}
        self._write(Write(f"{PLACE.collection}/enclave-host", store))

    def begin(self) -> bytes:
        """Begin a transaction."""
        transaction = b"%d" % next(self._numbers)
        self._reads[transaction] = {}
        return transaction

    def read(self, transaction: bytes, paths: Sequence[str]) -> dict[str, Document | None]:
        """Read in a transaction."""
        reads = self._open(transaction)
        for path in paths:
            reads.setdefault(path, self._version(path))
        return {path: self._documents.get(path) for path in paths}

    def commit(self, writes: Sequence[Write], transaction: bytes) -> None:
        """Write all or nothing."""
        reads = self._open(transaction) if transaction else {}
        self._reads.pop(transaction, None)
        if any(self._version(path) != version for path, version in reads.items()):
            raise Contended("changed meanwhile")
        for write in writes:
            if (write.absent and write.path in self._documents) or write.version not in (
                None,
                self._version(write.path),
            ):
                raise Conflict("not as the write has it")
        for write in writes:
            self._write(write)

    def end(self, transaction: bytes) -> None:
        """Forget a transaction."""
        self._reads.pop(transaction, None)

    def _open(self, transaction: bytes) -> dict[str, tuple[int, int]]:
        if transaction not in self._reads:
            raise OutcomeUnknown("no such transaction")
        return self._reads[transaction]

    def _version(self, path: str) -> tuple[int, int]:
        document = self._documents.get(path)
        return (0, 0) if document is None else document.version

    def _write(self, write: Write) -> None:
        old = self._documents.get(write.path)
        fields = {**(old.fields if old else {}), **write.fields}
        kept = {name: value for name, value in fields.items() if value is not None}
        self._documents[write.path] = Document(write.path, kept, "", (next(self._numbers), 0))


class CloudClient:
    """One host's connection: what the product takes for `Firestore`."""

    place = PLACE

    def __init__(self, cloud: Cloud, process: Process) -> None:
        self._cloud = cloud
        self._process = process

    async def begin(self, retried: bytes = b"") -> bytes:
        return bytes(await self._call(self._cloud.begin))

    async def get_in(self, transaction: bytes, paths: Sequence[str]) -> dict[str, Document | None]:
        found: dict[str, Document | None] = await self._call(lambda: self._cloud.read(transaction, paths))
        return found

    async def commit(self, writes: Iterable[Write], transaction: bytes = b"") -> None:
        kept = list(writes)
        await self._call(lambda: self._cloud.commit(kept, transaction))

    async def roll_back(self, transaction: bytes) -> None:
        await self._call(lambda: self._cloud.end(transaction))

    async def _call(self, work: Callable[[], Any]) -> Any:
        answer: asyncio.Future[Any] = self._process.create_future()
        if not self._process.dead:
            self._cloud.process.do_at(self._process.time() + self._delay(), self._serve, work, answer)
        return await answer

    def _delay(self) -> float:
        return 0.001 + 0.01 * self._cloud.chance.random()

    def _serve(self, work: Callable[[], Any], answer: "asyncio.Future[Any]") -> None:
        fault = self._cloud.faults.pop(0) if self._cloud.faults else ""
        delay = {"late": 0.9 * CALL_S, "lost": CALL_S, "answer lost": CALL_S}.get(fault, self._delay())
        outcome: Any
        if fault == "aborted":
            outcome = Contended("others")
        elif fault == "lost":
            outcome = OutcomeUnknown("no answer")
        else:
            try:
                outcome = work()
            except (Contended, Conflict, OutcomeUnknown) as error:
                outcome = error
            if fault == "answer lost":
                outcome = OutcomeUnknown("no answer")
        self._process.do_at(self._process.time() + delay, _settle, answer, outcome)


def _settle(answer: "asyncio.Future[Any]", outcome: Any) -> None:
    if answer.done():
        return
    if isinstance(outcome, Exception):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)
