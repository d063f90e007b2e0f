"""What a refusal of the enclave ends, and that a changed policy counts for every connection, whatever it is doing."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from host_backend.enclave.client import EnclaveClient, SigningClient
from host_backend.errors import EnclaveUnavailable, NoLongerTrusted
from tests.doubles.attested_world import OLDER, POLICY, AttestedWorld, attested_world, calls
from tests.doubles.google.tokens import DIGEST
from tests.integration.test_attested_proofs import HOUR_S, LIMITS, Link, eventually, play

#: An enclave that was refused is not looked at again.
ONCE = replace(LIMITS, refused_s=600, reopen_s=0.1)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[AttestedWorld]:
    with attested_world(tmp_path) as world:
        yield world


def test_every_change_of_the_policy_counts_although_no_token_can_be_had(world: AttestedWorld) -> None:
    async def scenario(link: Link) -> None:
        await link.sign()
        world.away = True
        for harmless in ("hwmodel: [GCP_AMD_SEV]\n", "secboot: true\n"):
            world.policy.write_text(POLICY + harmless)
            await link.vault.link.reread()
            await link.sign()
        world.policy.write_text(POLICY.replace(DIGEST, OLDER))
        await link.vault.link.reread()
        assert "image_digest" in str(link.vault.problem)

    play(world, scenario, ONCE)


def test_a_refused_enclave_is_not_proven_by_its_former_token(world: AttestedWorld) -> None:
    async def scenario(link: Link) -> None:
        await link.sign()
        async with link.vault.link.second() as side, link.vault.link.separate() as separate:
            world.changes = {"submods.container.image_digest": OLDER}
            link.clock.ahead_s = 0.7 * HOUR_S
            link.vault.link.renewal.ask()
            await eventually(lambda: link.vault.problem is not None)
            assert [type(client.broken) for client in (side, separate)] == [NoLongerTrusted] * 2
        # It is looked at again and again, and has to show a new token each time.
        await eventually(lambda: len(world.asked) > 3 or link.vault.link.generation > 1)
        assert link.vault.link.generation == 1
        assert calls(link.enclave).count("Import") == 1

    play(world, scenario)


def test_a_policy_that_is_read_while_keys_are_opened_counts_for_that_connection(world: AttestedWorld) -> None:
    async def scenario(link: Link) -> None:
        await link.sign()
        opening, go_on = asyncio.Event(), asyncio.Event()
        restore = link.vault.link._restore

        async def slow(client: EnclaveClient, old: SigningClient | None) -> bool:
            opening.set()
            await go_on.wait()
            return await restore(client, old)

        link.vault.link._restore = slow
        assert link.vault.link.client is not None
        link.vault.link.client.close()
        await opening.wait()
        world.away = True
        world.policy.write_text(POLICY.replace(DIGEST, OLDER))
        await link.vault.link.reread()
        go_on.set()
        with pytest.raises(EnclaveUnavailable, match="image_digest"):
            await link.sign()
        assert calls(link.enclave).count("Sign") == 1

    play(world, scenario, replace(ONCE, ready_s=0.5))
