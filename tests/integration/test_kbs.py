"""Sealing under keys of a key broker, over its double: blobs, and a broker that is away or takes a key back."""

from pathlib import Path

import pytest
import trio
import trio.testing

from enclave_signer.curves import curve
from enclave_signer.errors import (
    BlobCorrupt,
    ReleaseDenied,
    SealingRefused,
    SealingUnavailable,
)
from enclave_signer.protocol.blob import BlobHeader, parse_blob
from enclave_signer.protocol.messages import Credentials, KeyType, PrivateKey
from enclave_signer.sealing import kbs, releases
from enclave_signer.sealing.gated_rules import GatedRule
from enclave_signer.sealing.kbs import LIMIT_S
from enclave_signer.sealing.providers import Providers
from tests.doubles.certificates import Authority
from tests.doubles.kbs import KbsDouble, allow_all, default_policy, server_tls
from tests.doubles.kbs_broker import (
    BOTH,
    HANDSHAKE,
    PRIVATE,
    PUBLIC,
    Broker,
    opening,
    refusal_of,
    seal,
    with_sealer,
)
from tests.doubles.kbs_image import KEK, OLD_KEK, OLD_RESOURCE, RESOURCE, name_of


class TestBlobs:
    """What a blob is, and whose."""

    def test_the_header_names_the_key_and_one_handshake_is_enough(self, broker: Broker) -> None:
        provider = broker.provider()
        blob = with_sealer(provider, seal)
        header, _, _ = parse_blob(blob)
        assert header == BlobHeader("kbs", name_of(), PUBLIC)
        assert with_sealer(provider, opening(blob)).public_key == PUBLIC
        assert broker.double.asked == HANDSHAKE

    def test_a_relabelled_blob_does_not_open(self, broker: Broker) -> None:
        provider = broker.provider()
        _, _, sealed = parse_blob(with_sealer(provider, seal))
        other = curve(KeyType.ED25519).open(PrivateKey(KeyType.ED25519, b"\1" * 32)).public_key
        with pytest.raises(BlobCorrupt, match="does not open under the key it names"):
            with_sealer(provider, opening(BlobHeader("kbs", name_of(), other).encode() + sealed))

    def test_what_is_not_listed_is_refused_by_name(self, broker: Broker) -> None:
        provider = broker.provider()
        for sealer, kek in (("local", name_of()), ("kbs", name_of(OLD_RESOURCE, OLD_KEK)), ("kbs", f"{name_of()}0")):
            with pytest.raises(SealingRefused, match=f"blob sealed by '{sealer}' under '{kek}', which this image does"):
                with_sealer(provider, opening(BlobHeader(sealer, kek, PUBLIC).encode() + bytes(60)))

    def test_a_session_may_ask_for_what_is_listed(self, broker: Broker) -> None:
        provider = broker.provider()
        assert with_sealer(provider, seal, Credentials(None, name_of()))
        with pytest.raises(SealingRefused, match="does not allow the key 'kbs:a/b/c#0123456789abcdef'"):
            with_sealer(provider, seal, Credentials(None, "kbs:a/b/c#0123456789abcdef"))
        elsewhere = Credentials(None, "projects/p/keys/k")
        with pytest.raises(SealingRefused, match="does not allow the key for sealing 'projects/p/keys/k'"):
            with_sealer(provider, seal, elsewhere)
        # What a blob is opened with stands in its header.
        assert with_sealer(provider, opening(with_sealer(provider, seal)), elsewhere).public_key == PUBLIC

    def test_a_new_tag_seals_and_the_old_one_opens(self, broker: Broker) -> None:
        broker.double.resources = dict(BOTH)
        before = with_sealer(broker.provider({OLD_RESOURCE: OLD_KEK}), seal)
        rotated = broker.provider(BOTH)
        after = with_sealer(rotated, seal)
        assert [parse_blob(blob)[0].kek for blob in (before, after)] == [name_of(OLD_RESOURCE, OLD_KEK), name_of()]
        for blob in (before, after):
            assert with_sealer(rotated, opening(blob)).public_key == PUBLIC
        # The operator deletes the old one: its blobs are refused by name, the others open.
        del broker.double.resources[OLD_RESOURCE]
        deleted = broker.provider(BOTH)
        assert with_sealer(deleted, opening(after)).public_key == PUBLIC
        with pytest.raises(SealingRefused, match=f"gives no resource {OLD_RESOURCE}"):
            with_sealer(deleted, opening(before))

    def test_another_key_under_the_same_tag_opens_nothing(self, broker: Broker) -> None:
        broker.double.resources = {RESOURCE: OLD_KEK}
        error = refusal_of(broker.provider())
        assert isinstance(error, SealingRefused)
        assert "is not the key that this image commits to" in str(error)


