"""The body of a request to sign: a JSON string of hex, as Octez and Signatory have it."""

import binascii
import json
from contextlib import suppress

from starlette.types import Receive

from enclave_signer.protocol.messages import MAX_MESSAGE_BYTES
from host_backend.errors import MalformedRequest, TooLarge
from host_backend.operations.messages import SMALL_MESSAGE_BYTES

#: The hex of the largest message, its quotes, and white space to spare.
MAX_BODY_BYTES = 2 * MAX_MESSAGE_BYTES + 1024
#: The hex of a message that is parsed at once.
SMALL_BODY_BYTES = 2 * SMALL_MESSAGE_BYTES + 2


async def whole_body(receive: Receive) -> bytes:
    """Return a body; of one that is too large, so much that it shows."""
    parts: list[bytes] = []
    size = 0
    more = True
    while more and size <= MAX_BODY_BYTES:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise MalformedRequest("the client left before its request was complete")
        part = event.get("body", b"")
        more = event.get("more_body", False)
        size += len(part)
        parts.append(part)
    return b"".join(parts)


def parse_body(body: bytes) -> bytes:
    """Return the message in a body: a JSON string of hex; null is an empty message, as in Signatory.

    Raises:
        MalformedRequest: Not that.
        TooLarge: Longer than any message.
    """
    if len(body) > MAX_BODY_BYTES:
        raise TooLarge(f"the body is over {MAX_BODY_BYTES} bytes, the largest message needs fewer")
    if len(body) > 1 and body[:1] == body[-1:] == b'"':
        # The usual case: hex between quotes means the same in JSON.
        with suppress(ValueError):
            return binascii.unhexlify(body[1:-1])
    try:
        # Of bytes it would also read UTF-16 and UTF-32.
        text = json.loads(body.decode())
    except (ValueError, RecursionError):
        raise MalformedRequest("the body must be a JSON string of hex") from None
    if text is None:
        return b""
    if not isinstance(text, str):
        raise MalformedRequest("the body must be a JSON string of hex, not another JSON value")
    try:
        return binascii.unhexlify(text)
    except ValueError:
        raise MalformedRequest("the message must be hex: an even number of digits 0-9 and a-f, no 0x") from None
