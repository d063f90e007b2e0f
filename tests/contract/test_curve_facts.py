"""Every type of key in every table: anything missing for one is named here."""

import json
from hashlib import pbkdf2_hmac
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import click
import pytest
from cryptography.hazmat.primitives import asymmetric
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from nacl.secret import SecretBox

from enclave_signer.curves import (
    InvalidSignature,
    ProofNotSupported,
    SigningKey,
    VersionNotSupported,
    curve,
    self_test,
)
from enclave_signer.curves.known_answers import MESSAGE
from enclave_signer.errors import GuardRefused
from enclave_signer.guard import Guard, check_without_guard
from enclave_signer.protocol import blob, codec, values
from enclave_signer.protocol.key_types import CurveFacts, CurveTexts, KeyType, SigningVersion
from enclave_signer.protocol.messages import Generate, PrivateKey, SealedKey
from enclave_signer.tezos import (
    Family,
    Kind,
    MalformedBase58,
    check_public_key_hash,
    decode,
    encode,
    encode_public_key,
    encode_signature,
    kinds_of,
    masked,
    parse_public_key,
    parse_public_key_hash,
    parse_secret_key,
    parse_signature,
    public_key_hash,
)
from host_backend.api.openapi import document
from host_backend.api.route_table import Access, operations
from host_backend.authentication import authentication_bytes, proof_authentication_bytes
from host_backend.cli.commands import cli
from host_backend.cli.keys import _KEY_TYPES
from host_backend.errors import MalformedRequest
from host_backend.operations.fields import BadField, Field, Reader, public_key
from host_backend.operations.fields import public_key_hash as hash_field
from host_backend.operations.messages import parse_message
from host_backend.operations.parts import signature as signature_field
from host_backend.policy import DEFAULT_POLICY
from host_backend.secret_keys import _public_halves, read_secret_key
from quickstart import demo
from tests.doubles.known_keys import attestation, block, preattestation
from tests.doubles.known_keys import transaction as transaction_message
from tests.unit.test_config import load, refused
from tests.unit.test_operations import HEAD, dynamic, transaction

FAMILIES = (
    Family.PUBLIC_KEY_HASH,
    Family.PUBLIC_KEY,
    Family.PRIVATE_KEY,
    Family.ENCRYPTED_PRIVATE_KEY,
    Family.SIGNATURE,
)
PASSWORD = b"correct horse"
_ON = ", ".join(f"{key_type.facts.address}: true" for key_type in KeyType if key_type.facts.experimental)
#: Asks for every type of key that not every chain has.
ALL_ON = f"experimental: {{{_ON}}}"
each_key_type = pytest.mark.parametrize("key_type", KeyType)


def is_expanded_in_text(facts: CurveFacts) -> bool:
    """Whether the texts of private keys hold what was made of the key, and not the key."""
    _, size = facts.texts.private_keys[0]
    return size not in (facts.private_key_bytes, facts.private_key_bytes + facts.public_key_bytes)


EXPANDED_IN_TEXT = [key_type for key_type in KeyType if is_expanded_in_text(key_type.facts)]
key_types_with_key_in_text = pytest.mark.parametrize(
    "key_type", [key_type for key_type in KeyType if key_type not in EXPANDED_IN_TEXT]
)


def secret(key_type: KeyType) -> PrivateKey:
    return PrivateKey(key_type, curve(key_type).known_answer.private_key)


def opened(key_type: KeyType) -> SigningKey:
    return curve(key_type).open(secret(key_type))


def hashed(key_type: KeyType) -> str:
    return public_key_hash(opened(key_type).public_key)


def latest(key_type: KeyType) -> bytes:
    return opened(key_type).sign(MESSAGE, SigningVersion.LATEST).data


def read_whole(field: Field, data: bytes) -> None:
    reader = Reader(data, 0)
    field(reader)
    assert reader.at_end_of_message()


# The rows themselves


