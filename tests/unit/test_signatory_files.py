"""Signatory's watermark files, in and out."""

import json
import os
from pathlib import Path

import pytest

from enclave_signer.tezos import Kind, Right, encode
from host_backend.errors import ConfigError, HostError, StoreUnavailable
from host_backend.watermark.file.admin import FileMarks
from host_backend.watermark.file.layout import MAX_SLOTS
from host_backend.watermark.rebuilt import Rebuilt
from host_backend.watermark.rule import Mark, MarkKey
from host_backend.watermark.signatory.folder import SignatoryFolder
from host_backend.watermark.signatory.layouts import (
    FOLDER,
    IN_USE_NAME,
    MAX_FILE_BYTES,
    read_signatory_marks,
    unreadable_files,
    write_signatory_marks,
)

CHAIN = "NetXo5iVw1vBoxM"
OTHER_CHAIN = "NetXdQprcVkpaWU"
PKH = "tz1WGcYos3hL7GXYXjKrMnSFdkT7FyXnFBvf"
HASH = "vh2THNfr1pU3TjJyJkw7BKq19suqMX1W9PXRVAgpueELhGTAuhSx"
DIGEST = bytes.fromhex("668a611b1c0cd51c29de34de5959ab0f1504598de1e35c74af57477b688affd8")
OTHER = encode(Kind.BLOCK_PAYLOAD_HASH, bytes(32))


def place(base_dir: Path, content: object, folder: str = FOLDER, name: str = f"{CHAIN}.json") -> Path:
    file = base_dir / folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def key(right: Right) -> MarkKey:
    return MarkKey(CHAIN, PKH, right)


def test_no_folder_means_no_marks(tmp_path: Path) -> None:
    assert read_signatory_marks(tmp_path) == {}


def test_the_present_layout(tmp_path: Path) -> None:
    place(tmp_path, {PKH: {"block": {"level": 34, "round": 4, "hash": HASH}, "preattestation": {"level": 3}}})
    place(tmp_path, "no json", name="README.txt")
    assert read_signatory_marks(tmp_path) == {
        key(Right.BLOCK): Mark(34, 4, DIGEST),
        key(Right.PREATTESTATION): Mark(3, 0, None),
    }


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({"level": 7, "hash": HASH}, {"level": 9, "round": 1}, Mark(9, 1, None)),
        ({"level": 9, "round": 2, "hash": HASH}, {"level": 9, "round": 1}, Mark(9, 2, DIGEST)),
        ({"level": 9, "hash": HASH}, {"level": 9, "hash": HASH}, Mark(9, 0, DIGEST)),
        ({"level": 9, "hash": HASH}, {"level": 9, "hash": OTHER}, Mark(9, 0, None)),
    ],
)
@pytest.mark.parametrize("names", [("attestation", "attestation_with_dal"), ("endorsement", "attestation")])
def test_all_names_of_a_right_are_one(
    tmp_path: Path, names: tuple[str, str], first: object, second: object, expected: Mark
) -> None:
    place(tmp_path, {PKH: {names[0]: first, names[1]: second}})
    assert read_signatory_marks(tmp_path) == {key(Right.ATTESTATION): expected}
    place(tmp_path, {PKH: {names[0]: second, names[1]: first}})
    assert read_signatory_marks(tmp_path) == {key(Right.ATTESTATION): expected}


def test_the_oldest_layout(tmp_path: Path) -> None:
    place(tmp_path, {"endorsement": {PKH: {"level": 5, "round": 1, "hash": HASH}}}, "watermark")
    assert read_signatory_marks(tmp_path) == {key(Right.ATTESTATION): Mark(5, 1, DIGEST)}


@pytest.mark.parametrize(("order", "own"), [(0, Right.BLOCK), (1, Right.PREATTESTATION), (2, Right.ATTESTATION)])
def test_the_layout_with_one_state_for_all_rights(tmp_path: Path, order: int, own: Right) -> None:
    place(tmp_path, {PKH: {"level": 5, "round": 1, "order": order, "hash": HASH}}, "watermark_v1")
    marks = read_signatory_marks(tmp_path)
    assert marks == {key(right): Mark(5, 1, DIGEST if right is own else None) for right in Right}


