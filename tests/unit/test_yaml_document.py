"""YAML files as values that know their place; whatever a file holds is a value or a refusal that names the place."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host_backend.errors import ConfigError
from host_backend.yaml_document import MAX_FILE_BYTES, Value, load_document
from host_backend.yaml_reader import MAX_DEPTH


def load(folder: Path, data: str | bytes) -> Value:
    file = folder / "f.yaml"
    file.write_bytes(data.encode() if isinstance(data, str) else data)
    return load_document(file)


def refused(folder: Path, data: str | bytes) -> str:
    """Return what follows the file's name in the refusal to load."""
    with pytest.raises(ConfigError) as refusal:
        load(folder, data)
    return str(refusal.value).removeprefix(f"{folder}/f.yaml")


def test_values(tmp_path: Path) -> None:
    top = load(tmp_path, "a: {b: [x, 2, 1:30, no, 0x1F, 1e3]}\nc:\nd: ~\n'e': \"f g\"\n")
    entries = top.mapping()
    assert list(entries) == ["a", "c", "d", "e"]
    items = entries["a"].mapping()["b"].items()
    assert [item.text() for item in items] == ["x", "2", "1:30", "no", "0x1F", "1e3"]
    assert [item.path for item in items][:2] == ["a.b[0]", "a.b[1]"]
    assert entries["c"].is_null
    assert entries["d"].is_null
    assert entries["c"].mapping() == {}
    assert entries["c"].items() == []
    assert entries["e"].text() == "f g"


@pytest.mark.parametrize("data", ["", "\n", "# nothing\n", "---\n", "~", "null"])
def test_nothing_is_null(tmp_path: Path, data: str) -> None:
    top = load(tmp_path, data)
    assert top.is_null
    assert top.record(("a",)) == {}


def test_an_empty_file_has_a_place_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"f\.yaml:1: the file: must be a text$"):
        load(tmp_path, "").text()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("a:\n  b: [1]\n", ":2: a.b: must be a text"),
        ("a:\n  b: {}\n", ":2: a.b: must be a text"),
        ("a:\n  b:\n", ":2: a.b: must be a text"),
        ("a:\n  b: ''\n", ":2: a.b: must not be empty"),
        ('a:\n  b: "x\\0y"\n', ":2: a.b: must not have control characters"),
        ('a:\n  b: "x\\ny"\n', ":2: a.b: must not have control characters"),
        ("a:\n  b: |\n    x\n    y\n", ":2: a.b: must not have control characters"),
    ],
)
def test_texts(tmp_path: Path, data: str, text: str) -> None:
    value = load(tmp_path, data).mapping()["a"].mapping()["b"]
    with pytest.raises(ConfigError) as refusal:
        value.text()
    assert str(refusal.value) == f"{tmp_path}/f.yaml{text}"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("a: x\n", ":1: a: must be a map"),
        ("a: [x]\n", ":1: a: must be a map"),
        ("a:\n  x: 1\n  y: 2\n  x: 3\n", ":4: a.x: stands here a second time"),
        ("a: {x: 1,\n x: 1}\n", ":2: a.x: stands here a second time"),
        ("a:\n  ? [x]\n  : 1\n", ":2: a: has a key that is not text"),
        ("a:\n  ? {x: 1}\n  : 1\n", ":2: a: has a key that is not text"),
        ('a:\n  "x\\ny": 1\n', ":2: a: must not have control characters"),
        (
            "a:\n  <<: {x: 1}\n  y: 1\n  <<: {}\n",
            ":4: a: `<<` stands here a second time: give it a list of all that it merges",
        ),
        ("b: &b [x]\na:\n  <<: *b\n", ":1: a[0]: must be a map"),
        ("b: &b x\na:\n  <<: *b\n", ":3: a: must be a map"),
    ],
)
def test_maps(tmp_path: Path, data: str, text: str) -> None:
    value = load(tmp_path, data).mapping()["a"]
    with pytest.raises(ConfigError) as refusal:
        value.mapping()
    assert str(refusal.value) == f"{tmp_path}/f.yaml{text}"


def test_lists(tmp_path: Path) -> None:
    entries = load(tmp_path, "a: x\nb: {}\n").mapping()
    for name, line in (("a", 1), ("b", 2)):
        with pytest.raises(ConfigError, match=rf"f\.yaml:{line}: {name}: must be a list$"):
            entries[name].items()


