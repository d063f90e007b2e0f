"""Sealing by a real OpenBao server: what a blob is, what the server's keys may be, every way it refuses."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from enclave_signer.curves import curve
from enclave_signer.errors import BlobCorrupt, SealingError, SealingRefused, SealingUnavailable
from enclave_signer.protocol.blob import BlobHeader, parse_blob
from enclave_signer.protocol.messages import KeyType, PrivateKey
from enclave_signer.sealing import vault_batches
from enclave_signer.sealing.base import Sealer, open_key
from enclave_signer.sealing.vault_batches import MAX_ITEMS
from tests.doubles.vault.openbao import MOUNT, POLICY, OpenBao, running_openbao, token_login
from tests.doubles.vault.sealing import PUBLIC, opened, seal, sealed, with_sealer

_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    with running_openbao(tmp_path_factory.mktemp("openbao")) as running:
        yield running


class At:
    """The server with a key, and a policy, of its own for each test."""

    def __init__(self, server: OpenBao, folder: Path, number: int) -> None:
        self.server = server
        self.short = f"key{number}"
        self.key = server.make_key(self.short)
        self.policy = f"policy{number}"
        self.allow(POLICY)
        self.token_file = folder / "token"
        self.token = server.token(self.policy)
        self.token_file.write_text(self.token)

    def allow(self, policy: str) -> None:
        self.server.call("PUT", f"sys/policies/acl/{self.policy}", {"policy": policy})

    def image(self, *keys: str, more: str = "") -> str:
        return self.server.image(token_login(self.token_file), keys=keys or (self.key,), more=more)

    def sealed(self) -> bytes:
        return sealed(self.image())

    def opened(self, blob: bytes) -> bool:
        return opened(self.image(), blob).public_key == PUBLIC

    def relabelled(self, blob: bytes, old: bytes, new: bytes) -> bytes:
        header, authenticated, ciphertext = parse_blob(blob)
        assert header.kek == self.key
        assert ciphertext.startswith(old)
        return authenticated + ciphertext.replace(old, new, 1)


@pytest.fixture
def at(server: OpenBao, tmp_path: Path) -> At:
    return At(server, tmp_path, next(_NUMBERS))


class TestBlobs:
    """What a blob is, and whose."""

    def test_the_header_names_sealer_server_key_and_public_key(self, at: At) -> None:
        header, _, ciphertext = parse_blob(at.sealed())
        assert header == BlobHeader("vault_transit", at.key, PUBLIC)
        assert ciphertext.startswith(b"vault:v1:")

    def test_a_blob_whose_header_was_changed_does_not_open(self, at: At) -> None:
        other = curve(KeyType.ED25519).open(PrivateKey(KeyType.ED25519, b"\1" * 32)).public_key
        ciphertext = parse_blob(at.sealed())[2]
        with pytest.raises(BlobCorrupt, match=rf"{at.key} does not open it.*message authentication failed"):
            at.opened(BlobHeader("vault_transit", at.key, other).encode() + ciphertext)

    def test_keys_that_the_image_does_not_name_are_refused(self, at: At) -> None:
        for foreign in (f"{at.key}2", f"vault_transit:other.example/{MOUNT}/{at.short}", at.server.name("sys", "x")):
            with pytest.raises(SealingRefused, match=f"does not allow the key '{foreign}'"):
                at.opened(BlobHeader("vault_transit", foreign, PUBLIC).encode() + b"vault:v1:AAAA")

    def test_a_prefix_allows_no_paths_out_of_it(self, at: At) -> None:
        prefix = at.server.name(MOUNT, "")
        image = at.image(more=f'open_keys = ["{prefix}"]')
        for name in (f"{prefix}../keys/x", f"{prefix}k?x=1", f"{prefix}k%2f", prefix):
            with pytest.raises(SealingRefused, match="is no key of vault_transit"):
                opened(image, BlobHeader("vault_transit", name, PUBLIC).encode() + b"vault:v1:AAAA")
        assert opened(image, sealed(at.image())).public_key == PUBLIC

    def test_the_server_s_own_key_of_the_same_name_elsewhere_does_not_open_it(self, at: At) -> None:
        at.server.ask("POST", "sys/namespaces/team")
        at.server.ask("POST", "team/sys/mounts/transit", {"type": "transit"})
        there = at.server.make_key(at.short, "team/transit")
        at.allow(POLICY.replace('"transit/', '"team/transit/') + POLICY)
        image = at.image(at.key, there)
        blob = sealed(image, there)
        assert parse_blob(blob)[0].kek == f"vault_transit:{at.server.server}/team/transit/{at.short}"
        assert opened(image.replace(f'"{at.key}", ', ""), blob).public_key == PUBLIC
        ciphertext = parse_blob(blob)[2]
        with pytest.raises(BlobCorrupt, match="if all blobs say so, the server has another key of this name"):
            at.opened(BlobHeader("vault_transit", at.key, PUBLIC).encode() + ciphertext)

    @pytest.mark.parametrize("version", [b"0", b"01", b"00"])
    def test_a_version_that_is_an_alias_is_corrupt_although_the_server_opens_it(self, at: At, version: bytes) -> None:
        blob = at.relabelled(at.sealed(), b"vault:v1:", b"vault:v%b:" % version)
        with pytest.raises(BlobCorrupt, match=f"its ciphertext is relabelled as version {version.decode()}"):
            at.opened(blob)

    def test_flipped_bits_of_the_ciphertext_are_refused(self, at: At) -> None:
        blob = at.sealed()
        begin = len(blob) - len(parse_blob(blob)[2])

        async def open_all(sealer: Sealer) -> None:
            for position in range(begin * 8, len(blob) * 8, 5):
                flipped = bytearray(blob)
                flipped[position // 8] ^= 1 << position % 8
                with pytest.raises((BlobCorrupt, SealingRefused)):
                    await open_key(sealer, bytes(flipped), trio.lowlevel.checkpoint)

        with_sealer(at.image(), open_all)


class TestKeys:
    """What the server's key must be, and what becomes of it."""

    def test_every_version_opens_and_the_newest_seals(self, at: At) -> None:
        first = at.sealed()
        at.server.call("POST", f"{MOUNT}/keys/{at.short}/rotate")
        second = at.sealed()
        assert parse_blob(second)[2].startswith(b"vault:v2:")
        assert at.opened(first)
        assert at.opened(second)
        with pytest.raises(BlobCorrupt, match="does not open it"):
            at.opened(at.relabelled(first, b"vault:v1:", b"vault:v2:"))

    def test_versions_may_be_forbidden_and_allowed_again(self, at: At) -> None:
        blob = at.sealed()
        at.server.call("POST", f"{MOUNT}/keys/{at.short}/rotate")
        at.server.configure_key(at.short, min_decryption_version=2)
        with pytest.raises(SealingRefused, match=f"{at.key} opens no blobs of so old a version: lower its min_decry"):
            at.opened(blob)
        at.server.configure_key(at.short, min_decryption_version=1)
        assert at.opened(blob)

    def test_a_version_that_is_not_there_is_refused(self, at: At) -> None:
        blob = at.relabelled(at.sealed(), b"vault:v1:", b"vault:v9:")
        with pytest.raises(SealingRefused, match=r"names a version that .* does not have: .* from an old"):
            at.opened(blob)

    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"type": "rsa-2048"}, "is of type 'rsa-2048': it must be aes256-gcm96 or chacha20"),
            ({"type": "ed25519"}, "is of type 'ed25519'"),
            ({"type": "aes128-gcm96"}, "is of type 'aes128-gcm96'"),
            ({"derived": True}, "it is derived from a context"),
            ({"exportable": True}, "it can be taken out of the server"),
            ({"allow_plaintext_backup": True}, "taken out of the server by a backup"),
        ],
    )
    def test_other_kinds_of_keys_do_not_seal(self, at: At, options: dict[str, object], match: str) -> None:
        name = at.server.make_key(f"{at.short}.{next(iter(options.values()))}", **options)
        with pytest.raises(SealingRefused, match=match):
            sealed(at.image(name))

    @pytest.mark.parametrize("kind", ["chacha20-poly1305", "xchacha20-poly1305"])
    def test_these_do(self, at: At, kind: str) -> None:
        image = at.image(at.server.make_key(f"{at.short}.{kind}", type=kind))
        assert opened(image, sealed(image)).public_key == PUBLIC

    @pytest.mark.parametrize(("kind", "match"), [("rsa-2048", "must be of a type"), ("derived", "is a derived key")])
    def test_a_blob_under_such_a_key_is_refused(self, at: At, kind: str, match: str) -> None:
        options: dict[str, object] = {"derived": True} if kind == "derived" else {"type": kind}
        name = at.server.make_key(f"{at.short}.{kind}", **options)
        blob = BlobHeader("vault_transit", name, PUBLIC).encode() + parse_blob(at.sealed())[2]
        with pytest.raises(SealingRefused, match=match):
            opened(at.image(name), blob)

    def test_a_key_that_is_not_there_is_not_made(self, at: At) -> None:
        at.allow(POLICY.replace('["update"]', '["create", "update"]'))
        missing = at.server.name(MOUNT, f"{at.short}missing")
        with pytest.raises(SealingRefused, match=f"there is no key {missing}: create it, or correct the name; nothing"):
            sealed(at.image(missing))
        assert at.server.ask("GET", f"{MOUNT}/keys/{at.short}missing").status_code == 404
        blob = BlobHeader("vault_transit", missing, PUBLIC).encode() + parse_blob(at.sealed())[2]
        with pytest.raises(SealingRefused, match=f"there is no key {missing}"):
            opened(at.image(missing), blob)

    def test_a_key_that_is_deleted_softly_is_refused_until_it_is_back(self, at: At) -> None:
        blob = at.sealed()
        at.server.call("DELETE", f"{MOUNT}/keys/{at.short}/soft-delete")
        with pytest.raises(SealingRefused, match="is deleted softly: restore it"):
            at.opened(blob)
        at.server.call("POST", f"{MOUNT}/keys/{at.short}/soft-delete-restore")
        assert at.opened(blob)

    def test_a_mount_that_is_not_there_is_named(self, at: At) -> None:
        at.allow('path "*" { capabilities = ["read", "update"] }')
        name = at.server.name("nowhere", at.short)
        with pytest.raises(SealingRefused, match="the server has nothing at nowhere/decrypt/"):
            opened(at.image(name), BlobHeader("vault_transit", name, PUBLIC).encode() + b"vault:v1:AAAA")


