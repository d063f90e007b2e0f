"""Coming from octez-signer: its folder becomes keys, lines of configuration and marks; and the way back."""

import json
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import pytest

from tests.doubles.host_process import (
    BAKER,
    VAULT,
    import_keys,
    refused,
    run_command,
    running_host,
    stored_hashes,
    write_config,
)
from tests.doubles.known_keys import CHAIN_ID, FOUR, KEYS, SIGNATORY, attestation, block, preattestation
from tests.doubles.octez_folder import high_watermark, write, write_wallet
from tests.doubles.processes import Enclave, unguarded_enclave

TZ1, TZ2, TZ3, TZ4 = FOUR
NAMES = dict(zip(("alice", "bob", "carol", "baker"), FOUR, strict=True))
AUTH = KEYS["auth"]
ELSEWHERE = {
    "ledger": ("ledger://major-squirrel/ed25519/0h/0h", "it is in a Ledger, which gives no key away (ledger:)"),
    "there": (f"tcp://127.0.0.1:7732/{TZ1.pkh}", "it is at another signer: import it there (tcp:)"),
    "local": (f"unix:/s?pkh={TZ1.pkh}", "it is at another signer: import it there (unix:)"),
    "web": (f"https://signer/{TZ1.pkh}", "it is at another signer: import it there (https:)"),
    "remote": (f"remote:{TZ1.pkh}", "it is at a remote signer (remote:)"),
    "other": (f"new:{TZ1.secret}", "nothing is known of its scheme"),
}
ENCRYPTED = SIGNATORY["encrypted_secret_keys"][0]
IN_ORDER = "--stopped-in-order"
MAINNET = "NetXdQprcVkpaWU"


@pytest.fixture(scope="module")
def enclave(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enclave]:
    with unguarded_enclave(tmp_path_factory.mktemp("enclave") / "sealing.key") as running:
        yield running


@pytest.fixture
def config(tmp_path: Path, enclave: Enclave) -> Path:
    return write_config(tmp_path, enclave.port, {key.pkh: BAKER for key in FOUR})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "tezos-signer"
    write_wallet(place, NAMES, {}, AUTH)
    return place


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def digest(message: bytes) -> bytes:
    return blake2b(message, digest_size=32).digest()


def test_texts_that_no_encoding_has_are_refused_by_name(config: Path, folder: Path) -> None:
    # Half of a surrogate pair: JSON can say it, UTF-8 cannot.
    (folder / "secret_keys").write_text('[{"name": "\\ud800", "value": "unencrypted:\\ud800"}]')
    outcome = run_command("import", "-c", config, "-v", VAULT, "--from-octez", folder)
    assert outcome.code == 1
    assert "not imported: neither base58 nor PEM nor DER" in outcome.stderr
    assert run_command("watermark", "init", "-c", config).code == 0
    migrated = run_command(
        "watermark", "migrate", "-c", config, "--from-octez", folder, "--above-level", "5", "--chain", MAINNET
    )
    assert migrated.code == 0, migrated.stderr


def test_a_folder_becomes_keys_and_lines_and_twice_changes_nothing(config: Path, folder: Path) -> None:
    before = contents(folder)
    for outcome in ("Imported ", "Stored already, unchanged: "):
        done = run_command("import", "-c", config, "-v", VAULT, "--from-octez", folder)
        assert done.code == 0, done.stderr
        said = done.stdout.splitlines()
        assert all(line.startswith(outcome) for line in said[: len(FOUR)])
        lines = ["server:", "  authorized_keys:", f"    - {AUTH.public_key}  # the baker", "tezos:"]
        lines += [f"  {key.pkh}:  # {name}" for name, key in NAMES.items()]
        assert said[len(FOUR) :] == lines
        assert stored_hashes(config) == [key.pkh for key in FOUR]
        assert not [key for key in FOUR if key.secret in done.stderr]
    assert contents(folder) == before


def test_a_key_with_two_names_is_one_key(config: Path, folder: Path) -> None:
    write_wallet(folder, {"alice": TZ1, "bob": TZ2, "also alice": TZ1}, {}, AUTH)
    write(folder / "authorized_keys", [{"name": name, "value": AUTH.public_key} for name in ("baker", "accuser")])
    done = run_command("import", "-c", config, "-v", VAULT, "--from-octez", folder)
    assert done.code == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"Imported {TZ1.pkh}, in vault {VAULT}",
        f"Imported {TZ2.pkh}, in vault {VAULT}",
        "server:",
        "  authorized_keys:",
        f"    - {AUTH.public_key}  # baker, accuser",
        "tezos:",
        f"  {TZ1.pkh}:  # alice, also alice",
        f"  {TZ2.pkh}:  # bob",
    ]
    # The warning about marks of keys that are new here.
    assert "marks do not move with an imported key" in done.stderr


