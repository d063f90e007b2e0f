"""Sealing by Google's Cloud KMS: only an image that IAM grants a key to has its blobs opened.

- What may be asked for stands in the image's own configuration (`allow_list`), and is looked up before anything else.
- The header of a blob is its additional authenticated data. A legacy blob, as tee-signer writes them, has neither, and
  opens under the key that the session named.
- Google knows the identity ahead of the first call that needs it: `gcp_identity`. How it is called: `gcp_client`.
"""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from enclave_signer.errors import BlobCorrupt, SealingRefused, blob_error
from enclave_signer.protocol import codec
from enclave_signer.protocol.blob import BlobHeader, is_ours, parse_blob
from enclave_signer.protocol.errors import BadBlob, BadMessage
from enclave_signer.protocol.messages import MAX_BLOB_BYTES, Credentials, PrivateKey, PublicKey
from enclave_signer.sealing import gcp_names
from enclave_signer.sealing.base import Sealer, UnsealedKey
from enclave_signer.sealing.gcp_answers import NotAuthenticated
from enclave_signer.sealing.gcp_client import GcpPlaces, KmsClient
from enclave_signer.sealing.gcp_config import GCP_KMS, GcpKmsConfig
from enclave_signer.sealing.gcp_identity import Access, Identity
from enclave_signer.sealing.gcp_launcher import Launcher

T = TypeVar("T")

LEGACY_NOT_READ = "blob without a header, as tee-signer seals: this image reads none (read_legacy is false)"


@dataclass(frozen=True, slots=True, kw_only=True)
class GcpTimes:
    """Seconds for each step, and for all that one call of a session may need of them."""

    #: For the launcher's socket, which takes about a second.
    launcher_s: float = 5.0
    #: For an answer of STS.
    exchange_s: float = 10.0
    #: Until STS is asked again after it refused.
    refused_s: float = 30.0
    #: For all attempts of one call. A key on the other side of the world, or in hardware, takes half a second.
    call_s: float = 8.0
    #: Less than a session has for `Initialize`, and than a host waits.
    limit_s: float = 25.0


DEFAULT_TIMES = GcpTimes()


class GcpKms:
    """The provider of sealers that use Cloud KMS.

    Args:
        config: Of the image.
        places: Where the services are.
        times: How long they may take.
    """

    name = GCP_KMS
    #: Those that are not read are refused with the reason: they are not corrupt.
    takes_legacy = True

    def __init__(self, config: GcpKmsConfig, places: GcpPlaces, times: GcpTimes = DEFAULT_TIMES) -> None:
        self.limit_s: float | None = times.limit_s
        self._config = config
        launcher = Launcher(places.token_file, places.launcher_socket, config.token_audience, times.launcher_s)
        self._identities = {
            provider: Identity(provider, launcher, places.open_sts, limit_s=times.exchange_s, refused_s=times.refused_s)
            for provider in config.allow_list.identity_providers
        }
        self._kms = KmsClient(places.open_kms(), times.call_s)

    async def open_sealer(self, credentials: Credentials) -> Sealer:
        """Return a sealer of the key and identity that a session asks for, once Google knows the identity.

        Raises:
            SealingRefused: The image does not allow them, or Google refuses.
            SealingUnavailable: No answer, retry later.
        """
        provider = self.identity(credentials)
        key = self._config.allow_list.key(credentials.encryption_key_path)
        _check_form(key)
        await self._identities[provider].access()
        return _GcpKmsSealer(self._config, self._kms, self._identities[provider], key)

    def identity(self, credentials: Credentials) -> str:
        """Return the identity provider that a session gets; see `IdentifiedProvider`."""
        return self._config.allow_list.identity_provider(credentials.wip_provider_path)

    async def aclose(self) -> None:
        """Close the connection to Cloud KMS."""
        self._kms.close()


class _GcpKmsSealer:
    """Seals under one key, opens under those that the image allows."""

    #: The identity renews itself, and a refusal shows at the next call.
    shared_s = math.inf

    def __init__(self, config: GcpKmsConfig, kms: KmsClient, identity: Identity, key: str) -> None:
        self._config = config
        self._kms = kms
        self._identity = identity
        self._key = key

    async def seal(self, private_key: PrivateKey, public_key: PublicKey) -> bytes:
        """Return a blob; see `Sealer`."""
        self._config.allow_list.check_sealing(self._key)
        header = b"" if self._config.write_legacy else BlobHeader(GCP_KMS, self._key, public_key).encode()
        secret = codec.encode_private_key(private_key)
        ciphertext = await self._asked(lambda access: self._kms.encrypt(access, self._key, secret, header))
        if len(header) + len(ciphertext) > MAX_BLOB_BYTES:
            raise SealingRefused(f"Cloud KMS made a blob of more than {MAX_BLOB_BYTES} bytes")
        return header + ciphertext

    async def unseal(self, blob: bytes) -> UnsealedKey:
        """Return the key in a blob; see `Sealer`."""
        key, named, authenticated, ciphertext = self._key, None, b"", blob
        if not is_ours(blob) and not self._config.read_legacy:
            raise SealingRefused(LEGACY_NOT_READ)
        if is_ours(blob):
            try:
                header, authenticated, ciphertext = parse_blob(blob)
            except BadBlob as error:
                raise blob_error(error) from None
            if header.sealer != GCP_KMS:
                raise SealingRefused(f"blob sealed by {header.sealer[:40]!r}, this is {GCP_KMS}")
            key, named = header.kek, header.public_key
        self._config.allow_list.check_opening(key)
        _check_form(key)
        secret = await self._asked(lambda access: self._kms.decrypt(access, key, ciphertext, authenticated))
        try:
            return UnsealedKey(codec.decode_private_key(secret), named)
        except BadMessage:
            raise BlobCorrupt("blob corrupt: it holds no private key") from None

    async def _asked(self, ask: Callable[[Access], Awaitable[T]]) -> T:
        """Ask with an access token; once more with another one if Google does not take it, and there is one."""
        access = await self._identity.access()
        try:
            return await ask(access)
        except NotAuthenticated:
            self._identity.forget(access)
            another = await self._identity.access()
            if another is access:
                raise
        return await ask(another)


def _check_form(key: str) -> None:
    # A prefix allows every name that begins so, also names of key versions, which are not keys.
    if not gcp_names.is_key(key):
        raise SealingRefused(f"{key[:200]!r} is not a key of Cloud KMS, which has the form {gcp_names.KEY_FORM}")
