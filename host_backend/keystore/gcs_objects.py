"""The objects in which Cloud Storage holds sealed keys: their names, their metadata, and when one counts as a key.

- `keys/<hash>`: a blob.
- `together/<id>`: of keys that are stored together, whether they are: `stored`, or `abandoned`. Made once, and never
  changed; until then, none of them counts.
- `replaced/<hash>-<hash of the blob>`: a blob whose place another one took.
- `before-reseal/<UTC>`, `before-undo/<UTC>`: a copy of all keys, in the form of a key file.
"""

import base64
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b

from host_backend import strict_json
from host_backend.errors import StateConflict
from host_backend.google.objects import StoredObject
from host_backend.keystore.base import MAX_BLOB_BYTES, MAX_PKH_CHARS, Before, StoredKey, is_pkh

KEYS, TOGETHER, REPLACED = "keys/", "together/", "replaced/"
#: Metadata: the change that wrote an object; that it counts only together with others; when its key was added first, and
#: where among those that were added at that time; what was decided.
CHANGE, WITH_OTHERS, ADDED, PLACE, DECISION = "change", "together", "added", "place", "decision"
_CHANGE = re.compile(r"[0-9a-f]{16}")
_NUMBER = re.compile(r"\d{1,6}")


@dataclass(frozen=True, slots=True)
class Entry:
    """A key as it is stored, without its blob.

    Attributes:
        found: Its object.
        added: When the key was added first, by the service's clock, as a text that sorts.
        place: Its place among those that were added at that time.
    """

    found: StoredObject
    added: str
    place: int

    @property
    def pkh(self) -> str:
        """The public-key hash."""
        return self.found.name.removeprefix(KEYS)


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about keys that were to be stored together, and when."""

    stored: bool
    at: str


def key_name(pkh: str) -> str:
    """Return the name of the object of a key."""
    return f"{KEYS}{pkh}"


def replaced_name(key: StoredKey) -> str:
    """Return the name under which a blob is kept: the same for the same blob."""
    return f"{REPLACED}{key.pkh}-{blake2b(key.blob, digest_size=8).hexdigest()}"


def copies_below(before: Before) -> str:
    """Return how the names of copies of all keys begin."""
    return f"before-{before}/"


def change_of(found: StoredObject) -> str | None:
    """Return which of our changes wrote an object; None for one that others wrote."""
    change = found.metadata.get(CHANGE, "")
    return change if _CHANGE.fullmatch(change) else None


def undecided_by_itself(found: StoredObject) -> str | None:
    """Return what must have been decided for an object to count; None if it counts by itself."""
    return change_of(found) if WITH_OTHERS in found.metadata else None


def decision_in(found: StoredObject) -> Decision:
    """Return what an object of `together/` says."""
    return Decision(found.metadata.get(DECISION) == "stored", found.created)


def entry_of(found: StoredObject, decision: Decision | None) -> Entry:
    """Return a key that counts; `decision` is the one of those that were stored together."""
    place = found.metadata.get(PLACE, "")
    added = found.metadata.get(ADDED) or (decision.at if decision is not None else found.created)
    return Entry(found, added, int(place) if _NUMBER.fullmatch(place) else 0)


def problem_of(found: StoredObject) -> str | None:
    """Return why an object below `keys/` cannot be a key; None if it can."""
    if not is_pkh(found.name.removeprefix(KEYS)):
        return f"its name must have 1 to {MAX_PKH_CHARS} letters and digits"
    if not 0 < found.size <= MAX_BLOB_BYTES:
        return f"it must have 1 to {MAX_BLOB_BYTES} bytes"
    return None


def check(pkh: str, blob: bytes) -> None:
    """Raise `StateConflict` unless a key can be stored."""
    where = f"key {pkh[:MAX_PKH_CHARS]!r}"
    if not is_pkh(pkh):
        raise StateConflict(f"{where}: its hash must have 1 to {MAX_PKH_CHARS} letters and digits")
    if not 0 < len(blob) <= MAX_BLOB_BYTES:
        raise StateConflict(f"{where}: its blob must have 1 to {MAX_BLOB_BYTES} bytes")


def encode_copy(keys: Iterable[StoredKey]) -> bytes:
    """Return keys in the form of a key file."""
    entries = [
        {"public_key_hash": key.pkh, "encrypted_private_key": base64.b64encode(key.blob).decode()} for key in keys
    ]
    return json.dumps(entries).encode()


def decode_copy(where: str, data: bytes) -> tuple[StoredKey, ...]:
    """Return the keys of a copy.

    Raises:
        StateConflict: It is not well formed; the text says where.
    """
    try:
        keys = tuple(_copied(entry) for entry in _listed(strict_json.loads(data.decode())))
        for key in keys:
            check(key.pkh, key.blob)
    except StateConflict as error:
        raise StateConflict(f"{where}: {error}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise StateConflict(f"{where} is not a copy of keys in the form of a key file") from None
    return keys


def _listed(entries: object) -> list[object]:
    if not isinstance(entries, list):
        raise TypeError
    return entries


def _copied(entry: object) -> StoredKey:
    if not isinstance(entry, Mapping):
        raise TypeError
    # An error of base64 is a ValueError.
    blob = base64.b64decode(entry["encrypted_private_key"].encode(), validate=True)
    return StoredKey(str(entry["public_key_hash"]), blob)
