"""The image's list of keys that are released only to the attested, and for how long: `gated`.

Keys are named as the headers of blobs name them, so that each name belongs to one sealer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from enclave_signer.sealing.reseal_rules import ResealRule, SealerConfig, covers
from enclave_signer.toml_table import TomlTable

#: The only policy: the key's service decides, each time, after it has seen which image asks.
ATTESTED = "attested"
#: Seconds of `fresh_s`: below, the service is asked more often than it can be away; above a day, a key that was taken
#: back signs for too long.
MIN_FRESH_S, MAX_FRESH_S = 10.0, 86400.0
#: Seconds of `retry_s`: clients that retry without end reach the service no more often.
MIN_RETRY_S, MAX_RETRY_S = 5.0, 30.0
DEFAULT_RETRY_S = 10.0


@dataclass(frozen=True, slots=True)
class GatedRule:
    """Keys that are released only to the attested.

    Attributes:
        key: A key-encryption key, or a prefix of keys that ends at a `/`.
        sealer: The name of the sealer that has it.
        fresh_s: Seconds for which a release lasts; then the key's service is asked again.
        retry_s: Seconds for which a failure to get a release is remembered, and the service is not asked.
    """

    key: str
    sealer: str
    fresh_s: float
    retry_s: float

    def covers(self, key: str) -> bool:
        """Whether a key-encryption key is one of these."""
        return covers(self.key, key)


def read_gated(top: TomlTable, sealers: Mapping[str, SealerConfig]) -> tuple[GatedRule, ...]:
    """Return the rules of an image's list `gated`.

    Args:
        top: The whole file.
        sealers: By name, all that the image has.

    Raises:
        ConfigError: Something in the list is wrong.
    """
    rules: list[GatedRule] = []
    for table in top.tables("gated"):
        key = table.text("key")
        sealer = next((name for name, config in sealers.items() if config.is_source(key)), None)
        if sealer is None:
            raise table.refused("key", f"{key!r} must be a key of one of the sealers, or a prefix that ends at a /")
        if not sealers[sealer].opens(key):
            raise table.refused("key", f"{key!r} is none that {sealer} may open: nothing would be gated")
        if any(rule.covers(key) for rule in rules):
            raise table.refused("key", f"{key!r} is covered by an entry before it: put the narrower one first")
        if (release := table.text("release")) != ATTESTED:
            raise table.refused("release", f"{release!r} is not known, known is {ATTESTED}")
        fresh_s = table.seconds("fresh_s", MIN_FRESH_S, MAX_FRESH_S)
        retry_s = table.seconds("retry_s", MIN_RETRY_S, MAX_RETRY_S, default=DEFAULT_RETRY_S)
        table.end()
        rules.append(GatedRule(key, sealer, fresh_s, retry_s))
    return tuple(rules)


def leaving(reseal: ResealRule, gated: Sequence[GatedRule]) -> GatedRule | None:
    """Return which gated keys a rule for resealing lets go to one that is not gated; None: none."""
    if any(rule.covers(reseal.target) for rule in gated):
        return None
    return next((rule for rule in gated if rule.covers(reseal.source) or covers(reseal.source, rule.key)), None)
