"""Where a collection of Firestore is, in a vault's `storage` and in `watermark`: Signatory's names for both.

Source: Signatory's `pkg/vault/confidentialspace/gcp_storage.go` and `pkg/signatory/watermark/gcp.go`; its manual calls the
collection `table`.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from host_backend.config.addresses import expanded
from host_backend.config.google_places import FirestorePlace
from host_backend.yaml_document import Value

FIELDS = ("project", "database", "collection", "table", "application_credentials", "application_credentials_data")
DEFAULT_DATABASE = "(default)"

#: What Google allows, and nothing that would lead elsewhere in a path.
PROJECT = re.compile(r"[a-z0-9][a-z0-9.:-]{0,99}")
_DATABASE = re.compile(r"\(default\)|[a-z0-9-]{1,63}")
_COLLECTION = re.compile(r"(?!__)[A-Za-z0-9_-]{1,256}")


def parse_place(value: Value, fields: Mapping[str, Value], collection: str, warnings: list[str]) -> FirestorePlace:
    """Return where a collection is.

    Args:
        value: What the fields are below, or what should have them.
        fields: Those of `FIELDS` that are there, and others.
        collection: Its name where none is given.
        warnings: Gets what means less than it seems.

    Raises:
        ConfigError: With file, line and dotted path of each fault.
    """
    if "project" not in fields:
        value.fail("must name the Google Cloud `project`")
    names = [fields[name] for name in ("collection", "table") if name in fields and not fields[name].is_empty]
    if len(names) > 1:
        names[1].fail("is another word for `collection`, which is there: remove one of them")
    if names and "collection" not in fields:
        warnings.append(f"{names[0].path}: Signatory does not read it and uses {collection}: write `collection`")
    file, data = parse_credentials(fields)
    return FirestorePlace(
        project=matching(fields["project"], PROJECT, "the id of a project"),
        database=_database(fields.get("database")),
        collection=matching(names[0], _COLLECTION, "the name of a collection at the top") if names else collection,
        credentials_file=file,
        credentials_data=data,
    )


def parse_credentials(fields: Mapping[str, Value]) -> tuple[Path | None, str | None]:
    """Return the file with credentials and the credentials themselves, each None where it is not given."""
    file, data = fields.get("application_credentials"), fields.get("application_credentials_data")
    return (
        None if file is None or file.is_empty else Path(expanded(file)),
        None if data is None or data.is_empty else data.lines(),
    )


def _database(value: Value | None) -> str:
    if value is None or value.is_empty:
        return DEFAULT_DATABASE
    return matching(value, _DATABASE, "the id of a database")


def matching(value: Value, pattern: re.Pattern[str], what: str) -> str:
    """Return a field's text, which must match a pattern, or fail with what it must be."""
    text = value.text()
    if not pattern.fullmatch(text):
        value.fail(f"must be {what}")
    return text
