"""What Octez does with a remote signer: imports, lists, authenticates, signs, proves possession."""

from collections.abc import Iterator

import pytest

from enclave_signer.curves import curve
from enclave_signer.protocol.messages import PrivateKey
from enclave_signer.tezos import encode_signature
from tests.doubles import oracles
from tests.doubles.host_process import BAKER, Host, import_keys, running_host, write_config
from tests.doubles.known_keys import FOUR, KEYS, PAYLOADS, SIGNATORY, attestation, block, preattestation, transaction
from tests.doubles.octez_client import NoAuthorizedKey, OctezClient, SignerRefused, signature_by, tagged
from tests.doubles.processes import running_local_enclave

TZ1, TZ2, TZ3, TZ4 = FOUR
#: tz4, and its policy allows a proof.
PROVER = KEYS["tz4pop"]
AUTH = KEYS["auth"]
STRANGER = KEYS["bob"]
#: Sign requests, of every curve; the last one is not in the list of the restricted key.
AUTHORIZED = (AUTH, KEYS["alice"], *(KEYS[name] for name in ("bootstrap1", "bootstrap2")), TZ2, TZ3, PROVER)
RESTRICTED = KEYS["bootstrap4"]
PROVES = "{allow_proof_of_possession: true, allow: {generic: [transaction]}}"


@pytest.fixture(scope="module", params=["open", "authenticated", "unix open", "unix authenticated"])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, bool]]:
    folder = tmp_path_factory.mktemp("octez")
    unix, closed = "unix" in request.param, "authenticated" in request.param
    policies = {key.pkh: BAKER for key in FOUR} | {PROVER.pkh: PROVES}
    if closed:
        policies[RESTRICTED.pkh] = f"{{allow: {{generic: [transaction]}}, authorized_keys: [{AUTH.public_key}]}}"
    with running_local_enclave(folder / "sealing.key") as enclave:
        config = write_config(folder, enclave.port, policies)
        if closed:
            keys = ", ".join(key.public_key for key in AUTHORIZED)
            text = config.read_text().replace("utility_address", f"authorized_keys: [{keys}], utility_address")
            config.write_text(text)
        if unix:
            config.write_text(
                config.read_text().replace("{address: '127.0.0.1:0'", f"{{address: 'unix:{folder}/socket'")
            )
        import_keys(config, *FOUR, PROVER, RESTRICTED)
        with running_host(config) as running:
            yield running, closed
            assert running.stop() == 0
            assert "Traceback" not in running.log


def clients(host: tuple[Host, bool]) -> Iterator[OctezClient]:
    running, closed = host
    yield OctezClient(running.address, [AUTH])
    if closed:
        for key in AUTHORIZED[1:]:
            yield OctezClient(running.address, [key])
    else:
        yield OctezClient(running.address)


def test_imports_and_lists(host: tuple[Host, bool]) -> None:
    client = OctezClient(host[0].address)
    for key in (*FOUR, PROVER):
        assert client.import_key(key.pkh) == key.public_key
    known = client.list_known_keys()
    assert known[:5] == [key.pkh for key in (*FOUR, PROVER)]
    assert client.ask("GET", "/mode").status == 200


def test_signs(host: tuple[Host, bool]) -> None:
    for number, client in enumerate(clients(host), start=1):
        for key in (TZ1, TZ2, TZ3):
            for message in (block(number), preattestation(number), attestation(number), transaction(number)):
                oracles.verify(key, client.sign(key.pkh, message), message)


@pytest.mark.parametrize("version", [1, 2])
def test_signs_both_versions_for_tz4(host: tuple[Host, bool], version: int) -> None:
    message = PAYLOADS["policy_generic"]
    recorded = {
        item["signature"]
        for item in SIGNATORY["signatures"]
        if (item["key"], item["payload"], item.get("version")) == (TZ4.name, "policy_generic", version)
    }
    for client in clients(host):
        assert {client.sign(TZ4.pkh, message, version)} == recorded


@pytest.mark.parametrize("bound", [False, True])
def test_proves_possession(host: tuple[Host, bool], bound: bool) -> None:
    (recorded,) = (
        item["bls_prove_possession"] for item in SIGNATORY["proofs_of_possession"] if item["key"] == PROVER.name
    )
    for client in clients(host):
        assert client.prove_possession(PROVER.pkh, PROVER.public_key if bound else None) == recorded


def refusal(client: OctezClient, pkh: str, bls_pk: str | None = None) -> tuple[int, str]:
    with pytest.raises(SignerRefused) as refused:
        client.prove_possession(pkh, bls_pk)
    return refused.value.answer.status, refused.value.answer.message