class TestRights:
    """What the token may do."""

    def test_a_right_that_is_taken_away_is_named(self, at: At) -> None:
        blob = at.sealed()
        at.allow(POLICY.replace("decrypt", "nothing"))
        with pytest.raises(SealingRefused, match=rf"denies update on {MOUNT}/decrypt/{at.short}: correct the policy"):
            at.opened(blob)
        at.allow(POLICY.replace("keys", "nothing"))
        with pytest.raises(SealingRefused, match=f"denies read on {MOUNT}/keys/{at.short}"):
            at.sealed()
        at.allow(POLICY)
        assert at.opened(blob)

    def test_a_token_that_has_ended_is_refused_until_its_file_has_another(self, at: At) -> None:
        blob = at.sealed()

        async def scenario(sealer: Sealer) -> None:
            at.server.call("POST", "auth/token/revoke", {"token": at.token})
            with pytest.raises(SealingRefused, match="403: permission denied"):
                await open_key(sealer, blob, trio.lowlevel.checkpoint)
            at.token_file.write_text(at.server.token(at.policy))
            assert (await open_key(sealer, blob, trio.lowlevel.checkpoint)).public_key == PUBLIC

        with_sealer(at.image(), scenario)

    def test_a_quota_that_is_used_up_is_unavailable(self, at: At) -> None:
        blob = at.sealed()
        at.server.call("POST", f"sys/quotas/rate-limit/{at.short}", {"path": f"{MOUNT}/", "rate": 0.01})

        async def scenario(sealer: Sealer) -> None:
            # The one request that is let through.
            await open_key(sealer, blob, trio.lowlevel.checkpoint)
            with pytest.raises(SealingUnavailable, match="rate limit quota is used up"):
                await open_key(sealer, blob, trio.lowlevel.checkpoint)
            at.server.call("DELETE", f"sys/quotas/rate-limit/{at.short}")
            assert (await open_key(sealer, blob, trio.lowlevel.checkpoint)).public_key == PUBLIC

        with_sealer(at.image(), scenario)


