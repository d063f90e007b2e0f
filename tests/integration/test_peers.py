"""Each of our programs with the other side as it is in the field: tee-signer for our host, Signatory for our enclave."""

import asyncio
import base64
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cbor2
import pytest

from enclave_signer.curves import curve
from enclave_signer.protocol.messages import KeyType, SigningVersion
from enclave_signer.tezos import parse_public_key, parse_secret_key, parse_signature
from host_backend.addresses import Address
from host_backend.enclave.endpoint import Endpoint
from host_backend.errors import EnclaveRefused, MalformedRequest
from host_backend.keystore.file import FileKeyStore
from host_backend.vault.vault import Vault, open_vault
from tests.doubles import oracles
from tests.doubles.host_process import BAKER, import_keys, key_file, running_host, write_config
from tests.doubles.known_keys import FOUR, KEYS, SIGNATORY, attestation, block, transaction
from tests.doubles.processes import Enclave
from tests.doubles.signatory_client import Cancelled, SignatoryClient, VaultError
from tests.doubles.tee_signer import TeeSigner, tee_signer

TZ1, TZ2, TZ3, TZ4 = FOUR
BLOBS = [key.clear_blob for key in FOUR]
VERSIONS = [SigningVersion.V1, SigningVersion.V2, SigningVersion.LATEST]


@pytest.fixture
def peer() -> Iterator[TeeSigner]:
    with tee_signer() as running:
        yield running


def test_our_vault_imports_generates_signs_and_proves_with_tee_signer(peer: TeeSigner, tmp_path: Path) -> None:
    async def use(vault: Vault) -> None:
        for key in vault.keys:
            for version in VERSIONS:
                # Verified by the vault against the message and the key.
                await vault.sign(key.pkh, transaction(1), version)
        await vault.prove_possession(TZ4.pkh)

    async def main() -> None:
        store = FileKeyStore(tmp_path / "keys.json")
        async with open_vault(store, Endpoint(Address("127.0.0.1", peer.port))) as vault:
            imported = [(await vault.provisioning.import_key(parse_secret_key(key.secret)))[0] for key in FOUR]
            assert [key.pkh for key in imported] == [key.pkh for key in FOUR]
            generated = [
                await vault.provisioning.generate(key_type) for key_type in KeyType if not key_type.facts.experimental
            ]
            await use(vault)
        async with open_vault(store, Endpoint(Address("127.0.0.1", peer.port))) as vault:
            with pytest.raises(
                EnclaveRefused, match=r"tee-signer proves no other key, enclave-signer does since 0\.2$"
            ):
                await vault.prove_possession(TZ4.pkh, parse_public_key(KEYS["tz4pop"].public_key))
            assert vault.link.client is not None
        # A second start: the blobs open again.
        async with open_vault(store, Endpoint(Address("127.0.0.1", peer.port))) as vault:
            assert [key.pkh for key in vault.keys] == [key.pkh for key in (*imported, *generated)]
            assert not vault.quarantined
            await use(vault)

    asyncio.run(main())


