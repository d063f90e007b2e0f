"""What begins like a secret key is masked; what only looks a little like one is not."""

import pytest

from enclave_signer.tezos import Kind, encode, masked, may_hold_secret_key
from tests.doubles.known_keys import FOUR

KINDS = ("edsk", "spsk", "p2sk", "BLsk", "edesk", "spesk", "p2esk", "BLesk")


@pytest.mark.parametrize("prefix", KINDS)
@pytest.mark.parametrize("rest", ["3QoqBuvdamxouPhin7swCvkQNgq4jP5KZPbwWNnwdZpSpJiEbq", "3Qoq"])
def test_a_secret_key_is_masked_whole_or_cut_short(prefix: str, rest: str) -> None:
    for before, after in (("", ""), ("/keys/", "?a=b"), ("unencrypted:", "\n"), ("(", ")")):
        assert masked(f"{before}{prefix}{rest}{after}") == f"{before}{prefix}***{after}"


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind.value.label.endswith("sk")])
def test_every_kind_of_secret_key_that_we_know_is_masked(kind: Kind) -> None:
    text = encode(kind, b"\x7f" * kind.value.payload_bytes)
    assert may_hold_secret_key(text)
    assert masked(text) == f"{kind.value.label}***"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a secret key (edsk, spsk, p2sk, BLsk) is needed",
        "edsk…",
        "ask risk",
        *(key.pkh for key in FOUR),
        "tz1edskQoqBuvdamxouPhin7swCvk",
    ],
)
def test_everything_else_is_left_alone(text: str) -> None:
    assert masked(text) == text
