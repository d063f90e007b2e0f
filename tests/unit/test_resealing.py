"""Only keys that the image lists may be resealed; anything else is refused before any provider hears of it."""

from collections.abc import Sequence

import pytest
import trio

from enclave_signer.curves import curve
from enclave_signer.errors import BlobCorrupt, SealingError, SealingRefused
from enclave_signer.protocol.blob import FORMAT_VERSION, LEGACY, MAGIC, BlobHeader
from enclave_signer.protocol.messages import Credentials, KeyType, PrivateKey, PublicKey
from enclave_signer.sealing.base import Sealer, UnsealedKey, reseal_key
from enclave_signer.sealing.gcp_config import GCP_KMS
from enclave_signer.sealing.local import LocalSealer
from enclave_signer.sealing.providers import Providers
from enclave_signer.sealing.reseal_rules import ResealRule
from enclave_signer.sealing.resealing import ResealingByImage

RING = "projects/p/locations/l/keyRings/r/"
OLD, NEW = f"{RING}cryptoKeys/old", f"{RING}cryptoKeys/new"
PRIVATE = PrivateKey(KeyType.ED25519, bytes(range(32)))
PUBLIC = curve(KeyType.ED25519).open(PRIVATE).public_key
CREDENTIALS = Credentials("provider", OLD)


class Kms:
    """Seals in clear, under the key of the credentials; opens with and without header."""

    name = GCP_KMS
    takes_legacy = True
    limit_s = None
    shared_s = 60.0

    def __init__(self, key: str = "", asked: list[str] | None = None) -> None:
        self.key = key
        self.asked: list[str] = [] if asked is None else asked

    async def open_sealer(self, credentials: Credentials) -> Sealer:
        assert credentials.wip_provider_path == CREDENTIALS.wip_provider_path
        return Kms(credentials.encryption_key_path or "", self.asked)

    async def seal(self, private_key: PrivateKey, public_key: PublicKey) -> bytes:
        self.asked.append("seal")
        return BlobHeader(self.name, self.key, public_key).encode() + private_key.data

    async def unseal(self, blob: bytes) -> UnsealedKey:
        self.asked.append("unseal")
        return UnsealedKey(PrivateKey(KeyType.ED25519, blob[-32:]), PUBLIC)

    async def aclose(self) -> None:
        pass


def resealed(
    kms: Kms, blob: bytes, target: str, rules: Sequence[ResealRule] | None, *, first: Sequence[LocalSealer] = ()
) -> bytes:
    """Return the new blob."""

    async def reseal(providers: Providers) -> bytes:
        sealer = await providers.open_sealer(CREDENTIALS)
        to = await ResealingByImage(providers, rules).open_target(blob, target, CREDENTIALS)
        return (await reseal_key(sealer, blob, to, trio.lowlevel.checkpoint))[0]

    async def main() -> bytes | SealingError:
        providers = Providers([*first, kms])
        async with providers.running():
            try:
                return await reseal(providers)
            except SealingError as error:
                return error

    outcome = trio.run(main)
    if isinstance(outcome, SealingError):
        raise outcome
    return outcome


def ours(kek: str) -> bytes:
    return BlobHeader(GCP_KMS, kek, PUBLIC).encode() + PRIVATE.data


@pytest.mark.parametrize(
    ("blob", "source"),
    [(PRIVATE.data, LEGACY), (ours(OLD), OLD), (ours(OLD), RING), (ours(OLD), "projects/p/"), (ours(NEW), NEW)],
)
def test_what_is_listed_is_sealed_under_the_target(blob: bytes, source: str) -> None:
    kms = Kms()
    assert resealed(kms, blob, NEW, [ResealRule("local:0", NEW, GCP_KMS), ResealRule(source, NEW, GCP_KMS)]) == ours(
        NEW
    )
    assert kms.asked == ["unseal", "seal", "unseal"]


def test_from_the_local_sealer_even_where_that_seals_new_keys() -> None:
    local = LocalSealer(bytes(32))
    blob = trio.run(local.seal, PRIVATE, PUBLIC)
    rules = [ResealRule("local:", NEW, GCP_KMS), ResealRule(str(local)[12:-1], NEW, GCP_KMS)]
    assert resealed(Kms(), blob, NEW, rules, first=[local]) == ours(NEW)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (LEGACY, NEW),
        (OLD[:-1], NEW),
        (f"{RING}cryptoKeys", NEW),
        (f"{OLD}/", NEW),
        (RING, OLD),
        (RING, f"{NEW}2"),
        (NEW, OLD),
    ],
)
@pytest.mark.parametrize("first", [(), (LocalSealer(bytes(32)),)])
def test_what_is_not_listed_is_refused_by_name(source: str, target: str, first: Sequence[LocalSealer]) -> None:
    kms = Kms()
    with pytest.raises(SealingRefused, match=f"^this image does not allow resealing from '{OLD}' to '{NEW}': "):
        resealed(kms, ours(OLD), NEW, [ResealRule(source, target, GCP_KMS)], first=first)
    assert kms.asked == []


@pytest.mark.parametrize("target", ["local:0123", LEGACY, "sample", "", "x" * 1000])
def test_no_other_sealer_is_a_target(target: str) -> None:
    kms = Kms()
    with pytest.raises(SealingRefused, match="does not allow resealing") as raised:
        resealed(kms, ours(OLD), target, [ResealRule(OLD, NEW, GCP_KMS)])
    assert len(str(raised.value)) < 600
    assert kms.asked == []


@pytest.mark.parametrize(
    ("rules", "text"),
    [(None, "seals by a file on its machine: it cannot reseal"), ((), "does not allow resealing from 'legacy'")],
)
def test_without_a_list_nothing_is(rules: Sequence[ResealRule] | None, text: str) -> None:
    kms = Kms()
    with pytest.raises(SealingRefused, match=text):
        resealed(kms, PRIVATE.data, NEW, rules)
    assert kms.asked == []


@pytest.mark.parametrize(
    ("blob", "error"),
    [(MAGIC, BlobCorrupt), (ours(OLD)[:40], BlobCorrupt), (MAGIC + bytes([FORMAT_VERSION + 1, 0, 0]), SealingRefused)],
)
def test_a_header_that_cannot_be_read_names_no_source(blob: bytes, error: type[SealingError]) -> None:
    kms = Kms()
    with pytest.raises(error, match=r"blob (corrupt|of format)"):
        resealed(kms, blob, NEW, [ResealRule(OLD, NEW, GCP_KMS), ResealRule(LEGACY, NEW, GCP_KMS)])
    assert kms.asked == []


def test_a_key_that_is_not_the_one_its_header_names_is_not_sealed() -> None:
    kms = Kms()
    other = BlobHeader(GCP_KMS, OLD, PUBLIC).encode() + bytes(32)
    with pytest.raises(BlobCorrupt, match="it holds another key than its header names"):
        resealed(kms, other, NEW, [ResealRule(OLD, NEW, GCP_KMS)])
    assert kms.asked == ["unseal"]
