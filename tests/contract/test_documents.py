"""The documents are true: links, commands, limits, errors, lists of names."""

import logging
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

from enclave_signer import __version__
from enclave_signer.config import parse_config
from enclave_signer.keyprovider.__main__ import parser
from host_backend import config, errors
from host_backend.cli.commands import cli
from host_backend.config import key_storage, policies, vaults, watermark
from host_backend.config.review import review
from host_backend.operations.table import OPERATION_KINDS
from tests.contract import command_line, limits
from tests.contract.markdown import DOCS, ROOT, anchors, blocks, documents, prose, rows

ARCHITECTURE = DOCS / "architecture.md"
COMPATIBILITY = DOCS / "signatory-compatibility.md"
DECISIONS = DOCS / "adr"
#: What a document's commands may call besides our own programs.
TOOLS = {"curl", "echo", "export", "skopeo"}


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose(path)):
        if target.startswith(("https://", "http://")) or path.name == "template.md":
            continue
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        assert file.exists(), f"{target}: no such file"
        assert not anchor or anchor in anchors(file), f"{target}: no such heading"


def files_of_the_project() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        cwd=ROOT,
    )
    paths = (ROOT / name.decode() for name in listing.stdout.split(b"\0") if name)
    return [path for path in paths if path.is_file()]


def test_no_file_names_a_place_on_one_machine() -> None:
    # Put together here, so that this file does not have them.
    places = ["/" + name + "/" for name in ("work", "root", "home", "Users")] + ["shared" + "/"]
    files = files_of_the_project()
    assert ROOT / "pyproject.toml" in files
    for path in files:
        text = path.read_text(encoding="utf-8", errors="replace")
        assert not [place for place in places if place in text], path


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def shell_commands() -> Iterator[list[str]]:
    for path in documents():
        for block in blocks(path, "sh"):
            for line in block.splitlines():
                # What a substitution runs is a command, too.
                words = shlex.split(re.sub(r'^eval "\$\((.*)\)"$', r"\1", line), comments=True)
                while "|" in words:
                    yield words[: words.index("|")]
                    words = words[words.index("|") + 1 :]
                if words:
                    yield words


