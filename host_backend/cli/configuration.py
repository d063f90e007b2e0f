"""`enclave-host config` and its commands."""

import sys

import click

from host_backend.cli.options import Options, takes_options


@click.group("config")
@takes_options
def configuration(options: Options) -> None:
    """Write a configuration, or look at one."""
    del options


@configuration.command("init")
@takes_options
def init(options: Options) -> None:
    """Write a configuration with comments, to begin with, where none is yet."""
    from host_backend.cli.configuring import write_first_config

    write_first_config(options.config_file)


@configuration.command("check")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.option("--strict", is_flag=True, help="Exit with 1 when anything is ignored or dangerous.")
@takes_options
def check(options: Options, *, as_json: bool, strict: bool) -> None:
    """Explain a configuration: what it allows, what in it means nothing, and what is dangerous.

    Notes tell what follows from a policy and is easily overlooked; they are no dangers if it is meant so.

    Reads the file only: nothing is connected to and nothing is written.
    """
    from host_backend.config.review import review

    found = review(options.load(warn=False))
    if as_json:
        import json
        from dataclasses import asdict

        click.echo(json.dumps(asdict(found), indent=2))
    else:
        for name, text in found.settings.items():
            click.echo(f"{name:<14} {text}")
        for pkh, text in found.keys.items():
            click.echo(f"key {pkh}: {text}")
        for word, lines in (("noted", found.notes), ("ignored", found.ignored), ("dangerous", found.dangers)):
            click.echo(f"{word:<14} {'nothing' if not lines else len(lines)}")
            for line in lines:
                click.echo(f"  - {line}")
    if strict and (found.ignored or found.dangers):
        sys.exit(1)
