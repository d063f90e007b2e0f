"""`--json`: what a command answers to programs, one object on standard output when it ends.

- The same thing has the same name in every command: `public_key_hash`, `public_key`, `vault`, `chain_id`, `right`,
  `level`, `round`, `digest`; lists have the plural of what they hold: `keys`, `marks`, `checks`, `vaults`.
- A command that fails prints what was done before, with `error`, the text, and `exit`, its exit code.
- Nothing else goes to standard output; the log and questions go to standard error.
"""

import json

import click


class Answer:
    """The answer of one command; without `--json` it says everything in words at once."""

    def __init__(self) -> None:
        self._object: dict[str, object] | None = None
        self._lists: dict[str, list[object]] = {}

    @property
    def as_json(self) -> bool:
        """Whether `--json` was given."""
        return self._object is not None

    def begin(self) -> None:
        """Answer with an object from now on."""
        self._object = {}

    def put(self, **members: object) -> None:
        """Put members into the object; without `--json` nothing happens."""
        if self._object is not None:
            self._object |= members

    def add(self, name: str, *items: object) -> None:
        """Add items to a list of the object; none make an empty list. Without `--json` nothing happens."""
        items_so_far = self._lists.setdefault(name, [])
        items_so_far.extend(items)
        self.put(**{name: items_so_far})

    def say(self, text: str, *, newline: bool = True) -> None:
        """Print words; with `--json` nothing happens."""
        if self._object is None:
            click.echo(text, nl=newline)

    def end(self) -> None:
        """Print the object, if there is one."""
        if self._object is not None:
            click.echo(json.dumps(self._object))
            self._object = None

    def fail(self, text: str, code: int) -> None:
        """Print the object, if there is one, with the reason for a failure."""
        self.put(error=text, exit=code)
        self.end()
