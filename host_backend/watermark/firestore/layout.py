"""Which documents of Firestore hold marks, and what is in them.

- `<collection>/<chain>/<kind>/<key hash>` is Signatory's: `request` (the kind), `lvl`, `round` and `digest`. The last is
  left alone. Ours is `message_digest`, 32 bytes: Signatory writes documents whole, so it never outlives its message.
- Signatory has two kinds of attestation, one right: both documents are read, the higher one counts, and both are written.
  The names of kinds that Signatory gave up are read where the present ones have no document.
- `<collection>/enclave-host` is the store: its id, its layout, when it was made, and every chain with marks.
  `<collection>/enclave-host/keys/<key hash>` has the chains of one key.

Source: Signatory `pkg/signatory/watermark/gcp.go`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from enclave_signer.tezos import Family, TezosError, check_public_key_hash, decode
from host_backend.google.documents import Document, Write
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
        layout: Of which layout it is.
        chains: Chains with marks.
        retired: Whether its marks were handed to another store.
    """

    store_id: str
    layout: int
    chains: tuple[str, ...]
    retired: bool

    @property
    def usable(self) -> bool:
        """Whether marks may be judged by it."""
        return self.layout == LAYOUT and not self.retired


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
        """Yield what is written for a mark."""
        for kind, path in zip(KINDS[key.right], self.present(key), strict=True):
            yield Write(
                path,
                {"request": kind, "lvl": mark.level, "round": mark.round, "message_digest": mark.digest},
            )

    def chain_writes(self, path: str, noted: tuple[str, ...], chains: Iterable[str]) -> Iterator[Write]:
        """Yield what is written to note chains with marks in a document.

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
    store_id, layout = document.fields.get("id"), document.fields.get("layout")
    return StoreDocument(
        store_id if isinstance(store_id, str) else "",
        layout if type(layout) is int else -1,
        texts(document, "chains"),
        document.fields.get("retired") is True,
    )


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
    # Go leaves nothing out: what is not there was not written by Signatory.
    if type(level) is not int or type(round_) is not int:
        raise DamagedMark(f"{document.path}: lvl and round must be whole numbers")
    known = isinstance(digest, bytes) and len(digest) == _DIGEST_BYTES
    mark = Mark(level, round_, digest if known and isinstance(digest, bytes) else None)
    if not in_range(mark):
        raise DamagedMark(f"{document.path}: {mark} is out of range")
    return mark


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
