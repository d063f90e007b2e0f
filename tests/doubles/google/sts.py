"""Google's token exchange for one workload identity provider: strict about the form, and about the launcher's token."""

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs

import jwt

from tests.doubles.google.http_service import Answered, Asked, http_service
from tests.doubles.google.launcher import ISSUER, STS_AUDIENCE, signing_key

PROVIDER = "projects/691249393555/locations/global/workloadIdentityPools/signer-pool/providers/cs"
ACCESS = "urn:ietf:params:oauth:token-type:access_token"
FIXED = {
    "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
    "requested_token_type": ACCESS,
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    "scope": "https://www.googleapis.com/auth/cloud-platform",
    "audience": f"//iam.googleapis.com/{PROVIDER}",
}
LEEWAY_S = 60


def stable(claims: dict[str, Any]) -> bool:
    """The attribute condition: a hardened image."""
    return (
        claims["swname"] == "CONFIDENTIAL_SPACE"
        and claims["dbgstat"] == "disabled-since-boot"
        and "STABLE" in claims["submods"]["confidential_space"]["support_attributes"]
    )


class StsDouble:
    """Issues access tokens; `issued` maps each to the image that it is for.

    Attributes:
        fault: Takes the place of an answer; called with what was asked, and may wait.
        clock_ahead_s: Seconds by which Google's clock is ahead of this machine's.
        expires_in: What answers say of a token's life.
        audiences: Whom tokens of the launcher may be made out to.
        exchanges: How many were asked for.
        asked_at: When, by `time.perf_counter`.
    """

    def __init__(self) -> None:
        self.issued: dict[str, str] = {}
        self.fault: Callable[[], Answered | None] | None = None
        self.delay_s = 0.0
        self.clock_ahead_s = 0.0
        self.expires_in: object = 3599
        self.audiences = [STS_AUDIENCE]
        self.exchanges = 0
        self.asked_at: list[float] = []
        self._lock = threading.Lock()

    def answer(self, asked: Asked) -> Answered | None:
        with self._lock:
            self.exchanges += 1
            self.asked_at.append(time.perf_counter())
        if self.fault is not None:
            return self.fault()
        if self.delay_s:
            time.sleep(self.delay_s)
        if (asked.method, asked.path, asked.content_type) != ("POST", "/v1/token", "application/x-www-form-urlencoded"):
            return self._json(404, {})
        return self._json(*self._exchange(asked.body.decode()))

    def _json(self, status: int, fields: dict[str, object]) -> Answered:
        date = formatdate(time.time() + self.clock_ahead_s, usegmt=True)
        return Answered(status, json.dumps(fields).encode(), headers={"Date": date})

    def _exchange(self, body: str) -> tuple[int, dict[str, object]]:
        form = parse_qs(body, strict_parsing=True, max_num_fields=8)
        if set(form) != {*FIXED, "subject_token"} or any(len(values) != 1 for values in form.values()):
            return refusal("invalid_request", f"fields {sorted(form)}")
        given = {name: values[0] for name, values in form.items()}
        if given["audience"] != FIXED["audience"]:
            return refusal("invalid_target", 'The target service indicated by the "audience" parameters is invalid.')
        if any(given[name] != value for name, value in FIXED.items()):
            return refusal("invalid_request", "unsupported type")
        try:
            claims = self._verified(given["subject_token"])
        except jwt.PyJWTError as error:
            return refusal("invalid_grant", str(error))
        try:
            allowed = stable(claims)
        except (KeyError, TypeError):
            # A claim that is not there fails the condition, as with the service.
            allowed = False
        if not allowed:
            return refusal("unauthorized_client", "The given credential is rejected by the attribute condition.")
        access = "ya29.d." + secrets.token_urlsafe(24)
        self.issued[access] = claims["submods"]["container"]["image_digest"]
        return 200, {
            "access_token": access,
            "issued_token_type": ACCESS,
            "token_type": "Bearer",
            "expires_in": self.expires_in,
        }

    def _verified(self, text: str) -> dict[str, Any]:
        claims: dict[str, Any] = jwt.decode(
            text,
            signing_key().public_key(),
            ["RS256"],
            audience=self.audiences,
            issuer=ISSUER,
            # The times by Google's clock, below.
            options={
                "require": ["exp", "iat", "nbf", "iss", "aud"],
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )
        now = time.time() + self.clock_ahead_s
        if claims["exp"] + LEEWAY_S < now:
            raise jwt.ExpiredSignatureError("ID Token issued at ... is stale to sign-in.")
        if claims["nbf"] - LEEWAY_S > now:
            raise jwt.ImmatureSignatureError("The token is not yet valid.")
        return claims

    @contextmanager
    def serving(self) -> Iterator[tuple[str, int]]:
        """Serve on loopback; give the address."""
        with http_service(self.answer) as address:
            yield address


def refusal(error: str, description: str) -> tuple[int, dict[str, object]]:
    return 400, {"error": error, "error_description": description}
