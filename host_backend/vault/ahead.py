"""The part of a BLS verification that needs no signature, done while the enclave signs.

- It is done for a request that is alone: the signatures of several are verified together, which is cheaper.
- The event loop does it, 0.37 ms that it would wait for the enclave; a thread would often begin too late. So it is not done
  where keys of other curves sign in the same vault: their requests would wait. Those of other vaults do, that long.
"""

import asyncio

from enclave_signer.curves import Expected, expected_signature
from enclave_signer.protocol.messages import SigningVersion
from host_backend.enclave.link import EnclaveLink
from host_backend.vault.keys import VaultKey
from host_backend.vault.verification import Verification


def verified_ahead(
    key: VaultKey, message: bytes, version: SigningVersion, link: EnclaveLink, verification: Verification
) -> Expected | None:
    """Have a signature verified in part while it is made, if it is the only one; call it before it is asked for.

    Args:
        key: Makes it.
        message: Is signed.
        version: How.
        link: Leads to the enclave.
        verification: Verifies signatures of this enclave.

    Returns:
        The verification; None where no part of it can be done before.
    """
    if not key.public_key.key_type.facts.slow:
        return None
    expected = expected_signature(key.verifying_key, message, version)
    if expected is None:
        return None

    def prepare() -> None:
        client = link.client
        if client is not None and client.calls_in_flight == 1 and verification.may_begin:
            expected.prepare()

    # The call is sent in the next pass of the loop; those who ask in this one are known then.
    loop = asyncio.get_running_loop()
    loop.call_soon(loop.call_soon, prepare)
    return expected