def test_the_highest_of_all_layouts_counts(tmp_path: Path) -> None:
    place(tmp_path, {PKH: {"block": {"level": 5, "hash": HASH}}})
    place(tmp_path, {"block": {PKH: {"level": 8}}}, "watermark")
    assert read_signatory_marks(tmp_path)[key(Right.BLOCK)] == Mark(8, 0, None)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        "null",
        '{"a": {}, "a": {}}',
        {"nopkh": {}},
        {"nopkh": {"block": {"level": 1}}},
        {PKH: {"nokind": {"level": 1}}},
        {PKH: {"block": 5}},
        {PKH: {"block": {"level": "5"}}},
        {PKH: {"block": {"level": True}}},
        {PKH: {"block": {"level": 5.0}}},
        {PKH: {"block": {"level": -1}}},
        {PKH: {"block": {"level": 2**31}}},
        {PKH: {"block": {"level": 5, "hash": HASH[:-1]}}},
        {PKH: {"block": {"level": 5, "hash": PKH}}},
        {PKH: {"block": {"level": 5, "hash": 7}}},
    ],
)
def test_what_cannot_be_read_stops_the_start(tmp_path: Path, content: object) -> None:
    file = place(tmp_path, content)
    if content == {"nopkh": {}}:
        assert read_signatory_marks(tmp_path) == {}
        return
    with pytest.raises(ConfigError, match=f"{file}: .*`enclave-host watermark rebuild --above-level N`"):
        read_signatory_marks(tmp_path)
    # The one that is put aside by that command; the marks of all others count.
    place(tmp_path, {PKH: {"block": {"level": 7}}}, name=f"{OTHER_CHAIN}.json")
    assert unreadable_files(tmp_path) == [file]
    assert read_signatory_marks(tmp_path, without=[file]) == {MarkKey(OTHER_CHAIN, PKH, Right.BLOCK): Mark(7, 0, None)}


def test_a_file_of_another_name_stops_the_start(tmp_path: Path) -> None:
    place(tmp_path, {}, name="notes.json")
    with pytest.raises(ConfigError, match=r"notes\.json: its name is not a chain id: "):
        read_signatory_marks(tmp_path)


def test_marks_come_back(tmp_path: Path) -> None:
    marks = {
        key(Right.BLOCK): Mark(34, 4, DIGEST),
        key(Right.ATTESTATION): Mark(35, 0, None),
        MarkKey(OTHER_CHAIN, "tz4XXtsYav3fZz2FSDa7hcx4F8sh8SaDWNME", Right.PREATTESTATION): Mark(1, 0, DIGEST),
    }
    write_signatory_marks(tmp_path, marks)
    assert read_signatory_marks(tmp_path) == marks
    assert sorted(file.name for file in (tmp_path / FOLDER).iterdir()) == [f"{OTHER_CHAIN}.json", f"{CHAIN}.json"]


def test_the_form_is_signatorys(tmp_path: Path) -> None:
    write_signatory_marks(tmp_path, {key(Right.BLOCK): Mark(34, 4, DIGEST), key(Right.ATTESTATION): Mark(1, 0, None)})
    file = tmp_path / FOLDER / f"{CHAIN}.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text() == (
        "{\n"
        f'    "{PKH}": {{\n'
        '        "attestation": {\n            "level": 1,\n            "round": 0\n        },\n'
        '        "attestation_with_dal": {\n            "level": 1,\n            "round": 0\n        },\n'
        f'        "block": {{\n            "level": 34,\n            "round": 4,\n            "hash": "{HASH}"\n        }}\n'
        "    }\n}"
    )


def test_the_folder_is_kept_and_watched(tmp_path: Path) -> None:
    folder = SignatoryFolder(tmp_path)
    states = [folder.left_behind]
    folder.begin()
    states.append(folder.left_behind)
    assert (tmp_path / FOLDER / IN_USE_NAME).is_file()
    folder.check()
    for _ in range(2):
        folder.hand_back({})
        states.append(folder.left_behind)
    assert states == [False, True, False, False]


@pytest.mark.parametrize("change", ["add", "remove", "replace"])
def test_a_change_by_another_is_noticed(tmp_path: Path, change: str) -> None:
    folder = SignatoryFolder(tmp_path)
    folder.begin()
    marker = tmp_path / FOLDER / IN_USE_NAME
    match change:
        case "add":
            place(tmp_path, {})
        case "remove":
            marker.unlink()
        case _:
            (tmp_path / "other").write_text("")
            (tmp_path / "other").rename(marker)
    with pytest.raises(StoreUnavailable, match="changed by another program"):
        folder.check()


