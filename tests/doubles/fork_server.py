"""Starts our programs by `fork`, all of their modules imported already: a start costs a tenth of a new interpreter's.

It is asked on the socket that is its standard input: the length of a request, with which the standard streams of the
program travel, then the request. It answers with the number of the process, which is then a child of the one that asked.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import runpy
import socket
import struct
import sys
import threading
import types
import warnings
from dataclasses import dataclass
from typing import Any, NoReturn

import coverage

import enclave_signer
import host_backend

#: A length, or a process: what both sides read at once.
NUMBER = struct.Struct(">I")
#: It changes settings of the whole interpreter, and no program loads it by default.
_NOT_IMPORTED = "enclave_signer.curves.bls_py_ecc"


@dataclass(frozen=True, slots=True)
class Request:
    """A module to be run as `python -m` does, and in which surroundings."""

    module: str
    arguments: list[str]
    environment: dict[str, str]
    folder: str
    new_session: bool

    def encode(self) -> bytes:
        fields = (self.module, self.arguments, self.environment, self.folder, self.new_session)
        return json.dumps(fields).encode()

    @classmethod
    def decode(cls, data: bytes) -> "Request":
        fields: Any = json.loads(data)
        return cls(*fields)


def import_all(package: types.ModuleType) -> None:
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not found.name.endswith("__main__") and found.name != _NOT_IMPORTED:
            importlib.import_module(found.name)


def keep_coverage() -> None:
    """Write what the imports covered, so that not every program writes it again."""
    if (measuring := coverage.Coverage.current()) is not None:
        measuring.save()


def serve(asked: socket.socket) -> Request | None:
    """Start programs on request until the other side has ended; return twice: in each new process, what it is to run."""
    while True:
        head, streams, _, _ = socket.recv_fds(asked, NUMBER.size, 3)
        if not head:
            return None
        data = b""
        while len(data) < NUMBER.unpack(head)[0]:
            data += asked.recv(NUMBER.unpack(head)[0] - len(data))
        number = _forked()
        if number is None:
            asked.close()
            for place, stream in enumerate(streams):
                os.dup2(stream, place)
                os.close(stream)
            return Request.decode(data)
        for stream in streams:
            os.close(stream)
        asked.sendall(number)


def _forked() -> bytes | None:
    """Return the number of a process that belongs to the one that asked, which adopts orphans meanwhile; None in it."""
    reader, writer = os.pipe()
    between = os.fork()
    if between:
        os.waitpid(between, 0)
    elif started := os.fork():
        os.write(writer, NUMBER.pack(started))
        os._exit(0)
    number = os.read(reader, NUMBER.size) if between else None
    os.close(reader)
    os.close(writer)
    return number


def run(request: Request) -> None:
    if request.new_session:
        os.setsid()
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    sys.argv[1:] = request.arguments
    runpy.run_module(request.module, run_name="__main__", alter_sys=True)


def end(code: object) -> NoReturn:
    """End as an interpreter does, except that it does not take every module apart, which costs more than most programs."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if isinstance(code, str):
        print(code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def main() -> None:
    # A descriptor that no standard stream of a program takes.
    asked = socket.socket(fileno=os.dup(0))
    with warnings.catch_warnings():
        # Those of libraries: a program gives what its own code says.
        warnings.simplefilter("ignore")
        import_all(enclave_signer)
        import_all(host_backend)
    keep_coverage()
    gc.freeze()
    request = serve(asked)
    if request is None:
        asked.close()
        return
    try:
        run(request)
    except SystemExit as ended:
        end(ended.code)
    # Any other exception ends the interpreter in its own way.
    end(None)


if __name__ == "__main__":
    main()
