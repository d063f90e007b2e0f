"""Bytes of a frame to and from messages.

- A request is a map with exactly one entry: the call's name and its argument. The calls: `calls`.
- A reply is `{"Ok": value}` or `{"Err": {"message": text, "source": Err | null}}`.
- Tolerated on input because real peers send it: arrays of integers for bytes, an absent `version` (the latest).
- Refused: unknown fields, arrays in place of maps, bytes after the item, indefinite lengths, other versions.
- Emitted: byte strings, definite lengths, all fields.

Source: tee-signer's `doc/rpc.md`, and its recorded answers in `tests/vectors/enclave-transcripts.json`.
"""

from enclave_signer.protocol import cbor, values
from enclave_signer.protocol.calls import CALLS, call_of
from enclave_signer.protocol.cbor import Item
from enclave_signer.protocol.errors import BadMessage, WireError
from enclave_signer.protocol.messages import PrivateKey, Request, Result

#: A reply's text is for people; a peer cannot make us keep more.
MAX_ERROR_CHARS = 4096
#: `{"Sign": {"message": [bytes as integers]}}` nests three deep, plus one to spare.
REQUEST_DEPTH = 4
#: `Err.source` nests; tee-signer's chains have up to four causes, two levels each.
REPLY_DEPTH = 16


def decode_request(frame: bytes) -> Request:
    """Return the call that a frame holds.

    Raises:
        BadMessage: Not a valid call; the text says what and where, without values.
    """
    name, argument = cbor.single_entry(cbor.decode(frame, max_depth=REQUEST_DEPTH), "a request")
    call = CALLS.get(name)
    if call is None:
        raise BadMessage(f"unknown call {name[:40]!r}, known are {', '.join(CALLS)}")
    request: Request = call.read(argument)
    return request


def encode_request(request: Request) -> bytes:
    """Return the body of the frame that makes a call."""
    call = call_of(request)
    return cbor.encode({call.name: call.write(request)})


def encode_private_key(key: PrivateKey) -> bytes:
    """Return the CBOR that is sealed: `{"Ed25519": bytes32}`. Source: tee-signer's blobs."""
    return cbor.encode(values.encode_of_curve(key))


def decode_private_key(data: bytes) -> PrivateKey:
    """Return the private key that was sealed.

    Raises:
        BadMessage: Not the CBOR of one private key.
    """
    return values.private_key(cbor.decode(data, max_depth=REQUEST_DEPTH))


def encode_ok(result: Result) -> bytes:
    """Return the body of the frame that answers a call."""
    return cbor.encode({"Ok": values.encode_result(result)})


def encode_error(error: WireError) -> bytes:
    """Return the body of the frame that refuses a call."""
    value: Item = None
    for message in reversed([*error.chain()]):
        value = {"message": message, "source": value}
    return cbor.encode({"Err": value})


def decode_reply(request: Request, frame: bytes) -> Result:
    """Return the result of `request` that a reply holds.

    Raises:
        WireError: The enclave refused the call.
        BadMessage: The reply is garbled, or answers another kind of call; close the connection.
    """
    outcome, value = cbor.single_entry(cbor.decode(frame, max_depth=REPLY_DEPTH), "a reply")
    if outcome == "Err":
        raise _wire_error(value)
    if outcome != "Ok":
        raise BadMessage("a reply is neither Ok nor Err")
    return call_of(request).result(value)


def _wire_error(item: Item) -> WireError:
    entries = cbor.fields(item, "Err", frozenset({"message"}), frozenset({"source"}))
    source = entries.get("source")
    message = cbor.text(entries["message"], "the message of Err", MAX_ERROR_CHARS)
    return WireError(message, None if source is None else _wire_error(source))
