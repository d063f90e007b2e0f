"""A Firestore on loopback that refuses what the service refuses, and fails as a test asks.

`python -m tests.doubles.google.firestore [pessimistic]` prints its port and serves until it is ended.
"""

import enum
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
from google.cloud.firestore_v1 import types
from google.protobuf import empty_pb2

from tests.doubles.google.firestore_documents import Code, Documents, Message, Refused, Stored

#: Calls that wait for locks have a thread each, and those that they wait for need one, too.
_THREADS = 256
#: Documents of a page, where no one asks for fewer; the service's own choice is not known.
_PAGE = 100
#: Seconds that a call hangs which is never answered: longer than anybody waits.
_HANG_S = 60.0


class Fault(enum.Enum):
    """What goes wrong with one call."""

    ABORTED = enum.auto()
    UNAVAILABLE = enum.auto()
    TIMED_OUT = enum.auto()
    #: Done, and the answer lost.
    LOST = enum.auto()
    #: Done, and a time-out said.
    TIMED_OUT_AFTER = enum.auto()
    #: A time-out said, and done afterwards.
    LATE = enum.auto()
    #: Never answered, and not done.
    HANGS = enum.auto()
    DENIED = enum.auto()


_CODES = {
    Fault.ABORTED: Code.ABORTED,
    Fault.UNAVAILABLE: Code.UNAVAILABLE,
    Fault.TIMED_OUT: Code.DEADLINE_EXCEEDED,
    Fault.LOST: Code.UNAVAILABLE,
    Fault.TIMED_OUT_AFTER: Code.DEADLINE_EXCEEDED,
    Fault.LATE: Code.DEADLINE_EXCEEDED,
    Fault.HANGS: Code.DEADLINE_EXCEEDED,
    Fault.DENIED: Code.PERMISSION_DENIED,
}
#: Says what goes wrong with the next call of a method, if anything.
Faults = Callable[[str], Fault | None]


def no_faults(_method: str) -> Fault | None:
    """Everything goes well."""
    return None


def some_faults(seed: int, share: float) -> Faults:
    """A share of all calls, from 0 to 1, goes wrong in one of all ways but those that take long or last."""
    chance, lock = random.Random(seed), threading.Lock()
    faults = [fault for fault in Fault if fault not in {Fault.HANGS, Fault.DENIED}]

    def fault(_method: str) -> Fault | None:
        with lock:
            return chance.choice(faults) if chance.random() < share else None

    return fault


def these_faults(method: str, *faults: Fault | None) -> Faults:
    """The next calls of one method go wrong in these ways, one after the other; everything else goes well."""
    left = list(faults)
    lock = threading.Lock()

    def fault(called: str) -> Fault | None:
        with lock:
            return left.pop(0) if called == method and left else None

    return fault


