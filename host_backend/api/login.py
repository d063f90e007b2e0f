"""`POST /login`, and the door that tokens open, in Signatory's form: plain texts, credentials in headers.

Source: Signatory's `pkg/middlewares/jwt.go`.
"""

from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from host_backend.api.access_log import client_address
from host_backend.api.tokens import Tokens
from host_backend.errors import NotAuthenticated
from host_backend.ip_addresses import network_of
from host_backend.metrics import Metrics


class Login:
    """Gives tokens, and lets requests with a token through."""

    def __init__(self, tokens: Tokens, metrics: Metrics) -> None:
        self._tokens = tokens
        self._metrics = metrics

    @property
    def route(self) -> Route:
        """The route that gives tokens."""
        return Route("/login", _Plain(self._login), methods=["POST"])

    async def _login(self, scope: Scope, receive: Receive, send: Send) -> None:
        user, password = _header(scope, b"username"), _header(scope, b"password")
        try:
            token = self._tokens.login(user, password, network_of(client_address(scope)))
        except NotAuthenticated as error:
            await self._refuse(error, "login", scope, receive, send)
        else:
            await PlainTextResponse(token, 201)(scope, receive, send)

    def guard(self, route: Route) -> Route:
        """Return a route that wants a token, and does then what the given one does."""
        inner = route.app

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                scope["token_user"] = self._tokens.check(_header(scope, b"authorization"), _header(scope, b"username"))
            except NotAuthenticated as error:
                await self._refuse(error, "jwt", scope, receive, send)
            else:
                await inner(scope, receive, send)

        route.app = guarded
        return route

    async def _refuse(self, error: NotAuthenticated, method: str, scope: Scope, receive: Receive, send: Send) -> None:
        self._metrics.not_authenticated(method, error.http_status)
        await PlainTextResponse(str(error), error.http_status)(scope, receive, send)


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
