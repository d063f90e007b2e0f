"""Which documents of Firestore hold marks, and their fields.

- `<collection>/<chain>/<kind>/<key hash>` is Signatory's: `request` (the kind), `lvl`, `round` and `digest`. The last is
  left alone. Ours is `message_digest`, 32 bytes: Signatory writes documents whole, so it never outlives its message.
- Signatory has two kinds of attestation, one right: both documents are read, the higher one counts, and both are written.
  The names of kinds that Signatory gave up are read where the present ones have no document.
- `<collection>/enclave-host` is the store: its id, its layout, where and when it was made and by which command, who moved
  its marks away, and every chain with marks. `<collection>/enclave-host/keys/<key hash>` has the chains of one key.
- `<collection>/enclave-host/changes/<id>` tells of one mark that an operator raised or reset. It is read back while that
  command runs, and then it is a record for people: it stays, some 300 bytes for each such command.

Source: Signatory `pkg/signatory/watermark/gcp.go`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from enclave_signer.tezos import Family, TezosError, check_public_key_hash, decode
from host_backend.config.google_places import FirestorePlace
from host_backend.google.documents import Document, Field, Write
from host_backend.watermark.rule import Mark, MarkedChains, MarkKey, in_range, merged
from host_backend.watermark.signatory.layouts import KINDS, RIGHTS

#: The name of the store's document: no chain id is like it.
STORE_NAME = "enclave-host"
#: The layout above; 0 is one that is still being made.
LAYOUT = 1
_DIGEST_BYTES = 32


class DamagedMark(Exception):
    """A document that holds no mark; the text names it.

    Attributes:
        known: What the other document of the right says.
    """

    def __init__(self, text: str, known: Mark | None = None) -> None:
        super().__init__(text)
        self.known = known


@dataclass(frozen=True, slots=True)
class StoreDocument:
    """The document of the store.

    Attributes:
        store_id: Made up when the store was made.
        layout: Of which layout it is; -1 when it does not say.
        place: The name of the place where it was made: a copy elsewhere names the original.
        made_by: The command that made it.
        chains: Chains with marks.
        retired_by: The id of the move that handed its marks to another store; "" while they are here.
    """

    store_id: str
    layout: int
    place: str
    made_by: str
    chains: tuple[str, ...]
    retired_by: str

    def usable(self, place: FirestorePlace) -> bool:
        """Tell whether marks may be judged by it.

        Args:
            place: Where it was read.
        """
        return bool(self.store_id) and (self.layout, self.place, self.retired_by) == (LAYOUT, place.name, "")


class Layout:
    """The documents of one collection.

    Args:
        collection: Its name.
    """

    def __init__(self, collection: str) -> None:
        self.collection = collection
        self.store = f"{collection}/{STORE_NAME}"

    def chains_of(self, pkh: str) -> str:
        """Return the document with the chains of a key."""
        return f"{self.store}/keys/{pkh}"

    def change(self, change_id: str) -> str:
        """Return the document of one mark that an operator moved."""
        return f"{self.store}/changes/{change_id}"

    def kind(self, chain_id: str, kind: str) -> str:
        """Return the collection of one kind of request on a chain."""
        return f"{self.collection}/{chain_id}/{kind}"

    def present(self, key: MarkKey) -> list[str]:
        """Return the documents of a right."""
        return [f"{self.kind(key.chain_id, kind)}/{key.pkh}" for kind in KINDS[key.right]]

    def older(self, key: MarkKey) -> list[str]:
        """Return the documents that a right has under names that Signatory gave up."""
        kinds = [kind for kind, right in RIGHTS.items() if right is key.right and kind not in KINDS[right]]
        return [f"{self.kind(key.chain_id, kind)}/{key.pkh}" for kind in kinds]

    def writes(self, key: MarkKey, mark: Mark) -> Iterator[Write]:
        """Yield the writes for a mark."""
        for kind, path in zip(KINDS[key.right], self.present(key), strict=True):
            yield Write(
                path,
                {"request": kind, "lvl": mark.level, "round": mark.round, "message_digest": mark.digest},
            )

    def chain_writes(self, path: str, noted: tuple[str, ...], chains: Iterable[str]) -> Iterator[Write]:
        """Yield the writes that note chains with marks in a document.

        Args:
            path: The document.
            noted: Chains that stand there.
            chains: Chains that must stand there.
        """
        if new := [chain for chain in dict.fromkeys(chains) if chain not in noted]:
            yield Write(path, {"chains": (*noted, *new)})


def parse_store(document: Document | None) -> StoreDocument | None:
    """Return what the store's document says; None without one."""
    if document is None:
        return None
    layout = document.fields.get("layout")
    return StoreDocument(
        store_id=_text(document, "id"),
        layout=layout if type(layout) is int else -1,
        place=_text(document, "place"),
        made_by=_text(document, "made_by"),
        chains=texts(document, "chains"),
        retired_by=_text(document, "retired_by"),
    )


