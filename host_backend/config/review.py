"""What a configuration allows, what in it means nothing, and what in it is dangerous: in words, for its owner.

Nothing here decides anything; a configuration with dangers is used all the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from enclave_signer.tezos import ConsensusKind, public_key_hash
from host_backend.config import Config, UnixAddress
from host_backend.operations.risks import HANDS_OVER, Risk
from host_backend.operations.table import RISKS
from host_backend.policy import KeyPolicy
from host_backend.watermark.rule import DEFAULT_MAX_LEVEL_JUMP

_CONSENSUS = frozenset(map(str, ConsensusKind))


@dataclass(frozen=True, slots=True)
class Review:
    """What is to be known of a configuration; one line each.

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
        kinds.append("proofs of possession")
    parts = [f"signs {', '.join(kinds) or 'nothing'}"]
    if policy.chains is not None:
        parts.append(f"on {', '.join(sorted(policy.chains)) or 'no chain'}")
    if policy.clients is not None:
        parts.append(f"for the clients {', '.join(sorted(policy.clients)) or '(none)'}")
    if policy.users is not None:
        parts.append(f"for the users {', '.join(sorted(policy.users)) or '(none)'}")
    return "; ".join(parts)


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
        yield f"{path}: nobody is known without `{place}`: it signs nothing"
    elif named is not None and known is not None:
        for name in sorted(named - known):
            yield f"{path}: {name} is not in `{place}`, and so never known"


def open_doors(config: Config) -> Iterator[str]:
    """Yield what strangers who reach the host, or the network around it, can have, and the remedy."""
    server = config.server
    if not server.address.is_loopback and not server.asks_who:
        yield (
            f"server.address: whoever reaches {server.address} has signed what the policies allow: listen on 127.0.0.1, "
            "or set `authorized_keys`"
        )
    if server.jwt_users is not None and server.tls is None and not server.address.is_loopback:
        yield f"server.jwt: passwords and tokens cross the network to {server.address} in clear: set `tls`"
    if not server.utility_address.is_loopback:
        yield f"server.utility_address: whoever reaches {server.utility_address} reads which keys are here, and how they do"
        if server.attestation:
            yield f"server.attestation: whoever reaches {server.utility_address} sees which image runs, and where"
    for vault in config.vaults.values():
        if not vault.enclave.is_loopback and vault.attestation is None:
            how = "is in clear" if vault.tls is None else "may end at anyone"
            yield f"vaults.{vault.name}: the link to {vault.enclave} {how}: set `tls` and `attestation`, or protect the network"
    if config.hook is not None and config.hook.address.startswith("http:") and config.hook.authorized_keys is None:
        yield "policy_hook: whoever is in between can answer for it: use https, or set `authorized_keys`"


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
    for pkh, policy in config.policies.items():
        for operation in sorted(_operations(policy) & HANDS_OVER.keys()):
            yield f"tezos.{pkh}: may {operation}: {HANDS_OVER[operation]}"


def _operations(policy: KeyPolicy) -> frozenset[str]:
    return policy.operations if "generic" in policy.requests else frozenset()


def _dangerous_policies(config: Config) -> Iterator[str]:
    for pkh, policy in config.policies.items():
        funds = sorted(name for name in _operations(policy) if RISKS[name] is not Risk.NONE)
        if funds and policy.requests & _CONSENSUS:
            yield f"tezos.{pkh}: bakes, and may {', '.join(funds)}: use a consensus key of its own for baking"
        if "pack" in policy.requests:
            yield f"tezos.{pkh}.allow.pack: packed data may be what a contract pays for, and is not looked at"
