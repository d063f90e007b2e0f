"""`experimental`: kinds of keys that not every chain has, and that a configuration must ask for."""

from collections.abc import Set as AbstractSet

from enclave_signer.protocol.key_types import KeyType
from host_backend.errors import ConfigError
from host_backend.yaml_document import Value

_BY_ADDRESS = {key_type.facts.address: key_type for key_type in KeyType if key_type.facts.experimental}


def parse_experimental(value: Value | None) -> frozenset[KeyType]:
    """Return the types of keys that the section `experimental` asks for.

    Raises:
        ConfigError: With file, line and dotted path of each fault.
    """
    fields = value.record(tuple(_BY_ADDRESS)) if value else {}
    return frozenset(_BY_ADDRESS[name] for name, field in fields.items() if field.boolean())


def why_off(key_type: KeyType, asked_for: AbstractSet[KeyType]) -> str | None:
    """Return why keys of a type are not used, and what to do about it; None when they are.

    Args:
        key_type: Any type.
        asked_for: What the configuration asks for.
    """
    if not key_type.facts.experimental or key_type in asked_for:
        return None
    address = key_type.facts.address
    return f"{address} keys are off, as not every chain has them: write `experimental: {{{address}: true}}` to use them"


def check_on(key_type: KeyType, asked_for: AbstractSet[KeyType]) -> None:
    """Return when keys of a type are used; see `why_off`.

    Raises:
        ConfigError: They are not.
    """
    if (reason := why_off(key_type, asked_for)) is not None:
        raise ConfigError(reason)
