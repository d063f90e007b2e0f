"""Suggestions for a word that is not known: the one it was probably meant to be."""

import difflib
from collections.abc import Iterable


def suggestion(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return the end of an error text: `did you mean …?` if a known word is close, else another text.

    Args:
        word: As it was written.
        known: Words that can be written there.
        otherwise: The text if none is close.
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]}?" if near else otherwise
