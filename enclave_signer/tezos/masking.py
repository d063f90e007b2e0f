"""Secret keys in texts where none should be: masked in everything that is written."""

import re

from enclave_signer.tezos.base58 import Family, Kind

_FAMILIES = (Family.PRIVATE_KEY, Family.ENCRYPTED_PRIVATE_KEY)
_BEGINNINGS = "|".join({kind.value.label: None for kind in Kind if kind.value.family in _FAMILIES})
#: What all beginnings of secret keys end in: most texts hold none, and this is found out at once.
_COMMON = "sk"
#: The beginnings, and enough behind them for it to be no word about keys.
_SECRET = re.compile(rf"(?<![1-9A-HJ-NP-Za-km-z])({_BEGINNINGS})[1-9A-HJ-NP-Za-km-z]{{4,}}")


def may_hold_secret_key(text: str) -> bool:
    """Whether `masked` may change a text; costs next to nothing."""
    return _COMMON in text


def masked(text: str) -> str:
    """Return a text in which whatever begins like a secret key has only its beginning left, whole key or not."""
    return _SECRET.sub(r"\1***", text) if _COMMON in text else text
