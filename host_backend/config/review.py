"""What a configuration allows, what in it means nothing, and what in it is dangerous: in words, for its owner.

Nothing here decides anything; a configuration with dangers is used all the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from enclave_signer.tezos import public_key_hash
from host_backend.addresses import UnixAddress
from host_backend.config import Config
from host_backend.config.octez import OctezConfig
from host_backend.operations.messages import CONSENSUS_KINDS
from host_backend.operations.risks import HANDS_OVER, Risk
from host_backend.operations.table import RISKS
from host_backend.policy import ANY, DEFAULT_POLICY, KeyPolicy
from host_backend.watermark.rule import DEFAULT_MAX_LEVEL_JUMP


@dataclass(frozen=True, slots=True)
class Review:
    """Findings about a configuration; one line each.

    Attributes:
        settings: Names and values, in the order of the file.
        keys: Public-key hashes, and what each may sign.
        notes: What follows from that and is easily overlooked; it may be meant so.
        ignored: What means nothing, or less than it seems.
        dangers: What could cost money, and the remedy.
    """

    settings: dict[str, str]
    keys: dict[str, str]
    notes: tuple[str, ...]
    ignored: tuple[str, ...]
    dangers: tuple[str, ...]


def review(config: Config) -> Review:
    """Explain a configuration."""
    return Review(
        settings=dict(_settings(config)),
        keys={pkh: meaning(policy) for pkh, policy in config.policies.items()},
        notes=tuple(_notes(config)),
        ignored=(*config.warnings, *_without_effect(config)),
        dangers=(*open_doors(config), *_loose_ends(config), *_dangerous_policies(config)),
    )


def _settings(config: Config) -> Iterator[tuple[str, str]]:
    server = config.server
    yield "base_dir", str(config.base_dir)
    yield "signing", f"{server.address}, {_who(config)}{', over TLS' if server.tls else ''}"
    if server.octez is not None:
        addresses = ", ".join(map(str, server.octez.addresses))
        yield "Octez' sockets", f"{addresses}{', with the list of keys' if server.octez.known_keys else ''}"
    if server.trusted_proxies:
        yield "trusted proxies", ", ".join(map(str, server.trusted_proxies))
    yield "health", str(server.utility_address)
    for vault in config.vaults.values():
        place = (
            f"{vault.enclave}, a socket of this machine" if isinstance(vault.enclave, UnixAddress) else vault.enclave
        )
        yield f"vault {vault.name}", f"enclave {place}, {vault.keys.describe()}"
    yield (
        "watermark",
        f"{config.watermark.storage.describe()}, at most {config.watermark.max_level_jump} levels at once",
    )
    if config.experimental:
        yield "experimental", f"{', '.join(sorted(key_type.facts.address for key_type in config.experimental))} keys"
    yield "policy hook", "none" if config.hook is None else f"{config.hook.address}, {config.hook.timeout_s:g} s"


def _who(config: Config) -> str:
    server = config.server
    if server.jwt_users is not None:
        return f"for {len(server.jwt_users)} users with a password"
    if server.authorized_keys is not None:
        return f"for {len(server.authorized_keys)} keys that sign their requests"
    return "for everybody with a certificate" if server.asks_who else "for everybody who reaches it"


def meaning(policy: KeyPolicy) -> str:
    """Return in words what a key may sign, and for whom."""
    kinds = [kind for kind in sorted(policy.requests) if kind != "generic"]
    if "generic" in policy.requests and policy.operations:
        kinds.append(f"operations ({', '.join(sorted(policy.operations))})")
    if policy.allow_proof_of_possession:
        kinds.append(f"proofs of possession{_for_others(policy)}")
    parts = [f"signs {', '.join(kinds) or 'nothing'}"]
    if policy.chains is not None:
        parts.append(f"on {', '.join(sorted(policy.chains)) or 'no chain'}")
    if policy.clients is not None:
        parts.append(f"for the clients {', '.join(sorted(policy.clients)) or '(none)'}")
    if policy.users is not None:
        parts.append(f"for the users {', '.join(sorted(policy.users)) or '(none)'}")
    return "; ".join(parts)


def _for_others(policy: KeyPolicy) -> str:
    unsigned = ", unsigned requests too" if policy.unsigned_proofs else ""
    if policy.proofs_for == ANY:
        return f" (for any key{unsigned})"
    others = f"for itself and {len(policy.proofs_for)} more" if policy.proofs_for else "for itself"
    return f" ({others}{unsigned})" if policy.proofs_for or unsigned else ""


def _without_effect(config: Config) -> Iterator[str]:
    server = config.server
    if server.trusted_proxies and isinstance(server.address, UnixAddress):
        yield "server.trusted_proxies: clients of a Unix socket have no address, so none of them is believed"
    known_clients = None if server.authorized_keys is None else frozenset(map(public_key_hash, server.authorized_keys))
    known_users = None if server.jwt_users is None else frozenset(server.jwt_users)
    for pkh, policy in config.policies.items():
        yield from _unknown(f"tezos.{pkh}.authorized_keys", policy.clients, known_clients, "server.authorized_keys")
        yield from _unknown(f"tezos.{pkh}.jwt_users", policy.users, known_users, "server.jwt")
        if "generic" in policy.requests and not policy.operations:
            yield f"tezos.{pkh}.allow.generic: names no operation, so it allows none"


def _unknown(path: str, named: frozenset[str] | None, known: frozenset[str] | None, place: str) -> Iterator[str]:
    if named is not None and known is None:
        yield f"{path}: no client is known without `{place}`: it signs nothing"
    elif named is not None and known is not None:
        for name in sorted(named - known):
            yield f"{path}: {name} is not in `{place}`, and so never known"


def open_doors(config: Config) -> Iterator[str]:
    """Yield what strangers who reach the host, or the network around it, can have, and the remedy."""
    server = config.server
    if not server.address.is_loopback and not server.asks_who:
        yield (
            f"server.address: anyone who reaches {server.address} can get signed what the policies allow: listen on 127.0.0.1, "
            "or set `authorized_keys`"
        )
    if server.octez is not None:
        yield from _open_sockets(server.octez, signed=server.authorized_keys is not None)
    if server.jwt_users is not None and server.tls is None and not server.address.is_loopback:
        yield f"server.jwt: passwords and tokens cross the network to {server.address} in clear: set `tls`"
    if not server.utility_address.is_loopback:
        yield f"server.utility_address: anyone who reaches {server.utility_address} can read which keys are here, and their state"
        if server.attestation:
            yield f"server.attestation: anyone who reaches {server.utility_address} can see which image runs, and where"
    for vault in config.vaults.values():
        if not vault.enclave.is_loopback and vault.attestation is None:
            how = "is in clear" if vault.tls is None else "may end at anyone"
            yield f"vaults.{vault.name}: the link to {vault.enclave} {how}: set `tls` and `attestation`, or protect the network"
    if config.hook is not None and config.hook.address.startswith("http:") and config.hook.authorized_keys is None:
        yield "policy_hook: others on the network can answer for it: use https, or set `authorized_keys`"


def _open_sockets(octez: OctezConfig, *, signed: bool) -> Iterator[str]:
    if octez.tcp is None or octez.tcp.is_loopback:
        return
    if not signed:
        yield (
            f"server.octez.tcp: all that reach {octez.tcp} have signed what the policies allow: listen on 127.0.0.1, or set "
            "`authorized_keys`"
        )
    yield f"server.octez.tcp: requests and answers cross the network to {octez.tcp} in clear, and can be changed there: use HTTPS"


def _loose_ends(config: Config) -> Iterator[str]:
    yield from (f"watermark.{danger}" for danger in config.watermark.storage.dangers())
    for vault in config.vaults.values():
        yield from (f"vaults.{vault.name}.config.storage.{danger}" for danger in vault.keys.dangers())
    if config.watermark.max_level_jump > DEFAULT_MAX_LEVEL_JUMP:
        yield (
            f"watermark.config.max_level_jump: one wrong request can burn a key for {config.watermark.max_level_jump} "
            f"levels: the default is {DEFAULT_MAX_LEVEL_JUMP}"
        )
    for vault in config.vaults.values():
        if vault.verify_bls == "background":
            yield f"vaults.{vault.name}.config.verify_bls: a wrong tz4 signature is noticed after it was given away"


def _notes(config: Config) -> Iterator[str]:
    if all(policy.allows_nothing for policy in config.policies.values()):
        yield "tezos: no key may sign anything, every request is refused: enclave-host keys allow lists what one may sign"
    if not config.base_dir.is_absolute():
        text = (
            f"base_dir: {config.base_dir} is relative to the folder in which each command is started: another folder, "
        )
        yield f"{text}other marks: write the whole path"
        if config.base_dir.parts[:1] and config.base_dir.parts[0].startswith("~"):
            yield f"base_dir: ~ is not the home folder here, but a folder called {config.base_dir.parts[0]}: write ${{HOME}}"
    for path in sorted(config.nulls):
        yield _of_null(path)
    for pkh, policy in config.policies.items():
        for operation in sorted(_operations(policy) & HANDS_OVER.keys()):
            yield f"tezos.{pkh}: may {operation}: {HANDS_OVER[operation]}"


def _of_null(path: str) -> str:
    match path.rpartition(".")[2]:
        case "allowed_chains":
            return f"{path}: null means any chain: write [] for none"
        case "authorized_keys" | "jwt_users":
            return f"{path}: null means any client: write [] for none"
        case _:
            return f"{path}: null means {meaning(DEFAULT_POLICY)}, as in Signatory: write {{}} for a key that signs nothing"


def _operations(policy: KeyPolicy) -> frozenset[str]:
    return policy.operations if "generic" in policy.requests else frozenset()


def _dangerous_policies(config: Config) -> Iterator[str]:
    for pkh, policy in config.policies.items():
        funds = sorted(name for name in _operations(policy) if RISKS[name] is not Risk.NONE)
        if funds and policy.requests & CONSENSUS_KINDS:
            yield f"tezos.{pkh}: bakes, and may {', '.join(funds)}: use a consensus key of its own for baking"
        if policy.proofs_for == ANY:
            yield (
                f"tezos.{pkh}.allow_proof_of_possession.others: any key: a participant of a common account can make a key "
                "of its own out of these proofs, and sign for all alone: name the keys"
            )
        if "pack" in policy.requests:
            yield f"tezos.{pkh}.allow.pack: packed data may be what a contract pays for, and is not looked at"
