"""Both programs while no one reads their logs: every request is answered, and dropped lines are counted.

python -m tests.endurance.unread_log [REQUESTS]
"""

import http.client
import json
import re
import sys
import tempfile
from pathlib import Path

from tests.doubles.host_process import BAKER, import_keys, write_config
from tests.doubles.known_keys import FOUR, transaction
from tests.doubles.processes import PATIENCE_S, running_local_enclave
from tests.doubles.unread_log import UnreadHost, ended, start_enclave
from tests.doubles.wire import WireClient

TZ1 = FOUR[0]


def ask_host(host: UnreadHost, requests: int) -> None:
    """Have messages signed on one connection, and look at the state of the host."""
    connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=PATIENCE_S)
    for number in range(requests):
        connection.request("POST", f"/keys/{TZ1.pkh}", json.dumps(transaction(number % 100).hex()))
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()
    connection.close()
    assert host.health()[0] == 200


def ask_enclave(address: tuple[str, int], requests: int) -> None:
    """Reconnect for every call."""
    for _ in range(requests):
        with WireClient(address) as client:
            assert "Err" in client.call({"PublicKey": 0})


def main() -> None:
    """Ask, stop the programs in order while no one reads, and print what their logs say; then once more, reading again."""
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    for read_again in (False, True):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            with running_local_enclave(folder / "sealing.key") as enclave:
                config = write_config(folder, enclave.port, {key.pkh: BAKER for key in FOUR})
                import_keys(config, *FOUR)
                host = UnreadHost(config, "--log", "debug")
                unread = start_enclave(folder / "other.key", "--log", "debug")
                with ended(host), ended(unread):
                    host.ready()
                    unread.ready()
                    ask_host(host, requests)
                    ask_enclave(unread.address, requests)
                    for what, program in (("host", host), ("enclave", unread)):
                        memory = program.resident_bytes() >> 20
                        if read_again:
                            program.read_on()
                            program.wait_for(r"(\d+) log lines were dropped")
                        code = program.stop() if read_again else program.end_unread()
                        lines = program.log.count("\n")
                        dropped = sum(map(int, re.findall(r'"(\d+) log lines were dropped"', program.log)))
                        print(
                            f"{what}: {requests} requests answered while nobody read; "
                            f"{'read again' if read_again else 'never read again'}: {lines} lines, "
                            f"{dropped} reported as dropped; exit code {code}; resident {memory} MiB",
                            flush=True,
                        )
                        assert code == 0


if __name__ == "__main__":
    main()
