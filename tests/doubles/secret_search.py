"""Looks for secrets wherever a program left bytes: in every form in which a careless line would leave one."""

import base64
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Secret:
    """A private key; `texts` are its base58 forms, where it has one."""

    name: str
    data: bytes = field(repr=False)
    texts: tuple[str, ...] = field(default=(), repr=False)


def forms(secret: Secret) -> dict[str, bytes]:
    """Return every form that is looked for, by name; also halves, as a form may be cut or wrapped."""
    found: dict[str, bytes] = {f"base58 {number}": text.encode() for number, text in enumerate(secret.texts)}
    # The prefix of the text belongs to every key of its kind; what follows is the key.
    found |= {f"base58 {number}, part": text[8:40].encode() for number, text in enumerate(secret.texts)}
    orders = {"as it is": secret.data, "backwards": secret.data[::-1]}
    for order, data in orders.items():
        for part, piece in {"whole": data, "first half": data[:16], "second half": data[16:]}.items():
            name = f"{order}, {part}"
            found[f"raw, {name}"] = piece
            found[f"hex, {name}"] = piece.hex().encode()
            found[f"upper hex, {name}"] = piece.hex().upper().encode()
            found[f"spaced hex, {name}"] = piece.hex(" ").encode()
            found[f"repr, {name}"] = repr(piece)[2:-1].encode()
            found[f"integers, {name}"] = ", ".join(map(str, piece)).encode()
            found[f"compact integers, {name}"] = ",".join(map(str, piece)).encode()
        found[f"number, {order}"] = str(int.from_bytes(data, "big")).encode()
        found[f"base64, {order}"] = base64.b64encode(data).rstrip(b"=")[:-1]
        found[f"url base64, {order}"] = base64.urlsafe_b64encode(data).rstrip(b"=")[:-1]
        # Inside other base64 a key begins at any of three places.
        for shift in (1, 2):
            shifted = base64.b64encode(bytes(shift) + data)[4:-4]
            found[f"base64 at {shift}, {order}"] = shifted
    return found


def search(places: Mapping[str, bytes], secrets: Iterable[Secret]) -> list[str]:
    """Return what was found where: `place: secret, form`."""
    wanted = [(secret.name, name, form) for secret in secrets for name, form in forms(secret).items()]
    return [
        f"{place}: {secret}, {name}"
        for place, content in places.items()
        for secret, name, form in wanted
        if form in content
    ]


def files_under(folder: Path) -> dict[str, bytes]:
    """Return every file in a folder, by its path."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def seen_from_outside(pid: int) -> dict[str, bytes]:
    """Return what others on the machine can see of a process: its command line and, with its rights, its environment."""
    seen: dict[str, bytes] = {}
    for name in ("cmdline", "environ", "comm"):
        # The daemon's environment is closed to all but root.
        with suppress(PermissionError):
            seen[f"/proc/{pid}/{name}"] = Path(f"/proc/{pid}/{name}").read_bytes()
    return seen


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that they have."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue  # it has just ended
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        own = children.get(waiting.pop(), [])
        found += own
        waiting += own
    return [child for child in found if child != os.getpid()]
