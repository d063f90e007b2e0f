"""A unary call of gRPC as bytes: the message in its frame, and what HTTP/2 carries beside it.

    body      compressed, u8, 0 | length, u32 big-endian | protobuf: one field, number 1, bytes

Source: gRPC over HTTP/2 (PROTOCOL-HTTP2.md); ocicrypt's `keyprovider.proto`; Protocol Buffers, "Encoding".
"""

import struct
from collections.abc import Sequence
from urllib.parse import quote

from enclave_signer.keyprovider.errors import BadRequest, Status, Unimplemented
from enclave_signer.keyprovider.messages import Unwrap, Wrap
from enclave_signer.keyprovider.strict_json import MAX_MESSAGE_BYTES

Headers = Sequence[tuple[bytes, bytes]]

_FRAME = struct.Struct(">BI")
#: Field 1, wire type 2 (bytes).
_TAG = 0x0A
#: Bytes of a varint that can be a length here.
_MAX_VARINT_BYTES = 4
#: Bytes of a body: the frame, the field's tag and length, and the message.
MAX_BODY_BYTES = _FRAME.size + 1 + _MAX_VARINT_BYTES + MAX_MESSAGE_BYTES
#: The calls, and the operation that the JSON of each must ask for.
CALLS = {
    b"/keyprovider.KeyProviderService/WrapKey": Wrap.operation,
    b"/keyprovider.KeyProviderService/UnWrapKey": Unwrap.operation,
}
_CONTENT_TYPE = b"application/grpc"
ANSWER_HEADERS: Headers = ((b":status", b"200"), (b"content-type", _CONTENT_TYPE))
#: What a request gets that is not one of gRPC.
NOT_GRPC: Headers = ((b":status", b"415"),)


def is_grpc(headers: dict[bytes, bytes]) -> bool:
    """Whether the headers of a request are those of a call."""
    content_type = headers.get(b"content-type", b"")
    return headers.get(b":method") == b"POST" and content_type.split(b"+")[0].split(b";")[0] == _CONTENT_TYPE


def read_body(body: bytes) -> bytes:
    """Return the bytes field of the one message in a body.

    Raises:
        BadRequest: There is something else.
        Unimplemented: It is compressed.
    """
    if len(body) < _FRAME.size:
        raise BadRequest("the call has no message")
    compressed, length = _FRAME.unpack_from(body)
    if compressed:
        raise Unimplemented("compressed messages are not read")
    message = body[_FRAME.size :]
    if len(message) != length:
        raise BadRequest("the call must have one whole message")
    return _read_field(message)


def _read_field(message: bytes) -> bytes:
    tag, lengths = message[:1], message[1 : 1 + _MAX_VARINT_BYTES]
    # The last byte of a varint is the first one below 0x80.
    last = next((place for place, byte in enumerate(lengths) if byte < 0x80), None)
    if tag == bytes([_TAG]) and last is not None:
        length = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(lengths[: last + 1]))
        data = message[2 + last :]
        if len(data) == length:
            return data
    raise BadRequest("the message must have one field, number 1, of bytes")


def write_body(data: bytes) -> bytes:
    """Return a body with one message of one bytes field."""
    length, varint = len(data), bytearray()
    while length > 0x7F:
        varint.append(0x80 | length & 0x7F)
        length >>= 7
    varint.append(length)
    message = bytes([_TAG, *varint]) + data
    return _FRAME.pack(0, len(message)) + message


def trailers(status: Status, text: str = "") -> Headers:
    """Return what ends an answer."""
    ending = [(b"grpc-status", str(int(status)).encode())]
    # Percent-encoded, blanks and readable signs as they are. Source: PROTOCOL-HTTP2.md, Status-Message.
    return (
        [*ending, (b"grpc-message", quote(text, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~").encode())]
        if text
        else ending
    )
