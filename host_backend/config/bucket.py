"""Where a bucket of Cloud Storage is, in a vault's `storage`: the fields are our own, as Signatory has no such storage."""

import re
from collections.abc import Mapping

from host_backend.config.firestore import PROJECT, matching, parse_credentials
from host_backend.config.google_places import BucketPlace
from host_backend.yaml_document import Value, given

FIELDS = ("bucket", "prefix", "project", "application_credentials", "application_credentials_data")
DEFAULT_PREFIX = "enclave-host/"

#: What Google allows. Source: Cloud Storage, "Bucket naming guidelines".
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
#: A part of names that means itself in every tool.
_PART = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+"
#: Far below the 1024 bytes of a name, which goes on after it.
_PREFIX = re.compile(rf"(?=.{{1,200}}$){_PART}(?:/{_PART})*/?")


def parse_bucket(value: Value, fields: Mapping[str, Value]) -> BucketPlace:
    """Return where a bucket is.

    Args:
        value: What the fields are below, or what should have them.
        fields: Those of `FIELDS` that are there.

    Raises:
        ConfigError: With file, line and dotted path of each fault.
    """
    if "bucket" not in fields:
        value.fail("must name the `bucket` of Cloud Storage")
    prefix, project = given(fields, "prefix"), given(fields, "project")
    file, data = parse_credentials(fields)
    begin = (
        DEFAULT_PREFIX if prefix is None else matching(prefix, _PREFIX, "words of letters and digits between slashes")
    )
    return BucketPlace(
        bucket=matching(fields["bucket"], _BUCKET, "the name of a bucket"),
        prefix=begin.rstrip("/") + "/",
        project=None if project is None else matching(project, PROJECT, "the id of a project"),
        credentials_file=file,
        credentials_data=data,
    )
