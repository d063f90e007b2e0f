"""Where a request of `server.address` goes: one for a signature passes all other routes, and has turns of its own."""

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from host_backend.api.application import answering_bugs, application
from host_backend.api.beginning import Beginning

#: How the path of a key begins.
KEYS = "/keys/"


class SigningApplication:
    """Answers requests for a signature without a look at the other routes, and all others as Starlette does.

    Attributes:
        routes: All of them.
        beginning: Gives requests their turns, also those of another application in the same event loop.
    """

    def __init__(self, routes: list[Route]) -> None:
        self.routes = routes
        self.beginning = Beginning()
        self._signatures = answering_bugs(routes[0].app)
        self._all = application(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["method"] == "POST":
            before, folder, pkh = scope["path"].partition(KEYS)
            if folder and pkh and not before and "/" not in pkh:
                scope["path_params"] = {"pkh": pkh}
                await self.beginning.signature(self._signatures, scope, receive, send)
                return
        await self.beginning.other(self._all, scope, receive, send)
