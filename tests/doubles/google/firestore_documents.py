"""Documents, preconditions and transactions as Firestore has them; `firestore` puts them behind a socket.

Two ways to keep transactions apart, as it is not known which one the service follows when:

- `pessimistic`: a read in a transaction takes a lock, and a writer waits for it, 3 s at most. In a deadlock
  the older first attempt wins, and the other one is aborted.
- `optimistic`: no one waits; a commit whose reads have changed is aborted.
"""

import datetime
import itertools
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

import grpc

Code = grpc.StatusCode
#: Seconds that a writer waits for a lock.
LOCK_WAIT_S = 3.0
MAX_DOCUMENT_BYTES = 1_048_576
MAX_REQUEST_BYTES = 10 * 1024 * 1024

#: Protobuf's own classes, which are made while the program runs.
Message = Any


class Refused(Exception):
    """What the service answers instead."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class Stored:
    """A document as it is stored."""

    def __init__(self, fields: Mapping[str, Message], created: datetime.datetime, updated: datetime.datetime) -> None:
        self.fields, self.created, self.updated = dict(fields), created, updated


class Documents:
    """Documents by full name, a version of every name that was ever written, and the locks of open transactions.

    The caller holds `changed`.

    Attributes:
        idle_s: Seconds without a call after which a transaction is over, and its locks are gone.
    """

    def __init__(self, *, pessimistic: bool = False) -> None:
        self.pessimistic = pessimistic
        self.idle_s = 60.0
        self.changed = threading.Condition()
        self.by_name: dict[str, Stored] = {}
        self._versions: dict[str, int] = {}
        #: For each open transaction the version of every name it has read; None when it may not write.
        self._open: dict[bytes, dict[str, int] | None] = {}
        #: The number of the first attempt of every transaction there was.
        self._age: dict[bytes, int] = {}
        self._used: dict[bytes, float] = {}
        self._waiting: dict[bytes, set[str]] = {}
        self._numbers = itertools.count(1)
        self._last_us = 0

    def now(self) -> datetime.datetime:
        """Return the time, in microseconds; no two are alike."""
        self._last_us = max(self._last_us + 1, time.time_ns() // 1000)
        return datetime.datetime.fromtimestamp(0, datetime.UTC) + datetime.timedelta(microseconds=self._last_us)

    def begin(self, options: Message) -> bytes:
        """Begin a transaction."""
        number, retried = next(self._numbers), options.read_write.retry_transaction
        transaction = b"transaction %d" % number
        self._age[transaction] = self._age.get(retried, number)
        self._open[transaction] = None if options.HasField("read_only") else {}
        self._used[transaction] = time.monotonic()
        return transaction

    def read(self, name: str, transaction: bytes = b"") -> Stored | None:
        """Return a document, and remember that the transaction has read it."""
        if transaction and (seen := self._reads_of(transaction)) is not None and name not in seen:
            end = time.monotonic() + LOCK_WAIT_S
            # An older writer goes first: readers would keep it out for ever.
            while older := [
                each for who, each in self._waiting.items() if name in each and self._age[who] < self._age[transaction]
            ]:
                if any(each & seen.keys() for each in older):
                    raise Refused(Code.ABORTED, "an older transaction wants these documents")
                self._wait(end)
            seen[name] = self._versions.get(name, 0)
        return self.by_name.get(name)

    def commit(self, writes: Iterable[Message], transaction: bytes = b"") -> datetime.datetime:
        """Apply all writes, or none of them; return the time."""
        seen = self._reads_of(transaction) if transaction else None
        writes = list(writes)
        names = {write.update.name or write.delete for write in writes}
        try:
            if transaction and seen is None and writes:
                raise Refused(Code.INVALID_ARGUMENT, "a read-only transaction cannot write")
            if sum(write.ByteSize() for write in writes) > MAX_REQUEST_BYTES:
                raise Refused(Code.INVALID_ARGUMENT, "the request is too big")
            if self.pessimistic:
                self._wait_for_locks(names, transaction)
            if any(self._versions.get(name, 0) != version for name, version in (seen or {}).items()):
                raise Refused(Code.ABORTED, "a document that was read has changed")
            staged, when = dict(self.by_name), self.now()
            for write in writes:
                apply(staged, write, when)
            self.by_name = staged
            for name in names:
                self._versions[name] = self._versions.get(name, 0) + 1
            return when
        finally:
            self.end(transaction)

    def rollback(self, transaction: bytes) -> None:
        """End a transaction; one that is over may be rolled back, as the library does after its last attempt."""
        if transaction not in self._age:
            raise Refused(Code.INVALID_ARGUMENT, "no such transaction")
        self.end(transaction)

    def end(self, transaction: bytes) -> None:
        """Let go of the locks of a transaction."""
        self._open.pop(transaction, None)
        self.changed.notify_all()

    def _reads_of(self, transaction: bytes) -> dict[str, int] | None:
        self._end_idle()
        if transaction not in self._open:
            raise Refused(Code.INVALID_ARGUMENT, "the transaction is unknown, over or rolled back")
        self._used[transaction] = time.monotonic()
        return self._open[transaction]

    def _end_idle(self) -> None:
        now = time.monotonic()
        # One that waits is not idle.
        for idle in [who for who in self._open if now - self._used[who] > self.idle_s and who not in self._waiting]:
            self.end(idle)

    def _wait_for_locks(self, names: set[str], transaction: bytes) -> None:
        end, mine = time.monotonic() + LOCK_WAIT_S, set(self._open.get(transaction) or ())
        # A write without a transaction has no locks that anybody could wait for.
        who = transaction or b"write %d" % next(self._numbers)
        age = self._age.setdefault(who, 0)
        self._waiting[who] = names
        self.changed.notify_all()
        try:
            while holders := [each for each, seen in self._open.items() if each != who and names & set(seen or ())]:
                if any(mine & self._waiting.get(each, set()) and self._age[each] < age for each in holders):
                    raise Refused(Code.ABORTED, "an older transaction wants these documents")
                self._wait(end)
        finally:
            del self._waiting[who]

    def _wait(self, end: float) -> None:
        self.changed.wait(min(max(end - time.monotonic(), 0), self.idle_s))
        if time.monotonic() >= end:
            raise Refused(Code.ABORTED, "too much contention on these documents")
        self._end_idle()


def apply(documents: dict[str, Stored], write: Message, when: datetime.datetime) -> None:
    """Make one write, or refuse it."""
    name = write.update.name or write.delete
    old = documents.get(name)
    check(name, old, write.current_document)
    if write.delete:
        documents.pop(name, None)
        return
    fields = dict(write.update.fields)
    if write.HasField("update_mask"):
        fields = dict(old.fields) if old else {}
        for path in write.update_mask.field_paths:
            if path in write.update.fields:
                fields[path] = write.update.fields[path]
            else:
                fields.pop(path, None)
    for transform in write.update_transforms:
        if transform.WhichOneof("transform_type") != "set_to_server_value":
            raise Refused(Code.UNIMPLEMENTED, "the double sets the time, and nothing else")
        value = type(write.update).FieldsEntry().value
        value.timestamp_value.FromDatetime(when)
        fields[transform.field_path] = value
    if len(name) + sum(len(field) + value.ByteSize() for field, value in fields.items()) > MAX_DOCUMENT_BYTES:
        raise Refused(Code.INVALID_ARGUMENT, "the document is larger than 1,048,576 bytes")
    documents[name] = Stored(fields, old.created if old else when, when)


def check(name: str, old: Stored | None, condition: Message) -> None:
    """Pass when a document may be written."""
    if any(part.startswith("__") and part.endswith("__") for part in name.split("/documents/")[1].split("/")):
        raise Refused(Code.INVALID_ARGUMENT, "a reserved id")
    match condition.WhichOneof("condition_type"):
        case "exists":
            if condition.exists and old is None:
                raise Refused(Code.NOT_FOUND, f"No document to update: {name}")
            if not condition.exists and old is not None:
                raise Refused(Code.ALREADY_EXISTS, f"Document already exists: {name}")
        case "update_time":
            wanted = condition.update_time.ToDatetime(datetime.UTC)
            if old is None or old.updated != wanted:
                raise Refused(Code.FAILED_PRECONDITION, "the stored version does not match the required base version")
