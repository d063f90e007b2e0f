"""Messages of the key broker protocol (RCAR) 0.4.0: requests, the binding of evidence, and the meaning of answers.

- *Unavailable*: nothing that speaks the protocol answered. Only this is worth another attempt.
- *Refused*: a person has to do something first; the text says what, and to whom.
- Nearly every refusal is HTTP 401: the end of its `type` tells them apart.

Source: Confidential Containers' Trustee 0.21, `kbs` and `attestation-service`.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from enum import StrEnum

from enclave_signer.errors import SealingError, SealingRefused, SealingUnavailable
from enclave_signer.launcher import shown
from enclave_signer.sealing.kbs_jwe import BadJwe, from_base64url

VERSION = "0.4.0"
#: The digest of runtime data that evidence is bound to. Source: RCAR, for all machines but IBM's.
_DIGEST = "sha384"
_ERRORS = "https://github.com/confidential-containers/kbs/errors/"
_VERSIONS = re.compile(r"Version Mismatch: expect =(\d{1,3}\.\d{1,3}\.\d{1,3}) ")
_COOKIE = re.compile(r"kbs-session-id=([A-Za-z0-9_-]{1,128})(?:;|$)")
#: 44 characters, but for machines whose nonce is a document.
_MAX_NONCE_CHARS = 4096
#: Trustee's attestation service repeats in its token what the evidence was bound to.
_BOUND = ("submods", "cpu0", "ear.veraison.annotated-evidence", "runtime_data_claims")


class Step(StrEnum):
    """A request of the handshake."""

    AUTH = "auth"
    ATTEST = "attest"
    RESOURCE = "resource"


class HandshakeLost(SealingRefused):
    """The broker does not go on with this handshake; a new one may succeed."""


def auth_body(tee: str) -> bytes:
    """Return the body of `auth`."""
    asked = {"version": VERSION, "tee": tee, "extra-params": {"supported-hash-algorithms": [_DIGEST]}}
    return json.dumps(asked).encode()


def attest_body(nonce: str, jwk: Mapping[str, str], evidence: object) -> bytes:
    """Return the body of `attest`.

    Args:
        nonce: Of the broker.
        jwk: The key of this handshake.
        evidence: Of the machine, as JSON.

    Raises:
        SealingRefused: The evidence is too deeply nested to be sent.
    """
    body = {
        "init-data": None,
        "runtime-data": {"nonce": nonce, "tee-pubkey": jwk},
        "tee-evidence": {"primary_evidence": evidence, "additional_evidence": ""},
    }
    try:
        return json.dumps(body).encode()
    except RecursionError:
        raise SealingRefused("the attestation agent's answer is no evidence") from None


def report_data(nonce: str, jwk: Mapping[str, str]) -> bytes:
    """Return what evidence must be bound to: 48 bytes."""
    return digest({"additional-evidence": "", "nonce": nonce, "tee-pubkey": jwk})


def digest(value: object) -> bytes:
    """Return the SHA-384 of a value's canonical JSON (RFC 8785; for objects of ASCII texts and small integers)."""
    return hashlib.new(_DIGEST, json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).digest()


def sample_evidence(report: bytes) -> Mapping[str, object]:
    """Return the evidence of the sample machine."""
    return {"svn": "1", "report_data": base64.b64encode(report).decode()}


def read_nonce(body: bytes) -> str:
    """Return the nonce in an answer to `auth`.

    Raises:
        SealingRefused: There is none.
    """
    nonce = read_object(Step.AUTH, body).get("nonce")
    if not isinstance(nonce, str) or not nonce.isascii() or not 0 < len(nonce) <= _MAX_NONCE_CHARS:
        raise _no_protocol(Step.AUTH)
    return nonce


def read_session(set_cookies: list[str]) -> str:
    """Return the session that an answer to `auth` begins, from its headers `Set-Cookie`.

    Raises:
        SealingRefused: There is none.
    """
    found = [match[1] for text in set_cookies if (match := _COOKIE.match(text))]
    if len(found) != 1:
        raise _no_protocol(Step.AUTH)
    return found[0]


