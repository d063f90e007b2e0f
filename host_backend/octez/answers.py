"""The answer to each request of Octez' sockets: by the same signer as over HTTP, its policy, marks, log and metrics.

Requests begin in the turns of those over HTTP: few in each pass of the event loop, addresses in turn.

This is the catch-all of these sockets: whatever escapes the signer is logged as a bug, and the server goes on.
"""

import logging
import time

from enclave_signer.protocol.messages import MAX_MESSAGE_BYTES
from host_backend.api.auth import RequestKeys
from host_backend.api.beginning import Beginning
from host_backend.authentication import authentication_bytes
from host_backend.errors import HostError, MalformedRequest, PolicyDenied, ProofDenied, TooLarge
from host_backend.log import fields
from host_backend.metrics import Metrics
from host_backend.octez import wire
from host_backend.octez.wire import (
    AuthorizedKeysRequest,
    KnownKeysRequest,
    NonceRequest,
    ProofRequest,
    PublicKeyRequest,
    Request,
    SignRequest,
    SupportsNoncesRequest,
    Tz5Request,
)
from host_backend.policy import Caller
from host_backend.signer import Signer
from host_backend.steps import Kept, Steps, Work

logger = logging.getLogger(__name__)

#: What the log calls each request.
_NAMES = {
    SignRequest: "sign",
    PublicKeyRequest: "public key",
    AuthorizedKeysRequest: "authorized keys",
    NonceRequest: "deterministic nonce",
    SupportsNoncesRequest: "supports deterministic nonces",
    KnownKeysRequest: "known keys",
    ProofRequest: "prove possession",
    Tz5Request: "something with a tz5 key",
}
#: Octez' own words, which people look for.
_NO_LIST = "List known keys request not allowed."
_NO_PROOF = "Request to prove possession is not allowed"


class _Asked:
    """A request, where it came from, and whether the signer has a line of its own about it."""

    __slots__ = ("address", "request", "told")

    def __init__(self, request: Request, address: str) -> None:
        self.request = request
        self.address = address
        self.told = False


class Answers:
    """Answers requests of any number of connections.

    Args:
        signer: Decides, and has things signed.
        metrics: Counts requests.
        request_keys: Who must have signed a request; None: requests are not signed.
        steps: Does what takes long.
        beginning: Gives requests their turns, also those over HTTP.
        list_keys: Whether anybody may have the list of keys.
    """

    def __init__(
        self,
        signer: Signer,
        metrics: Metrics,
        request_keys: RequestKeys | None,
        steps: Steps,
        beginning: Beginning,
        *,
        list_keys: bool,
    ) -> None:
        self._signer = signer
        self._metrics = metrics
        self._request_keys = request_keys
        self._beginning = beginning
        self._list_keys = list_keys
        self._known_keys = Kept(steps, self._keys_in_service, always=False)

    async def answer(self, request: Request, address: str) -> bytes:
        """Return the answer to a request.

        Args:
            request: The request.
            address: The network address that it came from; empty for a Unix socket.
        """
        asked, started = _Asked(request, address), time.perf_counter()
        error: HostError | None = None
        try:
            async with self._beginning.turn(address, signs=isinstance(request, SignRequest)):
                answer, status = await self._result(asked), 200
        except HostError as refusal:
            error = refusal
            answer, status = wire.error_answer(str(error)), error.http_status
        except Exception:
            logger.exception("a request failed because of a bug")
            answer, status = wire.error_answer("internal error"), 500
        seconds = time.perf_counter() - started
        if isinstance(request, SignRequest):
            self._metrics.handled(request.pkh, status, seconds)
        _log(asked, status, seconds, error)
        return answer

    async def _result(self, asked: _Asked) -> bytes:
        match asked.request:
            case SignRequest() as request:
                return await self._sign(request, asked)
            case PublicKeyRequest(pkh):
                return wire.public_key_answer(await self._signer.public_key(pkh))
            case AuthorizedKeysRequest():
                keys = self._request_keys
                return wire.authorized_keys_answer(None if keys is None else keys.hashes)
            case KnownKeysRequest():
                return await self._list()
            case ProofRequest() as request:
                return await self._prove(request, asked)
            case SupportsNoncesRequest():
                return wire.no_nonces_answer()
            case NonceRequest():
                raise MalformedRequest("deterministic nonces are not made here: bakers make random ones by default")
            case Tz5Request():
                raise MalformedRequest(
                    "Octez' sockets have no form for signatures of tz5 keys: use http:// or https://"
                )

    async def _sign(self, request: SignRequest, asked: _Asked) -> bytes:
        pkh, message = request.pkh, request.message
        if len(message) > MAX_MESSAGE_BYTES:
            raise TooLarge(f"message of {len(message)} bytes, the limit is {MAX_MESSAGE_BYTES}")
        client = None
        if self._request_keys is not None:
            signed = (authentication_bytes(pkh, message),)
            try:
                client = await self._request_keys.authenticate_bytes(request.authentication, asked.address, signed)
            except HostError as error:
                self._metrics.not_authenticated("authentication", error.http_status)
                raise
        asked.told = True
        signature = await self._signer.sign(pkh, message, request.version, Caller(client, None, asked.address))
        return wire.signature_answer(signature)

    async def _prove(self, request: ProofRequest, asked: _Asked) -> bytes:
        policy = self._signer.policies.get(request.pkh)
        if self._request_keys is not None and policy is not None and not policy.unsigned_proofs:
            raise ProofDenied(
                f"{_NO_PROOF}: no client can sign this request over Octez' sockets; to allow it unsigned, write "
                "`allow_proof_of_possession: {unsigned: true}` for the key",
                violation="proof_of_possession",
            )
        asked.told, caller = True, Caller(source=asked.address)
        try:
            proof = await self._signer.prove_possession(request.pkh, caller, bound_to=request.other)
        except ProofDenied as error:
            text = f"{_NO_PROOF}: {error}" if request.other is not None else _NO_PROOF
            raise ProofDenied(text, violation=error.violation) from None
        return wire.signature_answer(proof)

    async def _list(self) -> bytes:
        if not self._list_keys:
            raise PolicyDenied(_NO_LIST, violation="known_keys")
        keys = await self._known_keys.get()
        if len(keys) > wire.MAX_HASHES:
            raise MalformedRequest(
                f"there are {len(keys)} keys, and an answer over Octez' sockets holds {wire.MAX_HASHES}: ask over HTTP"
            )
        return wire.known_keys_answer(keys)

    def _keys_in_service(self) -> Work[list[bytes]]:
        hashes = []
        for pkh in self._signer.known_keys():
            if pkh is not None and wire.has_form(tagged := wire.tagged_hash(pkh)):
                hashes.append(tagged)
            yield pkh
        return hashes


def _log(asked: _Asked, status: int, seconds: float, error: HostError | None) -> None:
    level = logging.DEBUG if asked.told else logging.INFO if error is None else error.log_level
    if not logger.isEnabledFor(level):
        return
    values: dict[str, object] = {"duration": f"{seconds * 1e3:.2f}ms", "status": status}
    if (pkh := getattr(asked.request, "pkh", None)) is not None:
        values["pkh"] = pkh
    if error is not None and not asked.told:
        values["error"] = str(error)
    logger.log(level, "Octez socket: %s", _NAMES[type(asked.request)], extra=fields(**values))
