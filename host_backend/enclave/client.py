"""The enclave's calls, typed, on one connection that was initialized. Handles are good on this connection only."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from enclave_signer.protocol.messages import (
    GenerateAndImport,
    GetPublicKey,
    GetPublicKeyFrom,
    Import,
    ImportedKey,
    ImportUnencrypted,
    Initialize,
    KeyType,
    PrivateKey,
    ProvePossession,
    ProvePossessionOf,
    PublicKey,
    Request,
    Reseal,
    SealedKey,
    Sign,
    Signature,
    SigningVersion,
)
from host_backend.enclave.connection import EnclaveConnection, connect
from host_backend.enclave.endpoint import Endpoint
from host_backend.enclave.proving import Proof
from host_backend.enclave.supervisor import DEFAULT_LIMITS, LinkLimits
from host_backend.errors import EnclaveRefused, EnclaveUnavailable, Unanswered

T = TypeVar("T")


class SigningClient:
    """An initialized connection, the keys that are open on it, and what may be asked of it while it is in service.

    That is nothing that may ask the enclave's sealer: answers come in order, and no signature may wait for one.

    Every call raises `EnclaveRefused`, or `Unanswered` when the connection ends first. Calls on a key name it by its
    hash: its handle stays in here, so that none can be sent on another connection.
    """

    def __init__(self, connection: EnclaveConnection, proof: Proof | None = None) -> None:
        self._connection = connection
        self._handles: dict[str, int] = {}
        #: For how long it is proven; None where no proof was asked for.
        self.proof = proof

    @property
    def alive(self) -> bool:
        """Whether the connection is good."""
        return self._connection.alive

    @property
    def broken(self) -> Unanswered | None:
        """Why the connection has ended; None while it is good."""
        return self._connection.broken

    @property
    def calls_in_flight(self) -> int:
        """Calls that have no answer yet."""
        return self._connection.calls_in_flight

    def require_alive(self) -> None:
        """Pass while the connection is good.

        Raises:
            Unanswered: It has ended; the text says why.
        """
        if (end := self.broken) is not None:
            raise end

    def holds(self, pkh: str) -> bool:
        """Whether a key is open here."""
        return pkh in self._handles

    @property
    def may_carry_secrets(self) -> bool:
        """Whether a private key in clear may be sent: to an enclave that is proven, or on this machine."""
        return self.proof is not None or self._connection.is_local

    @property
    def proof_is_due(self) -> bool:
        """Whether another proof should be asked for."""
        return self.proof is not None and (self.proof.policy.doubted or self._connection.now >= self.proof.renew_at)

    @property
    def doubted(self) -> bool:
        """Whether it was proven by what may not count any more."""
        return self.proof is not None and self.proof.policy.doubted

    def outlast_proof(self) -> None:
        """Go on as long as may be without another proof: none can be had."""
        if self.proof is not None:
            self._connection.good_until = self.proof.outlasts_to

    @property
    def good_until(self) -> float:
        """Until when it may be asked, in seconds since 1970; infinity where no proof was asked for."""
        return self._connection.good_until

    def close(self, reason: Unanswered | None = None) -> None:
        """End the connection."""
        self._connection.close(reason)

    def finish(self) -> None:
        """End the connection as soon as everything in flight is answered."""
        self._connection.finish()

    async def sign(self, pkh: str, message: bytes, version: SigningVersion) -> Signature:
        """Sign with an open key."""
        return await self._ask(Sign(self._handle(pkh), message, version), Signature)

    async def prove_possession(self, pkh: str, other: PublicKey | None = None) -> Signature:
        """Prove possession of an open BLS key, for itself or for another key."""
        handle = self._handle(pkh)
        request = ProvePossession(handle) if other is None else ProvePossessionOf(handle, other)
        return await self._ask(request, Signature)

    async def public_key(self, pkh: str) -> PublicKey:
        """Ask for the public key of an open key."""
        return await self._ask(GetPublicKey(self._handle(pkh)), PublicKey)

    async def check(self) -> None:
        """Ask for something that the enclave has at hand; without an answer in time the connection ends."""
        if self._handles:
            await self.public_key(next(iter(self._handles)))

    def _handle(self, pkh: str) -> int:
        handle = self._handles.get(pkh)
        if handle is None:
            raise EnclaveUnavailable(f"{pkh} is not open on the connection to the enclave: retry later")
        return handle

    async def _ask(self, request: Request, expected: type[T]) -> T:
        result = await self._connection.ask(request)
        if not isinstance(result, expected):
            raise EnclaveRefused("the enclave's answer is of another kind than the call")
        return result


class EnclaveClient(SigningClient):
    """The same connection while it is not used for signatures: it may also be asked for what may ask the enclave's sealer."""

    def __init__(
        self, connection: EnclaveConnection, proof: Proof | None = None, enclave_uid: int | None = None
    ) -> None:
        super().__init__(connection, proof)
        self._enclave_uid = enclave_uid

    def hold(self, pkh: str, handle: int) -> None:
        """Note under which handle a key was opened."""
        self._handles[pkh] = handle

    async def import_blob(self, blob: bytes) -> ImportedKey:
        """Open a sealed key."""
        return await self._ask(Import(blob), ImportedKey)

    def require_may_carry_secrets(self) -> None:
        """Pass when a private key in clear may be sent.

        Raises:
            EnclaveRefused: It would cross a network to an enclave that was not proven.
        """
        if not self.may_carry_secrets:
            raise EnclaveRefused(
                "a private key is not sent in clear to an enclave on another machine that was not proven: configure `tls` and "
                "`attestation` of the vault, or import where the enclave runs"
            )

    async def import_unencrypted(self, private_key: PrivateKey) -> SealedKey:
        """Have a key sealed, and keep it open.

        Raises:
            EnclaveRefused: The key would cross a network to an enclave that was not proven; it was not sent.
            EnclaveUnavailable: Another user's process answers on this machine; it is given nothing.
        """
        self.require_may_carry_secrets()
        self._connection.check_peer(self._enclave_uid)
        return await self._ask(ImportUnencrypted(private_key), SealedKey)

    async def generate(self, key_type: KeyType) -> SealedKey:
        """Have a key made and sealed, and keep it open."""
        return await self._ask(GenerateAndImport(key_type), SealedKey)

    async def reseal(self, blob: bytes, target: str) -> SealedKey:
        """Have a sealed key sealed again, under the key-encryption key `target`."""
        return await self._ask(Reseal(blob, target), SealedKey)

    async def public_key_from(self, blob: bytes) -> PublicKey:
        """Ask for the public key of a sealed key, which the enclave's sealer opens for that, even if it is open already."""
        return await self._ask(GetPublicKeyFrom(blob), PublicKey)


