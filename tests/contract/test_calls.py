"""A call of the wire is whole: its row, what the host does with it, and what its table says of it."""

from typing import get_args

import pytest

from enclave_signer.protocol.calls import CALLS, Call, call_of
from enclave_signer.protocol.messages import (
    Attest,
    Credentials,
    Generate,
    GenerateAndImport,
    GetPublicKey,
    GetPublicKeyFrom,
    Import,
    ImportUnencrypted,
    Initialize,
    KeyType,
    PrivateKey,
    ProvePossession,
    ProvePossessionOf,
    PublicKey,
    Purpose,
    Request,
    Reseal,
    Sign,
    SignWith,
    UseKey,
)
from enclave_signer.rights import WITHOUT_KEY, _key_of

ONE_OF_EACH: list[Request] = [
    Initialize(Credentials()),
    Import(b"blob"),
    ImportUnencrypted(PrivateKey(KeyType.ED25519, bytes(32))),
    Generate(KeyType.BLS),
    GenerateAndImport(KeyType.BLS),
    Sign(1, b"message"),
    SignWith(b"blob", b"message"),
    GetPublicKey(1),
    GetPublicKeyFrom(b"blob"),
    ProvePossession(1),
    ProvePossessionOf(1, PublicKey(KeyType.BLS, bytes(48))),
    Reseal(b"blob", "key"),
    Attest(bytes(32), Purpose.CHANNEL),
    UseKey("tz1"),
]


def test_every_call_is_in_the_table() -> None:
    assert {type(call) for call in ONE_OF_EACH} == set(get_args(Request))
    rows: list[Call[Request]] = [call_of(call) for call in ONE_OF_EACH]
    assert rows == list(CALLS.values())


@pytest.mark.parametrize("call", ONE_OF_EACH, ids=lambda call: type(call).__name__)
def test_what_a_row_writes_it_reads(call: Request) -> None:
    row = call_of(call)
    read = row.read(row.write(call))
    if isinstance(call, ImportUnencrypted):
        assert isinstance(read, ImportUnencrypted)
        assert read.private_key.data == call.private_key.data
    else:
        assert read == call


def test_what_may_leave_the_enclave_has_the_time_of_its_sealer() -> None:
    """A call that is taken for a fast one would end the connection whenever its sealer is slow."""
    fast = {name for name, row in CALLS.items() if not row.asks_sealer}
    assert fast == {"Sign", "PublicKey", "ProvePossession", "ProvePossessionOf", "UseKey"}


def test_rules_for_clients_know_with_which_key_a_call_is_made() -> None:
    """A call whose key they do not know is refused to clients that may use some keys only."""
    key = PublicKey(KeyType.ED25519, bytes(32))
    unknown = {call_of(call).name for call in ONE_OF_EACH if _key_of(call, lambda _: key) is None}
    named_by_a_blob = {"Import", "SignWith", "PublicKeyFrom", "Reseal"}
    made_by_the_call = {"ImportUnencrypted", "Generate", "GenerateAndImport"}
    assert unknown - WITHOUT_KEY == named_by_a_blob | made_by_the_call | {"UseKey"}
