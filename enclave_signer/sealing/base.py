"""The sealing port, and the two promises that every sealer's blobs keep.

- *Sealed means it opens again*: a new blob is opened, and gives the same public key, before it is answered.
  A key that only an encrypt right protects would be lost, with its funds, at the next restart.
- *A blob is what it says*: a key that was opened gives the public key that its blob names.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from enclave_signer.curves import InvalidPrivateKey, SigningKey, curve
from enclave_signer.errors import BlobCorrupt, SealingRefused
from enclave_signer.protocol.messages import Credentials, PrivateKey, PublicKey

#: Lets other connections have their time; called between steps that take as long as a signature.
GiveWay = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class UnsealedKey:
    """What a blob held: the key, and the public key that the blob names (None for blobs without a header)."""

    private_key: PrivateKey
    named: PublicKey | None


class Sealer(Protocol):
    """Turns private keys into blobs and back. Raises `SealingError` and nothing else."""

    @property
    def shared_s(self) -> float:
        """Seconds for which new sessions of the same credentials may use it without asking for it again."""
        ...

    async def seal(self, private_key: PrivateKey, public_key: PublicKey) -> bytes:
        """Return a blob of at most `MAX_BLOB_BYTES`, safe to keep outside.

        Raises:
            SealingRefused: The sealer said no, do not retry.
            SealingUnavailable: No answer, retry later.
        """
        ...

    async def unseal(self, blob: bytes) -> UnsealedKey:
        """Return the key in a blob.

        Raises:
            BlobCorrupt: Not what was sealed.
            SealingRefused: Sealed under a key that this sealer may not use.
            NotReleased: It will be opened when somebody has allowed it.
            ReleaseDenied: It will not be opened for this image.
            SealingUnavailable: No answer, retry later.
        """
        ...


class Release(Protocol):
    """The release of a gated key: whether what it sealed may be used at the moment."""

    @property
    def fresh(self) -> bool:
        """Whether the key's service has released it not too long ago."""
        ...

    def check(self, blob: bytes) -> None:
        """Do nothing while it is fresh. Never waits: the service is asked again in time, by a task of the process.

        Args:
            blob: Of the key that is used; the service is asked about it where no other blob is known to open.

        Raises:
            SealingError: It is not, and why not.
        """
        ...


#: Returns the release that a blob needs in sessions of these credentials; None where it needs none.
ReleaseOf = Callable[[bytes, Credentials], Release | None]


class SealerSource(Protocol):
    """Opens sealers for sessions."""

    async def open_sealer(self, credentials: Credentials) -> Sealer:
        """Return the sealer that the credentials of `Initialize` ask for.

        Sessions may share it, and go on using it when a later call is not answered.

        Raises:
            SealingRefused: They ask for something that the configuration does not allow.
            SealingUnavailable: No answer, retry later.
        """
        ...


class SealerProvider(SealerSource, Protocol):
    """A source that the daemon's configuration chose; several may be in one process (`providers`)."""

    @property
    def name(self) -> str:
        """The name in configuration, logs and blob headers."""
        ...

    @property
    def takes_legacy(self) -> bool:
        """Whether blobs that name no sealer, as tee-signer's do, go to its sealers, which open or refuse them."""
        ...

    @property
    def limit_s(self) -> float | None:
        """Seconds for any answer of it or of its sealers; None when they never wait for anyone."""
        ...

    async def aclose(self) -> None:
        """Release everything; no call comes after this."""
        ...


@runtime_checkable
class KeepingProvider(Protocol):
    """A provider that keeps what its service gave it: a gated key must be asked for again all the same."""

    async def release(self, key: str, credentials: Credentials) -> Sealer:
        """Return a sealer for a key that its service has released just now; what was kept of it does not count.

        Args:
            key: The key-encryption key, as blobs name it.
            credentials: Of the sessions that want it.

        Raises:
            ReleaseDenied: The service does not release it to this image.
            SealingRefused: The configuration does not allow it.
            NotReleased: It will be released when somebody has allowed it.
            SealingUnavailable: No answer, retry later.
        """
        ...


@runtime_checkable
class IdentifiedProvider(Protocol):
    """A provider whose service knows the process by one of several identities; to all others, it has the same one."""

    def identity(self, credentials: Credentials) -> str:
        """Return the name of the identity that sessions of these credentials get, one of the configuration's.

        Raises:
            SealingRefused: They ask for one that the configuration does not allow.
        """
        ...


class Resealing(Protocol):
    """Decides which keys may be resealed, and by which sealer."""

    async def open_target(self, blob: bytes, target: str, credentials: Credentials) -> Sealer:
        """Return the sealer that reseals a blob under the key `target`, for sessions of these credentials.

        Raises:
            BlobCorrupt: The blob's header cannot be read.
            SealingRefused: The configuration does not allow it: no sealer was asked.
            SealingUnavailable: No answer, retry later.
        """
        ...


async def open_key(sealer: Sealer, blob: bytes, give_way: GiveWay) -> SigningKey:
    """Return the opened key of a blob, ready to sign.

    Raises:
        SealingError: As the sealer says, or `BlobCorrupt` when the key is not the one that the blob names.
    """
    return await _opened(await sealer.unseal(blob), give_way)


async def _opened(unsealed: UnsealedKey, give_way: GiveWay) -> SigningKey:
    await give_way()
    key_curve = curve(unsealed.private_key.key_type)
    try:
        key = key_curve.open(unsealed.private_key)
    except InvalidPrivateKey:
        raise BlobCorrupt("blob corrupt: it holds no valid private key") from None
    if unsealed.named is not None and unsealed.named != key.public_key:
        raise BlobCorrupt("blob corrupt: it holds another key than its header names")
    return key


async def seal_key(sealer: Sealer, private_key: PrivateKey, give_way: GiveWay) -> tuple[bytes, SigningKey]:
    """Return a new blob that was seen to open again, and its key, ready to sign.

    Raises:
        CurveError: The private key is not one.
        SealingError: As the sealer says, or `SealingRefused` when the new blob opens as another key.
    """
    key = curve(private_key.key_type).open(private_key)
    await give_way()
    blob = await sealer.seal(private_key, key.public_key)
    reopened = await open_key(sealer, blob, give_way)
    if reopened.public_key != key.public_key:
        raise SealingRefused("the new blob opens as another key: it was not kept")
    return blob, key


async def reseal_key(sealer: Sealer, blob: bytes, target: Sealer, give_way: GiveWay) -> tuple[bytes, SigningKey]:
    """Return a new blob of a sealed key, by another sealer, that was seen to open again; and the key.

    Raises:
        SealingError: As either sealer says, or as `open_key` and `seal_key` do.
    """
    unsealed = await sealer.unseal(blob)
    await _opened(unsealed, give_way)
    return await seal_key(target, unsealed.private_key, give_way)
