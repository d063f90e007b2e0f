"""Whether the host is ready, and what keeps which key from signing."""

from collections.abc import Iterator, Mapping, Sequence

from host_backend.api.parts import json_list
from host_backend.errors import EnclaveRefused
from host_backend.policy import KeyPolicy
from host_backend.steps import Work
from host_backend.vault.vault import Vault
from host_backend.watermark.base import WatermarkStore

NOTHING_ALLOWED = "no key under `tezos` may sign anything: enclave-host keys allow lists what one may sign"


def health(
    vaults: Sequence[Vault], watermark: WatermarkStore, policies: Mapping[str, KeyPolicy], *, stopping: bool
) -> Work[tuple[bool, bytes]]:
    """Return whether the host is ready, and the body that says so, and why not."""
    out = [vault.out_of_service for vault in vaults]
    idle: dict[str, str] = {}
    some_signs = False
    # No copy: policies are replaced as a whole.
    for pkh, policy in policies.items():
        yield None
        # Most keys are done with here, at the least cost: there may be thousands.
        if not any(vault.serves(pkh) for vault in vaults) and (why := why_idle(pkh, vaults, out)) is not None:
            idle[pkh] = why
        elif not (some_signs or policy.allows_nothing):
            some_signs = True
    problems = [f"{vault.name}: {vault.problem}" for vault in vaults if vault.problem is not None]
    if idle and not some_signs:
        pkh, why = next(iter(idle.items()))
        problems.append(f"no key under `tezos` can sign; the first of them, {pkh}: {why}")
    elif not some_signs:
        problems.append(NOTHING_ALLOWED)
    if watermark.problem is not None:
        problems.append(watermark.problem)
    if stopping:
        problems.append("stopping")
    body = b'{"ready":false' if problems else b'{"ready":true'
    if problems:
        body += b',"reasons":' + (yield from json_list(problems))
    unreleased = yield from json_list(_unreleased(vaults))
    if unreleased != b"[]":
        body += b',"not_released":' + unreleased
    degraded = yield from json_list(_degraded(vaults, watermark, idle, out))
    if degraded != b"[]":
        body += b',"degraded":' + degraded
    return not problems, body + b"}\n"


def is_degraded(body: bytes) -> bool:
    """Return whether the body says that something is degraded; texts in it cannot: their quotes are escaped."""
    return b',"degraded":[' in body


def _unreleased(vaults: Sequence[Vault]) -> Iterator[str]:
    for vault in vaults:
        for pkh, reason in vault.unreleased.items():
            yield f"{pkh}: {reason}"


def _degraded(
    vaults: Sequence[Vault], watermark: WatermarkStore, idle: Mapping[str, str], out: Sequence[Mapping[str, str]]
) -> Iterator[str | None]:
    for vault in vaults:
        yield from vault.degraded
    for pkh, why in idle.items():
        # Vaults name their own keys that are out of service.
        yield None if any(pkh in each for each in out) else f"{pkh}: {why}"
    yield from list(watermark.refused.values())


def why_idle(pkh: str, vaults: Sequence[Vault], out: Sequence[Mapping[str, str]]) -> str | None:
    """Return why a key that no vault serves cannot sign.

    Args:
        pkh: The key's hash.
        vaults: Where it may be.
        out: The keys that are out of service in each vault, and why; taken once for all keys.

    Returns:
        The reason; None when a vault holds the key and cannot sign at all: then that vault's problem is reported.
    """
    holding = [vault for vault, reasons in zip(vaults, out, strict=True) if pkh not in reasons and _holds(vault, pkh)]
    if any(vault.problem is not None for vault in holding):
        return None
    if holding:
        return "not in service yet"
    return next((reasons[pkh] for reasons in out if pkh in reasons), "in no vault")


def _holds(vault: Vault, pkh: str) -> bool:
    try:
        return vault.holds(pkh)
    except EnclaveRefused:
        # Out of service since `out` was taken.
        return True