def test_only_older_layouts_may_be_read(tmp_path: Path) -> None:
    place(tmp_path, {PKH: {"block": {"level": 9}}})
    place(tmp_path, {"block": {PKH: {"level": 8}}}, "watermark")
    assert read_signatory_marks(tmp_path, present=False) == {key(Right.BLOCK): Mark(8, 0, None)}


def test_saved_marks_never_lower_those_that_are_there(tmp_path: Path) -> None:
    folder = SignatoryFolder(tmp_path)
    folder.begin()
    write_signatory_marks(tmp_path, {key(Right.BLOCK): Mark(9, 0, DIGEST), key(Right.ATTESTATION): Mark(9, 0, DIGEST)})
    folder.save({key(Right.BLOCK): Mark(8, 5, None), key(Right.ATTESTATION): Mark(9, 1, None)})
    assert folder.read() == {key(Right.BLOCK): Mark(9, 0, DIGEST), key(Right.ATTESTATION): Mark(9, 1, None)}
    # Saving lets no one in.
    assert folder.left_behind


def test_the_note_of_marks_in_memory_is_told_from_that_of_a_running_host(tmp_path: Path) -> None:
    folder = SignatoryFolder(tmp_path)
    states = [(folder.left_open, folder.forgotten)]
    for act in (folder.begin, folder.note_forgotten, folder.withdraw):
        act()
        states.append((folder.left_open, folder.forgotten))
    assert states == [(False, False), (True, False), (False, True), (False, False)]
    assert not folder.left_closed_by_0_1


def test_a_note_that_cannot_be_read_stops_the_start_until_a_rebuild(tmp_path: Path) -> None:
    """It may say that the marks here are too low; a pipe in its place is not waited for."""
    folder = SignatoryFolder(tmp_path)
    folder.path.mkdir()
    os.mkfifo(folder.in_use_file)
    marks = FileMarks(tmp_path, in_memory_allowed=True)
    for look in (lambda: folder.forgotten, lambda: folder.elsewhere, marks.describe, marks.export):
        with pytest.raises(StoreUnavailable, match=r"cannot be read: not a regular file: .* watermark rebuild"):
            look()
    marks.rebuild(Rebuilt([PKH], [CHAIN], 5), ".damaged")
    marks.export()


def test_all_the_marks_that_a_store_can_hold_are_read_back(tmp_path: Path) -> None:
    keys = [encode(Kind["ED25519_PUBLIC_KEY_HASH"], number.to_bytes(20)) for number in range(1000)]
    marks = {MarkKey(CHAIN, pkh, right): Mark(2**31 - 1, 2**31 - 1, DIGEST) for pkh in keys for right in Right}
    write_signatory_marks(tmp_path, marks)
    size = (tmp_path / FOLDER / f"{CHAIN}.json").stat().st_size
    assert size / len(marks) * MAX_SLOTS < MAX_FILE_BYTES
    assert read_signatory_marks(tmp_path) == marks


def test_a_file_in_the_folders_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("")
    for act in (SignatoryFolder(tmp_path).begin, lambda: read_signatory_marks(tmp_path)):
        with pytest.raises(HostError):
            act()


@pytest.mark.parametrize("folder", [FOLDER, "watermark_v1", "watermark"])
def test_a_folder_that_is_a_link_to_nowhere_stops_the_start(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).symlink_to(tmp_path / "not mounted")
    with pytest.raises(
        StoreUnavailable, match=r"the link leads nowhere; mount what it leads to or, .* watermark rebuild"
    ):
        read_signatory_marks(tmp_path)


@pytest.mark.parametrize("target", ["nothing", "circle", "pipe", "folder", "long" * 100])
def test_a_file_that_is_a_link_to_no_file_stops_the_start(tmp_path: Path, target: str) -> None:
    file = tmp_path / FOLDER / f"{CHAIN}.json"
    file.parent.mkdir()
    file.symlink_to(file if target == "circle" else tmp_path / target)
    if target == "pipe":
        os.mkfifo(tmp_path / target)
    if target == "folder":
        (tmp_path / target).mkdir()
    with pytest.raises(HostError, match=f"{CHAIN}.json.*watermark rebuild"):
        read_signatory_marks(tmp_path)
    assert unreadable_files(tmp_path) == [file]
