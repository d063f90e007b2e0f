"""The image's list of keys that may be sealed again: from which key-encryption key, to which one, and by which sealer.

Keys are named as the headers of blobs name them, so that each name belongs to one sealer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from enclave_signer.protocol.blob import LEGACY
from enclave_signer.toml_table import TomlTable


class SealerConfig(Protocol):
    """What an image says of one of its sealers, as far as the list needs it."""

    @property
    def seal_keys(self) -> tuple[str, ...]:
        """Names of the keys that may be a target."""
        ...

    def is_source(self, name: str) -> bool:
        """Whether this is a key that its blobs may name, or how such keys begin, up to a `/`."""
        ...

    def opens(self, name: str) -> bool:
        """Whether the image lets it open blobs under this key, or under one that begins so, up to a `/`."""
        ...


def covers(name: str, key: str) -> bool:
    """Whether a name in an image is a key, or how it begins, up to a `/`."""
    return key == name or (name.endswith("/") and key.startswith(name))


@dataclass(frozen=True, slots=True)
class ResealRule:
    """Permission to seal again, under the key `target`, keys that are sealed as `source`.

    Attributes:
        source: A key, a prefix of keys that ends at a `/`, or `LEGACY`.
        target: A key that may seal.
        sealer: The name of the sealer that has it.
    """

    source: str
    target: str
    sealer: str

    def allows(self, source: str, target: str) -> bool:
        """Whether this is such a source, and the target."""
        return target == self.target and covers(self.source, source)


def read_rules(top: TomlTable, sealers: Mapping[str, SealerConfig]) -> tuple[ResealRule, ...]:
    """Return the rules of an image's list `reseal`.

    Args:
        top: The whole file.
        sealers: By name, all that the image has.

    Raises:
        ConfigError: Something in the list is wrong.
    """
    having = {key: name for name, config in sealers.items() for key in config.seal_keys}
    rules = []
    for table in top.tables("reseal"):
        source, target = table.text("from"), table.text("to")
        table.end()
        if target not in having:
            places = " and ".join(f"{name}.seal_keys" for name, config in sealers.items() if config.seal_keys)
            raise table.refused("to", f"{target!r} is not in {places or 'any list of keys that seal'}")
        if source != LEGACY and not any(config.is_source(source) for config in sealers.values()):
            raise table.refused("from", f"{source!r} must be {LEGACY}, a key, or a prefix that ends at a /")
        rules.append(ResealRule(source, target, having[target]))
    return tuple(rules)
