"""The claims of a token, read strictly and not believed yet. Source: RFC 7519; Google's reference of token claims."""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from host_backend.strict_json import loads

#: Characters of a token; one of type PKI has some 11 000.
MAX_TOKEN_CHARS = 32768
#: Characters of a value that texts show.
_SHOWN_CHARS = 120
#: Without a signature it is a token all the same, whose algorithm is refused.
_FORM = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)")


class NoToken(Exception):
    """A text is no signed JSON web token; the text says why, and repeats nothing of it."""


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of a token, by dotted path; a missing one is None, and so is one below a value that is not a map."""

    values: Mapping[str, object]

    def at(self, path: str) -> object:
        """Return the value at a dotted path, such as `submods.container.image_digest`."""
        value: object = self.values
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        return value

    def text(self, path: str) -> str | None:
        """Return a text that is not empty; None where there is none."""
        value = self.at(path)
        return value if isinstance(value, str) and value else None

    def texts(self, path: str) -> tuple[str, ...]:
        """Return the texts of a list, or the one that stands in its place; none if anything else is among them."""
        value = self.at(path)
        items = value if isinstance(value, list) else [value]
        found = tuple(item for item in items if isinstance(item, str) and item)
        return found if len(found) == len(items) else ()

    def integer(self, path: str) -> int | None:
        """Return a whole number that is exact as a float; None where there is none."""
        value = self.at(path)
        return value if type(value) is int and abs(value) < 2**53 else None

    @property
    def signing_keys(self) -> tuple[str, ...]:
        """Return the ids of the keys that signed the image."""
        signatures = self.at("submods.container.image_signatures")
        items = signatures if isinstance(signatures, list) else []
        return tuple(key for each in items if isinstance(each, dict) and isinstance(key := each.get("key_id"), str))


def read_token(token: str) -> tuple[Mapping[str, object], Claims]:
    """Return the head and the claims of a token, without a look at its signature.

    Raises:
        NoToken: It is none.
    """
    if len(token) > MAX_TOKEN_CHARS:
        raise NoToken(f"longer than {MAX_TOKEN_CHARS} characters")
    parts = _FORM.fullmatch(token)
    if parts is None:
        raise NoToken("not three parts in base64url, with points between them")
    return _object(parts[1], "head"), Claims(_object(parts[2], "claims"))


def _object(part: str, name: str) -> Mapping[str, object]:
    try:
        value = loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError):
        raise NoToken(f"its {name} cannot be read as JSON") from None
    if not isinstance(value, dict):
        raise NoToken(f"its {name} is not a JSON object")
    return value


def shown(value: object) -> str:
    """Return a value of a token for people: on one line, and short."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = "".join(char if char.isprintable() else "?" for char in text)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"
