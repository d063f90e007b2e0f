"""Cloud Storage on a real socket, as strict about conditions as the service: one bucket, over its JSON API.

`fake-gcs-server` ignores conditions of reads and deletes, and takes any checksum.

Source: the reference of the JSON API, v1, and what `google-cloud-storage` 3.17 sends.
"""

import json
import re
import threading
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.parser import BytesParser
from email.policy import HTTP
from enum import Enum
from urllib.parse import parse_qsl, unquote, urlsplit

import google_crc32c

from tests.doubles.google.http_service import Answered, Asked, http_service

BUCKET = "blobs"
#: Objects of a page: few, so that a few objects are several.
PAGE = 3


class Fault(Enum):
    """What goes wrong with a call."""

    BUSY = "429, nothing done"
    UNAVAILABLE = "503, nothing done"
    DENIED = "403"
    UNAUTHENTICATED = "401"
    LOST = "done, and the connection ends without an answer"
    TIMED_OUT_AFTER = "done, and answered 504"
    SILENT = "nothing done, no answer"
    GARBLED = "bytes of the content were altered on the way"
    SHORT = "the content was cut off"


#: From the call and the object's name to what goes wrong.
Faults = Callable[[str, str], Fault | None]
_STATUS = {Fault.BUSY: 429, Fault.UNAVAILABLE: 503, Fault.DENIED: 403, Fault.UNAUTHENTICATED: 401}


@dataclass(frozen=True)
class Stored:
    """An object at one generation."""

    data: bytes
    metadata: Mapping[str, str]
    generation: int
    created: str
    crc32c: str


def crc32c(data: bytes) -> str:
    return b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()


def these_faults(call: str, *faults: Fault) -> Faults:
    """The first calls of a kind go wrong so, all others well."""
    left = list(faults)
    return lambda asked, _name: left.pop(0) if left and asked == call else None


