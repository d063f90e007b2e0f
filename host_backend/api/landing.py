"""What the landing page tells: what this host is, and how its vaults and keys do. No secret.

It is made in steps, for all who ask within a second, and shows a bounded number of keys.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypedDict

from enclave_signer import __version__
from host_backend.api.health import is_degraded, why_idle
from host_backend.metrics import LastSigned
from host_backend.steps import Work
from host_backend.vault.vault import Vault

#: Keys that are shown: a page of some 100 KB. `/known_keys` of the other address lists all.
MAX_KEYS = 500
#: Said of an enclave that need not prove anything.
NOT_CHECKED = (
    "Not checked: this host does not ask the enclave which image it runs. Whether a key opens for other images, "
    "the key management service decides."
)
#: And of one that has proven what it is.
CHECKED = (
    "Checked: the enclave has proven, by a token of Google's Confidential Space, that it runs an image on a machine which "
    "this host's policy allows, and that this host's connection ends there. The proof is good until {}, and renewed before."
)
#: And of one whose proof counts no more, or not much longer.
OVERDUE = (
    "Not checked at the moment: the enclave has proven which image it runs, but this host's policy or certificate has changed "
    "since, or the proof is old, and there is no other one yet. Without one, this host signs until {} at the latest."
)
NO_CONNECTION = "Nothing is proven at the moment: there is no connection to the enclave."


class SignedState(TypedDict):
    """What a key signed last; `at` in UTC."""

    kind: str
    level: int | None
    round: int | None
    at: str


class KeyShown(TypedDict):
    """A key under `tezos`."""

    pkh: str
    vault: str | None
    in_service: bool
    reason: str | None
    last_signature: SignedState | None


class VaultShown(TypedDict):
    """A vault, and how many of its keys can sign."""

    name: str
    ready: bool
    reason: str | None
    keys_ready: int
    keys_out_of_service: int


class AttestationShown(TypedDict):
    """The facts about the enclaves' images; `checked` if each has proven which one it runs, and no proof is overdue."""

    checked: bool
    text: str


class State(TypedDict):
    """Everything that the page tells; keys beyond `MAX_KEYS` are counted only. `/healthz` names the degraded ones."""

    service: str
    version: str
    ready: bool
    degraded: bool
    attestation: AttestationShown
    vaults: list[VaultShown]
    keys: list[KeyShown]
    keys_total: int
    endpoints: dict[str, str]


ENDPOINTS = {
    "/": "this page, also as JSON",
    "/healthz": "whether keys can sign, and why not",
    "/health": "the same in one word",
    "/livez": "whether this process lives",
    "/metrics": "for Prometheus",
    "/docs": "what these routes take and answer",
    "/openapi.json": "the same for programs",
}
#: Where tokens are shown.
REPORT_ENDPOINT = {"/attestation": "a token of the enclave, made for a nonce of yours, for you to verify"}


def state(
    health: Work[tuple[bool, bytes]],
    vaults: Sequence[Vault],
    listed: Collection[str],
    signed: Mapping[str, LastSigned],
    *,
    shows_tokens: bool = False,
) -> Work[State]:
    """Return what the page tells.

    Args:
        health: Tells whether the host is ready.
        vaults: Whose keys are shown.
        listed: Hashes of the keys under `tezos`.
        signed: What each signed last.
        shows_tokens: Whether there is a route that shows tokens of the enclaves.
    """
    ready, body = yield from health
    keys = []
    out = [vault.out_of_service for vault in vaults]
    for pkh in list(listed)[:MAX_KEYS]:
        yield None
        keys.append(_key(pkh, vaults, out, signed.get(pkh)))
    return {
        "service": "enclave-host",
        "version": __version__,
        "ready": ready,
        "degraded": is_degraded(body),
        "attestation": _attestation(vaults),
        "vaults": [_vault(vault) for vault in vaults],
        "keys": keys,
        "keys_total": len(listed),
        "endpoints": ENDPOINTS | REPORT_ENDPOINT if shows_tokens else ENDPOINTS,
    }


def wants_json(accept: str) -> bool:
    """Return whether a client asks for JSON rather than for a page, by its `Accept` header."""
    return "application/json" in accept and "text/html" not in accept


def _attestation(vaults: Sequence[Vault]) -> AttestationShown:
    texts = {vault.name: _proof(vault) for vault in vaults}
    text = " ".join(texts.values() if len(texts) == 1 else [f"{name}: {text}" for name, text in texts.items()])
    checked = bool(vaults) and all(_is_checked(vault) for vault in vaults)
    return {"checked": checked, "text": text or "There is no vault."}


def _is_checked(vault: Vault) -> bool:
    client = vault.link.client
    proven = client is not None and client.proof is not None and not client.doubted
    return proven and not vault.link.proof_overdue


def _proof(vault: Vault) -> str:
    client = vault.link.client
    if client is None:
        return NO_CONNECTION
    if client.proof is None:
        return NOT_CHECKED
    if _is_checked(vault):
        return CHECKED.format(_words(client.good_until))
    return OVERDUE.format(_words(client.proof.outlasts_to))


def _vault(vault: Vault) -> VaultShown:
    problem = vault.problem
    return {
        "name": vault.name,
        "ready": problem is None,
        "reason": problem,
        "keys_ready": len(vault.keys) if problem is None else 0,
        "keys_out_of_service": len(vault.out_of_service),
    }


def _key(pkh: str, vaults: Sequence[Vault], out: Sequence[Mapping[str, str]], last: LastSigned | None) -> KeyShown:
    serving = next((vault for vault in vaults if vault.serves(pkh)), None)
    reason = None if serving is not None else why_idle(pkh, vaults, out) or "its vault is not ready"
    return {
        "pkh": pkh,
        "vault": None if serving is None else serving.name,
        "in_service": serving is not None,
        "reason": reason,
        "last_signature": None if last is None else _signed(last),
    }


def _signed(last: LastSigned) -> SignedState:
    return {"kind": last.kind, "level": last.level, "round": last.round, "at": _time(last.at)}


def _words(seconds: float) -> str:
    return _time(seconds).replace("T", " ")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
