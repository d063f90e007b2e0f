"""The faults of a chaotic run: what each touches, how it begins, and how it ends."""

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from grpc import StatusCode

from tests.doubles.chaotic import DISKS
from tests.doubles.fault_proxy import FAULTS, Fault
from tests.doubles.google import firestore as google_firestore
from tests.doubles.google.http_service import Answered
from tests.doubles.google.kms import Fault as KmsFault
from tests.doubles.google.launcher import token
from tests.endurance.chaos_site import PROGRAMS, ChaoticSite

#: Seconds that a program stands still: longer than each limit of a request, 5 s at most.
STOPPED_S = (6.0, 8.0)
#: Seconds of every other fault.
OTHERS_S = (1.0, 4.0)
#: Seconds by which clocks jump.
JUMPS_S = {"ahead": 7200.0, "back": -7200.0}
#: Connections of strangers at once.
STRANGERS = 60
_OVERSIZED = (1 << 17) + 1


@dataclass(frozen=True)
class ChaosFault:
    """A kind of fault.

    Attributes:
        touches: What no other fault touches at the same time.
        happening: Lasts as long as the fault does.
        seconds: How long it lasts, at least and at most.
        slow_back: Whether what it takes away comes back by a later look: keys out of service, a refused enclave.
        restarts: Whether a program begins another life.
    """

    name: str
    touches: frozenset[str]
    happening: Callable[[ChaoticSite], AbstractContextManager[None]]
    seconds: tuple[float, float] = OTHERS_S
    slow_back: bool = False
    restarts: bool = False


@contextmanager
def _killed(site: ChaoticSite, *, name: str) -> Iterator[None]:
    """Kill a program; it is started again when all faults have ended."""
    site.units[name].discard()
    yield


@contextmanager
def _stopped(site: ChaoticSite, *, name: str) -> Iterator[None]:
    site.units[name].send(signal.SIGSTOP)
    try:
        yield
    finally:
        site.units[name].send(signal.SIGCONT)


@contextmanager
def _disk(site: ChaoticSite, *, name: str, disk: str) -> Iterator[None]:
    state = site.states[name]
    state.disk = disk
    state.save()
    try:
        yield
    finally:
        state.disk = "good"
        state.save()


@contextmanager
def _filled(site: ChaoticSite) -> Iterator[None]:
    """Leave no byte on the small disk."""
    if site.small is None:
        yield
        return
    ballast = site.small / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(65536)):
            pass
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def _clocks(site: ChaoticSite, *, jump: str) -> Iterator[None]:
    """Shift the clocks of all programs; Google's is right."""

    def shift(seconds: float) -> None:
        for state in site.states.values():
            state.clock_ahead_s = seconds
            state.save()

    shift(JUMPS_S[jump])
    try:
        yield
    finally:
        shift(0.0)


@contextmanager
def _link(site: ChaoticSite, *, host: str, fault: Fault) -> Iterator[None]:
    site.proxies[host].begin(fault)
    try:
        yield
    finally:
        site.proxies[host].heal()


def _cut(site: ChaoticSite) -> None:
    """End every connection to `enclave`: the next ones need its keys opened again."""
    for proxy in site.proxies.values():
        proxy.begin(Fault.AWAY)
        proxy.heal()


@contextmanager
def _renewed(
    fault: Callable[[ChaoticSite], AbstractContextManager[None]],
    renew: Callable[[ChaoticSite], None],
    site: ChaoticSite,
) -> Iterator[None]:
    """Have what a fault spoils be needed again while it lasts."""
    with fault(site):
        renew(site)
        yield


def _new_proof(site: ChaoticSite) -> None:
    """Kill the enclave that proves itself; it is started again meanwhile."""
    site.units["attested enclave"].discard()


@contextmanager
def _changed(site: ChaoticSite, *, path: str, value: object, good: object) -> Iterator[None]:
    """Set an attribute of one of the doubles, and set it back."""
    *owners, name = path.split(".")
    owner: Any = site
    for each in owners:
        owner = getattr(owner, each)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, good)


@contextmanager
def _kms(site: ChaoticSite, *, fault: KmsFault) -> Iterator[None]:
    site.cloud.kms.break_with(fault)
    try:
        yield
    finally:
        site.cloud.kms.break_with(None)


@contextmanager
def _no_token(site: ChaoticSite) -> Iterator[None]:
    site.cloud.launcher.token_file.unlink()
    try:
        yield
    finally:
        site.cloud.launcher.write(token())


def _spoil(answer: Any) -> None:
    for field in ("plaintext", "ciphertext"):
        if data := getattr(answer, field, b""):
            setattr(answer, field, bytes([data[0] ^ 1]) + data[1:])


@contextmanager
def _strangers(site: ChaoticSite, *, port: Callable[[ChaoticSite], int]) -> Iterator[None]:
    """Have many connect who say nothing, nonsense, too much, or a part of something."""
    ended = threading.Event()
    thread = threading.Thread(target=_flood, args=(partial(port, site), ended))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


_SAID = (
    b"",
    b"\x16\x03\x01\xff\xff" * 100,
    _OVERSIZED.to_bytes(4, "big") + bytes(65536),
    b"POST /keys/x HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n" + b"0" * 65536,
    b"POST /keys/x HTTP/1.1\r\n" + b"a: b\r\n" * 10_000,
    b"\0\0\0\x05\xa1\x66Imp",
)


