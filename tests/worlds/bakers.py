"""Those who ask for signatures: bakers, the same bakers twice, and those who try to have two messages signed."""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from host_backend.errors import HostError, WatermarkRejected
from tests.worlds.judge import Meaning
from tests.worlds.messages import CHAINS, RIGHTS, Key, message_of

if TYPE_CHECKING:
    from tests.worlds.site import Site
    from tests.worlds.world import World

#: Seconds after the last fault in which every right must sign.
PATIENCE_S = 60.0
#: The level at which the first chain begins: also one whose last levels are the last there are.
_FIRST_LEVELS = (10, 1000, 2**31 - 400)
#: Seconds within which a request is made.
_DELAYS_S = (0.0, 0.0, 0.001, 0.02, 1.2)
#: Called with the answer.
Told = Callable[[bytes | HostError], None]


class Bakers:
    """All who ask in one world.

    Args:
        world: The world.
        keys: The keys that they ask for.

    Attributes:
        rights: Every key, chain and right that is asked for.
        heads: The highest level of each chain.
        asked: Requests so far, those that will be made soon included.
        keys_asked: How often a new key was asked for.
    """

    def __init__(self, world: "World", keys: tuple[Key, ...]) -> None:
        chance = world.chance
        self._world = world
        first = chance.choice(_FIRST_LEVELS)
        chains = CHAINS if chance.random() < 0.25 else CHAINS[:1]
        self.rights = [(key, chain, right) for key in keys for chain in chains for right in RIGHTS]
        # The second chain is far below the first.
        self._places = {right: [first if right[1] == CHAINS[0] else 1, 0] for right in self.rights}
        self.heads = dict.fromkeys(CHAINS, 1) | {CHAINS[0]: first}
        self._recent: deque[tuple[Key, Meaning]] = deque(maxlen=4)
        self.asked = 0
        self.keys_asked = 0

    def ask(self, site: "Site", key: Key, meaning: Meaning, payload: int, told: Told | None = None) -> None:
        """Ask a host for a signature."""
        world = self._world
        world.outcome.requests += 1
        message = message_of(meaning, payload)
        world.judge.learn(message, meaning)
        host = site.host
        if host is None:
            return

        def answered(answer: bytes | HostError) -> None:
            if host.process.dead:
                return
            what = answer if isinstance(answer, HostError) else "signed"
            world.say("host %d: %s %d/%d payload %d: %s", site.number, *meaning[2:], payload, what)
            if isinstance(answer, bytes):
                world.judge.given(meaning, message, answer)
            elif isinstance(answer, WatermarkRejected):
                world.outcome.refusals += 1
            if told is not None:
                told(answer)

        host.process.create_task(host.sign(key.pkh, message, answered))

    def ask_soon(self) -> None:
        """Have a right asked for, perhaps twice, perhaps for two messages, perhaps for an older one, by any host."""
        chance = self._world.chance
        key, chain, right = chance.choice(self.rights)
        place = self._places[key, chain, right]
        if right != "block" and chance.random() < 0.3:
            place[1] += 1
        else:
            place[0], place[1] = place[0] + chance.choice((1, 1, 1, 2, 7)), 0
        self.heads[chain] = max(self.heads[chain], place[0])
        meaning = Meaning(key.public_bytes, chain, right, *place)
        self._recent.append((key, meaning))
        self._soon(key, meaning, 0)
        if chance.random() < 0.4:
            self._soon(key, meaning, 0)
        if chance.random() < 0.6:
            self._soon(key, meaning, 1)
        if chance.random() < 0.15:
            self._soon(key, meaning._replace(level=meaning.level - 1, round=0), 2)
        if chance.random() < 0.1:
            self._soon(key, meaning._replace(round=meaning.round + (right != "block")), 3)

    def _soon(self, key: Key, meaning: Meaning, payload: int) -> None:
        chance = self._world.chance
        self.asked += 1
        delay = chance.choice(_DELAYS_S) * chance.random()
        self._world.later(delay, self.ask, chance.choice(self._world.sites), key, meaning, payload)

    def attack(self, site: "Site") -> None:
        """Have other messages asked for where some were signed a moment ago: if anything was forgotten, it shows."""
        chance = self._world.chance
        for key, meaning in self._recent:
            for payload in chance.choice(((4,), (0, 4))):
                self.asked += 1
                self._world.later(0.1 + 1.5 * chance.random(), self.ask, site, key, meaning, payload)

    def generate(self, site: "Site") -> None:
        """Ask a host for a new key; at the end it must sign."""
        host = site.host
        if host is None:
            return
        self.keys_asked += 1

        def told(pkh: str, public_key: bytes) -> None:
            if not host.process.dead:
                self._world.say("host %d: a new key, %s", site.number, pkh)
                site.new_keys.append(Key(public_key, pkh))

        host.process.create_task(host.generate(told))

    def require_life(self) -> None:
        """See that every right signs again, at every place."""
        world = self._world
        if not world.outcome.faults["chunk duplicated"]:
            world.judge.keys_made(world.kms.made, self.keys_asked)
        for number, site in enumerate(world.sites, start=1):
            # Without TLS a blob may be stored as it arrived.
            new_keys = [] if world.outcome.faults["chunk garbled"] else site.new_keys
            rights = (*self.rights, *((key, CHAINS[0], "attestation") for key in new_keys))
            level = {chain: head + 3 * number for chain, head in self.heads.items()}
            waiting = {Meaning(key.public_bytes, chain, right, level[chain], 0): key for key, chain, right in rights}
            reasons: dict[Meaning, object] = {}
            end = world.scheduler.now + PATIENCE_S
            while waiting and world.scheduler.now < end:
                for meaning, key in waiting.items():
                    self.ask(site, key, meaning, 9, partial(_note, waiting, reasons, meaning))
                world.scheduler.run(world.scheduler.now + 1.0)
            for meaning in waiting:
                why = site.problem if site.host is None else reasons.get(meaning, "no answer")
                world.judge.silent(meaning, why)


def _note(
    waiting: dict[Meaning, Key], reasons: dict[Meaning, object], meaning: Meaning, answer: bytes | HostError
) -> None:
    reasons[meaning] = answer
    if isinstance(answer, bytes):
        waiting.pop(meaning, None)