class FirestoreDouble(grpc.GenericRpcHandler):  # type: ignore[misc]
    """The service. `faults` may be changed at any time."""

    def __init__(self, *, pessimistic: bool = False) -> None:
        self.documents = Documents(pessimistic=pessimistic)
        self.faults: Faults = no_faults
        #: Calls so far, by method.
        self.calls: Counter[str] = Counter()
        #: Called after every call, before its answer goes out.
        self.on_done: Callable[[str], None] = lambda _method: None
        self.address = ""
        self._closing = threading.Event()
        self._methods: dict[str, tuple[Callable[[Message], Any], Any, bool]] = {
            "BeginTransaction": (self._begin, types.BeginTransactionRequest, False),
            "BatchGetDocuments": (self._batch_get, types.BatchGetDocumentsRequest, True),
            "Commit": (self._commit, types.CommitRequest, False),
            "Rollback": (self._rollback, types.RollbackRequest, False),
            "RunQuery": (self._run_query, types.RunQueryRequest, True),
            "RunAggregationQuery": (self._count, types.RunAggregationQueryRequest, True),
            "ListDocuments": (self._list_documents, types.ListDocumentsRequest, False),
        }

    def names(self) -> dict[str, Stored]:
        """Every document by its path below the database."""
        with self.documents.changed:
            return {name.split("/documents/")[1]: stored for name, stored in self.documents.by_name.items()}

    def write(self, path: str, **fields: object) -> None:
        """Write a whole document, as another program would."""
        write = _pb(types.Write)()
        write.update.name = f"projects/p/databases/(default)/documents/{path}"
        for name, value in fields.items():
            kind = {bytes: "bytes_value", int: "integer_value", str: "string_value"}[type(value)]
            setattr(write.update.fields[name], kind, value)
        with self.documents.changed:
            self.documents.commit([write])

    def delete(self, path: str) -> None:
        """Delete a document, as another program would."""
        with self.documents.changed:
            self.documents.commit([_pb(types.Write)(delete=f"projects/p/databases/(default)/documents/{path}")])

    def service(self, handler_call_details: Any) -> Any:
        """Return what answers a call; None for those that the double does not have."""
        name = handler_call_details.method.rsplit("/", 1)[1]
        if name not in self._methods:
            return None
        function, request, streams = self._methods[name]

        def handle(message: Message, context: Any) -> Any:
            self.calls[name] += 1
            return self._answer(name, function, message, context)

        make = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
        return make(handle, _pb(request).FromString, lambda answer: answer.SerializeToString())

    def _answer(self, name: str, function: Callable[[Message], Any], message: Message, context: Any) -> Any:
        fault = self.faults(name)
        if fault is Fault.HANGS:
            self._closing.wait(_HANG_S)
        if fault is Fault.LATE:
            threading.Timer(0.02, self._done, (name, function, message)).start()
        if fault in {Fault.LOST, Fault.TIMED_OUT_AFTER}:
            self._done(name, function, message)
        if fault is not None:
            context.abort(_CODES[fault], f"the double was asked to: {fault.name}")
        answer = self._done(name, function, message)
        if isinstance(answer, Refused):
            context.abort(answer.code, str(answer))
        return answer

    def _done(self, name: str, function: Callable[[Message], Any], message: Message) -> Any:
        try:
            with self.documents.changed:
                answer = function(message)
        except Refused as refused:
            return refused
        self.on_done(name)
        return answer

    def _begin(self, request: Message) -> Message:
        return _pb(types.BeginTransactionResponse)(transaction=self.documents.begin(request.options))

    def _batch_get(self, request: Message) -> Iterator[Message]:
        answer, answers = _pb(types.BatchGetDocumentsResponse), []
        transaction = request.transaction
        if request.HasField("new_transaction"):
            transaction = self.documents.begin(request.new_transaction)
            answers.append(answer(transaction=transaction))
        mask = set(request.mask.field_paths) if request.HasField("mask") else None
        for name in request.documents:
            stored = self.documents.read(name, transaction)
            one = answer(missing=name) if stored is None else answer(found=_document(name, stored, mask))
            one.read_time.FromDatetime(self.documents.now())
            answers.append(one)
        return iter(answers)

    def _commit(self, request: Message) -> Message:
        when = self.documents.commit(request.writes, request.transaction)
        answer = _pb(types.CommitResponse)()
        answer.commit_time.FromDatetime(when)
        for _ in request.writes:
            answer.write_results.add().update_time.FromDatetime(when)
        return answer

    def _rollback(self, request: Message) -> Message:
        self.documents.rollback(request.transaction)
        return empty_pb2.Empty()

    def _names(self, parent: str, collection: str) -> list[str]:
        prefix = f"{parent}/{collection}/"
        return sorted(
            name for name in self.documents.by_name if name.startswith(prefix) and "/" not in name[len(prefix) :]
        )

    def _run_query(self, request: Message) -> Iterator[Message]:
        query = request.structured_query
        if query.HasField("where") or query.HasField("start_at") or query.order_by:
            raise Refused(Code.UNIMPLEMENTED, "the double queries whole collections, by name")
        names = self._names(request.parent, query.from_[0].collection_id)
        found = [(name, self.documents.read(name, request.transaction)) for name in names]
        answers = [
            _pb(types.RunQueryResponse)(document=_document(name, stored))
            for name, stored in found
            if stored is not None
        ] or [_pb(types.RunQueryResponse)()]
        for answer in answers:
            answer.read_time.FromDatetime(self.documents.now())
        return iter(answers)

    def _count(self, request: Message) -> Iterator[Message]:
        query = request.structured_aggregation_query
        names = self._names(request.parent, query.structured_query.from_[0].collection_id)
        answer = _pb(types.RunAggregationQueryResponse)()
        for aggregation in query.aggregations:
            if not aggregation.HasField("count"):
                raise Refused(Code.UNIMPLEMENTED, "the double counts")
            answer.result.aggregate_fields[aggregation.alias or "field_1"].integer_value = len(names)
        answer.read_time.FromDatetime(self.documents.now())
        return iter([answer])

    def _list_documents(self, request: Message) -> Message:
        names = self._names(request.parent, request.collection_id)
        if request.show_missing:
            prefix = f"{request.parent}/{request.collection_id}/"
            below = {prefix + n[len(prefix) :].split("/")[0] for n in self.documents.by_name if n.startswith(prefix)}
            names = sorted({*names, *below})
        names = [name for name in names if name > request.page_token]
        size = min(request.page_size or _PAGE, _PAGE)
        mask = set(request.mask.field_paths) if request.HasField("mask") else None
        answer = _pb(types.ListDocumentsResponse)(next_page_token=names[size - 1] if len(names) > size else "")
        for name in names[:size]:
            stored = self.documents.read(name)
            answer.documents.append(_pb(types.Document)(name=name) if stored is None else _document(name, stored, mask))
        return answer

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Listen on a free port of loopback."""
        server = grpc.server(futures.ThreadPoolExecutor(_THREADS), handlers=[self])
        self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        try:
            yield
        finally:
            self._closing.set()
            server.stop(grace=None).wait()


def _pb(message: Any) -> Any:
    """Protobuf's own class: the library's around it is slow."""
    return message.pb()


def _document(name: str, stored: Stored, mask: set[str] | None = None) -> Message:
    document = _pb(types.Document)(name=name)
    for field, value in stored.fields.items():
        if mask is None or field in mask:
            document.fields[field].CopyFrom(value)
    document.create_time.FromDatetime(stored.created)
    document.update_time.FromDatetime(stored.updated)
    return document


@contextmanager
def running_firestore(*, pessimistic: bool = False) -> Iterator[FirestoreDouble]:
    """Run the double in threads of this process."""
    double = FirestoreDouble(pessimistic=pessimistic)
    with double.serving():
        yield double


if __name__ == "__main__":
    with running_firestore(pessimistic="pessimistic" in sys.argv) as running:
        print(running.address, flush=True)
        threading.Event().wait()