@pytest.mark.parametrize("fact", ["tag", "name", "address"])
def test_what_tells_curves_apart_is_different(fact: str) -> None:
    found = [getattr(key_type.facts, fact) for key_type in KeyType]
    assert len(set(found)) == len(KeyType)
    if fact == "tag":
        assert found == list(range(len(KeyType))), "texts say `known are 0 to` the last one"


@pytest.mark.parametrize("facts", [CurveFacts, CurveTexts])
def test_a_row_has_no_defaults(facts: type[CurveFacts | CurveTexts]) -> None:
    for name in facts.__dataclass_fields__:
        row = {other: None for other in facts.__dataclass_fields__ if other != name}
        with pytest.raises(TypeError, match=f"missing 1 required keyword-only argument: '{name}'"):
            facts(**row)  # type: ignore[arg-type]


# What the curve computes


@each_key_type
def test_the_curve_is_as_its_row_says(key_type: KeyType) -> None:
    key, facts = opened(key_type), key_type.facts
    assert curve(key_type).key_type is key_type
    assert len(curve(key_type).generate().data) == facts.private_key_bytes
    assert len(key.public_key.data) == facts.public_key_bytes
    assert len(latest(key_type)) == facts.signature_bytes


@each_key_type
@pytest.mark.parametrize("version", SigningVersion)
def test_it_has_the_signing_versions_of_its_row(key_type: KeyType, version: SigningVersion) -> None:
    key = opened(key_type)
    verifying = curve(key_type).parse_public_key(key.public_key.data)
    if version in key_type.facts.versions:
        verifying.verify(key.sign(MESSAGE, version), MESSAGE, version)
        return
    with pytest.raises(VersionNotSupported):
        key.sign(MESSAGE, version)
    with pytest.raises(VersionNotSupported):
        verifying.verify(key.sign(MESSAGE, SigningVersion.LATEST), MESSAGE, version)


@each_key_type
def test_it_proves_possession_as_its_row_says(key_type: KeyType) -> None:
    key = opened(key_type)
    verifying = curve(key_type).parse_public_key(key.public_key.data)
    if key_type.facts.proves_possession:
        verifying.verify_possession(key.prove_possession())
        with pytest.raises(InvalidSignature):
            verifying.verify_possession(key.sign(MESSAGE, SigningVersion.LATEST))
        return
    with pytest.raises(ProofNotSupported):
        key.prove_possession()
    with pytest.raises(ProofNotSupported):
        verifying.verify_possession(key.sign(MESSAGE, SigningVersion.LATEST))


@each_key_type
def test_the_same_message_gets_the_same_signature_unless_hedged(key_type: KeyType) -> None:
    key = opened(key_type)
    signatures = {key.sign(MESSAGE, SigningVersion.LATEST).data for _ in range(3)}
    assert len(signatures) == (3 if key_type.facts.hedged else 1)
    assert not (key_type.facts.hedged and key_type.facts.bakes), "the law of repeats stands on equal signatures"


@each_key_type
def test_its_answers_are_known(key_type: KeyType) -> None:
    self_test()
    answer, facts = curve(key_type).known_answer, key_type.facts
    assert answer.signatures
    assert {version for version, _ in answer.signatures} <= facts.versions
    assert (answer.proof is not None) == facts.proves_possession


# The wire


@each_key_type
def test_it_crosses_the_wire(key_type: KeyType) -> None:
    key = opened(key_type)
    assert values.key_type(key_type.value) is key_type
    assert codec.decode_request(codec.encode_request(Generate(key_type))) == Generate(key_type)
    assert codec.decode_private_key(codec.encode_private_key(secret(key_type))).data == secret(key_type).data
    assert values.public_key(values.encode_of_curve(key.public_key)) == key.public_key
    signed = key.sign(MESSAGE, SigningVersion.LATEST)
    assert values.signature(values.encode_of_curve(signed)) == signed


@each_key_type
def test_a_blob_names_it(key_type: KeyType) -> None:
    header = blob.BlobHeader(sealer="local", kek="local:0", public_key=opened(key_type).public_key)
    assert blob.parse_blob(header.encode() + b"sealed")[0] == header
    assert codec.encode_ok(SealedKey(header.encode() + b"sealed", header.public_key))