def test_anchors_and_aliases(tmp_path: Path) -> None:
    top = load(tmp_path, "a: &list [x, y]\nb: *list\nc: &text z\nd: *text\n").mapping()
    assert [item.text() for item in top["b"].items()] == ["x", "y"]
    # What went wrong is named by the path that was followed.
    assert [item.path for item in top["b"].items()] == ["b[0]", "b[1]"]
    assert top["d"].text() == "z"


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ("a: &a [*a]\n", 1),
        ("a: &a\n  <<: *a\n", 2),
        ("&a\nb: 1\nc: {d: [*a]}\n", 3),
        ("a: &a\n  b: &b\n    c: *b\n", 3),
        ("a: &a [x]\nb: &a [*a]\n", 2),
    ],
)
def test_an_alias_inside_what_it_repeats(tmp_path: Path, data: str, line: int) -> None:
    expected = f":{line}: not readable as YAML: an alias stands inside what it repeats: write the values out"
    assert refused(tmp_path, data).startswith(expected)


@pytest.mark.parametrize(
    ("data", "line", "name"),
    [
        ("a: 1 # b\x85c: 2\n", 1, "U+0085"),
        ("a: 1\nb: 2 # c\u2028d: 3\n", 2, "U+2028"),
        ("a: 1\r\nb: 2 # c\u2029d: 3\n", 2, "U+2029"),
        ("a: 1 # b\rc: 2\n", 1, "U+000D"),
    ],
)
def test_an_end_of_a_line_that_is_not_seen(tmp_path: Path, data: str, line: int, name: str) -> None:
    expected = f":{line}: not readable as YAML: {name} ends a line of YAML and looks like none: remove it"
    assert refused(tmp_path, data) == expected


def multiplied(generations: int) -> str:
    """Return lists of ten aliases each, of the list before: 10 ** generations texts, in the end."""
    lines = ["a0: &a0 x", *(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]" for n in range(generations))]
    return "\n".join(lines)


def test_aliases_do_not_multiply(tmp_path: Path) -> None:
    assert len(list(load(tmp_path, multiplied(5)).mapping()["a5"].leaves())) == 10**5
    text = ":7: not readable as YAML: more than 1000000 values, those that aliases repeat included"
    for generations in (6, 20):
        assert refused(tmp_path, multiplied(generations)).startswith(text)


def test_aliases_nest_no_deeper_than_what_is_written(tmp_path: Path) -> None:
    lines = ["a0: &a0 []", *(f"a{n + 1}: &a{n + 1} [*a{n}]" for n in range(MAX_DEPTH))]
    # The map around them is a level, too.
    value = load(tmp_path, "\n".join(lines[: MAX_DEPTH - 1])).mapping()[f"a{MAX_DEPTH - 2}"]
    for _ in range(MAX_DEPTH - 2):
        (value,) = value.items()
    assert value.items() == []
    assert refused(tmp_path, "\n".join(lines)).startswith(f":{MAX_DEPTH}: not readable as YAML: nested too deeply")


def test_an_anchor_may_stand_twice_and_is_not_told_of(tmp_path: Path) -> None:
    assert [item.text() for item in load(tmp_path, "[&a x, *a, &a y, *a]").items()] == ["x", "x", "y", "y"]


@pytest.mark.parametrize("null", ["", "~", "null", '""', "'null'"])
def test_null_may_have_its_tag(tmp_path: Path, null: str) -> None:
    assert load(tmp_path, f"a: !!null {null}\n").mapping()["a"].is_null


def test_what_is_merged_comes_last_and_replaces_nothing(tmp_path: Path) -> None:
    top = load(tmp_path, "a: {<<: [{y: 1, x: 1}, {y: 2, z: 2}], x: 0}").mapping()["a"]
    assert [(name, entry.text()) for name, entry in top.mapping().items()] == [("x", "0"), ("y", "1"), ("z", "2")]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("a: [", ":2: not readable as YAML: "),
        ("a: 1\n\tb: 2\n", ":2: not readable as YAML: "),
        ("a: b: c\n", ":1: not readable as YAML: "),
        ("a: 'x\n", ":2: not readable as YAML: "),
        ("a: *nowhere\n", ":1: not readable as YAML: found undefined alias"),
        ("a: 1\n---\nb: 2\n", ":2: not readable as YAML: found another document"),
        ("%YAML 9.1\n---\na\n", ":1: not readable as YAML: "),
        ("a: !<\n", ":1: not readable as YAML: "),
        ('a:\n  "\\UFFFFFFFF"\n', ":2: not readable as YAML: found invalid Unicode character escape code"),
        ('a: "\\uD800"', ":1: not readable as YAML: found invalid Unicode character escape code"),
        ('a: "\\U00110000"\n', ":1: not readable as YAML: found invalid Unicode character escape code"),
        (f"%YAML 1.{'1' * 5000}\n---\na\n", ":1: not readable as YAML: found extremely long version number"),
        (b"a: \xff\xfe\n", ":1: not readable as YAML: invalid start byte"),
        (b"\x00\x01", ":1: not readable as YAML: control characters are not allowed"),
        (b"\x7fELF" + bytes(100), ":1: not readable as YAML: control characters are not allowed"),
        ("a: !!null x\n", ":1: not readable as YAML: the tag of a value says that it is something else"),
        ("!!merge x: {a: 1}\n", ":1: not readable as YAML: the tag of a value says that it is something else"),
        ("[" * 200, ":1: not readable as YAML: nested too deeply"),
        ("{a: " * 33, ":1: not readable as YAML: nested too deeply"),
        ("\n".join(" " * depth + "a:" for depth in range(2000)), ":32: not readable as YAML: nested too deeply"),
    ],
)
def test_what_is_no_yaml(tmp_path: Path, data: str | bytes, text: str) -> None:
    assert refused(tmp_path, data).startswith(text)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("a: *%s", "found undefined alias (column 4)"),
        ("a: *it's\"%s", "did not find expected alphabetic or numeric character (column 7)"),
        ("a: !%s!x y", "found undefined tag handle (column 4)"),
        ("%%TAG !%s! x\n%%TAG !%s! x\n--- a", "found duplicate %TAG directive (column 1)"),
        ("a: @%s", "found character that cannot start any token (column 4)"),
        ('a: "\\q%s"', "found unknown escape character (column 5)"),
        ("a: {b: %s", "did not find expected ',' or '}' (column 1)"),
        ("a:\n  b %s\n  c: d", "mapping values are not allowed in this context (column 4)"),
        ('a: "\\U99999999%s"', "found invalid Unicode character escape code (column 7)"),
    ],
)
def test_what_is_no_yaml_is_not_repeated(tmp_path: Path, data: str, problem: str) -> None:
    secret = "MyPassw0rd-IsLong"
    text = refused(tmp_path, data.replace("%s", secret).replace("%%", "%"))
    assert text.endswith(f": not readable as YAML: {problem}")
    assert secret not in text


