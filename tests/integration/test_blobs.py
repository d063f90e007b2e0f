"""Sealed keys that were damaged, exchanged or sealed elsewhere: refused by name, alone, while the other keys sign."""

import asyncio
import base64
import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from enclave_signer.protocol.blob import parse_blob
from enclave_signer.sealing.local import LocalSealer
from enclave_signer.tezos import parse_public_key, parse_secret_key
from tests.doubles.host_process import BAKER, Host, import_keys, key_file, run_command, running_host, write_config
from tests.doubles.known_keys import FOUR, KEYS, KnownKey, attestation, transaction
from tests.doubles.processes import Enclave, running_local_enclave

TZ1, TZ2, TZ3, TZ4 = FOUR
DOES_NOT_OPEN = "blob corrupt: it does not open under the key it names"


def entries(config: Path) -> list[dict[str, str]]:
    stored = json.loads(key_file(config).read_text())
    assert isinstance(stored, list)
    return stored


def blobs(config: Path) -> dict[str, bytes]:
    return {entry["public_key_hash"]: base64.b64decode(entry["encrypted_private_key"]) for entry in entries(config)}


def store(config: Path, blobs: dict[str, bytes]) -> None:
    stored = [
        {"public_key_hash": pkh, "encrypted_private_key": base64.b64encode(blob).decode()}
        for pkh, blob in blobs.items()
    ]
    key_file(config).write_text(json.dumps(stored, indent=4))


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Enclave, Path]]:
    """An enclave, and a configuration with one good key of each curve."""
    folder = tmp_path_factory.mktemp("blobs")
    with running_local_enclave(folder / "sealing.key") as enclave:
        config = write_config(folder, enclave.port, {key.pkh: BAKER for key in FOUR})
        import_keys(config, *FOUR)
        yield enclave, config


@pytest.fixture
def config(tmp_path: Path, sealed: tuple[Enclave, Path]) -> Path:
    """A configuration of the test's own, with the same good keys."""
    enclave, good = sealed
    config = write_config(tmp_path, enclave.port, {key.pkh: BAKER for key in FOUR})
    assert run_command("watermark", "init", "-c", config).code == 0
    store(config, blobs(good))
    return config


def check_quarantine(host: Host, reasons: dict[str, str]) -> None:
    """Pass when exactly these keys are out of service, named for these reasons wherever they are asked for."""
    status, health = host.health()
    # Ready while one key can sign; what cannot is named.
    ready = len(reasons) < len(FOUR)
    assert (status, health["ready"], "reasons" in health) == (200 if ready else 503, ready, not ready)
    assert health.get("degraded", []) == [f"{pkh}: {reason}" for pkh, reason in reasons.items()]
    for key in FOUR:
        for message in (transaction(1), attestation(1)):
            answer = host.sign(key.pkh, message)
            if key.pkh not in reasons:
                assert answer.status == 200
                continue
            assert (answer.status, answer.message) == (502, f"{key.pkh} is out of service: {reasons[key.pkh]}")
            assert b"signature" not in answer.body
        answer = host.ask("GET", f"/keys/{key.pkh}")
        assert answer.status == (502 if key.pkh in reasons else 200)
    for pkh, reason in reasons.items():
        host.wait_for(re.escape(f'level=error msg="key out of service: {reason}" pkh={pkh}'))


def flipped(blob: bytes, place: int, bit: int = 0) -> bytes:
    return blob[:place] + bytes([blob[place] ^ (1 << bit)]) + blob[place + 1 :]


def header_bytes(blob: bytes) -> int:
    return len(parse_blob(blob)[1])


def truncated(blob: bytes) -> bytes:
    return blob[:-1]


def header_only(blob: bytes) -> bytes:
    return blob[: header_bytes(blob)]


def beginning_only(blob: bytes) -> bytes:
    return blob[:30]


def surplus(blob: bytes) -> bytes:
    return blob + b"\0"


def foreign(blob: bytes) -> bytes:
    return bytes(len(blob))


def newer_format(blob: bytes) -> bytes:
    return blob[:4] + b"\2" + blob[5:]


def relabelled(blob: bytes) -> bytes:
    """Name another public key of the same curve in the header."""
    other = KEYS["bob"].public_key_bytes
    return blob.replace(parse_blob(blob)[0].public_key.data, other)


def wrong_nonce(blob: bytes) -> bytes:
    return flipped(blob, header_bytes(blob))


def wrong_ciphertext(blob: bytes) -> bytes:
    return flipped(blob, header_bytes(blob) + 12)


def wrong_tag(blob: bytes) -> bytes:
    return flipped(blob, len(blob) - 1, 7)


def under_another_key_file(blob: bytes) -> bytes:
    del blob
    key = parse_secret_key(TZ1.secret)
    return asyncio.run(LocalSealer(bytes(32)).seal(key, parse_public_key(TZ1.public_key)))


DAMAGES: list[tuple[Callable[[bytes], bytes], str]] = [
    (truncated, DOES_NOT_OPEN),
    (header_only, "blob corrupt: truncated"),
    (beginning_only, "blob corrupt: truncated"),
    (surplus, DOES_NOT_OPEN),
    (foreign, "blob corrupt: not a blob of this sealer (its first bytes are not TKSB)"),
    (newer_format, "blob of format 2, this image knows format 1"),
    (relabelled, DOES_NOT_OPEN),
    (wrong_nonce, DOES_NOT_OPEN),
    (wrong_ciphertext, DOES_NOT_OPEN),
    (wrong_tag, DOES_NOT_OPEN),
    (under_another_key_file, "blob sealed by local under local:"),
]