# Text


@each_key_type
@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_of_text_comes_back(key_type: KeyType, family: Family) -> None:
    assert key_type in kinds_of(family), f"base58.Kind has no {family} of {key_type}"
    kind = kinds_of(family)[key_type]
    payload = bytes(index % 251 for index in range(kind.value.payload_bytes))
    text = encode(kind, payload)
    assert decode(text, family) == (kind, payload)
    assert text.startswith(kind.value.label)
    may_be_told = family not in (Family.PRIVATE_KEY, Family.ENCRYPTED_PRIVATE_KEY)
    assert masked(text) == (text if may_be_told else f"{kind.value.label}***")


@each_key_type
def test_keys_and_signatures_as_text(key_type: KeyType) -> None:
    key = opened(key_type)
    pkh = public_key_hash(key.public_key)
    assert pkh.startswith(key_type.facts.address)
    assert check_public_key_hash(pkh) is key_type
    assert parse_public_key(encode_public_key(key.public_key)) == key.public_key
    signed = key.sign(MESSAGE, SigningVersion.LATEST)
    assert parse_signature(encode_signature(signed), key_type) == signed


# Secret keys


def in_pem(pem_name: str, data: bytes) -> PrivateKeyTypes:
    """Return the key of `cryptography` for a private key, by the curve's name there."""
    for module in iter_modules(asymmetric.__path__):
        found = getattr(import_module(f"{asymmetric.__name__}.{module.name}"), pem_name, None)
        if found is not None:
            make = getattr(found, "from_seed_bytes", None) or found.from_private_bytes
            key: PrivateKeyTypes = make(data)
            return key
    (named,) = (each for each in vars(ec).values() if getattr(each, "name", None) == pem_name)
    return ec.derive_private_key(int.from_bytes(data, "big"), named())


def as_text(key_type: KeyType) -> str:
    data = secret(key_type).data
    if key_type.facts.texts.little_endian:
        data = data[::-1]
    return encode(kinds_of(Family.PRIVATE_KEY)[key_type], data)


def encrypted(key_type: KeyType) -> str:
    _, payload = decode(as_text(key_type), Family.PRIVATE_KEY)
    salt = bytes(8)
    box = SecretBox(pbkdf2_hmac("sha512", PASSWORD, salt, 32768, SecretBox.KEY_SIZE))
    sealed = box.encrypt(payload, bytes(SecretBox.NONCE_SIZE)).ciphertext
    return encode(kinds_of(Family.ENCRYPTED_PRIVATE_KEY)[key_type], salt + sealed)


@key_types_with_key_in_text
def test_secret_keys_are_read_in_base58(key_type: KeyType) -> None:
    forms = (
        as_text(key_type),
        f"unencrypted:{as_text(key_type)}",
        encrypted(key_type),
        f"encrypted:{encrypted(key_type)}",
    )
    for form in forms:
        found = read_secret_key(form.encode(), lambda: PASSWORD)
        assert (found.key_type, found.data) == (key_type, secret(key_type).data)
    assert parse_secret_key(as_text(key_type)).data == secret(key_type).data


@pytest.mark.parametrize("key_type", EXPANDED_IN_TEXT)
@pytest.mark.parametrize("family", [Family.PRIVATE_KEY, Family.ENCRYPTED_PRIVATE_KEY])
def test_a_text_without_the_key_is_refused_by_name_and_before_a_password_is_asked_for(
    key_type: KeyType, family: Family
) -> None:
    kind = kinds_of(family)[key_type]
    text = encode(kind, bytes(kind.value.payload_bytes))
    uri = "unencrypted:" if family is Family.PRIVATE_KEY else "encrypted:"
    for form in (text, uri + text):
        with pytest.raises(
            MalformedRequest, match=f"^{kind.value.label}… holds an expanded key without its seed, .* PEM"
        ):
            read_secret_key(form.encode(), lambda: pytest.fail("a password was asked for"))
    with pytest.raises(MalformedBase58, match=f"^{kind.value.label}…"):
        parse_secret_key(text)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind.value.family is Family.PRIVATE_KEY])