class TestAway:
    """A broker that is down, or hangs."""

    def test_it_stops_nobody_who_has_the_key(self, tmp_path: Path) -> None:
        authority, double = Authority(tmp_path), KbsDouble()
        tls = server_tls(authority)
        broker = Broker(double, authority)
        with double.serving(tls) as port:
            provider = broker.provider()
            blob = with_sealer(provider, seal)
        assert with_sealer(provider, opening(blob)).public_key == PUBLIC
        assert with_sealer(provider, seal)
        restarted = broker.provider()
        error = refusal_of(restarted)
        assert isinstance(error, SealingUnavailable)
        assert f"the key broker at {double.url} gave no answer: " in str(error)
        with double.serving(tls, port):
            assert with_sealer(restarted, opening(blob)).public_key == PUBLIC

    @pytest.mark.parametrize("step", HANDSHAKE)
    def test_its_silence_has_a_limit(self, broker: Broker, step: str) -> None:
        broker.double.hang = {step}
        error = refusal_of(broker.provider(answer_s=0.2))
        broker.double.ended.set()
        assert isinstance(error, SealingUnavailable)
        assert "gave no answer within 0.2 s" in str(error)
        assert broker.provider().limit_s == LIMIT_S

    def test_a_hundred_sessions_ask_once(self, broker: Broker) -> None:
        provider = broker.provider()

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(provider.open_sealer, Credentials(str(number)))

        trio.run(main)
        assert broker.double.asked == HANDSHAKE

    def test_one_who_leaves_keeps_nobody_from_asking(self, broker: Broker) -> None:
        provider = broker.provider()
        hanging = trio.Event()

        async def leave(scope: trio.CancelScope) -> None:
            with scope:
                await provider.open_sealer(Credentials("first"))

        async def main() -> None:
            token, scope = trio.lowlevel.current_trio_token(), trio.CancelScope()
            broker.double.before["auth"] = lambda: token.run_sync_soon(hanging.set)
            broker.double.hang = {"auth"}
            async with trio.open_nursery() as nursery:
                nursery.start_soon(leave, scope)
                await hanging.wait()
                broker.double.hang, broker.double.before = set(), {}
                nursery.start_soon(provider.open_sealer, Credentials("second"))
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()

        trio.run(main)
        broker.double.ended.set()
        assert broker.double.asked == ["auth", *HANDSHAKE]

    def test_a_refusal_is_told_again_for_a_while(self, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
        broker.double.resources = {}
        provider = broker.provider()

        async def main() -> None:
            for _ in range(3):
                with pytest.raises(SealingRefused, match="gives no resource"):
                    await provider.open_sealer(Credentials())
            assert broker.double.asked == HANDSHAKE
            broker.double.resources = {RESOURCE: KEK}
            monkeypatch.setattr(kbs, "REFUSED_S", 0.0)
            await provider.open_sealer(Credentials())
            assert broker.double.asked == HANDSHAKE * 2

        trio.run(main)


def test_a_gated_key_is_fetched_for_each_release(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is kept no longer once the broker says no."""
    time = 0.0
    monkeypatch.setattr(releases, "now", lambda: time)
    provider = broker.provider()
    blob = with_sealer(provider, seal)
    broker.double.asked.clear()

    async def main() -> None:
        nonlocal time
        providers = Providers([provider], [GatedRule(name_of(), "kbs", fresh_s=60, retry_s=10)])
        async with providers.running():
            sealer = await providers.open_sealer(Credentials())
            # What was fetched before does not count.
            await sealer.unseal(blob)
            assert broker.double.asked == HANDSHAKE
            release = providers.release(blob, Credentials())
            assert release is not None
            broker.double.policy = default_policy
            time += 60
            for _ in range(2):
                with pytest.raises(ReleaseDenied):
                    await sealer.unseal(blob)
                with pytest.raises(ReleaseDenied):
                    release.check(blob)
            assert broker.double.asked == HANDSHAKE * 2
            with pytest.raises(SealingRefused):
                await sealer.seal(PRIVATE, PUBLIC)
            broker.double.policy = allow_all
            time += 10
            await sealer.unseal(blob)
            release.check(blob)
            assert broker.double.asked == HANDSHAKE * 3

    trio.run(main)
