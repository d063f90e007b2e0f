"""Names of Google Cloud's keys and identities, as they stand in configuration and requests. Source: Google's AIP-122."""

import re

#: A key of Cloud KMS, never one of its versions: a blob opens under any of them.
_KEY = re.compile(
    r"projects/[a-z0-9.:-]{1,100}/locations/[a-z0-9-]{1,63}/keyRings/[A-Za-z0-9_-]{1,63}/cryptoKeys/[A-Za-z0-9_-]{1,63}"
)
#: A provider of a workload identity pool. The project is a number there, not its name.
_PROVIDER = re.compile(
    r"projects/[0-9]{1,20}/locations/global/workloadIdentityPools/[a-z0-9-]{1,63}/providers/[a-z0-9-]{1,63}"
)
#: How names of keys may go on behind a `/`; a prefix of all projects would allow any key.
_RESTS = tuple("locations/l/keyRings/r/cryptoKeys/k".split("/", cut)[-1] for cut in range(6))
#: How audiences begin that Google exchanges tokens for: such a token is this image's identity, and not for others.
_EXCHANGED = ("https://sts.google", "https://iam.googleapis.com/", "//iam.googleapis.com/")
KEY_FORM = "projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY"
PROVIDER_FORM = "projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER"


def is_key(name: str) -> bool:
    """Whether this is the whole name of a key of Cloud KMS."""
    return _KEY.fullmatch(name) is not None


def is_key_prefix(prefix: str) -> bool:
    """Whether names of keys may begin so, up to a `/`: those of a project, a location or a key ring."""
    return prefix.endswith("/") and any(is_key(prefix + rest) for rest in _RESTS)


def is_identity_provider(name: str) -> bool:
    """Whether this is the whole name of a provider of a workload identity pool."""
    return _PROVIDER.fullmatch(name) is not None


def is_exchanged(audience: str) -> bool:
    """Whether Google takes tokens that are made out so for this image's identity."""
    return audience.startswith(_EXCHANGED)


def principal(identity_provider: str, image_digest: str | None) -> str:
    """Return what IAM grants a key to: all that runs this image; all of the pool, where the image is not known."""
    pool = identity_provider.rpartition("/providers/")[0]
    who = "*" if image_digest is None else f"attribute.image_digest/{image_digest}"
    return f"principalSet://iam.googleapis.com/{pool}/{who}"