def test_what_is_elsewhere_is_named_and_the_others_are_imported(config: Path, folder: Path) -> None:
    write_wallet(folder, {"alice": TZ1}, {name: value for name, (value, _) in ELSEWHERE.items()}, AUTH)
    done = run_command("import", "-c", config, "-v", VAULT, "--from-octez", folder, "--json")
    assert done.code == 1
    assert done.error == "6 of 7 keys were not imported, see the warnings above; the others were"
    assert json.loads(done.stdout) == {
        "keys": [{"public_key_hash": TZ1.pkh, "vault": VAULT, "outcome": "imported"}],
        "refused": [{"name": name, "reason": why} for name, (_, why) in ELSEWHERE.items()],
        "names": [{"name": "alice", "public_key_hash": TZ1.pkh}],
        "authorized_keys": [{"name": "the baker", "public_key": AUTH.public_key}],
        "error": done.error,
        "exit": 1,
    }
    assert stored_hashes(config) == [TZ1.pkh]
    assert TZ1.secret not in done.stderr + done.stdout


def test_a_single_file_and_an_encrypted_key(config: Path, tmp_path: Path) -> None:
    """A file `secret_keys` of Octez, or of the vault `file` of Signatory."""
    file, password = tmp_path / "secret_keys", tmp_path / "password"
    password.write_text(ENCRYPTED["password"] + "\n")
    write(file, [{"name": "mine", "value": f"encrypted:{ENCRYPTED['encrypted']}"}, {"name": "x", "value": TZ2.secret}])
    words = ("import", "-c", config, "-v", VAULT, "--from-octez", file)
    done = run_command(*words, "--password-file", password, "--log", "info")
    assert done.code == 0, done.stderr
    assert 'msg="the key is encrypted" name=mine' in done.stderr
    assert len(stored_hashes(config)) == 2
    password.write_text("wrong\n")
    done = run_command(*words, "--password-file", password)
    assert done.code == 1
    assert 'msg="not imported: the password is wrong" name=mine' in done.stderr


def test_a_hash_of_another_key_is_noticed(config: Path, folder: Path) -> None:
    write(folder / "public_key_hashs", [{"name": "alice", "value": TZ2.pkh}])
    done = run_command("import", "-c", config, "-v", VAULT, "--from-octez", folder)
    assert done.code == 1
    assert f"the wallet lists {TZ2.pkh} under this name, but its secret key is that of {TZ1.pkh}" in done.stderr
    assert stored_hashes(config) == [key.pkh for key in FOUR[1:]]


