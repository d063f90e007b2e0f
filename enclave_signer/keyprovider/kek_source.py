"""The port behind which a key-encryption key (KEK) is kept, and the first source: a sealed file."""

import hmac
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import trio

from enclave_signer.errors import BlobCorrupt, NotReleased, SealingError, SealingUnavailable
from enclave_signer.keyprovider import kek_file
from enclave_signer.keyprovider.errors import KekDamaged, KekMissing, KekUnavailable, KeyproviderError, NotAllowed
from enclave_signer.protocol.key_types import KeyType
from enclave_signer.protocol.messages import PrivateKey
from enclave_signer.sealing.base import Sealer, seal_key
from enclave_signer.sealing.kbs_kek import commitment

#: Bytes of the seed that the sealer seals for a file.
SEED_BYTES = 32

OpenSealer = Callable[[], Awaitable[Sealer]]


class KekSource(Protocol):
    """Where a KEK comes from."""

    async def fetch(self) -> bytes:
        """Return its 32 bytes.

        Raises:
            KeyproviderError: As what a client is answered.
        """
        ...


class SealedFile:
    """A KEK in a sealed file.

    Args:
        key_id: Its id, which the file must have as well.
        path: The file.
        open_sealer: Returns what opens it.
        committed: The commitment to the key: the sealer opens a seed of anyone who can have one sealed. None: any key.
    """

    def __init__(self, key_id: str, path: Path, open_sealer: OpenSealer, committed: str | None = None) -> None:
        self._key_id = key_id
        self._path = path
        self._open_sealer = open_sealer
        self._committed = committed

    async def fetch(self) -> bytes:
        """Return the KEK; see `KekSource`."""
        try:
            file = kek_file.read(self._path)
        except FileNotFoundError:
            raise KekMissing(f"the key {self._key_id!r} is not stored yet: enclave-keyprovider store-kek") from None
        except OSError as error:
            raise KekUnavailable(f"the file of the key {self._key_id!r}: {error.strerror}") from error
        except BlobCorrupt as error:
            raise answer_of(error, self._key_id) from None
        if file.key_id != self._key_id:
            raise KekDamaged(f"the file of the key {self._key_id!r} holds another key: correct the configuration")
        try:
            sealer = await self._open_sealer()
            kek = kek_file.decrypt(file, (await sealer.unseal(file.blob)).private_key.data)
        except SealingError as error:
            raise answer_of(error, self._key_id) from error
        self._check(kek)
        return kek

    async def store(self, kek: bytes) -> None:
        """Seal a KEK into its file, and see that it opens again.

        Args:
            kek: 32 bytes.

        Raises:
            KekDamaged: It is not the key of the commitment.
            SealingError: The sealer does not seal it.
            FileExistsError: There is such a file: it is never replaced.
            OSError: The file cannot be written.
        """
        if self._path.exists():
            raise FileExistsError(self._path)
        self._check(kek)
        sealer = await self._open_sealer()
        seed = os.urandom(SEED_BYTES)
        blob, _ = await seal_key(sealer, PrivateKey(KeyType.ED25519, seed), trio.lowlevel.checkpoint)
        kek_file.write_new(self._path, kek_file.encrypt(self._key_id, kek, seed, blob))

    def _check(self, kek: bytes) -> None:
        if self._committed is not None and not hmac.compare_digest(commitment(kek), self._committed):
            raise KekDamaged(
                f"the key {self._key_id!r} is not the one of its commitment: restore its file, or correct the configuration"
            )


def answer_of(error: SealingError, key_id: str) -> KeyproviderError:
    """Return what a client is answered when a KEK cannot be opened."""
    match error:
        case SealingUnavailable() | NotReleased():
            return KekUnavailable(f"the key {key_id!r} cannot be opened now: {error}")
        case BlobCorrupt():
            return KekDamaged(f"the key {key_id!r}: {error}")
        case _:
            return NotAllowed(f"the key {key_id!r} is not opened: {error}")
