"""A vault on an enclave that answers by itself, for tests of what lies between the two."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from enclave_signer.curves import SigningKey, curve
from enclave_signer.protocol.messages import (
    Result,
    SigningVersion,
)
from enclave_signer.tezos import parse_secret_key
from host_backend.addresses import Address
from host_backend.enclave.endpoint import Endpoint
from host_backend.enclave.supervisor import LinkLimits
from host_backend.errors import HostError
from host_backend.keystore.base import StoredKey
from host_backend.vault.vault import Vault, open_vault
from tests.doubles.auto_enclave import AutoEnclave, auto_enclave
from tests.doubles.known_keys import FOUR, KEYS
from tests.doubles.memory_keys import MemoryKeys

PATIENCE_S = 60.0
#: No pause between attempts, and nothing that is late by the clock.
QUICK = LinkLimits(
    check_s=600,
    first_pause_s=0.0,
    sign_s=600,
    patience_s=600,
    sealer_s=600,
    ready_s=600,
    signature_s=600,
    look_again_s=0.0,
    renewal_s=0.0,
)
OPENED: dict[str, SigningKey] = {
    key.pkh: curve(key.key_type).open(parse_secret_key(key.secret)) for key in (*FOUR, KEYS["alice"], KEYS["bob"])
}
PKHS = [key.pkh for key in FOUR]
TZ1, TZ2, TZ3, TZ4 = PKHS
ALICE, BOB = KEYS["alice"].pkh, KEYS["bob"].pkh
LINK_ERROR = "the connection to the enclave was lost"

Scenario = Callable[[Vault, AutoEnclave, MemoryKeys], Awaitable[None]]


def blob(pkh: str) -> bytes:
    return b"blob of " + pkh.encode()


def stored(*pkhs: str) -> MemoryKeys:
    return MemoryKeys(*(StoredKey(pkh, blob(pkh)) for pkh in pkhs))


def play(scenario: Scenario, *, limits: LinkLimits = QUICK, store: MemoryKeys | None = None, **options: Any) -> None:
    """Open a vault on an enclave that opens the blobs of all keys, and run a scenario."""
    keys = stored(*PKHS) if store is None else store

    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S), auto_enclave({blob(pkh): OPENED[pkh] for pkh in OPENED}) as enclave:
            opened = open_vault(keys, Endpoint(Address("127.0.0.1", enclave.port)), limits=limits, **options)
            async with opened as vault:
                await scenario(vault, enclave, keys)

    asyncio.run(run())


def right(pkh: str, message: bytes = b"message") -> Result:
    return OPENED[pkh].sign(message, SigningVersion.V2)


async def outcome(asked: Awaitable[Result]) -> Result | HostError:
    try:
        return await asked
    except HostError as error:
        return error


def secret(pkh: str) -> Any:
    (known,) = (key for key in KEYS.values() if key.pkh == pkh)
    return parse_secret_key(known.secret)
