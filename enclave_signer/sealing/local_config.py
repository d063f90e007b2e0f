"""The key file of the local sealer, as flags or an image's table `local` name it; the sealer itself is not in every image."""

from dataclasses import dataclass
from pathlib import Path

from enclave_signer.toml_table import TomlTable

LOCAL = "local"


@dataclass(frozen=True, slots=True)
class LocalKey:
    """The key file of the local sealer.

    Attributes:
        path: The file.
        make: Whether a new key is made when the file is not there.
        group_may_read: Whether its group may read it, as where an orchestrator mounts a secret for one.
    """

    path: Path
    make: bool = False
    group_may_read: bool = False

    @property
    def seal_keys(self) -> tuple[str, ...]:
        """Names of the keys that others' blobs may be sealed under again: none, as the key is a file's."""
        return ()

    def is_source(self, name: str) -> bool:
        """Whether blobs may name such a key."""
        return name.startswith(f"{LOCAL}:")

    def opens(self, name: str) -> bool:
        """Whether it may be this key: the file says which one it is."""
        return self.is_source(name)


def read_local(table: TomlTable) -> LocalKey:
    """Return what the table says.

    Raises:
        ConfigError: Something in it is wrong.
    """
    key = LocalKey(
        Path(table.text("sealing_key")),
        make=table.flag("make_sealing_key", default=False),
        group_may_read=table.flag("group_may_read", default=False),
    )
    table.end()
    return key
