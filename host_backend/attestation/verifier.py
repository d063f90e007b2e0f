"""Tokens of Confidential Space: what they prove, or why they prove nothing.

- `verify` returns claims that were proven and belong to a nonce of the caller, or raises. There is no boolean to forget,
  and nothing to switch off.
- `verify_unbound` does without a nonce, as for a token that somebody sent: what it returns is of another type, and says
  nothing about who presented the token, or when.
- `examine` is for showing: it decides nothing.

Pure, and usable as a library by others than this host: it needs neither network nor files. `docs/attestation.md` has an
example. Source: Google's reference of Confidential Space token claims.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from host_backend.attestation.checks import Check, State, check_claims
from host_backend.attestation.policy import Policy
from host_backend.attestation.token import Claims, NoToken, read_token
from host_backend.attestation.trust import PinnedRoot, Trust, TrustedKeys, Untrusted, check_signature
from host_backend.errors import AttestationRefused

__all__ = [
    "AttestationRefused",
    "Check",
    "Evidence",
    "PinnedRoot",
    "Report",
    "State",
    "Trust",
    "TrustedKeys",
    "UnboundClaims",
    "VerifiedClaims",
    "examine",
    "verify",
    "verify_unbound",
]

#: In place of None, which must not mean that no nonce is asked for: it equals none.
_NO_NONCE = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a token that was checked says.

    Attributes:
        expires_at: Seconds since 1970 at which it ends.
        issued_at: Seconds since 1970 at which Google made it.
        nonces: All that are in it.
        hwmodel: The hardware.
        swversion: Of the system's image, YYMMNN.
        image_digest: Of the manifest of the container's image; None where the policy goes by signing keys and Google
            gives none.
        image_reference: As the operator of the machine wrote it; a tag in it proves nothing.
        signing_keys: SHA-256 in hex of the keys that signed the image.
        project_id, zone, instance_name, instance_id: Where it runs; None where Google gives none.
        service_accounts: Of the machine.
        claims: All of it, as Google signed it.
        checks: What was compared.
    """

    expires_at: float
    issued_at: float
    nonces: tuple[str, ...]
    hwmodel: str
    swversion: str
    image_digest: str | None
    image_reference: str | None
    signing_keys: tuple[str, ...]
    project_id: str | None
    zone: str | None
    instance_name: str | None
    instance_id: str | None
    service_accounts: tuple[str, ...]
    claims: Mapping[str, object] = field(repr=False)
    checks: tuple[Check, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedClaims(Evidence):
    """Proven, and made for the nonce that was expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnboundClaims(Evidence):
    """Proven, and of unknown age and origin within the token's life: not bound to a connection."""


E = TypeVar("E", bound=Evidence)


@dataclass(frozen=True, slots=True)
class Report:
    """Every check of a token, for people; `claims` is None where there were none to read."""

    checks: tuple[Check, ...]
    claims: Claims | None

    @property
    def refusals(self) -> tuple[str, ...]:
        """What was refused, and why."""
        return tuple(f"{check.claim}: {check.text}" for check in self.checks if check.state is State.REFUSED)


def verify(token: str, *, trust: Trust, policy: Policy, nonce: str, now: float) -> VerifiedClaims:
    """Return what a token proves about the enclave that was asked with this nonce.

    Args:
        token: A compact JSON web token.
        trust: Google's keys, or the pinned root.
        policy: What the enclave must be.
        nonce: What the caller made for this token alone, or a hash over such: 10 to 74 printable characters.
        now: Seconds since 1970.

    Raises:
        AttestationRefused: It proves something else, or nothing; its reasons name every mismatch.
    """
    return _proven(VerifiedClaims, token, trust, policy, nonce or _NO_NONCE, now)


def verify_unbound(token: str, *, trust: Trust, policy: Policy, now: float) -> UnboundClaims:
    """Return what a token proves about some enclave, to be asked about a token that came without a conversation.

    Raises:
        AttestationRefused: As `verify`, but for the nonce.
    """
    return _proven(UnboundClaims, token, trust, policy, None, now)


def examine(token: str, *, trust: Trust, policy: Policy | None, nonce: str | None, now: float) -> Report:
    """Return every check of a token, for showing it; for decisions there are `verify` and `verify_unbound`.

    Args:
        token: What may be a token.
        trust: Whose signature counts.
        policy: What it must say; None: nothing is pinned but what makes a machine confidential.
        nonce: As for `verify`; None: not pinned.
        now: Seconds since 1970.
    """
    try:
        header, claims = read_token(token)
    except NoToken as error:
        return Report((Check("token", State.REFUSED, str(error)),), None)
    try:
        check_signature(token, header, trust, now)
    except Untrusted as error:
        signature = Check("signature", State.REFUSED, str(error))
    else:
        signature = Check("signature", State.MATCHED, "by Google, as far as these keys are Google's")
    return Report((signature, *check_claims(claims, policy, nonce, now)), claims)


def _proven(kind: type[E], token: str, trust: Trust, policy: Policy, nonce: str | None, now: float) -> E:
    """Return what was proven.

    Raises:
        AttestationRefused: One check at least was refused.
    """
    if not isinstance(policy, Policy):
        raise TypeError("without a policy nothing is proven")
    report = examine(token, trust=trust, policy=policy, nonce=nonce, now=now)
    claims = report.claims
    if claims is None or report.refusals:
        raise AttestationRefused(report.refusals)
    return kind(
        expires_at=float(claims.integer("exp") or 0),
        issued_at=float(claims.integer("iat") or 0),
        nonces=claims.texts("eat_nonce"),
        hwmodel=claims.text("hwmodel") or "",
        swversion=", ".join(claims.texts("swversion")),
        image_digest=claims.text("submods.container.image_digest"),
        image_reference=claims.text("submods.container.image_reference"),
        signing_keys=claims.signing_keys,
        project_id=claims.text("submods.gce.project_id"),
        zone=claims.text("submods.gce.zone"),
        instance_name=claims.text("submods.gce.instance_name"),
        instance_id=claims.text("submods.gce.instance_id"),
        service_accounts=claims.texts("google_service_accounts"),
        claims=claims.values,
        checks=report.checks,
    )
