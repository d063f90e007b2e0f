"""Bakers of a run: each asks for one right of one key, level after level, and also for what must be refused."""

import http.client
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.doubles.host_process import ask
from tests.doubles.known_keys import CHAIN, KnownKey, attestation, block, preattestation
from tests.endurance.chaos_oracle import Oracle

#: Seconds between two turns of a baker, at most.
LONGEST_PAUSE_S = 0.5
#: Seconds before a baker that was not answered asks again.
AGAIN_S = 0.1
#: The rights that a baker may have; blocks have no other round here.
MAKERS: tuple[Callable[..., bytes], ...] = (attestation, preattestation, block)
#: Where the probes sign: a chain of their own.
PROBED_CHAIN = CHAIN + 7


@dataclass
class Book:
    """What all who ask share."""

    oracle: Oracle = field(default_factory=Oracle)
    #: For which key each message was made.
    pkh_of: dict[bytes, str] = field(default_factory=dict)


class Door:
    """Where clients of one host come to; its port changes when it is started again."""

    def __init__(self, book: Book, port: Callable[[], int]) -> None:
        self._book = book
        self._port = port

    def ask(self, key: KnownKey, message: bytes, *, repeat: bool = False) -> int:
        """Ask once; return the status, 0 for no answer."""
        self._book.pkh_of[message] = key.pkh
        began, status, signature = time.monotonic(), 0, ""
        try:
            answer = ask(self._port(), "POST", f"/keys/{key.pkh}", f'"{message.hex()}"')
            status = answer.status
            if status == 200:
                signature = answer.signature
        except (OSError, http.client.HTTPException):
            pass
        ended = time.monotonic()
        self._book.oracle.answered(key, message, status, signature, began, ended, repeat=repeat)
        return status


class Baker:
    """Asks for one right, in turns whose kind chance says."""

    def __init__(self, door: Door, key: KnownKey, make: Callable[..., bytes], seed: str) -> None:
        self._door = door
        self._key = key
        self._make = make
        self._chance = random.Random(seed)
        self._level, self._round = 0, 0
        self._other = ThreadPoolExecutor(1)

    def run(self, end: threading.Event) -> None:
        """Ask until the end."""
        with self._other:
            while not end.wait(self._chance.uniform(0, LONGEST_PAUSE_S)):
                self._advance()
                turn = self._chance.choices(
                    (self._once, self._race, self._conflict, self._stale), weights=(5, 2, 2, 1)
                )[0]
                if turn() == 0:
                    end.wait(AGAIN_S)

    def _advance(self) -> None:
        if self._make is not block and self._chance.random() < 0.2:
            self._round += 1
        else:
            self._level, self._round = self._level + 1, 0

    def message(self, variant: int, level: int | None = None) -> bytes:
        """Return one of the messages for a level, the present one unless given."""
        more = {} if self._make is block else {"round_": self._round}
        return self._make(level or self._level, payload=payload(self._key, variant), **more)

    def _once(self) -> int:
        return self._door.ask(self._key, self.message(0))

    def _race(self) -> int:
        """Ask for two messages at once."""
        other = self._other.submit(self._door.ask, self._key, self.message(1))
        return max(self._once(), other.result())

    def _conflict(self) -> int:
        """Ask for one, for another, and for the first again."""
        first = self._once()
        self._door.ask(self._key, self.message(1))
        self._door.ask(self._key, self.message(0), repeat=first == 200)
        return first

    def _stale(self) -> int:
        """Ask for another message where the chain is already past it."""
        first = self._once()
        self._door.ask(self._key, self.message(2, max(1, self._level - self._chance.randint(1, 3))))
        return first

    def ask_for_another(self) -> None:
        """Ask for another message at the present place, to have it refused."""
        self._door.ask(self._key, self.message(3))


def payload(key: KnownKey, variant: int) -> bytes:
    """Return 32 bytes that no other key has."""
    return bytes([variant]) + key.pkh.encode()[:31]


class Probe:
    """Asks a host until each of its keys has signed."""

    def __init__(self, door: Door, keys: tuple[KnownKey, ...]) -> None:
        self._door = door
        self._keys = keys
        self._level = 0

    def back(self, since: float, limit_s: float) -> float | None:
        """Return the seconds since a moment until every key has signed; None when they have not in that time."""
        for key in self._keys:
            self._level += 1
            while self._door.ask(key, self._message(key)) != 200:
                if time.monotonic() - since > limit_s:
                    return None
                self._level += 1
                time.sleep(AGAIN_S / 2)
        return time.monotonic() - since

    def _message(self, key: KnownKey) -> bytes:
        return attestation(self._level, chain=PROBED_CHAIN, payload=payload(key, 0))
