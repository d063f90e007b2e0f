"""Cloud Storage as the host uses it: objects listed, found, read, and written or deleted under conditions.

- Every change names the generation that it takes the place of, 0 where nothing may be: of all who try, one does it.
- No call is repeated here: whether that is right, and for how long, only the caller knows.
- A call ends within `LIMIT_S`, and in one of four ways: done; not done, as a condition did not hold (`Conflict`); read, and
  not what was stored (`Altered`); or `StoreUnavailable`, of which `OutcomeUnknown` may have been done, now or later.
- The library's calls block, so they are made in threads of this bucket's own.

Source: the JSON API of Cloud Storage, v1; `google-cloud-storage` 3.
"""

import asyncio
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from host_backend.config.google_places import BucketPlace
from host_backend.errors import StateConflict, StoreUnavailable
from host_backend.google.call_limits import LimitedCall
from host_backend.google.objects import StoredObject
from host_backend.google.outcomes import Conflict, OutcomeUnknown

if TYPE_CHECKING:
    from google.cloud.storage import Client

#: Seconds without a byte from the service: some tens of milliseconds are usual.
CALL_S = 5.0
#: Seconds for one call, a list of many pages or an upload of all keys included.
LIMIT_S = 60.0
#: Calls at once: the library keeps ten connections.
CALLS = 8
#: Objects of one list: of ten thousand keys twice as many, in some twenty pages.
MAX_OBJECTS = 20_000
#: Bytes of one answer: a page of a thousand objects, whose names have 1 KiB and metadata 8 KiB at most.
MAX_ANSWER_BYTES = 16 * 1024 * 1024
#: Bytes of an answer to a read beside the object's own: an error has some hundreds.
_MAX_ERROR_BYTES = 65536
#: Longest text of the service that is repeated in an error, in characters.
_MAX_SAID_CHARS = 300
_FIELDS = "items(name,generation,size,crc32c,timeCreated,metadata),nextPageToken"

T = TypeVar("T")


class Altered(StoreUnavailable):
    """What was read is not what the service says is stored; read it again."""