def _text(document: Document, name: str) -> str:
    value = document.fields.get(name)
    return value if isinstance(value, str) else ""


def texts(document: Document | None, name: str) -> tuple[str, ...]:
    """Return a field of texts; none of them when it is not there."""
    value = None if document is None else document.fields.get(name)
    return value if isinstance(value, tuple) else ()


def parse_mark(document: Document) -> Mark:
    """Return the mark of a document.

    Raises:
        DamagedMark: It has none.
    """
    level, round_, digest = (document.fields.get(name) for name in ("lvl", "round", "message_digest"))
    # Go leaves nothing out: a document with a missing field was not written by Signatory.
    if type(level) is not int or type(round_) is not int:
        raise DamagedMark(f"{document.path}: lvl and round must be whole numbers")
    known = isinstance(digest, bytes) and len(digest) == _DIGEST_BYTES
    mark = Mark(level, round_, digest if known and isinstance(digest, bytes) else None)
    if not in_range(mark):
        raise DamagedMark(f"{document.path}: {mark} is out of range")
    return mark


def change_fields(key: MarkKey, old: Mark | None, new: Mark) -> dict[str, Field]:
    """Return the note of a mark that an operator moved."""
    return {
        "chain_id": key.chain_id,
        "pkh": key.pkh,
        "right": key.right.value,
        "new_lvl": new.level,
        "new_round": new.round,
        "lvl": None if old is None else old.level,
        "round": None if old is None else old.round,
        "message_digest": None if old is None else old.digest,
    }


def changed_from(document: Document) -> Mark | None:
    """Return the mark that was there before a change."""
    return parse_mark(document) if "lvl" in document.fields else None


def highest(documents: Iterable[Document | None]) -> Mark | None:
    """Return the mark of a right; None without one.

    Raises:
        DamagedMark: A document of its has none.
    """
    found: Mark | None = None
    damaged: DamagedMark | None = None
    for document in documents:
        if document is None:
            continue
        try:
            found = merged(found, parse_mark(document))
        except DamagedMark as problem:
            damaged = problem
    if damaged is not None:
        raise DamagedMark(str(damaged), found)
    return found


def effective(present: Iterable[Document | None], older: Iterable[Document | None]) -> Mark | None:
    """Return the mark of a right: names that Signatory gave up count where no present one has a document.

    Raises:
        DamagedMark: A document that counts has none.
    """
    found = [document for document in present if document is not None]
    return highest(found or older)


def marked_chains(key: MarkKey, store: StoreDocument, of_key: tuple[str, ...]) -> MarkedChains:
    """Return on which chains there are marks, as far as a first mark of a key needs it."""
    others = (MarkKey(chain, "", key.right) for chain in store.chains)
    return MarkedChains([*others, *(key._replace(chain_id=chain) for chain in of_key)])


def is_chain(name: str) -> bool:
    """Tell whether a document's name is a chain id."""
    return _is(lambda: decode(name, Family.CHAIN_ID))


def is_key(name: str) -> bool:
    """Tell whether a document's name is the hash of a key."""
    return _is(lambda: check_public_key_hash(name))


def _is(check: Callable[[], object]) -> bool:
    try:
        check()
    except TezosError:
        return False
    return True
