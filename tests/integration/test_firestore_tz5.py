"""Keys of ML-DSA-44 whose host keeps its keys in Firestore: in a collection that Signatory does not read."""

import json
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from dilithium_py.ml_dsa import ML_DSA_44

from enclave_signer.protocol.messages import KeyType, PublicKey
from enclave_signer.tezos import encode_public_key, parse_public_key, parse_signature, public_key_hash
from tests.doubles.google.firestore import running_firestore
from tests.doubles.google.site import IN_FIRESTORE, Site
from tests.doubles.host_process import VAULT, Host
from tests.doubles.known_keys import FOUR, attestation, transaction
from tests.doubles.processes import Enclave

ALICE, *_ = FOUR
#: Of a key that is imported.
SEED = bytes(range(32))
SECOND_KEY = PublicKey(KeyType.ML_DSA_44, ML_DSA_44.key_derive(SEED)[0])
SECOND = public_key_hash(SECOND_KEY)
ON = "experimental: {tz5: true}\n"


@pytest.fixture
def site(local: Enclave, tmp_path: Path) -> Iterator[Site]:
    with running_firestore() as double:
        site = Site(double, tmp_path, local)
        configure(site)
        yield site


def configure(site: Site, *tz5: str) -> None:
    site.configure(IN_FIRESTORE, ALICE.pkh, *tz5)
    site.config.write_text(site.config.read_text() + ON)


def generated(site: Site) -> tuple[str, str]:
    """Make a tz5 key; return its hash and its public key."""
    (found,) = json.loads(site.command("generate", "-v", VAULT, "-t", "tz5", "--json"))["keys"]
    return found["public_key_hash"], found["public_key"]


def keys_in(site: Site, collection: str) -> set[str]:
    return {name for name in site.double.names() if name.startswith(f"{collection}/")}


def damage(site: Site, pkh: str) -> None:
    path = f"encrypted_keys_tz5/{pkh}"
    blob = site.double.names()[path].fields["value"].bytes_value
    site.double.write(path, pkh=pkh, value=blob[:-1] + bytes([blob[-1] ^ 1]))


def check_signs(host: Host, pkh: str, public_key: str) -> None:
    signature = parse_signature(host.sign(pkh, transaction(1)).signature, KeyType.ML_DSA_44).data
    digest = blake2b(transaction(1), digest_size=32).digest()
    assert ML_DSA_44.verify(parse_public_key(public_key).data, digest, signature, ctx=b"")


def test_keys_are_kept_apart_and_served_together_and_a_damaged_one_costs_no_other(site: Site, tmp_path: Path) -> None:
    pem = tmp_path / "second.pem"
    key = MLDSA44PrivateKey.from_seed_bytes(SEED)
    pem.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    site.command("import", "--vault", VAULT, ALICE.secret)
    pkh, public_key = generated(site)
    assert keys_in(site, "encrypted_keys") == {f"encrypted_keys/{ALICE.pkh}"}
    assert keys_in(site, "encrypted_keys_tz5") == {f"encrypted_keys_tz5/{pkh}"}
    listed = site.command("list")
    assert [listed.count(each) for each in (ALICE.pkh, pkh)] == [1, 1]
    configure(site, pkh, SECOND)
    with site.running() as host:
        check_signs(host, pkh, public_key)
        assert host.sign(ALICE.pkh, attestation(5)).status == 200
        # What others add to it is seen.
        site.command("import", "--vault", VAULT, "--from", str(pem))
        host.wait_for(f"key ready.*{SECOND}")
        check_signs(host, SECOND, encode_public_key(SECOND_KEY))
        assert host.health()[0] == 200
        host.stop()
        assert "Traceback" not in host.log
    damage(site, SECOND)
    with site.running() as host:
        host.wait_for(f"key out of service: .*{SECOND}")
        assert host.sign(SECOND, transaction(1)).status == 502
        check_signs(host, pkh, public_key)
        assert host.sign(ALICE.pkh, attestation(6)).status == 200


def test_switched_off_its_collection_stays(site: Site) -> None:
    site.command("import", "--vault", VAULT, ALICE.secret)
    pkh, _ = generated(site)
    site.configure(IN_FIRESTORE, ALICE.pkh)
    assert pkh not in site.command("list")
    assert keys_in(site, "encrypted_keys_tz5") == {f"encrypted_keys_tz5/{pkh}"}