#: Gives a connection to one enclave that is not used for signatures.
GetConnection = Callable[[], AbstractAsyncContextManager[EnclaveClient]]


async def open_client(
    enclave: Endpoint,
    *,
    limits: LinkLimits = DEFAULT_LIMITS,
    patience_s: float | None = None,
    on_end: Callable[[Unanswered], None] | None = None,
    by_new_token: bool = False,
) -> EnclaveClient:
    """Return an initialized client, proven where the endpoint asks for that; see `connect`.

    Args:
        enclave: Where it is.
        limits: As of `connect`.
        patience_s: As of `connect`.
        on_end: As of `connect`.
        by_new_token: Whether it must be proven by a new token.

    Raises:
        AttestationRefused: It is not proven; nothing but the question for a proof went out.
        EnclaveUnavailable: The enclave cannot be reached, or whether it can be trusted is not known at the moment.
        EnclaveRefused: It does not accept the credentials.
    """
    connection = await connect(enclave.address, tls=enclave.tls, limits=limits, patience_s=patience_s, on_end=on_end)
    proof = None
    try:
        if enclave.proving is not None:
            proof = await enclave.proving.prove(connection, by_new_token=by_new_token)
            connection.use_until(proof.expires_at, enclave.proving.clock)
        await connection.ask(Initialize(enclave.credentials))
    except BaseException:
        connection.close()
        raise
    return EnclaveClient(connection, proof, enclave.uid)
