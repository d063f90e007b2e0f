"""Kills the host between mark and signature, again and again: `python -m tests.endurance.kill_host N`.

Sixteen clients sign ascending levels at once; at a random moment the host is killed with SIGKILL: while the enclave is
being asked, while its signature is on the way back, or at any other moment. Then the host is started again on the same
folder, and for every level of that run another message is asked for, and for the last one the same message again.

- Wherever a message had left the host for the enclave, another one at its level must be refused.
- The same message must be signed again, alike: its mark, if there is one, is its own.
- Of all messages of one key, right and level, the enclave may ever have been asked for one only.
"""

import http.client
import random
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path

from tests.doubles.enclave_proxy import EnclaveProxy, Hold, enclave_proxy
from tests.doubles.host_process import BAKER, Host, import_keys, write_config
from tests.doubles.known_keys import CHAIN, FOUR, KnownKey, attestation, block, preattestation
from tests.doubles.processes import PATIENCE_S, unguarded_enclave

SEED = 20260417
#: Messages to let through before something is held back, or before the kill, at most.
LONGEST_RUN_MESSAGES = 60
#: Clients at once: each of the four keys with every right, and with one of them on another chain.
CLIENTS = 16
_OTHER_CHAIN = CHAIN + 1
_HOLDS = (Hold.REQUESTS, Hold.REPLIES, Hold.NOTHING)


@dataclass
class Counts:
    """What happened, and what must never happen."""

    kills: int = 0
    #: Requests that clients sent before the kills, and signatures that they got.
    requests: int = 0
    signatures: int = 0
    #: Requests that left the host for the enclave, and whose client never got an answer.
    in_between: int = 0
    #: Other messages that were refused after the restart, of levels where one had left the host.
    refused: int = 0
    #: Other messages that were signed after the restart, of levels where none had left the host.
    free: int = 0
    #: The same message, signed again after the restart.
    repeated: int = 0
    #: Other messages signed where one had left the host; signatures that were not repeated; levels asked for twice.
    lost_marks: int = 0
    not_repeated: int = 0
    signed_twice: int = 0

    def __str__(self) -> str:
        return "\n".join(f"{each.name.replace('_', ' '):<14}{getattr(self, each.name):>8}" for each in fields(self))


@dataclass
class Series:
    """One client: one key's messages of one right on one chain, level after level; at most one request is under way."""

    number: int
    key: KnownKey
    make: Callable[..., bytes]
    chain: int = CHAIN
    level: int = 0
    sent: dict[int, bytes] = field(default_factory=dict)
    signed: dict[int, str] = field(default_factory=dict)

    def message(self, level: int, variant: int) -> bytes:
        return self.make(level, payload=bytes([self.number, variant]) + bytes(30), chain=self.chain)

    def sign_until_killed(self, host: Host) -> None:
        self.sent.clear()
        self.signed.clear()
        while True:
            self.level += 1
            message = self.sent[self.level] = self.message(self.level, 0)
            try:
                answer = host.sign(self.key.pkh, message)
            except (OSError, http.client.HTTPException):
                return
            self.signed[self.level] = answer.signature


def all_series() -> list[Series]:
    kinds = [(make, CHAIN) for make in (attestation, preattestation, block)] + [(attestation, _OTHER_CHAIN)]
    every = [(key, make, chain) for key in FOUR for make, chain in kinds]
    assert len(every) == CLIENTS
    return [Series(number, *series) for number, series in enumerate(every)]


def load_and_kill(host: Host, proxy: EnclaveProxy, every: list[Series], hold: Hold, chance: random.Random) -> None:
    """Let every series sign, and kill the host at a moment that chance names in events, not in time."""
    threads = [threading.Thread(target=series.sign_until_killed, args=(host,)) for series in every]
    for thread in threads:
        thread.start()
    proxy.wait(messages=len(proxy.messages) + chance.randint(0, LONGEST_RUN_MESSAGES))
    if hold is not Hold.NOTHING:
        held = proxy.held
        proxy.hold(hold)
        # Each series is held up by its own message; the others are somewhere on the way.
        proxy.wait(held=held + chance.randint(1, len(every)))
    host.process.kill()
    for thread in threads:
        thread.join(PATIENCE_S)
    host.discard()
    proxy.wait_for_silence()
    proxy.hold(Hold.NOTHING)


def check(host: Host, series: Series, asked: set[bytes], counts: Counts) -> None:
    """Ask for another message at every level of the last run, and for the last one again."""
    counts.requests += len(series.sent)
    counts.signatures += len(series.signed)
    other_signed = False
    for level, message in series.sent.items():
        left_host = message in asked
        assert left_host or level not in series.signed
        counts.in_between += left_host and level not in series.signed
        answer = host.sign(series.key.pkh, series.message(level, 1))
        other_signed = answer.status == 200
        if left_host:
            counts.lost_marks += other_signed
            counts.refused += answer.status == 409
        else:
            counts.free += other_signed
            assert answer.status in (200, 409)
    answer = host.sign(series.key.pkh, series.sent[series.level])
    if other_signed:
        counts.signed_twice += answer.status != 409
    elif answer.status == 200 and answer.signature == series.signed.get(series.level, answer.signature):
        counts.repeated += 1
    else:
        counts.not_repeated += 1


def run(kills: int, folder: Path, seed: int = SEED) -> Counts:
    """Kill the host so many times, in a folder of its own, and count."""
    chance = random.Random(seed)
    counts, every = Counts(), all_series()
    with unguarded_enclave(folder / "sealing.key") as enclave, enclave_proxy(enclave.address) as proxy:
        config = write_config(folder, proxy.port, {key.pkh: BAKER for key in FOUR})
        import_keys(config, *FOUR)
        host = start(config)
        try:
            for number in range(kills):
                load_and_kill(host, proxy, every, _HOLDS[number % len(_HOLDS)], chance)
                counts.kills += 1
                host = start(config)
                asked = set(proxy.messages)
                for series in every:
                    check(host, series, asked, counts)
        finally:
            host.discard()
        counts.signed_twice += asked_twice(every, set(proxy.messages))
    return counts


def start(config: Path) -> Host:
    host = Host(config)
    host.ready()
    return host


def asked_twice(every: list[Series], asked: set[bytes]) -> int:
    """Return at how many levels the enclave was asked to sign two messages."""
    return sum(
        series.message(level, 0) in asked and series.message(level, 1) in asked
        for series in every
        for level in range(1, series.level + 1)
    )


def main() -> None:
    """Run, print the counts, and fail when anything happened that must not."""
    with tempfile.TemporaryDirectory(prefix="kill-host-") as folder:
        counts = run(int(sys.argv[1]) if len(sys.argv) > 1 else 20, Path(folder))
    print(counts)
    sys.exit(bool(counts.lost_marks or counts.not_repeated or counts.signed_twice))


if __name__ == "__main__":
    main()