def test_proofs_that_are_refused(host: tuple[Host, bool]) -> None:
    client = OctezClient(host[0].address, [AUTH])
    assert refusal(client, TZ4.pkh) == (400, "proof of possession is not allowed")
    assert refusal(client, TZ1.pkh) == (400, "proof of possession is not supported: only tz4 keys have it")
    assert refusal(client, STRANGER.pkh) == (403, f"{STRANGER.pkh} is not listed in config")
    status, text = refusal(client, PROVER.pkh, TZ4.public_key)
    assert (status, text.partition(":")[0]) == (400, "proof of possession for another key is not allowed")
    for wrong in (TZ1.public_key, "nonsense"):
        answer = client.ask("GET", f"/bls_prove_possession/{PROVER.pkh}", bls_pk=wrong)
        assert (answer.status, answer.message.partition(":")[0]) == (400, "bls_pk")
    assert client.ask("GET", "/bls_prove_possession/nonsense").status == 400
    assert client.ask("POST", f"/bls_prove_possession/{PROVER.pkh}").status == 405


def test_authentication(host: tuple[Host, bool]) -> None:
    running, closed = host
    client = OctezClient(running.address)
    if not closed:
        assert client.ask("GET", "/authorized_keys").body == b"{}\n"
        return
    hashes = ",".join(f'"{key.pkh}"' for key in AUTHORIZED)
    assert client.ask("GET", "/authorized_keys").body == b'{"authorized_keys":[%s]}\n' % hashes.encode()
    with pytest.raises(NoAuthorizedKey):
        OctezClient(running.address, [STRANGER]).sign(TZ1.pkh, transaction(1))

    message = transaction(7)
    signed = b"\x04\x01" + tagged(TZ1.pkh) + message

    def ask(**query: str) -> tuple[int, str]:
        answer = client.ask("POST", f"/keys/{TZ1.pkh}", f'"{message.hex()}"', **query)
        return answer.status, answer.message if answer.status != 200 else answer.signature

    wrong = (403, "invalid authentication signature")
    assert ask() == (401, "missing authentication signature field")
    assert ask(authentication="") == (401, "missing authentication signature field")
    assert ask(authentication="x")[0] == 400
    assert ask(authentication=TZ1.pkh)[0] == 400
    assert ask(authentication=signature_by(STRANGER, signed)) == wrong
    assert ask(authentication=signature_by(AUTH, signed + b"\0")) == wrong
    assert ask(authentication=signature_by(AUTH, b"\x04\x01" + tagged(TZ2.pkh) + message)) == wrong
    assert ask(authentication=signature_by(AUTH, message)) == wrong
    for key in (AUTH, TZ2, TZ3, PROVER):
        status, signature = ask(authentication=signature_by(key, signed))
        assert status == 200
        oracles.verify(TZ1, signature, message)
        if key is not PROVER:
            # A replay gets what was given before, and nothing else.
            assert ask(authentication=signature_by(key, signed, generic=True)) == (200, signature)
    proof = {"authentication": signature_by(AUTH, b"\x04\x01" + tagged(PROVER.pkh))}
    assert client.ask("GET", f"/bls_prove_possession/{PROVER.pkh}", **proof).status == 200
    assert client.ask("GET", f"/bls_prove_possession/{PROVER.pkh}").status == 401


def test_a_key_for_some_of_the_clients(host: tuple[Host, bool]) -> None:
    running, closed = host
    if not closed:
        return
    message = bytes.fromhex(SIGNATORY["authentication_message"]["hex"])
    assert SIGNATORY["authentication_message"]["outcomes"][0]["status"] == 200
    signed = b"\x04\x01" + tagged(RESTRICTED.pkh) + message
    texts = {
        "signed by an allowed key": signature_by(AUTH, signed),
        None: None,
        "signed by a server-authorized key that the key policy does not list": signature_by(TZ2, signed),
        "signed by an unknown key": signature_by(STRANGER, signed),
    }
    client = OctezClient(running.address)
    for outcome in SIGNATORY["authentication_message"]["outcomes"]:
        text = texts.pop(outcome["authentication"])
        query = {} if text is None else {"authentication": text}
        answer = client.ask("POST", f"/keys/{RESTRICTED.pkh}", f'"{message.hex()}"', **query)
        assert answer.status == outcome["status"], answer.body
    assert not texts


@pytest.mark.parametrize("number", range(len(SIGNATORY["authentication"])))
def test_recorded_authentications(number: int) -> None:
    item = SIGNATORY["authentication"][number]
    message = PAYLOADS[item["payload"]] if item["payload"] else b""
    signed = b"\x04\x01" + tagged(item["target_pkh"]) + message
    assert signed.hex() == item["authenticated_bytes_hex"]
    assert signature_by(KEYS[item["auth_key"]], signed) == item["authentication"]


@pytest.mark.parametrize("item", SIGNATORY["proofs_of_possession"], ids=lambda item: str(item["key"]))
def test_recorded_proofs(item: dict[str, str]) -> None:
    key = KEYS[item["key"]]
    assert key.public_key_bytes.hex() == item["message_hex"]
    opened = curve(key.key_type).open(PrivateKey(key.key_type, key.secret_bytes[::-1]))
    assert encode_signature(opened.prove_possession()) == item["bls_prove_possession"]
