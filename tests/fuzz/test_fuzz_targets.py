"""Every input of the fuzzer's corpus is taken by its target; and each second reading sees what it is there for."""

from collections.abc import Iterator

import pytest

from enclave_signer.protocol import cbor
from fuzz.seeds import CORPUS, MAX_INPUT_BYTES, seeds
from fuzz.targets import TARGETS, finish
from host_backend.octez.wire import Frames
from host_backend.watermark.file import layout


@pytest.fixture(autouse=True, scope="module")
def finished() -> Iterator[None]:
    yield
    finish()


def test_every_target_has_a_corpus_and_every_corpus_a_target() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} == TARGETS.keys() == seeds().keys()


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus(target: str) -> None:
    inputs = sorted((CORPUS / target).iterdir())
    assert inputs
    for path in inputs:
        data = path.read_bytes()
        assert len(data) <= MAX_INPUT_BYTES
        TARGETS[target](data)


def test_a_looser_decoder_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    strict = cbor.decode
    monkeypatch.setattr(cbor, "decode", lambda data, max_depth: strict(data[:1], max_depth=max_depth))
    with pytest.raises(AssertionError):
        TARGETS["cbor_items"](b"\x01\x02")


def test_a_frame_that_depends_on_how_it_is_cut_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Frames, "feed", lambda self, data: setattr(self, "_data", bytearray(data)))
    with pytest.raises(AssertionError):
        TARGETS["octez_frames"](b"\x01\0\x01\x06")


def test_a_mark_that_was_changed_unseen_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def unchecked(data: bytes | None, magic: bytes, size: int) -> bytes | None:
        return data[: size - 16] if data is not None and data.startswith(magic) else None

    TARGETS["slot_file"](lower_level := bytes([2, 0, 95, 1, 0]))
    monkeypatch.setattr(layout, "_whole", unchecked)
    with pytest.raises(AssertionError):
        TARGETS["slot_file"](lower_level)
