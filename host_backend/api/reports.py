"""`GET /attestation`: tokens of enclaves, shown to anyone who asks.

- Each costs a token of Google's, of which a project gets five a second, and the enclave a call: so one in five seconds is
  asked for, and kept for a minute for the nonce that it was made for. What the link needs is counted elsewhere.
- An enclave that proves nothing, or is away, is 503.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from enclave_signer.tezos import masked
from host_backend.api.application import Json
from host_backend.attestation.report import CALLER_NONCE, AskReport, Shown, report_nonce, report_of
from host_backend.errors import EnclaveRefused, HostError
from host_backend.log import fields

logger = logging.getLogger(__name__)

#: Seconds between two tokens that are asked for.
PAUSE_S = 5.0
#: Seconds for which one is kept for its nonce.
KEPT_S = 60.0
#: Nonces that are kept: as many as there can be new ones in a minute, and some whose enclave takes long.
MAX_KEPT = 16


class _TooSoon(Exception):
    """Another token was asked for just now."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A token that is on its way, or was."""

    shown: asyncio.Task[Shown]
    until: float


class Reports:
    """The tokens of one enclave.

    Args:
        ask: Asks the enclave.
        clock: Seconds, never going back.
    """

    def __init__(self, ask: AskReport, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._kept: dict[str, _Entry] = {}
        self._next = -float("inf")

    async def get(self, caller_nonce: str) -> Shown:
        """Return the token for a nonce.

        Raises:
            _TooSoon: It is a new nonce, and another one was asked for just now.
            HostError: There is no token.
        """
        now = self._clock()
        self._kept = {nonce: entry for nonce, entry in self._kept.items() if now < entry.until}
        entry = self._kept.get(caller_nonce)
        if entry is None or (entry.shown.done() and entry.shown.exception() is not None):
            if now < self._next or (entry is None and len(self._kept) >= MAX_KEPT):
                raise _TooSoon
            self._next = now + PAUSE_S
            # A caller that leaves does not take it from the others.
            task = asyncio.create_task(self._made(caller_nonce))
            task.add_done_callback(_take_error)
            entry = _Entry(task, now + KEPT_S)
            self._kept[caller_nonce] = entry
        return await asyncio.shield(entry.shown)

    async def _made(self, caller_nonce: str) -> Shown:
        return await self._ask(report_nonce(caller_nonce))


def _take_error(task: asyncio.Task[Shown]) -> None:
    """Take the error of a token whose callers may all have left: asyncio would log it as one that was forgotten."""
    if not task.cancelled():
        task.exception()


def attestation_endpoint(asks: Mapping[str, AskReport]) -> Callable[[Request], Awaitable[Response]]:
    """Return the route.

    Args:
        asks: How the enclave of each vault is asked, by the vault's name.
    """
    reports = {name: Reports(ask) for name, ask in asks.items()}

    async def attestation(request: Request) -> Response:
        nonce = request.query_params.get("nonce", "")
        if not CALLER_NONCE.fullmatch(nonce):
            text = "nonce must have 10 to 74 letters, digits and _.-, made up by you: ?nonce=…"
            return _answer(HTTPStatus.BAD_REQUEST, "bad_request", text)
        vault = request.query_params.get("vault") or (next(iter(reports)) if len(reports) == 1 else "")
        if vault not in reports:
            text = f"vault must be one of {', '.join(reports) or 'none'}: ?vault=…"
            return _answer(HTTPStatus.BAD_REQUEST, "bad_request", text)
        return await _report(vault, reports[vault], nonce)

    return attestation


async def _report(vault: str, reports: Reports, nonce: str) -> Response:
    try:
        return Json(report_of(await reports.get(nonce), nonce))
    except _TooSoon:
        text = f"one new nonce in {PAUSE_S:g} s: retry later, or with a nonce of the last {KEPT_S:g} s"
        answer = _answer(HTTPStatus.TOO_MANY_REQUESTS, "too_many_requests", text)
        answer.headers["Retry-After"] = f"{PAUSE_S:.0f}"
        return answer
    except EnclaveRefused as error:
        return _answer(HTTPStatus.SERVICE_UNAVAILABLE, "not_in_confidential_space", str(error))
    except (HostError, ValueError) as error:
        logger.warning("no attestation was shown: %s", error, extra=fields(vault=vault))
        return _answer(HTTPStatus.SERVICE_UNAVAILABLE, "attestation_error", str(error))


def _answer(status: HTTPStatus, word: str, text: str) -> Json:
    return Json({"status": word, "error": masked(text)}, status)
