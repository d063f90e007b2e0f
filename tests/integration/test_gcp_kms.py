"""Sealing by Cloud KMS over a double of it: what may be asked for, every way it fails, and how long that takes."""

import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import cbor2
import pytest
import trio
import trio.testing
from grpc import StatusCode as Code

from enclave_signer.curves import SigningKey, curve
from enclave_signer.errors import BlobCorrupt, SealingError, SealingRefused, SealingUnavailable
from enclave_signer.image import parse_image
from enclave_signer.protocol import codec
from enclave_signer.protocol.blob import BlobHeader, parse_blob
from enclave_signer.protocol.messages import MAX_BLOB_BYTES, Credentials, KeyType, PrivateKey
from enclave_signer.sealing.base import Sealer, open_key, seal_key
from enclave_signer.sealing.crc32c import crc32c
from enclave_signer.sealing.gated_rules import GatedRule
from enclave_signer.sealing.gcp_client import CALLS, KEY_CALLS, RETRY_AFTER_S
from enclave_signer.sealing.gcp_config import GcpKmsConfig
from enclave_signer.sealing.gcp_kms import GcpKms, GcpTimes
from enclave_signer.sealing.providers import Providers
from tests.doubles.google.blobs import sealed as sealed_by
from tests.doubles.google.cloud import IMAGE, GoogleCloud, running_google_cloud
from tests.doubles.google.kms import BOTH, DECRYPT, ENCRYPT, KEY, Fault, Key
from tests.doubles.google.launcher import OTHER_DIGEST, token
from tests.doubles.google.sts import PROVIDER
from tests.doubles.google.tokens import DIGEST
from tests.doubles.known_keys import FOUR
from tests.doubles.processes import PATIENCE_S

T = TypeVar("T")

OLD_RING = "projects/tz-keys/locations/europe-west4/keyRings/old/"
OLD_KEY = f"{OLD_RING}cryptoKeys/seal"
PRIVATE = PrivateKey(KeyType.ED25519, bytes(range(32)))
PUBLIC = curve(KeyType.ED25519).open(PRIVATE).public_key
#: The service hangs for as long as a test likes; nothing else waits.
SHORT = GcpTimes(launcher_s=0.3, exchange_s=0.5, call_s=0.6, limit_s=5.0)
ATTEMPTS = 1 + len(RETRY_AFTER_S)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[GoogleCloud]:
    with running_google_cloud(tmp_path) as running:
        yield running


def config(more: str = "") -> GcpKmsConfig:
    parsed = parse_image(IMAGE + more, "image.toml").gcp_kms
    assert parsed is not None
    return parsed


def with_sealer(
    cloud: GoogleCloud,
    scenario: Callable[[Sealer], Awaitable[T]],
    more: str = "",
    credentials: Credentials = Credentials(),  # noqa: B008 -- immutable
    times: GcpTimes = GcpTimes(),  # noqa: B008 -- immutable
) -> T:
    """Return what becomes of a sealer, in a run of its own."""

    async def main() -> T:
        provider = GcpKms(config(more), cloud.places(), times)
        try:
            return await scenario(await provider.open_sealer(credentials))
        finally:
            await provider.aclose()

    return trio.run(main)


async def seal(sealer: Sealer) -> tuple[bytes, SigningKey]:
    return await seal_key(sealer, PRIVATE, trio.lowlevel.checkpoint)


def sealed(cloud: GoogleCloud, more: str = "", credentials: Credentials = Credentials()) -> bytes:  # noqa: B008
    return with_sealer(cloud, seal, more, credentials)[0]


def opened(cloud: GoogleCloud, blob: bytes, more: str = "", credentials: Credentials = Credentials()) -> SigningKey:  # noqa: B008
    async def open_it(sealer: Sealer) -> SigningKey:
        return await open_key(sealer, blob, trio.lowlevel.checkpoint)

    return with_sealer(cloud, open_it, more, credentials)


def spoil(**values: object) -> Callable[[object], None]:
    def change(answer: object) -> None:
        for name, value in values.items():
            setattr(answer, name, value)

    return change


