"""The requests and answers of ocicrypt's keyprovider protocol, which travel as JSON. Source: ocicrypt, `utils/keyprovider`.

    wrap    {"op":"keywrap","keywrapparams":{"ec":{"Parameters":{"NAME":["<base64>"]}},"optsdata":"<base64>"}}
    unwrap  {"op":"keyunwrap","keyunwrapparams":{"dc":{"Parameters":{…}},"annotation":"<base64 of the packet>"}}

`optsdata` is a layer's key and its options: opaque here, and in no text. The parameters of an unwrapping are not read: a
client asks every provider that has a packet, also those that it did not name.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from enclave_signer.keyprovider.errors import BadRequest
from enclave_signer.keyprovider.packets import MAX_PACKET_BYTES
from enclave_signer.keyprovider.strict_json import (
    MAX_WRAPPED_BYTES,
    encode_bytes,
    members,
    read_bytes,
    read_object,
    write_object,
)

#: Bytes of the parameters of one provider: the name of a key, and words around it.
MAX_PARAMETER_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Wrap:
    """Wrap a layer's key.

    Attributes:
        parameters: What the client said of the key to use; None: nothing to this provider.
        data: The layer's key and its options.
    """

    operation: ClassVar[str] = "keywrap"
    parameters: str | None
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Unwrap:
    """Give the layer's key in a packet back."""

    operation: ClassVar[str] = "keyunwrap"
    packet: bytes = field(repr=False)


def read_request(data: bytes, provider: str) -> Wrap | Unwrap:
    """Return what a request asks for.

    Args:
        data: The JSON.
        provider: The name under which clients have this provider in their configuration.

    Raises:
        BadRequest: It cannot be read.
    """
    request = read_object(data, "the request")
    match request.get("op"):
        case Wrap.operation:
            wanted = members(request.get("keywrapparams"), "keywrapparams")
            optsdata = read_bytes(wanted.get("optsdata"), "optsdata", MAX_WRAPPED_BYTES)
            return Wrap(_parameters(wanted.get("ec"), provider), optsdata)
        case Unwrap.operation:
            wanted = members(request.get("keyunwrapparams"), "keyunwrapparams")
            return Unwrap(read_bytes(wanted.get("annotation"), "annotation", MAX_PACKET_BYTES))
        case _:
            raise BadRequest(f"op must be {Wrap.operation} or {Unwrap.operation}")


def _parameters(config: object, provider: str) -> str | None:
    if config is None:
        return None
    by_provider = members(config, "ec").get("Parameters")
    if by_provider is None:
        return None
    values = members(by_provider, "ec.Parameters").get(provider)
    if values is None:
        return None
    if not isinstance(values, list) or len(values) != 1:
        raise BadRequest(f"ec.Parameters: {provider} must have one value: name one key")
    try:
        return read_bytes(values[0], "ec.Parameters", MAX_PARAMETER_BYTES).decode()
    except UnicodeDecodeError:
        raise BadRequest("ec.Parameters must be UTF-8") from None


def wrapped(packet: bytes) -> bytes:
    """Return the answer to a wrapping."""
    return write_object({"keywrapresults": {"annotation": encode_bytes(packet)}})


def unwrapped(data: bytes) -> bytes:
    """Return the answer to an unwrapping."""
    return write_object({"keyunwrapresults": {"optsdata": encode_bytes(data)}})
