"""What a client signs to show who it is: Signatory's and Octez' authentication of requests. Pure.

Source: Octez `src/lib_signer_services/signer_messages.ml`; `authentication` in `tests/vectors/signatory-vectors.json`.
"""

from enclave_signer.protocol.messages import PublicKey
from enclave_signer.tezos import Family, Kind, TezosError, decode
from host_backend.errors import MalformedRequest

#: First bytes of what a client signs to have something signed. Signatory wants them for a proof as well.
_SIGN = b"\x04\x01"
#: First bytes of what Octez signs to have possession proved.
_PROVE = b"\x04\x04"
_HASH_TAGS = {
    Kind.ED25519_PUBLIC_KEY_HASH: 0,
    Kind.SECP256K1_PUBLIC_KEY_HASH: 1,
    Kind.P256_PUBLIC_KEY_HASH: 2,
    Kind.BLS_PUBLIC_KEY_HASH: 3,
}


def authentication_bytes(pkh: str, message: bytes = b"") -> bytes:
    """Return what a client signs to have a message signed.

    Args:
        pkh: The key that shall sign, `tz1…` to `tz4…`.
        message: What it shall sign; empty for a proof of possession, as Signatory expects it.

    Returns:
        The tagged bytes; the client's key signs them as it signs any message.

    Raises:
        MalformedRequest: The hash is none.
    """
    return _SIGN + _tagged(pkh) + message


def proof_requests(pkh: str, bound_to: PublicKey | None = None) -> tuple[bytes, bytes]:
    """Return what a client may sign to have possession proved: Signatory's form, then Octez's.

    Args:
        pkh: The key that is asked for.
        bound_to: The key that the request names by `bls_pk`.

    Raises:
        MalformedRequest: The hash is none.
    """
    tagged = _tagged(pkh)
    return _SIGN + tagged, _PROVE + tagged + (b"" if bound_to is None else bound_to.data)


def _tagged(pkh: str) -> bytes:
    try:
        kind, digest = decode(pkh, Family.PUBLIC_KEY_HASH)
    except TezosError as error:
        raise MalformedRequest(str(error)) from None
    return bytes([_HASH_TAGS[kind]]) + digest
