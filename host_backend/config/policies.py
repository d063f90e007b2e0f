"""`tezos`: which keys sign, what, and for whom.

Source: Signatory's `pkg/config`, its old names included.
"""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from enclave_signer.protocol.messages import KeyType
from enclave_signer.tezos import Family, TezosError, check_public_key_hash, decode, public_key_hash
from host_backend.config.experimental import why_off
from host_backend.config.server import parse_authorized_keys
from host_backend.operations.messages import CONSENSUS_KINDS, REQUEST_KINDS
from host_backend.operations.table import OPERATION_KINDS
from host_backend.policy import ANY, DEFAULT_POLICY, KeyPolicy, ProofKeys
from host_backend.problems import Problems
from host_backend.suggestion import suggestion
from host_backend.yaml_document import Value, given

_FIELDS = ("log_payloads", "allow", "allow_proof_of_possession", "allowed_chains", "authorized_keys", "jwt_users")
#: Of these null means any.
_WIDE_AS_NULL = ("allowed_chains", "authorized_keys", "jwt_users")
_DEPRECATED = ("allowed_operations", "allowed_kinds")
_LISTS = " and ".join(_DEPRECATED)
#: Shown in Signatory's documentation, and read by nothing there.
_MEANINGLESS = ("vault",)
#: Old names. Source: Signatory.
_ALIASES = {
    "endorsement": "attestation",
    "preendorsement": "preattestation",
    "double_endorsement_evidence": "double_attestation_evidence",
    "double_preendorsement_evidence": "double_preattestation_evidence",
}


@dataclass(frozen=True, slots=True)
class Policies:
    """The section `tezos`.

    Attributes:
        by_key: Policies, by public-key hash.
        nulls: Paths where null stands for something that allows more than nothing.
    """

    by_key: dict[str, KeyPolicy]
    nulls: frozenset[str] = frozenset()


def parse_policies(value: Value | None, experimental: AbstractSet[KeyType], warnings: list[str]) -> Policies:
    """Return the section `tezos`.

    Args:
        value: The section.
        experimental: The types of keys that are asked for.
        warnings: Gets a line for everything that means less than its author may think.

    Raises:
        ConfigError: With file, line and dotted path of each fault.
    """
    policies: dict[str, KeyPolicy] = {}
    # Thousands of keys have a few policies between them.
    distinct: dict[KeyPolicy, KeyPolicy] = {}
    nulls: set[str] = set()
    with Problems() as problems:
        for pkh, entry in (value.mapping() if value else {}).items():
            with problems.catch():
                key_type = _key_type(pkh, entry, experimental)
                policy = _key_policy(entry, key_type, warnings, nulls)
                policies[pkh] = distinct.setdefault(policy, policy)
    return Policies(policies, frozenset(nulls))


def _key_type(pkh: str, entry: Value, experimental: AbstractSet[KeyType]) -> KeyType:
    try:
        key_type = check_public_key_hash(pkh)
    except TezosError as error:
        # The text may be a secret key, pasted by mistake, and is not repeated: the line says where it is.
        entry.path = f"tezos.{pkh[:4]}{'…' * (len(pkh) > 4)}"
        entry.fail(f"not a public key hash: {error}")
    if (reason := why_off(key_type, experimental)) is not None:
        entry.fail(reason)
    return key_type


def _key_policy(entry: Value, key_type: KeyType, warnings: list[str], nulls: set[str]) -> KeyPolicy:
    if not entry.is_null:
        return _policy(entry, key_type, warnings, nulls)
    if not key_type.facts.bakes:
        return KeyPolicy(frozenset())
    nulls.add(entry.path)
    return DEFAULT_POLICY


def _policy(value: Value, key_type: KeyType, warnings: list[str], nulls: set[str]) -> KeyPolicy:
    fields = value.record((*_FIELDS, *_DEPRECATED, *_MEANINGLESS))
    warnings += [f"{fields[name].path}: means nothing" for name in _MEANINGLESS if name in fields]
    nulls.update(fields[name].path for name in _WIDE_AS_NULL if name in fields and fields[name].is_null)
    requests, operations = _allowed(value, fields, warnings)
    if not key_type.facts.bakes and (useless := requests & CONSENSUS_KINDS):
        warnings.append(
            f"{value.path}: {', '.join(sorted(useless))} means nothing, {key_type.facts.address} keys never bake"
        )
        requests -= useless
    keys = parse_authorized_keys(given(fields, "authorized_keys"))
    proofs = _proofs(fields.get("allow_proof_of_possession"), key_type, warnings)
    return KeyPolicy(
        requests=requests,
        operations=operations,
        chains=_texts(given(fields, "allowed_chains"), _chain),
        clients=None if keys is None else frozenset(map(public_key_hash, keys)),
        users=_texts(given(fields, "jwt_users"), Value.text),
        allow_proof_of_possession=proofs.allowed,
        unsigned_proofs=proofs.unsigned,
        proofs_for=proofs.others,
        log_payloads="log_payloads" in fields and fields["log_payloads"].boolean(),
    )


