"""Files and answers that others write, spoilt anywhere or of any JSON: what they should hold, or a refusal of ours."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_backend.errors import ConfigError, HostError
from host_backend.http_exchange import HttpAnswer
from host_backend.keystore.file import FileKeyStore
from host_backend.policy_hook import _SignedAnswer
from host_backend.watermark.rule import in_range
from host_backend.watermark.signatory.layouts import FOLDER, read_signatory_marks, unreadable_files
from tests.unit.test_keystore_file import SIGNATORY_FILE
from tests.unit.test_signatory_files import CHAIN, HASH, PKH

MARKS = json.dumps({PKH: {"block": {"level": 34, "round": 4, "hash": HASH}, "endorsement": {"level": 3}}}).encode()
PAYLOAD = {"status": 200, "nonce": "AAAA", "public_key_hash": PKH}
REPLY = json.dumps({"payload": PAYLOAD, "signature": "edsig"}).encode()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.just(PKH),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
#: Where, how many bytes are replaced, and by what.
SPOILING = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 9), st.binary(max_size=9)), min_size=1, max_size=3)


def _spoilt(content: bytes, spoiling: Sequence[tuple[int, int, bytes]]) -> bytes:
    for place, count, new in spoiling:
        at = place % (len(content) + 1)
        content = content[:at] + new + content[at + count :]
    return content


def _any(content: bytes) -> st.SearchStrategy[bytes]:
    entry = st.fixed_dictionaries({}, optional={"public_key_hash": VALUES, "encrypted_private_key": VALUES})
    marks = st.dictionaries(st.just(PKH), st.dictionaries(st.just("block"), VALUES))
    reply = st.fixed_dictionaries({}, optional={"payload": VALUES, "signature": VALUES})
    written = (VALUES | st.lists(entry, max_size=3) | marks | reply).map(lambda value: json.dumps(value).encode())
    return st.one_of(SPOILING.map(lambda spoiling: _spoilt(content, spoiling)), written, st.binary(max_size=80))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / FOLDER).mkdir()
    return folder


@given(content=_any(SIGNATORY_FILE))
def test_key_files(folder: Path, content: bytes) -> None:
    path = folder / "keys.json"
    path.write_bytes(content)
    with suppress(HostError):
        for key in asyncio.run(FileKeyStore(path).load()):
            assert key.pkh.startswith("tz")
    assert path.read_bytes() == content


@given(content=_any(MARKS))
def test_signatorys_files(folder: Path, content: bytes) -> None:
    file = folder / FOLDER / f"{CHAIN}.json"
    file.write_bytes(content)
    try:
        marks = read_signatory_marks(folder)
    except ConfigError:
        assert unreadable_files(folder) == [file]
    else:
        assert all(in_range(mark) for mark in marks.values())


@given(body=_any(REPLY))
def test_answers_of_a_policy_hook(body: bytes) -> None:
    with suppress(HostError):
        answer = _SignedAnswer.parse(HttpAnswer(200, "OK", body))
        asyncio.run(answer.check("AAAA", {}))
        pytest.fail("an answer that nobody signed was believed")
