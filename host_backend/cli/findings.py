"""One finding of `doctor`."""

from dataclasses import dataclass
from typing import Final, Literal

OK: Final = "ok"
WARNING: Final = "warning"
FAILED: Final = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: what was looked at, how it is, and the fix."""

    name: str
    state: Literal["ok", "warning", "failed"]
    text: str
