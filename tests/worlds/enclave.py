"""The enclave half: the guard, the keys and the sessions of the product, behind connections of the world."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, cast

from enclave_signer.errors import BlobCorrupt, SealingRefused, SealingUnavailable
from enclave_signer.guard import Guard
from enclave_signer.keychain import Keychain, OpenKeys
from enclave_signer.protocol.errors import BadFrame
from enclave_signer.protocol.framing import FrameDecoder
from enclave_signer.protocol.messages import Credentials, PrivateKey, PublicKey
from enclave_signer.sealing.base import Resealing, Sealer, UnsealedKey
from enclave_signer.serving.fairness import Pace
from enclave_signer.serving.turn import Turn
from enclave_signer.serving.workers import Workers
from enclave_signer.session import Session
from tests.worlds.clock import Process, Scheduler

if TYPE_CHECKING:
    from tests.worlds.network import Wire

#: What may happen to a question to what seals the keys.
SEALER_FAULTS = ("late", "lost", "lost answer", "refused")


class Kms:
    """What seals the keys of a world: a port of the enclave.

    Attributes:
        faults: What happens to the next questions, the first one first.
        lose_seals: How many answers to the next wishes to seal are lost.
        made: How many keys were sealed for enclaves.
    """

    shared_s = 3600.0

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._sealed: dict[bytes, PrivateKey] = {}
        self.faults: list[str] = []
        self.lose_seals = 0
        self.made = 0

    async def open_sealer(self, credentials: Credentials) -> Sealer:
        await self._answer()
        return self

    async def seal(self, private_key: PrivateKey, public_key: PublicKey) -> bytes:
        if self.lose_seals:
            self.lose_seals -= 1
            self.faults.insert(0, "lost answer")
        return bytes(await self._answer(lambda: self._made(private_key)))

    def _made(self, private_key: PrivateKey) -> bytes:
        self.made += 1
        return self.sealed(private_key)

    def sealed(self, private_key: PrivateKey) -> bytes:
        """Return a new blob."""
        blob = self._chance.randbytes(48)
        self._sealed[blob] = private_key
        return blob

    async def unseal(self, blob: bytes) -> UnsealedKey:
        await self._answer()
        if blob not in self._sealed:
            raise BlobCorrupt("blob corrupt: never sealed here")
        return UnsealedKey(self._sealed[blob], None)

    async def _answer(self, work: Callable[[], Any] = lambda: None) -> Any:
        fault = self.faults.pop(0) if self.faults else ""
        await asyncio.sleep(0.002 + 0.02 * self._chance.random() + (2.0 if fault == "late" else 0.0))
        match fault:
            case "lost":
                await asyncio.sleep(1.0)
                raise SealingUnavailable("no answer")
            case "lost answer":
                work()
                raise SealingUnavailable("no answer")
            case "refused":
                raise SealingRefused("not now")
        return work()


class _Pace:
    """All the time of the world."""

    def begin(self) -> None:
        pass

    async def give_way(self) -> None:
        pass


_PACE = cast("Pace", _Pace())
_NO_WORKERS = cast("Workers", None)


class Enclave:
    """One process of the enclave's program: it forgets everything when it ends."""

    def __init__(self, scheduler: Scheduler, name: str, kms: Kms) -> None:
        self.process = Process(scheduler, name)
        self.kms = kms
        self.guard = Guard(1000, lambda _: None)
        self.open_keys = OpenKeys(100, 100, 300.0, self.process.time)

    def forget_keys(self) -> None:
        """Remember no key after its last connection."""
        self.open_keys = OpenKeys(100, 100, 0.0, self.process.time)

    def accept(self, wire: "Wire") -> "Served":
        """Take a connection."""
        keychain = Keychain(100, self.open_keys, "host")
        return Served(self.process, Session(self.kms, keychain, self.guard, cast("Resealing", None)), wire)


class Served:
    """The enclave's end of one connection."""

    def __init__(self, process: Process, session: Session, wire: "Wire") -> None:
        self._process = process
        self._session = session
        self._wire = wire
        self._frames = FrameDecoder()
        self._turn = Turn(session, _NO_WORKERS, _PACE)
        self._busy = False
        self._open = True

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        if self._open:
            self._frames.feed(data)
            if not self._busy:
                self._go_on()

    def connection_lost(self) -> None:
        """Take note that the host is gone."""
        self._open = False
        if not self._busy:
            self._session.close()

    def _go_on(self) -> None:
        """Answer the calls that are there, one after the other; one that waits is a task."""
        try:
            while self._open and (frame := self._frames.next_frame()) is not None:
                if not self._turn.sign(frame):
                    self._busy = True
                    self._process.create_task(self._take(frame))
                    return
                self._wire.answer(self._turn.answers())
        except BadFrame:
            self._open = False
            self._wire.cut()
        if not self._open:
            self._session.close()

    async def _take(self, frame: bytes) -> None:
        await self._turn.take(frame)
        await self._turn.finish()
        self._busy = False
        self._wire.answer(self._turn.answers())
        self._go_on()
