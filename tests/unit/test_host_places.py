"""Who may be connected to the host, and who goes for a newcomer."""

import random

from host_backend.api.places import BEGINNING_S, Place, Places

HOST, STRANGER, OTHER = "10.0.0.1", "10.0.0.2", "10.0.0.3"


class Client:
    """A connection that a test lets wait for an answer or not."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.answer_due = False
        self.displaced = False

    def displace(self) -> None:
        self.displaced = True


class Room:
    """Places, the clients in them, and who had to go."""

    def __init__(self, limit: int) -> None:
        self.gone: list[str] = []
        self.places: Places[Client] = Places(limit, lambda client: self.gone.append(client.name))
        self.taken: dict[str, Place[Client]] = {}

    def enter(self, name: str, network: str | None = HOST, *, now: float = 0.0, served: bool = True) -> bool:
        place = self.places.enter(Client(name), network, now)
        if place is None:
            return False
        self.taken[name] = place
        if served:
            place.answered(now)
        return True


def test_a_newcomer_displaces_whoever_was_silent_longest() -> None:
    room = Room(3)
    for name, network in (("a", HOST), ("b", STRANGER), ("c", OTHER)):
        assert room.enter(name, network)
    room.taken["a"].answered(5)
    assert room.enter("d", "10.0.0.4", now=6)
    assert room.gone == ["b"]
    assert room.taken["b"].client.displaced
    assert len(room.places) == 3
    # It is lost later: that frees no one else's place.
    room.taken["b"].leave()
    assert len(room.places) == 3
    assert room.enter("e", "10.0.0.5", now=7)
    assert room.gone == ["b", "c"]


def test_an_address_may_have_all_places_until_somebody_else_comes() -> None:
    room = Room(4)
    for name in "abcd":
        assert room.enter(name, STRANGER)
    assert room.gone == []
    for number, (name, network) in enumerate((("e", HOST), ("f", OTHER))):
        assert room.enter(name, network, now=1)
        assert room.gone == ["a", "b"][: number + 1]


def test_an_address_that_has_its_share_displaces_its_own_only() -> None:
    room = Room(4)
    for name in "ab":
        assert room.enter(name, HOST)
    for name in "cd":
        assert room.enter(name, STRANGER, now=1)
    for name in "efg":
        assert room.enter(name, STRANGER, now=2)
    assert room.gone == ["c", "d", "e"]


def test_strangers_of_many_addresses_displace_each_other_before_a_client_that_asks() -> None:
    room = Room(4)
    assert room.enter("baker", HOST)
    for number in range(20):
        room.taken["baker"].answered(number)
        assert room.enter(f"stranger {number}", f"10.1.0.{number}", now=number)
    assert "baker" not in room.gone
    assert len(room.gone) == 17


def test_whoever_had_no_answer_yet_goes_first_after_a_second() -> None:
    room = Room(3)
    assert room.enter("served", HOST, now=0)
    assert room.enter("handshake", STRANGER, now=1, served=False)
    assert room.enter("served later", OTHER, now=2)
    # It had no time yet: the one silent longest goes.
    assert room.enter("d", "10.0.0.4", now=1 + BEGINNING_S / 2)
    assert room.enter("e", "10.0.0.5", now=1 + BEGINNING_S)
    assert room.gone == ["served", "handshake"]


def test_nobody_goes_to_whom_an_answer_is_due() -> None:
    room = Room(2)
    for name, network in (("a", HOST), ("b", STRANGER)):
        assert room.enter(name, network, served=False)
        room.taken[name].client.answer_due = True
    assert not room.enter("c", OTHER, now=100)
    assert room.gone == []
    room.taken["b"].client.answer_due = False
    assert room.enter("c", OTHER, now=100)
    assert room.gone == ["b"]


def test_a_crowded_address_gives_a_place_also_while_it_is_answered() -> None:
    room = Room(4)
    for now, name in enumerate("abc"):
        assert room.enter(name, STRANGER, now=now, served=name != "b")
        room.taken[name].client.answer_due = True
    assert room.enter("d", OTHER, now=3)
    assert not room.enter("more", STRANGER, now=4)
    assert room.enter("e", HOST, now=4)
    assert room.gone == ["a"]
    # It has no more than its share any more.
    assert room.enter("f", HOST, now=5)
    assert room.gone == ["a", "d"]


def test_shares_do_not_bind_those_of_a_proxy() -> None:
    room = Room(4)
    for name in "abcd":
        assert room.enter(name, None)
    for number, name in enumerate("efg"):
        assert room.enter(name, OTHER, now=1)
        assert len(room.gone) == number + 1 <= 2 or room.gone[-1] == "e"
    assert room.enter("h", None, now=2)
    assert len(room.places) == 4


def test_any_course_of_events_keeps_the_count() -> None:
    chance = random.Random(1)
    room = Room(8)
    for now in range(3000):
        name = f"{now}"
        room.enter(name, chance.choice((HOST, STRANGER, OTHER, None)), now=now, served=chance.random() < 0.5)
        for place in chance.sample(list(room.taken.values()), min(3, len(room.taken))):
            place.client.answer_due = chance.random() < 0.3
            if chance.random() < 0.2:
                place.leave()
            else:
                place.answered(now)
        there = [
            place
            for place in room.taken.values()
            if place in place._lines[0].served or place in place._lines[0].beginning
        ]
        assert len(room.places) == len(there) <= 8
        assert sum(map(len, room.places._networks.values())) == len(there)
        room.taken = {each: place for each, place in room.taken.items() if place in there}
    for place in room.taken.values():
        place.leave()
    assert (len(room.places), room.places._networks, room.places._crowded) == (0, {}, None)
