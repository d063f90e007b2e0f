"""Keys of ML-DSA-44 through both programs: made, imported, signing operations, and refused whatever else they are asked for."""

import json
from hashlib import blake2b
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from dilithium_py.ml_dsa import ML_DSA_44

from enclave_signer.protocol.messages import KeyType, PublicKey, Signature
from enclave_signer.tezos import (
    encode_public_key,
    encode_signature,
    parse_public_key,
    parse_public_key_hash,
    parse_signature,
    public_key_hash,
)
from host_backend.operations.messages import GenericMessage, parse_message
from tests.doubles.host_process import (
    BAKER,
    VAULT,
    Host,
    import_keys,
    key_file,
    refused,
    run_command,
    running_host,
    stored_hashes,
    write_config,
)
from tests.doubles.known_keys import FOUR, attestation, block, preattestation, transaction
from tests.doubles.octez_client import tagged
from tests.doubles.octez_folder import write_wallet
from tests.doubles.operation_encoder import message
from tests.doubles.processes import Enclave
from tests.doubles.tee_signer import tee_signer

TZ1 = FOUR[0]
ON = "experimental: {tz5: true}"
POLICY = "{allow: {generic: [reveal, transaction]}}"
OFF = "tz5 keys are off, as not every chain has them: write `experimental: {tz5: true}` to use them"
SEED = bytes(range(32))
FRAGMENT_BYTES = 64


def own_file(config: Path) -> Path:
    return key_file(config).with_name("confidential_space_keys.tz5.json")


def own_hashes(config: Path) -> list[str]:
    return [entry["public_key_hash"] for entry in json.loads(own_file(config).read_text())]


def generated(config: Path) -> tuple[str, str]:
    """Make a tz5 key; return its hash and its public key."""
    outcome = run_command("generate", "-c", config, "-v", VAULT, "-t", "tz5", "--json")
    assert outcome.code == 0, outcome.stderr
    (found,) = json.loads(outcome.stdout)["keys"]
    return found["public_key_hash"], found["public_key"]


def with_key(folder: Path, local: Enclave, policy: str = POLICY, others: tuple[str, ...] = ()) -> tuple[Path, str, str]:
    """Return a configuration, the hash of a new tz5 key that it lists, and its public key."""
    pkh, key = generated(write_config(folder, local.port, more=[ON]))
    return write_config(folder, local.port, {pkh: policy, **dict.fromkeys(others, BAKER)}, more=[ON]), pkh, key


def verified(public_key: str, data: bytes, signature: str) -> bytes:
    """Return the bytes of a signature after verifying it with a library that both programs do not have."""
    found = parse_signature(signature, KeyType.ML_DSA_44).data
    digest = blake2b(data, digest_size=32).digest()
    assert ML_DSA_44.verify(parse_public_key(public_key).data, digest, found, ctx=b"")
    return found


def pkcs8(*, password: bytes | None = None, encoding: Encoding = Encoding.PEM) -> bytes:
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    return MLDSA44PrivateKey.from_seed_bytes(SEED).private_bytes(encoding, PrivateFormat.PKCS8, encryption)


def test_off_unless_asked_for(tmp_path: Path, local: Enclave) -> None:
    config = write_config(tmp_path, local.port)
    secret = tmp_path / "secret.pem"
    secret.write_bytes(pkcs8())
    assert refused(run_command("generate", "-c", config, "-v", VAULT, "-t", "tz5"), 2) == OFF
    assert refused(run_command("import", "-c", config, "-v", VAULT, "-f", secret), 2) == OFF
    assert not key_file(config).exists()
    assert not own_file(config).exists()
    _, pkh, _ = with_key(tmp_path, local)
    assert OFF in refused(run_command("serve", "-c", write_config(tmp_path, local.port, {pkh: POLICY})), 2)
    # It is kept, and is no key of this host as long as it is off.
    assert pkh not in run_command("list", "-c", write_config(tmp_path, local.port)).stdout


def test_from_octez_as_any_other_import(tmp_path: Path, local: Enclave) -> None:
    config, folder = write_config(tmp_path, local.port), tmp_path / "tezos-signer"
    write_wallet(folder, {"alice": TZ1}, {"new": pkcs8().decode()}, TZ1)
    words = ("import", "-c", config, "-v", VAULT, "--from-octez", folder)
    done = run_command(*words)
    assert done.code == 1
    assert done.error == "1 of 2 keys were not imported, see the warnings above; the others were"
    assert OFF in done.stderr
    assert stored_hashes(config) == [TZ1.pkh]
    assert not own_file(config).exists()
    done = run_command(*words[:2], write_config(tmp_path, local.port, more=[ON]), *words[3:])
    assert done.code == 0, done.stderr
    assert stored_hashes(config) == [TZ1.pkh]
    assert [pkh[:3] for pkh in own_hashes(config)] == ["tz5"]