def check_attested(body: bytes, jwk: Mapping[str, str]) -> None:
    """Do nothing if an answer to `attest` is about this handshake; nothing of its token is kept.

    Raises:
        HandshakeLost: The token is about another key: the session was attested before.
        SealingRefused: There is no token.
    """
    token = read_object(Step.ATTEST, body).get("token")
    if not isinstance(token, str) or token.count(".") != 2:
        raise _no_protocol(Step.ATTEST)
    try:
        bound = json.loads(from_base64url(token.split(".")[1]))
    except (BadJwe, ValueError, RecursionError):
        raise _no_protocol(Step.ATTEST) from None
    for name in (*_BOUND, "tee-pubkey"):
        bound = bound.get(name) if isinstance(bound, dict) else None
    # Other attestation services write it elsewhere; then the answer to `resource` does not open.
    if isinstance(bound, dict) and any(bound.get(name) != jwk[name] for name in ("x", "y")):
        raise HandshakeLost(
            "the key broker's session was attested already, with another key: it gave the token of then, and did not look "
            "at this machine's evidence"
        )


def read_object(step: Step, body: bytes) -> Mapping[str, object]:
    """Return the JSON object of an answer.

    Raises:
        SealingRefused: It is none.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _no_protocol(step)
    return value


def failure(step: Step, status: int, body: bytes, resource: str = "") -> SealingError:
    """Return the error that an answer means whose status is not 200.

    Args:
        step: What was asked.
        status: Of HTTP.
        body: What came with it.
        resource: What `resource` asked for.
    """
    name, detail = _error(body)
    if not name:
        text = f"answered {step} with HTTP status {status}, and not as the protocol does"
        if status >= 500 or status in {408, 429}:
            return SealingUnavailable(f"the key broker, or a proxy before it, {text}")
        return SealingRefused(f"the server at kbs.url {text}: name the address of the key broker")
    if name == "AttestationError":
        return _not_attested(step, detail)
    kind, text = _MEANINGS.get(name, (SealingRefused, "the key broker fails at {step}: its log says why"))
    return kind(f"{text.format(step=step, resource=resource)} ({shown(f'{name}: {detail}')})")


_RESOURCE_REFUSED = (
    "the key broker's resource policy keeps {resource} from this machine: it must allow affirming evidence"
)
_MEANINGS: Mapping[str, tuple[type[SealingError], str]] = {
    "PolicyDeny": (SealingRefused, _RESOURCE_REFUSED),
    "PluginInternalError": (
        SealingRefused,
        "the key broker gives no resource {resource}: most often there is none: upload it, or correct the path",
    ),
    "PluginNotFound": (SealingRefused, "the key broker knows no such path: kbs.url must name a key broker (KBS)"),
    "InvalidRequestPath": (SealingRefused, "the key broker knows no such path: kbs.url must name a key broker (KBS)"),
    "TokenNotFound": (HandshakeLost, "the key broker does not know the session any more, or it has expired"),
    "TokenVerifierError": (
        HandshakeLost,
        "the key broker does not take its attestation service's token: it has expired, or its signer is not trusted there",
    ),
    "JweError": (SealingRefused, "the key broker cannot encrypt to a key of P-256: update it"),
}


def _not_attested(step: Step, detail: str) -> SealingError:
    said = f"({shown(detail)})"
    if expected := _VERSIONS.search(detail):
        return SealingRefused(
            f"the key broker speaks version {expected[1]} of the protocol, this image {VERSION}: use Trustee 0.14 or later"
        )
    if step is Step.AUTH:
        return SealingRefused(f"the key broker begins no handshake: it may not know kbs.tee {said}")
    return HandshakeLost(
        f"the key broker does not accept this machine's evidence, or its session: its log says why; compare kbs.tee, "
        f"reference values and clocks {said}"
    )


def _error(body: bytes) -> tuple[str, str]:
    try:
        fields = json.loads(body)
        kind, detail = fields["type"], fields.get("detail", "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "", ""
    if not isinstance(kind, str) or not kind.startswith(_ERRORS):
        return "", ""
    return kind.removeprefix(_ERRORS)[:64], detail if isinstance(detail, str) else ""


def _no_protocol(step: Step) -> SealingRefused:
    return SealingRefused(f"the answer to {step} is not one of a key broker: kbs.url must name one")
