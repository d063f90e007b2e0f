"""Every check of a token's claims, one after another; none ends because another failed.

- A claim that is missing, or of another type, matches nothing.
- `not pinned` is what no policy, or no field of it, says anything about. It is never said of what makes a machine
  confidential, nor of times.

Source: Google's reference of Confidential Space token claims; what published verifiers check, and what they forget.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date
from enum import Enum

from host_backend.attestation.policy import CONFIDENTIAL_HARDWARE, STABLE, SWVERSION, Policy
from host_backend.attestation.token import Claims, shown

ISSUER = "https://confidentialcomputing.googleapis.com"
#: Google, as the maker of the machine.
OEM_ID = 11129
#: Seconds by which clocks may differ. Source: project-oak/oak.
LEEWAY_S = 60
#: Seconds of the longest life of a token; Google's live for an hour.
MAX_LIFE_S = 86_400
#: Source: Google, *Confidential VM attestation*: the limits of both its texts, whichever is narrower.
NONCE = re.compile(r"[!-~]{10,74}")


class State(Enum):
    """What came of a check."""

    MATCHED = "matched"
    NOT_PINNED = "not pinned"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Check:
    """One check: of which claim, what came of it, and the claim in words; where refused, also what was expected."""

    claim: str
    state: State
    text: str


def check_claims(claims: Claims, policy: Policy | None, nonce: str | None, now: float) -> Iterator[Check]:
    """Yield every check of a token's claims.

    Args:
        claims: Of a token.
        policy: What they must be; None: nothing is pinned.
        nonce: What must be among the nonces; None: nothing is pinned.
        now: Seconds since 1970.
    """
    yield _equal(claims, "iss", expected=ISSUER)
    yield _audience(claims, policy)
    yield from _times(claims, now)
    yield _nonce(claims, nonce)
    yield _equal(claims, "secboot", expected=True)
    yield _equal(claims, "oemid", expected=OEM_ID)
    yield _equal(claims, "swname", expected="CONFIDENTIAL_SPACE")
    yield _equal(claims, "dbgstat", expected="disabled-since-boot")
    yield _support(claims, policy)
    yield _swversion(claims, policy)
    yield from _hardware(claims, policy)
    yield _monitoring(claims)
    yield from _container(claims, policy)
    yield from _place(claims, policy)


def _of(claim: str, value: object, expected: str, *, matches: bool) -> Check:
    said = "is missing" if value is None else shown(value)
    if matches:
        return Check(claim, State.MATCHED, said)
    return Check(claim, State.REFUSED, f"{said}, expected {expected}")


def _not_pinned(claim: str, value: object) -> Check:
    return Check(claim, State.NOT_PINNED, "is missing" if value is None else shown(value))


def _equal(claims: Claims, claim: str, *, expected: str | int) -> Check:
    value = claims.at(claim)
    # True is 1, and would equal it.
    return _of(claim, value, shown(expected), matches=type(value) is type(expected) and value == expected)


def _one_of(claim: str, value: object, texts: Collection[str], allowed: Collection[str]) -> Check:
    """Check that one of the texts in a claim is one that the policy allows, if it says anything about that claim."""
    told = ", ".join(texts) or value
    if not allowed:
        return _not_pinned(claim, told)
    return _of(claim, told, " or ".join(sorted(allowed)), matches=not set(allowed).isdisjoint(texts))


def _text_of(claims: Claims, claim: str, allowed: Collection[str]) -> Check:
    """Do the same for a claim that is one text, and no list of one."""
    text = claims.text(claim)
    return _one_of(claim, claims.at(claim), () if text is None else (text,), allowed)


def _audience(claims: Claims, policy: Policy | None) -> Check:
    if policy is None:
        return _not_pinned("aud", claims.at("aud"))
    # One that is made out to others as well can be passed on by them.
    return _of("aud", claims.at("aud"), policy.audience, matches=claims.texts("aud") == (policy.audience,))


def _times(claims: Claims, now: float) -> Iterator[Check]:
    issued, begins, ends = (claims.integer(name) for name in ("iat", "nbf", "exp"))
    past, to_come = "a time that has come", "a time that is still to come: the token has expired"
    yield _of("iat", claims.at("iat"), past, matches=issued is not None and issued <= now + LEEWAY_S)
    yield _of("nbf", claims.at("nbf"), past, matches=begins is not None and begins <= now + LEEWAY_S)
    yield _of("exp", claims.at("exp"), to_come, matches=ends is not None and now < ends + LEEWAY_S)
    if issued is not None and ends is not None:
        sane = 0 < ends - issued <= MAX_LIFE_S
        yield _of("exp - iat", ends - issued, f"a life of 1 to {MAX_LIFE_S} seconds", matches=sane)


def _nonce(claims: Claims, nonce: str | None) -> Check:
    value = claims.at("eat_nonce")
    if nonce is None:
        return _not_pinned("eat_nonce", value)
    if not NONCE.fullmatch(nonce):
        return Check(
            "eat_nonce", State.REFUSED, "the expected nonce is not valid: it must have 10 to 74 printable characters"
        )
    return _of("eat_nonce", value, f"{nonce} among them", matches=nonce in claims.texts("eat_nonce"))


def _support(claims: Claims, policy: Policy | None) -> Check:
    claim = "submods.confidential_space.support_attributes"
    expected = policy.support_attributes if policy is not None else frozenset({STABLE})
    matches = expected <= set(claims.texts(claim))
    return _of(claim, claims.at(claim), " and ".join(sorted(expected)), matches=matches)


def _swversion(claims: Claims, policy: Policy | None) -> Check:
    value, versions = claims.at("swversion"), claims.texts("swversion")
    well_formed = bool(versions) and all(SWVERSION.fullmatch(each) for each in versions)
    if not well_formed:
        return _of("swversion", value, "YYMMNN", matches=False)
    if policy is None or policy.minimum_swversion is None:
        return _not_pinned("swversion", value)
    least = policy.minimum_swversion
    return _of("swversion", value, f"at least {least:06}", matches=all(int(each) >= least for each in versions))


def _hardware(claims: Claims, policy: Policy | None) -> Iterator[Check]:
    allowed = policy.hwmodel if policy is not None else CONFIDENTIAL_HARDWARE
    model = claims.text("hwmodel")
    yield _of("hwmodel", claims.at("hwmodel"), " or ".join(sorted(allowed)), matches=model in allowed)
    if model != "GCP_INTEL_TDX":
        return
    yield _of("attester_tcb", claims.at("attester_tcb"), "INTEL", matches=claims.texts("attester_tcb") == ("INTEL",))
    yield _equal(claims, "tdx.gcp_attester_tcb_status", expected="UpToDate")
    claim = "tdx.gcp_attester_tcb_date"
    if policy is None or policy.minimum_tdx_date is None:
        yield _not_pinned(claim, claims.at(claim))
        return
    least = policy.minimum_tdx_date
    found = _date(claims.text(claim))
    yield _of(claim, claims.at(claim), f"{least} or later", matches=found is not None and found >= least)


def _date(text: str | None) -> date | None:
    try:
        return date.fromisoformat((text or "")[:10])
    except ValueError:
        return None


def _monitoring(claims: Claims) -> Check:
    """Check that the system of the machine tells its operator nothing; older images have no such claim."""
    claim = "submods.confidential_space.monitoring_enabled"
    value = claims.at(claim)
    off = isinstance(value, dict) and all(each is False for each in value.values())
    return _not_pinned(claim, None) if value is None else _of(claim, value, "false in all of them", matches=off)


def _container(claims: Claims, policy: Policy | None) -> Iterator[Check]:
    yield _text_of(claims, "submods.container.image_digest", policy.image_digests if policy else ())
    signatures = claims.at("submods.container.image_signatures")
    pinned = policy.signing_keys if policy else ()
    yield _one_of("submods.container.image_signatures", signatures, claims.signing_keys, pinned)
    # What the operator of the machine may change in an image shows here, so it counts whether or not a policy names it.
    variables = dict(policy.env_override) if policy is not None else None
    arguments = list(policy.cmd_override) if policy is not None else None
    yield _override(claims, "submods.container.env_override", variables, empty={})
    yield _override(claims, "submods.container.cmd_override", arguments, empty=[])


def _override(claims: Claims, claim: str, expected: object, *, empty: object) -> Check:
    """Check that no setting of the image was overridden, or only as expected; older tokens have null."""
    value = claims.at(claim)
    found = empty if value is None else value
    if expected is None and found != empty:
        return _not_pinned(claim, found)
    wanted = empty if expected is None else expected
    matches = type(found) is type(empty) and found == wanted
    return _of(claim, found or "none", shown(wanted) if wanted else "none", matches=matches)


def _place(claims: Claims, policy: Policy | None) -> Iterator[Check]:
    yield _text_of(claims, "submods.gce.project_id", policy.projects if policy else ())
    yield _text_of(claims, "submods.gce.zone", policy.zones if policy else ())
    claim = "google_service_accounts"
    yield _one_of(claim, claims.at(claim), claims.texts(claim), policy.service_accounts if policy else ())
