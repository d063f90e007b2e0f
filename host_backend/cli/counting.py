"""Numbers with their nouns, in texts of the commands."""


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: `1 key`, `2 keys`."""
    return f"1 {noun}" if count == 1 else f"{count} {noun}s"