def test_folders_that_are_none(config: Path, tmp_path: Path, folder: Path) -> None:
    def text(place: Path) -> str:
        return refused(run_command("import", "-c", config, "-v", VAULT, "--from-octez", place), 2)

    assert "is not a folder" in text(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "has no secret_keys" in text(tmp_path / "empty")
    wrongs: list[object] = [{}, [{}], [{"name": "a"}], [{"name": "a", "value": 7}]]
    for wrong in wrongs:
        write(folder / "secret_keys", wrong)
        assert str(folder / "secret_keys") in text(folder)
    (folder / "secret_keys").write_text("{")
    assert "not JSON" in text(folder)


def shown(config: Path) -> dict[tuple[str, str, str], tuple[int, int, str | None]]:
    outcome = run_command("watermark", "show", "--json", "-c", config)
    assert outcome.code == 0, outcome.stderr
    marks = json.loads(outcome.stdout)["marks"]
    return {
        (mark["chain_id"], mark["public_key_hash"], mark["right"]): (mark["level"], mark["round"], mark["digest"])
        for mark in marks
    }


def test_high_watermarks_become_marks_that_never_go_down(config: Path, folder: Path) -> None:
    import_keys(config, *FOUR)
    here, there = digest(block(100)), digest(preattestation(90))
    write(folder / "block_high_watermarks", {CHAIN_ID: {TZ1.pkh: high_watermark(100, 0, here)}})
    write(folder / "preendorsement_high_watermarks", {CHAIN_ID: {TZ1.pkh: high_watermark(90, 0, there)}})
    write(folder / "preattestation_high_watermarks", {CHAIN_ID: {TZ1.pkh: high_watermark(80, 3, there)}})
    write(folder / "endorsement_high_watermarks", {MAINNET: {TZ2.pkh: high_watermark(70, None, here)}})
    write(folder / "attestation_high_watermarks", {CHAIN_ID: {TZ1.pkh: high_watermark(60, 1, here, signed=False)}})
    expected = {
        (CHAIN_ID, TZ1.pkh, "block"): (100, 0, here.hex()),
        (CHAIN_ID, TZ1.pkh, "preattestation"): (90, 0, there.hex()),
        (MAINNET, TZ2.pkh, "attestation"): (70, 2**31 - 1, None),
        (CHAIN_ID, TZ1.pkh, "attestation"): (60, 1, None),
    }
    migrate = ("watermark", "migrate", "-c", config, "--from-octez", folder, IN_ORDER)
    for raised in (4, 0):
        done = run_command(*migrate)
        assert done.code == 0, done.stderr
        assert f'msg="high watermarks of octez-signer taken over" marks={raised} of=4' in done.stderr
        assert done.stdout == f"Raised {raised} of 4 marks to those in {folder}\n"
        assert f'chain_id={MAINNET} pkh={TZ2.pkh} rights="block,preattestation"' in done.stderr
        assert f"pkh={TZ1.pkh}" not in done.stderr
        assert shown(config) == expected
    write(folder / "block_high_watermarks", {CHAIN_ID: {TZ1.pkh: high_watermark(99, 9, there)}})
    assert run_command(*migrate).code == 0
    assert shown(config) == expected
    with running_host(config) as host:
        # The one that has a signature is given again; nothing else at or below.
        assert host.sign(TZ1.pkh, block(100)).status == 200
        assert host.sign(TZ1.pkh, block(100, payload=b"\x33" * 32)).status == 409
        assert host.sign(TZ1.pkh, attestation(60, round_=1)).status == 409
        assert host.sign(TZ1.pkh, attestation(60, round_=2)).status == 200
        assert host.stop() == 0


def test_a_folder_that_was_not_stopped_in_order(config: Path, folder: Path) -> None:
    import_keys(config, *FOUR)
    write_wallet(folder, NAMES | {"later": AUTH}, {}, AUTH)
    write(folder / "block_high_watermarks", {CHAIN_ID: {TZ1.pkh: high_watermark(100, 0, digest(block(100)))}})
    migrate = ("watermark", "migrate", "-c", config, "--from-octez", folder)
    for words in ((), (IN_ORDER, "--above-level", "101")):
        assert "say --stopped-in-order if" in refused(run_command(*migrate, *words), 2)
    assert shown(config) == {}
    done = run_command(*migrate, "--above-level", "101", "--chain", CHAIN_ID)
    assert done.code == 0, done.stderr
    # Those that the configuration does not list yet as well.
    assert shown(config) == {
        (CHAIN_ID, pkh, right): (101, 2**31 - 1, None)
        for pkh in (*(key.pkh for key in FOUR), AUTH.pkh)
        for right in ("block", "preattestation", "attestation")
    }
    with running_host(config) as host:
        for key in (TZ1, TZ2):
            assert host.sign(key.pkh, block(101)).status == 409
            assert host.sign(key.pkh, attestation(101)).status == 409
            assert host.sign(key.pkh, block(102)).status == 200
        assert host.stop() == 0


def test_no_key_is_left_without_a_mark(tmp_path: Path, enclave: Enclave, folder: Path) -> None:
    """Those that the wallet lists no hash for, too; on every chain that policies or other keys' marks name."""
    policy = BAKER.removesuffix("}") + f", allowed_chains: [{CHAIN_ID}]}}"
    config = write_config(tmp_path, enclave.port, {TZ1.pkh: policy, TZ2.pkh: policy})
    import_keys(config, TZ3)
    write(folder / "public_key_hashs", [{"name": "alice", "value": TZ1.pkh}])
    secrets = {"baker": f"unencrypted:{TZ4.secret}", "locked": f"encrypted:{ENCRYPTED['encrypted']}"}
    write(folder / "secret_keys", [{"name": name, "value": value} for name, value in secrets.items()])
    write(folder / "block_high_watermarks", {MAINNET: {TZ1.pkh: high_watermark(100, 0, bytes(32))}})
    migrate = ("watermark", "migrate", "-c", config, "--from-octez", folder, "--above-level", "500")
    # Keys without a policy may have signed anywhere.
    assert "name every chain on which" in refused(run_command(*migrate), 2)
    assert shown(config) == {}
    done = run_command(*migrate, "--chain", CHAIN_ID)
    assert done.code == 0, done.stderr
    assert "gets marks only if it is imported already" in done.stderr
    assert "name=locked" in done.stderr
    assert TZ4.secret not in done.stderr
    assert shown(config) == {
        (chain_id, key.pkh, right): (500, 2**31 - 1, None)
        for chain_id in (CHAIN_ID, MAINNET)
        for key in FOUR
        for right in ("block", "preattestation", "attestation")
    }


@pytest.mark.parametrize(
    "marks",
    [
        [],
        {"x": {}},
        {CHAIN_ID: {"tz1": high_watermark(1, 0, bytes(32))}},
        {CHAIN_ID: {TZ1.pkh: {"level": 1}}},
        {CHAIN_ID: {TZ1.pkh: high_watermark(1, 0, bytes(31))}},
        {CHAIN_ID: {TZ1.pkh: high_watermark(-1, 0, bytes(32))}},
        {CHAIN_ID: {TZ1.pkh: high_watermark(1, 2**31, bytes(32))}},
        {CHAIN_ID: {TZ1.pkh: high_watermark(1, 0, bytes(32)) | {"new": 1}}},
    ],
)
def test_high_watermarks_that_cannot_be_read(config: Path, folder: Path, marks: object) -> None:
    write(folder / "attestation_high_watermarks", marks)
    text = refused(run_command("watermark", "migrate", "-c", config, "--from-octez", folder, IN_ORDER), 2)
    assert text.startswith(str(folder / "attestation_high_watermarks"))


def test_a_link_that_leads_nowhere_is_not_taken_for_no_high_watermarks(config: Path, folder: Path) -> None:
    """Such as one to a disk that is not mounted."""
    write(folder / "block_high_watermarks", {CHAIN_ID: {TZ1.pkh: high_watermark(100, 0, bytes(32))}})
    (folder / "attestation_high_watermarks").symlink_to(folder / "unmounted" / "file")
    text = refused(run_command("watermark", "migrate", "-c", config, "--from-octez", folder, IN_ORDER), 1)
    assert f"{folder / 'attestation_high_watermarks'} cannot be read: No such file or directory" in text


def test_without_high_watermarks(config: Path, folder: Path) -> None:
    words = ("watermark", "migrate", "-c", config, "--from-octez", folder, IN_ORDER)
    assert "octez-signer ran without --check-high-watermark" in refused(run_command(*words), 2)


def test_the_way_back(config: Path, folder: Path) -> None:
    import_keys(config, TZ1)
    higher = high_watermark(500, 2, digest(b"theirs"))
    write(folder / "block_high_watermarks", {CHAIN_ID: {TZ1.pkh: high_watermark(100, 0, digest(block(100)))}})
    write(folder / "endorsement_high_watermarks", {MAINNET: {TZ2.pkh: higher}})
    with running_host(config) as host:
        assert host.sign(TZ1.pkh, block(200)).status == 200
        assert "is in use by" in refused(run_command("watermark", "export", "-c", config, "--to-octez", folder), 1)
        assert host.stop() == 0
    others = folder.parent / "others"
    others.mkdir()
    (others / "config.json").touch()
    export = ("watermark", "export", "-c", config, "--to-octez")
    assert "has nothing of octez-signer in it" in refused(run_command(*export, others), 2)
    assert [path.name for path in others.iterdir()] == ["config.json"]
    (others / "config.json").unlink()
    assert run_command(*export, others).code == 0
    assert (others / "block_high_watermarks").exists()
    done = run_command("watermark", "export", "-c", config, "--to-octez", folder)
    assert done.code == 0, done.stderr
    assert done.stdout.startswith(f"Raised the high watermarks in {folder} to ")
    blocks = json.loads((folder / "block_high_watermarks").read_text())
    assert blocks == {CHAIN_ID: {TZ1.pkh: high_watermark(200, 0, digest(block(200)), signed=False)}}
    votes = json.loads((folder / "attestation_high_watermarks").read_text())
    assert votes == {MAINNET: {TZ2.pkh: high_watermark(500, 2, digest(b"theirs"), signed=False)}}
