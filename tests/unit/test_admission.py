"""Who may be connected, and who goes for a newcomer."""

import pytest

from enclave_signer.config import Limits
from enclave_signer.serving.admission import Places, network_of

HOST, STRANGER, OTHER = "10.0.0.1", "10.0.0.2", "10.0.0.3"


class Client:
    """A connection that a test makes silent or not."""

    def __init__(self, silent_since: float | None) -> None:
        self.silent_since = silent_since
        self.stopped = False

    def stop(self) -> None:
        self.stopped = True


def places(limit: int, share: int) -> tuple[Places, list[str]]:
    displaced: list[str] = []
    return Places(limit, share, displaced.append), displaced


def test_a_newcomer_displaces_whoever_was_silent_longest() -> None:
    room, displaced = places(4, 4)
    busy, late, early, later = Client(None), Client(30), Client(10), Client(40)
    for client in (busy, late, early, later):
        assert room.enter(client, HOST)
    assert displaced == []
    newcomer = Client(50)
    assert room.enter(newcomer, HOST)
    assert [client.stopped for client in (busy, late, early, later)] == [False, False, True, False]
    assert displaced == [HOST]
    assert len(room) == 4
    assert set(room) == {busy, late, later, newcomer}
    # The one that went ends later: that takes no other's place away.
    room.leave(early)
    assert len(room) == 4


def test_a_newcomer_is_turned_away_where_all_others_hold_keys() -> None:
    room, displaced = places(2, 2)
    for _ in range(2):
        assert room.enter(Client(None), STRANGER)
    assert not room.enter(Client(1), HOST)
    assert len(room) == 2
    assert displaced == []


def test_one_address_does_not_take_the_places_of_the_others() -> None:
    room, _ = places(4, 2)
    holding = [Client(None) for _ in range(2)]
    for client in holding:
        assert room.enter(client, STRANGER)
    assert not room.enter(Client(1), STRANGER)
    for _ in range(2):
        assert room.enter(Client(None), HOST)


def test_beyond_its_share_an_address_displaces_its_own() -> None:
    room, _ = places(4, 2)
    of_host, first, second = Client(0), Client(1), Client(2)
    assert room.enter(of_host, HOST)
    for client in (first, second, Client(3)):
        assert room.enter(client, STRANGER)
    assert first.stopped
    assert not of_host.stopped
    assert not second.stopped


def test_who_leaves_gives_back_its_place_and_its_share() -> None:
    room, _ = places(2, 1)
    for _ in range(5):
        client = Client(None)
        assert room.enter(client, HOST)
        room.leave(client)
        room.leave(client)
    assert len(room) == 0


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
    ],
)
def test_what_counts_as_one_address(host: str, network: str) -> None:
    assert network_of(host) == network


@pytest.mark.parametrize(("limit", "share"), [(256, 128), (20, 10), (16, 8), (10, 8), (8, 8), (3, 3), (1, 1)])
def test_the_share_of_connections_leaves_a_host_its_own(limit: int, share: int) -> None:
    assert Limits(max_connections=limit).connections_per_address == share


@pytest.mark.parametrize(
    ("limit", "handles", "share"), [(65536, 16384, 32768), (30000, 16384, 16384), (100, 16384, 100), (3, 2, 2)]
)
def test_the_share_of_keys_is_at_least_that_of_a_connection(limit: int, handles: int, share: int) -> None:
    assert Limits(max_open_keys=limit, max_handles=handles).open_keys_per_address == share


@pytest.mark.parametrize(("shares", "connections", "keys"), [(None, 128, 32768), (1, 256, 65536), (3, 85, 21845)])
def test_rules_have_equal_shares_of_connections_and_of_keys(shares: int | None, connections: int, keys: int) -> None:
    limits = Limits()
    assert (limits.connections_of_share(shares), limits.open_keys_of_share(shares)) == (connections, keys)
