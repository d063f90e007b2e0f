"""Who may be connected: the places, and who gives up his for a newcomer. Pure.

- An address may have all places while no other wants one.
- When all are taken, somebody goes: one of the newcomer's own address if that has its share; else one of the address that
  has more than its share, also while it is answered; else any.
- Of these, first a client without an answer a second after it came, such as in a TLS handshake that does not end; then
  the one that has been silent longest. A client to whom an answer is due goes only where its address has more than its share.
- Shares do not bind those of a trusted proxy or a Unix socket, behind whose one address there are many clients.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

#: Seconds until a client that has had no answer yet goes before those that had one: several round trips around the world.
#: At once, and every newcomer would displace the one before it.
BEGINNING_S = 1.0


class Client(Protocol):
    """A connection, as far as its place is concerned."""

    @property
    def answer_due(self) -> bool:
        """Whether a whole request of it is being answered."""
        ...

    def displace(self) -> None:
        """End it."""
        ...


C = TypeVar("C", bound=Client)


class Place(Generic[C]):
    """The place of one client."""

    __slots__ = ("_lines", "_places", "client", "silent_since")

    def __init__(self, client: C, places: "Places[C]", lines: "tuple[_Line[C], _Line[C]]", now: float) -> None:
        self.client = client
        #: In seconds; since when nothing was answered.
        self.silent_since = now
        self._places = places
        #: Of its address, and of all.
        self._lines = lines
        for line in lines:
            line.beginning[self] = None

    def answered(self, now: float) -> None:
        """Take note that the client has had an answer, and is silent from now on."""
        self.silent_since = now
        for line in self._lines:
            try:
                line.served.move_to_end(self)
            except KeyError:
                # The first answer; there is none any more for a client that has left.
                if self in line.beginning:
                    del line.beginning[self]
                    line.served[self] = None

    def leave(self) -> None:
        """Free it; more than once does nothing."""
        for line in self._lines:
            line.beginning.pop(self, None)
            line.served.pop(self, None)
        self._places.left(self._lines[0])


class _Line(Generic[C]):
    """Clients, the longest silent first."""

    __slots__ = ("beginning", "network", "served")

    def __init__(self, network: str | None) -> None:
        self.network = network
        #: Those that had no answer yet.
        self.beginning: OrderedDict[Place[C], None] = OrderedDict()
        self.served: OrderedDict[Place[C], None] = OrderedDict()

    def __len__(self) -> int:
        return len(self.beginning) + len(self.served)

    def first_of_all(self) -> Place[C]:
        """Return who has been silent longest, whether an answer is due to it or not; there must be somebody."""
        firsts = [next(iter(places)) for places in (self.beginning, self.served) if places]
        return min(firsts, key=lambda place: place.silent_since)

    def first_to_go(self, now: float) -> Place[C] | None:
        """Return who goes first, None if an answer is due to everybody; of 4096 busy clients it takes half a millisecond."""
        beginner = next((place for place in self.beginning if not place.client.answer_due), None)
        if beginner is not None and now - beginner.silent_since >= BEGINNING_S:
            return beginner
        served = next((place for place in self.served if not place.client.answer_due), None)
        if beginner is None or served is None:
            return beginner or served
        return min(beginner, served, key=lambda place: place.silent_since)


class Places(Generic[C]):
    """The clients that are connected.

    Args:
        limit: Places in all.
        on_displaced: Called with the client that had to go.
    """

    def __init__(self, limit: int, on_displaced: Callable[[C], None]) -> None:
        self.limit = limit
        #: Places of one address, where others want some: of two addresses at most one has more.
        self.share = max(1, limit // 2)
        self._on_displaced = on_displaced
        self._all: _Line[C] = _Line(None)
        self._networks: dict[str | None, _Line[C]] = {}
        #: The one that has more than its share.
        self._crowded: _Line[C] | None = None

    def __len__(self) -> int:
        """Return how many are taken."""
        return len(self._all)

    def enter(self, client: C, network: str | None, now: float) -> Place[C] | None:
        """Give a newcomer a place, another's if need be.

        Args:
            client: The newcomer.
            network: What counts as its address; None where shares do not bind.
            now: In seconds.

        Returns:
            Its place; None if there is none for it.
        """
        line = self._networks.get(network)
        if line is None:
            line = _Line(network)
        if len(self._all) >= self.limit:
            displaced = self._first_to_go(line, now)
            if displaced is None:
                return None
            displaced.leave()
            displaced.client.displace()
            self._on_displaced(displaced.client)
        # A new one, if the last client of this address has left.
        self._networks[network] = line
        place = Place(client, self, (line, self._all), now)
        if network is not None and len(line) > self.share:
            self._crowded = line
        return place

    def has_share(self, network: str | None) -> bool:
        """Return whether an address has its share, so that no other gives up a place for it."""
        line = self._networks.get(network)
        return network is not None and line is not None and len(line) >= self.share

    def _first_to_go(self, line: _Line[C], now: float) -> Place[C] | None:
        if self.has_share(line.network):
            return line.first_to_go(now)
        if (crowded := self._crowded) is not None:
            # What takes long, such as an enclave that is away, would let one address keep everybody out.
            return crowded.first_to_go(now) or crowded.first_of_all()
        return self._all.first_to_go(now)

    def left(self, line: _Line[C]) -> None:
        """Take note that one of an address has left."""
        if self._crowded is line and len(line) <= self.share:
            self._crowded = None
        if not len(line) and self._networks.get(line.network) is line:
            del self._networks[line.network]
