"""The host half: the signer, the vault and its link, and the file store's batches, as the product has them."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, cast

from enclave_signer.protocol.messages import KeyType, SigningVersion
from host_backend.addresses import Address
from host_backend.enclave.endpoint import Endpoint
from host_backend.enclave.supervisor import LinkLimits
from host_backend.errors import HostError, StoreUnavailable
from host_backend.policy import KeyPolicy
from host_backend.signer import Signer
from host_backend.vault.vault import Vault
from host_backend.watermark.base import WatermarkStore
from host_backend.watermark.file.batches import Batches
from host_backend.watermark.file.held import HeldStore
from host_backend.watermark.file.opening import read_image
from host_backend.watermark.file.slots import SlotFile
from host_backend.watermark.rule import DEFAULT_MAX_LEVEL_JUMP, Mark, MarkKey, Verdict, merged
from host_backend.watermark.signatory.folder import SignatoryFolder
from tests.doubles.memory_keys import MemoryKeys
from tests.worlds.clock import Process
from tests.worlds.disk import Disk, Killed, OpenFile
from tests.worlds.judge import Judge

#: Seconds without a request after which the store uses the quiet time, as the product's thread does.
_QUIET_S = 1.0
#: Seconds that a sync takes, at least and at most.
_SHORTEST_S, _LONGEST_S = 0.0005, 0.004
#: As usual, but for the pauses of minutes after a refusal: a world lasts a minute.
LIMITS = LinkLimits(reopen_s=3.0, refused_s=3.0)
_POLICY = KeyPolicy(frozenset({"block", "preattestation", "attestation", "attestation_with_dal"}))


class Keys(MemoryKeys):
    """The sealed keys of a place, looked at as often as those in a file."""

    look_s = 2.0


class Folder:
    """Signatory's folder beside a store: its marks, which an orderly stop hands back."""

    path = Path("watermark_v2")

    def __init__(self) -> None:
        self.marks: dict[MarkKey, Mark] = {}

    def check(self) -> None:
        pass

    def read(self) -> dict[MarkKey, Mark]:
        return dict(self.marks)

    def hand_back(self, marks: Mapping[MarkKey, Mark]) -> None:
        self.marks = dict(marks)

    def save(self, marks: Mapping[MarkKey, Mark]) -> None:
        for key, mark in marks.items():
            self.marks[key] = merged(self.marks.get(key), mark)


class _Held(HeldStore):
    """A store whose path always leads to it: a world has no other names."""

    def _is_at_its_path(self) -> bool:
        return True


def open_store(disk: Disk, folder: Folder, process: Process) -> HeldStore:
    """Open the file as `held_store` does.

    Raises:
        Damage, OSError, StoreUnavailable: No start.
    """
    file = OpenFile(disk, process)
    slots = SlotFile(file, read_image(file))
    slots.begin()
    store = _Held(Path("watermark.marks"), file, slots, cast("SignatoryFolder", folder))
    others = folder.read()
    slots.learn(others)
    store.take_over(others)
    store.require_untouched()
    return store


