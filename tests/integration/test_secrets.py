"""No secret key is anywhere but inside the enclave: not in a log, a file, a command line, an environment, an error."""

import asyncio
import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from enclave_signer.curves import CurveError, curve
from enclave_signer.protocol import codec
from enclave_signer.protocol.errors import BadMessage
from enclave_signer.protocol.framing import encode_frame
from enclave_signer.protocol.messages import ImportUnencrypted, KeyType, PrivateKey
from enclave_signer.sealing.local import LocalSealer
from enclave_signer.tezos import Kind, TezosError, encode, parse_secret_key
from tests.doubles.host_process import (
    BAKER,
    VAULT,
    key_file,
    run_command,
    running_host,
    write_config,
)
from tests.doubles.known_keys import FOUR, KEYS, KnownKey, attestation, transaction
from tests.doubles.processes import running_local_enclave
from tests.doubles.quickstart_process import running_quickstart
from tests.doubles.secret_search import Secret, descendants, files_under, forms, search, seen_from_outside
from tests.doubles.starting import interpreters_of_their_own
from tests.doubles.wire import WireClient

SECRET_KINDS = {
    KeyType.ED25519: Kind["ED25519_PRIVATE_KEY"],
    KeyType.SECP256K1: Kind["SECP256K1_PRIVATE_KEY"],
    KeyType.P256: Kind["P256_PRIVATE_KEY"],
    KeyType.BLS: Kind["BLS_PRIVATE_KEY"],
}
IMPORTED = (*FOUR, KEYS["unit_test_bls"])
#: Never given to a program: looked for to see that the search itself finds nothing by chance.
UNUSED = KEYS["bootstrap5"]


def secret_of(name: str, key: PrivateKey) -> Secret:
    text = encode(SECRET_KINDS[key.key_type], key.data[::-1] if key.key_type is KeyType.BLS else key.data)
    return Secret(name, key.data, (text,))


def unsealed(config: Path, sealing_key: Path) -> list[Secret]:
    """Return the secrets of all stored keys, opened with the file that they are sealed by."""
    sealer = LocalSealer(sealing_key.read_bytes())
    secrets = []
    for entry in json.loads(key_file(config).read_text()):
        key = asyncio.run(sealer.unseal(base64.b64decode(entry["encrypted_private_key"]))).private_key
        secrets.append(secret_of(entry["public_key_hash"], key))
    return secrets


@dataclass
class Traces:
    """What both programs left behind, and the secrets that must not be in it."""

    places: dict[str, bytes]
    secrets: list[Secret]
    config: Path


@pytest.fixture(scope="module", autouse=True)
def _interpreters() -> Iterator[None]:
    """Others see the command line and the environment of each program."""
    with interpreters_of_their_own():
        yield


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Traces:
    """Do everything that has to do with keys, right and wrong, at the highest log level, and keep all that is seen of it."""
    folder = tmp_path_factory.mktemp("secrets")
    # The sealing key is the one file that may lie beside: it opens the blobs, so it is not searched.
    sealing_key = tmp_path_factory.mktemp("sealing") / "sealing.key"
    places: dict[str, bytes] = {}

    def command(*words: str, given: str = "") -> None:
        outcome = run_command("--log", "debug", "-c", config, *words, given=given)
        number = len(places)
        places[f"stdout {number} of {words[0]}"] = outcome.stdout.encode()
        places[f"stderr {number} of {words[0]}"] = outcome.stderr.encode()
        places[f"cmdline {number} of {words[0]}"] = outcome.cmdline
        places[f"environ {number} of {words[0]}"] = outcome.environ

    with running_local_enclave(sealing_key, "--log", "debug") as enclave:
        config = write_config(folder, enclave.port, {key.pkh: BAKER for key in FOUR})
        for kind in ("tz1", "tz2", "tz3", "tz4"):
            command("generate", "-v", VAULT, "-t", kind, "-n", "2")
        for key in IMPORTED:
            command("import", "--vault", VAULT, "-", given=key.secret)
        for key in FOUR:
            for wrong in (key.secret[:-1], key.secret + "1", key.secret[::-1], key.secret * 2, key.secret.swapcase()):
                command("import", "--vault", VAULT, "-", given=wrong)
        command("list")
        with WireClient(enclave.address) as client:
            misuse_the_wire(client)
        places |= seen_from_outside(enclave.pid)
        secrets = unsealed(config, sealing_key)
        with running_host(config, "--log", "debug") as host:
            for key in FOUR:
                for message in (transaction(1), attestation(1), attestation(1, payload=bytes(32)), b"\x03"):
                    answer = host.sign(key.pkh, message)
                    places[f"answer {len(places)}"] = answer.body + str(answer.headers).encode()
            for key in IMPORTED:
                places[f"answer {len(places)}"] = host.ask("POST", f"/keys/{key.pkh}", "nothing").body
            places |= seen_from_outside(host.pid)
            host.stop()
            places["log of the host"] = host.log.encode()
        enclave.stop()
        places["log of the enclave"] = enclave.log.encode()
    places |= files_under(folder)
    blobs = [base64.b64decode(entry["encrypted_private_key"]) for entry in json.loads(key_file(config).read_text())]
    places |= {f"blob {number}": blob for number, blob in enumerate(blobs)}
    return Traces(places, secrets, config)