class TestBlobs:
    """What a blob is, and whose."""

    def test_the_header_names_sealer_key_and_public_key(self, cloud: GoogleCloud) -> None:
        header, _, _ = parse_blob(sealed(cloud))
        assert header == BlobHeader("gcp_kms", KEY, PUBLIC)
        assert cloud.kms.calls == ["Encrypt", "Decrypt"]

    def test_a_relabelled_blob_does_not_open(self, cloud: GoogleCloud) -> None:
        _, _, ciphertext = parse_blob(sealed(cloud))
        other = curve(KeyType.ED25519).open(PrivateKey(KeyType.ED25519, b"\1" * 32)).public_key
        with pytest.raises(BlobCorrupt, match=f"{KEY} does not open it"):
            opened(cloud, BlobHeader("gcp_kms", KEY, other).encode() + ciphertext)

    def test_a_blob_without_its_header_is_no_legacy_blob(self, cloud: GoogleCloud) -> None:
        _, _, ciphertext = parse_blob(sealed(cloud))
        with pytest.raises(BlobCorrupt, match="does not open it"):
            opened(cloud, ciphertext)

    def test_a_foreign_key_in_the_header_is_refused_before_anyone_is_asked(self, cloud: GoogleCloud) -> None:
        for foreign in (f"{KEY}2", "projects/evil/locations/l/keyRings/r/cryptoKeys/k", f"{KEY}/cryptoKeyVersions/1"):
            cloud.kms.keys[foreign] = Key()
            with pytest.raises(SealingRefused, match=f"does not allow the key '{foreign}'"):
                opened(cloud, BlobHeader("gcp_kms", foreign, PUBLIC).encode() + b"sealed")
        assert cloud.kms.calls == []

    def test_another_sealers_blob_is_refused(self, cloud: GoogleCloud) -> None:
        with pytest.raises(SealingRefused, match="blob sealed by 'local', this is gcp_kms"):
            opened(cloud, BlobHeader("local", KEY, PUBLIC).encode() + b"sealed")
        assert cloud.kms.calls == []

    def test_a_blob_is_never_too_large_to_open(self, cloud: GoogleCloud) -> None:
        large = bytes(MAX_BLOB_BYTES)
        cloud.kms.break_with(Fault(spoil=spoil(ciphertext=large, ciphertext_crc32c=crc32c(large))))
        with pytest.raises(SealingRefused, match="more than 4096 bytes"):
            sealed(cloud)

    def test_what_holds_no_key_is_corrupt(self, cloud: GoogleCloud) -> None:
        blob = sealed(cloud)
        cloud.kms.break_with(Fault(spoil=spoil(plaintext=b"no key", plaintext_crc32c=crc32c(b"no key"))))
        with pytest.raises(BlobCorrupt, match="it holds no private key") as raised:
            opened(cloud, blob)
        assert "no key" not in str(raised.value.__cause__)

    def test_every_version_of_the_key_opens(self, cloud: GoogleCloud) -> None:
        first = sealed(cloud)
        cloud.kms.keys[KEY].rotate()
        second = sealed(cloud)
        for blob in (first, second):
            assert opened(cloud, blob).public_key == PUBLIC

    def test_an_old_key_opens_and_does_not_seal(self, cloud: GoogleCloud) -> None:
        cloud.kms.keys[OLD_KEY] = Key()
        session = Credentials(None, OLD_KEY)
        old = sealed(cloud, credentials=Credentials(), more="")
        as_it_was = IMAGE.replace(KEY, OLD_KEY)
        was = parse_image(as_it_was, "image.toml").gcp_kms
        assert was is not None

        async def then() -> bytes:
            provider = GcpKms(was, cloud.places())
            blob, _ = await seal(await provider.open_sealer(Credentials()))
            await provider.aclose()
            return blob

        now = f'open_keys = ["{OLD_RING}"]\n'
        assert opened(cloud, trio.run(then), now).public_key == PUBLIC
        assert opened(cloud, old, now, session).public_key == PUBLIC
        with pytest.raises(SealingRefused, match=f"does not allow the key for sealing '{OLD_KEY}'"):
            sealed(cloud, now, session)

    def test_a_prefix_allows_keys_only(self, cloud: GoogleCloud) -> None:
        version = f"{OLD_KEY}/cryptoKeyVersions/1"
        with pytest.raises(SealingRefused, match=f"'{version}' is not a key of Cloud KMS"):
            opened(cloud, b"", f'open_keys = ["{OLD_RING}"]\n', Credentials(None, version))


