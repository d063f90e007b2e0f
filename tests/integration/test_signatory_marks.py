"""Coming from Signatory and going back: its marks are taken over at the start and handed back at the end."""

import json
from pathlib import Path

import pytest

from tests.doubles.host_process import (
    base,
    import_keys,
    in_use_file,
    refused,
    run_command,
    running_host,
    store_file,
    write_config,
)
from tests.doubles.known_keys import CHAIN_ID, FOUR, attestation, block, preattestation
from tests.doubles.processes import Enclave

TZ1, TZ2, TZ3, TZ4 = FOUR


@pytest.fixture
def config(tmp_path: Path, local: Enclave) -> Path:
    return write_config(
        tmp_path, local.port, {TZ1.pkh: "{allow: {block: , generic: [transaction, reveal]}}", TZ2.pkh: ""}
    )


def signatory_file(config: Path, folder: str, text: str) -> Path:
    file = base(config) / folder / f"{CHAIN_ID}.json"
    file.parent.mkdir()
    file.write_text(text)
    return file


@pytest.mark.parametrize("own_store", [True, False])
def test_marks_of_signatory_are_taken_over_and_handed_back(config: Path, own_store: bool) -> None:
    import_keys(config, TZ2)
    if not own_store:
        store_file(config).unlink()
    state = {"level": 100, "round": 2, "hash": None}
    file = signatory_file(config, "watermark_v2", json.dumps({TZ2.pkh: {"block": state, "attestation": state}}))
    with running_host(config) as host:
        assert host.sign(TZ2.pkh, block(100)).status == 409
        assert host.sign(TZ2.pkh, attestation(100, round_=2)).status == 409
        assert host.sign(TZ2.pkh, attestation(100, round_=3)).status == 200
        assert host.sign(TZ2.pkh, preattestation(1)).status == 200
        # Signatory does not start while a file is there whose name is no chain.
        assert len(list(file.parent.glob("*.json"))) == 2
        assert host.stop() == 0
    assert list(file.parent.glob("*.json")) == [file]
    kinds = json.loads(file.read_text())[TZ2.pkh]
    assert {kind: (state["level"], state["round"]) for kind, state in kinds.items()} == {
        "block": (100, 2),
        "attestation": (100, 3),
        "attestation_with_dal": (100, 3),
        "preattestation": (1, 0),
    }


def test_marks_of_a_killed_host_are_handed_to_signatory_when_asked_for(config: Path) -> None:
    import_keys(config, TZ2)
    with running_host(config) as host:
        assert host.sign(TZ2.pkh, block(7)).status == 200
        assert refused(run_command("watermark", "export", "-c", config), 1).startswith(f"{base(config)} is in use")
        host.discard()
    in_use = in_use_file(config)
    assert list(in_use.parent.glob("*.json")) == [in_use]
    # What it had signed must not be forgotten: without its store there is neither a start nor a new store.
    store = store_file(config)
    store.rename(store.with_suffix(".moved"))
    for words in (["serve"], ["watermark", "init"], ["watermark", "export"]):
        text = refused(run_command(*words, "-c", config), 1)
        assert text.startswith(f"no watermark store at {store}, though the last host here did not end in order: ")
    assert not store.exists()
    assert in_use.exists()
    store.with_suffix(".moved").rename(store)
    outcome = run_command("watermark", "export", "-c", config)
    assert (outcome.code, outcome.stdout) == (0, f"Wrote every mark into Signatory's files in {base(config)}\n")
    (exported,) = in_use.parent.glob("*.json")
    assert exported != in_use
    assert json.loads(exported.read_text())[TZ2.pkh]["block"]["level"] == 7
    with running_host(config) as host:
        assert host.sign(TZ2.pkh, block(7, payload=bytes(32))).status == 409
        assert host.sign(TZ2.pkh, block(7)).status == 200


@pytest.mark.parametrize("folder", ["watermark_v2", "watermark_v1", "watermark"])
def test_marks_of_signatory_that_cannot_be_read_stop_the_start(config: Path, folder: str) -> None:
    import_keys(config, TZ2)
    file = signatory_file(config, folder, '{"tz1": ')
    assert refused(run_command("serve", "-c", config), 1).startswith(f"{file}: ")
