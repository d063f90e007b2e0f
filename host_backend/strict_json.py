"""JSON of which nothing is lost in reading: no name twice in an object, no number that could not be written back."""

import json
import math


def loads(text: str | bytes) -> object:
    """Return the value that a text holds.

    Raises:
        ValueError: It is not JSON, or not of this kind.
        RecursionError: It nests too deep.
    """
    return json.loads(text, object_pairs_hook=_once, parse_float=_finite, parse_constant=_finite)


def _once(members: list[tuple[str, object]]) -> dict[str, object]:
    entries = dict(members)
    if len(entries) != len(members):
        raise ValueError("an object names one member twice")
    return entries


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} could not be written back")
    return number
