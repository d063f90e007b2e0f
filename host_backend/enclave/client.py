"""The enclave's calls, typed, on one connection that was initialized. Handles are good on this connection only."""

from typing import TypeVar

from enclave_signer.protocol.messages import (
    Credentials,
    GenerateAndImport,
    Import,
    ImportedKey,
    ImportUnencrypted,
    Initialize,
    KeyType,
    PrivateKey,
    ProvePossession,
    Request,
    SealedKey,
    Sign,
    Signature,
    SigningVersion,
)
from host_backend.enclave.connection import EnclaveConnection, connect
from host_backend.errors import EnclaveRefused, HostError

T = TypeVar("T")


class EnclaveClient:
    """An initialized connection. Every call raises `EnclaveRefused` or `EnclaveUnavailable`."""

    def __init__(self, connection: EnclaveConnection) -> None:
        self._connection = connection

    @property
    def broken(self) -> HostError | None:
        """Why the connection has ended; None while it is good."""
        return self._connection.broken

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    async def import_blob(self, blob: bytes) -> ImportedKey:
        """Open a sealed key."""
        return await self._ask(Import(blob), ImportedKey)

    async def import_unencrypted(self, private_key: PrivateKey) -> SealedKey:
        """Have a key sealed, and keep it open."""
        return await self._ask(ImportUnencrypted(private_key), SealedKey)

    async def generate(self, key_type: KeyType) -> SealedKey:
        """Have a key made and sealed, and keep it open."""
        return await self._ask(GenerateAndImport(key_type), SealedKey)

    async def sign(self, handle: int, message: bytes, version: SigningVersion) -> Signature:
        """Sign with an open key."""
        return await self._ask(Sign(handle, message, version), Signature)

    async def prove_possession(self, handle: int) -> Signature:
        """Prove possession of an open BLS key."""
        return await self._ask(ProvePossession(handle), Signature)

    async def _ask(self, request: Request, expected: type[T]) -> T:
        result = await self._connection.ask(request)
        if not isinstance(result, expected):
            raise EnclaveRefused("the enclave's answer is of another kind than the call")
        return result


async def open_client(host: str, port: int, credentials: Credentials) -> EnclaveClient:
    """Return an initialized client.

    Raises:
        EnclaveUnavailable: The enclave cannot be reached.
        EnclaveRefused: It does not accept the credentials.
    """
    connection = await connect(host, port)
    try:
        await connection.ask(Initialize(credentials))
    except BaseException:
        connection.close()
        raise
    return EnclaveClient(connection)