def test_only_a_text_that_holds_the_key_itself_is_read_as_one(kind: Kind) -> None:
    layout = kind.value
    assert layout.key_type is not None
    facts = layout.key_type.facts
    text = encode(kind, bytes(1 + index % 32 for index in range(layout.payload_bytes)))
    if layout.payload_bytes in (facts.private_key_bytes, facts.private_key_bytes + facts.public_key_bytes):
        assert len(parse_secret_key(text).data) == facts.private_key_bytes
    else:
        with pytest.raises(MalformedBase58):
            parse_secret_key(text)


@pytest.mark.parametrize("key_type", [key_type for key_type in KeyType if key_type.facts.pem_name is not None])
@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_secret_keys_are_read_in_pem_and_der(key_type: KeyType, encoding: Encoding) -> None:
    made = in_pem(str(key_type.facts.pem_name), secret(key_type).data)
    found = read_secret_key(made.private_bytes(encoding, PrivateFormat.PKCS8, NoEncryption()), lambda: PASSWORD)
    assert (found.key_type, found.data) == (key_type, secret(key_type).data)
    assert opened(key_type).public_key.data in _public_halves(made)


# What clients sign, and operations


@each_key_type
def test_requests_name_it_by_its_tag(key_type: KeyType) -> None:
    pkh = hashed(key_type)
    tagged = bytes([key_type.facts.tag]) + parse_public_key_hash(pkh)[1]
    assert authentication_bytes(pkh, MESSAGE) == b"\x04\x01" + tagged + MESSAGE
    assert proof_authentication_bytes(pkh)[1] == b"\x04\x04" + tagged


@each_key_type
def test_operations_hold_its_hash_its_key_and_its_signature(key_type: KeyType) -> None:
    tag, key = bytes([key_type.facts.tag]), opened(key_type).public_key
    read_whole(hash_field, tag + parse_public_key_hash(hashed(key_type))[1])
    read_whole(public_key, tag + key.data)


@each_key_type
def test_what_is_signed_inside_an_operation_is_by_a_key_that_bakes(key_type: KeyType) -> None:
    if key_type.facts.bakes:
        read_whole(signature_field, latest(key_type))
    else:
        with pytest.raises(BadField, match=rf"{key_type.facts.signature_bytes} byte\(s\) where a signature has "):
            read_whole(signature_field, latest(key_type))


@each_key_type
def test_a_reveal_holds_it_with_its_proof(key_type: KeyType) -> None:
    tag, key = bytes([key_type.facts.tag]), opened(key_type)
    source = tag + parse_public_key_hash(hashed(key_type))[1]
    proof = b"\xff" + dynamic(key.prove_possession().data) if key_type.facts.proves_possession else b"\x00"
    parse_message(HEAD + b"\x6b" + source + b"\x01\x02\x03\x04" + tag + key.public_key.data + proof)


@each_key_type
def test_a_signed_batch_ends_in_what_a_long_signature_begins_with(key_type: KeyType) -> None:
    beginning = latest(key_type)[:-64]
    if beginning:
        parse_message(HEAD + transaction() + b"\xff" + bytes([key_type.facts.tag]) + beginning)


# Commands, configuration, descriptions


def command(name: str) -> click.Command:
    assert isinstance(cli, click.Group)
    return cli.commands[name]


@each_key_type
def test_commands_take_it_by_two_names(key_type: KeyType) -> None:
    (option,) = (parameter for parameter in command("generate").params if parameter.name == "kind")
    assert isinstance(option.type, click.Choice)
    for name in (key_type.facts.name, key_type.facts.address):
        assert name in option.type.choices
        assert _KEY_TYPES[name] is key_type


