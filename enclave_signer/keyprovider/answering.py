"""Answers requests: the one way from a request to a key, for gRPC and for the command alike.

The log names the key and who asked. It has neither a layer's key nor a packet.
"""

import logging
import os

from enclave_signer import log
from enclave_signer.keyprovider.errors import BadRequest
from enclave_signer.keyprovider.keks import Keks
from enclave_signer.keyprovider.messages import Unwrap, Wrap, read_request, unwrapped, wrapped
from enclave_signer.keyprovider.packets import NONCE_BYTES, make_packet, open_packet, read_packet
from enclave_signer.keyprovider.parameters import key_id_of

logger = logging.getLogger(__name__)


class Answering:
    """Wraps and unwraps.

    Args:
        keks: The keys that may be used.
        provider: The name under which clients have this provider in their configuration.
    """

    def __init__(self, keks: Keks, provider: str) -> None:
        self._keks = keks
        self._provider = provider

    async def answer(self, data: bytes, operation: str | None = None) -> bytes:
        """Return the answer to a request, both in JSON.

        Args:
            data: The request.
            operation: The one that it must ask for, where it came by a call of that operation.

        Raises:
            KeyproviderError: It is refused, or cannot be answered.
        """
        request = read_request(data, self._provider)
        if operation not in {None, request.operation}:
            raise BadRequest("op is not the one of this call")
        return await (self._wrap(request) if isinstance(request, Wrap) else self._unwrap(request))

    async def _wrap(self, request: Wrap) -> bytes:
        kek = self._keks.to_wrap(key_id_of(request.parameters))
        packet = make_packet(await kek.opened(), kek.key_id, os.urandom(NONCE_BYTES), request.data)
        logger.info("layer key wrapped", extra=log.fields(key_id=kek.key_id))
        return wrapped(packet)

    async def _unwrap(self, request: Unwrap) -> bytes:
        packet = read_packet(request.packet)
        kek = self._keks.to_unwrap(packet.key_id)
        data = open_packet(await kek.opened(), packet)
        logger.info("layer key unwrapped", extra=log.fields(key_id=kek.key_id))
        return unwrapped(data)
