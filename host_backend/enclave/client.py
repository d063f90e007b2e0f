"""The enclave's calls, typed, on one connection that was initialized. Handles are good on this connection only."""

from collections.abc import Callable
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
from host_backend.enclave.supervisor import DEFAULT_LIMITS, LinkLimits
from host_backend.errors import EnclaveRefused, EnclaveUnavailable, Unanswered

T = TypeVar("T")


class SigningClient:
    """An initialized connection, the keys that are open on it, and what may be asked of it while it is in service.

    That is nothing that may ask the enclave's sealer: answers come in order, and no signature may wait for one.

    Every call raises `EnclaveRefused`, or `Unanswered` when the connection ends first. Calls on a key name it by its
    hash: its handle stays in here, so that none can be sent on another connection.
    """

    def __init__(self, connection: EnclaveConnection) -> None:
        self._connection = connection
        self._handles: dict[str, int] = {}

    @property
    def alive(self) -> bool:
        """Whether the connection is good."""
        return self._connection.alive

    @property
    def broken(self) -> Unanswered | None:
        """Why the connection has ended; None while it is good."""
        return self._connection.broken

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

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def finish(self) -> None:
        """End the connection as soon as everything in flight is answered."""
        self._connection.finish()

    async def sign(self, pkh: str, message: bytes, version: SigningVersion) -> Signature:
        """Sign with an open key."""
        return await self._ask(Sign(self._handle(pkh), message, version), Signature)

    async def prove_possession(self, pkh: str) -> Signature:
        """Prove possession of an open BLS key."""
        return await self._ask(ProvePossession(self._handle(pkh)), Signature)

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

    def __init__(self, connection: EnclaveConnection, enclave_uid: int | None = None) -> None:
        super().__init__(connection)
        self._enclave_uid = enclave_uid

    def hold(self, pkh: str, handle: int) -> None:
        """Note under which handle a key was opened."""
        self._handles[pkh] = handle

    async def import_blob(self, blob: bytes) -> ImportedKey:
        """Open a sealed key."""
        return await self._ask(Import(blob), ImportedKey)

    async def import_unencrypted(self, private_key: PrivateKey) -> SealedKey:
        """Have a key sealed, and keep it open.

        Raises:
            EnclaveUnavailable: Another user's process answers on this machine; it is given nothing.
        """
        self._connection.check_peer(self._enclave_uid)
        return await self._ask(ImportUnencrypted(private_key), SealedKey)

    async def generate(self, key_type: KeyType) -> SealedKey:
        """Have a key made and sealed, and keep it open."""
        return await self._ask(GenerateAndImport(key_type), SealedKey)

    async def reseal(self, blob: bytes, target: str) -> SealedKey:
        """Have a sealed key sealed again, under the key-encryption key `target`."""
        return await self._ask(Reseal(blob, target), SealedKey)

    async def public_key_from(self, blob: bytes) -> PublicKey:
        """Ask for the public key of a sealed key, which is opened for that only."""
        return await self._ask(GetPublicKeyFrom(blob), PublicKey)


async def open_client(
    enclave: Endpoint,
    *,
    limits: LinkLimits = DEFAULT_LIMITS,
    patience_s: float | None = None,
    on_end: Callable[[Unanswered], None] | None = None,
) -> EnclaveClient:
    """Return an initialized client; see `connect`.

    Raises:
        EnclaveUnavailable: The enclave cannot be reached.
        EnclaveRefused: It does not accept the credentials.
    """
    connection = await connect(enclave.address, limits=limits, patience_s=patience_s, on_end=on_end)
    try:
        await connection.ask(Initialize(enclave.credentials))
    except BaseException:
        connection.close()
        raise
    return EnclaveClient(connection, enclave.uid)