def misuse_the_wire(client: WireClient) -> None:
    """Send keys in all the ways in which a peer might get it wrong."""
    for key in FOUR:
        data = parse_secret_key(key.secret).data
        name = key.key_type.value
        for argument in (
            {name: data + b"\0"},
            {name: data[:-1]},
            {name: list(data)[:-1]},
            {name: data.hex()},
            {"Ed25518": data},
            {name: data, "also": data},
            [name, data],
            data,
            {name: {"key": data}},
            {data: name},
        ):
            assert "Err" in client.call({"ImportUnencrypted": argument})
            assert "Err" in client.call({"Import": argument})
        assert "Err" in client.call({data.hex(): None})
        assert "Err" in client.call({"Sign": {"handle": 0, "message": b"", "version": 2, data.hex(): 1}})
        assert "Err" in client.call({"Import": data})
        assert "Err" in client.call({"SignWith": {"encrypted_private_key": data, "message": data, "version": 2}})


def test_everything_was_done(traces: Traces) -> None:
    """The search means something only when there was something to leave behind."""
    assert len(traces.secrets) == 8 + len(IMPORTED)
    imported = {key.pkh: parse_secret_key(key.secret).data for key in IMPORTED}
    for secret in traces.secrets[8:]:
        assert secret.data == imported[secret.name]
    host_log = traces.places["log of the host"]
    assert host_log.count(b"successfully") == 2 * len(FOUR)
    assert b"watermark validation failed" in host_log
    assert b"source=" in traces.places["log of the enclave"]
    assert sum(b"Error: " in content for place, content in traces.places.items() if place.startswith("stderr")) == 20
    names = {Path(place).name for place in traces.places}
    assert {"cmdline", "environ", "confidential_space_keys.json", "signatory.yaml", "watermark.marks"} <= names
    for pid_file in (place for place in traces.places if place.endswith("/cmdline")):
        assert b"python" in traces.places[pid_file]


def test_no_secret_is_found_anywhere(traces: Traces) -> None:
    assert search(traces.places, traces.secrets) == []


@pytest.mark.parametrize("form", sorted(forms(secret_of("unused", parse_secret_key(UNUSED.secret)))))
def test_the_search_finds_each_form_of_a_planted_secret(traces: Traces, form: str) -> None:
    unused = secret_of("unused", parse_secret_key(UNUSED.secret))
    assert search(traces.places, [unused]) == []
    planted = {place: content for place, content in traces.places.items() if place == "log of the host"}
    planted["log of the host"] += b"x" + forms(unused)[form] + b"x"
    assert f"log of the host: unused, {form}" in search(planted, [unused])