def test_each_identity_has_a_release_of_its_own(cloud: GoogleCloud) -> None:
    other = PROVIDER.replace("/providers/", "/providers/other-")
    blob = sealed(cloud)
    config = parse_image(IMAGE.replace(f'"{PROVIDER}"', f'"{PROVIDER}", "{other}"'), "image.toml").gcp_kms
    assert config is not None

    async def main() -> None:
        providers = Providers([GcpKms(config, cloud.places())], [GatedRule(KEY, GcpKms.name, 60, 10)])
        async with providers.running():
            release = providers.release(blob, Credentials(PROVIDER, None))
            assert release is providers.release(blob, Credentials(PROVIDER, OLD_KEY))
            assert release is not providers.release(blob, Credentials(other, None))
            with pytest.raises(SealingRefused, match="does not allow the identity provider 'made up'"):
                providers.release(blob, Credentials("made up", None))

    trio.run(main)


class TestLegacyBlobs:
    """tee-signer's: the bare ciphertext of the key's CBOR."""

    def legacy(self, cloud: GoogleCloud, key: str = KEY, secret: bytes = codec.encode_private_key(PRIVATE)) -> bytes:
        """Seal by tee-signer's rules, with the service alone."""
        from google.cloud.kms_v1 import EncryptRequest

        asked = EncryptRequest(name=key, plaintext=secret)
        return cloud.kms._encrypt(asked, cloud.kms.keys[key], None).ciphertext

    def test_they_are_opened(self, cloud: GoogleCloud) -> None:
        assert opened(cloud, self.legacy(cloud)).public_key == PUBLIC

    def test_bytes_may_be_written_as_integers(self, cloud: GoogleCloud) -> None:
        """As tee-signer writes some of its own."""
        blob = self.legacy(cloud, secret=cbor2.dumps({"Ed25519": list(PRIVATE.data)}))
        assert opened(cloud, blob).public_key == PUBLIC

    def test_they_are_not_opened_when_that_is_switched_off(self, cloud: GoogleCloud) -> None:
        with pytest.raises(
            SealingRefused, match=r"as tee-signer seals: this image reads none \(read_legacy is false\)"
        ):
            opened(cloud, self.legacy(cloud), "read_legacy = false\n")
        assert cloud.kms.calls == []

    def test_they_open_under_the_key_of_the_session(self, cloud: GoogleCloud) -> None:
        cloud.kms.keys[OLD_KEY] = Key()
        blob = self.legacy(cloud, OLD_KEY)
        old = f'open_keys = ["{OLD_RING}"]\n'
        assert opened(cloud, blob, old, Credentials(None, OLD_KEY)).public_key == PUBLIC
        with pytest.raises(BlobCorrupt):
            opened(cloud, blob, old)

    def test_they_are_written_when_configured(self, cloud: GoogleCloud) -> None:
        blob = sealed(cloud, "write_legacy = true\n")
        assert blob.startswith(b"\n$")
        assert opened(cloud, blob).public_key == PUBLIC


class TestAllowList:
    """What a session may choose."""

    @pytest.mark.parametrize(
        ("credentials", "text"),
        [
            (Credentials(f"{PROVIDER}2", None), "does not allow the identity provider"),
            (Credentials(None, f"{KEY}2"), "does not allow the key"),
            (Credentials(f"//iam.googleapis.com/{PROVIDER}", KEY), "does not allow the identity provider"),
        ],
    )
    def test_anything_else_is_refused_before_anyone_is_asked(
        self, cloud: GoogleCloud, credentials: Credentials, text: str
    ) -> None:
        with pytest.raises(SealingRefused, match=text):
            sealed(cloud, credentials=credentials)
        assert cloud.sts.exchanges == 0

    def test_what_is_allowed(self, cloud: GoogleCloud) -> None:
        assert sealed(cloud, credentials=Credentials(PROVIDER, KEY))


