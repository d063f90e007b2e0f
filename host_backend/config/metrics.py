"""`metrics`: counts for each key."""

from dataclasses import dataclass

from host_backend.yaml_document import Value

#: Keys for each of which histograms may be kept: some thirty series each for a kind of request, so that a page of metrics
#: has a few megabytes at most.
MAX_PER_KEY = 200


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """Which counts each key has."""

    #: Whether histograms of requests are kept for each key, as Signatory does.
    per_key: bool = False

    def problem(self, keys: int) -> str | None:
        """Return why so many keys cannot be counted like this; None when they can."""
        if not self.per_key or keys <= MAX_PER_KEY:
            return None
        return (
            f"histograms for each key are for at most {MAX_PER_KEY} keys, and {keys} are under `tezos`: remove `per_key`, "
            "counters are kept for each key without it"
        )


def parse_metrics(value: Value | None, keys: int) -> MetricsConfig:
    """Return the section `metrics`.

    Args:
        value: The section.
        keys: How many keys are under `tezos`.

    Raises:
        ConfigError: With file, line and dotted path of each fault.
    """
    fields = value.record(("per_key",)) if value else {}
    config = MetricsConfig("per_key" in fields and fields["per_key"].boolean())
    if (problem := config.problem(keys)) is not None:
        fields["per_key"].fail(problem)
    return config