def test_the_search_finds_a_key_in_base64_of_something_larger() -> None:
    unused = secret_of("unused", parse_secret_key(UNUSED.secret))
    for before in range(12):
        encoded = base64.b64encode(bytes(before) + unused.data + b"after")
        assert search({"place": encoded}, [unused])


def test_the_search_finds_a_key_given_on_the_command_line(traces: Traces) -> None:
    """As the command itself warns."""
    outcome = run_command("import", "-c", traces.config, "--vault", "nosuch", UNUSED.secret)
    unused = secret_of("unused", parse_secret_key(UNUSED.secret))
    assert search({"cmdline": outcome.cmdline}, [unused])
    assert search({"stderr": outcome.stderr.encode(), "stdout": outcome.stdout.encode()}, [unused]) == []


def test_the_quick_start_leaves_no_secret(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with running_quickstart(folder) as quickstart:
        pids = [quickstart.pid, *descendants(quickstart.pid)]
        assert len(pids) == 3
        places = {name: content for pid in pids for name, content in seen_from_outside(pid).items()}
        assert quickstart.stop() == 0
    secrets = unsealed(folder / "signatory.yaml", folder / "sealing.key")
    assert len(secrets) == 1
    places["what it said"] = quickstart.said.encode()
    places |= {name: content for name, content in files_under(folder).items() if not name.endswith("sealing.key")}
    assert {"enclave_signer.log", "host_backend.log", "signatory.yaml"} <= {Path(name).name for name in places}
    assert search(places, secrets) == []


@pytest.mark.parametrize("key", FOUR, ids=lambda key: str(key.name))
def test_no_object_shows_the_secret_that_it_holds(key: KnownKey) -> None:
    private_key = parse_secret_key(key.secret)
    secret = secret_of("key", private_key)
    opened = curve(private_key.key_type).open(private_key)
    sealing = bytes(range(100, 132))
    sealer = LocalSealer(sealing)
    shown: list[object] = [private_key, ImportUnencrypted(private_key), opened, vars(sealer), sealer, [private_key]]
    shown += [{"key": private_key}, (ImportUnencrypted(private_key),), key]
    texts = "\n".join(form(value) for value in shown for form in (str, repr, ascii, "{}".format))
    assert search({"texts": texts.encode()}, [secret, Secret("sealing key", sealing)]) == []
    assert "PrivateKey" in texts


def chain(error: BaseException) -> list[BaseException]:
    """Return an error and everything that a traceback would show with it, hidden context included."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop()
        if link is not None and link not in found:
            found.append(link)
            waiting += [link.__cause__, link.__context__]
    return found


def test_no_error_of_a_bad_import_holds_the_secret() -> None:
    errors: list[BaseException] = []
    for known in FOUR:
        text = known.secret
        for wrong in (
            text[:-1],
            text + "1",
            text[::-1],
            text * 2,
            text.swapcase(),
            f" {text}",
            f"{text}\n",
            text.encode().hex(),
        ):
            with pytest.raises(TezosError) as malformed:
                parse_secret_key(wrong)
            errors.append(malformed.value)
        data = parse_secret_key(text).data
        for key_type in KeyType:
            for wrong_data in (data + b"\0", data[:-1]):
                with pytest.raises(CurveError) as invalid:
                    curve(key_type).open(PrivateKey(key_type, wrong_data))
                errors.append(invalid.value)
        frame = codec.encode_request(ImportUnencrypted(PrivateKey(known.key_type, data)))
        for wrong_frame in (frame[:-1], frame + b"\0", frame[:1] + b"\xff" + frame[2:], encode_frame(frame)):
            with pytest.raises(BadMessage) as bad:
                codec.decode_request(wrong_frame)
            errors.append(bad.value)
    texts = [form(link) for error in errors for link in chain(error) for form in (str, repr)]
    arguments = [repr(link.args) + repr(vars(link)) for error in errors for link in chain(error)]
    secrets = [secret_of(key.name, parse_secret_key(key.secret)) for key in FOUR]
    assert len(errors) > 60
    assert search({"errors": "\n".join([*texts, *arguments]).encode()}, secrets) == []
