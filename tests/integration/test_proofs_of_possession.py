"""Proofs of possession as Octez asks for them: unsigned, and for the common key of an account of several."""

import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from eth_typing import BLSPubkey, BLSSignature
from py_ecc.bls.ciphersuites import G2ProofOfPossession

from enclave_signer.protocol.messages import KeyType, PublicKey
from enclave_signer.tezos import encode_public_key, parse_signature
from host_backend.authentication import authentication_bytes
from tests.doubles.host_process import Host, import_keys, running_host, write_config
from tests.doubles.known_keys import KEYS, SIGNATORY, transaction
from tests.doubles.octez_client import OctezClient, signature_by
from tests.doubles.processes import PATIENCE_S, running_local_enclave

AUTH = KEYS["auth"]
#: Two participants of one account; and a key that wants its requests for proofs signed.
ONE, TWO, CLOSED = KEYS["tz4alias"], KEYS["tz4pop"], KEYS["unit_test_bls"]
COMMON_POINT = G2ProofOfPossession._AggregatePKs([BLSPubkey(key.public_key_bytes) for key in (ONE, TWO)])
COMMON = encode_public_key(PublicKey(KeyType.BLS, bytes(COMMON_POINT)))
PROOFS = {item["key"]: item["bls_prove_possession"] for item in SIGNATORY["proofs_of_possession"]}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host that wants requests signed, but for proofs of two keys."""
    folder = tmp_path_factory.mktemp("proofs")
    proofs = f"{{unsigned: true, others: [{COMMON}]}}"
    policies = {
        ONE.pkh: f"{{allow: {{generic: [transaction]}}, allow_proof_of_possession: {proofs}}}",
        TWO.pkh: "{allow_proof_of_possession: {unsigned: true, others: any}}",
        CLOSED.pkh: f"{{allow_proof_of_possession: {{others: [{COMMON}]}}}}",
    }
    with running_local_enclave(folder / "sealing.key") as enclave:
        config = write_config(folder, enclave.port, policies)
        text = config.read_text().replace("utility_address", f"authorized_keys: [{AUTH.public_key}], utility_address")
        config.write_text(text)
        import_keys(config, ONE, TWO, CLOSED)
        with running_host(config) as running:
            yield running
            assert running.stop() == 0
            assert "Traceback" not in running.log


def proof(host: Host, pkh: str, **query: str) -> tuple[int, str]:
    """Ask as stock Octez does, which signs no such request."""
    answer = OctezClient(host.address).ask("GET", f"/bls_prove_possession/{pkh}", **query)
    text = answer.body.decode() if answer.status == 200 else answer.message
    return answer.status, text.removeprefix('{"bls_prove_possession":"').removesuffix('"}\n')


def test_stock_octez_has_possession_proved(host: Host) -> None:
    assert proof(host, TWO.pkh) == (200, PROOFS[TWO.name])
    assert proof(host, TWO.pkh, bls_pk=TWO.public_key) == (200, PROOFS[TWO.name])
    assert proof(host, CLOSED.pkh) == (401, "missing authentication signature field")
    # The signer is still checked, and nothing else is to be had unsigned.
    assert proof(host, TWO.pkh, authentication="nonsense")[0] == 400
    assert OctezClient(host.address).ask("POST", f"/keys/{ONE.pkh}", f'"{transaction(1).hex()}"').status == 401


def test_a_page_in_a_browser_has_nothing_proved(host: Host) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{host.port}/bls_prove_possession/{TWO.pkh}")
    request.add_header("Origin", "https://example.com")
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(request, timeout=PATIENCE_S)
    with refusal.value as answer:
        assert answer.code == 403


def test_two_participants_prove_possession_of_their_common_key(host: Host) -> None:
    proofs = []
    for key in (ONE, TWO):
        status, text = proof(host, key.pkh, bls_pk=COMMON)
        assert status == 200
        proofs.append(BLSSignature(parse_signature(text).data))
    together = G2ProofOfPossession.Aggregate(proofs)
    assert G2ProofOfPossession.PopVerify(COMMON_POINT, together)
    host.wait_for(rf"Possession proved successfully.*pkh={ONE.pkh}.*proof_for={COMMON}.*source=\"?127\.0\.0\.1:\d+")


def test_other_keys_must_be_named_and_be_keys(host: Host) -> None:
    status, text = proof(host, ONE.pkh, bls_pk=TWO.public_key)
    assert (status, text.partition(":")[0]) == (400, "proof of possession for another key is not allowed")
    infinity = encode_public_key(PublicKey(KeyType.BLS, bytes([0xC0]) + bytes(47)))
    status, text = proof(host, TWO.pkh, bls_pk=infinity)
    assert (status, text.partition(":")[0]) == (400, "no proof of possession for that key")
    client = OctezClient(host.address, [AUTH])
    assert client.prove_possession(CLOSED.pkh, COMMON) != client.prove_possession(TWO.pkh, COMMON)


def test_a_signature_for_the_own_proof_gets_no_other_proof(host: Host) -> None:
    signatory = signature_by(AUTH, authentication_bytes(CLOSED.pkh))
    octez = signature_by(AUTH, b"\x04\x04" + authentication_bytes(CLOSED.pkh)[2:])
    for authentication in (signatory, octez):
        assert proof(host, CLOSED.pkh, authentication=authentication)[0] == 200
        assert proof(host, CLOSED.pkh, authentication=authentication, bls_pk=COMMON)[0] == 403
    assert proof(host, CLOSED.pkh, authentication=signatory, bls_pk=CLOSED.public_key)[0] == 200