class TestIdentity:
    """IAM grants a key to an image."""

    def test_an_image_without_a_grant_is_told_what_to_grant(self, cloud: GoogleCloud) -> None:
        cloud.launcher.write(token(digest=OTHER_DIGEST))
        with pytest.raises(SealingRefused) as raised:
            sealed(cloud)
        for part in (f"signer-pool/attribute.image_digest/{OTHER_DIGEST}", ENCRYPT, KEY, "grant it roles/cloudkms"):
            assert part in str(raised.value)
        assert cloud.kms.calls == ["Encrypt"]

    def test_who_may_only_encrypt_seals_nothing(self, cloud: GoogleCloud) -> None:
        cloud.kms.keys[KEY].grants = {DIGEST: frozenset({ENCRYPT})}
        with pytest.raises(SealingRefused, match=DECRYPT):
            sealed(cloud)
        cloud.kms.keys[KEY].grants = {DIGEST: BOTH}
        assert sealed(cloud)

    def test_a_token_that_is_no_longer_taken_is_exchanged_anew(self, cloud: GoogleCloud) -> None:
        async def twice(sealer: Sealer) -> None:
            await seal(sealer)
            cloud.sts.issued.clear()
            await seal(sealer)
            cloud.sts.issued.clear()
            cloud.kms.break_with(Fault(Code.UNAUTHENTICATED))
            with pytest.raises(SealingRefused, match="does not take the access token of principalSet"):
                await seal(sealer)

        with_sealer(cloud, twice)
        # The second token was exchanged a moment ago, as the first one was not taken.
        assert cloud.sts.exchanges == 2

    def test_a_service_that_takes_no_token_costs_one_exchange(self, cloud: GoogleCloud) -> None:
        blob = sealed(cloud)
        before = cloud.sts.exchanges
        cloud.kms.break_with(Fault(Code.UNAUTHENTICATED))
        cloud.kms.calls.clear()

        async def many(sealer: Sealer) -> None:
            for _ in range(5):
                with pytest.raises(SealingRefused, match="does not take the access token"):
                    await sealer.unseal(blob)

        with_sealer(cloud, many)
        # That of the sealer, and one more; after it each key is asked for once.
        assert (cloud.sts.exchanges - before, len(cloud.kms.calls)) == (2, 6)


@pytest.mark.parametrize(
    ("fault", "kind", "text", "calls"),
    [
        (Fault(Code.UNAVAILABLE), SealingUnavailable, "gave no answer (UNAVAILABLE", ATTEMPTS),
        (Fault(Code.INTERNAL), SealingUnavailable, "gave no answer (INTERNAL", ATTEMPTS),
        (Fault(Code.CANCELLED), SealingUnavailable, "gave no answer (CANCELLED", ATTEMPTS),
        (Fault(Code.RESOURCE_EXHAUSTED), SealingUnavailable, "quota is used up", 1),
        (Fault(Code.DEADLINE_EXCEEDED), SealingUnavailable, "in time", 1),
        (Fault(delay_s=3600), SealingUnavailable, f"gave no answer in time for {KEY}", 1),
        (Fault(Code.PERMISSION_DENIED), SealingRefused, "has no permission", 1),
        (Fault(Code.NOT_FOUND), SealingRefused, "knows no key", 1),
        (Fault(Code.FAILED_PRECONDITION), SealingRefused, "cannot use", 1),
        (Fault(Code.INVALID_ARGUMENT), BlobCorrupt, "does not open it", 1),
        (Fault(Code.UNIMPLEMENTED), SealingRefused, "refuses to use", 1),
        (Fault(Code.INVALID_ARGUMENT, "The checksum in field"), SealingUnavailable, "damaged on its way", ATTEMPTS),
        (Fault(spoil=spoil(plaintext_crc32c=1)), SealingUnavailable, "damaged on its way", ATTEMPTS),
        (Fault(spoil=spoil(plaintext_crc32c=None)), SealingUnavailable, "damaged on its way", ATTEMPTS),
        (Fault(spoil=spoil(plaintext=b"")), SealingUnavailable, "damaged on its way", ATTEMPTS),
    ],
)
def test_every_way_in_which_opening_fails(
    cloud: GoogleCloud, fault: Fault, kind: type[SealingError], text: str, calls: int
) -> None:
    blob = sealed(cloud)
    cloud.kms.calls.clear()

    async def open_it(sealer: Sealer) -> None:
        cloud.kms.break_with(fault)
        with pytest.raises(SealingError) as raised:
            await sealer.unseal(blob)
        assert isinstance(raised.value, kind)
        assert text in str(raised.value)
        assert raised.value.__cause__ is None
        # As soon as it is over.
        cloud.kms.break_with(None)
        assert (await open_key(sealer, blob, trio.lowlevel.checkpoint)).public_key == PUBLIC

    times = SHORT if fault.delay_s else GcpTimes()
    with_sealer(cloud, open_it, times=times)
    assert cloud.kms.calls == ["Decrypt"] * (calls + 1)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault(spoil=spoil(name=f"{KEY}2/cryptoKeyVersions/1")), f"not with {KEY}"),
        (Fault(spoil=spoil(verified_plaintext_crc32c=False)), "did not check what was sent"),
        (Fault(spoil=spoil(verified_additional_authenticated_data_crc32c=False)), "did not check what was sent"),
        (Fault(spoil=spoil(ciphertext=b"another")), "damaged on its way"),
        (Fault(spoil=spoil(ciphertext_crc32c=None)), "damaged on its way"),
    ],
)
def test_what_is_wrong_with_a_sealed_answer(cloud: GoogleCloud, fault: Fault, text: str) -> None:
    cloud.kms.break_with(fault)
    with pytest.raises(SealingUnavailable, match=text):
        sealed(cloud)
    assert cloud.kms.calls == ["Encrypt"] * ATTEMPTS


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.INTERNAL])
def test_what_passes_is_not_noticed(cloud: GoogleCloud, code: Code) -> None:
    cloud.kms.break_with(Fault(code, times=1))
    assert sealed(cloud)
    cloud.kms.break_with(Fault(spoil=spoil(plaintext_crc32c=1), method="Decrypt", times=2))
    assert sealed(cloud)


