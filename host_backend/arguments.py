"""Arguments of the library's calls: one of another type is refused by name, before it is used."""


def require(name: str, value: object, kind: type, advice: str) -> None:
    """Pass when an argument is of its kind; an error never repeats the value, which may be a secret.

    Args:
        name: The argument's name.
        value: What was given.
        kind: What it must be.
        advice: How to make one.

    Raises:
        TypeError: It is of another kind.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {kind.__name__}, not {type(value).__name__}: {advice}")