def test_nesting_within_the_limit(tmp_path: Path) -> None:
    assert load(tmp_path, "[" * MAX_DEPTH + "]" * MAX_DEPTH).items()
    assert refused(tmp_path, "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)).endswith("nested too deeply (column 33)")


def test_a_file_too_large(tmp_path: Path) -> None:
    assert (
        refused(tmp_path, b"#" * (MAX_FILE_BYTES + 1)) == ": larger than 4194304 bytes, too large for a configuration"
    )
    assert load(tmp_path, b"#" * MAX_FILE_BYTES).is_null


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read: No such file or directory$"):
        load_document(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory$"):
        load_document(tmp_path)


def test_records(tmp_path: Path) -> None:
    top = load(tmp_path, "driver: x\nconfig: y\n")
    assert list(top.record(("driver", "config", "other"))) == ["driver", "config"]
    for data, text in (
        ("a: 1\ndrivr: x\n", ":2: drivr: unknown field, did you mean driver?"),
        ("a: 1\nzzz: x\n", ":2: zzz: unknown field, known are a, driver"),
        (
            "a: 1\nlater: x\n",
            ":2: later: this field of Signatory's configuration is not supported yet: remove it to start without it",
        ),
        ("a: 1\nlatter: x\n", ":2: latter: unknown field, did you mean later?"),
    ):
        with pytest.raises(ConfigError) as refusal:
            load(tmp_path, data).record(("a", "driver"), ("later",))
        assert str(refusal.value) == f"{tmp_path}/f.yaml{text}"


def test_names_in_places_of_secrets_are_not_repeated(tmp_path: Path) -> None:
    for data, text in (
        ("pasword: Tr0ub4dor", "unknown field, did you mean password?"),
        ("password Tr0ub4dor&3: x", "unknown field, known are password, b"),
        ("Tr0ub4dor&3: x", "unknown field, known are password, b"),
        ("later: x", "this field of Signatory's configuration is not supported yet: remove it to start without it"),
        ("Tr0ub.4dor: x, Tr0ub.4dor: y", "stands here a second time"),
        ("<<: {Tr0ub.4dor: x}", "unknown field, known are password, b"),
    ):
        value = load(tmp_path, f"a:\n  {{{data}}}").mapping()["a"].secretive()
        with pytest.raises(ConfigError) as refusal:
            value.record(("password", "b"), ("later",))
        assert str(refusal.value) == f"{tmp_path}/f.yaml:2: a.…: {text}"
    below = load(tmp_path, "a: {b: [{b: x, Tr0ub4dor: y}]}").mapping()["a"].secretive().mapping()["b"].items()[0]
    assert below.mapping()["b"].path == "a.b[0].b"
    with pytest.raises(ConfigError, match=r":1: a\.b\[0\]\.…: unknown field, known are b$"):
        below.record(("b",))


def test_choices(tmp_path: Path) -> None:
    choices = {"file": "", "gcp": "is not there yet"}
    entries = load(tmp_path, f"a: file\nb: gcp\nc: {'x' * 99}\n").mapping()
    assert entries["a"].choice(choices) == "file"
    with pytest.raises(ConfigError, match=r":2: b: is not there yet$"):
        entries["b"].choice(choices)
    with pytest.raises(ConfigError, match=rf":3: c: unknown value '{'x' * 40}', known are file$"):
        entries["c"].choice(choices)


def walk(value: Value, depth: int) -> None:
    """Read everything as everything, so far down."""
    readers = (value.text, value.mapping, value.items, lambda: value.record(("a",)), lambda: value.choice({"a": ""}))
    for reader in readers:
        try:
            found = reader()
        except ConfigError:
            continue
        children = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
        for child in list(children)[:3] if depth else ():
            walk(child, depth - 1)


#: Bytes that mean something in YAML, and some that do not.
_SINGLE = [bytes([byte]) for byte in b"ab01 \n:-?,[]{}&*!|>'\"%@`#~<=\\\t"]
YAML_BYTES = st.sampled_from([*_SINGLE, b"\xff", b"\0", b"- ", b": ", b"\n  "])


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=60), st.lists(YAML_BYTES, max_size=40).map(b"".join)))
def test_any_bytes_are_a_value_or_a_refusal(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    try:
        value = load(tmp_path_factory.getbasetemp(), data)
    except ConfigError:
        return
    walk(value, 3)


@pytest.mark.parametrize(
    ("data", "values"),
    [
        ("a: b\t# c\n", {"a": "b"}),
        ("a:\tb\n", {"a": "b"}),
        ("a: b\t\n", {"a": "b"}),
        ("a: :6732\t# port\n", {"a": ":6732"}),
        ('a: "v"\t# c\nb: c\n', {"a": "v", "b": "c"}),
        ("a: b\n \t \n", {"a": "b"}),
        ("a: &x\tb\nc: *x\t# d", {"a": "b", "c": "b"}),
        ("{a:\tb,\tc: d\t}\t# e", {"a": "b", "c": "d"}),
        ("a: b\t\n  c\n", {"a": "b c"}),
    ],
)
def test_tabs_between_words(tmp_path: Path, data: str, values: dict[str, str]) -> None:
    assert {name: value.text() for name, value in load(tmp_path, data).mapping().items()} == values


def test_tabs_before_what_is_nested(tmp_path: Path) -> None:
    entries = load(tmp_path, "a:\t# c\n  b: c\nd:\n- e\t# f\n- g\t\n").mapping()
    assert entries["a"].mapping()["b"].text() == "c"
    assert [item.text() for item in entries["d"].items()] == ["e", "g"]


@pytest.mark.parametrize("data", ["a:\n\tb: c\n", "\ta: b\n", "\t# c\na: b\n", "a:\n\t- b\n", "a: b\n\tc: d\n"])
def test_a_tab_that_indents_is_named(tmp_path: Path, data: str) -> None:
    line = data.count("\n", 0, data.index("\t")) + 1
    assert (
        refused(tmp_path, data)
        == f":{line}: not readable as YAML: a tab stands where YAML takes spaces only (column 1)"
    )


@pytest.mark.parametrize(("data", "whole"), [("a: b\n", True), ("a: b\r\n", True), ("a: b", False)])
def test_where_the_file_ends(tmp_path: Path, data: str, whole: bool) -> None:
    assert load(tmp_path, data).ends_whole == whole
    assert load(tmp_path, data.encode("utf-16")).ends_whole == whole


def test_what_is_no_text_has_a_line(tmp_path: Path) -> None:
    assert refused(tmp_path, "a: b\nc: d # é\n".encode("latin-1")).startswith(":2: not readable as YAML: ")
    assert refused(tmp_path, "a: b\n\nc: d\0\n").startswith(":3: not readable as YAML: ")
