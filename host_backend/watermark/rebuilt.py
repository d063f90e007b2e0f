"""Which marks a rebuilt store has."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product

from enclave_signer.tezos import Right, TezosError, check_public_key_hash
from host_backend.errors import ConfigError
from host_backend.watermark.rule import MAX_LEVEL, MAX_ROUND, Mark, MarkKey, in_range, merged, union


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """Which marks a new store gets beside those that are found, and how high all of them are at least.

    Attributes:
        pkhs: Keys that get marks for all their rights though none of theirs is found. What is no hash, as a key store may
            have it, is left out: no key has it, and Signatory's files cannot hold it.
        chains: On which chains, beside those of marks that are found.
        above_level: Nothing is signed at this level or below.
        known: Marks that are known from elsewhere, such as a backup: they count like those that are found.
    """

    pkhs: Iterable[str]
    chains: Iterable[str]
    above_level: int
    known: Mapping[MarkKey, Mark] = field(default_factory=dict)

    def raised(self, found: Mapping[MarkKey, Mark], most: int) -> dict[MarkKey, Mark]:
        """Return the marks of the new store.

        Args:
            found: Those that can still be read.
            most: How many the store holds.

        Raises:
            ConfigError: The level is out of range, or there is nothing to make marks of.
        """
        floor = Mark(self.above_level, MAX_ROUND, None)
        if not in_range(floor):
            raise ConfigError(f"level {self.above_level} must be from 0 to {MAX_LEVEL}")
        found = union(found, self.known)
        pairs = {(key.chain_id, key.pkh) for key in found}
        pairs |= set(product(self.chains, {*filter(_is_hash, self.pkhs), *(key.pkh for key in found)}))
        if not pairs:
            raise ConfigError(
                "no marks are found, and it is not known for which keys and chains to make them: list the keys under "
                "`tezos` in the configuration, and name the chains with --chain (mainnet is NetXdQprcVkpaWU)"
            )
        if len(pairs) * len(Right) > most:
            raise ConfigError(
                f"marks for {len(pairs)} pairs of a key and a chain are more than a store holds: name fewer chains"
            )
        every = {MarkKey(chain, pkh, right): floor for chain, pkh in sorted(pairs) for right in Right}
        return {key: merged(found.get(key), mark) for key, mark in every.items()}


def _is_hash(text: str) -> bool:
    try:
        check_public_key_hash(text)
    except TezosError:
        return False
    return True
