"""TOML files of bounded size: their text, and its outermost table."""

import tomllib
from pathlib import Path

from enclave_signer.errors import ConfigError
from enclave_signer.toml_table import TomlTable

#: Bytes of a file: an image, or a keyprovider, has a few keys and identities to name.
MAX_FILE_BYTES = 65536


def read_toml(path: Path) -> str:
    """Return the text of a file.

    Raises:
        ConfigError: It cannot be read, is too large, or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: has more than {MAX_FILE_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8") from None


def parse_toml(text: str, file: str) -> TomlTable:
    """Return the outermost table of a text.

    Args:
        text: In TOML.
        file: How refusals name the file.

    Raises:
        ConfigError: It is not TOML.
    """
    try:
        return TomlTable(tomllib.loads(text), file)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: {error}") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{file}: has a number that is too long, or is nested too deeply") from None
