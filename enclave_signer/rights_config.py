"""The image's rules for its clients (`[[rights]]`), and who can reach its Unix socket (`[unix_socket]`)."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from enclave_signer.addresses import Address, UnixAddress
from enclave_signer.errors import ConfigError
from enclave_signer.protocol.binding import is_key_digest
from enclave_signer.protocol.calls import CALLS, OF_NEW_KEYS, WITHOUT_KEY
from enclave_signer.rights import ANY, Condition, Fact, Rule
from enclave_signer.tezos import MalformedBase58, check_public_key_hash
from enclave_signer.toml_table import TomlTable

RIGHTS = "rights"
UNIX_SOCKET = "unix_socket"
#: The largest user or group: one below what means "none". Source: `chown(2)`.
MAX_ID = 2**32 - 2
_ID = re.compile(r"0|[1-9][0-9]{0,9}")
_MODE = re.compile(r"0[0-7]{3}")
#: Whoever can write to the folder can put another socket in place of this one.
_FOLDER_NEVER = 0o022
#: Reading and writing mean something for a socket; the owner must have both.
_SOCKET_NEVER, _SOCKET_ALWAYS, _FOLDER_ALWAYS = 0o111, 0o600, 0o700
_EXAMPLES = {
    Fact.UID: "uid:1001",
    Fact.GID: "gid:1001",
    Fact.GROUP: "group:1500",
    Fact.CGROUP: "cgroup:/system.slice/shop.service",
    Fact.CLIENT: "client: and the SHA-256 of its TLS key",
}


@dataclass(frozen=True, slots=True)
class UnixSocketConfig:
    """Who can reach the socket, before any rule is asked.

    Attributes:
        folder_mode: The most that the folder's mode may allow.
        mode: That of the socket.
        group: Of folder and socket; None: the daemon's own.
    """

    folder_mode: int = 0o700
    mode: int = 0o600
    group: int | None = None


def read_rights(top: TomlTable) -> tuple[Rule, ...] | None:
    """Return the rules for clients; None where there are none, and every client that connects may make every call.

    Raises:
        ConfigError: Something in them is wrong.
    """
    if not top.has(RIGHTS):
        return None
    rules = tuple(_rule(table) for table in top.tables(RIGHTS))
    if not rules:
        raise top.refused(RIGHTS, "is empty: no client could do anything")
    return rules


def _rule(table: TomlTable) -> Rule:
    conditions = tuple(_condition(table, text) for text in table.texts("peer", required=True))
    calls = frozenset(_calls(table))
    keys = _keys(table, calls)
    table.end()
    return Rule(conditions, calls, keys)


def _condition(table: TomlTable, text: str) -> Condition:
    name, _, wanted = text.partition(":")
    if name not in set(Fact):
        raise table.refused("peer", f"{text!r} is none of {', '.join(_EXAMPLES.values())}")
    fact = Fact(name)
    match fact:
        case Fact.UID | Fact.GID | Fact.GROUP:
            good = _is_id(wanted)
        case Fact.CGROUP:
            parts = wanted.removesuffix("/").split("/")
            good = len(parts) > 1 and parts[0] == "" and not {"", ".", ".."} & set(parts[1:])
        case Fact.CLIENT:
            good = is_key_digest(wanted)
    if not good:
        raise table.refused("peer", f"{text!r} must be like {_EXAMPLES[fact]}")
    return Condition(fact, wanted)


def _calls(table: TomlTable) -> Iterable[str]:
    calls = table.texts("calls", required=True)
    if calls == (ANY,):
        return CALLS
    for call in calls:
        if call not in CALLS:
            raise table.refused("calls", f"{call!r} is not known, known are {ANY!r} alone, and {', '.join(CALLS)}")
    return calls


def _keys(table: TomlTable, calls: frozenset[str]) -> frozenset[str] | None:
    keys = table.texts("keys", required=not calls <= WITHOUT_KEY)
    if keys == (ANY,):
        return None
    for key in keys:
        try:
            check_public_key_hash(key)
        except MalformedBase58 as error:
            raise table.refused("keys", f"must be {ANY!r} alone, or public key hashes: {error}") from None
    if new := sorted(calls & OF_NEW_KEYS):
        raise table.refused("keys", f"must be [{ANY!r}] where {new[0]} is allowed: the hash of a new key is not known")
    return frozenset(keys)


def read_unix_socket(top: TomlTable, rules: tuple[Rule, ...] | None) -> UnixSocketConfig | None:
    """Return who can reach the Unix socket; None where nothing is said about it.

    Raises:
        ConfigError: Something in it is wrong, or there are no rules for who reaches it.
    """
    if not top.has(UNIX_SOCKET):
        return None
    if rules is None:
        raise top.refused(UNIX_SOCKET, "only where [[rights]] say who may do what; without, it is for one user alone")
    table = top.table(UNIX_SOCKET)
    default = UnixSocketConfig()
    found = UnixSocketConfig(
        _mode(table, "folder_mode", default.folder_mode, never=_FOLDER_NEVER, always=_FOLDER_ALWAYS),
        _mode(table, "mode", default.mode, never=_SOCKET_NEVER, always=_SOCKET_ALWAYS),
        _group(table),
    )
    table.end()
    return found


def _mode(table: TomlTable, name: str, default: int, *, never: int, always: int) -> int:
    if not table.has(name):
        return default
    text = table.text(name)
    mode = int(text, 8) if _MODE.fullmatch(text) else never
    if mode & never or mode & always != always:
        raise table.refused(name, f'must be a mode like "{default:04o}", with {always:04o} and without {never:04o}')
    return mode


def _group(table: TomlTable) -> int | None:
    if not table.has("group"):
        return None
    text = table.text("group")
    if not _is_id(text):
        raise table.refused("group", "must be the number of a group, as a text")
    return int(text)


def _is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None and int(text) <= MAX_ID


def check_rights(
    rules: tuple[Rule, ...] | None, access: UnixSocketConfig | None, listen: Address | UnixAddress, *, tls: bool
) -> None:
    """Return when what the rules ask for can be known of the clients of an address.

    Raises:
        ConfigError: It cannot.
    """
    if access is not None and not isinstance(listen, UnixAddress):
        raise ConfigError(f"{UNIX_SOCKET}: {listen} is no Unix socket: leave it out, or listen on unix:PATH")
    if rules is None:
        return
    if isinstance(listen, Address) and not tls:
        raise ConfigError(
            f"{RIGHTS}: clients of {listen} cannot be distinguished without TLS: listen on unix:PATH, or name [tls] clients"
        )
    known = {Fact.CLIENT} if tls else set(Fact) - {Fact.CLIENT}
    for fact in _facts(rules):
        if fact not in known:
            raise ConfigError(f"{RIGHTS}: {fact}: is never known of clients of {listen}")


def _facts(rules: tuple[Rule, ...]) -> Iterator[Fact]:
    return (condition.fact for rule in rules for condition in rule.conditions)