@pytest.mark.parametrize(("damage", "text"), DAMAGES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_damaged_blob_takes_its_own_key_out_of_service(
    config: Path, damage: Callable[[bytes], bytes], text: str
) -> None:
    good = blobs(config)
    store(config, {**good, TZ1.pkh: damage(good[TZ1.pkh])})
    with running_host(config) as host:
        _, health = host.health()
        (degraded,) = health["degraded"] if isinstance(health["degraded"], list) else [""]
        reason = str(degraded).removeprefix(f"{TZ1.pkh}: ")
        assert reason.startswith(f"the enclave refused: {text}")
        check_quarantine(host, {TZ1.pkh: reason})
        assert host.stop() == 0
    # Listing and generating go on; the damaged entry stays as it is.
    listed = run_command("list", "-c", config).stdout
    assert [f"Public Key Hash:           {key.pkh}\n" in listed for key in FOUR] == [False, True, True, True]
    assert listed.endswith(
        f"Out of Service:            {TZ1.pkh}\nVault:                     ConfidentialSpace\n"
        f"Reason:                    {reason}\n\n"
    )


def test_every_flipped_bit_of_a_sample_is_refused(sealed: tuple[Enclave, Path], tmp_path: Path) -> None:
    enclave, good_config = sealed
    good = blobs(good_config)[TZ4.pkh]
    chance = random.Random(20260417)
    places = {0, 4, 5, 6, header_bytes(good) - 1, header_bytes(good), len(good) - 17, len(good) - 16, len(good) - 1}
    places |= set(chance.sample(range(len(good)), 60))
    damaged = [flipped(good, place, chance.randrange(8)) for place in sorted(places)]
    config = write_config(tmp_path, enclave.port)
    assert run_command("watermark", "init", "-c", config).code == 0
    # One entry each, under hashes that do not matter: none may open.
    store(config, {f"tz4 with damage {number}": blob for number, blob in enumerate(damaged)})
    outcome = run_command("list", "-c", config)
    assert outcome.code == 0
    assert "Public Key" not in outcome.stdout
    assert outcome.stdout.count("Out of Service:            tz4 with damage") == len(damaged)
    reasons = [
        line for line in outcome.stderr.splitlines() if 'msg="key out of service: the enclave refused: blob' in line
    ]
    assert len(reasons) == len(damaged)


@pytest.mark.parametrize(("one", "other"), [(TZ1, TZ4), (TZ2, TZ3)], ids=["tz1 and tz4", "tz2 and tz3"])
def test_swapped_blobs_take_both_keys_out_of_service(config: Path, one: KnownKey, other: KnownKey) -> None:
    good = blobs(config)
    store(config, {**good, one.pkh: good[other.pkh], other.pkh: good[one.pkh]})
    with running_host(config) as host:
        reasons = {
            one.pkh: f"its blob holds another key, {other.pkh}",
            other.pkh: f"its blob holds another key, {one.pkh}",
        }
        check_quarantine(host, {key.pkh: reasons[key.pkh] for key in FOUR if key.pkh in reasons})


def test_a_key_stored_twice_needs_one_good_blob(config: Path) -> None:
    stored = entries(config)
    broken = {**stored[0], "encrypted_private_key": base64.b64encode(b"broken").decode()}
    for order in ([broken, *stored], [*stored, broken]):
        key_file(config).write_text(json.dumps(order))
        with running_host(config) as host:
            check_quarantine(host, {})


def test_all_keys_broken_is_told(config: Path) -> None:
    store(config, dict.fromkeys(blobs(config), b"broken"))
    reason = "the enclave refused: blob corrupt: not a blob of this sealer (its first bytes are not TKSB)"
    with running_host(config) as host:
        check_quarantine(host, {key.pkh: reason for key in FOUR})


def test_a_quarantined_key_is_replaced_only_when_asked_for(config: Path) -> None:
    good = blobs(config)
    store(config, {**good, TZ1.pkh: b"broken"})
    before = key_file(config).read_bytes()
    words = ("import", "-c", config, "--vault", "enclave", "-")
    outcome = run_command(*words, given=TZ1.secret)
    assert outcome.code == 1
    assert outcome.error.startswith(f"{TZ1.pkh} is stored already, and does not open: ")
    assert outcome.error.endswith("to have the stored blob replaced, import the key again with --replace")
    assert key_file(config).read_bytes() == before
    # Neither does another key's import, nor a good key's own, replace anything.
    assert run_command(*words, "--replace", given=TZ2.secret).code == 0
    assert key_file(config).read_bytes() == before

    assert run_command(*words, "--replace", given=TZ1.secret).code == 0
    after = blobs(config)
    assert list(after) == list(good)
    assert {pkh for pkh in good if after[pkh] != good[pkh]} == {TZ1.pkh}
    aside = key_file(config).with_name("confidential_space_keys.json.replaced")
    assert json.loads(aside.read_text()) == [
        entry for entry in json.loads(before) if entry["public_key_hash"] == TZ1.pkh
    ]
    assert aside.stat().st_mode & 0o777 == 0o600
    with running_host(config) as host:
        assert host.health() == (200, {"ready": True})
