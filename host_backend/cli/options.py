"""Options that every command takes, before or after its name, as Signatory's do."""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import click

from host_backend.cli.answer import Answer
from host_backend.cli.named_path import NamedPath

if TYPE_CHECKING:
    from host_backend.config import Config

P = ParamSpec("P")
R = TypeVar("R")

LOG_LEVELS = ("panic", "fatal", "error", "warn", "warning", "info", "debug", "trace")


@dataclass
class Options:
    """What was said on the command line; None where nothing was."""

    config: Path | None = None
    base_dir: str | None = None
    log: str | None = None
    json_log: bool | None = None
    #: What `--json` prints, one for the whole command line.
    answer: Answer = field(default_factory=Answer)

    def over(self, other: "Options") -> "Options":
        """Return these options, and the other ones where these say nothing."""
        return Options(
            self.config if self.config is not None else other.config,
            self.base_dir if self.base_dir is not None else other.base_dir,
            self.log if self.log is not None else other.log,
            self.json_log if self.json_log is not None else other.json_log,
            other.answer,
        )

    def start_logging(self, *, in_thread: bool = False, one_shot: bool = False) -> None:
        """Log as was asked; `in_thread` for what serves, `one_shot` for what says in words how it ended."""
        from host_backend.log import LEVELS, configure

        configure(
            LEVELS[self.log or ("warning" if one_shot else "info")], as_json=bool(self.json_log), in_thread=in_thread
        )

    @property
    def config_file(self) -> Path:
        """The configuration that was named."""
        from host_backend.config import DEFAULT_CONFIG_FILE

        return self.config or DEFAULT_CONFIG_FILE

    def read_config(self) -> "Config":
        """Return the configuration that was named, as it is now.

        Raises:
            ConfigError: It cannot be used.
        """
        from host_backend.config import load_config

        return load_config(self.config_file, self.base_dir)

    def load(self, *, warn: bool = True) -> "Config":
        """Start logging from warnings on, and return the configuration; `warn` logs what in it means nothing.

        Raises:
            ConfigError: It cannot be used.
        """
        self.start_logging(one_shot=True)
        config = self.read_config()
        if warn:
            _warn(config.warnings)
        return config

    def load_to_serve(self) -> "Config":
        """Do the same for what serves: a thread writes the log, and the first line says what has started.

        Raises:
            ConfigError: It cannot be used.
        """
        import logging
        import os

        from enclave_signer import __version__
        from host_backend.config.review import open_doors
        from host_backend.log import fields

        self.start_logging(in_thread=True)
        logging.getLogger(__name__).info(
            "enclave-host is starting", extra=fields(version=__version__, config=self.config_file, pid=os.getpid())
        )
        config = self.read_config()
        _warn(config.warnings)
        _warn(open_doors(config))
        return config


def _warn(warnings: Iterable[str]) -> None:
    import logging

    for warning in warnings:
        logging.getLogger(__name__).warning("%s", warning)


_DECORATORS = (
    click.option("-c", "--config", type=NamedPath(), help="Configuration file [default: /etc/signatory.yaml]."),
    click.option("--base-dir", metavar="FOLDER", help="Overrides `base_dir` of the configuration."),
    click.option(
        "--log",
        type=click.Choice(LOG_LEVELS),
        metavar="LEVEL",
        help="Minimum log level, panic to trace [default: info for serve, else warning].",
    ),
    click.option("--json-log", is_flag=True, default=None, help="Log as JSON, one object per line."),
)


def takes_options(command: Callable[Concatenate[Options, P], R]) -> Callable[P, R]:
    """Give a command the common options; it gets them as its first argument, those before its name included."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        said = Options(*(kwargs.pop(name) for name in ("config", "base_dir", "log", "json_log")))  # type: ignore[arg-type]
        context = click.get_current_context()
        options = said.over(context.obj or Options())
        context.obj = options
        return command(options, *args, **kwargs)

    decorated: Callable[P, R] = run
    for decorator in reversed(_DECORATORS):
        decorated = decorator(decorated)
    return decorated


def takes_json(command: Callable[P, R]) -> Callable[P, R]:
    """Give a command `--json`; it gets what to answer with as its argument `answer`."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        answer = click.get_current_context().ensure_object(Options).answer
        if kwargs.pop("as_json"):
            answer.begin()
        kwargs["answer"] = answer
        return command(*args, **kwargs)

    option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
    decorated: Callable[P, R] = option(run)
    return decorated


def takes_password(command: Callable[P, R]) -> Callable[P, R]:
    """Give a command the two options for the password of an encrypted key."""
    file = click.option("--password-file", type=NamedPath(), help="File with the password of an encrypted key.")
    value = click.option("--password", help="The password itself, seen by others on this machine.")
    decorated: Callable[P, R] = value(file(command))
    return decorated
