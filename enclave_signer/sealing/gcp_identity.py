"""Who this image is to Google: an access token, exchanged ahead of the call that needs it and renewed ahead of its end.

- One exchange at a time, however many calls wait for it; all of them share what came of it.
- A token is renewed when half of its time, or all but five minutes, is over, by the next call that needs it. If STS is
  away then, the old one serves while it is good. A refusal is repeated for a while before STS is asked again: hosts
  try every few seconds, and only a person can change it.
- The age of a token is counted by a clock that cannot be set. A launcher token that STS does not take is replaced by a
  fresh one, once.
"""

import logging
from dataclasses import dataclass, field

import trio

from enclave_signer import log
from enclave_signer.errors import SealingError, SealingUnavailable, again
from enclave_signer.http_request import OpenStream
from enclave_signer.sealing import gcp_names
from enclave_signer.sealing.gcp_launcher import Launcher, LauncherToken
from enclave_signer.sealing.gcp_sts import AccessToken, StsRefused, exchange

logger = logging.getLogger(__name__)

#: Seconds before its end at which a token is renewed, unless half of its time is less.
RENEW_BEFORE_S = 300.0
#: Seconds before its end after which a token is not used: a call must end before it does.
UNUSED_BEFORE_S = 30.0
#: Seconds until the next attempt to renew a token that is still good.
RETRY_S = 30.0
#: Google's STS allows about as much; a machine with a larger error gets a message about its clock.
CLOCK_OFF_S = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class Access:
    """An access token, and whom IAM knows it as.

    Attributes:
        text: The token.
        principal: What a key is granted to.
        renew_at: When a new one is asked for, by trio's clock.
        until: When it is no longer used.
    """

    text: str = field(repr=False)
    principal: str
    renew_at: float
    until: float


@dataclass(slots=True)
class _Renewal:
    """An exchange under way, or what came of it."""

    done: trio.Event = field(default_factory=trio.Event)
    error: SealingError | None = None


class Identity:
    """Access tokens by way of one identity provider.

    Args:
        provider: Its name, `projects/…`.
        launcher: Where this image's own tokens come from.
        open_stream: To Google's STS.
        limit_s: Seconds for the answer of STS.
        refused_s: Seconds until it is asked again after a refusal, or for another token that may not be taken either.
    """

    def __init__(
        self, provider: str, launcher: Launcher, open_stream: OpenStream, *, limit_s: float, refused_s: float
    ) -> None:
        self._provider = provider
        self._launcher = launcher
        self._open_stream = open_stream
        self._limit_s = limit_s
        self._refused_s = refused_s
        self._held: Access | None = None
        self._renewal: _Renewal | None = None
        #: Until when STS is not asked: the last attempt had no answer and a token is still good, or it was refused.
        self._retry_at = 0.0
        self._refused: SealingError | None = None
        #: Until when a token that Google does not take is kept: it was exchanged in place of another that was not taken.
        self._kept_until = 0.0

    async def access(self) -> Access:
        """Return a token that is good for the next call.

        Raises:
            SealingRefused: STS or the launcher says no; the text says what to do.
            SealingUnavailable: One of them gives no answer, retry later.
        """
        while True:
            held, now = self._held, trio.current_time()
            if held is not None and now < (held.renew_at if now >= self._retry_at else held.until):
                return held
            if self._refused is not None and now < self._retry_at:
                raise again(self._refused)
            renewal = self._renewal
            if renewal is None:
                renewal = await self._renew(held)
            else:
                await renewal.done.wait()
            if renewal.error is not None:
                raise again(renewal.error)

    def forget(self, access: Access) -> None:
        """Do not give this token again: Google does not take it; unless that was said a moment ago of another one."""
        now = trio.current_time()
        if self._held is access and now >= self._kept_until:
            self._held = None
            self._kept_until = now + self._refused_s

    async def _renew(self, held: Access | None) -> _Renewal:
        renewal = self._renewal = _Renewal()
        try:
            self._held, self._refused = await self._exchanged(), None
        except SealingUnavailable as error:
            if held is None or trio.current_time() >= held.until:
                renewal.error = error
            else:
                self._retry_at = trio.current_time() + RETRY_S
                logger.warning("Google's STS gave no new token, the old one serves on", extra=log.fields(reason=error))
        except SealingError as error:
            self._held, renewal.error = None, error
            self._refused, self._retry_at = error, trio.current_time() + self._refused_s
        finally:
            self._renewal = None
            renewal.done.set()
        return renewal

    async def _exchanged(self) -> Access:
        began = trio.current_time()
        token = await self._launcher.token()
        try:
            given = await self._exchange(token)
        except StsRefused as refused:
            if not refused.of_token or token.fresh:
                raise
            began = trio.current_time()
            token, given = await self._with_fresh_token(token, refused)
        if abs(given.clock_off_s) > CLOCK_OFF_S:
            logger.warning(
                "the clock of this machine is off", extra=log.fields(ahead_of_google_s=round(given.clock_off_s))
            )
        life_s = given.life_s
        return Access(
            text=given.text,
            principal=gcp_names.principal(self._provider, token.image_digest),
            renew_at=began + max(life_s / 2, life_s - RENEW_BEFORE_S),
            until=began + max(life_s / 2, life_s - UNUSED_BEFORE_S),
        )

    async def _with_fresh_token(self, old: LauncherToken, refused: StsRefused) -> tuple[LauncherToken, AccessToken]:
        """Try once more: the file may hold a token that has expired, which a clock that is behind does not show."""
        try:
            token = await self._launcher.new_token()
        except SealingUnavailable as error:
            if refused.clock is not None and old.expires_at <= refused.clock:
                raise SealingUnavailable(
                    f"the launcher's token has expired, and there is no newer one: {error}"
                ) from error
            raise refused from error
        return token, await self._exchange(token)

    async def _exchange(self, token: LauncherToken) -> AccessToken:
        return await exchange(self._open_stream, self._provider, token, self._limit_s)
