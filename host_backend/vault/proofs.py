"""Proofs of possession: of which keys there are any, for which others, and what an old enclave says of those."""

from collections.abc import Awaitable, Callable

from enclave_signer.curves import CurveError, curve
from enclave_signer.protocol.messages import PublicKey, Signature
from host_backend.enclave.client import SigningClient
from host_backend.errors import EnclaveRefused, MalformedRequest, ReleaseDenied
from host_backend.vault.keys import VaultKey
from host_backend.vault.verification import Verification

#: Asks the enclave, on whichever connection serves, and says on which.
Ask = Callable[[Callable[[SigningClient], Awaitable[Signature]]], Awaitable[tuple[SigningClient, Signature]]]


def check_proof(key: VaultKey, other: PublicKey | None) -> None:
    """Pass when a key may be asked for such a proof.

    Raises:
        MalformedRequest: Its type has none, or `other` is no key.
    """
    if not key.public_key.key_type.facts.proves_possession:
        raise MalformedRequest("proof of possession is not supported: only tz4 keys have it")
    if other is not None:
        try:
            curve(other.key_type).parse_public_key(other.data)
        except CurveError as error:
            raise MalformedRequest(f"no proof of possession for that key: {error}") from None


async def verified_proof(ask: Ask, verification: Verification, key: VaultKey, other: PublicKey | None) -> Signature:
    """Return a proof of a key that is open, for itself or for another.

    Raises:
        EnclaveRefused: The enclave did not prove it, or wrongly.
        EnclaveUnavailable: It did not answer.
    """
    try:
        client, proof = await ask(lambda client: client.prove_possession(key.pkh, other))
    except EnclaveRefused as error:
        if other is None or isinstance(error, ReleaseDenied):
            raise
        raise EnclaveRefused(f"{error}; tee-signer proves no other key, enclave-signer does since 0.2") from error
    await verification.check(client, key, lambda: key.verifying_key.verify_possession(proof, other))
    return proof
