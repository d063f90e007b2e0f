"""One world: made of a seed, run to its end, judged."""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, cast
from unittest.mock import patch

from enclave_signer import curves as product_curves
from enclave_signer.protocol.messages import KeyType
from host_backend.errors import HostError, StoreUnavailable, WatermarkRejected
from host_backend.keystore.base import StoredKey
from host_backend.watermark.file.opening import Damage
from host_backend.google.firestore import Firestore
from host_backend.watermark.base import WatermarkStore
from host_backend.watermark.firestore.store import FirestoreWatermarkStore

from host_backend.watermark.rule import DEFAULT_MAX_LEVEL_JUMP
from tests.worlds.cloud import STORE_ID, Cloud, CloudClient
from tests.worlds.clock import Process, Scheduler
from tests.worlds.curves import HashCurve
from tests.worlds.disk import Killed
from tests.worlds.enclave import Enclave, Kms
from tests.worlds.faults import KINDS, TWO_STORES, Kind
from tests.worlds.host import FileStore, Host, Witnessed, open_store
from tests.worlds.judge import Judge, Meaning
from tests.worlds.messages import CHAIN_IDS, CHAINS, KEYS, RIGHTS, Key, message_of
from tests.worlds.network import Network
from tests.worlds.site import Site

#: Requests of a world, at least.
REQUESTS = 50
#: Seconds after the last fault in which every right must sign.
PATIENCE_S = 60.0


@dataclass(slots=True)
class Outcome:
    """What became of a world.

    Attributes:
        seed: Of which it was made.
        wrong: What the judge found.
        faults: How many of each there were.
        restarts: How often either half was started again.
    """

    seed: int
    kind: str = ""
    wrong: list[str] = field(default_factory=list)
    requests: int = 0
    signatures: int = 0
    refusals: int = 0
    restarts: int = 0
    turns: int = 0
    faults: Counter[str] = field(default_factory=Counter)