def test_what_tee_signer_refuses_is_told_with_its_cause(peer: TeeSigner, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_vault(FileKeyStore(tmp_path / "keys.json"), Endpoint(Address("127.0.0.1", peer.port))) as vault:
            await vault.provisioning.import_key(parse_secret_key(TZ1.secret))
            await vault.sign(TZ1.pkh, b"\3" * 4096)
            with pytest.raises(EnclaveRefused, match="invalid type: bytes, expected bytes"):
                await vault.sign(TZ1.pkh, b"\3" * 4097)
            await vault.sign(TZ1.pkh, b"\3")

    asyncio.run(main())


def test_version_0_of_a_tz4_key_never_reaches_tee_signer(peer: TeeSigner, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_vault(FileKeyStore(tmp_path / "keys.json"), Endpoint(Address("127.0.0.1", peer.port))) as vault:
            for key in FOUR:
                await vault.provisioning.import_key(parse_secret_key(key.secret))
            with pytest.raises(MalformedRequest, match="version 0"):
                await vault.sign(TZ4.pkh, b"\3", SigningVersion.V0)
            assert "Sign" not in peer.names()
            # The other curves have a version 0.
            await vault.sign(TZ1.pkh, b"\3", SigningVersion.V0)

    asyncio.run(main())


def test_over_http_version_0_is_400_and_costs_nobody_anything(peer: TeeSigner, tmp_path: Path) -> None:
    config = write_config(tmp_path, peer.port, {key.pkh: BAKER for key in FOUR})
    import_keys(config, *FOUR)
    with running_host(config) as host:
        connections = peer.connections
        signed = peer.names().count("Sign")
        for level in range(1, 4):
            assert host.sign(TZ4.pkh, attestation(level), "?version=0").status == 400
            assert peer.names().count("Sign") == signed
            for key in FOUR:
                # Its mark has not moved: the right is still there for another message.
                answer = host.sign(key.pkh, attestation(level, payload=b"\xaa" * 32), "?version=2").signature
                verifying = curve(key.key_type).parse_public_key(parse_public_key(key.public_key).data)
                signature = parse_signature(answer, key.key_type)
                verifying.verify(signature, attestation(level, payload=b"\xaa" * 32), SigningVersion.V2)
            signed = peer.names().count("Sign")
        assert peer.connections == connections


def test_a_new_key_delays_no_signature_however_slow_the_sealer_of_tee_signer(peer: TeeSigner, tmp_path: Path) -> None:
    """It remembers nothing and answers in order: a signature behind one opening would wait for the sealer."""
    config = write_config(tmp_path, peer.port, {key.pkh: BAKER for key in FOUR})
    import_keys(config, *FOUR[:3])
    with running_host(config) as host:

        def sign_and_look() -> None:
            for key in FOUR[:3]:
                for number in range(10):
                    oracles.verify(key, host.sign(key.pkh, transaction(number)).signature, transaction(number))
            status, health = host.health()
            assert (status, health["ready"]) == (200, True)
            # The new one is named until it is in service.
            assert health.get("degraded", []) in ([], [f"{TZ4.pkh}: not in service yet"])

        opened = peer.names().count("Import")
        connections = peer.connections
        peer.hold_sealer()
        stored = json.loads(key_file(config).read_text())
        stored.append({"public_key_hash": TZ4.pkh, "encrypted_private_key": base64.b64encode(TZ4.clear_blob).decode()})
        key_file(config).write_text(json.dumps(stored))
        # First it is tried out,
        peer.wait_for("Import", opened + 1)
        sign_and_look()
        # then opened on a new connection with all others, one after another.
        for place in range(2, 6):
            peer.release_sealer(1)
            peer.wait_for("Import", opened + place)
            sign_and_look()
        peer.release_sealer()
        oracles.verify(TZ4, host.sign(TZ4.pkh, transaction(1)).signature, transaction(1))
        sign_and_look()
        assert peer.connections == connections + 2
        assert "no link to the enclave" not in host.log


def test_a_client_that_does_ask_for_version_0_loses_tee_signer_and_not_us(peer: TeeSigner, enclave: Enclave) -> None:
    with SignatoryClient(peer.address, BLOBS) as client:
        with pytest.raises(VaultError, match="EOF"):
            client.sign(3, b"\3", 0)
        # Every key of the vault is lost, for good.
        for _ in range(3):
            with pytest.raises(VaultError):
                client.sign(0, b"\3")
    with SignatoryClient(enclave.address, BLOBS) as client:
        with pytest.raises(VaultError, match="version 0"):
            client.sign(3, b"\3", 0)
        client.sign(0, b"\3")


def test_the_client_sends_what_signatory_was_recorded_to_send(enclave: Enclave) -> None:
    recorded = {
        frame["name"]: frame for frame in SIGNATORY["enclave_rpc_frames"] if frame["direction"] == "host->enclave"
    }
    # The recorded blob is not one of this enclave's sealing.
    body = recorded["Import"]["body_hex"]
    with SignatoryClient(enclave.address) as client:
        client.import_unencrypted(
            "Ed25519", bytes.fromhex("cfe0c48fe7530d3aba4f5b3a9b33073251691a83fbc1ab248db31c42ec2b9703")
        )
        with pytest.raises(VaultError):
            client.call({"Import": cbor2.loads(bytes.fromhex(body))["Import"]})
        client.generate_and_import("Ed25519")
        client.sign(0, bytes.fromhex(recorded["Sign"]["decoded"]["Sign"]["message"].strip("h'")))
        with pytest.raises(VaultError):
            client.prove_possession(0)
        names = ["Initialize", "ImportUnencrypted", "Import", "GenerateAndImport", "Sign", "ProvePossession"]
        assert sorted(names) == sorted(recorded)
        assert [sent.hex() for sent in client.sent] == [recorded[name]["body_hex"] for name in names]


def test_signatory_works_with_our_enclave(enclave: Enclave) -> None:
    with SignatoryClient(enclave.address, BLOBS) as client:
        keys: list[Any] = client.keys
        assert [key["handle"] for key in keys] == [0, 1, 2, 3]
        for handle, (key, blob) in enumerate(zip(FOUR, BLOBS, strict=True)):
            for version in (1, 2):
                assert isinstance(client.sign(handle, transaction(1), version), dict)
            # Without a version, which tee-signer refuses.
            assert client.sign_with(blob, transaction(1)) == client.sign(handle, transaction(1), 2)
            assert keys[handle]["public_key"] == {key.key_type.value: key.public_key_bytes}
        client.prove_possession(3)
        with pytest.raises(VaultError, match=r"RPC Error: proof of possession is not supported for Ed25519"):
            client.prove_possession(0)
        # The outermost text is all that it sees: it must say what happened.
        with pytest.raises(VaultError, match=r"RPC Error: invalid handle: 9 is not open on this connection"):
            client.sign(9, transaction(1))


def test_signatory_is_kept_from_signing_twice(enclave: Enclave) -> None:
    with ExitStack() as stack:
        # Two instances, each with its own watermarks; the second has just been restored from a backup.
        one, two = (stack.enter_context(SignatoryClient(enclave.address, BLOBS)) for _ in range(2))
        signed = one.sign(1, block(7, payload=b"\xaa" * 32))
        assert two.sign(1, block(7, payload=b"\xaa" * 32)) == signed
        with pytest.raises(VaultError, match=r"RPC Error: guard refused: block of tz2"):
            two.sign(1, block(7, payload=b"\xbb" * 32))
        two.sign(1, block(8, payload=b"\xbb" * 32))


def test_signatory_shifts_its_own_answers_after_a_cancelled_call(enclave: Enclave) -> None:
    """We answer every call in its place; that the next caller gets the answer is the client's own doing."""
    with SignatoryClient(enclave.address, BLOBS) as client:
        first, second, third = (client.sign(0, transaction(number)) for number in (1, 2, 3))
        with pytest.raises(Cancelled):
            client.sign(0, transaction(1), cancel=True)
        assert client.sign(0, transaction(2)) == first
        assert client.sign(0, transaction(3)) == second
        with pytest.raises(Cancelled):
            client.sign(0, attestation(50), cancel=True)
        assert client.sign(0, transaction(1)) == third
        # What was left behind is signed, and the guard knows.
        with (
            SignatoryClient(enclave.address, BLOBS) as other,
            pytest.raises(VaultError, match="guard refused: attestation"),
        ):
            other.sign(0, attestation(50, payload=b"\xcc" * 32))
