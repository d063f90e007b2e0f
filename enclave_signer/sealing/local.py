"""Sealing under a key file, for a laptop: AES-256-GCM. That file and the blobs together are the keys.

Not part of the production image: there a key management service seals for the measured image only.
"""

import math
import os
import stat
from hashlib import blake2b
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from enclave_signer.errors import ConfigError, SealingRefused, blob_error
from enclave_signer.new_file import write_new_file
from enclave_signer.protocol.blob import BlobHeader, parse_blob
from enclave_signer.protocol.errors import BadBlob
from enclave_signer.protocol.messages import Credentials, PrivateKey, PublicKey
from enclave_signer.sealing import aes_gcm
from enclave_signer.sealing.base import Sealer, UnsealedKey
from enclave_signer.sealing.local_config import LOCAL, LocalKey

#: AES-256.
KEY_BYTES = 32
#: What the texts below advise; the first is the flag, the second the field of an image's configuration.
_HOW_TO_MAKE = "--make-sealing-key, or local.make_sealing_key in an image"
_HOW_TO_SHARE = "--group-may-read-sealing-key, or local.group_may_read in an image"


class LocalSealer:
    """Seals under one AES key; both a sealer and the provider of it, as credentials choose nothing here."""

    name = LOCAL
    takes_legacy = False
    #: It never waits for anyone, and is there as long as the process.
    limit_s: float | None = None
    shared_s = math.inf

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._kek = _kek_name(key)

    def __repr__(self) -> str:
        """Return the name of the key, never the key."""
        return f"LocalSealer({self._kek})"

    async def open_sealer(self, credentials: Credentials) -> Sealer:
        """Return itself: the credentials name cloud resources, which mean nothing here."""
        del credentials
        return self

    async def aclose(self) -> None:
        """Nothing is held."""

    async def seal(self, private_key: PrivateKey, public_key: PublicKey) -> bytes:
        """Return a blob; see `Sealer`."""
        return aes_gcm.seal(self._cipher, BlobHeader(LOCAL, self._kek, public_key).encode(), private_key)

    async def unseal(self, blob: bytes) -> UnsealedKey:
        """Return the key in a blob; see `Sealer`."""
        try:
            header, authenticated, sealed = parse_blob(blob)
        except BadBlob as error:
            raise blob_error(error) from None
        if (header.sealer, header.kek) != (LOCAL, self._kek):
            raise SealingRefused(f"blob sealed by {header.sealer} under {header.kek}, this enclave has {self._kek}")
        return UnsealedKey(aes_gcm.unseal(self._cipher, authenticated, sealed), header.public_key)


def _kek_name(key: bytes) -> str:
    """Return a name that tells two key files apart and gives nothing away of either."""
    return f"local:{blake2b(key, digest_size=8, person=b'kek name').hexdigest()}"


def read_key_file(file: LocalKey) -> tuple[bytes, bool]:
    """Return the sealing key in a file, and whether it was made just now.

    Raises:
        ConfigError: There is no file and none may be made; or it is no key file, can be read by others, or cannot be
            made.
    """
    try:
        try:
            return _load(file), False
        except FileNotFoundError:
            if not file.make:
                raise ConfigError(
                    f"sealing key file {file.path} is not there: name the right file, or have a new key made: {_HOW_TO_MAKE}. "
                    "A new key opens nothing that was sealed before"
                ) from None
            return _create(file.path), True
    except OSError as error:
        raise ConfigError(f"sealing key file {file.path}: {error.strerror}") from error


def _load(file: LocalKey) -> bytes:
    path = file.path
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"sealing key file {path} is not a regular file")
        if status.st_mode & (0o037 if file.group_may_read else 0o077):
            raise ConfigError(_too_open(file, status.st_mode))
        key = stream.read(KEY_BYTES + 1)
    if len(key) != KEY_BYTES:
        raise ConfigError(f"sealing key file {path} must have {KEY_BYTES} bytes: restore it, or name another file")
    if len(set(key)) == 1:
        # A block that was lost reads as zeros.
        raise ConfigError(f"sealing key file {path} is damaged, all of its bytes are alike: restore it")
    return key


def _too_open(file: LocalKey, mode: int) -> str:
    if file.group_may_read:
        return f"sealing key file {file.path} can be used by more than its group's readers: chmod 440 {file.path}"
    text = f"sealing key file {file.path} can be used by others: chmod 600 {file.path}"
    if mode & 0o037:
        return text
    return f"{text}; or, for a file that an orchestrator mounts, {_HOW_TO_SHARE}"


def _create(path: Path) -> bytes:
    # A key file cut short would lose every blob sealed under it.
    key = os.urandom(KEY_BYTES)
    write_new_file(path, key)
    return key
