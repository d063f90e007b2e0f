"""What the log calls the other end of a connection."""

import socket

import pytest

from host_backend.api.peer import MAX_SUBJECT_CHARS, Peer, address_of, source_of, subject_of, user_of


@pytest.mark.parametrize(
    ("name", "address", "source"),
    [
        (("192.0.2.1", 5), ("192.0.2.1", 5), "192.0.2.1:5"),
        (("::ffff:192.0.2.1", 5, 0, 0), ("192.0.2.1", 5), "192.0.2.1:5"),
        (("2001:db8::1", 5, 0, 0), ("2001:db8::1", 5), "[2001:db8::1]:5"),
        (("fe80::1%eth0", 5, 0, 2), ("fe80::1", 5), "[fe80::1]:5"),
        ("", None, ""),
        (b"\0name", None, ""),
    ],
)
def test_addresses(name: object, address: tuple[str, int] | None, source: str) -> None:
    assert address_of(name) == address
    assert source_of(address) == source


def test_a_client_that_a_proxy_names_has_no_port() -> None:
    assert [source_of((address, 0)) for address in ("192.0.2.1", "2001:db8::1")] == ["192.0.2.1", "2001:db8::1"]


def test_what_counts_as_one_address() -> None:
    assert Peer("s", "2001:db8::1", 5).network == "2001:db8::/64"
    assert Peer("s", "192.0.2.1", 5).network == "192.0.2.1"
    # Many clients come from there.
    assert Peer("s", "192.0.2.1", 5, is_proxy=True).network is None
    assert Peer("unix").network is None


def test_a_socket_that_does_not_tell_its_user() -> None:
    class Silent(socket.socket):
        def getsockopt(self, *_: object) -> bytes:  # type: ignore[override]
            raise OSError

    with Silent() as client:
        assert user_of(client) == "unix"


def test_subjects() -> None:
    subject = (
        (("countryName", "CH"),),
        (("organizationName", "Bakers"),),
        (("commonName", "a,b"), ("serialNumber", "1")),
    )
    assert subject_of({"subject": subject}) == "serialNumber=1,CN=a,b,O=Bakers,C=CH"
    assert subject_of({}) == ""
    assert len(subject_of({"subject": ((("commonName", "x" * 1000),),)})) == MAX_SUBJECT_CHARS
