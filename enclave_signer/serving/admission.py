"""Who may be connected: the places, and who makes room for a newcomer.

- One address has a share of the places, so that it cannot keep all others out.
- A newcomer that finds no place gets that of the connection that has been silent longest, of those that hold no keys:
  a host that signs holds keys. If its address has its share, one of that address must go; else any.
- If there is no such connection, the newcomer is turned away.
"""

import ipaddress
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Protocol


class Client(Protocol):
    """A connection, as far as its place is concerned."""

    @property
    def silent_since(self) -> float | None:
        """Since when nothing was asked; None while it is served or holds keys."""
        ...

    def stop(self) -> None:
        """End it."""
        ...


class Places:
    """The connections that there are.

    Args:
        limit: Places in all.
        share: Places of one address.
        on_displaced: Called with the address of a connection that was closed for a new one.
    """

    def __init__(self, limit: int, share: int, on_displaced: Callable[[str], None]) -> None:
        self._limit = limit
        #: Places of one address.
        self.share = share
        self._on_displaced = on_displaced
        self._addresses: dict[Client, str] = {}
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return how many are taken."""
        return len(self._addresses)

    def __iter__(self) -> Iterator[Client]:
        """Go through all connections."""
        return iter(list(self._addresses))

    def enter(self, client: Client, address: str) -> bool:
        """Give a place to a newcomer, another's if need be; return whether there was one."""
        if (rivals := self._rivals(address)) is not None:
            silent = [(since, rival) for rival in rivals if (since := rival.silent_since) is not None]
            if not silent:
                return False
            _, displaced = min(silent, key=lambda entry: entry[0])
            displaced.stop()
            self._on_displaced(self._addresses[displaced])
            self.leave(displaced)
        self._addresses[client] = address
        self._counts[address] += 1
        return True

    def _rivals(self, address: str) -> list[Client] | None:
        """Return those of whom one must go, None if there is a free place."""
        if self._counts[address] >= self.share:
            return [client for client, other in self._addresses.items() if other == address]
        if len(self._addresses) >= self._limit:
            return list(self._addresses)
        return None

    def leave(self, client: Client) -> None:
        """Free the place of a connection, if it has one."""
        address = self._addresses.pop(client, None)
        if address is not None:
            self._counts[address] -= 1
            if not self._counts[address]:
                del self._counts[address]


def network_of(host: str) -> str:
    """Return what counts as one address: of IPv6 the first half, as one client usually has all of these addresses."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))
