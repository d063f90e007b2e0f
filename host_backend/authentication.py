"""What a client signs to show who it is: Signatory's and Octez' authentication of requests. Pure."""

from enclave_signer.protocol.messages import PublicKey
from enclave_signer.tezos import TezosError, parse_public_key_hash, public_key_hash
from host_backend.errors import MalformedRequest

_MAGIC = 0x04
_SIGN = 0x01
#: What Octez signs to have possession proved; Signatory wants `_SIGN` and no message for it.
_PROVE = 0x04


def authentication_bytes(pkh: str, message: bytes = b"") -> bytes:
    """Return what a client signs to have a message signed.

    Args:
        pkh: The key that will sign, `tz1…` to `tz4…`.
        message: The bytes to sign; empty for a proof of possession, as Signatory expects it.

    Returns:
        The tagged bytes; the client's key signs them as it signs any message.

    Raises:
        MalformedRequest: The hash is none.

    Source: Octez `src/lib_signer_services/signer_messages.ml`; `authentication` in `tests/vectors/signatory-vectors.json`.
    """
    return bytes([_MAGIC, _SIGN]) + _tagged(pkh) + message


def proof_authentication_bytes(pkh: str, bound_to: PublicKey | None = None) -> tuple[bytes, ...]:
    """Return what a client may sign to have possession proved: Signatory's form, then Octez'.

    A proof for another key has Octez' form only: Signatory's does not cover that key, so a signature for the key's own proof
    would get the other proof as well.

    Args:
        pkh: The key whose possession is to be proved.
        bound_to: The key that the request names by `bls_pk`.

    Raises:
        MalformedRequest: The hash is none.
    """
    bound = b"" if bound_to is None else bound_to.data
    octez = bytes([_MAGIC, _PROVE]) + _tagged(pkh) + bound
    for_itself = bound_to is None or public_key_hash(bound_to) == pkh
    return (authentication_bytes(pkh), octez) if for_itself else (octez,)


def _tagged(pkh: str) -> bytes:
    try:
        key_type, digest = parse_public_key_hash(pkh)
    except TezosError as error:
        raise MalformedRequest(str(error)) from None
    return bytes([key_type.facts.tag]) + digest
