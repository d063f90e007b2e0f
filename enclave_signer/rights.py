"""Who may make which calls with which keys, where the image's configuration has rules for its clients.

- A rule names its clients by conditions that must all hold, their calls, and the keys of these calls.
- What no rule allows is refused: root, and the user of the daemon, have no rights of their own.
- Who a client is, is decided once for each connection; a client that several rules name has the rights of each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from enclave_signer.errors import NotAllowed, blob_error
from enclave_signer.protocol.blob import is_ours, parse_blob
from enclave_signer.protocol.calls import WITHOUT_KEY, Unnamed, call_of
from enclave_signer.protocol.errors import BadBlob
from enclave_signer.protocol.messages import PublicKey, Request
from enclave_signer.tezos import public_key_hash

#: In a rule: every call, or every key.
ANY = "*"


class Fact(StrEnum):
    """What a rule may ask of a client."""

    #: The user of the process that connected.
    UID = "uid"
    #: The primary group of that process.
    GID = "gid"
    #: A supplementary group of that process.
    GROUP = "group"
    #: The control group (version 2) of that process: a path, or a prefix that ends at a `/`.
    CGROUP = "cgroup"
    #: The key of the client's TLS certificate, as `tls.clients` names it.
    CLIENT = "client"


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """The facts about a client; one that is not known fulfils no condition.

    Attributes:
        uid: Its user.
        gid: Its primary group.
        groups: Its supplementary groups.
        cgroup: The path of its control group.
        key: Its TLS key, as SHA-256 in hexadecimal.
    """

    uid: int | None = None
    gid: int | None = None
    groups: frozenset[int] = frozenset()
    cgroup: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that must be true of a client."""

    fact: Fact
    wanted: str

    def holds(self, client: Client) -> bool:
        """Tell whether it is true of a client."""
        match self.fact:
            case Fact.UID:
                return self.wanted == str(client.uid)
            case Fact.GID:
                return self.wanted == str(client.gid)
            case Fact.GROUP:
                return int(self.wanted) in client.groups
            case Fact.CLIENT:
                return self.wanted == client.key
            case Fact.CGROUP:
                return client.cgroup is not None and _is_at_or_below(client.cgroup, self.wanted)


def _is_at_or_below(path: str, wanted: str) -> bool:
    return path == wanted or (wanted.endswith("/") and path.startswith(wanted))


@dataclass(frozen=True, slots=True)
class Rule:
    """What the clients that fulfil all conditions may do.

    Attributes:
        conditions: At least one.
        calls: Names on the wire.
        keys: Public key hashes; None: every key.
    """

    conditions: tuple[Condition, ...]
    calls: frozenset[str]
    keys: frozenset[str] | None


@dataclass(slots=True)
class Rights:
    """What one client may do.

    Attributes:
        rule: The first rule that names it: its clients share places.
        keys_of_call: For each call it may make, with which keys; None: with every key.
        on_refused: Called with the text of each refusal.
    """

    rule: int
    keys_of_call: dict[str, frozenset[str] | None]
    on_refused: Callable[[str], None]
    #: Found to be allowed: no more than the keys that the rules list, for each call.
    _found: set[tuple[str, PublicKey]] = field(default_factory=set)

    def check_call(self, request: Request, key_of: Callable[[int], PublicKey]) -> None:
        """Return when a call may be made.

        Args:
            request: The call.
            key_of: Returns the key of a handle.

        Raises:
            NotAllowed: It may not.
            EnclaveSignerError: There is no such handle, or no such blob.
        """
        row = call_of(request)
        if not self.narrowed(row.name):
            return
        match None if isinstance(row.key, Unnamed) else row.key(request):
            case str(pkh):
                self.check_hash(row.name, pkh)
            case int(handle):
                self.check(row.name, key_of(handle))
            case bytes(blob):
                self.check(row.name, _key_of(blob))
            case _:
                self.check(row.name, None)

    def narrowed(self, call: str) -> bool:
        """Tell whether a call may be made with some keys only.

        Raises:
            NotAllowed: It may not be made.
        """
        if call not in self.keys_of_call:
            raise self._refused(f"no rule lets this client make the call {call}")
        return self.keys_of_call[call] is not None and call not in WITHOUT_KEY

    def check(self, call: str, key: PublicKey | None) -> None:
        """Return when a call that is narrowed may be made with a key.

        Raises:
            NotAllowed: It may not; or the key is None, that of a call that does not say beforehand which one it is.
        """
        if key is None:
            raise self._refused(f"{call} does not name its key beforehand, and no rule lets this client use every key")
        if (call, key) not in self._found:
            self.check_hash(call, public_key_hash(key))
            self._found.add((call, key))

    def check_hash(self, call: str, pkh: str) -> None:
        """Return when a call may be made with the key of this hash.

        Raises:
            NotAllowed: It may not.
        """
        if self.narrowed(call) and pkh not in (self.keys_of_call[call] or ()):
            raise self._refused(f"no rule lets this client make the call {call} with {pkh!r}")

    def _refused(self, why: str) -> NotAllowed:
        text = f"not allowed: {why}"
        self.on_refused(text)
        return NotAllowed(text)


def _key_of(blob: bytes) -> PublicKey | None:
    """Return the key that a blob says it holds; None where it says nothing."""
    if not is_ours(blob):
        return None
    try:
        # No blob opens that holds another key than its header says.
        return parse_blob(blob)[0].public_key
    except BadBlob as error:
        raise blob_error(error) from None


class Rules:
    """The rules of an image.

    Args:
        rules: In any order.
        on_refused: Called with the text of every refused call.
    """

    def __init__(self, rules: Sequence[Rule], on_refused: Callable[[str], None]) -> None:
        self._rules = rules
        self._on_refused = on_refused

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._rules)

    @property
    def ask_for_cgroups(self) -> bool:
        """Whether a rule has a condition on control groups."""
        return any(condition.fact is Fact.CGROUP for rule in self._rules for condition in rule.conditions)

    def rights_of(self, client: Client) -> Rights | None:
        """Return what a client may do; None if no rule names it."""
        named = [n for n, rule in enumerate(self._rules) if all(each.holds(client) for each in rule.conditions)]
        if not named:
            return None
        allowed: dict[str, frozenset[str] | None] = {}
        for rule in (self._rules[n] for n in named):
            for call in rule.calls:
                before = allowed.get(call, frozenset())
                allowed[call] = None if before is None or rule.keys is None else before | rule.keys
        return Rights(named[0], allowed, self._on_refused)
