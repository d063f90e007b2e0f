"""`docs/protocol.md` against the code: vectors, CDDL, limits, the sealed key, the counted differences."""

import asyncio
import re

import cbor2
import pytest

from enclave_signer.config import DEFAULT_LIMITS
from enclave_signer.protocol import codec, messages
from enclave_signer.protocol.calls import CALLS
from enclave_signer.protocol.errors import WireError
from enclave_signer.protocol.framing import MAX_FRAME_BYTES
from enclave_signer.protocol.messages import (
    KeyType,
    SigningVersion,
)
from enclave_signer.sealing.local import LocalSealer
from enclave_signer.tezos.base58 import Family, kinds_of
from enclave_signer.tezos.marks import DEFAULT_MAX_LEVEL_JUMP, MAX_CHAINS_PER_KEY
from tests.conformance.test_enclave_transcripts import DIFFERENCES, DROPPED_BY_TEE_SIGNER
from tests.contract.markdown import DOCS, blocks, named_values, rows

PAGE = DOCS / "protocol.md"
VECTORS = [named_values(block) for block in blocks(PAGE, "vector")]
CDDL, BLOB_CDDL = blocks(PAGE, "cddl")
#: Types that CDDL brings along.
PRELUDE = {"bstr", "tstr", "uint", "null"}


def vector_id(vector: dict[str, str]) -> str:
    return f"{next(iter(cbor2.loads(bytes.fromhex(vector['request']))))}-{vector['reply'][:24]}"


def integers_as_bytes(reply: object) -> object:
    """Return a reply with arrays of integers, as tee-signer sends them, made byte strings."""
    if isinstance(reply, dict):
        return {name: integers_as_bytes(value) for name, value in reply.items()}
    return bytes(reply) if isinstance(reply, list) else reply


@pytest.mark.parametrize("vector", VECTORS, ids=vector_id)
def test_requests_decode_and_encode(vector: dict[str, str]) -> None:
    body = bytes.fromhex(vector["request"])
    request = codec.decode_request(body)
    encoded = codec.encode_request(request)
    assert codec.decode_request(encoded) == request or "ImportUnencrypted" in cbor2.loads(body)
    ((name, argument),) = cbor2.loads(body).items()
    if name in {"Sign", "SignWith"} and "version" not in argument:
        argument["version"] = SigningVersion.LATEST.value
        body = cbor2.dumps({name: argument})
    assert encoded == body


@pytest.mark.parametrize("vector", VECTORS, ids=vector_id)
def test_replies_decode_and_encode(vector: dict[str, str]) -> None:
    request, body = codec.decode_request(bytes.fromhex(vector["request"])), bytes.fromhex(vector["reply"])
    try:
        encoded = codec.encode_ok(codec.decode_reply(request, body))
    except WireError as error:
        encoded = codec.encode_error(error)
    assert encoded == cbor2.dumps(integers_as_bytes(cbor2.loads(body)))


def test_every_call_has_a_vector_that_succeeds() -> None:
    called = {
        next(iter(cbor2.loads(bytes.fromhex(vector["request"]))))
        for vector in VECTORS
        if "Ok" in cbor2.loads(bytes.fromhex(vector["reply"]))
    }
    assert called == set(CALLS)


def test_cddl_names_the_calls_of_the_codec() -> None:
    rules = dict(re.findall(r'^([\w-]+) *= \{ "(\w+)": .* \}$', CDDL, re.MULTILINE))
    names = re.search(r"^request = (.*?)\n\n", CDDL, re.MULTILINE | re.DOTALL)
    assert names is not None
    assert {rules[rule] for rule in re.findall(r"[\w-]+", names[1])} == set(CALLS)


@pytest.mark.parametrize("text", [CDDL, BLOB_CDDL], ids=["wire", "blob"])
def test_cddl_defines_what_it_uses(text: str) -> None:
    bare = re.sub(r'"[^"]*"|;.*|\.size', "", text)
    defined = re.findall(r"^([\w-]+) *=", bare, re.MULTILINE)
    assert len(defined) == len(set(defined))
    assert set(re.findall(r"[a-z][\w-]*", bare)) <= set(defined) | PRELUDE


@pytest.mark.parametrize("text", [CDDL, BLOB_CDDL], ids=["wire", "blob"])
@pytest.mark.parametrize("rule", ["key-type", "private-key"])
def test_cddl_has_the_curves_of_the_code(text: str, rule: str) -> None:
    found = re.search(rf"^{rule} *= ([^;\n]*)", text, re.MULTILINE)
    assert found is not None
    assert set(re.findall(r'"(\w+)"', found[1])) == set(KeyType)


