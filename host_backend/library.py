"""The names that a program needs to use a vault: `from host_backend.library import open_vault`.

What they do is in `docs/library.md`, with an example. Other modules may change from one version to the next.
"""

from enclave_signer import __version__
from enclave_signer.protocol.key_types import KeyType
from enclave_signer.protocol.messages import Credentials, PrivateKey, PublicKey, Signature, SigningVersion
from enclave_signer.tezos import (
    TezosError,
    encode_public_key,
    encode_signature,
    parse_public_key,
    parse_secret_key,
    parse_signature,
    public_key_hash,
)
from host_backend.addresses import Address, UnixAddress
from host_backend.enclave.endpoint import Endpoint
from host_backend.enclave.supervisor import LinkLimits
from host_backend.errors import (
    ConfigError,
    EnclaveRefused,
    EnclaveUnavailable,
    HostError,
    KeyNotFound,
    MalformedRequest,
    StoreUnavailable,
)
from host_backend.keystore.base import KeyStore, StoredKey
from host_backend.keystore.file import FileKeyStore
from host_backend.vault.keys import VaultKey
from host_backend.vault.provisioning import Imported, Provisioning, open_provisioning
from host_backend.vault.vault import Vault, open_vault

__all__ = [
    "Address",
    "ConfigError",
    "Credentials",
    "EnclaveRefused",
    "EnclaveUnavailable",
    "Endpoint",
    "FileKeyStore",
    "HostError",
    "Imported",
    "KeyNotFound",
    "KeyStore",
    "KeyType",
    "LinkLimits",
    "MalformedRequest",
    "PrivateKey",
    "Provisioning",
    "PublicKey",
    "Signature",
    "SigningVersion",
    "StoreUnavailable",
    "StoredKey",
    "TezosError",
    "UnixAddress",
    "Vault",
    "VaultKey",
    "__version__",
    "encode_public_key",
    "encode_signature",
    "open_provisioning",
    "open_vault",
    "parse_public_key",
    "parse_secret_key",
    "parse_signature",
    "public_key_hash",
]
