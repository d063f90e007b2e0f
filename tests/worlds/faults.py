"""What goes wrong in worlds: each fault by its name, and in which kind of world it is inside the fault model.

`docs/fault-model.md` says what no store notices: that it fell back, as a whole or by its last batch. Against that there is
the enclave's guard, as long as the enclave lives. So no world has both: a disk that forgets and an enclave that does.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tests.worlds.cloud import CLOUD_FAULTS
from tests.worlds.enclave import SEALER_FAULTS
from tests.worlds.network import CHUNK_FAULTS

if TYPE_CHECKING:
    from tests.worlds.site import Site
    from tests.worlds.world import World

#: Does it, to one of the places where a host is.
Fault = Callable[["World", "Site"], None]


def _chunk(kind: str) -> Fault:
    def spoil(world: "World", site: "Site") -> None:
        # Of the next chunks, one: it is not always the very next one that is hit.
        world.network.faults = [""] * world.chance.randrange(3) + [kind]

    return spoil


def _sealer(kind: str) -> Fault:
    def spoil(world: "World", site: "Site") -> None:
        world.kms.faults = [""] * world.chance.randrange(3) + [kind] * world.chance.choice([1, 1, 2, 3])
        # It is asked when there is a connection to be made, by an enclave that remembers no key.
        world.enclave_of(site).forget_keys()
        world.network.cut_all(world.enclave_of(site).process)

    return spoil


def _new_key_lost(world: "World", site: "Site") -> None:
    world.kms.lose_seals = 1
    world.bakers.generate(site)


def _cut(world: "World", site: "Site") -> None:
    world.network.cut_all(world.enclave_of(site).process)


def _pause_host(world: "World", site: "Site") -> None:
    world.pause(site.process)


def _pause_enclave(world: "World", site: "Site") -> None:
    world.pause(world.enclave_of(site).process)


def _kill_host(world: "World", site: "Site") -> None:
    world.kill(site)


def _kill_in_call(world: "World", site: "Site") -> None:
    site.disk.kill_in = world.chance.randrange(6)


def _stop_host(world: "World", site: "Site") -> None:
    world.stop(site)


def _kill_enclave(world: "World", site: "Site") -> None:
    world.restart_enclave(site)


def _other_enclave(world: "World", site: "Site") -> None:
    world.exchange_enclave(site)


def _lose_power(world: "World", site: "Site") -> None:
    world.kill(site, and_then=site.lose_power)


def _lose_power_in_call(world: "World", site: "Site") -> None:
    site.disk.kill_in = world.chance.randrange(6)
    site.loses_power = True


def _write_fails(world: "World", site: "Site") -> None:
    site.disk.fail_writes = world.chance.randrange(1, 4)
    if world.chance.random() < 0.5:
        site.disk.kill_after_failure = site.loses_power = True


def _sync_fails(world: "World", site: "Site") -> None:
    site.disk.fail_syncs = world.chance.randrange(1, 4)


def _full(world: "World", site: "Site") -> None:
    site.disk.full = True
    world.later(1.5, site.disk.make_room)


def _sync_fails_then_all(world: "World", site: "Site") -> None:
    site.disk.fail_syncs = 100

    def work_again() -> None:
        site.disk.fail_syncs = 0

    world.later(0.2 + 0.5 * world.chance.random(), world.kill, site, work_again)
    world.later(1.5 + world.chance.random(), _lose_power, world, site)


def _rot(world: "World", site: "Site") -> None:
    site.rot()
    if world.chance.random() < 0.7:
        world.later(0.1, world.kill, site)


def _unreadable(world: "World", site: "Site") -> None:
    site.make_unreadable()


def _lost_write(world: "World", site: "Site") -> None:
    site.lose_write()


def _misdirected(world: "World", site: "Site") -> None:
    site.misdirect_write()


def _roll_back(world: "World", site: "Site") -> None:
    if world.chance.random() < 0.5:
        world.kill(site, and_then=site.roll_back)
    else:
        world.stop(site, and_then=site.roll_back)


def _put_back(world: "World", site: "Site") -> None:
    world.stop(site, and_then=site.put_back)
    if world.chance.random() < 0.5:
        world.restart_enclave(site)


def _all_power(world: "World", site: "Site") -> None:
    world.kill(site, and_then=site.lose_power)
    world.restart_enclave(site)


def _keys_exchanged(world: "World", site: "Site") -> None:
    world.kill(site, and_then=site.exchange_keys)


def _keys_away(world: "World", site: "Site") -> None:
    site.keys.failing = True
    world.later(1.5, site.bring_keys_back)
    if world.chance.random() < 0.5:
        world.kill(site)


def _clone(world: "World", site: "Site") -> None:
    world.clone(site)


def _cloud(kind: str) -> Fault:
    def spoil(world: "World", site: "Site") -> None:
        world.cloud.faults = [kind if world.chance.random() < 0.6 else "" for _ in range(5)]

    return spoil


_CHUNKS: dict[str, Fault] = {f"chunk {kind}": _chunk(kind) for kind in CHUNK_FAULTS}
_CONNECTIONS: dict[str, Fault] = {
    **{f"sealer's answer {kind}": _sealer(kind) for kind in SEALER_FAULTS},
    "new key's answer lost": _new_key_lost,
    "connections cut": _cut,
    "host paused": _pause_host,
    "enclave paused": _pause_enclave,
    "sealed keys exchanged": _keys_exchanged,
    "key store away": _keys_away,
}
_HOST_RESTARTS: dict[str, Fault] = {"host killed": _kill_host, "host stopped": _stop_host}
_FILE_RESTARTS: dict[str, Fault] = {
    **_HOST_RESTARTS,
    "host killed in a call": _kill_in_call,
    "power lost": _lose_power,
    "power lost in a call": _lose_power_in_call,
}
_ENCLAVE_RESTARTS: dict[str, Fault] = {"enclave killed": _kill_enclave, "enclave exchanged": _other_enclave}
_DISK: dict[str, Fault] = {
    "write fails": _write_fails,
    "sync fails": _sync_fails,
    "sync fails, kill, power lost": _sync_fails_then_all,
    "disk full": _full,
    "block rotten": _rot,
    "block unreadable": _unreadable,
}
_FORGETFUL: dict[str, Fault] = {
    "write lost": _lost_write,
    "write misdirected": _misdirected,
    "store rolled back": _roll_back,
}


class Kind:
    """A kind of world.

    Args:
        name: How it is called.
        restarts: What starts either half again.
        faults: What else happens; what stands in several tables, or in one that is given twice, happens more often.
        sites: How many hosts there are.
        cloud: Whether they share a store in Firestore, and each has an enclave of its own.
    """

    def __init__(
        self,
        name: str,
        restarts: Mapping[str, Fault],
        *faults: Mapping[str, Fault],
        sites: int = 1,
        cloud: bool = False,
    ) -> None:
        self.name = name
        self.restarts = list(restarts.items())
        self.faults = [item for table in faults for item in table.items()]
        self.sites = sites
        self.cloud = cloud
        #: Whether what one store allows says nothing about another.
        self.stores_apart = sites > 1 and not cloud


_PUT_BACK: dict[str, Fault] = {"blocks put back": _put_back}
FORGETFUL_ENCLAVE = Kind(
    "forgetful enclave",
    {**_FILE_RESTARTS, **_ENCLAVE_RESTARTS, "all power lost": _all_power},
    *(_CHUNKS, _CONNECTIONS, _DISK, _DISK, _PUT_BACK, _PUT_BACK, _PUT_BACK),
)
FORGETFUL_DISK = Kind("forgetful disk", _FILE_RESTARTS, _CHUNKS, _CONNECTIONS, _DISK, _FORGETFUL, _FORGETFUL)
TWO_STORES = Kind("two stores", {**_FILE_RESTARTS, "host cloned": _clone}, _CHUNKS, _CONNECTIONS, _FORGETFUL, sites=2)
_CLOUD: dict[str, Fault] = {f"Firestore's answer {kind}": _cloud(kind) for kind in CLOUD_FAULTS}
FIRESTORE = Kind(
    "Firestore",
    {**_HOST_RESTARTS, **_ENCLAVE_RESTARTS},
    *(_CONNECTIONS, _CLOUD, _CLOUD, _CLOUD),
    sites=2,
    cloud=True,
)
#: Never made but to show that it is outside: a store and an enclave that both forget.
OUTSIDE = Kind("outside the fault model", {"enclave killed": _kill_enclave}, {"store rolled back": _roll_back})
#: By how often a world is of each kind.
KINDS = (*[FORGETFUL_ENCLAVE] * 6, *[FORGETFUL_DISK] * 3, TWO_STORES, FIRESTORE)
