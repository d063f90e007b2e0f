"""The routes that `octez-client` and the Octez baker use.

Source: Signatory's `pkg/server`; statuses and bodies are its own. This is the host's catch-all: whatever escapes the
signer is logged as a bug and answered 500, and the server goes on.
"""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from enclave_signer.protocol.messages import KeyType, PublicKey, SigningVersion
from enclave_signer.tezos import (
    TezosError,
    check_public_key_hash,
    encode_public_key,
    encode_signature,
    parse_public_key,
)
from host_backend.api.access_log import TOLD, came, client_address, log_access, logged
from host_backend.api.application import JSON, Json, failure, retry_after
from host_backend.api.auth import RequestKeys, Signed
from host_backend.api.bodies import SMALL_BODY_BYTES, parse_body, whole_body
from host_backend.api.description import description
from host_backend.api.dispatch import KEYS, SigningApplication
from host_backend.api.parts import InParts, json_list
from host_backend.api.route_table import Access, operations
from host_backend.api.whole_answers import send_whole
from host_backend.authentication import authentication_bytes, proof_authentication_bytes
from host_backend.errors import HostError, MalformedRequest, PolicyDenied
from host_backend.metrics import Metrics
from host_backend.policy import Caller
from host_backend.signer import Signer
from host_backend.steps import Kept, Steps, Work
from host_backend.turns import Turns

if TYPE_CHECKING:
    from host_backend.api.login import Login

logger = logging.getLogger(__name__)

#: Large bodies that may wait until they are read, 0.3 ms each; they and their messages have some 100 KiB.
MAX_LARGE_BODIES = 256
#: Of one address: half of them.
MAX_LARGE_BODIES_OF_ADDRESS = 128
#: Octez sends two: `authentication` and `version`.
MAX_QUERY_FIELDS = 20
#: What a client may ask for by `?version=`; anything else means the latest, as in Signatory. Octez sends 3 under protocol 025,
#: for keys of every kind: it adds tz5, which has no older one, and signs with the others as under 2.
_VERSIONS = {"0": SigningVersion.V0, "1": SigningVersion.V1, "2": SigningVersion.V2}
#: The latest version, as an enclave is asked for it, by how the hash of a key begins.
_LATEST_VERSIONS = {
    each.facts.address: SigningVersion.V2 if SigningVersion.V2 in each.facts.versions else SigningVersion.LATEST
    for each in KeyType
}
_ADDRESS_CHARS = 3


class _Answers(ABC):
    """Plain ASGI that answers with JSON, or with the family's status; the host's catch-all."""

    def __init__(self, signer: Signer, metrics: Metrics, request_keys: RequestKeys | None) -> None:
        self._signer = signer
        self._metrics = metrics
        self._request_keys = request_keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = came(scope)
        pkh = scope["path_params"]["pkh"]
        error: HostError | None = None
        try:
            body = await self._answer(pkh, scope, receive)
            status = 200
        except HostError as refusal:
            error = refusal
            status, body = error.http_status, failure(str(error))
        except Exception:
            logger.exception("a request failed because of a bug")
            status, body = 500, failure("internal error")
        seconds = time.perf_counter() - started
        if scope["method"] == "POST":
            self._metrics.handled(pkh, status, seconds)
        log_access(scope, status, seconds, error)
        await send_whole(scope, send, status, JSON, body, retry_after(error))

    @abstractmethod
    async def _answer(self, pkh: str, scope: Scope, receive: Receive) -> bytes:
        """Return the body of a good answer."""

    async def _caller(
        self, scope: Scope, query: Mapping[str, list[str]], signed: Callable[[], Signed], *, unsigned: bool = False
    ) -> Caller:
        """Say who asks; from here on, the signer's own line tells of the request.

        Args:
            scope: The request.
            query: Its parameters.
            signed: Returns what the client may have signed.
            unsigned: Whether it need not have signed anything.
        """
        client, user, address = None, scope.get("token_user"), client_address(scope)
        authentication = _first(query, "authentication")
        if self._request_keys is not None and (authentication or not unsigned):
            try:
                client = await self._request_keys.authenticate(authentication, address, signed())
            except HostError as error:
                self._metrics.not_authenticated("authentication", error.http_status)
                raise
        elif user is None:
            _refuse_web_page(scope)
        scope[TOLD] = True
        return Caller(client, user, address)