class Bucket:
    """The objects of a bucket whose names begin with a prefix.

    Args:
        place: Which bucket, and which prefix.
        client: What makes the calls within their limits, as of `buckets.client_at`; closed with this.
    """

    def __init__(self, place: BucketPlace, client: "Client") -> None:
        self.place = place
        self._client = client
        self._bucket = client.bucket(place.bucket, user_project=place.project)
        self._pool = ThreadPoolExecutor(CALLS, "cloud-storage")
        self._under_way: set[LimitedCall] = set()

    async def aclose(self) -> None:
        """End all connections, and the calls that have no answer yet."""
        for call in self._under_way:
            call.end()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    async def list(self, below: str) -> tuple[StoredObject, ...]:
        """Return every object whose name begins so, in the order of names."""
        return await self._call("listed", partial(self._list, below))

    async def find(self, name: str) -> StoredObject | None:
        """Return an object without its content; None if there is none."""
        return await self._call("read", partial(self._find, name))

    async def read(self, found: StoredObject) -> bytes:
        """Return the content of an object.

        Raises:
            Conflict: It was changed or deleted meanwhile.
            Altered: The content that came differs from the stored one.
        """
        data = await self._call("read", partial(self._read, found), found.size + _MAX_ERROR_BYTES)
        if len(data) != found.size or _crc32c(data) != found.crc32c:
            raise Altered(f"{self.place}{found.name}: what was read has not the size and checksum of the object")
        return data

    async def write(self, name: str, data: bytes, metadata: Mapping[str, str], generation: int = 0) -> None:
        """Store an object durably.

        Args:
            name: Below the prefix.
            data: Its content.
            metadata: Its texts.
            generation: The one that is there; 0 if there must be none.

        Raises:
            Conflict: There is another one.
        """
        await self._call("written", partial(self._write, name, data, metadata, generation))

    async def delete(self, found: StoredObject) -> None:
        """Delete an object.

        Raises:
            Conflict: It was changed or deleted meanwhile.
        """
        await self._call("deleted", partial(self._delete, found))

    async def _call(self, what: str, work: Callable[[Mapping[str, Any]], T], most_bytes: int | None = None) -> T:
        call = LimitedCall(most_bytes or MAX_ANSWER_BYTES)

        def make() -> T:
            with call.under_way(), self._translating(what):
                # No retries: see above.
                return work({"retry": None, "timeout": CALL_S})

        self._under_way.add(call)
        try:
            async with asyncio.timeout(LIMIT_S):
                return await asyncio.get_running_loop().run_in_executor(self._pool, make)
        except TimeoutError as error:
            raise OutcomeUnknown(f"{self.place} could not be {what} within {LIMIT_S} s: retry later") from error
        finally:
            # Its thread is free for the next one.
            call.end()
            self._under_way.discard(call)

    def _list(self, below: str, how: Mapping[str, Any]) -> tuple[StoredObject, ...]:
        found: list[StoredObject] = []
        for blob in self._client.list_blobs(self._bucket, prefix=self.place.prefix + below, fields=_FIELDS, **how):
            if len(found) == MAX_OBJECTS:
                raise StateConflict(f"{self.place}{below} has more than {MAX_OBJECTS} objects: use a second vault")
            found.append(self._object(blob))
        return tuple(found)

    def _find(self, name: str, how: Mapping[str, Any]) -> StoredObject | None:
        blob = self._bucket.get_blob(self.place.prefix + name, **how)
        return None if blob is None else self._object(blob)

    def _read(self, found: StoredObject, how: Mapping[str, Any]) -> bytes:
        from google.api_core.exceptions import NotFound  # noqa: PLC0415 -- for those who have it configured

        try:
            # Its checksum is compared with the one that was found, by `read`.
            return bytes(
                self._blob(found.name).download_as_bytes(
                    if_generation_match=found.generation, end=found.size, checksum=None, **how
                )
            )
        except NotFound as error:
            raise Conflict(f"{self.place}{found.name} was deleted meanwhile") from error

    def _write(
        self, name: str, data: bytes, metadata: Mapping[str, str], generation: int, how: Mapping[str, Any]
    ) -> None:
        blob = self._blob(name)
        blob.metadata = {**metadata}
        blob.upload_from_string(
            data, "application/octet-stream", if_generation_match=generation, checksum="crc32c", **how
        )

    def _delete(self, found: StoredObject, how: Mapping[str, Any]) -> None:
        from google.api_core.exceptions import NotFound  # noqa: PLC0415 -- as above

        try:
            self._blob(found.name).delete(if_generation_match=found.generation, **how)
        except NotFound as error:
            raise Conflict(f"{self.place}{found.name} was deleted meanwhile") from error

    def _blob(self, name: str) -> Any:
        return self._bucket.blob(self.place.prefix + name)

    def _object(self, blob: Any) -> StoredObject:
        if not blob.generation or blob.size is None or blob.time_created is None:
            raise OutcomeUnknown(f"{self.place}: the answer was cut short")
        return StoredObject(
            name=blob.name.removeprefix(self.place.prefix),
            generation=int(blob.generation),
            size=int(blob.size),
            crc32c=str(blob.crc32c),
            created=blob.time_created.isoformat(timespec="microseconds"),
            metadata={str(name): str(text) for name, text in (blob.metadata or {}).items()},
        )

    @contextmanager
    def _translating(self, what: str) -> Iterator[None]:
        from google.api_core import exceptions as answers  # noqa: PLC0415 -- as above
        from google.auth.exceptions import GoogleAuthError, TransportError  # noqa: PLC0415 -- as above
        from requests.exceptions import RequestException  # noqa: PLC0415 -- as above

        try:
            yield
        except answers.PreconditionFailed as error:
            raise Conflict(f"{self.place}: others are writing the same objects") from error
        except (answers.Forbidden, answers.Unauthorized) as error:
            raise StoreUnavailable(
                f"{self.place} may not be {what}: {_said(error)}: grant this host's identity roles/storage.objectUser on "
                f"bucket {self.place.bucket}, and see that its credentials are good"
            ) from error
        except answers.NotFound as error:
            raise StoreUnavailable(
                f"{self.place}: {_said(error)}: correct `bucket`, or make it (`gcloud storage buckets create`)"
            ) from error
        except (answers.GoogleAPICallError, RequestException, TransportError, ConnectionError) as error:
            raise OutcomeUnknown(f"{self.place} could not be {what}: {_said(error)}: retry later") from error
        except GoogleAuthError as error:
            raise StoreUnavailable(f"{self.place}: no access token: {_said(error)}") from error


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= _MAX_SAID_CHARS else f"{text[:_MAX_SAID_CHARS]}…"


def _crc32c(data: bytes) -> str:
    import google_crc32c  # noqa: PLC0415 -- as above

    return b64encode(int(google_crc32c.value(data)).to_bytes(4, "big")).decode()
