"""What counts as one client, and what only this machine reaches: the same in both programs."""

from collections.abc import Callable

import pytest

from enclave_signer import addresses
from host_backend import ip_addresses
from host_backend.ip_addresses import network_of


def test_an_ipv6_network_counts_as_one_address() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1:2:3") != network_of("2001:db8:0:1::1")
    assert network_of("fe80::1%eth0") == network_of("fe80::2%eth0")
    same = ("192.0.2.1", "::ffff:192.0.2.1", "")
    assert [network_of(address) for address in same] == ["192.0.2.1", "192.0.2.1", ""]


@pytest.mark.parametrize("judge", [addresses.is_loopback, ip_addresses.is_loopback], ids=["enclave", "host"])
def test_loopback(judge: Callable[[str], bool]) -> None:
    for host in (
        "127.0.0.1",
        "127.9.8.7",
        "127.1",
        "::1",
        "0:0:0:0:0:0:0:1",
        "::ffff:127.0.0.1",
        "localhost",
        "LOCALHOST",
    ):
        assert judge(host), host
    for host in ("", "0.0.0.0", "::", "10.0.0.1", "::ffff:10.0.0.1", "128.0.0.1", "fe80::1", "a" * 300):
        assert not judge(host), host


@pytest.mark.parametrize("module", [addresses, ip_addresses], ids=["enclave", "host"])
def test_localhost_is_loopback_with_all_its_addresses_only(module: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        assert host == "localhost"
        return [(0, 0, 0, "", (address, 0)) for address in ("127.0.0.1", "192.0.2.1")]

    monkeypatch.setattr("socket.getaddrinfo", resolve)
    assert not module.is_loopback("localhost")  # type: ignore[attr-defined]


def test_the_host_looks_no_other_name_up() -> None:
    for name in ("127.evil.example", "localhost.example", "127.0.0.1.example"):
        assert not ip_addresses.is_loopback(name)