class TestMany:
    """Keys that are asked for at the same moment."""

    def test_a_hundred_keys_take_a_few_requests(self, at: At) -> None:
        outcomes, requests, took_s = with_sealer(at.image(), lambda sealer: _many(sealer, at, 100))
        print(f"100 keys opened in {took_s * 1e3:.0f} ms by {requests} requests")
        assert [each for each in outcomes if isinstance(each, SealingError)] == []
        assert requests == 1

    def test_one_that_is_damaged_costs_no_other(self, at: At) -> None:
        outcomes, requests, _ = with_sealer(at.image(), lambda sealer: _many(sealer, at, MAX_ITEMS + 50, damaged=7))
        assert [place for place, each in enumerate(outcomes) if isinstance(each, SealingError)] == [7]
        assert isinstance(outcomes[7], BlobCorrupt)
        assert requests == 2

    def test_what_is_too_much_for_the_server_is_asked_in_parts(self, at: At, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(vault_batches, "MAX_ITEMS", 1000)
        outcomes, requests, _ = with_sealer(at.image(), lambda sealer: _many(sealer, at, 300, damaged=7))
        assert [place for place, each in enumerate(outcomes) if isinstance(each, SealingError)] == [7]
        # What the server refuses as too much it does not count.
        assert requests == 2


async def _many(sealer: Sealer, at: At, count: int, damaged: int = -1) -> tuple[list[object], int, float]:
    """Return what becomes of keys that are opened together, the requests that it took, and the seconds."""
    blobs = [await seal(sealer)] * count
    if damaged >= 0:
        header, authenticated, ciphertext = parse_blob(blobs[damaged])
        assert header.kek == at.key
        blobs[damaged] = authenticated + ciphertext[:12] + b"AAAAAAAA" + ciphertext[20:]
    outcomes: list[object] = [None] * count

    async def open_one(place: int) -> None:
        try:
            outcomes[place] = await open_key(sealer, blobs[place], trio.lowlevel.checkpoint)
        except SealingError as error:
            outcomes[place] = error

    before, began = _requests(at), time.perf_counter()
    async with trio.open_nursery() as nursery:
        for place in range(count):
            nursery.start_soon(open_one, place)
    return outcomes, _requests(at) - before, time.perf_counter() - began


def _requests(at: At) -> int:
    """Return how many decryptions the server was asked for, as its metrics count them."""
    gauges = at.server.ask("GET", "sys/metrics?format=prometheus").text
    for line in gauges.splitlines():
        if line.startswith(("vault_route_update_transit__count", "bao_route_update_transit__count")):
            return int(float(line.rpartition(" ")[2]))
    raise AssertionError("the server does not count")
