"""Clients that log in: `server.jwt`, and `POST /login`.

- A token is HS256, names its user, and expires. Anything else is no token.
- Passwords are compared as digests, in constant time; an unknown user costs what a wrong password costs.
- Each address may fail a few times in a row for each user, then waits, whatever password it sends. Users that there
  are not count as one: names that somebody makes up hold up nobody who is known.

Source: Signatory's `pkg/middlewares/jwt.go`, with its texts; what is stricter stands in
`docs/signatory-compatibility.md`.
"""

import hmac
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from math import isfinite
from typing import TypeGuard

import jwt
from jwt.types import Options

from host_backend.config import JwtCredentials, JwtUser
from host_backend.errors import NotAuthenticated
from host_backend.log import fields

logger = logging.getLogger(__name__)

#: Characters of a token; ours have some 150.
MAX_TOKEN_CHARS = 4096
#: Failed logins of one address and user in a row before it has to wait: enough for typing errors.
LOGIN_FAILURES = 10
#: Seconds after which one more failure is forgiven: 14 400 guesses a day, of passwords of 16 characters.
LOGIN_FAILURE_S = 6.0
#: Addresses, for each user, whose failures are remembered; the one that failed longest ago is forgotten first.
LOGIN_ADDRESSES = 4096

_OPTIONS: Options = {
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}
_NOBODY = JwtCredentials(password="", secret="")


class TooManyLogins(NotAuthenticated):
    """This address failed too often for this user; wait."""

    http_status = 429


class Tokens:
    """Gives tokens to users, and takes them back.

    Args:
        users: By name.
        clock: Seconds since 1970.
        stopwatch: Seconds since any moment; nobody sets it.
    """

    def __init__(
        self,
        users: Mapping[str, JwtUser],
        clock: Callable[[], float] = time.time,
        stopwatch: Callable[[], float] = time.monotonic,
    ) -> None:
        self._users = users
        self._clock = clock
        self._failures = _Failures(stopwatch)

    def login(self, user: str, password: str, source: str) -> str:
        """Return a token.

        Args:
            user: The header `username`; empty when there is none.
            password: The header `password`, likewise.
            source: The address of the client.

        Raises:
            NotAuthenticated: Not for this user and password.
            TooManyLogins: This address failed too often for this user.
        """
        if not user or not password:
            raise NotAuthenticated("username and password required")
        attempt = (source, user if user in self._users else "")
        self._failures.check(attempt)
        credentials = self._matching(user, password)
        if credentials is None:
            self._failures.add(attempt)
            raise NotAuthenticated("Access denied")
        logger.info("logged in", extra=fields(user=user))
        claims = {"exp": int(self._clock()) + 60 * credentials.expiry_min, "user": user}
        return jwt.encode(claims, credentials.secret, algorithm="HS256")

    def _matching(self, user: str, password: str) -> JwtCredentials | None:
        known = self._users.get(user)
        candidates = (_NOBODY,) if known is None else self._valid(known)
        given = _digest(password)
        # All are compared, whichever matches.
        matches = [each for each in candidates if hmac.compare_digest(_digest(each.password), given)]
        return matches[0] if known is not None and matches else None

    def _valid(self, user: JwtUser) -> tuple[JwtCredentials, ...]:
        if user.old is not None and self._clock() < user.old_until:
            return user.credentials, user.old
        return (user.credentials,)

    def check(self, authorization: str, user: str) -> str:
        """Return the user of a token.

        Args:
            authorization: The header `Authorization`; empty when there is none. The word `Bearer` may be missing.
            user: The header `username`, likewise.

        Raises:
            NotAuthenticated: No token, or not one of this user's.
        """
        if not authorization:
            raise NotAuthenticated("token required")
        known = self._users.get(user)
        if known is None:
            raise NotAuthenticated("JWT: user not found")
        claims = self._claims(authorization.removeprefix("Bearer "), self._valid(known))
        self._check_times(claims)
        name = claims.get("user")
        if not isinstance(name, str) or name != user:
            logger.warning("JWT: a token of another user", extra=fields(user=user))
            raise NotAuthenticated("JWT: invalid token")
        return user

    def _claims(self, token: str, candidates: Iterable[JwtCredentials]) -> Mapping[str, object]:
        if len(token) > MAX_TOKEN_CHARS:
            raise NotAuthenticated(f"token is malformed: it is over {MAX_TOKEN_CHARS} characters")
        if token.count(".") != 2:
            raise NotAuthenticated("token is malformed: token contains an invalid number of segments")
        wrong = NotAuthenticated("token signature is invalid: signature is invalid")
        for credentials in candidates:
            try:
                # Times are checked here, by this clock.
                return jwt.decode(token, credentials.secret, algorithms=["HS256"], options=_OPTIONS)
            except jwt.InvalidSignatureError:
                continue
            except jwt.InvalidAlgorithmError:
                raise NotAuthenticated("token signature is invalid: the signing method must be HS256") from None
            except (jwt.InvalidTokenError, UnicodeError):
                # The library's text may repeat what it was given.
                raise NotAuthenticated("token is malformed: not a JSON web token") from None
        raise wrong

    def _check_times(self, claims: Mapping[str, object]) -> None:
        now = self._clock()
        expiry, not_before = claims.get("exp"), claims.get("nbf", 0)
        if not _is_number(expiry) or not _is_number(not_before):
            raise NotAuthenticated("token has invalid claims: exp, in seconds since 1970, is required")
        if now >= expiry:
            raise NotAuthenticated("token has invalid claims: token is expired")
        if now < not_before:
            raise NotAuthenticated("token has invalid claims: token is not valid yet")


class _Failures:
    """Failed logins by address and user: so many in a row, then one every few seconds."""

    def __init__(self, stopwatch: Callable[[], float]) -> None:
        self._now = stopwatch
        #: When the failures of an address and user will all be forgiven.
        self._clear_at: OrderedDict[tuple[str, str], float] = OrderedDict()

    def check(self, attempt: tuple[str, str]) -> None:
        """Pass when an address may try for a user.

        Raises:
            TooManyLogins: Not yet.
        """
        now = self._now()
        if self._clear_at.get(attempt, now) - now > (LOGIN_FAILURES - 1) * LOGIN_FAILURE_S:
            raise TooManyLogins("too many failed logins: wait a minute")

    def add(self, attempt: tuple[str, str]) -> None:
        """Take note of a failure."""
        now = self._now()
        self._clear_at[attempt] = max(self._clear_at.get(attempt, now), now) + LOGIN_FAILURE_S
        self._clear_at.move_to_end(attempt)
        if len(self._clear_at) > LOGIN_ADDRESSES:
            self._clear_at.popitem(last=False)


def _digest(text: str) -> bytes:
    # Of equal length, whatever was sent.
    return sha256(text.encode("utf-8", "surrogatepass")).digest()


def _is_number(value: object) -> TypeGuard[int | float]:
    # Nothing is later than what is not a number: such a token would never expire.
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and isfinite(value))
