"""Proofs of a running link: renewed beside it, missed when Google is away, and of no use to a machine in between."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from enclave_signer.protocol import codec
from enclave_signer.protocol.framing import FrameDecoder, encode_frame
from enclave_signer.protocol.messages import Attest, KeyType, PrivateKey, Request
from enclave_signer.tezos import parse_secret_key
from host_backend.addresses import Address
from host_backend.api.reports import attestation_endpoint
from host_backend.attestation.judging import TokenJudge, pinned_root
from host_backend.enclave.client import open_client
from host_backend.enclave.connection import connect
from host_backend.enclave.endpoint import Endpoint
from host_backend.enclave.proving import Proving
from host_backend.enclave.supervisor import LinkLimits
from host_backend.enclave.tls import TlsClient
from host_backend.errors import AttestationRefused, EnclaveRefused, EnclaveUnavailable, HostError
from host_backend.keystore.base import StoredKey
from host_backend.readings import host_readings
from host_backend.vault.vault import Vault, open_vault
from host_backend.watermark.memory import MemoryWatermarkStore
from tests.doubles.asgi import ask
from tests.doubles.asyncio_server import AsyncioServer
from tests.doubles.attested_world import OLDER, POLICY, AttestedWorld, attested_world, calls, wait_for_calls
from tests.doubles.client_certificates import client_files
from tests.doubles.google.tokens import DIGEST
from tests.doubles.known_keys import FOUR
from tests.doubles.memory_keys import MemoryKeys
from tests.doubles.processes import PATIENCE_S, Enclave

TZ1 = FOUR[0]
HOUR_S = 3600.0
#: Nothing is looked at but when a test says so.
LIMITS = LinkLimits(
    sign_s=60, patience_s=60, check_s=600, first_pause_s=0.0, renewal_s=0.0, ready_s=600, signature_s=600, refused_s=0.0
)


async def eventually(is_so: Callable[[], bool]) -> None:
    """Return when something is so; a wait in vain ends by the limit around it."""
    while not is_so():  # noqa: ASYNC110 -- the watched object has no event
        await asyncio.sleep(0)


class Link:
    """A vault whose enclave has to prove itself."""

    def __init__(self, world: AttestedWorld, enclave: Enclave) -> None:
        self.world = world
        self.enclave = enclave
        self.clock = world.clock
        self.vault: Vault

    def endpoint(self, port: int | None = None, *, max_age_s: float = 24 * HOUR_S) -> Endpoint:
        judge = TokenJudge(self.world.policy, partial(pinned_root, self.world.root), self.clock)
        proving = Proving(judge.verify, max_age_s, clock=self.clock, jitter=lambda: 0.5)
        tls = TlsClient(self.world.client.certificate, self.world.client.key)
        return Endpoint(
            Address("127.0.0.1", port or self.enclave.port),
            tls=tls,
            proving=proving,
            rereads=(tls.reread, judge.reread),
        )

    async def sign(self) -> None:
        await self.vault.sign(TZ1.pkh, b"message")

    async def renewal(self) -> None:
        """Have the link look whether its proof is due, and return when it has done what it does then."""
        before = self.vault.link.generation, self.vault.link.renewal.problem
        self.vault.link.renewal.ask()
        await eventually(lambda: (self.vault.link.generation, self.vault.link.renewal.problem) != before)


def metric(link: Link, name: str) -> float:
    """Return a metric of the vault."""
    (reading,) = (each for each in host_readings([link.vault], MemoryWatermarkStore()) if each.name == name)
    (value,) = reading.read()
    assert value is not None
    return value[1]


Scenario = Callable[[Link], Awaitable[None]]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AttestedWorld]:
    with attested_world(tmp_path) as world:
        yield world


def play(world: AttestedWorld, scenario: Scenario, limits: LinkLimits = LIMITS) -> None:
    async def run(enclave: Enclave) -> None:
        link = Link(world, enclave)
        keys = MemoryKeys(StoredKey(TZ1.pkh, TZ1.clear_blob))
        async with asyncio.timeout(PATIENCE_S), open_vault(keys, link.endpoint(), limits=limits) as link.vault:
            await scenario(link)

    with world.enclave() as enclave:
        asyncio.run(run(enclave))


def test_a_proof_is_renewed_beside_the_connection_in_service(world: AttestedWorld) -> None:
    async def scenario(link: Link) -> None:
        await link.sign()
        link.clock.ahead_s = 0.7 * HOUR_S
        await link.renewal()
        await link.sign()
        assert (link.vault.link.generation, link.vault.link.reconnects, len(world.asked)) == (2, 0, 2)
        # All keys are open on the new connection, and only then it signs.
        wait_for_calls(link.enclave, "Sign", "Attest", "Initialize", "Import", "Sign")

    play(world, scenario)


def test_further_connections_to_a_proven_process_need_no_token(world: AttestedWorld) -> None:
    async def scenario(link: Link) -> None:
        async with link.vault.link.second() as client:
            assert client.may_carry_secrets
        assert len(world.asked) == 1

    play(world, scenario)


def test_another_policy_has_every_connection_proven_by_another_token(world: AttestedWorld) -> None:
    async def scenario(link: Link) -> None:
        async with link.vault.link.second():
            pass
        await link.vault.link.reread()
        assert (link.vault.link.generation, len(world.asked)) == (1, 1)
        world.policy.write_text(POLICY + "hwmodel: [GCP_AMD_SEV]\n")
        await link.vault.link.reread()
        await eventually(lambda: link.vault.link.generation == 2)
        assert len(world.asked) == 2
        async with link.vault.link.second() as client:
            assert not client.doubted
        assert len(world.asked) == 2
        # The second connection of before is ended, and the new one proven by the token that there is.
        wait_for_calls(link.enclave, "Attest", "Initialize", "Import", "Attest", "Initialize")

    play(world, scenario)


def test_after_the_end_of_a_token_another_policy_waits_for_the_next(world: AttestedWorld) -> None:
    async def scenario(link: Link) -> None:
        await link.sign()
        world.away = True
        link.clock.ahead_s = 0.7 * HOUR_S
        await link.renewal()
        link.clock.ahead_s = 2 * HOUR_S
        world.policy.write_text(POLICY.replace(DIGEST, OLDER))
        await link.vault.link.reread()
        await link.sign()
        world.away = False
        link.vault.link.renewal.ask()
        await eventually(lambda: link.vault.problem is not None)
        assert "image_digest" in str(link.vault.problem)

    play(world, scenario, replace(LIMITS, refused_s=600, reopen_s=0.1))


def test_without_tokens_a_proven_connection_goes_on_for_its_time_and_not_longer(world: AttestedWorld) -> None:
    async def scenario(link: Link) -> None:
        await link.sign()
        world.away = True
        link.clock.ahead_s = 0.7 * HOUR_S
        await link.renewal()
        (degraded,) = link.vault.degraded
        assert "the proof of the enclave could not be renewed, it signs on until" in degraded
        assert "ResourceExhausted" in degraded
        assert metric(link, "enclave_proof_overdue") == 1
        link.clock.ahead_s = 23.9 * HOUR_S
        await link.sign()
        assert metric(link, "enclave_proof_good_until_seconds") > link.clock()
        assert link.vault.link.problem is None
        link.clock.ahead_s = 24.1 * HOUR_S
        with pytest.raises(EnclaveUnavailable, match="attestation unavailable"):
            await link.sign()
        wait_for_calls(link.enclave, "Sign", "Attest", "Attest")
        world.away = False
        await eventually(lambda: link.vault.problem is None)

    play(world, scenario, replace(LIMITS, first_pause_s=0.1, ready_s=0.5))


def test_nothing_is_asked_after_the_end_of_a_token_without_another_proof(world: AttestedWorld) -> None:
    async def scenario(link: Link) -> None:
        await link.sign()
        link.clock.ahead_s = 1.1 * HOUR_S
        await link.sign()
        wait_for_calls(link.enclave, "Sign", "Attest", "Initialize", "Import", "Sign")
        assert len(world.asked) == 2

    play(world, scenario)


def test_a_refusal_stops_the_connection_in_service(world: AttestedWorld) -> None:
    async def scenario(link: Link) -> None:
        world.changes = {"submods.container.image_digest": OLDER}
        link.clock.ahead_s = 0.7 * HOUR_S
        link.vault.link.renewal.ask()
        await eventually(lambda: link.vault.problem is not None)
        assert "image_digest" in str(link.vault.problem)
        wait_for_calls(link.enclave, "Import", "Attest")
        assert "Sign" not in calls(link.enclave)

    play(world, scenario, replace(LIMITS, refused_s=600))


def test_a_renewal_delays_no_signature(world: AttestedWorld) -> None:
    """How long they take is printed; that all of them succeed on connections that change is asserted."""

    async def scenario(link: Link) -> None:
        times: list[float] = []
        while link.vault.link.generation < 5:
            link.clock.ahead_s += 0.7 * HOUR_S if len(times) % 100 == 0 else 0.0
            if len(times) % 100 == 0:
                link.vault.link.renewal.ask()
            started = time.perf_counter()
            await link.sign()
            times.append(time.perf_counter() - started)
        times.sort()
        print(
            f"\nsignatures while proofs are renewed: p50 {times[len(times) // 2] * 1e3:.2f} ms, "
            f"p99 {times[len(times) * 99 // 100] * 1e3:.2f} ms of {len(times)}"
        )
        assert link.vault.link.reconnects == 0

    play(world, scenario)


def test_strangers_who_ask_for_tokens_do_not_delay_the_proof_of_the_link(world: AttestedWorld) -> None:
    async def scenario(link: Link) -> None:
        app = Starlette(
            routes=[Route("/attestation", attestation_endpoint({link.vault.name: link.vault.report}), methods=["GET"])]
        )
        for round_ in range(3):
            before = link.vault.link.generation
            link.clock.ahead_s += 0.7 * HOUR_S
            async with asyncio.TaskGroup() as strangers:
                asked = [
                    strangers.create_task(
                        ask(app, "GET", "/attestation", query=b"nonce=stranger-%d-%04d" % (round_, number))
                    )
                    for number in range(100)
                ]
                await link.renewal()
                assert (link.vault.link.generation, link.vault.degraded) == (before + 1, [])
            statuses = [task.result().status for task in asked]
            assert set(statuses) <= {200, 429}
            assert statuses.count(200) <= 1
        assert link.vault.link.reconnects == 0

    play(world, scenario)


class Middle:
    """Ends TLS itself, and hands questions on to an enclave on a connection of its own."""

    def __init__(self, enclave: Endpoint, context: ssl.SSLContext) -> None:
        self._enclave = enclave
        self._context = context
        self.recorded: list[Request] = []
        self.served = asyncio.Event()
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Middle"]:
        server = AsyncioServer(self._serve)
        await server.listen(context=self._context)
        self.port = server.port
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        genuine = await connect(self._enclave.address, tls=self._enclave.tls)
        frames = FrameDecoder()
        with suppress(OSError), closing(genuine), closing(writer):
            while data := await reader.read(65536):
                frames.feed(data)
                while (frame := frames.next_frame()) is not None:
                    self.recorded.append(codec.decode_request(frame))
                    writer.write(encode_frame(codec.encode_ok(await genuine.ask(self.recorded[-1]))))
        self.served.set()


def test_whoever_stands_in_between_gets_a_nonce_and_nothing_else(world: AttestedWorld) -> None:
    """Even one that the image lists as a client, before the very enclave that the policy trusts."""
    own = client_files(world.folder, "middle")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate, own.key)

    async def run(enclave: Enclave) -> None:
        link = Link(world, enclave)
        async with asyncio.timeout(PATIENCE_S), Middle(link.endpoint(), context).running() as middle:
            with pytest.raises(AttestationRefused, match="does not end at the enclave that signed the proof"):
                await open_client(link.endpoint(middle.port))
            await middle.served.wait()
            (asked,) = middle.recorded
            assert isinstance(asked, Attest)

    with world.enclave() as enclave:
        asyncio.run(run(enclave))


def test_secrets_do_not_cross_a_network_to_an_enclave_that_was_not_proven(world: AttestedWorld) -> None:
    async def run(enclave: Enclave) -> None:
        link = Link(world, enclave)
        client = await open_client(replace(link.endpoint(), proving=None))
        # As from another machine.
        client._connection.is_local = False
        secret = parse_secret_key(TZ1.secret)
        with pytest.raises(EnclaveRefused, match="a private key is not sent in clear"):
            await client.import_unencrypted(PrivateKey(KeyType.ED25519, secret.data))
        client.close()
        assert "ImportUnencrypted" not in calls(enclave)

    with world.enclave() as enclave:
        asyncio.run(run(enclave))


def test_an_enclave_without_tls_is_no_enclave_to_a_host_that_asks_for_proof(world: AttestedWorld) -> None:
    async def run(enclave: Enclave) -> None:
        link = Link(world, enclave)
        with pytest.raises(HostError, match="nothing can be bound to it"):
            await open_client(replace(link.endpoint(), tls=None))

    with world.enclave() as enclave:
        asyncio.run(run(enclave))
