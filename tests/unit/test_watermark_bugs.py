"""Bugs in the middle of `FileWatermarkStore`, and marks that no one can have: answered, and no one else is disturbed."""

import asyncio
from pathlib import Path

import pytest

from host_backend.errors import StoreUnavailable
from host_backend.watermark.file import batches as batches_module
from host_backend.watermark.file.blocks import Blocks
from host_backend.watermark.file.held import HeldStore
from host_backend.watermark.file.place import process_of
from host_backend.watermark.file.store import FileWatermarkStore
from host_backend.watermark.rule import Mark, MarkKey
from host_backend.watermark.signatory.folder import SignatoryFolder
from tests.doubles.watermarks import ADVANCE, KEY, REPEAT, A, advance, digest, open_and_close, read_marks, use

pytestmark = pytest.mark.usefixtures("never_quiet")


def test_bug_in_the_middle_is_answered_and_the_store_lives_on(
    base: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    async def scenario(store: FileWatermarkStore) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(batches_module, "judge", fail)
            with pytest.raises(StoreUnavailable, match="a bug"):
                await store.advance(KEY, A)
        assert "ZeroDivisionError: a bug" in caplog.text
        assert await store.advance(KEY, A) is ADVANCE
        assert store.problem is None

    use(base, scenario)


def test_a_key_that_nobody_can_have_gets_no_mark(base: Path) -> None:
    async def scenario(store: FileWatermarkStore) -> None:
        for pkh in ("\ud800", "é", KEY.pkh + "tz1tz1"):
            with pytest.raises(StoreUnavailable):
                await store.advance(MarkKey(KEY.chain_id, pkh, KEY.right), A)
        assert await store.advance(KEY, A) is ADVANCE

    use(base, scenario)
    assert read_marks(base) == {KEY: A}


def test_digest_of_another_length_is_never_stored(base: Path) -> None:
    async def scenario(store: FileWatermarkStore) -> None:
        with pytest.raises(StoreUnavailable, match="a digest of 5 bytes instead of 32"):
            await store.advance(KEY, Mark(10, 0, b"short"))
        assert await store.advance(KEY, Mark(10, 0, digest("long enough"))) is ADVANCE

    use(base, scenario)


def test_bug_at_the_stop_closes_the_file_all_the_same(
    base: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(store: HeldStore) -> None:
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(HeldStore, "hand_back", fail)
        with pytest.raises(StoreUnavailable, match="its thread failed, see the log"):
            advance(base, KEY, A)
    assert "ZeroDivisionError: a bug" in caplog.text
    assert process_of(base) is None
    assert SignatoryFolder(base).left_behind

    async def scenario(store: FileWatermarkStore) -> None:
        assert await store.advance(KEY, A) is REPEAT

    use(base, scenario)


def test_bug_while_opening_is_answered(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail(path: Path) -> Blocks:
        raise ZeroDivisionError("a bug")

    async def run() -> None:
        await FileWatermarkStore.open(base, in_memory_allowed=True, blocks=fail)

    with pytest.raises(StoreUnavailable, match="its thread failed, see the log"):
        asyncio.run(run())
    assert "ZeroDivisionError: a bug" in caplog.text
    open_and_close(base)
