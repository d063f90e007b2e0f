"""Our own client, led to the double: what tests compose in place of `host_backend.google.connecting`."""

from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from enclave_signer.tezos import Right
from host_backend.config.google_places import FirestorePlace
from host_backend.google.firestore import Firestore
from host_backend.watermark.firestore.moving import WholeStore
from host_backend.watermark.rule import Mark, MarkKey, merged
from tests.doubles.google.firestore import FirestoreDouble

if TYPE_CHECKING:
    from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcAsyncIOTransport as Transport


def transport_to(address: str) -> "Transport":
    """What carries calls to a server on loopback, in clear and without credentials."""
    from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcAsyncIOTransport as Transport

    return Transport(channel=grpc.aio.insecure_channel(address))


def place(collection: str = "watermark", *, project: str = "p", database: str = "(default)") -> FirestorePlace:
    """A collection of the database that the double has."""
    return FirestorePlace(project, database, collection)


def connected(
    address: str, collection: str = "watermark", *, project: str = "p", database: str = "(default)"
) -> Firestore:
    """A database of the double."""
    return Firestore(place(collection, project=project, database=database), transport_to(address))


def marks_in(double: FirestoreDouble, base_dir: Path, collection: str = "watermark") -> WholeStore:
    """What looks after the marks of a folder, in the double."""

    async def connect(place: FirestorePlace) -> Firestore:
        return Firestore(place, transport_to(double.address))

    return WholeStore(base_dir, place(collection), connect)


def signatory_marks(double: FirestoreDouble, collection: str = "watermark") -> dict[MarkKey, Mark]:
    """What Signatory would go by, with our digests; both kinds of attestation must be alike."""
    found: dict[tuple[str, str, str], Mark] = {}
    for path, stored in double.names().items():
        match path.split("/"):
            case [within, chain, kind, pkh] if within == collection and chain != "enclave-host":
                values = stored.fields
                assert values["request"].string_value == kind
                digest = values["message_digest"].bytes_value if "message_digest" in values else None
                found[chain, pkh, kind] = Mark(values["lvl"].integer_value, values["round"].integer_value, digest)
    marks: dict[MarkKey, Mark] = {}
    for (chain, pkh, kind), mark in found.items():
        right = Right(kind.removesuffix("_with_dal"))
        key = MarkKey(chain, pkh, right)
        assert marks.setdefault(key, mark) == merged(marks[key], mark) == mark
    assert {(*each[:2], "attestation_with_dal") for each in found if each[2] == "attestation"} <= found.keys()
    return marks
