"""Connections between the halves: streams of chunks that come late, twice, shifted, in part, or not at all."""

import asyncio
import socket
from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tests.worlds.clock import Process

if TYPE_CHECKING:
    from tests.worlds.enclave import Enclave

#: Seconds that a chunk takes, at least and at most.
_SHORTEST_S, _LONGEST_S = 0.0002, 0.004
#: What may happen to a chunk; all but the first and the last leave a stream that makes no sense any more.
CHUNK_FAULTS = ("late", "duplicated", "shifted", "garbled", "cut", "silent")
#: What the host asks about its end of a connection: it is on this machine.
_SOCKET = SimpleNamespace(family=socket.AF_UNIX)


class Network:
    """All connections of a world.

    Attributes:
        enclaves: By the name under which hosts know them.
        faults: What happens to the next chunks, the first one first.
    """

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self.enclaves: dict[str, Enclave] = {}
        self.faults: list[str] = []
        self.wires: dict[Wire, None] = {}

    def delay(self) -> float:
        """Return how long something takes on its way."""
        return _SHORTEST_S + self._chance.random() * (_LONGEST_S - _SHORTEST_S)

    async def connect(self, process: Process, protocol: asyncio.BaseProtocol, host: str) -> asyncio.Transport:
        """Connect a host with an enclave, for `Process`."""
        await asyncio.sleep(self.delay())
        enclave = self.enclaves[host]
        if enclave.process.dead or process.dead:
            raise ConnectionRefusedError
        wire = Wire(self, self._chance, process, protocol, enclave)
        self.wires[wire] = None
        protocol.connection_made(wire)
        return wire

    def cut_all(self, process: Process) -> None:
        """End every connection of a program that was killed."""
        for wire in [wire for wire in self.wires if process in (wire.host, wire.enclave.process)]:
            wire.cut()

    def calm(self) -> None:
        """Let nothing more happen to chunks; silent connections end."""
        self.faults.clear()
        for wire in [wire for wire in self.wires if wire.silent]:
            wire.cut()


class Wire(asyncio.Transport):
    """The host's end of one connection, and what lies between both ends."""

    def __init__(self, network: Network, chance: Random, host: Process, protocol: Any, enclave: "Enclave") -> None:
        super().__init__()
        self._network = network
        self._chance = chance
        self._protocol = protocol
        self.host = host
        self.enclave = enclave
        self.silent = False
        self._open = True
        self._last = [0.0, 0.0]
        self._served: Any = enclave.accept(self)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return _SOCKET if name == "socket" else default

    def write(self, data: Any) -> None:
        if self._open and not self.host.dead:
            self._carry(data, 0, self.enclave.process, self._served.data_received)

    def answer(self, data: bytes) -> None:
        """Carry what the enclave sends."""
        if self._open and not self.enclave.process.dead:
            self._carry(data, 1, self.host, self._told)

    def _told(self, data: bytes) -> None:
        if self._open:
            self._protocol.data_received(data)

    def _carry(self, data: bytes, direction: int, to: Process, take: Callable[[bytes], None]) -> None:
        if self.silent:
            return
        network = self._network
        late = 0.0
        if network.faults:
            fault = network.faults.pop(0)
            if fault == "garbled" and not direction:
                # Requests are kept from that by TCP's sums, or by TLS: an enclave signs what it reads.
                network.faults.insert(0, fault)
            elif fault == "late":
                late = 0.3 + 2 * self._chance.random()
            elif fault:
                data = self._spoilt(fault, data)
        when = self.host.time() + network.delay() + late
        if when < self._last[direction]:
            when = self._last[direction]
        self._last[direction] = when
        if data:
            to.do_at(when, take, data)

    def _spoilt(self, fault: str, data: bytes) -> bytes:
        at = self._chance.randrange(len(data))
        match fault:
            case "duplicated":
                return data + data
            case "shifted":
                return data[at:] if at % 2 else self._chance.randbytes(1 + at % 7) + data
            case "garbled":
                return data[:at] + bytes([data[at] ^ (1 << self._chance.randrange(8))]) + data[at + 1 :]
            case "cut":
                self.host.call_later(0.005, self.cut)
                return data[:at]
            case _:
                self.silent = True
                return b""

    def abort(self) -> None:
        if not self.host.dead:
            self.cut()

    def cut(self) -> None:
        """End it; both ends hear of it."""
        if not self._open:
            return
        self._open = False
        self._network.wires.pop(self, None)
        self.enclave.process.call_later(self._network.delay(), self._served.connection_lost)
        self.host.call_later(self._network.delay(), self._protocol.connection_lost, None)
        self._protocol = self._served = None

    def close(self) -> None:
        self.abort()
