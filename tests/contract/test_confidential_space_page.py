"""The page about Confidential Space: commands have options that exist, texts are the launcher's, and labels the image's."""

import json
import re
from pathlib import Path

from tests.contract import test_google_cloud_page as google
from tests.contract.markdown import DOCS, ROOT, blocks, rows

PAGE = DOCS / "confidential-space.md"
VECTORS = ROOT / "tests" / "vectors"


def recorded(name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((VECTORS / name).read_text())
    return found


def commands() -> list[list[str]]:
    """Return the words of the commands that cannot be run here, also of those within `$(…)`."""
    text = re.sub(r"^[A-Z_]+=\$\((.*)\)$", r"\1", "".join(blocks(PAGE, "bash")), flags=re.MULTILINE)
    return [words for words in google.split(text) if words[0] in {"gcloud", "skopeo"}]


def test_every_option_is_one_that_its_command_has() -> None:
    known = recorded("command-options.json")["commands"]
    assert isinstance(known, dict)
    used = set()
    for words in commands():
        (name,) = (name for name in known if words[: len(name.split())] == name.split())
        used.add(name)
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert options <= set(known[name]), words
    assert used == set(known)


def test_every_variable_is_set_before_it_is_used() -> None:
    known: set[str] = set()
    for line in "".join(blocks(PAGE, "bash")).splitlines():
        assert set(re.findall(r"\$([A-Z_]+)", line)) <= known, line
        known.update(re.findall(r"^([A-Z_]+)=", line))


def test_a_debug_machine_is_as_one_in_production_but_for_its_log() -> None:
    (debug,) = (words for words in commands() if words[1:5] == ["compute", "instances", "create", "enclave-debug"])
    (other,) = (
        words
        for words in google.split("".join(blocks(google.PAGE, "bash")))
        if words[1:5] == ["compute", "instances", "create", "enclave"]
    )
    differ = {"--image-family", "--metadata", "--private-network-ip", "enclave", "enclave-debug"}
    assert {word.partition("=")[0] for word in {*debug} ^ {*other}} == differ


def test_texts_are_those_of_the_launcher() -> None:
    texts = recorded("launcher-messages.json")["texts"]
    assert isinstance(texts, list)
    shown = [cells[1].strip("`") for cells in rows(PAGE) if len(cells) == 3 and cells[1].startswith("`")]
    told = [text for text in shown if not text.startswith("project")]
    for text in told:
        pattern = ".*".join(map(re.escape, text.split("…")))
        assert [each for each in texts if re.search(pattern, each)], text
    assert len(told) == len(texts)


def test_what_can_run_here_is_run_by_tests() -> None:
    lines = [line for block in blocks(PAGE, "sh") for line in block.splitlines()]
    # `curl` by the test of all documented commands, the rest by those of the image.
    assert [line.split()[0:2] for line in lines] == [
        ["make", "image"],
        ["make", "image-root"],
        ["curl", "http://127.0.0.1:9583/"],
        ["curl", "http://127.0.0.1:9583/healthz"],
    ]
    copy, together = blocks(PAGE, "shell")
    assert copy == "cp image/image.example.toml image.toml\n"
    assert "docker compose up -d" in together


def test_the_files_that_are_named_are_there() -> None:
    for name in re.findall(r"\bimage/[a-z.]+\.(?:toml|yaml)", PAGE.read_text()):
        assert Path(ROOT / name).is_file()
