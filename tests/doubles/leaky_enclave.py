"""The daemon, which leaks on purpose: 64 bytes for each read of calls, or 2 KiB for each connection, as `LEAK` says."""

import os
from unittest.mock import patch

from enclave_signer.__main__ import main as serve
from enclave_signer.serving.connection import Connection
from enclave_signer.serving.turn import Turn

LEAK_VARIABLE = "LEAK"
#: What is kept of each, with the object that holds it.
_KEPT = {"request": bytes(31), "connection": bytes(2015)}
LEAKS = tuple(_KEPT)

_leaked: list[bytes] = []


def _leak(what: str) -> None:
    # A new object each time.
    _leaked.append(_KEPT[what][:-1] + b"\1")


class _LeakyTurn(Turn):
    def answers(self) -> bytes:
        _leak("request")
        return super().answers()


class _LeakyConnection(Connection):
    async def serve(self) -> None:
        _leak("connection")
        await super().serve()


def main() -> None:
    by_request = os.environ[LEAK_VARIABLE] == "request"
    where, what = ("connection.Turn", _LeakyTurn) if by_request else ("server.Connection", _LeakyConnection)
    with patch(f"enclave_signer.serving.{where}", what):
        serve()


if __name__ == "__main__":
    main()
