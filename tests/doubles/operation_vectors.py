"""The vectors of `tests/vectors/operations.json`: reads them, and writes the bytes of those that are made up.

To add a vector, add a line with `name`, `source`, `operations`, `branch` and `contents` to `made`, then run
`python -m tests.doubles.operation_vectors`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.doubles import operation_encoder

FILE = Path(__file__).parents[1] / "vectors" / "operations.json"
Vector = dict[str, Any]


def load() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(FILE.read_text())
    return document


def encoded(vector: Mapping[str, Any]) -> str:
    """Write a vector's message, in hex."""
    if "expression" in vector:
        return operation_encoder.packed(vector["expression"]).hex()
    return operation_encoder.message(vector["branch"], vector["contents"]).hex()


def filled(document: Mapping[str, Any]) -> dict[str, Any]:
    """Rewrite the bytes of made-up messages; recorded ones stay as they are."""
    made = {member: [{**item, "hex": encoded(item)} for item in document[member]] for member in ("made", "packed")}
    return {**document, **made}


def text(document: Mapping[str, Any]) -> str:
    """Write the file: a line for each vector."""
    members = []
    for name, value in document.items():
        if isinstance(value, list):
            lines = ",\n".join(f"  {json.dumps(item)}" for item in value)
            members.append(f" {json.dumps(name)}: [\n{lines}\n ]")
        else:
            members.append(f" {json.dumps(name)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(members) + "\n}\n"


if __name__ == "__main__":
    FILE.write_text(text(filled(load())))