@dataclass(frozen=True, slots=True)
class _Proofs:
    """Which proofs of possession a key gives; see `KeyPolicy`."""

    allowed: bool = False
    unsigned: bool = False
    others: ProofKeys = frozenset()


def _proofs(value: Value | None, key_type: KeyType, warnings: list[str]) -> _Proofs:
    """Return what `true`, `false` or a map says; the map is ours, and allows what `true` does."""
    is_map = value is not None and value.is_map and bool(value.mapping())
    if value is None or not (is_map or value.boolean()):
        return _Proofs()
    if not key_type.facts.proves_possession:
        warnings.append(f"{value.path}: means nothing, only tz4 keys can prove possession")
        return _Proofs()
    if not is_map:
        return _Proofs(allowed=True)
    fields = value.record(("unsigned", "others"))
    unsigned, others = given(fields, "unsigned"), given(fields, "others")
    return _Proofs(
        allowed=True,
        unsigned=unsigned is not None and unsigned.boolean(),
        others=frozenset() if others is None else _other_keys(others),
    )


def _other_keys(value: Value) -> ProofKeys:
    texts = [*dict.fromkeys(leaf.text() for leaf in value.leaves())]
    if texts == [ANY]:
        return ANY
    keys = parse_authorized_keys(value) or ()
    for key, text in zip(keys, texts, strict=True):
        if not key.key_type.facts.proves_possession:
            value.fail(f"{text} is not the public key of a tz4 key (BLpk…)")
    return frozenset(keys)


def _allowed(value: Value, fields: dict[str, Value], warnings: list[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return kinds of request and of operation; `allow` wins over the older pair. Source: Signatory."""
    old = [fields[name] for name in _DEPRECATED if name in fields and not fields[name].is_null]
    allow = fields.get("allow")
    if allow is not None and not (allow.is_null and old):
        warnings += [f"{entry.path}: means nothing beside `allow`" for entry in old]
        return _allow(allow, warnings)
    requests = _kinds(fields.get("allowed_operations"), warnings)
    operations = _operations(fields.get("allowed_kinds"))
    if old:
        warnings.append(f"{value.path}: {_LISTS} are deprecated, write allow: {_allow_map(requests, operations)}")
    return requests, operations if "generic" in requests else frozenset()


def _allow_map(requests: frozenset[str], operations: frozenset[str]) -> str:
    """Return `allow` as one line of YAML."""
    lists = {"generic": f"[{', '.join(sorted(operations))}]"} if operations else {}
    return f"{{{', '.join(f'{kind}: {lists.get(kind, str())}' for kind in sorted(requests))}}}"


def _allow(value: Value, warnings: list[str]) -> tuple[frozenset[str], frozenset[str]]:
    requests: set[str] = set()
    operations: frozenset[str] = frozenset()
    with Problems() as problems:
        for name, entry in value.mapping().items():
            with problems.catch():
                kind = _request_kind(entry, name, warnings)
                requests.add(kind)
                if kind == "generic":
                    operations = _operations(entry)
                elif not entry.is_null:
                    warnings.append(f"{entry.path}: only `generic` takes a list; this one means nothing")
    return frozenset(requests), operations


def _kinds(value: Value | None, warnings: list[str]) -> frozenset[str]:
    items = value.items() if value else []
    return frozenset(_request_kind(item, item.text(), warnings) for item in items)


def _request_kind(place: Value, name: str, warnings: list[str]) -> str:
    kind = _ALIASES.get(name, name)
    if kind != name:
        warnings.append(f"{place.path}: {name!r} is the old name of {kind!r}")
    if kind not in REQUEST_KINDS:
        hint = suggestion(name, REQUEST_KINDS, f"known are {', '.join(sorted(REQUEST_KINDS))}")
        place.fail(f"invalid request kind `{name}` in `allow` list, {hint}")
    return kind


def _texts(value: Value | None, parse: Callable[[Value], str]) -> frozenset[str] | None:
    """Return the items of a list; None, which means any, where there is no list, and an empty list means none."""
    return None if value is None else frozenset(map(parse, value.items()))


def _operations(value: Value | None) -> frozenset[str]:
    operations: set[str] = set()
    with Problems() as problems:
        for item in value.items() if value else []:
            with problems.catch():
                operations.add(_operation(item))
    return frozenset(operations)


def _operation(value: Value) -> str:
    name, colon, choice = value.text().partition(":")
    kind = _ALIASES.get(name, name) + colon + choice
    if kind not in OPERATION_KINDS:
        value.fail(f"invalid operation kind `{kind}` in `allow.generic` list{_why_no_operation(name, kind)}")
    return kind


def _why_no_operation(name: str, kind: str) -> str:
    """Return the rest of the error for a name that is not an operation."""
    old = f", in the file by its old name `{name}`" if not kind.startswith(name) else ""
    if kind in REQUEST_KINDS:
        return f"{old}, it is a kind of request: remove it here and list it under `allow`"
    if old:
        return f"{old}, remove it"
    hint = suggestion(kind, OPERATION_KINDS)
    return f", {hint}" if hint else ""


def _chain(value: Value) -> str:
    try:
        decode(value.text(), Family.CHAIN_ID)
    except TezosError as error:
        value.fail(str(error))
    return value.text()
