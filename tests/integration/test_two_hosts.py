"""Two hosts, two folders, the same keys, one enclave: the watermarks know nothing of each other, the guard of both."""

import http.client
import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.doubles.host_process import BAKER, import_keys, running_host, write_config
from tests.doubles.known_keys import FOUR, KnownKey, attestation, attestation_with_dal, block, preattestation
from tests.doubles.processes import PATIENCE_S, Enclave

TZ1, TZ2, _, TZ4 = FOUR
#: How many rights of each key are raced for.
RIGHTS = {TZ1: 400, TZ2: 400, TZ4: 200}
#: Every so many rights both hosts ask for the same message.
SAME_EVERY = 20


def message(right: int, payload: bytes) -> bytes:
    level = right // 3 + 1
    attest = attestation if level % 2 else attestation_with_dal
    return (block, preattestation, attest)[right % 3](level, payload=payload)


class Racer:
    """One host's side of the race for the rights of one key."""

    def __init__(self, port: int, key: KnownKey, payload: bytes, start: threading.Barrier) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        self._key = key
        self._payload = payload
        self._start = start

    def run(self) -> list[tuple[int, str]]:
        """Return status and body of the answer for each right."""
        try:
            return [self._ask(right) for right in range(RIGHTS[self._key])]
        except BaseException:
            self._start.abort()
            raise
        finally:
            self._connection.close()

    def _ask(self, right: int) -> tuple[int, str]:
        payload = bytes(32) if right % SAME_EVERY == 0 else self._payload
        body = json.dumps(message(right, payload).hex())
        self._start.wait(PATIENCE_S)
        self._connection.request("POST", f"/keys/{self._key.pkh}", body)
        response = self._connection.getresponse()
        return response.status, response.read().decode()


def race(key: KnownKey, ports: tuple[int, int]) -> Counter[str]:
    """Race two hosts for every right of a key; check each right; return who got how many."""
    start = threading.Barrier(2)
    racers = [Racer(port, key, bytes([number + 1]) * 32, start) for number, port in enumerate(ports)]
    with ThreadPoolExecutor(2) as threads:
        answers = [asked.result() for asked in [threads.submit(racer.run) for racer in racers]]
    seen: Counter[str] = Counter()
    for right, (one, two) in enumerate(zip(*answers, strict=True)):
        if right % SAME_EVERY == 0:
            assert one == two, right
            assert one[0] == 200
            seen["same message"] += 1
            continue
        winner, loser = (one, two) if one[0] == 200 else (two, one)
        assert winner[0] == 200, f"{right}: {winner}"
        assert loser[0] == 409, f"{right}: {loser}"
        assert "guard refused: " in loser[1]
        assert "another message was allowed there" in loser[1]
        seen["first host" if winner is one else "second host"] += 1
    return seen


def test_two_hosts_race_for_1000_rights(enclave: Enclave, tmp_path: Path) -> None:
    configs = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        config = write_config(folder, enclave.port, {key.pkh: BAKER for key in RIGHTS})
        import_keys(config, *RIGHTS)
        configs.append(config)
    with running_host(configs[0]) as one, running_host(configs[1]) as two, ThreadPoolExecutor(len(RIGHTS)) as threads:
        races = {key: threads.submit(race, key, (one.port, two.port)) for key in RIGHTS}
        seen = {key.name: race.result() for key, race in races.items()}
    print(seen)
    assert sum(sum(counts.values()) for counts in seen.values()) == 1000
