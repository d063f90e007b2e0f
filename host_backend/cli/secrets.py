"""Where the commands take secrets from: a file, standard input, a question, or, with a warning, an argument."""

import logging
import os
import stat
import sys
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from enclave_signer.protocol.messages import PrivateKey
from host_backend.errors import ConfigError, MalformedRequest, reason_of
from host_backend.secret_keys import MAX_PASSWORD_BYTES, AskPassword, read_secret_key
from host_backend.wallets import MAX_WALLET_BYTES, secrets_in

logger = logging.getLogger(__name__)

_STANDARD_INPUT = "-"


def read_secret_keys(arguments: Sequence[str], source: Path | None, ask_password: AskPassword) -> list[PrivateKey]:
    """Return the secret keys that were named, whole or not at all.

    Args:
        arguments: Keys, or one `-` for standard input.
        source: A file, `-` for standard input; comes before the arguments.
        ask_password: Called for every key that is encrypted.

    Raises:
        MalformedRequest: One of them is no secret key, or its password is wrong; the text never repeats it.
        ConfigError: It cannot be read or asked for.
    """
    if source is not None:
        inputs = [_read_file(source)]
    elif list(arguments) == [_STANDARD_INPUT]:
        inputs = [_read_standard_input()]
    elif arguments:
        logger.warning("a secret key on the command line can be seen by others: use the prompt, --from FILE, or -")
        inputs = [text.encode(errors="surrogateescape") for text in arguments]
    else:
        inputs = [_asked("secret key", "--from FILE, or - for standard input")]
    # Longer input is no wallet either, and was cut off.
    secrets = [secret for data in inputs for secret in (secrets_in(data) if len(data) <= MAX_WALLET_BYTES else [data])]
    return [_parsed(data, index, ask_password) for index, data in enumerate(secrets)]


def password_source(value: str | None, file: Path | None) -> AskPassword:
    """Return where passwords come from: an argument, the first line of a file, or a question for every key.

    Raises:
        ConfigError: Both are given; or the file cannot be read, is empty, or has several lines.
    """
    if value and file is not None:
        raise ConfigError("--password and --password-file are both given: use one")
    if value:
        logger.warning("a password on the command line can be seen by others: use the prompt, or --password-file")
        given = value.encode(errors="surrogateescape")
        return lambda: given
    if file is not None:
        read = _password_in(file)
        return lambda: read
    return lambda: _asked("password", "--password-file FILE")


def _password_in(file: Path) -> bytes:
    data = _read(file, MAX_PASSWORD_BYTES)
    line = data.removesuffix(b"\n").removesuffix(b"\r")
    if not line or b"\n" in line or len(data) > MAX_PASSWORD_BYTES:
        raise ConfigError(f"{file} must hold one line with the password, of at most {MAX_PASSWORD_BYTES} bytes")
    return line


def _read_file(source: Path) -> bytes:
    return _read_standard_input() if str(source) == _STANDARD_INPUT else _read(source, MAX_WALLET_BYTES)


def _read(file: Path, limit_bytes: int) -> bytes:
    """Return a file, or so much that it is seen to be too long."""
    try:
        with file.open("rb") as stream:
            status = os.fstat(stream.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_mode & 0o044:
                logger.warning("%s can be read by others: chmod 600 %s", file, file)
            return stream.read(limit_bytes + 1)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {reason_of(error)}") from error


def _read_standard_input() -> bytes:
    if not sys.stdin.isatty():
        return sys.stdin.buffer.read(MAX_WALLET_BYTES + 1)
    with _hidden(sys.stdin.fileno()):
        # Not before: keys pressed until then are discarded.
        click.echo("Enter the secret key, which is not shown, then Ctrl-D on a line of its own: ", nl=False, err=True)
        return sys.stdin.buffer.read(MAX_WALLET_BYTES + 1)


@contextmanager
def _hidden(terminal: int) -> Iterator[None]:
    """Keep a terminal from showing input; unread input is discarded at the end, not left for the shell."""
    before = termios.tcgetattr(terminal)
    silent = [*before]
    silent[3] = before[3] & ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSAFLUSH, silent)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, before)


def _asked(what: str, otherwise: str) -> bytes:
    if not _terminal():
        raise ConfigError(f"no terminal to ask for the {what}: use {otherwise}")
    try:
        text: str = click.prompt(f"Enter the {what}", hide_input=True, err=True)
        return text.encode()
    except UnicodeError:
        # Its text has a byte of what was typed.
        raise MalformedRequest(f"what was typed is not in the terminal's encoding: use {otherwise}") from None


def _terminal() -> bool:
    """Whether someone can be asked, though the key itself may come from standard input."""
    if sys.stdin.isatty():
        return True
    try:
        Path("/dev/tty").open("rb").close()
    except OSError:
        return False
    return True


def _parsed(data: bytes, index: int, ask_password: AskPassword) -> PrivateKey:
    try:
        return read_secret_key(data, ask_password)
    except MalformedRequest as error:
        if not index:
            raise
        raise MalformedRequest(f"secret key {index + 1}: {error}") from None
