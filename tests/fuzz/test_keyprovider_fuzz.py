"""Any bytes from a client of the keyprovider give a value or a refusal; so do any bytes in a key's file."""

import json
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave_signer.errors import BlobCorrupt
from enclave_signer.keyprovider import kek_file
from enclave_signer.keyprovider.errors import KeyproviderError
from enclave_signer.keyprovider.grpc_messages import read_body
from enclave_signer.keyprovider.messages import read_request
from enclave_signer.keyprovider.packets import open_packet, read_packet
from enclave_signer.keyprovider.parameters import key_id_of

READERS: tuple[Callable[[bytes], object], ...] = (
    read_body,
    lambda data: read_request(data, "name"),
    lambda data: open_packet(bytes(32), read_packet(data)),
    lambda data: key_id_of(data.decode("latin-1")),
    kek_file.parse,
)
NAMES = [
    "op",
    "keywrap",
    "keyunwrap",
    "keywrapparams",
    "keyunwrapparams",
    "ec",
    "dc",
    "Parameters",
    "name",
    "optsdata",
    "annotation",
    "kid",
    "key_id",
    "wrapped_data",
    "iv",
    "nonce",
    "ciphertext",
    "wrap_type",
    "algorithm",
    "A256GCM",
    "version",
    "id",
    "blob",
    "kek",
    "YQ==",
    "AAAAAAAAAAAAAAAA",
]
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(NAMES) | st.text(max_size=8)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=8).map(lambda value: json.dumps(value).encode())


@pytest.mark.parametrize("read", READERS, ids=["body", "request", "packet", "parameters", "file"])
@given(data=st.binary(max_size=200) | DOCUMENTS | DOCUMENTS.map(lambda data: data[:-1]))
def test_any_bytes_are_a_value_or_a_refusal(read: Callable[[bytes], object], data: bytes) -> None:
    with suppress(KeyproviderError, BlobCorrupt):
        read(data)