def test_a_key_has_a_file_of_its_own_beside_signatory_s(tmp_path: Path, local: Enclave) -> None:
    config = write_config(tmp_path, local.port, more=[ON])
    import_keys(config, TZ1)
    before = key_file(config).read_bytes()
    pkh, public_key = generated(config)
    assert public_key_hash(parse_public_key(public_key)) == pkh
    assert key_file(config).read_bytes() == before
    assert own_hashes(config) == [pkh]
    assert own_file(config).stat().st_mode & 0o777 == 0o600
    listed = run_command("list", "-c", config).stdout
    assert [listed.count(each) for each in (TZ1.pkh, pkh, public_key)] == [1, 1, 1]
    # Switched off, the file for Signatory and its keys are as before.
    off = write_config(tmp_path, local.port)
    assert stored_hashes(off) == [TZ1.pkh]
    assert pkh not in run_command("list", "-c", off).stdout


def test_an_account_from_its_key_to_a_signed_operation(tmp_path: Path, local: Enclave) -> None:
    config, pkh, public_key = with_key(tmp_path, local)
    key, digest = parse_public_key(public_key).data, parse_public_key_hash(pkh)[1]
    manager = {"source": f"tz5:{digest.hex()}", "fee": "1", "counter": "2", "gas_limit": "3", "storage_limit": "4"}
    reveal = {"kind": "reveal", **manager, "public_key": f"mdpk:{key.hex()}"}
    transfer = {"kind": "transaction", **manager, "amount": "5", "destination": f"tz5:{digest.hex()}"}
    branch = "11" * 32
    head = b"\x04" + digest + b"\x01\x02\x03\x04"
    written = {
        "reveal": (message(branch, [reveal]), b"\x6b" + head + b"\x04" + key + b"\x00"),
        "transaction": (message(branch, [transfer]), b"\x6c" + head + b"\x05\x00\x04" + digest + b"\x00"),
    }
    with running_host(config) as host:
        assert json.loads(host.ask("GET", f"/keys/{pkh}").body) == {"public_key": public_key}
        for name, (data, by_hand) in written.items():
            operations = (name,)
            assert data == b"\x03" + b"\x11" * 32 + by_hand
            signature = verified(public_key, data, host.sign(pkh, data, "?version=3").signature)
            # A client injects all but the last 64 bytes of it as one more operation, and those in the usual place.
            prefixed = data + b"\xff\x04" + signature[:-FRAGMENT_BYTES]
            assert len(prefixed) == len(data) + 2 + 2356
            assert parse_message(prefixed) == GenericMessage((*operations, "signature_prefix"))
            taken_apart = prefixed[-2356:] + signature[-FRAGMENT_BYTES:]
            verified(public_key, prefixed[: -2356 - 2], text_of(taken_apart))
        # Signed by no one.
        assert host.sign(pkh, prefixed).status == 403


def text_of(data: bytes) -> str:
    return encode_signature(Signature(KeyType.ML_DSA_44, data))


def test_the_same_message_gets_another_signature_each_time(tmp_path: Path, local: Enclave) -> None:
    config, pkh, public_key = with_key(tmp_path, local)
    with running_host(config) as host:
        signatures = {verified(public_key, transaction(1), host.sign(pkh, transaction(1)).signature) for _ in range(5)}
    assert len(signatures) == 5


@pytest.mark.parametrize(
    "policy", [BAKER, POLICY, "", "{allow_proof_of_possession: true, allow: {generic: [transaction]}}"]
)
def test_it_never_bakes_and_proves_nothing(tmp_path: Path, local: Enclave, policy: str) -> None:
    config, pkh, _ = with_key(tmp_path, local, policy)
    with running_host(config) as host:
        for data in (block(5), preattestation(5), attestation(5)):
            answer = host.sign(pkh, data)
            assert answer.status == 403
            assert "is not allowed" in answer.message
        proof = host.ask("GET", f"/bls_prove_possession/{pkh}")
        assert (proof.status, proof.message) == (400, "proof of possession is not supported: only tz4 keys have it")


