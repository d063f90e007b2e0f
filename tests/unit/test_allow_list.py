"""Who names a foreign key or identity is refused by name, before any provider hears of it."""

import pytest

from enclave_signer.errors import SealingRefused
from enclave_signer.sealing import gcp_names
from enclave_signer.sealing.allow_list import AllowList

RING = "projects/p/locations/l/keyRings/r"
SEAL, OLD = f"{RING}/cryptoKeys/seal", f"{RING}/cryptoKeys/old"
OTHER = "projects/q/locations/l/keyRings/r/"
ONE = AllowList(identity_providers=("pool/cs",), seal_keys=(SEAL,), open_keys=(OLD, OTHER))
TWO = AllowList(identity_providers=("a", "b"), seal_keys=(SEAL, OLD))


def test_what_is_not_given_is_the_only_one() -> None:
    for nothing in (None, ""):
        assert (ONE.identity_provider(nothing), ONE.key(nothing)) == ("pool/cs", SEAL)
    with pytest.raises(SealingRefused, match="names no identity provider, and this image allows 2: set wip_provider"):
        TWO.identity_provider(None)
    with pytest.raises(SealingRefused, match="names no key, and this image allows 2: set encryption_key_path"):
        TWO.key(None)


def test_what_is_allowed_is_taken() -> None:
    assert TWO.identity_provider("b") == "b"
    for key in (SEAL, OLD, f"{OTHER}cryptoKeys/any"):
        assert ONE.key(key) == key
    ONE.check_sealing(SEAL)


@pytest.mark.parametrize("name", ["pool/c", "pool/cs2", "pool/cs/", "pool/CS", "/pool/cs", "pool/cs\0"])
def test_another_identity_provider_is_refused_by_name(name: str) -> None:
    with pytest.raises(SealingRefused, match=r"does not allow the identity provider '/?pool") as raised:
        ONE.identity_provider(name)
    assert str(raised.value).endswith("; it allows pool/cs")


@pytest.mark.parametrize("key", [f"{SEAL}2", SEAL[:-1], f"{SEAL}/", f"{OLD}er", OTHER[:-1], f"{OTHER[:-1]}x/k", RING])
def test_a_key_that_only_begins_like_an_allowed_one_is_refused(key: str) -> None:
    with pytest.raises(SealingRefused, match=f"does not allow the key '{key}'; it allows {SEAL}, {OLD}, {OTHER}"):
        ONE.key(key)


@pytest.mark.parametrize("key", [OLD, f"{OTHER}cryptoKeys/any"])
def test_what_opens_does_not_seal(key: str) -> None:
    with pytest.raises(SealingRefused, match=f"does not allow the key for sealing '{key}'; it allows {SEAL}$"):
        ONE.check_sealing(key)


def test_a_refusal_is_short() -> None:
    many = AllowList(identity_providers=("a",), seal_keys=tuple(f"k{number}" for number in range(9)))
    with pytest.raises(SealingRefused) as raised:
        many.key("x" * 1000)
    assert str(raised.value).endswith("it allows k0, k1, k2 and 6 more")
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        (SEAL, True),
        ("projects/google.com:p/locations/global/keyRings/R_1/cryptoKeys/k-2", True),
        (f"{SEAL}/cryptoKeyVersions/1", False),
        (f"{SEAL}\n", False),
        ("projects/p/../q/locations/l/keyRings/r/cryptoKeys/k", False),
        ("projects/p/locations/l/keyRings/../cryptoKeys/k", False),
        (RING, False),
    ],
)
def test_what_is_the_name_of_a_key(name: str, whole: bool) -> None:
    assert gcp_names.is_key(name) is whole


def test_whom_iam_grants_a_key_to() -> None:
    provider = "projects/1/locations/global/workloadIdentityPools/pool/providers/cs"
    pool = "principalSet://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool"
    assert gcp_names.is_identity_provider(provider)
    assert not gcp_names.is_identity_provider(f"//iam.googleapis.com/{provider}")
    assert gcp_names.principal(provider, "sha256:4b1d") == f"{pool}/attribute.image_digest/sha256:4b1d"
    assert gcp_names.principal(provider, None) == f"{pool}/*"