def test_a_version_that_is_disabled_is_refused_until_it_is_enabled(cloud: GoogleCloud) -> None:
    blob = sealed(cloud)
    cloud.kms.keys[KEY].disable(1)
    with pytest.raises(SealingRefused, match="cryptoKeyVersions/1 is not enabled"):
        opened(cloud, blob)
    cloud.kms.keys[KEY].enable(1)
    assert opened(cloud, blob).public_key == PUBLIC
    cloud.kms.keys[KEY].destroy(1)
    with pytest.raises(SealingRefused, match="enable or restore the version"):
        opened(cloud, blob)


def test_a_service_that_is_not_there_is_unavailable(cloud: GoogleCloud) -> None:
    cloud.kms_address = "127.0.0.1:1"
    with pytest.raises(SealingUnavailable, match=r"gave no answer \(UNAVAILABLE"):
        sealed(cloud)


def test_calls_overlap_as_far_as_they_may(cloud: GoogleCloud) -> None:
    blob = sealed(cloud)
    cloud.kms.break_with(Fault(gathered=threading.Barrier(KEY_CALLS)))

    async def all_at_once(sealer: Sealer) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(2 * KEY_CALLS):
                nursery.start_soon(sealer.unseal, blob)

    with_sealer(cloud, all_at_once)


def test_a_key_that_is_not_answered_for_leaves_room_for_others(cloud: GoogleCloud) -> None:
    cloud.kms.keys[OLD_KEY] = Key()
    old, good = sealed_by(cloud.kms, FOUR[0], OLD_KEY), sealed(cloud)
    answered = threading.Event()

    def hang(_: object) -> None:
        answered.wait(2 * PATIENCE_S)

    cloud.kms.break_with(Fault(spoil=hang, key=OLD_KEY))

    async def beside(sealer: Sealer) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(2 * CALLS):
                nursery.start_soon(sealer.unseal, old)
            await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(PATIENCE_S):
                assert (await open_key(sealer, good, trio.lowlevel.checkpoint)).public_key == PUBLIC
            answered.set()

    try:
        with_sealer(cloud, beside, f'open_keys = ["{OLD_RING}"]\n', times=GcpTimes(call_s=2 * PATIENCE_S))
    finally:
        answered.set()


def test_whoever_leaves_does_not_wait(cloud: GoogleCloud) -> None:
    blob = sealed(cloud)
    cloud.kms.break_with(Fault(delay_s=3600))

    async def leave(sealer: Sealer) -> None:
        with trio.move_on_after(0.1) as scope:
            await sealer.unseal(blob)
        assert scope.cancelled_caught

    with_sealer(cloud, leave)
