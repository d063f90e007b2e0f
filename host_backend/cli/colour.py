"""Colour: where people look, and want it."""

import os
import sys


def in_colour() -> bool:
    """Return whether standard output is a terminal whose user has not said `NO_COLOR`. Source: no-color.org."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
