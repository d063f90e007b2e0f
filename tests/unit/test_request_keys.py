"""Whose key signed a request: a sender of wrong signatures waits behind its own, and known clients wait for no one."""

import asyncio
import threading

import pytest

from enclave_signer.tezos import parse_public_key
from host_backend.api import auth
from host_backend.api.auth import RECENT_KEYS, RequestKeys
from host_backend.errors import PolicyDenied, TooManyWait
from tests.doubles.known_keys import FOUR, KEYS, KnownKey
from tests.doubles.octez_client import signature_by

MESSAGE = b"message"
STRANGER, CLIENT, OTHER = "192.0.2.1", "192.0.2.2", "192.0.2.3"
TZ1S = [key for key in KEYS.values() if key.pkh.startswith("tz1")][:6]


def keys_of(*keys: KnownKey) -> RequestKeys:
    return RequestKeys([parse_public_key(key.public_key) for key in keys])


async def finds(keys: RequestKeys, key: KnownKey, address: str = CLIENT) -> None:
    assert await keys.authenticate(signature_by(key, MESSAGE), address, (MESSAGE,)) == key.pkh


def order_beside_wrong_ones(key: KnownKey, *, known: bool) -> list[str]:
    """Return the order in which 30 wrong requests of one address and a right one of another, the last, are answered."""
    keys, ended = keys_of(key), []
    wrong = signature_by(key, b"another")

    async def ask_wrong() -> None:
        with pytest.raises(PolicyDenied):
            await keys.authenticate(wrong, STRANGER, (MESSAGE,))
        ended.append("wrong")

    async def ask_right() -> None:
        await finds(keys, key)
        ended.append("right")

    async def run() -> None:
        if known:
            await finds(keys, key)
        async with asyncio.TaskGroup() as group:
            for _ in range(30):
                group.create_task(ask_wrong())
            group.create_task(ask_right())

    asyncio.run(run())
    assert len(ended) == 31
    return ended


@pytest.mark.parametrize("key", FOUR, ids=lambda key: key.pkh[:3])
def test_addresses_take_turns(key: KnownKey) -> None:
    # One of the stranger's was under way.
    assert order_beside_wrong_ones(key, known=False).index("right") == 1


@pytest.mark.parametrize("key", FOUR[:3], ids=lambda key: key.pkh[:3])
def test_a_known_client_waits_for_nobody(key: KnownKey) -> None:
    assert order_beside_wrong_ones(key, known=True).index("right") == 0


def test_a_known_client_of_a_slow_curve_waits_for_its_turn() -> None:
    assert order_beside_wrong_ones(FOUR[3], known=True).index("right") == 1


class Tried:
    """Which keys were tried for one signature, in order, and in which thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pkhs: list[tuple[str, ...]] = []
        self.in_loop: list[bool] = []
        signer_of = auth._signer_of

        def noting(keys, signatures, signed):  # type: ignore[no-untyped-def]
            self.pkhs.append(tuple(key.pkh for key in keys))
            self.in_loop.append(threading.current_thread() is threading.main_thread())
            return signer_of(keys, signatures, signed)

        monkeypatch.setattr(auth, "_signer_of", noting)


def test_few_keys_are_tried_in_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = keys_of(*TZ1S)
    *known, last = TZ1S

    async def run() -> None:
        for key in known:
            await finds(keys, key)
        tried = Tried(monkeypatch)
        await finds(keys, last)
        recent = tuple(key.pkh for key in reversed(known))[:RECENT_KEYS]
        rest = tuple(key.pkh for key in TZ1S if key.pkh not in recent)
        assert (tried.pkhs, tried.in_loop) == ([recent, rest], [True, False])
        await finds(keys, last)
        assert tried.pkhs[2:] == [(last.pkh, *recent[:-1])]

    asyncio.run(run())


def test_a_key_that_signed_is_tried_first_also_where_it_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = KEYS["tz4pop"], KEYS["tz4alias"]
    keys = keys_of(first, second)

    async def run() -> None:
        await finds(keys, second)
        tried = Tried(monkeypatch)
        await finds(keys, second)
        assert (tried.pkhs, tried.in_loop) == ([(), (second.pkh, first.pkh)], [True, False])

    asyncio.run(run())


def test_addresses_that_signed_long_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "RECENT_ADDRESSES", 2)
    key = TZ1S[0]
    keys = keys_of(key)

    async def run() -> None:
        for address in (CLIENT, OTHER, CLIENT, "192.0.2.4"):
            await finds(keys, key, address)
        tried = Tried(monkeypatch)
        await finds(keys, key, CLIENT)
        await finds(keys, key, OTHER)
        assert tried.in_loop == [True, True, False]

    asyncio.run(run())


def test_the_line_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "MAX_WAITING_OF_ADDRESS", 2)
    key = TZ1S[0]
    keys = keys_of(key)
    wrong = signature_by(key, b"another")

    async def run() -> None:
        asked = [keys.authenticate(wrong, STRANGER, (MESSAGE,)) for _ in range(4)]
        errors = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(error) for error in errors] == [PolicyDenied, PolicyDenied, PolicyDenied, TooManyWait]
        assert str(errors[-1]).startswith("2 requests with signatures of this address wait already: ")

    asyncio.run(run())