@each_key_type
def test_the_help_of_import_names_its_secret_keys(key_type: KeyType) -> None:
    text = command("import").help or ""
    for family in (Family.PRIVATE_KEY, Family.ENCRYPTED_PRIVATE_KEY):
        assert (kinds_of(family)[key_type].value.label in text) == (key_type not in EXPANDED_IN_TEXT)
    assert (key_type.facts.pem_name is None) or key_type.facts.name in text


@each_key_type
def test_a_policy_may_allow_a_proof_where_there_is_one(key_type: KeyType, tmp_path: Path) -> None:
    pkh = hashed(key_type)
    config = load(tmp_path, f"tezos: {{{pkh}: {{allow_proof_of_possession: true}}}}\n{ALL_ON}")
    assert config.policies[pkh].allow_proof_of_possession == key_type.facts.proves_possession
    assert bool(config.warnings) != key_type.facts.proves_possession


@each_key_type
def test_a_configuration_asks_for_it_where_not_every_chain_has_it(key_type: KeyType, tmp_path: Path) -> None:
    pkh, address = hashed(key_type), key_type.facts.address
    if not key_type.facts.experimental:
        assert load(tmp_path, f"tezos: {{{pkh}: }}").policies == {pkh: DEFAULT_POLICY}
        return
    for section in ("", f"\nexperimental: {{{address}: false}}"):
        assert refused(tmp_path, f"tezos: {{{pkh}: }}{section}") == (
            f"1: tezos.{pkh}: {address} keys are off, as not every chain has them: write `experimental: {{{address}: true}}` "
            "to use them"
        )
    config = load(tmp_path, f"tezos: {{{pkh}: }}\nexperimental: {{{address}: true}}")
    assert config.experimental == {key_type}


@each_key_type
def test_a_policy_allows_consensus_messages_to_what_bakes(key_type: KeyType, tmp_path: Path) -> None:
    pkh, kinds = hashed(key_type), {"block", "preattestation", "attestation", "attestation_with_dal"}
    allow = f"{{{', '.join(f'{kind}: ' for kind in kinds)}, generic: [transaction]}}"
    config = load(tmp_path, f"tezos: {{{pkh}: {{allow: {allow}}}}}\n{ALL_ON}")
    bakes = key_type.facts.bakes
    assert config.policies[pkh].requests == ({*kinds, "generic"} if bakes else {"generic"})
    assert config.warnings == (
        ()
        if bakes
        else (f"tezos.{pkh}: {', '.join(sorted(kinds))} means nothing, {key_type.facts.address} keys never bake",)
    )
    without_policy = load(tmp_path, f"tezos: {{{pkh}: }}\n{ALL_ON}").policies[pkh]
    assert without_policy.requests == (DEFAULT_POLICY.requests if bakes else frozenset())


@each_key_type
def test_the_enclave_signs_consensus_messages_with_what_bakes(key_type: KeyType) -> None:
    key = opened(key_type).public_key
    guard = Guard(10, lambda _: None)
    for message in (block(5), preattestation(5), attestation(5), b"\x11", b"\x12 none"):
        if key_type.facts.bakes:
            check_without_guard(key, message)
            continue
        for check in (guard.check, check_without_guard):
            with pytest.raises(
                GuardRefused, match=rf"^guard refused: {hashed(key_type)} signs no blocks, .* key bakes$"
            ):
                check(key, message)
    assert guard.refused == (0 if key_type.facts.bakes else 5)
    for message in (b"", b"\x03", transaction_message(1)):
        guard.check(key, message)
        check_without_guard(key, message)


@each_key_type
def test_the_description_of_the_routes_names_its_addresses(key_type: KeyType) -> None:
    (parameter,) = (
        parameter
        for parameter in json.loads(document(operations(Access())))["paths"]["/keys/{pkh}"]["get"]["parameters"]
        if parameter["name"] == "pkh"
    )
    assert f"{key_type.facts.address}…" in parameter["description"]


def test_the_demonstration_attests_with_all_that_may() -> None:
    assert list(demo.KEY_TYPES) == [key_type.facts.address for key_type in KeyType if key_type.facts.bakes]
