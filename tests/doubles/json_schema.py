"""As much of JSON Schema as `conformance/schema.json` uses; a keyword that it does not know is an error."""

import re
from collections.abc import Iterator
from typing import Any

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "null": type(None),
}
_DESCRIPTIONS = {"$schema", "$defs", "title", "description"}


def problems(value: object, schema: dict[str, Any], root: dict[str, Any], path: str = "") -> Iterator[str]:
    """Yield each fault of a value, with its place."""
    for keyword, argument in schema.items():
        if keyword in _DESCRIPTIONS:
            continue
        if keyword == "$ref":
            yield from problems(value, root["$defs"][argument.removeprefix("#/$defs/")], root, path)
        elif keyword == "anyOf":
            if all(any(problems(value, one, root, path)) for one in argument):
                yield f"{path}: none of the alternatives"
        elif keyword in {"required", "properties", "additionalProperties"}:
            if isinstance(value, dict):
                yield from _of_object(value, keyword, argument, schema, root, path)
        elif keyword == "items":
            if isinstance(value, list):
                for number, item in enumerate(value):
                    yield from problems(item, argument, root, f"{path}/{number}")
        elif not _holds(value, keyword, argument):
            yield f"{path}: {value!r:.60} against {keyword} {argument}"


def _of_object(
    value: dict[str, Any], keyword: str, argument: Any, schema: dict[str, Any], root: dict[str, Any], path: str
) -> Iterator[str]:
    known = schema.get("properties", {})
    if keyword == "required":
        yield from (f"{path}: {name} is missing" for name in argument if name not in value)
    elif keyword == "properties":
        for name in value.keys() & known.keys():
            yield from problems(value[name], known[name], root, f"{path}/{name}")
    else:
        for name in value.keys() - known.keys():
            if argument is False:
                yield f"{path}: {name} is not known"
            else:
                yield from problems(value[name], argument, root, f"{path}/{name}")


def _holds(value: Any, keyword: str, argument: Any) -> bool:
    match keyword:
        case "type":
            names = argument if isinstance(argument, list) else [argument]
            return any(isinstance(value, _TYPES[name]) and not isinstance(value, bool) for name in names)
        case "enum":
            return bool(value in argument)
        case "const":
            return bool(value == argument)
        case "pattern":
            return re.search(argument, value) is not None
        case "minimum":
            return bool(value >= argument)
        case "maximum":
            return bool(value <= argument)
        case "minItems":
            return bool(len(value) >= argument)
    raise ValueError(f"no such keyword: {keyword}")
