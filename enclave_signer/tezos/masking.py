"""Secret keys that stand where none should: masked in whatever is written or told."""

import re

#: What all beginnings of secret keys end in: most texts hold none, and this is found out at once.
_COMMON = "sk"
#: The beginnings, and enough behind them for it to be no word about keys.
_SECRET = re.compile(r"(?<![1-9A-HJ-NP-Za-km-z])(edsk|spsk|p2sk|BLsk|edesk|spesk|p2esk|BLesk)[1-9A-HJ-NP-Za-km-z]{4,}")


def may_hold_secret_key(text: str) -> bool:
    """Whether `masked` may change a text; costs next to nothing."""
    return _COMMON in text


def masked(text: str) -> str:
    """Return a text in which whatever begins like a secret key has only its beginning left, whole key or not."""
    return _SECRET.sub(r"\1***", text) if _COMMON in text else text
