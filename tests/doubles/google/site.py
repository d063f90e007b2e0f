"""A configuration whose keys and marks are in the double of Firestore, and its commands and host as real processes."""

import json
from dataclasses import dataclass
from pathlib import Path

from tests.doubles.enclave_proxy import EnclaveProxy
from tests.doubles.fault_proxy import FaultProxy
from tests.doubles.google.firestore import FirestoreDouble
from tests.doubles.google.led_site import LedSite
from tests.doubles.host_process import BAKER, BASE_NAME, VAULT
from tests.doubles.known_keys import FOUR
from tests.doubles.processes import Enclave

MODULE = "tests.doubles.google.host"
ALICE, BOB, *_ = FOUR
IN_FIRESTORE = "{driver: gcp, config: {project: p}}"


@dataclass
class Site(LedSite[FirestoreDouble]):
    """A configuration, and the double that its host is led to; `key` is the key-encryption key of its vault."""

    MODULE = MODULE
    VARIABLE = "FIRESTORE_DOUBLE"

    enclave: Enclave | EnclaveProxy | FaultProxy
    key: str | None = None

    @property
    def base(self) -> Path:
        return self.folder / BASE_NAME

    def configure(self, watermark: str = IN_FIRESTORE, *keys: str) -> None:
        self.folder.mkdir(exist_ok=True)
        storage = "storage: {driver: firestore, config: {project: p}}"
        where = f"host: 127.0.0.1, port: {self.enclave.port}"
        if self.key is not None:
            where += f", encryption_key_path: {self.key}"
        lines = [
            f"base_dir: {self.base}",
            "server: {address: '127.0.0.1:0', utility_address: '127.0.0.1:0'}",
            "vaults:",
            f"  {VAULT}: {{driver: confidentialspace, config: {{{where}, {storage}}}}}",
            "tezos:",
            *(f"  {pkh}: {BAKER}" for pkh in keys or (ALICE.pkh, BOB.pkh)),
            f"watermark: {watermark}",
        ]
        self.config.write_text("\n".join(lines) + "\n")

    def marks(self) -> list[tuple[str, int]]:
        """The right and level of every mark that is shown."""
        return [
            (each["right"], each["level"]) for each in json.loads(self.command("watermark", "show", "--json"))["marks"]
        ]
