"""Everything that is wrong with a configuration, said at once: to correct one error a start takes many."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeVar

from host_backend.errors import ConfigError

T = TypeVar("T")

#: As many as a screen shows; the others are counted.
MAX_SHOWN = 20


class PlacedError(ConfigError):
    """One thing that is wrong in a file; `line` is where, from 1."""

    def __init__(self, text: str, line: int) -> None:
        super().__init__(text)
        self.line = line


class SeveralErrors(ConfigError):
    """Several things that are wrong; `errors` has each."""

    def __init__(self, errors: list[ConfigError]) -> None:
        ordered = sorted(errors, key=lambda error: error.line if isinstance(error, PlacedError) else 0)
        left = len(ordered) - MAX_SHOWN
        lines = [*map(str, ordered[:MAX_SHOWN]), *([f"and {left} more"] if left > 0 else [])]
        super().__init__("\n".join(lines))
        self.errors = ordered


class Problems:
    """Goes on past errors, and raises them together at the end of the `with` statement. May be nested."""

    def __init__(self) -> None:
        self._errors: list[ConfigError] = []

    @contextmanager
    def catch(self) -> Iterator[None]:
        """Note an error inside, and go on behind it."""
        try:
            yield
        except ConfigError as error:
            self._note(error)

    def attempt(self, parse: Callable[[], T], default: T) -> T:
        """Return what a function returns; where it finds something wrong, note that and return the default."""
        try:
            return parse()
        except ConfigError as error:
            self._note(error)
            return default

    def _note(self, error: ConfigError) -> None:
        self._errors += error.errors if isinstance(error, SeveralErrors) else [error]

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Raise what was noted."""
        if isinstance(error, ConfigError):
            self._note(error)
        elif kind is not None:
            return
        if self._errors:
            raise self._errors[0] if len(self._errors) == 1 else SeveralErrors(self._errors)
