"""A configuration read by a process of its own, while this one signs.

Reading thousands of keys takes seconds of Python's time. In a thread it would take them from the event loop: each
signature would wait for the interpreter's lock a dozen times, and once more for the collection of garbage from reading.

- The process is this interpreter, with the modules that this one has. It has a low priority.
- It answers in parts, each of which a thread takes in within half a millisecond.
"""

import asyncio
import gc
import os
import pickle
import struct
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import IO, cast

from enclave_signer import __version__
from host_backend.config import Config, load_config
from host_backend.errors import ConfigError
from host_backend.inspection import forbid_inspection
from host_backend.policy import KeyPolicy

#: Seconds for reading a configuration: ten thousand keys take some ten.
READING_S = 300.0
#: Keys in a part, which takes less than half a millisecond to take in.
KEYS_PER_PART = 250
#: Of the process, which signatures do not wait for. Source: nice(2).
_NICE = 10
_LENGTH = struct.Struct(">I")
#: How the process begins.
_PROGRAM = "from host_backend.config.reading import write_parts; write_parts()"

_Policies = dict[str, KeyPolicy]


class ReadingFailed(Exception):
    """The process met a bug; the text is its traceback."""


@dataclass(frozen=True, slots=True)
class _Refused:
    text: str


@dataclass(frozen=True, slots=True)
class _Bug:
    trace: str


async def read_config(file: Path, base_dir: str | None = None) -> Config:
    """Return the configuration in a file, as `load_config` does, without holding up requests.

    Args:
        file: The YAML file.
        base_dir: Takes the place of `base_dir` in the file.

    Raises:
        ConfigError: With file, line and dotted path of each fault; or the process could not do its work.
        ReadingFailed: A bug.
    """
    try:
        # Takes less than half a millisecond, however much memory this process has: nothing is copied.
        process = _started(file, base_dir)
        try:
            async with asyncio.timeout(READING_S):
                return await asyncio.to_thread(_taken_in, process)
        finally:
            # A reader of its answer comes to the end then.
            process.kill()
    except TimeoutError:
        raise ConfigError(f"{file}: could not be read within {READING_S:g} s") from None
    except (EOFError, OSError) as error:
        raise ConfigError(f"{file}: the process that reads it failed: {error}") from error


def _started(file: Path, base_dir: str | None) -> Popen[bytes]:
    return Popen(  # noqa: S603 -- this program itself
        [sys.executable, "-c", _PROGRAM, str(file), *([] if base_dir is None else [base_dir])],
        stdin=DEVNULL,
        stdout=PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONSAFEPATH": "1"},
        # Signals to this program's group, such as another SIGHUP, are not for it.
        start_new_session=True,
    )


def _taken_in(process: Popen[bytes]) -> Config:
    with process, cast("IO[bytes]", process.stdout) as stream:
        # Parts of another version may be read as what they are not.
        if _part(stream) != __version__.encode():
            raise ConfigError("another version of enclave-host was installed since this one was started: restart it")
        whole: Config | _Refused | _Bug = pickle.loads(_part(stream))  # noqa: S301 -- our own process
        if isinstance(whole, _Refused):
            raise ConfigError(whole.text)
        if isinstance(whole, _Bug):
            raise ReadingFailed(whole.trace)
        policies: _Policies = {}
        distinct: dict[KeyPolicy, KeyPolicy] = {}
        while part := cast("_Policies", pickle.loads(_part(stream))):  # noqa: S301 -- our own process
            policies.update((pkh, distinct.setdefault(policy, policy)) for pkh, policy in part.items())
        return replace(whole, policies=policies)


def _part(stream: IO[bytes]) -> bytes:
    length: int
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    return _exactly(stream, length)


def _exactly(stream: IO[bytes], length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise EOFError("its answer is not whole")
    return data


def write_parts() -> None:
    """Be the process: read the file that the command line names, and write it to standard output in parts."""
    os.nice(_NICE)
    forbid_inspection()
    # All of it is in use until the end.
    gc.disable()
    file, *base_dir = sys.argv[1:]
    for data in _parts(Path(file), *base_dir):
        sys.stdout.buffer.write(_LENGTH.pack(len(data)) + data)
    sys.stdout.buffer.flush()


def _parts(file: Path, base_dir: str | None = None) -> Iterator[bytes]:
    yield __version__.encode()
    try:
        config = load_config(file, base_dir)
    except ConfigError as error:
        yield pickle.dumps(_Refused(str(error)))
        return
    except Exception:  # noqa: BLE001 -- reported where it is logged
        yield pickle.dumps(_Bug(traceback.format_exc()))
        return
    yield pickle.dumps(replace(config, policies={}))
    left = iter(config.policies.items())
    while part := dict(islice(left, KEYS_PER_PART)):
        yield pickle.dumps(part)
    yield pickle.dumps({})
