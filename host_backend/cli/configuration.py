"""`enclave-host config` and its commands."""

import click

from host_backend.cli.answer import Answer
from host_backend.cli.command_help import Group
from host_backend.cli.options import Options, takes_json, takes_options


@click.group("config", cls=Group)
@takes_options
def configuration(options: Options) -> None:
    """Write a first configuration, or check one."""
    del options


@configuration.command("init", example="enclave-host config init -c signatory.yaml")
@takes_options
def init(options: Options) -> None:
    """Write a first configuration with comments; never overwrites a file."""
    from host_backend.cli.configuring import write_first_config

    write_first_config(options.config_file)


@configuration.command("check", example="enclave-host config check --strict -c signatory.yaml")
@click.option("--strict", is_flag=True, help="Exit with 1 if anything is ignored or dangerous.")
@takes_json
@takes_options
def check(options: Options, *, answer: Answer, strict: bool) -> None:
    """Explain what a configuration allows, ignores, and makes dangerous.

    Notes are consequences of a policy that are easily overlooked; they are harmless if you meant them.

    Only the file is read: the command connects to nothing and writes nothing.
    """
    from host_backend.config.review import review

    found = review(options.load(warn=False))
    answer.put(settings=found.settings, notes=found.notes, ignored=found.ignored, dangers=found.dangers)
    answer.add("keys", *({"public_key_hash": pkh, "text": text} for pkh, text in found.keys.items()))
    for name, text in found.settings.items():
        answer.say(f"{name:<14} {text}")
    for pkh, text in found.keys.items():
        answer.say(f"key {pkh}: {text}")
    for word, lines in (("noted", found.notes), ("ignored", found.ignored), ("dangerous", found.dangers)):
        answer.say(f"{word:<14} {'nothing' if not lines else len(lines)}")
        for line in lines:
            answer.say(f"  - {line}")
    if strict and (found.ignored or found.dangers):
        click.get_current_context().exit(1)