@dataclass
class StorageDouble:
    """A bucket. `calls` counts what was asked; `on_done` is called after every change."""

    objects: dict[str, Stored] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    faults: Faults = lambda _call, _name: None
    on_done: Callable[[str], None] = lambda _call: None
    address: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _changes: int = 0

    def put(self, name: str, data: bytes, crc: str | None = None, **metadata: str) -> None:
        """Have an object, whatever is there."""
        with self._lock:
            self._store(name, data, metadata, crc)

    def below(self, prefix: str) -> dict[str, bytes]:
        """The contents of all objects whose names begin so, by the rest of their names."""
        return {name.removeprefix(prefix): each.data for name, each in self.objects.items() if name.startswith(prefix)}

    def answer(self, asked: Asked) -> Answered | None:
        url = urlsplit(asked.path)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        path = re.fullmatch(r"(/upload|/download)?/storage/v1/b/([^/]+)/o(?:/(.+))?", url.path)
        if path is None:
            return _problem(404, "Not Found")
        kind, bucket, quoted = path.groups()
        name, call = unquote(quoted or ""), _CALLS[asked.method, kind or "", quoted is not None]
        if call == "write":
            resource, data = _parts(asked)
            name = str(resource["name"])
        fault = self.faults(call, name)
        self.calls[call] += 1
        if fault is Fault.SILENT:
            return None
        if fault in _STATUS:
            return _problem(_STATUS[fault], "as asked for")
        if bucket != BUCKET:
            return _problem(404, "The specified bucket does not exist.")
        with self._lock:
            match call:
                case "list":
                    done = self._list(query)
                case "find":
                    done = self._find(name, query)
                case "read":
                    done = self._read(name, query, fault)
                case "write":
                    done = self._write(resource, data, query)
                case _:
                    done = self._delete(name, query)
        if call in {"write", "delete"} and done.status < 400:
            self.on_done(call)
        if fault is Fault.LOST:
            return Answered(raw=b"")
        return _problem(504, "Gateway Timeout") if fault is Fault.TIMED_OUT_AFTER else done

    def _list(self, query: Mapping[str, str]) -> Answered:
        names = sorted(name for name in self.objects if name.startswith(query.get("prefix", "")))
        names = [name for name in names if name > query.get("pageToken", "")]
        page = {"items": [self._resource(name) for name in names[:PAGE]]}
        return _answer(page | ({"nextPageToken": names[PAGE - 1]} if len(names) > PAGE else {}))

    def _find(self, name: str, query: Mapping[str, str]) -> Answered:
        return self._refused(name, query, must_be=True) or _answer(self._resource(name))

    def _read(self, name: str, query: Mapping[str, str], fault: Fault | None) -> Answered:
        if refused := self._refused(name, query, must_be=True):
            return refused
        stored = self.objects[name]
        data = stored.data
        if fault is Fault.GARBLED:
            data = data[:-1] + bytes([data[-1] ^ 1])
        if fault is Fault.SHORT:
            data = data[:-1]
        headers = {"Connection": "close", "X-Goog-Hash": f"crc32c={stored.crc32c}"}
        return Answered(200, data, "application/octet-stream", headers)

    def _write(self, resource: Mapping[str, object], data: bytes, query: Mapping[str, str]) -> Answered:
        name, metadata = str(resource["name"]), resource.get("metadata") or {}
        assert isinstance(metadata, dict)
        if refused := self._refused(name, query, must_be=False):
            return refused
        if resource.get("crc32c", crc32c(data)) != crc32c(data):
            return _problem(400, "Provided CRC32C does not match calculated CRC32C.")
        self._store(name, data, metadata)
        return _answer(self._resource(name))

    def _delete(self, name: str, query: Mapping[str, str]) -> Answered:
        if refused := self._refused(name, query, must_be=True):
            return refused
        del self.objects[name]
        return Answered(204, headers={"Connection": "close"})

    def _store(self, name: str, data: bytes, metadata: Mapping[str, str], crc: str | None = None) -> None:
        self._changes += 1
        made = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(milliseconds=self._changes)
        created = made.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self.objects[name] = Stored(data, dict(metadata), 10**15 + self._changes, created, crc or crc32c(data))

    def _refused(self, name: str, query: Mapping[str, str], *, must_be: bool) -> Answered | None:
        stored = self.objects.get(name)
        wanted = query.get("ifGenerationMatch")
        if stored is None and must_be:
            return _problem(404, f"No such object: {BUCKET}/{name}")
        if wanted is not None and int(wanted) != (stored.generation if stored else 0):
            return _problem(412, "At least one of the pre-conditions you specified did not hold.")
        return None

    def _resource(self, name: str) -> dict[str, object]:
        stored = self.objects[name]
        return {
            "kind": "storage#object",
            "name": name,
            "bucket": BUCKET,
            "generation": str(stored.generation),
            "metageneration": "1",
            "size": str(len(stored.data)),
            "crc32c": stored.crc32c,
            "timeCreated": stored.created,
            "metadata": dict(stored.metadata),
        }


_CALLS = {
    ("GET", "", False): "list",
    ("GET", "", True): "find",
    ("GET", "/download", True): "read",
    ("POST", "/upload", False): "write",
    ("DELETE", "", True): "delete",
}


def _parts(asked: Asked) -> tuple[dict[str, object], bytes]:
    """The two parts of an upload: what the object is to be, and its content."""
    head = f"Content-Type: {asked.content_type}\r\n\r\n".encode()
    resource, content = BytesParser(policy=HTTP).parsebytes(head + asked.body).iter_parts()
    # The parser ends lines of content as it likes: the content itself is taken from the body.
    kind = asked.content_type or ""
    boundary = b"--" + kind.partition("boundary=")[2].strip('"').encode()
    data = asked.body.split(boundary, 2)[2].partition(b"\r\n\r\n")[2].rsplit(b"\r\n" + boundary, 1)[0]
    assert content.get_content_type() == "application/octet-stream"
    return json.loads(resource.get_content()), data


def _answer(value: object) -> Answered:
    return Answered(200, json.dumps(value).encode(), headers={"Connection": "close"})


def _problem(status: int, message: str) -> Answered:
    error = {"error": {"code": status, "message": message, "errors": [{"message": message, "reason": "x"}]}}
    return Answered(status, json.dumps(error).encode(), headers={"Connection": "close"})


@contextmanager
def running_storage() -> Iterator[StorageDouble]:
    double = StorageDouble()
    with http_service(double.answer) as (host, port):
        double.address = f"http://{host}:{port}"
        yield double
