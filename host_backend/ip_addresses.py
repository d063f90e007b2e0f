"""IP addresses: what counts as one client, and what only this machine reaches."""

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

#: Bits of an IPv6 address that tell clients apart: a client with one address has all that begin so.
_IPV6_CLIENT_BITS = 64


def parse_ip(text: str) -> IpAddress:
    """Return an address, without a zone; one of IPv4 that is written as one of IPv6 as what it is.

    Raises:
        ValueError: It is none.
    """
    return unmapped(ip_address(text.partition("%")[0]))


def unmapped(address: IpAddress) -> IpAddress:
    """Return an address of IPv4 that is written as one of IPv6 as what it is; any other one as it comes."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def network_of(address: str) -> str:
    """Return what counts as one client's address: of IPv6 the first half; an empty text stays as it is."""
    if not address:
        return ""
    parsed = parse_ip(address)
    bits = _IPV6_CLIENT_BITS if isinstance(parsed, IPv6Address) else parsed.max_prefixlen
    return str(parsed) if bits == parsed.max_prefixlen else str(ip_network((parsed, bits), strict=False))


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a host: an address, or `localhost` if all its addresses are such.

    Other names are not looked up: the answer for a name may change.
    """
    flags = 0 if host.lower().removesuffix(".") == "localhost" else socket.AI_NUMERICHOST
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=flags)
    except (OSError, UnicodeError):
        return False
    return all(parse_ip(str(entry[4][0])).is_loopback for entry in found)
