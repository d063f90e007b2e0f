"""The exchange at Google's STS: a token of the launcher for a short-lived access token. Source: RFC 8693; Google's STS.

Done here and not by Google's library: through that a refusal looks like a server that is down, and is retried. A status
of 400, 401 or 403 in STS' form is *refused*; all else that is not a token is *unavailable*.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from urllib.parse import urlencode

from enclave_signer.errors import SealingRefused, SealingUnavailable
from enclave_signer.http_request import HttpAnswer, HttpRequest, NoHttpAnswer, OpenStream, ask
from enclave_signer.launcher import shown
from enclave_signer.sealing.gcp_launcher import LauncherToken

HOST = "sts.googleapis.com"
_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 -- the name of a kind of token
#: The longest that Google gives: 12 hours, for some organizations.
_MAX_LIFE_S = 43200
#: Google's are good for an hour; one that ends before it can be used would be asked for over and over.
_MIN_LIFE_S = 60
#: Google's are under 2 KiB, and go into a header.
_MAX_TOKEN_CHARS = 8192

_ADVICE = {
    "unauthorized_client": "the attribute condition of {provider} does not hold for the image {digest}: compare it with "
    "the claims of the launcher's token",
    "invalid_grant": "{provider} does not take the launcher's token: check its issuer and its allowed audiences",
    "invalid_target": "the identity provider {provider} does not exist or is disabled",
}


class StsRefused(SealingRefused):
    """STS said no to a token; a fresh one may be taken.

    Attributes:
        of_token: That it is the token that it did not take.
        clock: Seconds since 1970 by Google's clock; None when it did not say.
    """

    def __init__(self, text: str, *, of_token: bool = False, clock: float | None = None) -> None:
        super().__init__(text)
        self.of_token = of_token
        self.clock = clock


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What STS gave.

    Attributes:
        text: The token.
        life_s: Seconds for which it is good, counted from before it was asked for.
        clock_off_s: Seconds by which this machine's clock is ahead of Google's; 0 when it did not say.
    """

    text: str = field(repr=False)
    life_s: float
    clock_off_s: float


async def exchange(open_stream: OpenStream, provider: str, token: LauncherToken, limit_s: float) -> AccessToken:
    """Return an access token for what a launcher's token shows.

    Args:
        open_stream: To STS.
        provider: The identity provider, `projects/…`.
        token: Of the launcher.
        limit_s: Seconds for the answer.

    Raises:
        StsRefused: STS says no, do not retry; the text says what to do.
        SealingUnavailable: No answer, or none that means anything; retry later.
    """
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "audience": f"//iam.googleapis.com/{provider}",
        "scope": "https://www.googleapis.com/auth/cloud-platform",
        "requested_token_type": _ACCESS_TOKEN,
        "subject_token": token.text,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    }
    body = urlencode(form).encode()
    request = HttpRequest("POST", HOST, "/v1/token", "application/x-www-form-urlencoded", body)
    try:
        answer = await ask(open_stream, request, limit_s)
    except NoHttpAnswer as error:
        raise SealingUnavailable(f"Google's STS: {error}") from error
    return read_answer(answer, provider, token.image_digest)


def read_answer(answer: HttpAnswer, provider: str, image_digest: str | None) -> AccessToken:
    """Return what STS' answer means; see `exchange`."""
    try:
        fields = json.loads(answer.body)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise SealingUnavailable(f"Google's STS answered with HTTP status {answer.status} and no JSON")
    if answer.status == 200:
        return _access_token(answer, fields)
    code = fields.get("error")
    if answer.status not in {400, 401, 403} or not isinstance(code, str):
        raise SealingUnavailable(f"Google's STS answered with HTTP status {answer.status}")
    said = shown(f"{code}: {fields.get('error_description', '')}")
    advice = _ADVICE.get(code, "check the configuration of {provider}")
    advice = advice.format(provider=provider, digest=image_digest or "(of unknown digest)")
    raise StsRefused(
        f"Google's STS refuses: {advice} ({said})", of_token=code == "invalid_grant", clock=_clock(answer.headers)
    )


def _access_token(answer: HttpAnswer, fields: Mapping[str, object]) -> AccessToken:
    text, life, kind = fields.get("access_token"), fields.get("expires_in"), fields.get("token_type")
    if isinstance(life, str) and life.isascii() and life.isdecimal():
        life = int(life[:6])
    if (
        not isinstance(text, str)
        or not (text.isascii() and text.isprintable() and 0 < len(text) <= _MAX_TOKEN_CHARS)
        or type(life) is not int
        or not 0 < life <= _MAX_LIFE_S
        or not (isinstance(kind, str) and kind.lower() == "bearer")
    ):
        raise SealingUnavailable("Google's STS answered without a usable access token")
    if life < _MIN_LIFE_S:
        raise SealingUnavailable(f"Google's STS gave an access token for {life} s only: it needs {_MIN_LIFE_S} s")
    clock = _clock(answer.headers)
    return AccessToken(text, float(life), 0.0 if clock is None else time.time() - clock)


def _clock(headers: Mapping[str, str]) -> float | None:
    try:
        return parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError, OverflowError):
        # The last one for a zone of many digits.
        return None
