"""Slow verification of requests: whoever sends wrong signatures waits behind its own."""

import asyncio

from enclave_signer.tezos import parse_public_key
from host_backend.api.auth import RequestKeys
from host_backend.errors import PolicyDenied
from tests.doubles.known_keys import KEYS
from tests.doubles.octez_client import signature_by

CLIENT = KEYS["tz4pop"]
STRANGER = KEYS["tz4alias"]
MESSAGE = b"message"


def test_addresses_take_turns() -> None:
    keys = RequestKeys([parse_public_key(CLIENT.public_key)])
    good, wrong = signature_by(CLIENT, MESSAGE), signature_by(STRANGER, MESSAGE)
    ended: list[str] = []

    async def ask(text: str, address: str) -> None:
        try:
            assert await keys.authenticate(text, address, (MESSAGE,)) == CLIENT.pkh
        except PolicyDenied:
            assert text == wrong
        ended.append(address)

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(30):
                group.create_task(ask(wrong, "192.0.2.1"))
            group.create_task(ask(good, "192.0.2.2"))

    asyncio.run(run())
    assert len(ended) == 31
    # One of the stranger's was under way.
    assert ended.index("192.0.2.2") == 1
    assert not keys._turns
