"""Places in Google's cloud, and the credentials that they are asked with."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FirestorePlace:
    """A collection of a Firestore database, and what it is asked with.

    Attributes:
        project: The project's id.
        database: The database's id; `(default)` is one.
        collection: A collection at the top of it.
        credentials_file: A file with credentials.
        credentials_data: The credentials themselves, as JSON; they count before the file. With neither the machine's own
            identity is used.
    """

    project: str
    database: str
    collection: str
    credentials_file: Path | None = None
    credentials_data: str | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Which collection it is, for every host."""
        return f"{self.project}/{self.database}/{self.collection}"

    def __str__(self) -> str:
        return f"Firestore {self.name}"


@dataclass(frozen=True, slots=True)
class BucketPlace:
    """The objects of a bucket of Cloud Storage below a prefix, and what they are asked for with.

    Attributes:
        bucket: The bucket's name.
        prefix: What all names begin with; it ends with a slash.
        project: The id of the project that pays for the calls, where the bucket has its callers pay.
        credentials_file: A file with credentials.
        credentials_data: See `FirestorePlace`.
    """

    bucket: str
    prefix: str
    project: str | None = None
    credentials_file: Path | None = None
    credentials_data: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"gs://{self.bucket}/{self.prefix}"
