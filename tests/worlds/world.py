"""One world: made of a seed, run to its end, judged."""

import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import cast
from unittest.mock import patch

from enclave_signer import curves as product_curves
from enclave_signer.protocol.messages import KeyType
from host_backend.errors import HostError
from host_backend.google.firestore import Firestore
from host_backend.keystore.base import StoredKey
from host_backend.watermark.base import WatermarkStore
from host_backend.watermark.file.opening import Damage
from host_backend.watermark.firestore.store import FirestoreWatermarkStore
from host_backend.watermark.rule import DEFAULT_MAX_LEVEL_JUMP
from tests.worlds.bakers import Bakers
from tests.worlds.chance import Chance
from tests.worlds.clock import Process, Scheduler
from tests.worlds.cloud import STORE_ID, Cloud, CloudClient
from tests.worlds.curves import HashCurve
from tests.worlds.disk import Killed
from tests.worlds.enclave import Enclave, Kms
from tests.worlds.faults import KINDS, Kind
from tests.worlds.host import FileStore, Host, Witnessed, open_store
from tests.worlds.judge import Judge
from tests.worlds.messages import CHAIN_IDS, CHAINS, KEYS
from tests.worlds.network import Network
from tests.worlds.site import Site

#: Requests of a world, at least.
REQUESTS = 50
#: Requests after which there has been a first fault, a restart and another fault.
_FAULTS_DUE = (0, 12, 26)


@dataclass(slots=True)
class Outcome:
    """What became of a world.

    Attributes:
        seed: Of which it was made.
        kind: The name of its kind.
        wrong: What the judge found.
        refusals: Requests that the watermark law refused.
        host_restarts, enclave_restarts: How often each half was started again.
        turns: How many things happened.
        faults: How many of each there were.
    """

    seed: int
    kind: str
    wrong: list[str]
    requests: int = 0
    signatures: int = 0
    refusals: int = 0
    host_restarts: int = 0
    enclave_restarts: int = 0
    turns: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    @property
    def restarts(self) -> int:
        """How often either half was started again."""
        return self.host_restarts + self.enclave_restarts


