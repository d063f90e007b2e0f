"""Which of several vaults signs: the first that can, else the first that holds the key and may be waited for."""

from collections.abc import Sequence

from host_backend.errors import EnclaveRefused, KeyNotFound
from host_backend.vault.vault import Vault


async def find_vault(vaults: Sequence[Vault], pkh: str) -> Vault:
    """Return the vault that holds a key; one whose enclave can be reached goes before others.

    Raises:
        KeyNotFound: None holds it.
        EnclaveRefused: It is out of service.
    """
    for vault_in_service in vaults:
        if vault_in_service.serves(pkh):
            return vault_in_service
    vault, refusal = _find_vault(vaults, pkh)
    if vault is None and refusal is None:
        # Another process may have stored it a moment ago.
        for each in vaults:
            await each.read_store()
        vault, refusal = _find_vault(vaults, pkh)
    if vault is None:
        raise refusal or KeyNotFound("this key not found in any vault")
    return vault


def _find_vault(vaults: Sequence[Vault], pkh: str) -> tuple[Vault | None, EnclaveRefused | None]:
    away: Vault | None = None
    out_of_service: EnclaveRefused | None = None
    for vault in vaults:
        try:
            held = vault.holds(pkh)
        except EnclaveRefused as error:
            # Another vault may hold the same key, in order.
            out_of_service = error
            continue
        if held and vault.problem is None:
            return vault, None
        if held and away is None:
            away = vault
    return away, out_of_service