class World:
    """One world.

    Args:
        seed: What it is made of: the same seed, the same world.
        tell: Told what happens, for people.
        kind: The only kind of world that it may be.
    """

    def __init__(self, seed: int, tell: Callable[[str], None] | None = None, kind: str | None = None) -> None:
        self.chance = Random(seed)
        self._tell = tell
        self.scheduler = Scheduler()
        kinds = [each for each in KINDS if kind in (None, each.name)]
        self.kind: Kind = self.chance.choice(kinds)
        self.judge = Judge()
        self.outcome = Outcome(seed, self.kind.name, self.judge.wrong)
        self.network = Network(self.chance)
        self.kms = Kms(self.chance)
        self.keys = KEYS[: self.chance.choice([1, 1, 2])]
        stored = [StoredKey(key.pkh, self.kms.sealed(key.private_key)) for key in self.keys if key.private_key]
        self._process = Process(self.scheduler, "world")
        self._dead: list[Process] = []
        #: What was asked for last.
        self._recent: deque[tuple[Key, Meaning]] = deque(maxlen=4)
        self._calm = False
        self._asked = 0
        self._keys_asked = 0
        first = self.chance.choice([10, 1000, 2**31 - 400])
        chains = CHAINS if self.chance.random() < 0.25 else CHAINS[:1]
        self._rights = [(key, chain, right) for key in self.keys for chain in chains for right in RIGHTS]
        #: Where each right is: on the second chain far below.
        self._places = {right: [first if right[1] == CHAINS[0] else 1, 0] for right in self._rights}
        #: The highest level of each chain.
        self._heads = dict.fromkeys(CHAINS, 1) | {CHAINS[0]: first}
        self.cloud = Cloud(self.chance, self._process)
        self.sites = [Site(number, self.chance, self._process, stored) for number in range(self.kind.sites)]
        for site in self.sites:
            if self.kind.cloud:
                site.enclave = f"enclave {site.number}"
            else:
                site.make({})
            self.network.enclaves[site.enclave] = Enclave(self.scheduler, site.enclave, self.kms)
            self.start(site)

    def say(self, text: str, *arguments: object) -> None:
        """Tell people what happens."""
        if self._tell is not None:
            self._tell(f"{self.scheduler.now:8.3f} {text % arguments if arguments else text}")

    def later(self, seconds: float, do: Callable[..., object], *arguments: object) -> None:
        """Have something done later."""
        self._process.call_later(seconds, do, *arguments)

    # The halves

    def enclave_of(self, site: Site) -> Enclave:
        """Return the enclave of a place."""
        return self.network.enclaves[site.enclave]

    def start(self, site: Site) -> None:
        """Start a host, if there is none."""
        if site.starting or not site.process.dead and site.process is not self._process:
            return
        site.starting = True
        site.process = Process(self.scheduler, f"host {site.number}", self.network.connect)
        site.process.call_soon(self._come_up, site, site.process)

    def _come_up(self, site: Site, process: Process) -> None:
        site.starting = False
        try:
            store = self._open_store(site, process)
        except Killed:
            self.kill(site)
            return
        except (Damage, OSError, HostError) as error:
            self.say("host %d does not start: %s", site.number, error)
            site.problem = str(error) or repr(error)
            self._dead.append(process)
            process.kill()
            if not isinstance(error, Damage):
                self.later(1.0, self.start, site)
            return
        site.problem = None
        if not site.forgot and self.kind is not TWO_STORES:
            store = Witnessed(store, self.judge)
        site.host = Host(process, store, site.keys, site.enclave, self.chance)
        process.create_task(site.host.start())
        self.say("host %d starts", site.number)

    def _open_store(self, site: Site, process: Process) -> WatermarkStore:
        if self.kind.cloud:
            return FirestoreWatermarkStore(cast("Firestore", CloudClient(self.cloud, process)), STORE_ID)
        held = open_store(site.disk, site.folder, process)
        return FileStore(process, held, self.chance, partial(self.kill, site))

    def kill(self, site: Site, and_then: Callable[[], None] | None = None) -> None:
        """Kill a host; it is started again soon."""
        process = site.process
        if process.dead or process is self._process:
            return
        self.say("host %d is killed", site.number)
        process.kill()
        self._dead.append(process)
        site.host = None
        site.starting = False
        self.network.cut_all(process)
        if site.loses_power:
            site.loses_power = False
            site.lose_power()
        if and_then is not None:
            and_then()
        self._start_again(site)

    def _start_again(self, site: Site) -> None:
        self.outcome.restarts += 1
        self.later(0.01 if self._calm else 0.05 + self.chance.random(), self.start, site)
        self._attack(site)

    def _attack(self, site: Site) -> None:
        """Ask for other messages where some were signed: if anything was forgotten, it shows now."""
        for key, meaning in self._recent:
            for payload in self.chance.choice([(4,), (0, 4)]):
                self._asked += 1
                self.later(0.1 + 1.5 * self.chance.random(), self.ask, site, key, meaning, payload)

    def _open_store(self, site: Site, process: Process) -> WatermarkStore:
        if self.kind.cloud:
            return FirestoreWatermarkStore(cast("Firestore", CloudClient(self.cloud, process)), STORE_ID)
        held = open_store(site.disk, site.folder, process)
        return FileStore(process, held, self.chance, partial(self.kill, site))

    def kill(self, site: Site, and_then: Callable[[], None] | None = None) -> None:
        """Kill a host; it is started again soon."""
        process = site.process
        if process.dead or process is self._process:
            return
        self.say("host %d is killed", site.number)
        process.kill()
        self._dead.append(process)
        site.host = None
        site.starting = False
        self.network.cut_all(process)
        if site.loses_power:
            site.loses_power = False
            site.lose_power()
        if and_then is not None:
            and_then()
        self._start_again(site)

    def _start_again(self, site: Site) -> None:
        self.outcome.restarts += 1
        self.later(0.01 if self._calm else 0.05 + self.chance.random(), self.start, site)
        self._attack(site)

    def _attack(self, site: Site) -> None:
        """Ask for other messages where some were signed: if anything was forgotten, it shows now."""
        for key, chain, right in self.chance.sample(self._rights, 3):
            meaning = Meaning(key.public_bytes, chain, right, *self._places[key, chain, right])
            for payload in self.chance.choice([(4,), (0, 4)]):
                self._asked += 1
                self.later(0.1 + 1.5 * self.chance.random(), self.ask, site, key, meaning, payload)

    def stop(self, site: Site, and_then: Callable[[], None] | None = None) -> None:
        """Stop a host in order; it is started again soon."""
        if site.host is None or not site.process.runs:
            return
        host, site.host = site.host, None

        def ended(_: object) -> None:
            if host.process.dead:
                return
            self.say("host %d has ended", site.number)
            host.process.kill()
            self._dead.append(host.process)
            if and_then is not None:
                and_then()
            self._start_again(site)

        self.say("host %d is stopped", site.number)
        host.process.create_task(host.stop()).add_done_callback(ended)

    def pause(self, process: Process) -> None:
        """Pause a program for some time."""
        process.pause()
        self.later(self.chance.choice([0.3, 1.0, 3.0]), process.resume)

    def restart_enclave(self, site: Site) -> None:
        """Kill the enclave of a place, and start another one there."""
        old = self.enclave_of(site)
        old.process.kill()
        self._dead.append(old.process)
        self.network.cut_all(old.process)
        self.outcome.restarts += 1
        self.later(0.2 * self.chance.random(), self._start_enclave, site.enclave)

    def _start_enclave(self, name: str) -> None:
        if self.network.enclaves[name].process.dead:
            self.network.enclaves[name] = Enclave(self.scheduler, name, self.kms)

    def exchange_enclave(self, site: Site) -> None:
        """Let another enclave answer from now on, while the old one goes on with what it has."""
        old = self.enclave_of(site)
        self._dead.append(old.process)
        self.network.enclaves[site.enclave] = Enclave(self.scheduler, site.enclave, self.kms)
        self.outcome.restarts += 1
        self.later(self.chance.random(), self.network.cut_all, old.process)

    def clone(self, site: Site) -> None:
        """Let the other place be a copy of this one."""
        other = self.sites[1 - site.number]
        self.kill(other, and_then=partial(other.clone_from, site))

    # Those who ask

    def ask(self, site: Site, key: Key, meaning: Meaning, payload: int, told: Callable[[Any], None] | None = None) -> None:
        """Ask a host for a signature."""
        self.outcome.requests += 1
        message = message_of(meaning, payload)
        self.judge.learn(message, meaning)
        host = site.host
        if host is None:
            return

        def answered(answer: bytes | HostError) -> None:
            if host.process.dead:
                return
            if self._tell is not None:
                what = answer if isinstance(answer, HostError) else "signed"
                self.say("host %d: %s %d/%d payload %d: %s", site.number, *meaning[2:], payload, what)
            if isinstance(answer, bytes):
                self.judge.given(meaning, message, answer)
            elif isinstance(answer, WatermarkRejected):
                self.outcome.refusals += 1
            if told is not None:
                told(answer)

        host.process.create_task(host.sign(key.pkh, message, answered))

    def generate(self, site: Site) -> None:
        """Ask a host for a new key; from then on it is asked for signatures, too."""
        host = site.host
        if host is None:
            return
        self._keys_asked += 1

        def told(pkh: str, public_key: bytes) -> None:
            if not host.process.dead:
                self.say("host %d: a new key, %s", site.number, pkh)
                site.new_keys.append(Key(public_key, pkh))

        host.process.create_task(host.generate(told))

    def _slot(self) -> None:
        """Let a baker ask for one right, perhaps twice, perhaps for two messages."""
        chance = self.chance
        key, chain, right = chance.choice(self._rights)
        place = self._places[key, chain, right]
        if right != "block" and chance.random() < 0.3:
            place[1] += 1
        else:
            place[0], place[1] = place[0] + chance.choice([1, 1, 1, 2, 7]), 0
        self._heads[chain] = max(self._heads[chain], place[0])
        meaning = Meaning(key.public_bytes, chain, right, *place)
        self._recent.append((key, meaning))
        self._ask_soon(key, meaning, 0)
        for chosen, other, payload in (
            (0.4, meaning, 0),
            (0.6, meaning, 1),
            (0.15, meaning._replace(level=meaning.level - 1, round=0), 2),
            (0.1, meaning._replace(round=meaning.round + (right != "block")), 3),
        ):
            if chance.random() < chosen:
                self._ask_soon(key, other, payload)

    def _ask_soon(self, key: Key, meaning: Meaning, payload: int) -> None:
        chance = self.chance
        self._asked += 1
        delay = chance.choice([0.0, 0.0, 0.001, 0.02, 1.2]) * chance.random()
        self.later(delay, self.ask, chance.choice(self.sites), key, meaning, payload)

    # The course of a world

    def run(self) -> Outcome:
        """Let it go its course."""
        curve = HashCurve(self.chance, self.judge.made)
        random.seed(self.outcome.seed)
        with patch.dict(product_curves._loaded, {KeyType.ED25519: curve}):
            self.scheduler.run(0.2)
            self._trouble()
            self._find_peace()
            self._judge_life()
            for enclave in self.network.enclaves.values():
                self._dead.append(enclave.process)
            for process in (*self._dead, *(site.process for site in self.sites)):
                process.kill()
                process.bury()
                self.judge.wrong.extend(process.bugs)
        self._take_apart()
        self.outcome.signatures = self.judge.signatures
        self.outcome.turns = self.scheduler.turns
        return self.outcome

    def _take_apart(self) -> None:
        """Leave nothing to the garbage collector, which would take as long as a part of the next world."""
        self.scheduler.clear()
        self._process.held.clear()
        self.network.wires.clear()
        self.network.enclaves.clear()
        for site in self.sites:
            site.host = None
        self.sites.clear()
        self._dead.clear()

    def _trouble(self) -> None:
        chance, end = self.chance, 0.2
        # Every right is asked for once more at the end.
        wanted = REQUESTS - len(self._rights) * len(self.sites)
        while self._asked < wanted:
            self.scheduler.run(end)
            self._slot()
            end += 1.5 if chance.random() < 0.07 else 0.15 * chance.random()
            if chance.random() < 0.15:
                for site in self.sites:
                    site.take_snapshot()
            self._maybe_fault()
            if chance.random() < 0.01:
                self.generate(chance.choice(self.sites))
        self.scheduler.run(end)
        if not self.outcome.restarts:
            self.kill(chance.choice(self.sites))

    def _maybe_fault(self) -> None:
        chance, happened = self.chance, self.outcome.faults.total()
        due = 1 + (self._asked > 12) + (self._asked > 26)
        if happened >= due and chance.random() > 0.08:
            return
        faults = self.kind.restarts if happened == 1 or chance.random() < 0.15 else self.kind.faults
        name, fault = chance.choice(faults)
        self.say("fault: %s", name)
        self.outcome.faults[name] += 1
        fault(self, chance.choice(self.sites))

    def _find_peace(self) -> None:
        """Let nothing more go wrong, and bring up again what is down."""
        self.say("peace")
        self._calm = True
        self.network.calm()
        self.kms.faults.clear()
        self.kms.lose_seals = 0
        self.cloud.faults.clear()
        for site in self.sites:
            site.heal()
            site.process.resume()
        for enclave in self.network.enclaves.values():
            enclave.process.resume()
        self.scheduler.run(self.scheduler.now + 3.0)
        for name in self.network.enclaves:
            self._start_enclave(name)
        for site in self.sites:
            if site.mend_keys():
                self.stop(site)
            if site.host is None:
                self.start(site)
        self.scheduler.run(self.scheduler.now + 3.0)
        for site in self.sites:
            if site.problem is not None:
                self._rebuild(site)
            elif site.host is not None and site.host.store.refused:
                self._raise(site)

    def _rebuild(self, site: Site) -> None:
        if not site.forgot and site.damaged < 2:
            self.judge.wrong.append(f"a store does not start that nothing has damaged so: {site.problem}")
        # One level for all chains: the second one has to go on from there.
        apart = max(self._heads.values()) - min(self._heads.values()) > DEFAULT_MAX_LEVEL_JUMP
        self._heads = dict.fromkeys(CHAINS, max(self._heads.values()))
        if apart:
            # As its refusal advises: every mark is above all that it has signed.
            self.restart_enclave(site)
        site.rebuild([key.pkh for key in self.keys], CHAIN_IDS, self._heads[CHAINS[0]])
        self.say("host %d: the store is made anew", site.number)
        self.start(site)

    def _raise(self, site: Site) -> None:
        if not site.forgot and not site.damaged:
            self.judge.wrong.append("a right is refused that nothing has damaged")

        def mend() -> None:
            try:
                site.raise_refused(dict(zip(CHAIN_IDS, self._heads.values(), strict=True)))
            except Damage as damage:
                # What nobody had read while the host ran.
                site.problem = str(damage)
                self._rebuild(site)
            self.say("host %d: refused rights are raised", site.number)

        self.kill(site, and_then=mend)

    def _judge_life(self) -> None:
        """See that every right signs again, at every place."""
        if not self.outcome.faults["chunk duplicated"]:
            self.judge.keys_made(self.kms.made, self._keys_asked)
        for number, site in enumerate(self.sites, start=1):
            # What nobody protects on its way may be stored as it arrived.
            new_keys = [] if self.outcome.faults["chunk garbled"] else site.new_keys
            new = [(key, CHAINS[0], "attestation") for key in new_keys]
            waiting = {
                Meaning(key.public_bytes, chain, right, self._heads[chain] + 3 * number, 0): key for key, chain, right in (*self._rights, *new)
            }
            reasons: dict[Meaning, object] = {}
            end = self.scheduler.now + PATIENCE_S
            while waiting and self.scheduler.now < end:
                for meaning, key in waiting.items():
                    self.ask(site, key, meaning, 9, partial(_note, waiting, reasons, meaning))
                self.scheduler.run(self.scheduler.now + 1.0)
            for meaning in waiting:
                self.judge.silent(meaning, site.problem if site.host is None else reasons.get(meaning, "no answer"))


def _note(waiting: dict[Meaning, Key], reasons: dict[Meaning, object], meaning: Meaning, answer: object) -> None:
    reasons[meaning] = answer
    if isinstance(answer, bytes):
        waiting.pop(meaning, None)