@pytest.fixture
def parsed_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands of the host be parsed and not run."""

    def disarm(command: click.Command) -> None:
        if isinstance(command, click.Group):
            for inner in command.commands.values():
                disarm(inner)
        # Groups as well: some do something where no command is named.
        monkeypatch.setattr(command, "callback", lambda **_: None)

    disarm(cli)


@pytest.mark.usefixtures("parsed_only")
def test_commands_in_documents_exist_and_take_their_options() -> None:
    programs: set[str] = set()
    for program, *arguments in shell_commands():
        programs.add(program)
        match program:
            case "make":
                assert {each for each in arguments if "=" not in each} <= make_targets()
            case ".venv/bin/enclave-host":
                cli.main(arguments, prog_name="enclave-host", standalone_mode=False)
            case ".venv/bin/enclave-signer":
                parse_config(arguments, {})
            case ".venv/bin/enclave-keyprovider":
                parser().parse_args(arguments)
            case ".venv/bin/python":
                assert find_spec(arguments[arguments.index("-m") + 1]) is not None
            case ".venv/bin/pytest":
                assert all((ROOT / argument).exists() for argument in arguments if not argument.startswith("-"))
            case _:
                assert program in TOOLS
    assert {"make", ".venv/bin/enclave-host", ".venv/bin/enclave-signer"} <= programs


def test_readme_begins_with_the_commands() -> None:
    first = blocks(ROOT / "README.md", "sh")[:3]
    assert first == ["make run\n", "make demo\n", "make test\n"]


def test_make_targets_in_documents_exist() -> None:
    named = {target for path in documents() for target in re.findall(r"`make (\w+)`", prose(path))}
    assert named
    assert named <= make_targets()


def words_of_help(text: str) -> list[str]:
    """Return a help text without what depends on the version of Python: line ends, and how the usage is wrapped."""
    _, _, after_usage = text.partition("\n\n")
    return after_usage.split()


def test_every_command_is_documented() -> None:
    assert list(command_line.documented()) == command_line.commands()


@pytest.mark.parametrize("command", command_line.commands())
def test_help_equals_the_page(command: str) -> None:
    page, program = command_line.documented()[command], command_line.help_of(command)
    advice = "write the page anew: python -m tests.contract.command_line"
    assert words_of_help(page) == words_of_help(program), advice
    flags = r"--[a-z-]+"
    assert set(re.findall(flags, page)) == set(re.findall(flags, program)), advice


def attribute(name: str) -> object:
    """Return what a dotted name stands for."""
    module, *rest = name.split(".")
    value: object = import_module(module)
    for part in rest:
        module = f"{module}.{part}"
        value = getattr(value, part) if hasattr(value, part) else import_module(module)
    return value


def test_limits_are_those_of_the_code() -> None:
    """`make fix` writes values and reasons; a limit without a reason beside it in the code has none here."""
    lines = ARCHITECTURE.read_text().splitlines()
    assert len(limits.names()) > 30
    for name in limits.names():
        assert limits.reason_of(name), name
        assert limits.line_of(name) in lines, name


def test_errors_are_those_of_the_code() -> None:
    families = {
        family.__name__: family for family in errors.HostError.__subclasses__() if family.__module__ == errors.__name__
    }
    families["TooLarge"] = errors.TooLarge
    documented = {cells[0].strip("`"): cells[1:4] for cells in rows(ARCHITECTURE) if cells[0].strip("`") in families}
    assert documented.keys() == families.keys()
    for name, family in families.items():
        level = logging.getLevelName(family.log_level).lower()
        assert documented[name] == [str(family.http_status), str(family.exit_code), level], name


def test_decisions_are_listed_and_complete() -> None:
    pages = sorted(DECISIONS.glob("[0-9]*.md"))
    index = (DECISIONS / "README.md").read_text()
    for place, page in enumerate(pages, start=1):
        number, title = f"{place:04}", page.read_text().partition("\n")[0]
        assert page.name.startswith(f"{number}-")
        assert title.startswith(f"# {number} ")
        assert f"| [{number}]({page.name}) | {title.removeprefix(f'# {number} ')} |" in index
        for heading in ("Context", "Options", "Decision", "Consequences"):
            assert f"\n## {heading}\n" in page.read_text(), page
    assert index.count("\n| [") == len(pages)


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *(name for group in project["dependency-groups"].values() for name in group),
    ]
    wanted += [name for names in project["project"]["optional-dependencies"].values() for name in names]
    reasons = (DECISIONS / "0007-libraries.md").read_text()
    for requirement in wanted:
        name = re.split(r"[<>=!~ ;\[]", requirement)[0]
        assert f"`{name}`" in reasons, name


def test_changelog_has_this_version() -> None:
    released, _, _ = __version__.partition(".dev")
    assert f"\n## [{released}]" in (DOCS / "CHANGELOG.md").read_text()


def test_every_configuration_field_is_marked() -> None:
    text = COMPATIBILITY.read_text()
    fields = [*policies._FIELDS, *policies._DEPRECATED, *policies._MEANINGLESS, *policies._ALIASES]
    fields += [*watermark._DRIVERS, *vaults._DRIVERS, *key_storage.KEY_DRIVERS, *vaults._ENVIRONMENT]
    fields += [*vaults._ENVIRONMENT.values(), "storage", "verify_bls", "max_level_jump"]
    fields += ["base_dir", "address", "utility_address", "authorized_keys", "jwt", "users", "password", "secret"]
    fields += [
        "jwt_exp",
        "old_cred_exp",
        "new_data",
        "tls",
        "certificate",
        "key",
        "client_ca",
        "policy_hook",
        "timeout",
        "metrics",
        "per_key",
    ]
    for name in fields:
        assert re.search(rf"[`.]{name}\b", text), name


def test_names_of_operations_are_those_of_the_code() -> None:
    text = COMPATIBILITY.read_text()
    listed = text.partition("These names of operations are read:")[2].partition("\n\n")[0]
    names = {kind for kind in OPERATION_KINDS if ":" not in kind}
    assert set(re.findall(r"`(\w+)`", listed)) == names
    assert f"all {len(names)} of Signatory" in text
    for path in (ROOT / "README.md", DOCS / "CHANGELOG.md", DECISIONS / "0015-strict-generic-messages.md"):
        assert re.search(rf"[Aa]ll\s+{len(names)}\s+names", path.read_text()), path


@pytest.mark.parametrize("preset", blocks(DOCS / "policies.md", "yaml"))
def test_policy_presets_load_and_mean_something(tmp_path: Path, preset: str) -> None:
    file = tmp_path / "preset.yaml"
    file.write_text("server: {address: 127.0.0.1:1, utility_address: 127.0.0.1:2}\n" + preset)
    found = review(config.load_config(file))
    assert (found.ignored, found.dangers) == ((), ())
    assert "signs nothing" not in found.keys.values()


def test_every_kind_of_key_has_its_preset() -> None:
    assert len(blocks(DOCS / "policies.md", "yaml")) == 6


def test_one_preset_only_hands_the_account_over(tmp_path: Path) -> None:
    presets = blocks(DOCS / "policies.md", "yaml")
    for number, preset in enumerate(presets):
        (tmp_path / str(number)).write_text(preset)
    noted = [number for number in range(len(presets)) if review(config.load_config(tmp_path / str(number))).notes]
    assert [presets[number].count("update_consensus_key") for number in noted] == [1]
    assert not any("transaction" in presets[number] for number in noted)


def test_example_configuration_loads() -> None:
    loaded = config.load_config(ROOT / "signatory.example.yaml")
    assert not loaded.warnings
    assert len(loaded.policies) == 2
