"""Whom a proxy asks for: `Forwarded` (RFC 7239) and `X-Forwarded-For`. Pure.

- Only `server.trusted_proxies` are believed. Each adds the address that it was asked from at the end: so the client is the
  last one, from the right, that is no such proxy itself. Whatever is left of it anybody may have made up.
- If both headers are there, they must name the same client: most proxies write one, and pass the other on as it came.
- A malformed header, or one without an address, names no client.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from host_backend.ip_addresses import IpNetwork, parse_ip

#: Trusted proxies that a request may have come through; there are a few at most.
MAX_HOPS = 16
#: Characters of one of the headers: an address for each proxy on the way.
MAX_CHARS = 2048

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR = rf'{_WORD}=(?:{_WORD}|"(?:[^"\\]|\\.)*")'
_ELEMENT = re.compile(rf"[ \t]*({_PAIR}(?:[ \t]*;[ \t]*{_PAIR})*)[ \t]*(,|\Z)")
_NAMED = re.compile(_PAIR)
#: An address, with a port or without; one of IPv6 in brackets, or bare where no port can follow.
_NODE = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::\d{1,5})?|([0-9.]+)(?::\d{1,5})?|([0-9A-Fa-f:.]+)")


class Unclear(Exception):
    """The headers name no client; the text says why."""


class TrustedProxies:
    """Those whose word is taken for who asks.

    Args:
        networks: Their addresses.
    """

    def __init__(self, networks: Sequence[IpNetwork] = ()) -> None:
        self._networks = tuple(networks)
        self.trusts = lru_cache(maxsize=256)(self._trusts)

    def _trusts(self, address: str) -> bool:
        """Return whether an address is one of theirs."""
        if not self._networks:
            return False
        parsed = parse_ip(address)
        return any(parsed in network for network in self._networks)

    def client_of(self, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        """Return the address of the client for which a proxy asks; None if it names none.

        Args:
            headers: Of the request, with names in lower case.

        Raises:
            Unclear: What it says is malformed, names no address, or names two.
        """
        texts: dict[bytes, list[str]] = {b"forwarded": [], b"x-forwarded-for": []}
        for name, value in headers:
            if name in texts:
                texts[name].append(value.decode("latin-1"))
        by_name = (
            (texts[b"forwarded"], _forwarded),
            (texts[b"x-forwarded-for"], _x_forwarded_for),
        )
        clients = {self._last_stranger(nodes(_joined(values))) for values, nodes in by_name if values}
        if len(clients) > 1:
            raise Unclear("Forwarded and X-Forwarded-For name different clients")
        return clients.pop() if clients else None

    def _last_stranger(self, nodes: Iterator[str]) -> str:
        address = ""
        for number, node in enumerate(nodes):
            if number == MAX_HOPS:
                raise Unclear(f"there are more than {MAX_HOPS} trusted proxies in a row")
            address = _address(node)
            if not self.trusts(address):
                break
        return address


def _joined(values: Sequence[str]) -> str:
    text = ",".join(values)
    if len(text) > MAX_CHARS:
        raise Unclear(f"a header is over {MAX_CHARS} characters")
    return text


def _forwarded(text: str) -> Iterator[str]:
    """Yield what `for` is in each element, from the right; all of them must have the form of elements."""
    elements: list[str] = []
    at, more = 0, True
    while more:
        element = _ELEMENT.match(text, at)
        if element is None:
            raise Unclear("Forwarded is malformed")
        elements.append(element[1])
        at, more = element.end(), bool(element[2])
    for pairs in reversed(elements):
        named = [pair.partition("=") for pair in _NAMED.findall(pairs)]
        nodes = [node for name, _, node in named if name.lower() == "for"]
        if len(nodes) != 1:
            raise Unclear("an element of Forwarded does not say `for` once")
        yield nodes[0].strip('"')


def _x_forwarded_for(text: str) -> Iterator[str]:
    while True:
        text, comma, node = text.rpartition(",")
        yield node.strip(" \t")
        if not comma:
            return


def _address(node: str) -> str:
    form = _NODE.fullmatch(node)
    try:
        if form is not None:
            return str(parse_ip(form[1] or form[2] or form[3]))
    except ValueError:
        pass
    raise Unclear("a proxy names something that is not an address")