class FileStore:
    """The `WatermarkStore` over the product's batches: what the product's thread does, done by the world's clock."""

    def __init__(self, process: Process, store: HeldStore, chance: Random, die: Callable[[], None]) -> None:
        self._process = process
        self._chance = chance
        self._die = die
        self.held = store
        self.refused: Mapping[MarkKey, str] = dict.fromkeys(store.slots.refused, "damaged")
        self._batches = Batches(store, DEFAULT_MAX_LEVEL_JUMP, _nothing)
        self._waiting: list[tuple[MarkKey, Mark, asyncio.Future[Verdict]]] = []
        self._writing = False
        self._closed = False
        self._quiet_at = process.time() + _QUIET_S
        self._look_later()

    @property
    def problem(self) -> str | None:
        return self._batches.problem

    async def advance(self, key: MarkKey, asked: Mark) -> Verdict:
        if self._closed:
            raise StoreUnavailable("closed")
        answer: asyncio.Future[Verdict] = self._process.create_future()
        self._waiting.append((key, asked, answer))
        if not self._writing:
            self._writing = True
            self._process.call_soon(self._write)
        return await answer

    def _write(self) -> None:
        batch, self._waiting = self._waiting, []
        try:
            outcomes = self._batches.answer(batch)
        except Killed:
            self._die()
            return
        took_s = _SHORTEST_S + self._chance.random() * (_LONGEST_S - _SHORTEST_S)
        self._process.do_at(self._process.time() + took_s, self._deliver, batch, outcomes)

    def _deliver(self, batch: Sequence[tuple[MarkKey, Mark, asyncio.Future[Verdict]]], outcomes: Sequence[Any]) -> None:
        for (_, _, answer), outcome in zip(batch, outcomes, strict=True):
            if answer.done():
                continue
            if isinstance(outcome, Verdict):
                answer.set_result(outcome)
            else:
                answer.set_exception(outcome)
        if self._waiting:
            self._process.call_soon(self._write)
            return
        self._writing = False
        self._quiet_at = self._process.time() + _QUIET_S
        if self._quiet_at < self._look_at:
            self._look_later()

    def _look_later(self) -> None:
        self._look_at = self._quiet_at
        self._process.do_at(self._look_at, self._look_whether_quiet, self._look_at)

    def _look_whether_quiet(self, look_at: float) -> None:
        """Use the quiet time if it has come; look again when it may have."""
        if self._closed or look_at != self._look_at:
            return
        now = self._process.time()
        if self._writing:
            self._quiet_at = now + _QUIET_S
        elif now >= self._quiet_at:
            try:
                self._batches.use_quiet_time()
            except Killed:
                self._die()
                return
            self._quiet_at = now + 5 * _QUIET_S
        self._look_later()

    async def aclose(self) -> None:
        self._closed = True
        while self._writing:  # noqa: ASYNC110 -- as simple as what it stands for
            await asyncio.sleep(_LONGEST_S)
        try:
            self.held.close_in_order()
        except Killed:
            self._die()


class Witnessed:
    """A store, and the judge who hears what it allows."""

    def __init__(self, store: WatermarkStore, judge: Judge) -> None:
        self._store = store
        self._judge = judge

    @property
    def problem(self) -> str | None:
        return self._store.problem

    @property
    def refused(self) -> Mapping[MarkKey, str]:
        return self._store.refused

    async def advance(self, key: MarkKey, asked: Mark) -> Verdict:
        verdict = await self._store.advance(key, asked)
        self._judge.allowed((*key, asked.level, asked.round), asked.digest or b"")
        return verdict

    async def aclose(self) -> None:
        await self._store.aclose()


class _Nothing:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


_NOTHING = _Nothing()


def _nothing() -> Any:
    return _NOTHING


class Host:
    """One process of the host's program.

    Args:
        process: Its event loop.
        store: Its marks.
        keys: Its sealed keys: they outlive it.
        enclave: The name of its enclave.
        chance: Where its jitter comes from.
    """

    def __init__(self, process: Process, store: WatermarkStore, keys: Keys, enclave: str, chance: Random) -> None:
        self.process = process
        self.store = store
        self.vault = Vault("vault", keys, Endpoint(Address(enclave, 2000)), jitter=chance.random, limits=LIMITS)
        self.signer = Signer({key.pkh: _POLICY for key in keys.stored}, [self.vault], store)

    async def start(self) -> None:
        """Come into service."""
        await self.vault.start(must_succeed=False)

    async def sign(self, pkh: str, message: bytes, told: Callable[[bytes | HostError], None]) -> None:
        """Answer one request, as the HTTP front does."""
        try:
            signature = await self.signer.sign(pkh, message, SigningVersion.LATEST)
        except HostError as error:
            told(error)
            # It keeps no caller that it passed through.
            error.__traceback__ = error.__context__ = error.__cause__ = None
        else:
            told(signature.data)

    async def generate(self, told: Callable[[str, bytes], None]) -> None:
        """Make a key, as the command does; tell its hash and its public key if there is one."""
        with suppress(HostError):
            key = await self.vault.provisioning.generate(KeyType.ED25519)
            self.signer.policies = {**self.signer.policies, key.pkh: _POLICY}
            told(key.pkh, key.public_key.data)

    async def stop(self) -> None:
        """End in order."""
        await self.vault.aclose()
        await self.store.aclose()

    def take_apart(self) -> None:
        """Forget all parts, which know each other; call when the program is buried."""
        vault = self.vault
        for part in (vault.link, vault._watch, vault._ring, vault, self.signer):
            vars(part).clear()
