"""Clients that log in: `server.jwt`, and `POST /login`.

- A token is HS256, names its user, and expires. Anything else is no token.
- Passwords are compared as digests, in constant time; an unknown user costs what a wrong password costs.
- The right password gives a token whatever others have tried; `login` holds back the answers to wrong ones.

Source: Signatory's `pkg/middlewares/jwt.go`, with its texts; stricter rules stand in
`docs/signatory-compatibility.md`.
"""

import hmac
import logging
import time
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


class WrongPassword(NotAuthenticated):
    """There is no such user, or the password is another; answer it slowly."""


class Tokens:
    """Gives tokens to users, and takes them back.

    Args:
        users: By name.
        clock: Seconds since 1970.
    """

    def __init__(self, users: Mapping[str, JwtUser], clock: Callable[[], float] = time.time) -> None:
        self._users = users
        self._clock = clock

    def knows(self, user: str) -> bool:
        """Return whether there is such a user."""
        return user in self._users

    def login(self, user: str, password: str) -> str:
        """Return a token.

        Args:
            user: The header `username`; empty when there is none.
            password: The header `password`, likewise.

        Raises:
            WrongPassword: Not for this user and password.
            NotAuthenticated: One of them is missing.
        """
        if not user or not password:
            raise NotAuthenticated("username and password required")
        credentials = self._matching(user, password)
        if credentials is None:
            raise WrongPassword("Access denied")
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


def _digest(text: str) -> bytes:
    # Of equal length, whatever was sent.
    return sha256(text.encode("utf-8", "surrogatepass")).digest()


def _is_number(value: object) -> TypeGuard[int | float]:
    # Nothing is later than NaN: such a token would never expire.
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and isfinite(value))
