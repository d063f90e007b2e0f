"""KEKs that give no answer: which are left out of the next attempt, and which are asked for when all were silent."""

from enclave_signer.protocol.blob import BlobHeader
from enclave_signer.protocol.messages import KeyType, PublicKey
from host_backend.vault.silent_keks import SilentKeks

PUBLIC = PublicKey(KeyType.ED25519, bytes(32))


def under(kek: str) -> bytes:
    return BlobHeader("gcp_kms", kek, PUBLIC).encode() + b"sealed"


A, B, LEGACY, UNREADABLE = under("a"), under("b"), b"sealed", b"TKSB\xff"
STORED = {"tz1a": (A,), "tz2a": (A,), "tz1b": (B,), "tz1c": (LEGACY,), "tz1d": (UNREADABLE,)}


def test_nothing_is_left_out_before_anything_was_silent() -> None:
    assert SilentKeks().left_out(STORED) == {}


def test_all_of_the_kek_are_left_out() -> None:
    silent = SilentKeks()
    silent.note_silent(A)
    assert silent.left_out(STORED) == {"tz1a": "a", "tz2a": "a"}
    silent.note_silent(LEGACY)
    assert silent.left_out(STORED) == {"tz1a": "a", "tz2a": "a", "tz1c": "legacy"}
    assert silent.left_out({}) == {}


def test_what_opens_is_silent_no_more() -> None:
    silent = SilentKeks()
    silent.note_silent(A)
    silent.note_opened(A)
    assert silent.left_out(STORED) == {}


def test_a_key_is_left_out_for_any_of_its_blobs() -> None:
    silent = SilentKeks()
    silent.note_silent(A)
    assert silent.left_out({"tz1": (B, A), "tz2": (B,)}) == {"tz1": "a"}


def test_when_all_were_silent_the_one_silent_longest_ago_is_asked_for() -> None:
    silent, stored = SilentKeks(), {"tz1a": (A,), "tz1b": (B,)}
    asked = []
    for _ in range(6):
        out = silent.left_out(stored)
        (*left,) = (pkh for pkh in stored if pkh not in out)
        asked.append(left)
        silent.note_silent(stored[left[0]][0])
    assert asked == [["tz1a", "tz1b"], ["tz1b"], ["tz1a"], ["tz1b"], ["tz1a"], ["tz1b"]]


def test_the_only_kek_is_always_asked_for() -> None:
    silent, stored = SilentKeks(), {"tz1a": (A,), "tz2a": (A,)}
    silent.note_silent(A)
    assert silent.left_out(stored) == {}