def _flood(port: Callable[[], int], ended: threading.Event) -> None:
    number = 0
    while not ended.is_set():
        with ExitStack() as stack:
            while number % STRANGERS or not number:
                number += 1
                # From other addresses: the bakers' own has its places.
                with suppress(OSError):
                    stream = stack.enter_context(socket.socket())
                    stream.settimeout(0.5)
                    stream.bind((f"127.0.0.{2 + number % 8}", 0))
                    stream.connect(("127.0.0.1", port()))
                    stream.sendall(_SAID[number % len(_SAID)])
            ended.wait(0.3)
        number = 0


def _of_programs() -> Iterator[ChaosFault]:
    for name in PROGRAMS:
        touched = frozenset({name})
        yield ChaosFault(f"kill {name}", touched, partial(_killed, name=name), restarts=True)
        yield ChaosFault(f"stop {name}", touched, partial(_stopped, name=name), STOPPED_S)


def _of_disks() -> Iterator[ChaosFault]:
    for disk in DISKS[1:]:
        seconds = STOPPED_S if disk == "hanging" else OTHERS_S
        yield ChaosFault(f"disk {disk}", frozenset({"disk"}), partial(_disk, name="file", disk=disk), seconds)
    yield ChaosFault("disk filled", frozenset({"disk"}), _filled)
    yield ChaosFault("other disk failing", frozenset({"other disk"}), partial(_disk, name="attested", disk="failing"))


def _of_links() -> Iterator[ChaosFault]:
    for number, fault in enumerate((*FAULTS, Fault.GARBLE)):
        host = ("file", "firestore")[number % 2]
        # A garbled answer to `Import` takes that key out of service, until the next look at such keys.
        back = fault is Fault.GARBLE
        touched = frozenset({f"link of {host}"})
        yield ChaosFault(f"link {fault}", touched, partial(_link, host=host, fault=fault), slow_back=back)


def _of_keys() -> Iterator[ChaosFault]:
    """Faults of what opens keys."""
    kms = {
        "kms unavailable": KmsFault(StatusCode.UNAVAILABLE),
        "kms refuses": KmsFault(StatusCode.PERMISSION_DENIED),
        "kms late": KmsFault(delay_s=1.5),
        "kms garbled": KmsFault(spoil=_spoil),
    }
    happening: dict[str, Callable[[ChaoticSite], AbstractContextManager[None]]] = {
        **{name: partial(_kms, fault=fault) for name, fault in kms.items()},
        "no token": _no_token,
        "sts fails": partial(_changed, path="cloud.sts.fault", value=lambda: Answered(503), good=None),
        "sts clock": partial(_changed, path="cloud.sts.clock_ahead_s", value=7200.0, good=0.0),
    }
    for name, fault in happening.items():
        yield ChaosFault(name, frozenset({"opening"}), partial(_renewed, fault, _cut), slow_back=True)


def _of_proofs() -> Iterator[ChaosFault]:
    """Faults of what proves an enclave."""
    happening: dict[str, Callable[[ChaoticSite], AbstractContextManager[None]]] = {
        "attester away": partial(_changed, path="attested.away", value=True, good=False),
        "other image": partial(_changed, path="attested.changes", value=_OTHER_IMAGE, good={}),
        **{f"clocks {jump}": partial(_clocks, jump=jump) for jump in JUMPS_S},
    }
    touched = frozenset({"proof", "attested enclave"})
    for name, fault in happening.items():
        yield ChaosFault(name, touched, partial(_renewed, fault, _new_proof), slow_back=True, restarts=True)


def _of_firestore() -> Iterator[ChaosFault]:
    always = (google_firestore.Fault.UNAVAILABLE, google_firestore.Fault.DENIED, google_firestore.Fault.HANGS)
    happening: dict[str, google_firestore.Faults] = {
        "unsure": google_firestore.some_faults(1, 0.3),
        **{answer.name.lower(): partial(_always, answer) for answer in always},
    }
    for name, faults in happening.items():
        changed = partial(_changed, path="firestore.faults", value=faults, good=google_firestore.no_faults)
        yield ChaosFault(f"firestore {name}", frozenset({"firestore service"}), changed)


_OTHER_IMAGE = {"submods.container.image_digest": "sha256:" + "0d" * 32}


def _always(fault: google_firestore.Fault, _method: str) -> google_firestore.Fault:
    return fault


def _of_crowds() -> Iterator[ChaosFault]:
    for name in PROGRAMS:
        there = partial(_strangers, port=partial(ChaoticSite.port, name=name))
        yield ChaosFault(f"strangers at {name}", frozenset({"strangers"}), there)


@contextmanager
def strangers_everywhere(site: ChaoticSite) -> Iterator[None]:
    """Have strangers at every port: what they cost the first times is in the memory of all programs then."""
    with ExitStack() as stack:
        for name in PROGRAMS:
            stack.enter_context(_strangers(site, port=partial(ChaoticSite.port, name=name)))
        yield


def all_faults() -> tuple[ChaosFault, ...]:
    """Return every kind of fault, always in the same order."""
    kinds = (_of_programs, _of_disks, _of_links, _of_keys, _of_proofs, _of_firestore, _of_crowds)
    return tuple(fault for kind in kinds for fault in kind())
