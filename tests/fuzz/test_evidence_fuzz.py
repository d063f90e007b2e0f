"""Whatever stands in a token, the verifier accepts or refuses it: nothing else comes out."""

import base64
import json
import time
from contextlib import suppress

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from host_backend.attestation.policy import Policy
from host_backend.attestation.verifier import AttestationRefused, PinnedRoot, Trust, TrustedKeys, verify
from tests.doubles.google.tokens import (
    AUDIENCE,
    DIGEST,
    NONCE,
    PROJECT,
    Chain,
    Issuer,
    altered,
    claims,
)

NOW = time.time()
ISSUER, CHAIN = Issuer(), Chain()
KEYS, ROOT = TrustedKeys.from_jwks(ISSUER.jwks()), PinnedRoot.from_pem(CHAIN.root_pem)
POLICY = Policy(audience=AUDIENCE, image_digests=frozenset({DIGEST}), projects=frozenset({PROJECT}))
PATHS = [
    *("iss", "aud", "exp", "iat", "nbf", "eat_nonce", "secboot", "oemid", "swname", "swversion", "dbgstat", "hwmodel"),
    *("submods", "submods.container", "submods.gce", "submods.confidential_space", "google_service_accounts", "tdx"),
    *("submods.container.image_digest", "submods.container.image_signatures", "submods.container.env_override"),
    *("submods.container.cmd_override", "submods.gce.project_id", "submods.gce.zone"),
    *("submods.confidential_space.support_attributes", "submods.confidential_space.monitoring_enabled"),
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def judged(token: str, trust: Trust) -> bool:
    try:
        verify(token, trust=trust, policy=POLICY, nonce=NONCE, now=NOW)
    except AttestationRefused as refused:
        reasons = refused.reasons
    else:
        return True
    assert reasons
    assert all(reason.isprintable() for reason in reasons)
    return False


@given(st.text(max_size=200) | st.from_regex(r"[\w-]{0,40}\.[\w-]{0,40}\.[\w-]{0,40}", fullmatch=True))
def test_any_text(text: str) -> None:
    assert not judged(text, KEYS)
    assert not judged(text, ROOT)


@given(st.sampled_from(PATHS), VALUES)
def test_any_value_of_a_claim(path: str, value: object) -> None:
    """Below something that is no object there is nothing to alter."""
    judged(ISSUER.token(altered(claims(NOW), {path: value})), KEYS)


@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=4), VALUES)
def test_any_head(header: dict[str, object], chain: object) -> None:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    for head in (header, {"alg": "RS256", "typ": "JWT", "kid": "kid-2", "x5c": chain}):
        token = f"{part(head)}.{part(claims(NOW))}.AAAA"
        assert not judged(token, KEYS)
        assert not judged(token, ROOT)


# The library warns of serial numbers that are negative, and refuses nothing for that.
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@settings(max_examples=1000)
@given(st.integers(0, 1), st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_damage_to_a_certificate(which: int, changes: list[tuple[int, int]]) -> None:
    """With Google's root, which anybody has, behind it."""
    certificates = [CHAIN.leaf, CHAIN.intermediate, CHAIN.root]
    chain = [bytearray(each.public_bytes(Encoding.DER)) for each in certificates]
    before = bytes(chain[which])
    for place, value in changes:
        chain[which][place % len(before)] = value
    token = CHAIN.token(claims(NOW), x5c=[base64.b64encode(each).decode() for each in chain])
    assert judged(token, ROOT) is (chain[which] == before)


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["kty", "n", "e", "kid", "alg", "use", "x"]), VALUES | st.just("RSA")),
        max_size=3,
    )
)
def test_any_jwks(keys: list[dict[str, object]]) -> None:
    """Beside a good key: those that cannot be used are left out."""
    with suppress(ValueError):
        TrustedKeys.from_jwks({"keys": keys})
    good = ISSUER.jwks()["keys"]
    with suppress(ValueError):
        assert {"kid-1", "kid-2"} <= set(TrustedKeys.from_jwks({"keys": good + keys}).by_id)
