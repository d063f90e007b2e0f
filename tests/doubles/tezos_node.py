"""What clients ask a Tezos node for when they send an operation; what they inject is kept, and looked at by tests alone."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

CHAIN_ID = "NetXdQprcVkpaWU"
_PROTOCOL = "PsUshuai9QapM5TGj1JpuVGkdxz5GykdnEvS6Rh8SUVrARvZLCY"
_BLOCK = "BKiHLREqU3JkXfzEDYAkmmfX48gBDtYhMrpA98s7Aq4SzbUAB6M"
#: What the node says of every injected operation: clients look at its form alone.
OPERATION_HASH = "oneDGhZacw99EEFaYDTtWfz5QEhUW3PPVFsHa7GShnLPuDn7gSd"
_ANSWERS: dict[str, Any] = {
    "header": {"protocol": _PROTOCOL, "chain_id": CHAIN_ID, "hash": _BLOCK, "level": 1},
    "hash": _BLOCK,
    "chain_id": CHAIN_ID,
    "protocols": {"protocol": _PROTOCOL, "next_protocol": _PROTOCOL},
    "version": {"network_version": {"chain_name": "TEZOS_MAINNET"}},
    "constants": {
        "hard_gas_limit_per_operation": "1040000",
        "hard_gas_limit_per_block": "1040000",
        "hard_storage_limit_per_operation": "60000",
        "cost_per_byte": "250",
        "minimal_block_delay": "6",
    },
    "filter": {},
}
_RESULT = {"operation_result": {"status": "applied", "consumed_milligas": "169000"}, "balance_updates": []}


def _done(operation: dict[str, Any]) -> dict[str, Any]:
    return {**operation, "contents": [{**content, "metadata": _RESULT} for content in operation["contents"]]}


class TezosNode(ThreadingHTTPServer):
    """A node where everything that is asked for succeeds.

    Attributes:
        public_key: That of every account.
        injected: The operations that came, signatures included.
    """

    daemon_threads = False

    def __init__(self, public_key: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.public_key = public_key
        self.injected: list[bytes] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, path: str, body: Any) -> Any:
        """Return what a node answers; None where it has nothing of that name."""
        match path.split("/")[1:]:
            case [*_, "contracts", _]:
                return {"balance": "1000000000", "counter": "7"}
            case [*_, "manager_key"]:
                return self.public_key
            case [*_, "simulate_operation" | "run_operation"]:
                return _done(body["operation"])
            case [*_, "preapply", "operations"]:
                return [_done(operation) for operation in body]
            case ["injection", "operation"]:
                self.injected.append(bytes.fromhex(body))
                return OPERATION_HASH
            case [*_, name]:
                return _ANSWERS.get(name)


class _Handler(BaseHTTPRequestHandler):
    server: TezosNode

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: Any) -> None:
        answer = self.server.answer(self.path.partition("?")[0], body)
        data = json.dumps(answer).encode()
        self.send_response(404 if answer is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002, its name in the library
        """Say nothing."""


@contextmanager
def running_node(public_key: str) -> Iterator[TezosNode]:
    """Serve on a free port until the end."""
    with TezosNode(public_key) as node:
        thread = Thread(target=node.serve_forever)
        thread.start()
        try:
            yield node
        finally:
            node.shutdown()
            thread.join()
