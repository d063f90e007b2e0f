"""Attestation policies as YAML files; every error names the file, the line and the dotted path."""

import json
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any

from host_backend.attestation.policy import FORMS, MAX_ENTRIES, STABLE, SWVERSION, Policy, audience_problem, problem_of
from host_backend.attestation.token import Claims
from host_backend.errors import ConfigError
from host_backend.yaml_document import Value, load_document

#: The one kind of evidence that is known; others prove nothing here.
CONFIDENTIAL_SPACE = "confidential_space"
#: What may stand in the file for people, and has one value only: it is asked for in any case.
_FIXED: Mapping[str, str] = {
    "evidence": CONFIDENTIAL_SPACE,
    "secboot": "true",
    "dbgstat": "disabled-since-boot",
    "swname": "CONFIDENTIAL_SPACE",
}
_OTHERS = ("audience", "minimum_swversion", "minimum_tdx_date", "env_override", "cmd_override")
_HEAD = """\
# What an attested enclave must be. Everything that stands here must hold; of a list, one entry.
# Made of a token that somebody chose to trust: compare the digest with that of the image that was reviewed.
"""


def load_policy(file: Path) -> Policy:
    """Return the policy in a file.

    Raises:
        ConfigError: It cannot be read, something in it is wrong, or it would let through too much.
    """
    top = load_document(file)
    fields = top.record((*_FIXED, *FORMS, *_OTHERS))
    for name, value in _FIXED.items():
        if name in fields and fields[name].text() != value:
            fields[name].fail(f"must be {value}: nothing else proves anything")
    found: dict[str, Any] = {name: _texts(name, fields[name]) for name in FORMS if name in fields}
    readers: Mapping[str, Callable[[Value], object]] = {
        "audience": _audience,
        "minimum_swversion": _swversion,
        "minimum_tdx_date": _date,
        "env_override": _variables,
        "cmd_override": _arguments,
    }
    found.update({name: read(fields[name]) for name, read in readers.items() if name in fields})
    if "audience" not in found:
        top.fail("must name the audience that tokens are made out to")
    try:
        return Policy(**found)
    except ConfigError as error:
        top.fail(str(error))


def _texts(name: str, value: Value) -> frozenset[str]:
    items = value.items()
    if not 1 <= len(items) <= MAX_ENTRIES:
        value.fail(f"must be a list of 1 to {MAX_ENTRIES}: leave the field out to pin nothing")
    for item in items:
        if (problem := problem_of(name, item.text())) is not None:
            item.fail(problem)
    texts = frozenset(item.text() for item in items)
    if len(texts) != len(items):
        value.fail("names something twice")
    return texts


def _audience(value: Value) -> str:
    if (problem := audience_problem(value.text())) is not None:
        value.fail(problem)
    return value.text()


def _swversion(value: Value) -> int:
    if not SWVERSION.fullmatch(value.text()):
        value.fail("must be a version of the system's image, YYMMNN")
    return int(value.text())


def _date(value: Value) -> date:
    try:
        return date.fromisoformat(value.text())
    except ValueError:
        value.fail("must be a date, YYYY-MM-DD")


def _variables(value: Value) -> Mapping[str, str]:
    entries = value.mapping()
    if len(entries) > MAX_ENTRIES:
        value.fail(f"must have at most {MAX_ENTRIES} variables")
    return MappingProxyType({name: entry.text() for name, entry in entries.items()})


def _arguments(value: Value) -> tuple[str, ...]:
    items = value.items()
    if len(items) > MAX_ENTRIES:
        value.fail(f"must have at most {MAX_ENTRIES} arguments")
    return tuple(item.text() for item in items)


def policy_text(claims: Claims, audience: str | None) -> str:
    """Return the file of a policy that a token fulfils, and those of few others.

    Args:
        claims: Of a token that somebody chose to trust.
        audience: Whom tokens will be made out to; None: whom this one is made out to.

    Raises:
        ConfigError: The token does not name image, project, zone and account, or its audience cannot be used.
    """
    audience = audience or ", ".join(claims.texts("aud"))
    if (problem := audience_problem(audience)) is not None:
        raise ConfigError(f"no policy can be made for the audience {audience!r}: {problem}")
    listed: Mapping[str, list[str | None]] = {
        "image_digests": [claims.text("submods.container.image_digest")],
        "projects": [claims.text("submods.gce.project_id")],
        "service_accounts": [*claims.texts("google_service_accounts")],
        "zones": [claims.text("submods.gce.zone")],
        "hwmodel": [claims.text("hwmodel")],
    }
    for name, values in listed.items():
        for value in values:
            if (problem := problem_of(name, value)) is not None:
                raise ConfigError(f"no policy can be made of this token: {name}: {problem}")
    versions = claims.texts("swversion")
    overridden = {name: claims.at(f"submods.container.{name}") for name in ("env_override", "cmd_override")}
    fields: dict[str, object] = {
        "audience": audience,
        **{name: values for name, values in listed.items() if values},
        "support_attributes": [STABLE],
        **({"minimum_swversion": min(versions)} if versions else {}),
        **{name: value for name, value in overridden.items() if value},
    }
    return _HEAD + "".join(f"{name}: {json.dumps(value)}\n" for name, value in fields.items())
