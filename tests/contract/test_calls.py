"""A call of the wire is whole: its row, what the host does with it, and what its table says of it.

One of each call is taken from the vectors of `docs/protocol.md`.
"""

from dataclasses import fields
from typing import get_args

import cbor2
import pytest

from enclave_signer.protocol import codec
from enclave_signer.protocol.calls import CALLS, Call, Unnamed, call_of
from enclave_signer.protocol.messages import ImportUnencrypted, Request, SealedKey
from tests.contract.markdown import DOCS, blocks, named_values
from tests.contract.rooms import IMPORTS, within


def calls_and_results() -> dict[str, tuple[Request, bytes]]:
    """Return for each call one of it, and what answers it, by its name."""
    found: dict[str, tuple[Request, bytes]] = {}
    for block in blocks(DOCS / "protocol.md", "vector"):
        body, reply = (bytes.fromhex(named_values(block)[name]) for name in ("request", "reply"))
        (name,) = cbor2.loads(body)
        if name in CALLS and "Ok" in cbor2.loads(reply):
            found.setdefault(name, (codec.decode_request(body), reply))
    return {name: found[name] for name in CALLS if name in found}


ONE_OF_EACH = {name: call for name, (call, _) in calls_and_results().items()}
each_call = pytest.mark.parametrize("name", CALLS)
#: tee-signer's, for hosts that make them; ours never does.
OF_OTHER_HOSTS = {"Generate", "SignWith"}
#: Fields that name the key with which a call is made, and all others.
KEY_FIELDS = ("handle", "blob", "pkh")
OTHER_FIELDS = {
    "credentials",
    "key_type",
    "message",
    "nonce",
    "private_key",
    "public_key",
    "purpose",
    "target",
    "version",
}


def test_every_call_is_in_the_table() -> None:
    assert {type(call) for call in ONE_OF_EACH.values()} == set(get_args(Request))
    rows: list[Call[Request]] = [call_of(call) for call in ONE_OF_EACH.values()]
    assert rows == list(CALLS.values())


@each_call
def test_what_a_row_writes_it_reads(name: str) -> None:
    call, row = ONE_OF_EACH[name], CALLS[name]
    read = row.read(row.write(call))
    if isinstance(call, ImportUnencrypted):
        assert isinstance(read, ImportUnencrypted)
        assert read.private_key.data == call.private_key.data
    else:
        assert read == call


@each_call
def test_what_may_leave_the_enclave_has_the_time_of_its_sealer(name: str) -> None:
    """A call that is taken for a fast one would end the connection whenever its sealer is slow."""
    row = CALLS[name]
    if row.key is Unnamed.NONE:
        assert row.asks_sealer or name not in {"Initialize", "Attest"}
    else:
        with_open_key = row.key is not Unnamed.NEW and not isinstance(row.key(ONE_OF_EACH[name]), bytes)
        assert row.asks_sealer != with_open_key
        assert row.reads_session == with_open_key


@each_call
def test_rules_for_clients_know_with_which_key_a_call_is_made(name: str) -> None:
    """A call whose key they do not know is refused to clients that may use some keys only."""
    row, (call, reply) = CALLS[name], calls_and_results()[name]
    unknown = {field.name for field in fields(call)} - OTHER_FIELDS - {*KEY_FIELDS}
    assert not unknown, f"{unknown}: say here whether it names the key"
    named = [getattr(call, field) for field in KEY_FIELDS if hasattr(call, field)]
    if named:
        assert not isinstance(row.key, Unnamed)
        assert [row.key(call)] == named
    else:
        makes_key = isinstance(codec.decode_reply(call, reply), SealedKey)
        assert row.key is (Unnamed.NEW if makes_key else Unnamed.NONE)


@each_call
def test_a_client_of_ours_makes_it(name: str) -> None:
    dataclass = f"enclave_signer.protocol.messages.{type(ONE_OF_EACH[name]).__name__}"
    clients = ("host_backend.enclave", "enclave_signer.client")
    makes = [module for module, imported in IMPORTS.items() if within(module, clients) and dataclass in imported]
    assert bool(makes) != (name in OF_OTHER_HOSTS), f"host_backend/enclave/client.py has no method for {name}"
