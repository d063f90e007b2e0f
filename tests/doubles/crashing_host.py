"""The host, made to die at one step between a request and its answer: `… STEP ARMED serve -c FILE`.

It dies as by `kill -9`, in the given step of the first request that gets there once the file ARMED exists.
"""

import asyncio
import functools
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

#: Step by step: where it is, and whether death comes before or after it.
STEPS = {
    "body read": ("host_backend.api.signing", "parse_body", "after"),
    "message parsed": ("host_backend.signer", "parse_message", "after"),
    "key found": ("host_backend.signer", "find_vault", "after"),
    "mark asked for": ("host_backend.watermark.file.store", "FileWatermarkStore.advance", "before"),
    "mark judged": ("host_backend.watermark.file.batches", "Batches._judge", "after"),
    "mark about to be written": ("host_backend.watermark.file.blocks", "PosixBlocks.pwritev", "before"),
    "mark written": ("host_backend.watermark.file.blocks", "PosixBlocks.pwritev", "after"),
    "marks about to be synced": ("host_backend.watermark.file.blocks", "PosixBlocks.fdatasync", "before"),
    "marks synced": ("host_backend.watermark.file.blocks", "PosixBlocks.fdatasync", "after"),
    "mark answered": ("host_backend.watermark.file.store", "FileWatermarkStore.advance", "after"),
    "call about to be sent": ("host_backend.enclave.connection", "EnclaveConnection._send", "before"),
    "call sent": ("host_backend.enclave.connection", "EnclaveConnection._send", "after"),
    "reply come": ("host_backend.enclave.connection", "EnclaveConnection.data_received", "before"),
    "reply taken": ("host_backend.enclave.connection", "EnclaveConnection.data_received", "after"),
    "signature verified": ("host_backend.api.signing", "encode_signature", "before"),
    "answer about to be sent": ("host_backend.api.signing", "encode_signature", "after"),
    "answer sent": ("host_backend.api.signing", "Keys.__call__", "after"),
}
#: More steps, on the way to the first mark of a right.
FIRST_STEPS = {
    "slot about to be given": ("host_backend.watermark.file.slots", "SlotFile._grow", "before"),
    "slot about to be counted": ("host_backend.watermark.file.slots", "SlotFile._count", "before"),
    "slot counted by one header": ("host_backend.watermark.file.slots", "SlotFile._level_headers", "before"),
    "slot counted": ("host_backend.watermark.file.slots", "SlotFile._count", "after"),
}


def die_at(step: str, armed: Path) -> None:
    """Put death into a step."""
    module, path, when = (STEPS | FIRST_STEPS)[step]
    *owners, name = path.split(".")
    owner: Any = functools.reduce(getattr, owners, import_module(module))
    setattr(owner, name, _deadly(getattr(owner, name), when, armed))


def _deadly(step: Callable[..., Any], when: str, armed: Path) -> Callable[..., Any]:
    def die(here: str) -> None:
        if here == when and armed.exists():
            os.kill(os.getpid(), signal.SIGKILL)

    if asyncio.iscoroutinefunction(step):

        @functools.wraps(step)
        async def run_async(*arguments: object, **named: object) -> object:
            die("before")
            result: object = await step(*arguments, **named)
            die("after")
            return result

        return run_async

    @functools.wraps(step)
    def run(*arguments: object, **named: object) -> object:
        die("before")
        result: object = step(*arguments, **named)
        die("after")
        return result

    return run


if __name__ == "__main__":
    from host_backend.cli.commands import main

    die_at(sys.argv[1], Path(sys.argv[2]))
    sys.argv[1:3] = []
    main()
