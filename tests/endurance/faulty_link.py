"""Signs through a link on which everything goes wrong: `python -m tests.endurance.faulty_link N`.

Between host and enclave stands a proxy that drops, delays, truncates, splits, duplicates, reorders, resets, and lets
nothing pass, one fault after the other, with a moment of peace between them. 32 callers sign all the while: half of them
over HTTP with a real `serve`, half with a vault of this process; a third of them give up on every other request before it
is answered, by closing their HTTP connection or by cancelling. Every signature is verified before it is released.

- Every signature must be exactly that of the message that was asked for.
- A message that the watermark refused must never be signed, nor ever reach the link.
- Every request that no one gave up must be answered within its limit, with a signature, 409 where due, 502 or 503.
- A request that is made when a fault ends, and again when it fails, must succeed within a second.
"""

import asyncio
import json
import logging
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path

from enclave_signer.curves import SigningKey, curve
from enclave_signer.protocol.messages import SigningVersion
from enclave_signer.tezos import encode_signature, parse_secret_key
from host_backend.addresses import Address
from host_backend.enclave.endpoint import Endpoint
from host_backend.enclave.supervisor import DEFAULT_LIMITS
from host_backend.errors import EnclaveRefused, EnclaveUnavailable
from host_backend.keystore.file import FileKeyStore
from host_backend.signer import MARK_S
from host_backend.vault.vault import Vault, open_vault
from tests.doubles.fault_proxy import FAULTS, Fault, FaultProxy, fault_proxy
from tests.doubles.host_process import BAKER, Host, import_keys, key_file, running_host, write_config
from tests.doubles.known_keys import FOUR, KnownKey, attestation, transaction
from tests.doubles.processes import Enclave, running_leaky_enclave, running_local_enclave

logger = logging.getLogger(__name__)

SEED = 20260417
CALLERS = 32
#: Seconds for a request in all: for the link, for the mark, for the signature.
LIMIT_S = DEFAULT_LIMITS.ready_s + MARK_S + DEFAULT_LIMITS.signature_s
#: Seconds from the end of a fault to a signature.
BACK_S = 1.0
#: Requests that a fault lasts, and the peace after it, at most; and seconds, for a fault that lets nothing end.
LONGEST_FAULT_REQUESTS = 150
LONGEST_FAULT_S = 1.5
#: Seconds after which somebody who gives up has given up.
LONGEST_PATIENCE_S = 0.02
_OPENED: dict[str, SigningKey] = {key.pkh: curve(key.key_type).open(parse_secret_key(key.secret)) for key in FOUR}


def right_signature(key: KnownKey, message: bytes) -> str:
    """Return the only right signature of a message: all curves sign deterministically."""
    return encode_signature(_OPENED[key.pkh].sign(message, SigningVersion.V2))


@dataclass
class Counts:
    """What happened, and what must never happen."""

    requests: int = 0
    signatures: int = 0
    given_up: int = 0
    #: Answers 502 and 503.
    failed: int = 0
    #: Answers 409.
    refused: int = 0
    faults: int = 0
    #: Must be none: signatures of something else, of something refused, answers of another kind, late answers, late
    #: recoveries.
    wrong: int = 0
    signed_though_refused: int = 0
    strange: int = 0
    late: int = 0
    late_back: int = 0
    #: The longest of each, in milliseconds.
    slowest_ms: int = 0
    slowest_back_ms: int = 0

    @property
    def bad(self) -> bool:
        """Whether anything happened that must not."""
        return any((self.wrong, self.signed_though_refused, self.strange, self.late, self.late_back))

    def __str__(self) -> str:
        return "\n".join(f"{each.name.replace('_', ' '):<22}{getattr(self, each.name):>8}" for each in fields(self))


