"""Applications at the enclave's Unix socket, by the client that is made for them: what the rules let them do, and no more."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from enclave_signer.client import Disconnected, LocalClient, Refused
from enclave_signer.curves import curve
from enclave_signer.protocol.errors import Family
from enclave_signer.protocol.messages import SigningVersion
from enclave_signer.tezos import parse_signature
from tests.doubles.host_process import BAKER, import_keys, running_host, write_config
from tests.doubles.known_keys import FOUR, KEYS, KnownKey, attestation
from tests.doubles.local_world import LocalEnclave, holding, rule, running_local, write_image
from tests.doubles.processes import PATIENCE_S, ROOT, kept
from tests.doubles.wire import WireClient

ME = f"uid:{os.geteuid()}"
TZ1, TZ2, TZ3, TZ4 = FOUR
APPLICATION = ("UseKey", "PublicKey", "Sign", "ProvePossession")
#: Writes a call of another process's connection.
WRITES = "import socket, sys; socket.socket(fileno=int(sys.argv[1])).sendall(bytes.fromhex(sys.argv[2]))"
SIGN = bytes.fromhex("00000024a1645369676ea36668616e646c6500676d65737361676541036776657273696f6e18ff")


@pytest.fixture(scope="module")
def enclave(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEnclave]:
    """A daemon whose one user, that of these tests, is host and application."""
    path = tmp_path_factory.mktemp("local") / "run" / "enclave.sock"
    with running_local(path, rule([ME], ["*"], ["*"])) as enclave:
        yield enclave


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEnclave]:
    """A daemon that lets its one client use one key, and import blobs of it."""
    path = tmp_path_factory.mktemp("narrow") / "run" / "enclave.sock"
    with running_local(path, rule([ME], [*APPLICATION, "Initialize", "Import"], [TZ1.pkh])) as enclave:
        yield enclave


@pytest.mark.parametrize("key", FOUR, ids=lambda key: key.name)
def test_an_application_signs_with_a_key_that_a_host_has_open(enclave: LocalEnclave, key: KnownKey) -> None:
    with holding(enclave.path, [key]), LocalClient(enclave.path, uid=os.geteuid()) as client:
        used = client.use_key(key.pkh)
        assert (used.pkh, used.public_key, used.ask_public_key()) == (key.pkh, key.public_key, key.public_key)
        signature = parse_signature(used.sign(b"\x05anything"), key.key_type)
        verifier = curve(key.key_type).parse_public_key(key.public_key_bytes)
        verifier.verify(signature, b"\x05anything", SigningVersion.LATEST)


def test_what_it_has_in_use_stays_open_after_the_host_has_left(enclave: LocalEnclave) -> None:
    with holding(enclave.path, [TZ4]), LocalClient(enclave.path) as client:
        key = client.use_key(TZ4.pkh)
    with pytest.raises(Disconnected):
        key.sign(b"\x05")
    with LocalClient(enclave.path) as client:
        assert client.use_key(TZ4.pkh).prove_possession().startswith("BLsig")


def test_a_key_that_is_not_open_may_be_there_later(enclave: LocalEnclave) -> None:
    alice = KEYS["alice"]
    with LocalClient(enclave.path) as client:
        with pytest.raises(Refused, match=f"^unavailable: '{alice.pkh}' is not open in this enclave") as refused:
            client.use_key(alice.pkh)
        assert refused.value.retriable
        with holding(enclave.path, [alice]):
            assert client.use_key(alice.pkh).pkh == alice.pkh


def test_the_guard_knows_applications_as_well(enclave: LocalEnclave) -> None:
    with holding(enclave.path, [TZ2]) as host, LocalClient(enclave.path) as client:
        key = client.use_key(TZ2.pkh)
        key.sign(attestation(77))
        answer = host.call({"Sign": {"handle": 0, "message": attestation(77, payload=b"\x33" * 32), "version": 2}})
        assert "guard refused" in str(answer)
        with pytest.raises(Refused, match=r"^guard refused: ") as refused:
            key.sign(attestation(76))
        assert refused.value.family is Family.GUARD_REFUSED
        assert not refused.value.retriable


def test_a_sealed_key_is_opened_by_who_has_it(narrow: LocalEnclave, enclave: LocalEnclave) -> None:
    with WireClient(enclave.path) as host:
        sealed = host.call({"ImportUnencrypted": {"Ed25519": TZ1.secret_bytes}})["Ok"]
        assert isinstance(sealed, dict)
        blob = sealed["encrypted_private_key"]
    with LocalClient(enclave.path) as client:
        assert client.open_key(blob, TZ1.pkh).sign(b"\x05").startswith("edsig")
        with pytest.raises(ValueError, match=f"the enclave gave the key {TZ1.pkh} for {TZ2.pkh}"):
            client.open_key(blob, TZ2.pkh)
    # The rules let its key pass, and the sealer does not: it is another enclave's blob.
    with LocalClient(narrow.path) as client, pytest.raises(Refused, match=r"this enclave may not open|KEK|sealed"):
        client.open_key(blob, TZ1.pkh)


def test_nothing_else_is_done_for_it(narrow: LocalEnclave, enclave: LocalEnclave) -> None:
    with WireClient(enclave.path) as host:
        sealed = host.call({"Generate": "Ed25519"})["Ok"]
        assert isinstance(sealed, dict)
    with WireClient(narrow.path) as client:

        def refusal(call: object) -> str:
            answer = client.call(call)
            assert "Err" in answer, answer
            return str(answer["Err"])

        for name, argument in {
            "Generate": "Ed25519",
            "GenerateAndImport": "Ed25519",
            "ImportUnencrypted": {"Ed25519": bytes(32)},
            "SignWith": {"encrypted_private_key": b"", "message": b""},
            "PublicKeyFrom": b"",
            "Reseal": {"encrypted_private_key": b"", "encryption_key_path": ""},
            "Attest": {"nonce": bytes(32), "purpose": "report"},
        }.items():
            assert f"not allowed: no rule lets this client make the call {name}'" in refusal({name: argument})
        assert f"make the call UseKey with '{TZ2.pkh}'" in refusal({"UseKey": TZ2.pkh})
        assert "make the call Import with 'tz1" in refusal({"Import": sealed["encrypted_private_key"]})
        assert "Import does not name its key beforehand" in refusal({"Import": b"legacy"})
        assert "blob corrupt" in refusal({"Import": b"TKSB"})
        assert "invalid handle" in refusal({"Sign": {"handle": 0, "message": b""}})
    narrow.wait_for("not allowed: no rule lets this client make the call Generate")


def test_before_it_has_a_key_it_is_uninitialized(narrow: LocalEnclave) -> None:
    with WireClient(narrow.path, initialize=False) as client:
        for call in ({"PublicKey": 0}, {"Import": b""}):
            assert client.call(call) == {"Err": {"message": "uninitialized", "source": None}}


def test_calls_may_be_sent_before_the_answers(enclave: LocalEnclave) -> None:
    with holding(enclave.path, [TZ1]), WireClient(enclave.path, initialize=False) as client:
        calls = [{"UseKey": TZ1.pkh}, {"PublicKey": 0}, {"Import": b""}, {"Initialize": {}}, {"UseKey": TZ1.pkh}]
        for call in [*calls, {"PublicKey": 1}]:
            client.send(call)
        key = {"Ed25519": TZ1.public_key_bytes}
        uninitialized = {"Err": {"message": "uninitialized", "source": None}}
        expected = [{"Ok": {"public_key": key, "handle": 0}}, {"Ok": key}, uninitialized, {"Ok": None}]
        expected += [{"Ok": {"public_key": key, "handle": 1}}, {"Ok": key}]
        assert [client.receive() for _ in expected] == expected


def test_another_process_that_was_given_the_connection_ends_it(enclave: LocalEnclave) -> None:
    with holding(enclave.path, [TZ1]), LocalClient(enclave.path) as client:
        key = client.use_key(TZ1.pkh)
        number = client._socket.fileno()
        command = [sys.executable, "-c", WRITES, str(number), SIGN.hex()]
        with subprocess.Popen(command, pass_fds=[number]) as child:
            assert child.wait(PATIENCE_S) == 0
        with pytest.raises(Disconnected, match="the connection to the enclave has ended"):
            key.sign(b"\x05")
        enclave.wait_for(f"connections ended.*another process writes.*pid={child.pid}")


def test_nothing_is_given_to_another_user_s_enclave(enclave: LocalEnclave) -> None:
    other = os.geteuid() + 1
    with pytest.raises(Disconnected, match=rf"a process of the user {os.geteuid()} listens at .*, not of {other}"):
        LocalClient(enclave.path, uid=other)


def test_a_host_and_an_application_at_one_enclave(tmp_path: Path) -> None:
    path, alice = tmp_path / "run" / "enclave.sock", KEYS["alice"]
    config = write_config(tmp_path, path, {alice.pkh: BAKER})
    with running_local(path, rule([ME], ["*"], ["*"])):
        import_keys(config, alice)
        with running_host(config) as host, LocalClient(path) as client:
            assert host.sign(alice.pkh, attestation(1)).signature
            key = client.use_key(alice.pkh)
            assert key.sign(b"\x05").startswith(host.sign(alice.pkh, attestation(2)).signature[:4])
            with pytest.raises(Refused, match=r"^guard refused: "):
                key.sign(attestation(1))


def test_where_there_is_no_enclave(tmp_path: Path) -> None:
    with pytest.raises(Disconnected, match=r"no enclave can be reached at .*: No such file"):
        LocalClient(tmp_path / "none")


def test_without_rules_no_key_of_another_is_used(tmp_path: Path) -> None:
    image = write_image(tmp_path / "run" / "s", "")
    image.write_text(image.read_text().partition("[unix_socket]")[0])
    enclave = LocalEnclave(tmp_path / "run" / "s", image)
    text = r"^not allowed: only a rule of the image lets a client use a key"
    with (
        kept(enclave),
        holding(enclave.path, [TZ1]),
        LocalClient(enclave.path) as client,
        pytest.raises(Refused, match=text),
    ):
        client.use_key(TZ1.pkh)


def test_a_folder_that_is_too_open_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "run" / "s"
    path.parent.mkdir()
    path.parent.chmod(0o755)
    image = write_image(path, rule([ME], ["*"], ["*"]))
    command = [sys.executable, "-m", "enclave_signer", "--image", str(image)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert ended.returncode == 2
    text = f"enclave-signer: cannot listen on unix:{path}: {path.parent} has the mode 0755, looser than 0700"
    assert ended.stderr.splitlines()[-1].startswith(text)
    assert not (tmp_path / "sealing.key").exists()
