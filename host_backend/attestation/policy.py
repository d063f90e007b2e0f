"""What an attested enclave must be: a policy that cannot be too weak.

- It names the image (by digests, or by keys that signed it), who operates it (projects, or service accounts), and the
  audience of tokens. Without one of these three there is no policy: an image is public, and anyone can run it.
- Everything that it names must hold. Of several values of one field, one must.
- What makes a machine confidential at all is no setting: the verifier always asks for it.

Source: Google's reference of Confidential Space token claims; its launcher.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from types import MappingProxyType

from host_backend.errors import ConfigError

#: Hardware that encrypts the memory. Source: Google's token claims; GCP_SHIELDED_VM does not.
CONFIDENTIAL_HARDWARE = frozenset({"GCP_AMD_SEV", "GCP_AMD_SEV_ES", "GCP_INTEL_TDX"})
#: The support attribute that every policy asks for: debug images and those that Google gave up have none.
STABLE = "STABLE"
SUPPORT = frozenset({"LATEST", STABLE, "USABLE"})
#: A version of the system's image: YYMMNN.
SWVERSION = re.compile(r"[0-9]{6}")
#: Bytes of an audience. Source: Google, *Connect external resources*.
MAX_AUDIENCE_BYTES = 512
#: Entries of one field: a deployment has a few.
MAX_ENTRIES = 64


@dataclass(frozen=True, slots=True)
class Form:
    """How the values of a field look, as a pattern and in words."""

    pattern: re.Pattern[str]
    words: str


#: By field of `Policy`.
FORMS: Mapping[str, Form] = {
    "image_digests": Form(re.compile(r"sha256:[0-9a-f]{64}"), "sha256: and 64 hex digits"),
    "signing_keys": Form(re.compile(r"[0-9a-f]{64}"), "64 hex digits, the SHA-256 of a public key"),
    "projects": Form(re.compile(r"([a-z0-9.-]{1,60}:)?[a-z][a-z0-9-]{4,28}[a-z0-9]"), "the id of a project"),
    "service_accounts": Form(re.compile(r"[a-z0-9.-]{1,128}@[a-z0-9.-]{1,128}"), "the e-mail address of an account"),
    "zones": Form(re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*-[a-z]"), "a zone, such as europe-west4-a"),
    "hwmodel": Form(re.compile("|".join(sorted(CONFIDENTIAL_HARDWARE))), ", ".join(sorted(CONFIDENTIAL_HARDWARE))),
    "support_attributes": Form(re.compile("|".join(sorted(SUPPORT))), ", ".join(sorted(SUPPORT))),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a token must say.

    Attributes:
        audience: Whom it is made out to: a text that only this use has.
        image_digests: Manifests of images, `sha256:…`, of which it must be one.
        signing_keys: Keys, one of which must have signed the image: the SHA-256 of each in hex.
        projects: Ids of projects, in one of which the machine must run.
        service_accounts: Accounts, one of which the machine must have.
        zones: Where it must run; empty: anywhere.
        hwmodel: Models of hardware, of `CONFIDENTIAL_HARDWARE`.
        support_attributes: Support attributes that Google must give the system's image, all of them; `STABLE` always.
        minimum_swversion: Of the system's image, YYMMNN; None: any that Google supports.
        minimum_tdx_date: Of the TCB, where the hardware is Intel's; None: any that is up to date.
        env_override: Variables that the operator of the machine must have set, and no others.
        cmd_override: Arguments that it must have set.

    Raises:
        ConfigError: It would let through what it should not.
    """

    audience: str
    image_digests: frozenset[str] = frozenset()
    signing_keys: frozenset[str] = frozenset()
    projects: frozenset[str] = frozenset()
    service_accounts: frozenset[str] = frozenset()
    zones: frozenset[str] = frozenset()
    hwmodel: frozenset[str] = CONFIDENTIAL_HARDWARE
    support_attributes: frozenset[str] = frozenset({STABLE})
    minimum_swversion: int | None = None
    minimum_tdx_date: date | None = None
    env_override: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    cmd_override: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in FORMS:
            values = getattr(self, name)
            # Of a text, every part would be a member.
            if not isinstance(values, frozenset):
                raise ConfigError(f"{name} must be a frozenset")
            for value in values:
                if (problem := problem_of(name, value)) is not None:
                    raise ConfigError(f"{name}: {problem}")
        if (problem := audience_problem(self.audience)) is not None:
            raise ConfigError(f"audience: {problem}")
        if not self.image_digests and not self.signing_keys:
            raise ConfigError("name image_digests or signing_keys: without them any image passes")
        if not self.projects and not self.service_accounts:
            raise ConfigError("name projects or service_accounts: without them anyone's machine with this image passes")
        if not self.hwmodel:
            raise ConfigError("hwmodel must name at least one model")
        object.__setattr__(self, "support_attributes", self.support_attributes | {STABLE})


def problem_of(name: str, value: object) -> str | None:
    """Return the fault of a value in a field that has a form; None if it has none."""
    form = FORMS[name]
    if isinstance(value, str) and form.pattern.fullmatch(value):
        return None
    return f"{str(value)[:80]!r} must be {form.words}"


def audience_problem(audience: object) -> str | None:
    """Return why a text cannot be an audience; None if it can.

    A token for Google's own token exchange can be exchanged there by everybody who sees it, for an hour.
    """
    if not isinstance(audience, str) or not audience.strip() or not audience.isprintable():
        return "must be a text"
    if len(audience.encode()) > MAX_AUDIENCE_BYTES:
        return f"must have at most {MAX_AUDIENCE_BYTES} bytes"
    bare = audience.lower().removeprefix("https:").lstrip("/")
    if bare.split("/")[0].split(":")[0] in {"sts.googleapis.com", "iam.googleapis.com"}:
        return "tokens for Google's token exchange give access to your keys: use another text"
    return None
