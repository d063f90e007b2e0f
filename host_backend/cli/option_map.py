"""The syntax of `--opt`: `name:value`, separated by commas.

A name or a value is a run of characters, of which a backslash takes the next one as it is, or a text in double quotes.
White space around either does not matter.

Source: Signatory's `pkg/utils`; `option_map_cases` in `tests/vectors/signatory-vectors.json`.
"""

import re

from host_backend.errors import ConfigError

_WORD = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|((?:[^\s:,"\\]|\\.)+))', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def parse_option_map(text: str) -> dict[str, str]:
    """Return the options of a text.

    Raises:
        ConfigError: It is not well formed; the texts are Signatory's.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError("--opt: invalid rune") from None
    options: dict[str, str] = {}
    while True:
        name, text = _word(text)
        value, text = _word(_after(":", text))
        options[name] = value
        if not text.strip():
            return options
        text = _after(",", text)


def _word(text: str) -> tuple[str, str]:
    """Return the word at the beginning of a text, and what follows it."""
    match = _WORD.match(text)
    if match is None:
        raise _unexpected(text)
    return _ESCAPED.sub(r"\1", match[1] if match[2] is None else match[2]), text[match.end() :]


def _after(mark: str, text: str) -> str:
    text = text.lstrip()
    if not text.startswith(mark):
        raise _unexpected(text)
    return text[1:]


def _unexpected(text: str) -> ConfigError:
    rest = text.lstrip()
    # A word that ends nowhere begins with one of these.
    if not rest or rest[0] in '"\\':
        return ConfigError("--opt: unexpected end of the string")
    return ConfigError(f"--opt: unexpected character: {rest[0]}")
