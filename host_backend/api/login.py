"""`POST /login`, and the door that tokens open, in Signatory's form: plain texts, credentials in headers.

- The right password is answered at once, however many wrong ones come from the same address: behind a proxy or on a Unix
  socket all clients have the same one.
- The answer to a wrong one is held back. The number of held answers is limited, for one address and for all; further ones
  are refused at once, and their connections end.

Source: Signatory's `pkg/middlewares/jwt.go`.
"""

import asyncio
import time
from collections import Counter

from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from host_backend import log
from host_backend.api.access_log import came, client_address, log_access
from host_backend.api.tokens import Tokens, WrongPassword
from host_backend.errors import NotAuthenticated, TooManyLogins
from host_backend.ip_addresses import network_of
from host_backend.metrics import Metrics

#: Seconds until a wrong password is answered: a person hardly notices.
WRONG_PASSWORD_S = 1.0
#: Answers of one address that are held back at a time, and so wrong passwords that are answered in a second.
HELD_PER_ADDRESS = 8
#: Answers that are held back at a time, in all: those who wait for them keep their places.
HELD_ANSWERS = 64

#: A faster guesser must open a new connection for each guess.
_LATER = {"connection": "close", "retry-after": "1"}


class Login:
    """Gives tokens, and lets requests with a token through."""

    def __init__(self, tokens: Tokens, metrics: Metrics) -> None:
        self._tokens = tokens
        self._metrics = metrics
        #: Answers that are held back, by address.
        self._held: Counter[str] = Counter()

    @property
    def route(self) -> Route:
        """The route that gives tokens."""
        return Route("/login", _Plain(self._login), methods=["POST"])

    async def _login(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = came(scope)
        user, password = _header(scope, b"username"), _header(scope, b"password")
        try:
            token = await self._token(user, password, network_of(client_address(scope)))
        except NotAuthenticated as error:
            if self._tokens.knows(user):
                # Another name may be a password in the wrong place.
                log.adds(user=user)
            await self._refuse(error, "login", started, scope, receive, send)
        else:
            await PlainTextResponse(token, 201)(scope, receive, send)

    async def _token(self, user: str, password: str, network: str) -> str:
        try:
            return self._tokens.login(user, password)
        except WrongPassword:
            await self._hold_back(network)
            raise

    async def _hold_back(self, network: str) -> None:
        if self._held[network] >= HELD_PER_ADDRESS or self._held.total() >= HELD_ANSWERS:
            raise TooManyLogins("too many failed logins: wait a second")
        # Also if the client leaves: leaving must not be a faster way to learn that a password is wrong.
        self._held[network] += 1
        try:
            await asyncio.sleep(WRONG_PASSWORD_S)
        finally:
            self._held[network] -= 1
            if not self._held[network]:
                del self._held[network]

    def guard(self, route: Route) -> Route:
        """Return a route that wants a token, and does then what the given one does."""
        inner = route.app

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            started = came(scope)
            try:
                scope["token_user"] = self._tokens.check(_header(scope, b"authorization"), _header(scope, b"username"))
            except NotAuthenticated as error:
                await self._refuse(error, "jwt", started, scope, receive, send)
            else:
                await inner(scope, receive, send)

        route.app = guarded
        return route

    async def _refuse(
        self, error: NotAuthenticated, method: str, started: float, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._metrics.not_authenticated(method, error.http_status)
        log_access(scope, error.http_status, time.perf_counter() - started, error)
        headers = _LATER if isinstance(error, TooManyLogins) else None
        await PlainTextResponse(str(error), error.http_status, headers)(scope, receive, send)


class _Plain:
    """Plain ASGI for a route: an instance of a class is not taken for a function of a request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def _header(scope: Scope, name: bytes) -> str:
    """Return the first header of a name; empty when it is absent. The head of a request is bounded."""
    for key, value in scope["headers"]:
        if key == name:
            data: bytes = value
            return data.decode("utf-8", "surrogateescape")
    return ""