class Keys(_Answers):
    """`GET` and `POST /keys/{pkh}`: the hot path."""

    def __init__(self, signer: Signer, metrics: Metrics, request_keys: RequestKeys | None) -> None:
        super().__init__(signer, metrics, request_keys)
        self._large = Turns("large bodies", share=MAX_LARGE_BODIES_OF_ADDRESS, limit=MAX_LARGE_BODIES)

    async def _answer(self, pkh: str, scope: Scope, receive: Receive) -> bytes:
        # Those of the configuration were parsed there.
        if pkh not in self._signer.policies:
            _check(pkh)
        if scope["method"] != "POST":
            return b'{"public_key":"%s"}\n' % encode_public_key(await self._signer.public_key(pkh)).encode()
        message = await self._message(scope, receive)
        query = _query(scope["query_string"])
        caller = await self._caller(scope, query, lambda: (authentication_bytes(pkh, message),))
        version = _VERSIONS.get(_first(query, "version") or "", _LATEST_VERSIONS[pkh[:_ADDRESS_CHARS]])
        signature = await self._signer.sign(pkh, message, version, caller)
        return b'{"signature":"%s"}\n' % encode_signature(signature).encode()

    async def _message(self, scope: Scope, receive: Receive) -> bytes:
        body = await whole_body(receive)
        if len(body) <= SMALL_BODY_BYTES:
            return parse_body(body)
        # Nor is more than one refused at a time: each client would send its next one in the same pass of the loop.
        async with self._large.turn(client_address(scope), len(body)):
            return parse_body(body)


class Proofs(_Answers):
    """`GET /bls_prove_possession/{pkh}`."""

    async def _answer(self, pkh: str, scope: Scope, receive: Receive) -> bytes:
        del receive
        _check(pkh)
        query = _query(scope["query_string"])
        bound_to = _bls_pk(_first(query, "bls_pk"))
        policy = self._signer.policies.get(pkh)
        caller = await self._caller(
            scope,
            query,
            lambda: proof_authentication_bytes(pkh, bound_to),
            unsigned=policy is not None and policy.unsigned_proofs,
        )
        proof = await self._signer.prove_possession(pkh, caller, bound_to=bound_to)
        return b'{"bls_prove_possession":"%s"}\n' % encode_signature(proof).encode()


def _refuse_web_page(scope: Scope) -> None:
    """Pass when a request is not known to come from a page in a browser.

    Any page may send requests to its reader's machine without asking. Browsers then say so.

    Raises:
        PolicyDenied: It comes from one.
    """
    if any(name == b"origin" or (name == b"sec-fetch-site" and value != b"none") for name, value in scope["headers"]):
        raise PolicyDenied(
            "a web page asks (there is a header `Origin` or `Sec-Fetch-Site`): only clients that sign their requests, or "
            "have a token, may be web pages",
            violation="web_page",
        )


def _bls_pk(text: str | None) -> PublicKey | None:
    if text is None:
        return None
    try:
        key = parse_public_key(text)
    except TezosError as error:
        raise MalformedRequest(f"bls_pk: {error}") from None
    if not key.key_type.facts.proves_possession:
        raise MalformedRequest("bls_pk: not the public key of a tz4 key (BLpk…)")
    return key


def _check(pkh: str) -> None:
    try:
        check_public_key_hash(pkh)
    except TezosError as error:
        raise MalformedRequest(str(error)) from None


def _query(query: bytes) -> Mapping[str, list[str]]:
    if not query:
        return {}
    try:
        return parse_qs(query.decode("latin-1"), max_num_fields=MAX_QUERY_FIELDS)
    except ValueError:
        raise MalformedRequest(
            f"the query has more than {MAX_QUERY_FIELDS} fields, only authentication, version and bls_pk mean anything"
        ) from None


def _first(query: Mapping[str, list[str]], name: str) -> str | None:
    return query[name][0] if name in query else None


def _known_keys(signer: Signer) -> Work[bytes]:
    return b'{"known_keys":%s}\n' % (yield from json_list(signer.known_keys()))


def signing_app(
    signer: Signer,
    metrics: Metrics,
    *,
    request_keys: RequestKeys | None = None,
    login: "Login | None" = None,
    steps: Steps | None = None,
) -> SigningApplication:
    """Return the application of `server.address`.

    Args:
        signer: Decides, and has things signed.
        metrics: Counts requests.
        request_keys: Who must have signed a request; None: requests are not signed.
        login: What gives tokens and wants them; None: no tokens.
        steps: Does what takes long; None: nothing else in this program does.
    """
    keys_in_service = Kept(steps or Steps(), lambda: _known_keys(signer), always=False)
    access = Access(tokens=login is not None, signed=request_keys is not None)
    authentication = "jwt" if login is not None else "none" if request_keys is None else "authorized_keys"

    async def authorized_keys(_: Request) -> Response:
        # Of an empty list nothing is said either, as in Signatory; its requests are refused all the same.
        return Json({"authorized_keys": request_keys.hashes} if request_keys and request_keys.hashes else {})

    async def known_keys(_: Request) -> Response:
        return InParts([await keys_in_service.get()], JSON.decode())

    async def mode(_: Request) -> Response:
        return Json({"mode": "remote-signer", "authentication": authentication})

    routes = [
        Route(KEYS + "{pkh}", Keys(signer, metrics, request_keys), methods=["GET", "POST"]),
        Route("/bls_prove_possession/{pkh}", Proofs(signer, metrics, request_keys), methods=["GET"]),
        Route("/authorized_keys", logged(authorized_keys), methods=["GET"]),
        Route("/known_keys", logged(known_keys), methods=["GET"]),
        Route("/mode", logged(mode), methods=["GET"]),
        *description(operations(access), access, logged),
    ]
    return SigningApplication(routes if login is None else [*map(login.guard, routes), login.route])
