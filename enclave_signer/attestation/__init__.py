"""Proving to others which image runs here, and that their connection ends in it."""
