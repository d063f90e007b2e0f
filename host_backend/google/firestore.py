"""Firestore as the host uses it: documents read, listed and counted, and written under conditions or in transactions.

- The calls of the service are made directly. What the library puts around them retries for minutes, rolls back without a
  limit, hides an error behind the next one, and sends everything in clear to whatever `FIRESTORE_EMULATOR_HOST` names.
- No call is repeated here: whether that is right, and for how long, only the caller knows.
- A call ends within `CALL_S`, and in one of four ways: done; not done, as another writer was there (`Contended`); not done,
  as a condition did not hold (`Conflict`); or `StoreUnavailable`, of which `OutcomeUnknown` may have been done.
- Nothing that the service says of a document is believed: its type is looked at where it is used.

Source: the protobuf messages of `google.firestore.v1`.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from host_backend.config.google_places import FirestorePlace
from host_backend.errors import StoreUnavailable
from host_backend.google.documents import Document, Field, Write
from host_backend.google.outcomes import Conflict, Contended, OutcomeUnknown

if TYPE_CHECKING:
    from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcAsyncIOTransport as Transport

#: Seconds for one call: some tens of milliseconds are usual, and a lost packet must leave time for another try.
CALL_S = 2.0
#: Documents of a page: of the largest ones, 64 KiB each, a few megabytes.
PAGE = 100
#: Pages of one list: a million documents.
MAX_PAGES = 10_000
#: Bytes of one answer: a page of the largest documents, and half as much again.
MAX_ANSWER_BYTES = 10 * 1024 * 1024
#: Bytes written together; the service takes 10 MiB.
MAX_COMMIT_BYTES = 8 * 1024 * 1024


class Firestore:
    """One database. Belongs to the event loop that runs when it is made.

    Args:
        place: Where it is.
        transport: What carries its calls: the seam at which tests put their own server.
    """

    def __init__(self, place: FirestorePlace, transport: "Transport") -> None:
        from google.cloud.firestore_v1 import types  # noqa: PLC0415 -- 220 ms, for those who have it configured
        from google.cloud.firestore_v1.services.firestore import FirestoreAsyncClient  # noqa: PLC0415 -- as above

        self.place = place
        self._transport = transport
        self._client = FirestoreAsyncClient(transport=transport)
        self._types = types
        self._database = f"projects/{place.project}/databases/{place.database}"
        self._root = f"{self._database}/documents"
        # No retries: see above.
        self._how: dict[str, Any] = {
            "retry": None,
            "timeout": CALL_S,
            "metadata": [("google-cloud-resource-prefix", self._database)],
        }

    async def aclose(self) -> None:
        """End the connection."""
        await self._transport.close()  # type: ignore[no-untyped-call]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def get(self, paths: Sequence[str], fields: Sequence[str] | None = None) -> dict[str, Document | None]:
        """Return documents by path; None for one that is not there.

        Args:
            paths: At least one.
            fields: Which fields are read; None for all.
        """
        return await self._get(paths, fields=fields)

    async def begin(self, retried: bytes = b"") -> bytes:
        """Begin a transaction and return its id.

        It could begin with what it reads first, in one call less. But if that answer were lost, its locks would stay for
        a minute, as the transaction to end is not known.

        Args:
            retried: An attempt that was aborted: it keeps its place among those that wait.
        """
        request = self._types.BeginTransactionRequest.pb()(database=self._database)
        request.options.read_write.retry_transaction = retried
        with self._translating("read"):
            answer = await self._client.begin_transaction(
                self._types.BeginTransactionRequest.wrap(request), **self._how
            )
        # Without an id the calls that follow would be outside of any transaction.
        if not answer.transaction:
            raise OutcomeUnknown(f"{self.place}: the answer was cut short")
        return bytes(answer.transaction)

    async def get_in(self, transaction: bytes, paths: Sequence[str]) -> dict[str, Document | None]:
        """Return documents in a transaction; see `get`."""
        return await self._get(paths, transaction=transaction)

    async def _get(
        self, paths: Sequence[str], fields: Sequence[str] | None = None, transaction: bytes = b""
    ) -> dict[str, Document | None]:
        types = self._types
        request = types.BatchGetDocumentsRequest.pb()(
            database=self._database, documents=[f"{self._root}/{path}" for path in paths]
        )
        if transaction:
            request.transaction = transaction
        if fields is not None:
            request.mask.field_paths.extend(fields)
        documents: dict[str, Document | None] = {}
        with self._translating("read"):
            wrapped = types.BatchGetDocumentsRequest.wrap(request)
            async for answer in await self._client.batch_get_documents(wrapped, **self._how):
                one = types.BatchGetDocumentsResponse.pb(answer)
                if one.missing:
                    documents[self._path(one.missing)] = None
                elif one.HasField("found"):
                    documents[self._path(one.found.name)] = self._document(one.found)
        if set(documents) != set(paths):
            raise OutcomeUnknown(f"{self.place}: the answer was cut short")
        return documents

    async def commit(self, writes: Iterable[Write], transaction: bytes = b"") -> None:
        """Write documents durably, all or none of them.

        Args:
            writes: At most `MAX_COMMIT_BYTES` together.
            transaction: What was read in it must be unchanged; it is over afterwards, whatever becomes of it.

        Raises:
            Contended: What was read was changed meanwhile.
            Conflict: A document was not as a write has it.
            StoreUnavailable: Not known to be done.
        """
        request = self._types.CommitRequest.pb()(
            database=self._database, writes=map(self._write, writes), transaction=transaction
        )
        with self._translating("written"):
            await self._client.commit(self._types.CommitRequest.wrap(request), **self._how)

    async def roll_back(self, transaction: bytes) -> None:
        """End a transaction in which nothing is to be written."""
        request = self._types.RollbackRequest(database=self._database, transaction=transaction)
        with self._translating("read"):
            await self._client.rollback(request, **self._how)

    async def list(self, collection: str, fields: Sequence[str] = ()) -> AsyncIterator[Document]:
        """Yield every document of a collection, page by page, in the order of their ids.

        Documents that are not there, and have others below them, come without fields, and were never created.

        Args:
            collection: Its path.
            fields: Which fields are read; none for all.
        """
        parent, _, name = f"{self._root}/{collection}".rpartition("/")
        request = self._types.ListDocumentsRequest(parent=parent, collection_id=name, page_size=PAGE, show_missing=True)
        if fields:
            request.mask.field_paths.extend(fields)
        for _ in range(MAX_PAGES):
            with self._translating("read"):
                pager = await self._client.list_documents(request, **self._how)
            # The first page alone: the pager would fetch the others one after the other, outside of our errors.
            page = self._types.ListDocumentsResponse.pb(await anext(aiter(pager.pages)))
            for document in page.documents:
                yield self._document(document)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token
        raise StoreUnavailable(f"{self.place}: {collection} has more than {MAX_PAGES * PAGE} documents")

    async def count(self, collection: str) -> int:
        """Return how many documents a collection has."""
        parent, _, name = f"{self._root}/{collection}".rpartition("/")
        request = self._types.RunAggregationQueryRequest.pb()(parent=parent)
        query = request.structured_aggregation_query
        query.structured_query.from_.add(collection_id=name)
        query.aggregations.add(alias="count").count.SetInParent()
        found: int | None = None
        with self._translating("counted"):
            wrapped = self._types.RunAggregationQueryRequest.wrap(request)
            async for answer in await self._client.run_aggregation_query(wrapped, **self._how):
                one = self._types.RunAggregationQueryResponse.pb(answer)
                if "count" in one.result.aggregate_fields:
                    found = one.result.aggregate_fields["count"].integer_value
        if found is None:
            raise OutcomeUnknown(f"{self.place}: the answer was cut short")
        return found

    def _path(self, name: str) -> str:
        return name.removeprefix(f"{self._root}/")

    def _document(self, found: Any) -> Document:
        created = found.create_time
        return Document(
            self._path(found.name),
            {name: _field(value) for name, value in found.fields.items()},
            f"{created.seconds:020}.{created.nanos:09}" if found.HasField("create_time") else "",
            (found.update_time.seconds, found.update_time.nanos),
        )

    def _write(self, write: Write) -> Any:
        message = self._types.Write.pb()()
        message.update.name = f"{self._root}/{write.path}"
        for name, value in write.fields.items():
            message.update_mask.field_paths.append(name)
            if value is not None:
                _set(message.update.fields[name], value)
        if write.time_field is not None:
            transform = message.update_transforms.add(field_path=write.time_field)
            transform.set_to_server_value = self._types.DocumentTransform.FieldTransform.ServerValue.REQUEST_TIME
        if write.absent:
            message.current_document.exists = False
        elif write.version is not None:
            message.current_document.update_time.seconds, message.current_document.update_time.nanos = write.version
        return message

    @contextmanager
    def _translating(self, what: str) -> Iterator[None]:
        from google.api_core import exceptions as answers  # noqa: PLC0415 -- as above
        from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415 -- as above

        try:
            yield
        except answers.Aborted as error:
            raise Contended(f"{self.place}: others are writing the same documents") from error
        except (answers.AlreadyExists, answers.FailedPrecondition) as error:
            raise Conflict(f"{self.place}: {error.message}") from error
        except (answers.Forbidden, answers.Unauthorized) as error:
            raise StoreUnavailable(
                f"{self.place} may not be {what}: {error.message}: grant this host's identity roles/datastore.user in "
                f"project {self.place.project}, and see that its credentials are good"
            ) from error
        except answers.NotFound as error:
            raise StoreUnavailable(
                f"{self.place}: {error.message}: correct project and database, or make one (`gcloud firestore databases create`)"
            ) from error
        except answers.ResourceExhausted as error:
            if "larger than max" in error.message:
                # The library's word for its own limit, by the status that the service has for quotas.
                raise StoreUnavailable(f"{self.place}: an answer is over its limit: {error.message}") from error
            raise StoreUnavailable(f"{self.place}: {error.message}: look at the quotas of the project") from error
        except (answers.GoogleAPICallError, answers.RetryError) as error:
            raise OutcomeUnknown(f"{self.place} could not be {what}: {error.message}: retry later") from error
        except GoogleAuthError as error:
            raise StoreUnavailable(f"{self.place}: no access token: {error}") from error


def _field(value: Any) -> Field:
    match value.WhichOneof("value_type"):
        case "integer_value":
            return int(value.integer_value)
        case "string_value":
            return str(value.string_value)
        case "bytes_value":
            return bytes(value.bytes_value)
        case "boolean_value":
            return bool(value.boolean_value)
        case "array_value":
            texts = [one.string_value for one in value.array_value.values]
            return tuple(texts) if all(texts) else None
    return None


def _set(message: Any, value: Field) -> None:
    match value:
        case bool():
            message.boolean_value = value
        case int():
            message.integer_value = value
        case str():
            message.string_value = value
        case bytes():
            message.bytes_value = value
        case tuple():
            message.array_value.SetInParent()
            for text in value:
                message.array_value.values.add(string_value=text)
