"""Whatever a key broker answers is a value or a known error."""

import json
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from enclave_signer.errors import SealingError
from enclave_signer.sealing import kbs_messages as messages
from enclave_signer.sealing.kbs_jwe import BadJwe, TeeKey, base64url
from enclave_signer.sealing.kbs_messages import Step
from tests.doubles.kbs import encrypted

KEY = TeeKey()
_TEXTS = st.text(max_size=40) | st.text("abcAB_-=.19", max_size=40)
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | _TEXTS
_NAMES = st.sampled_from(
    ["nonce", "token", "type", "detail", "protected", "iv", "epk", "alg", "enc", "submods", "cpu0"]
)
_JSON = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES | _TEXTS, inner, max_size=4),
    max_leaves=12,
)
_BODIES = st.binary(max_size=80) | _JSON.map(lambda value: json.dumps(value).encode())


@settings(max_examples=60)
@given(_BODIES, st.integers(100, 599), st.lists(_TEXTS, max_size=2))
def test_bodies(body: bytes, status: int, cookies: list[str]) -> None:
    for step in Step:
        assert isinstance(messages.failure(step, status, body, "a/b/c"), SealingError)
    with suppress(SealingError):
        messages.attest_body(messages.read_nonce(body), KEY.jwk, {})
    with suppress(SealingError):
        messages.read_session(cookies)
    for answer in (body, json.dumps({"token": f"a.{base64url(body)}.c"}).encode()):
        with suppress(SealingError):
            messages.check_attested(answer, KEY.jwk)


@given(_JSON, st.sampled_from(["protected", "encrypted_key", "iv", "ciphertext", "tag"]), st.booleans())
def test_jwe(value: object, part: str, coded: bool) -> None:
    jwe = encrypted(b"secret", KEY.jwk)
    jwe[part] = base64url(json.dumps(value).encode()) if coded else value
    with suppress(BadJwe):
        assert KEY.decrypt(jwe) == b"secret"
