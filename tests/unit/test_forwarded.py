"""For whom a proxy asks, and which headers are not believed."""

from contextlib import suppress
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_backend.api.forwarded import MAX_CHARS, MAX_HOPS, TrustedProxies, Unclear

PROXIES = TrustedProxies([ip_network(text) for text in ("10.0.0.0/8", "2001:db8:1::/48", "127.0.0.1")])


def headers(*pairs: str) -> list[tuple[bytes, bytes]]:
    names = {"F": b"forwarded", "X": b"x-forwarded-for"}
    return [(names[pair[0]], pair[2:].encode("latin-1")) for pair in pairs]


def test_who_is_trusted() -> None:
    trusted = ("10.1.2.3", "127.0.0.1", "2001:db8:1::5", "::ffff:10.0.0.1")
    strangers = ("11.0.0.1", "127.0.0.2", "2001:db8:2::5", "::1")
    assert all(map(PROXIES.trusts, trusted))
    assert not any(map(PROXIES.trusts, strangers))
    assert not any(map(TrustedProxies().trusts, (*trusted, *strangers)))


@pytest.mark.parametrize(
    ("given", "client"),
    [
        ((), None),
        (("X=192.0.2.1",), "192.0.2.1"),
        # Whatever is left of the last stranger was made up, perhaps.
        (("X=198.51.100.7, 192.0.2.1",), "192.0.2.1"),
        (("X=nonsense, 192.0.2.1",), "192.0.2.1"),
        (("X=198.51.100.7", "X=192.0.2.1"), "192.0.2.1"),
        (("X=192.0.2.1, 10.0.0.2,10.0.0.3",), "192.0.2.1"),
        # All of them are proxies: the first asks for itself.
        (("X=10.0.0.2, 10.0.0.3",), "10.0.0.2"),
        (("X=192.0.2.1:4711",), "192.0.2.1"),
        (("X=[2001:db8::1]:4711",), "2001:db8::1"),
        (("X=2001:DB8:0::1",), "2001:db8::1"),
        (("X=::ffff:192.0.2.1",), "192.0.2.1"),
        (("F=for=192.0.2.1",), "192.0.2.1"),
        (('F=For="[2001:db8::1]:4711";proto=https;by=203.0.113.43',), "2001:db8::1"),
        (("F=for=192.0.2.1;host=h, for=10.0.0.2",), "192.0.2.1"),
        (("F=for=198.51.100.7", "F=proto=http;for=192.0.2.1"), "192.0.2.1"),
        (("F=for=unknown, for=192.0.2.1",), "192.0.2.1"),
        # What a client writes elsewhere is no `for`.
        (('F=for=192.0.2.1;host="a;for=198.51.100.7"',), "192.0.2.1"),
        (('F=host="a, for=198.51.100.7;b=c";for=192.0.2.1',), "192.0.2.1"),
        (("F=for=192.0.2.1", "X=198.51.100.7, 192.0.2.1"), "192.0.2.1"),
    ],
)
def test_the_client_is_the_last_stranger(given: tuple[str, ...], client: str | None) -> None:
    assert PROXIES.client_of(headers(*given)) == client


@pytest.mark.parametrize(
    "given",
    [
        ("X=",),
        ("X=unknown",),
        ("X=192.0.2.1,",),
        ("X=192.0.2",),
        ("X=192.0.2.1:port",),
        ("X=192.0.2.1:123456",),
        ("X=300.0.0.1",),
        ("X=fe80::1%eth0",),
        ("X=[2001:db8::1",),
        ("F=",),
        ("F=for=unknown",),
        ("F=for=_hidden",),
        ("F=for=192.0.2.1,",),
        ("F=for",),
        ("F=proto=https",),
        ("F=for=192.0.2.1;for=192.0.2.2",),
        ('F=host="a;for=192.0.2.1"',),
        # A quotation mark that a client left open does not hide what the proxy added.
        ('F=for="192.0.2.9', "F=for=192.0.2.1"),
        ("F=for=2001:db8::1",),
        ("F=for=192.0.2.1 ; , for=192.0.2.2",),
        ("F=for=192.0.2.1", "X=192.0.2.2"),
        ("F=nonsense", "X=192.0.2.2"),
        ("X=" + ",".join(["10.0.0.1"] * (MAX_HOPS + 1)),),
        ("X=" + "1" * (MAX_CHARS + 1),),
    ],
)
def test_what_names_nobody(given: tuple[str, ...]) -> None:
    with pytest.raises(Unclear):
        PROXIES.client_of(headers(*given))


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"forwarded", b"x-forwarded-for"]),
            st.one_of(
                st.binary(max_size=60),
                st.text(' ,;="\\[]:for.10abcdef_', max_size=60).map(str.encode),
            ),
        ),
        max_size=4,
    )
)
def test_any_bytes_name_an_address_or_nobody(pairs: list[tuple[bytes, bytes]]) -> None:
    with suppress(Unclear):
        client = PROXIES.client_of(pairs)
        assert client is None or str(ip_address(client)) == client
