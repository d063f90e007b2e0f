"""Clients of an enclave's Unix socket that are other users: forked by root, which has imported everything already."""

import json
import os
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cbor2


def as_user(
    uid: int, groups: Sequence[int], deed: Callable[[], Any], *, cgroup: Path | None = None
) -> Callable[[], Any]:
    """Have another user do something, in a process of its own; return what waits for its result.

    Args:
        uid: The user, and its primary group.
        groups: Its supplementary groups.
        deed: Returns a value that JSON has.
        cgroup: The folder of its control group.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.close(reading)
            if cgroup is not None:
                (cgroup / "cgroup.procs").write_text(str(os.getpid()))
            os.setgroups([*groups])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            with os.fdopen(writing, "w") as told:
                json.dump(deed(), told)
            code = 0
        except BaseException as error:  # noqa: BLE001 -- the end of a process
            sys.stderr.write(f"{error!r}\n")
        finally:
            os._exit(code)
    os.close(writing)

    def result() -> Any:
        with os.fdopen(reading) as text:
            value = text.read()
        _, status = os.waitpid(pid, 0)
        assert status == 0, "the other user's process failed"
        return json.loads(value)

    return result


class Caller:
    """A connection to a Unix socket; an answer is "ok", the beginning of a refusal, or "closed"."""

    def __init__(self, path: Path) -> None:
        self._stream = socket.socket(socket.AF_UNIX)
        self._stream.settimeout(60)
        self._stream.connect(str(path))

    def call(self, request: object) -> str:
        """Make a call."""
        body = cbor2.dumps(request)
        try:
            self._stream.sendall(struct.pack(">I", len(body)) + body)
            head = self._exactly(4)
            answer = cbor2.loads(self._exactly(struct.unpack(">I", head)[0]))
        except (ConnectionError, EOFError):
            return "closed"
        return "ok" if "Ok" in answer else str(answer["Err"]["message"])

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._stream.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def close(self) -> None:
        """End it."""
        self._stream.close()


def tried(path: Path, request: object) -> str:
    """Make one call on a connection of its own."""
    try:
        caller = Caller(path)
    except PermissionError:
        return "not allowed to connect"
    answer = caller.call(request)
    caller.close()
    return answer
