"""What is compiled is there, and the comparison of both forms of it sees a difference."""

from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile, ZipInfo

import pytest

from compiled.again import differences
from compiled.modules import ROOT, modules, plain
from enclave_signer.protocol.codec import encode_ok
from enclave_signer.protocol.messages import KeyType, Signature
from enclave_signer.tezos import Mark
from tests.endurance import compiled
from tests.endurance.compiled import Form, chunks, compare, rendered
from tests.endurance.compiled_inputs import Inputs


def test_every_module_of_the_list_is_there_and_pure() -> None:
    paths = [ROOT / f"{name.replace('.', '/')}.py" for name in modules()]
    assert len(paths) > 10
    for path in paths:
        text = path.read_text()
        assert "await " not in text, path
        assert "import socket" not in text, path


def test_here_it_is_plain() -> None:
    assert plain() in ([], modules())


def test_inputs_are_the_same_in_every_run_and_of_every_kind() -> None:
    made, again = Inputs("seed"), Inputs("seed")
    inputs = [made.make() for _ in range(200)]
    assert inputs == [again.make() for _ in range(200)]
    assert {type(each) for each in inputs} == {bytes, str, tuple}


def test_answers_are_values_and_errors_with_all_that_is_in_them() -> None:
    form = Form()
    signature = Signature(KeyType.ED25519, bytes(64))
    assert rendered(signature) in [*form.answers(encode_ok(signature))]
    (judged, compared) = form.answers((None, Mark(-1, 0, None), 1))
    assert judged == ("WatermarkRejected", judged[1])  # type: ignore[index]
    assert compared


def test_vectors_come_first_and_no_input_is_asked_twice() -> None:
    sizes = [sum(1 for _ in inputs) for inputs in chunks(10_001)]
    assert sizes[0] > 10_000
    assert sizes[1:] == [10_000, 1]


def streams(monkeypatch: pytest.MonkeyPatch, **lines: list[str]) -> None:
    def said(checkout: Path, *_: str) -> Iterator[str]:
        yield from lines["plain" if checkout == ROOT else "compiled"]

    monkeypatch.setattr(compiled, "_lines", said)


def test_equal_hashes_are_equal_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    streams(monkeypatch, plain=["plain\n", "7 ab\n", "2 cd\n"], compiled=["compiled\n", "7 ab\n", "2 cd\n"])
    assert compare(Path("other"), 9) == 9


@pytest.mark.parametrize(
    ("kind", "last"), [("compiled", "2 ce\n"), ("plain", "2 cd\n"), ("compiled but for ['x']", "2 cd\n")]
)
def test_a_difference_or_another_form_ends_the_run(monkeypatch: pytest.MonkeyPatch, kind: str, last: str) -> None:
    streams(monkeypatch, plain=["plain\n", "7 ab\n", "2 cd\n"], compiled=[f"{kind}\n", "7 ab\n", last])
    with pytest.raises(SystemExit):
        compare(Path("other"), 9)


def wheel(path: Path, **files: str) -> Path:
    with ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(ZipInfo(name), text)
    return path


def test_files_that_differ_between_two_builds_are_named(tmp_path: Path) -> None:
    one = wheel(tmp_path / "one", a="1", b="2")
    assert differences(one, wheel(tmp_path / "same", a="1", b="2")) == []
    assert differences(one, wheel(tmp_path / "changed", a="1", b="3", c="4")) == ["b", "c"]
    assert differences(one, wheel(tmp_path / "packed", b="2", a="1")) == ["one"]