@dataclass
class Course:
    """What all callers share."""

    vault: Vault
    host_port: int
    chance: random.Random
    counts: Counts = field(default_factory=Counts)
    refused: set[bytes] = field(default_factory=set)
    signed: set[bytes] = field(default_factory=set)
    number: int = 0
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, requests: int, limit_s: float) -> None:
        """Wait until so many requests more have ended, or so many seconds."""
        target = self.counts.requests + requests
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s), self.news:
                await self.news.wait_for(lambda: self.counts.requests >= target)

    async def over_http(self, key: KnownKey, message: bytes) -> int:
        """Ask once, and return the status."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.host_port)
        try:
            body = json.dumps(message.hex()).encode()
            head = (
                f"POST /keys/{key.pkh} HTTP/1.1\r\nHost: s\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            answer = await reader.read()
        finally:
            # A client that gives up leaves before the answer.
            writer.transport.abort()
        head_, _, content = answer.partition(b"\r\n\r\n")
        status = int(head_.split()[1]) if head_ else 0
        if status == 200:
            self.check(key, message, json.loads(content)["signature"])
        return status

    async def by_library(self, key: KnownKey, message: bytes) -> int:
        """Ask once, and return the status that the answer would have over HTTP."""
        try:
            signature = await self.vault.sign(key.pkh, message)
        except (EnclaveRefused, EnclaveUnavailable) as error:
            return error.http_status
        self.check(key, message, encode_signature(signature))
        return 200

    def check(self, key: KnownKey, message: bytes, signature: str) -> None:
        self.counts.signatures += 1
        self.signed.add(message)
        self.counts.wrong += signature != right_signature(key, message)

    async def ask(self, key: KnownKey, message: bytes, *, http: bool, patience_s: float | None = None) -> int | None:
        """Ask once, count, and return the status; None when the caller has given up."""
        started = time.monotonic()
        status: int | None = None
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                status = await (self.over_http if http else self.by_library)(key, message)
        took_s = time.monotonic() - started
        self.note(status, took_s)
        async with self.news:
            self.news.notify_all()
        return status

    def note(self, status: int | None, took_s: float) -> None:
        counts = self.counts
        counts.requests += 1
        counts.given_up += status is None
        counts.failed += status in (502, 503)
        counts.refused += status == 409
        if status not in (None, 200, 409, 502, 503):
            counts.strange += 1
            logger.error("an answer of status %d", status)
        counts.late += took_s > LIMIT_S
        counts.slowest_ms = max(counts.slowest_ms, int(took_s * 1e3))

    def new_message(self) -> bytes:
        self.number += 1
        return transaction(self.number)

    async def back(self) -> None:
        """Ask until there is a signature, of each kind of caller; note how long that took."""
        started = time.monotonic()
        for http in (True, False):
            while await self.ask(FOUR[self.number % 4], self.new_message(), http=http) != 200:
                if time.monotonic() - started > LIMIT_S:
                    break
        took_s = time.monotonic() - started
        self.counts.slowest_back_ms = max(self.counts.slowest_back_ms, int(took_s * 1e3))
        self.counts.late_back += took_s > BACK_S


class Caller:
    """Signs until asked to stop; each has its own chain, so that each has its own marks."""

    def __init__(self, course: Course, number: int) -> None:
        self._course = course
        self._number = number
        self._key = FOUR[number % len(FOUR)]
        self._http = number % 2 == 0
        self._leaves = number % 3 == 0
        self._level = 0

    async def run(self) -> None:
        while True:
            await (self._attest() if self._http else self._ask(self._course.new_message()))

    async def _ask(self, message: bytes) -> int | None:
        chance = self._course.chance
        gives_up = self._leaves and chance.random() < 0.5
        patience_s = chance.uniform(0, LONGEST_PATIENCE_S) if gives_up else None
        return await self._course.ask(self._key, message, http=self._http, patience_s=patience_s)

    async def _attest(self) -> None:
        """Sign at the next level, and sometimes ask for another message there, again and again."""
        self._level += 1
        first = await self._ask(self._message(0))
        if self._course.chance.random() < 0.25:
            other = self._message(1)
            for _ in range(2):
                status = await self._ask(other)
                if status == 409:
                    self._course.refused.add(other)
                elif first == 200 and status == 200:
                    self._course.counts.signed_though_refused += 1

    def _message(self, variant: int) -> bytes:
        return attestation(self._level, payload=bytes([variant]) * 32, chain=1000 + self._number)


async def drive(course: Course, proxy: FaultProxy, requests: int) -> None:
    """Let callers sign under one fault after the other."""
    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(Caller(course, number).run()) for number in range(CALLERS)]
        await course.until(CALLERS, LIMIT_S)
        coming: list[Fault] = []
        # Every kind once, at least; chance may spare every frame for a while, and not for ever.
        while course.counts.requests < requests or coming or not all(proxy.done[fault] for fault in FAULTS):
            assert course.counts.faults < requests, "a fault never came about"
            coming = coming or course.chance.sample(FAULTS, len(FAULTS))
            proxy.begin(coming.pop())
            await course.until(course.chance.randint(20, LONGEST_FAULT_REQUESTS), LONGEST_FAULT_S)
            await asyncio.to_thread(proxy.heal)
            course.counts.faults += 1
            await course.back()
            await course.until(course.chance.randint(20, LONGEST_FAULT_REQUESTS), LONGEST_FAULT_S)
        for caller in callers:
            caller.cancel()


@dataclass
class Stand:
    """Both programs, and the proxy between them."""

    enclave: Enclave
    proxy: FaultProxy
    host: Host
    course: Course


@asynccontextmanager
async def stand(folder: Path, seed: int, leak: str | None = None) -> AsyncIterator[Stand]:
    """Start an enclave, a proxy, a host, and a vault of this process, which share the sealed keys.

    Args:
        folder: Must be empty.
        seed: Of everything that chance decides.
        leak: What the enclave leaks on purpose; None: nothing.
    """
    sealing_key = folder / "sealing.key"
    with (
        running_local_enclave(sealing_key) if leak is None else running_leaky_enclave(sealing_key, leak) as enclave,
        fault_proxy(enclave.address, seed) as proxy,
    ):
        config = write_config(folder, proxy.port, {key.pkh: BAKER for key in FOUR})
        import_keys(config, *FOUR)
        with running_host(config) as host:
            async with open_vault(FileKeyStore(key_file(config)), Endpoint(Address("127.0.0.1", proxy.port))) as vault:
                yield Stand(enclave, proxy, host, Course(vault, host.port, random.Random(seed)))


async def run(requests: int, folder: Path, seed: int = SEED) -> tuple[Counts, Stand]:
    """Sign so many requests in a folder of its own, and count."""
    async with stand(folder, seed) as place:
        await drive(place.course, place.proxy, requests)
        counts = place.course.counts
        counts.signed_though_refused += len(place.course.refused & (place.proxy.messages | place.course.signed))
        counts.strange += place.host.health() != (200, {"ready": True})
        counts.strange += "Traceback" in place.host.log
    return counts, place


def main() -> None:
    """Run, print the counts, and fail when anything happened that must not."""
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory(prefix="faulty-link-") as folder:
        counts, place = asyncio.run(run(requests, Path(folder)))
    print(counts)
    print(f"{'connections':<22}{place.proxy.connections:>8}")
    for fault in FAULTS:
        print(f"  {fault:<20}{place.proxy.done[fault]:>8}")
    sys.exit(counts.bad)


if __name__ == "__main__":
    main()
