"""What `GET /attestation` shows: a token about an enclave, in words, and all that its nonce is made of.

- The words are for people. A program reads `raw_token` alone, and verifies it.
- A report proves that such an enclave answered this nonce, not where a connection ends: its nonce is made for this purpose.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256

from enclave_signer import __version__
from enclave_signer.protocol.binding import Channel, token_nonce
from enclave_signer.protocol.messages import Purpose
from host_backend.attestation.token import Claims, NoToken, read_token

#: Of the caller: long enough not to be guessed, and no longer than a token's own nonces.
CALLER_NONCE = re.compile(r"[A-Za-z0-9_.-]{10,74}")
_TAG = b"enclave-host attestation report 1\0"


@dataclass(frozen=True, slots=True)
class Shown:
    """What an enclave answered when it was asked for a token to show.

    Attributes:
        token: The token.
        attested_key: The key that the enclave's process made at its start.
        inventory: Digest of the keys that are open there.
        enclave_key: That of its end of TLS, as it was asked; empty without TLS.
        client_key: That of the host's end.
    """

    token: str = field(repr=False)
    attested_key: bytes
    inventory: bytes
    enclave_key: bytes = b""
    client_key: bytes = b""


#: Asks an enclave, with a nonce of 32 bytes; raises `HostError`.
AskReport = Callable[[bytes], Awaitable[Shown]]


def report_nonce(caller_nonce: str) -> bytes:
    """Return what an enclave is asked with: 32 bytes, which no host makes up for a connection of its own."""
    return sha256(_TAG + caller_nonce.encode()).digest()


def token_and_nonce(report: object, caller_nonce: str) -> tuple[str, str]:
    """Return the token of a report, and the nonce that it must have if it was made for a nonce of ours.

    Args:
        report: An answer of `GET /attestation`, parsed; nothing in it is believed.
        caller_nonce: What was asked with.

    Raises:
        ValueError: It is no such answer.
    """
    try:
        info, token = report["nonce_info"], str(report["raw_token"])  # type: ignore[index]
        parts = {name: bytes.fromhex(info[name]) for name in ("attested_key", "inventory", "enclave_key", "client_key")}
    except (KeyError, TypeError, ValueError):
        raise ValueError("is not an answer of GET /attestation with a token") from None
    channel = Channel(parts["enclave_key"], parts["client_key"], b"")
    nonce = report_nonce(caller_nonce)
    return token, token_nonce(Purpose.REPORT, nonce, channel, parts["attested_key"], parts["inventory"])


def report_of(shown: Shown, caller_nonce: str) -> Mapping[str, object]:
    """Return the body of an answer.

    Raises:
        ValueError: The enclave answered with something that is no token.
    """
    try:
        _, claims = read_token(shown.token)
    except NoToken as error:
        raise ValueError(f"the enclave's answer is not a token: {error}") from None
    return {
        # Only who verifies the token knows where it comes from.
        "status": "token_not_verified",
        "version": __version__,
        "attestation": _summary(claims),
        "nonce_info": {
            "caller_nonce": caller_nonce,
            "nonce": report_nonce(caller_nonce).hex(),
            "attested_key": shown.attested_key.hex(),
            "inventory": shown.inventory.hex(),
            "enclave_key": shown.enclave_key.hex(),
            "client_key": shown.client_key.hex(),
        },
        "raw_token": shown.token,
    }


def _summary(claims: Claims) -> Mapping[str, object]:
    container = ("image_digest", "image_reference", "restart_policy", "args")
    return {
        "hardware": {name: claims.at(name) for name in ("hwmodel", "secboot", "dbgstat")},
        "software": {name: claims.at(name) for name in ("swname", "swversion")},
        # The environment is in the token only.
        "container": {name: claims.at(f"submods.container.{name}") for name in container},
        "gce": {name: claims.at(f"submods.gce.{name}") for name in ("project_id", "zone", "instance_id")},
        "issuer": claims.at("iss"),
        "subject": claims.at("sub"),
        "issued_at": _time(claims.integer("iat")),
        "expires_at": _time(claims.integer("exp")),
        "confidential_space": claims.at("submods.confidential_space"),
        "eat_nonce": claims.at("eat_nonce"),
    }


def _time(seconds: int | None) -> str | None:
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return None
