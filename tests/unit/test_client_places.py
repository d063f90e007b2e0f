"""What one client may have under way at sealers, and all of them at a server: the loop and the others go on."""

import math
from collections.abc import AsyncIterator

import httpx
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from enclave_signer.errors import SealingUnavailable
from enclave_signer.protocol.blob import BlobHeader
from enclave_signer.protocol.messages import Credentials, KeyType, PrivateKey, PublicKey
from enclave_signer.sealing.allow_list import AllowList
from enclave_signer.sealing.base import Sealer, UnsealedKey
from enclave_signer.sealing.client_places import PLACES, WAIT_S
from enclave_signer.sealing.gated_rules import GatedRule
from enclave_signer.sealing.providers import Providers
from enclave_signer.sealing.reseal_rules import ResealRule
from enclave_signer.sealing.resealing import ResealingByImage
from enclave_signer.sealing.vault_client import MAX_CONNECTIONS, VaultClient, VaultRequest
from enclave_signer.sealing.vault_config import AppRoleLogin, VaultConfig
from tests.doubles.certificates import Authority

PUBLIC = PublicKey(KeyType.ED25519, bytes(32))


class Slow:
    """A provider that answers when it is let."""

    name = "slow"
    takes_legacy = False
    limit_s: float | None = 25.0
    shared_s = math.inf

    def __init__(self) -> None:
        self.asked = 0
        self.answer = trio.Event()

    async def open_sealer(self, credentials: Credentials) -> Sealer:
        del credentials
        await trio.lowlevel.checkpoint()
        return self

    async def seal(self, private_key: PrivateKey, public_key: PublicKey) -> bytes:
        del private_key, public_key
        self.asked += 1
        await self.answer.wait()
        return b""

    async def unseal(self, blob: bytes) -> UnsealedKey:
        del blob
        self.asked += 1
        await self.answer.wait()
        return UnsealedKey(PrivateKey(KeyType.ED25519, bytes(32)), PUBLIC)

    async def aclose(self) -> None:
        """Let go of nothing."""


class Empty(httpx.AsyncByteStream):
    """The body of an answer that is an object without members."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"{}"


def blob(number: int) -> bytes:
    return BlobHeader("slow", f"slow/{number}", PUBLIC).encode() + b"sealed"


@pytest.mark.parametrize("gated", [(), (GatedRule("slow/", "slow", 60.0, 10.0),)])
def test_a_client_has_a_share_of_the_calls_over_all_its_connections(gated: tuple[GatedRule, ...]) -> None:
    slow = Slow()
    refused: list[str] = []

    async def call(sealer: Sealer, number: int) -> None:
        try:
            await sealer.unseal(blob(number))
        except SealingUnavailable as error:
            refused.append(str(error))

    async def main() -> None:
        providers = Providers([slow], gated)
        async with providers.running(), trio.open_nursery() as nursery:
            for _ in range(2):
                sealer = await providers.for_client("192.0.2.1").open_sealer(Credentials())
                for number in range(PLACES):
                    nursery.start_soon(call, sealer, slow.asked * PLACES + number)
                await wait_all_tasks_blocked()
            assert slow.asked == PLACES
            other = await providers.for_client("192.0.2.2").open_sealer(Credentials())
            nursery.start_soon(call, other, -1)
            await wait_all_tasks_blocked()
            assert slow.asked == PLACES + 1
            await trio.sleep(WAIT_S + 1)
            slow.answer.set()

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert refused == [f"{PLACES} calls of this client had no answer of a sealer for {WAIT_S:g} s"] * PLACES


def test_keys_that_are_sealed_again_have_places_too() -> None:
    slow = Slow()
    key = PrivateKey(KeyType.ED25519, bytes(32))

    async def main() -> None:
        providers = Providers([slow])
        rules = [ResealRule("slow/", "slow/new", "slow")]
        async with providers.running(), trio.open_nursery() as nursery:
            for _ in range(2):
                # One for each connection.
                resealing = ResealingByImage(providers, rules, "192.0.2.1")
                for number in range(PLACES):
                    to = await resealing.open_target(blob(number), "slow/new", Credentials())
                    nursery.start_soon(to.seal, key, PUBLIC)
            await wait_all_tasks_blocked()
            assert slow.asked == PLACES
            slow.answer.set()

    trio.run(main)


def test_a_server_is_asked_as_much_at_once_as_there_are_connections(
    certificates: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way, most = 0, 0

    async def answer(_: httpx.Request) -> httpx.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await trio.sleep(0.01)
        under_way -= 1
        return httpx.Response(200, stream=Empty())

    config = VaultConfig(
        address="https://vault.example:8200",
        ca_file=certificates.file,
        server="vault",
        login=AppRoleLogin("auth/approle", "role", certificates.file),
        allow_list=AllowList(identity_providers=(), seal_keys=()),
    )

    async def main() -> None:
        client = VaultClient(config, 8.0, ())
        monkeypatch.setattr(client, "_http", httpx.MockTransport(answer))
        async with trio.open_nursery() as nursery:
            for number in range(10 * MAX_CONNECTIONS):
                nursery.start_soon(client.ask, VaultRequest(f"transit/decrypt/{number}", {}))

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert most == MAX_CONNECTIONS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))