def test_versions(tmp_path: Path, local: Enclave) -> None:
    config, pkh, public_key = with_key(tmp_path, local)
    with running_host(config) as host:
        for query in ("", "?version=3", "?version=", "?version=4"):
            verified(public_key, transaction(1), host.sign(pkh, transaction(1), query).signature)
        for version in (0, 1, 2):
            answer = host.sign(pkh, transaction(1), f"?version={version}")
            assert (answer.status, answer.message) == (
                400,
                f"version {version} cannot be signed by a tz5 key: it has only the latest one: leave `version` out",
            )


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
@pytest.mark.parametrize("password", [None, b"word"])
def test_a_seed_is_imported(tmp_path: Path, local: Enclave, encoding: Encoding, password: bytes | None) -> None:
    key = PublicKey(KeyType.ML_DSA_44, ML_DSA_44.key_derive(SEED)[0])
    pkh = public_key_hash(key)
    config = write_config(tmp_path, local.port, {pkh: POLICY}, more=[ON])
    secret = tmp_path / "secret"
    secret.write_bytes(pkcs8(password=password, encoding=encoding))
    options = [] if password is None else ["--password", password.decode()]
    for outcome in ("imported", "already stored"):
        done = run_command("import", "-c", config, "-v", VAULT, "-f", secret, "--json", *options)
        key_of = {"public_key_hash": pkh, "vault": VAULT, "outcome": outcome}
        assert json.loads(done.stdout) == {"keys": [key_of]}, done.stderr
    assert own_hashes(config) == [pkh]
    with running_host(config) as host:
        verified(encode_public_key(key), transaction(1), host.sign(pkh, transaction(1)).signature)


def test_it_signs_beside_others(tmp_path: Path, local: Enclave) -> None:
    import_keys(write_config(tmp_path, local.port, more=[ON]), TZ1)
    config, pkh, public_key = with_key(tmp_path, local, others=(TZ1.pkh,))
    with running_host(config) as host:
        assert host.health()[0] == 200
        assert json.loads(host.ask("GET", "/known_keys").body) == {"known_keys": [pkh, TZ1.pkh]}
        verified(public_key, transaction(1), host.sign(pkh, transaction(1)).signature)
        assert host.sign(TZ1.pkh, attestation(5)).signature.startswith("edsig")


def authentication_of(host: Host, pkh: str, data: bytes) -> str:
    signing_key = ML_DSA_44.key_derive(SEED)[1]
    asked = blake2b(b"\x04\x01" + tagged(pkh) + data, digest_size=32).digest()
    made = ML_DSA_44.sign(signing_key, asked, ctx=b"")
    return f"?authentication={text_of(made)}"


def test_a_client_may_sign_its_requests_with_one(tmp_path: Path, local: Enclave) -> None:
    client = encode_public_key(PublicKey(KeyType.ML_DSA_44, ML_DSA_44.key_derive(SEED)[0]))
    config = write_config(tmp_path, local.port, {TZ1.pkh: BAKER})
    config.write_text(config.read_text().replace("server: {", f"server: {{authorized_keys: [{client}], ", 1))
    import_keys(config, TZ1)
    with running_host(config) as host:
        data = transaction(1)
        assert host.sign(TZ1.pkh, data, authentication_of(host, TZ1.pkh, data)).signature.startswith("edsig")
        assert host.sign(TZ1.pkh, data, authentication_of(host, TZ1.pkh, transaction(2))).status == 403
        assert host.sign(TZ1.pkh, data).status == 401


def test_tee_signer_has_no_such_keys_and_generate_says_so(tmp_path: Path) -> None:
    secret = tmp_path / "secret.pem"
    secret.write_bytes(pkcs8())
    with tee_signer() as peer:
        config = write_config(tmp_path, peer.port, more=[ON])
        for command in (["generate", "-t", "tz5"], ["import", "-f", str(secret)]):
            text = refused(run_command(*command, "-c", config, "-v", VAULT), 1)
            assert "unknown variant `MlDsa44`" in text
            assert text.endswith(
                "tee-signer, and enclave-signer before 0.2.0, have no tz5 keys: use an enclave that has"
            )
        assert not own_file(config).exists()
        assert run_command("generate", "-c", config, "-v", VAULT).code == 0


def test_the_doctor_looks_at_its_file_too(tmp_path: Path, local: Enclave) -> None:
    def told(state: str) -> list[str]:
        checks = json.loads(run_command("doctor", "-c", config, "--json").stdout)["checks"]
        return [check["text"] for check in checks if check["state"] == state and check["check"].startswith("key file")]

    config, _, _ = with_key(tmp_path, local)
    own = f"{own_file(config)}: those that Signatory does not know"
    assert told("ok") == [f"{key_file(config)} is not there yet: 1 key beside it", own]
    import_keys(config, TZ1)
    assert told("ok") == [f"{key_file(config)}: 2 keys", own]
    own_file(config).chmod(0o644)
    assert told("warning") == [f"{own_file(config)} can be read by others: chmod go-rwx {own_file(config)}"]
