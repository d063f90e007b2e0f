"""The part of a BLS verification that needs no signature, done in a thread while the enclave signs.

It is done for a request that is alone: the signatures of several are verified together, which is cheaper.
"""

import asyncio
from threading import Lock

from enclave_signer.curves import Expected, expected_signature
from enclave_signer.protocol.messages import Signature, SigningVersion
from host_backend.enclave.link import EnclaveLink
from host_backend.vault.keys import VaultKey
from host_backend.vault.verification import Verification


class Ahead:
    """A verification that is `Expected`, and may be prepared by one thread and ended by another.

    Args:
        expected: What is prepared; nobody else uses it.

    Attributes:
        begun: Whether it was begun before the signature was there.
    """

    __slots__ = ("_expected", "_lock", "begun")

    def __init__(self, expected: Expected) -> None:
        self._expected = expected
        self._lock = Lock()
        self.begun = False

    def prepare_in_thread(self) -> None:
        """Begin."""
        try:
            asyncio.get_running_loop().run_in_executor(None, self.prepare)
        except (RuntimeError, MemoryError):
            # Without a thread all of it is done afterwards.
            return
        self.begun = True

    def prepare(self) -> None:
        """Do the part; see `Expected`."""
        with self._lock:
            self._expected.prepare()

    def verify(self, signature: Signature) -> None:
        """Return when the signature is right; wait for the thread that prepares, or do that."""
        self.prepare()
        self._expected.verify(signature)


def verified_ahead(
    key: VaultKey, message: bytes, version: SigningVersion, link: EnclaveLink, verification: Verification
) -> Ahead | None:
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
    expected = expected_signature(key.verifying_key, message, version)
    if expected is None:
        return None
    ahead = Ahead(expected)

    def begin() -> None:
        client = link.client
        if client is not None and client.calls_in_flight == 1 and verification.idle:
            ahead.prepare_in_thread()

    # The call is sent in the next pass of the loop; those who ask in this one are known then.
    loop = asyncio.get_running_loop()
    loop.call_soon(loop.call_soon, begin)
    return ahead


def begun(ahead: Ahead | None) -> Ahead | None:
    """Return a verification if it was begun; the others are done at once, which is a little faster."""
    return ahead if ahead is not None and ahead.begun else None
