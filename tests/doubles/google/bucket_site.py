"""A configuration whose keys are in the double of Cloud Storage, and its commands and host as real processes."""

from dataclasses import dataclass

from tests.doubles.google.led_site import LedSite
from tests.doubles.google.storage import BUCKET, StorageDouble
from tests.doubles.host_process import BAKER, BASE_NAME, FILE_WATERMARKS, VAULT
from tests.doubles.processes import Enclave


@dataclass
class BucketSite(LedSite[StorageDouble]):
    """A configuration, and the double that its host is led to; `key` is the key-encryption key of its vault."""

    MODULE = "tests.doubles.google.bucket_host"
    VARIABLE = "STORAGE_DOUBLE"

    enclave: Enclave
    key: str | None = None

    @property
    def keys(self) -> dict[str, bytes]:
        """The blobs of all objects that have the name of a key."""
        return self.double.below("enclave-host/keys/")

    def configure(self, *pkhs: str, more: str = "") -> None:
        self.folder.mkdir(exist_ok=True)
        where = f"host: 127.0.0.1, port: {self.enclave.port}"
        if self.key is not None:
            where += f", encryption_key_path: {self.key}"
        storage = f"storage: {{driver: gcs, config: {{bucket: {BUCKET}}}}}"
        lines = [
            f"base_dir: {self.folder / BASE_NAME}",
            "server: {address: '127.0.0.1:0', utility_address: '127.0.0.1:0'}",
            "vaults:",
            f"  {VAULT}: {{driver: confidentialspace, config: {{{where}, {storage}}}}}",
            "tezos:",
            *(f"  {pkh}: {BAKER}" for pkh in pkhs),
            f"watermark: {FILE_WATERMARKS}",
            more,
        ]
        self.config.write_text("\n".join(lines) + "\n")