def test_cddl_has_the_sizes_of_the_code() -> None:
    assert (
        f"message     = bstr .size (0..{messages.MAX_MESSAGE_BYTES}) / [0*{messages.MAX_MESSAGE_BYTES} octet]" in CDDL
    )
    assert f"blob        = bstr .size (0..{messages.MAX_BLOB_BYTES}) / [0*{messages.MAX_BLOB_BYTES} octet]" in CDDL
    assert f"version     = {' / '.join(str(version.value) for version in SigningVersion)} " in CDDL
    sizes = {
        "private-key": {key_type.value: key_type.facts.private_key_bytes for key_type in KeyType},
        "public-key": {key_type.value: key_type.facts.public_key_bytes for key_type in KeyType},
        "signature": {key_type.value: key_type.facts.signature_bytes for key_type in KeyType},
    }
    for rule, of_type in sizes.items():
        found = re.search(rf"^{rule} *= (.*)$", CDDL, re.MULTILINE)
        assert found is not None
        assert {name: int(size) for name, size in re.findall(r'"(\w+)": octets-(\d+)', found[1])} == of_type
    for size in set(re.findall(r"octets-(\d+)", CDDL)):
        assert f"octets-{size} = bstr .size {size} / [{size}*{size} octet]" in CDDL


def test_limits_are_those_of_the_code() -> None:
    table = {cells[0]: cells[1] for cells in rows(PAGE) if len(cells) == 2}
    assert table["time until `Initialize` succeeded"] == f"{DEFAULT_LIMITS.initialize_s:g} s"
    assert table["time for the rest of a frame, once it began"] == f"{DEFAULT_LIMITS.frame_s:g} s"
    assert table["time for a client to take its answers"] == f"{DEFAULT_LIMITS.write_s:g} s"
    assert table["time of silence of an initialized connection (`--idle`)"] == "none"
    assert DEFAULT_LIMITS.idle_s == 0
    numbers = {
        "connections at once (`--max-connections`)": DEFAULT_LIMITS.max_connections,
        "of these, from one address": DEFAULT_LIMITS.connections_per_address,
        "keys per connection (`--max-keys`); the next import is answered `Err`": DEFAULT_LIMITS.max_handles,
        "keys of all connections together (`--max-open-keys`); as above": DEFAULT_LIMITS.max_open_keys,
        "of these, first opened from one address; as above": DEFAULT_LIMITS.open_keys_per_address,
        "chains of one key in the guard; as above": MAX_CHAINS_PER_KEY,
    }
    for name, number in numbers.items():
        assert table[name] == f"{number:_}".replace("_", " ")
    buffered = table["calls of one connection waiting in memory (`--max-buffer`)"]
    assert buffered == f"{DEFAULT_LIMITS.buffer_bytes:_} bytes".replace("_", " ")
    (in_flight,) = (value for name, value in table.items() if "`--max-in-flight`" in name)
    assert in_flight == str(DEFAULT_LIMITS.max_in_flight)
    (guarded,) = (value for name, value in table.items() if "`--max-guarded`" in name)
    assert guarded == f"{DEFAULT_LIMITS.max_guarded:_}".replace("_", " ")
    assert f"within the last {DEFAULT_LIMITS.retain_s:g} s (`--retain`)" in " ".join(PAGE.read_text().split())
    assert f"at most {DEFAULT_MAX_LEVEL_JUMP:_} levels higher".replace("_", " ") in PAGE.read_text()
    assert f"{MAX_FRAME_BYTES:_} bytes".replace("_", " ") in PAGE.read_text()


def test_addresses_are_those_of_the_code() -> None:
    (said,) = re.findall(r"^An address is [^.]+\.", PAGE.read_text(), re.MULTILINE)
    prefixes = re.findall(r"`([0-9a-f]{6})`\s\(", said)
    kinds = kinds_of(Family.PUBLIC_KEY_HASH)
    assert [bytes.fromhex(prefix) for prefix in prefixes] == [kind.value.prefix for kind in kinds.values()]


def test_the_sealed_key_opens() -> None:
    (block,) = blocks(PAGE, "blob")
    values = {name: bytes.fromhex(value) for name, value in named_values(block).items()}
    unsealed = asyncio.run(LocalSealer(values["sealing key"]).unseal(values["blob"]))
    assert unsealed.private_key.data == values["private key"]
    assert unsealed.named is not None
    assert unsealed.named.key_type is KeyType.ED25519


def test_differences_from_tee_signer_are_those_that_are_counted() -> None:
    counted = [
        int(cells[1]) for cells in rows(PAGE) if len(cells) == 2 and cells[1].isdecimal() and "tee-signer" in cells[0]
    ]
    counted += [int(cells[1]) for cells in rows(PAGE) if cells[0].startswith("what follows from it")]
    assert sorted(counted) == sorted([*DIFFERENCES.values(), DROPPED_BY_TEE_SIGNER])