class World:
    """One world.

    Args:
        seed: What it is made of: the same seed, the same world.
        tell: Called with what happens, as text.
        kind: Of which kind it is; None: of any.
    """

    def __init__(self, seed: int, tell: Callable[[str], None] | None = None, kind: Kind | None = None) -> None:
        self.chance = Chance(seed)
        self._tell = tell
        self.scheduler = Scheduler()
        chosen = self.chance.choice(KINDS)
        self.kind = kind or chosen
        self.judge = Judge()
        self.outcome = Outcome(seed, self.kind.name, self.judge.wrong)
        self.network = Network(self.chance)
        self.kms = Kms(self.chance)
        self._process = Process(self.scheduler, "world")
        self._dead: list[Process] = []
        self._hosts: list[Host] = []
        self._calm = False
        keys = KEYS[: self.chance.choice((1, 1, 2))]
        self.bakers = Bakers(self, keys)
        self.cloud = Cloud(self.chance, self._process)
        stored = [StoredKey(key.pkh, self.kms.sealed(key.private_key)) for key in keys if key.private_key]
        self.sites = [Site(number, self.chance, stored) for number in range(self.kind.sites)]
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
            self._tell(f"{self.scheduler.now:8.3f} {text % arguments}")

    def later(self, seconds: float, do: Callable[..., object], *arguments: object) -> None:
        """Have something done later."""
        self._process.do_at(self.scheduler.now + seconds, do, *arguments)

    # The halves

    def enclave_of(self, site: Site) -> Enclave:
        """Return the enclave of a place."""
        return self.network.enclaves[site.enclave]

    def start(self, site: Site) -> None:
        """Start a host, if there is none."""
        if site.process is None or site.process.dead:
            site.process = Process(self.scheduler, f"host {site.number}", self.network.connect)
            site.process.call_soon(self._come_up, site, site.process)

    def _come_up(self, site: Site, process: Process) -> None:
        try:
            store = self._open_store(site, process)
        except Killed:
            self.kill(site)
            return
        except (Damage, OSError, HostError) as error:
            self.say("host %d does not start: %s", site.number, error)
            site.problem = str(error) or repr(error)
            self._end(process)
            if not isinstance(error, Damage):
                self.later(1.0, self.start, site)
            return
        site.problem = None
        if not site.forgot and not self.kind.stores_apart:
            store = Witnessed(store, self.judge)
        site.host = Host(process, store, site.keys, site.enclave, self.chance)
        self._hosts.append(site.host)
        process.create_task(self._serve(site, site.host))
        self.say("host %d starts", site.number)

    async def _serve(self, site: Site, host: Host) -> None:
        try:
            await host.start()
        except HostError as error:
            # Its program ends, and is started again.
            self.say("host %d does not start: %s", site.number, error)
            self.kill(site)

    def _open_store(self, site: Site, process: Process) -> WatermarkStore:
        if self.kind.cloud:
            return FirestoreWatermarkStore(cast("Firestore", CloudClient(self.cloud, process)), STORE_ID)
        held = open_store(site.disk, site.folder, process)
        return FileStore(process, held, self.chance, partial(self.kill, site))

    def _end(self, process: Process) -> None:
        process.kill()
        self._dead.append(process)
        self.network.cut_all(process)

    def kill(self, site: Site, and_then: Callable[[], None] | None = None) -> None:
        """Kill a host; it is started again soon."""
        if site.process is None or site.process.dead:
            return
        self.say("host %d is killed", site.number)
        self._end(site.process)
        site.host = None
        if site.loses_power:
            site.loses_power = False
            site.lose_power()
        if and_then is not None:
            and_then()
        self._start_again(site)

    def stop(self, site: Site, and_then: Callable[[], None] | None = None) -> None:
        """Stop a host in order; it is started again soon."""
        host, site.host = site.host, None
        if host is None:
            return

        def ended(_: object) -> None:
            if not host.process.dead:
                self.say("host %d has ended", site.number)
                self._end(host.process)
                if and_then is not None:
                    and_then()
                self._start_again(site)

        self.say("host %d is stopped", site.number)
        host.process.create_task(host.stop()).add_done_callback(ended)

    def _start_again(self, site: Site) -> None:
        self.outcome.host_restarts += 1
        self.later(0.01 if self._calm else 0.05 + self.chance.random(), self.start, site)
        self.bakers.attack(site)

    def pause(self, process: Process | None) -> None:
        """Pause a program for some time."""
        if process is not None:
            process.pause()
            self.later(self.chance.choice((0.3, 1.0, 3.0)), process.resume)

    def restart_enclave(self, site: Site) -> None:
        """Kill the enclave of a place, and start another one there."""
        self._end(self.enclave_of(site).process)
        self.outcome.enclave_restarts += 1
        self.later(0.2 * self.chance.random(), self._start_enclave, site.enclave)

    def _start_enclave(self, name: str) -> None:
        if self.network.enclaves[name].process.dead:
            self.network.enclaves[name] = Enclave(self.scheduler, name, self.kms)

    def exchange_enclave(self, site: Site) -> None:
        """Let another enclave answer from now on, while the old one goes on with what it has."""
        old = self.enclave_of(site)
        self._dead.append(old.process)
        self.network.enclaves[site.enclave] = Enclave(self.scheduler, site.enclave, self.kms)
        self.outcome.enclave_restarts += 1
        self.later(self.chance.random(), self.network.cut_all, old.process)

    def clone(self, site: Site) -> None:
        """Let the other place be a copy of this one."""
        other = self.sites[1 - site.number]
        self.kill(other, and_then=partial(other.clone_from, site))

    # The course of a world

    def run(self) -> Outcome:
        """Let it go its course."""
        curve = HashCurve(self.chance, self.judge.made)
        # Where the product itself asks for chance.
        random.seed(self.outcome.seed)
        with patch.dict(product_curves._loaded, {KeyType.ED25519: curve}):
            self.scheduler.run(0.2)
            self._trouble()
            self._find_peace()
            self.bakers.require_life()
            self._take_apart()
        self.outcome.signatures = self.judge.signatures
        self.outcome.turns = self.scheduler.turns
        return self.outcome

    def _trouble(self) -> None:
        chance, end = self.chance, 0.2
        # Every right is asked for once more at the end.
        wanted = REQUESTS - len(self.bakers.rights) * len(self.sites)
        while self.bakers.asked < wanted:
            self.scheduler.run(end)
            self.bakers.ask_soon()
            end += 1.5 if chance.random() < 0.07 else 0.15 * chance.random()
            if chance.random() < 0.15:
                for site in self.sites:
                    site.take_snapshot()
            self._maybe_fault()
            if chance.random() < 0.01:
                self.bakers.generate(chance.choice(self.sites))
        self.scheduler.run(end)
        if not self.outcome.restarts:
            self.kill(chance.choice(self.sites))

    def _maybe_fault(self) -> None:
        chance, happened = self.chance, sum(self.outcome.faults.values())
        if happened >= bisect_left(_FAULTS_DUE, self.bakers.asked) and chance.random() > 0.08:
            return
        faults = self.kind.restarts if happened == 1 or chance.random() < 0.15 else self.kind.faults
        name, fault = chance.choice(faults)
        self.say("fault: %s", name)
        self.outcome.faults[name] += 1
        fault(self, chance.choice(self.sites))

    def _find_peace(self) -> None:
        """Let nothing more go wrong, and restart all programs; then have people mend what only they can."""
        self.say("peace")
        self._calm = True
        for faults in (self.kms.faults, self.cloud.faults):
            faults.clear()
        self.kms.lose_seals = 0
        self.network.calm()
        for site in self.sites:
            site.heal()
            if site.process is not None:
                site.process.resume()
        for enclave in self.network.enclaves.values():
            enclave.process.resume()
        self.scheduler.run(self.scheduler.now + 3.0)
        for name in self.network.enclaves:
            self._start_enclave(name)
        for site in self.sites:
            if site.mend_keys():
                self.stop(site)
            self.start(site)
        self.scheduler.run(self.scheduler.now + 3.0)
        for site in self.sites:
            if site.problem is not None:
                self._rebuild(site)
            elif site.host is not None and site.host.store.refused:
                self._raise(site)

    def _rebuild(self, site: Site) -> None:
        if not site.forgot and site.damaged + site.torn < 2:
            self.judge.wrong.append(f"a store does not start that nothing has damaged so: {site.problem}")
        heads = self.bakers.heads
        apart = max(heads.values()) - min(heads.values()) > DEFAULT_MAX_LEVEL_JUMP
        # One level for all chains: the second one has to go on from there.
        self.bakers.heads = heads = dict.fromkeys(CHAINS, max(heads.values()))
        if apart:
            # As its refusal advises: every mark is above all that it has signed.
            self.restart_enclave(site)
        site.rebuild({key.pkh for key, _, _ in self.bakers.rights}, CHAIN_IDS, heads[CHAINS[0]])
        self.say("host %d: the store is rebuilt", site.number)
        self.start(site)

    def _raise(self, site: Site) -> None:
        if not site.forgot and not site.damaged and not site.torn:
            self.judge.wrong.append("a right is refused that nothing has damaged")

        def mend() -> None:
            try:
                site.raise_refused(dict(zip(CHAIN_IDS, self.bakers.heads.values(), strict=True)))
            except Damage as damage:
                # In blocks that were not read while the host ran.
                site.problem = str(damage)
                self._rebuild(site)
            self.say("host %d: refused rights are raised", site.number)

        self.kill(site, and_then=mend)

    def _take_apart(self) -> None:
        """End everything, and leave little to the garbage collector, which would take as long as much of a world."""
        processes = [site.process for site in self.sites if site.process is not None]
        enclaves = [enclave.process for enclave in self.network.enclaves.values()]
        for process in dict.fromkeys((*self._dead, *processes, *enclaves)):
            process.kill()
            process.bury()
            self.judge.wrong.extend(process.bugs)
        self.judge.wrong.extend(self._process.bugs)
        for wire in [*self.network.wires]:
            wire.cut()
        self.scheduler.clear()
        self.network.enclaves.clear()
        for host in self._hosts:
            host.take_apart()
        for part in (*self.sites, self.bakers):
            vars(part).clear()
        for known in (self._hosts, self._dead, self.sites):
            known.clear()
