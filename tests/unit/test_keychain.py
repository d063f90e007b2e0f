"""Opened keys of all sessions: shared, remembered for a while, counted."""

import math

import pytest

from enclave_signer.curves import SigningKey, curve
from enclave_signer.errors import KeyFault, KeyNotOpen, NotReleased
from enclave_signer.keychain import Keychain, OpenKeys
from enclave_signer.protocol.messages import Credentials, KeyType
from enclave_signer.tezos import public_key_hash

ED25519 = curve(KeyType.ED25519)
RETAIN_S = 300.0


class Clock:
    """Seconds as a test wants them."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_keys(clock: Clock) -> OpenKeys:
    return OpenKeys(4, 3, RETAIN_S, clock)


def new_key() -> SigningKey:
    return ED25519.open(ED25519.generate())


def keychain(open_keys: OpenKeys, kek: str = "kek", provider: str = "provider", address: str = "10.0.0.1") -> Keychain:
    made = Keychain(10, open_keys, address)
    made.open_for(Credentials(provider, kek))
    return made


def test_a_key_that_is_open_is_shared(open_keys: OpenKeys) -> None:
    first, second = keychain(open_keys), keychain(open_keys)
    key, same = new_key(), new_key()
    first.add(b"blob", key)
    assert second.find(b"blob") is key
    # Both had asked the sealer before either had an answer.
    second.add(b"blob", same)
    assert second.key(0) is key
    first.close()
    assert second.key(0) is key
    assert keychain(open_keys).find(b"blob") is key


@pytest.mark.parametrize(("kek", "provider", "blob"), [("k2", "provider", b"blob"), ("kek", "p2", b"blob")])
def test_other_credentials_open_for_themselves(open_keys: OpenKeys, kek: str, provider: str, blob: bytes) -> None:
    keychain(open_keys).add(b"blob", new_key())
    assert keychain(open_keys, kek, provider).find(blob) is None
    assert keychain(open_keys).find(b"other") is None


def test_credentials_do_not_run_into_each_other(open_keys: OpenKeys) -> None:
    places = [
        Credentials("ab", "c"),
        Credentials("a", "bc"),
        Credentials("abc"),
        Credentials(None, "abc"),
        Credentials(),
    ]
    for credentials in places:
        made = Keychain(10, open_keys, "10.0.0.1")
        made.open_for(credentials)
        assert made.find(b"blob") is None
    made.add(b"blob", new_key())
    for credentials in places[:-1]:
        made.open_for(credentials)
        assert made.find(b"blob") is None


def test_a_key_is_remembered_after_its_last_session_and_then_dropped(open_keys: OpenKeys, clock: Clock) -> None:
    first, second = keychain(open_keys), keychain(open_keys)
    key = new_key()
    first.add(b"blob", key)
    second.add(b"blob", key)
    first.close()
    clock.now += 10 * RETAIN_S
    assert open_keys.forget() == math.inf
    second.close()
    left = clock.now
    assert open_keys.forget() == left + RETAIN_S
    clock.now = left + RETAIN_S - 1
    assert keychain(open_keys).find(b"blob") is key
    clock.now = left + RETAIN_S
    assert open_keys.forget() == math.inf
    assert keychain(open_keys).find(b"blob") is None


def test_a_key_that_is_over_its_time_is_not_found_even_if_nobody_swept(open_keys: OpenKeys, clock: Clock) -> None:
    first = keychain(open_keys)
    first.add(b"blob", new_key())
    first.close()
    clock.now += RETAIN_S
    assert keychain(open_keys).find(b"blob") is None


def test_coming_back_stops_the_time(open_keys: OpenKeys, clock: Clock) -> None:
    first, key = keychain(open_keys), new_key()
    first.add(b"blob", key)
    first.close()
    back = keychain(open_keys)
    back.add(b"blob", new_key())
    assert back.key(0) is key
    clock.now += 10 * RETAIN_S
    assert open_keys.forget() == math.inf
    assert back.find(b"blob") is key


def test_keys_go_in_the_order_in_which_they_were_left(open_keys: OpenKeys, clock: Clock) -> None:
    chains = [keychain(open_keys) for _ in range(3)]
    for number, chain in enumerate(chains):
        chain.add(b"%d" % number, new_key())
    for number in (2, 0, 1):
        chains[number].close()
        clock.now += 1
    clock.now += RETAIN_S - 2
    assert open_keys.forget() == clock.now + 1
    asks = keychain(open_keys)
    assert [asks.find(b"%d" % number) is not None for number in range(3)] == [False, True, False]


def test_remembered_keys_count_and_make_room(clock: Clock) -> None:
    open_keys = OpenKeys(4, 4, RETAIN_S, clock)
    left = keychain(open_keys)
    for number in range(4):
        left.add(b"%d" % number, new_key())
    with pytest.raises(KeyFault, match="4 opened keys"):
        keychain(open_keys).add(b"more", new_key())
    left.close()
    asks = keychain(open_keys)
    for number in range(3):
        asks.add(b"new %d" % number, new_key())
    # The oldest went; one is still remembered, and can be taken without another having to go.
    remembered = [number for number in range(4) if asks.find(b"%d" % number) is not None]
    assert len(remembered) == 1
    asks.add(b"%d" % remembered[0], new_key())
    with pytest.raises(KeyFault, match="4 opened keys"):
        asks.add(b"more", new_key())
    asks.close()
    assert asks.find(b"%d" % remembered[0]) is not None


def test_a_key_counts_once_however_many_handles_there_are(open_keys: OpenKeys) -> None:
    strangers = [keychain(open_keys) for _ in range(3)]
    for stranger in strangers:
        for _ in range(10):
            stranger.add(b"blob", new_key())
    host = keychain(open_keys)
    host.add(b"of the host", new_key())
    host.add(b"another", new_key())
    # And it is given back once, with the last handle.
    for stranger in strangers:
        assert open_keys.forget() == math.inf
        stranger.close()
    assert open_keys.forget() < math.inf


def test_one_address_has_its_share(open_keys: OpenKeys) -> None:
    stranger, host = keychain(open_keys), keychain(open_keys, address="10.0.0.2")
    host.add(b"of the host", new_key())
    host.close()
    for number in range(3):
        stranger.add(b"%d" % number, new_key())
    for chain in (stranger, keychain(open_keys)):
        with pytest.raises(KeyFault, match="holds 3 opened keys for your address"):
            chain.add(b"more", new_key())
    # An open key costs nothing, by any session, and what the host had is still there.
    stranger.add(b"0", new_key())
    assert host.find(b"of the host") is not None
    stranger.close()
    again = keychain(open_keys)
    again.add(b"more", new_key())
    assert again.find(b"2") is None
    assert host.find(b"of the host") is not None


def test_all_addresses_together_are_limited(open_keys: OpenKeys) -> None:
    for address, blobs in (("10.0.0.1", (b"1", b"2", b"3")), ("10.0.0.2", (b"4",))):
        chain = keychain(open_keys, address=address)
        for blob in blobs:
            chain.add(blob, new_key())
    with pytest.raises(KeyFault, match="holds 4 opened keys, the most it may"):
        keychain(open_keys, address="10.0.0.3").add(b"5", new_key())


def test_a_share_is_free_again_when_its_keys_are_gone(open_keys: OpenKeys, clock: Clock) -> None:
    for round_ in range(3):
        chain = keychain(open_keys)
        for number in range(3):
            chain.add(b"%d %d" % (round_, number), new_key())
        chain.close()
        clock.now += RETAIN_S
    assert open_keys.forget() == math.inf


def test_a_large_session_can_be_closed_by_and_by(open_keys: OpenKeys) -> None:
    chain = keychain(open_keys)
    for _ in range(10):
        chain.add(b"blob", new_key())
    assert chain.close(4)
    assert chain.close(4)
    assert open_keys.forget() == math.inf
    assert not chain.close(4)
    assert open_keys.forget() < math.inf
    assert not chain.close(4)


def test_nothing_is_remembered_where_that_is_switched_off(clock: Clock) -> None:
    open_keys = OpenKeys(4, 4, 0, clock)
    first = keychain(open_keys)
    first.add(b"blob", new_key())
    first.close()
    assert keychain(open_keys).find(b"blob") is None
    assert open_keys.forget() == math.inf


def test_a_blob_twice_in_one_session_has_two_handles_and_one_key(open_keys: OpenKeys) -> None:
    first = keychain(open_keys)
    key = new_key()
    assert [first.add(b"blob", key), first.add(b"blob", new_key())] == [0, 1]
    assert first.key(0) is first.key(1) is key
    first.close()
    assert open_keys.forget() == 1000 + RETAIN_S


def test_a_key_is_used_only_while_its_release_allows_it(open_keys: OpenKeys) -> None:
    def ended() -> None:
        raise NotReleased("ended")

    session, other = keychain(open_keys), keychain(open_keys)
    key = new_key()
    session.add(b"blob", key, ended)
    other.add(b"blob", new_key())
    for each in (session, other):
        assert each.public_key(0) == key.public_key
        with pytest.raises(NotReleased):
            each.key(0)


def test_an_open_key_is_found_by_its_hash_at_whichever_place(clock: Clock) -> None:
    open_keys = OpenKeys(4, 4, RETAIN_S, clock, by_hash=True)
    host, other_host, application = keychain(open_keys), keychain(open_keys, "other"), keychain(open_keys, "none")
    key = new_key()
    pkh = public_key_hash(key.public_key)
    with pytest.raises(KeyNotOpen, match=f"'{pkh}' is not open"):
        application.use(pkh)
    host.add(b"blob", key)
    other_host.add(b"blob of the same key", key)
    host.close()
    clock.now += RETAIN_S
    # One of its places is forgotten, and the other is in use.
    assert application.use(pkh) == (key, 0)
    other_host.close()
    clock.now += RETAIN_S
    assert application.use(pkh) == (key, 1)
    application.close()
    clock.now += RETAIN_S
    with pytest.raises(KeyNotOpen):
        application.use(pkh)


def test_a_key_found_by_its_hash_is_used_while_what_opened_it_allows(clock: Clock) -> None:
    open_keys = OpenKeys(4, 4, RETAIN_S, clock, by_hash=True)
    host, application = keychain(open_keys), keychain(open_keys, "none")

    def not_released() -> None:
        raise NotReleased("not released yet")

    key = new_key()
    host.add(b"blob", key, not_released)
    _, handle = application.use(public_key_hash(key.public_key))
    with pytest.raises(NotReleased):
        application.key(handle)


def test_keys_are_not_found_by_their_hashes_where_no_rules_allow_it(open_keys: OpenKeys) -> None:
    key = new_key()
    keychain(open_keys).add(b"blob", key)
    with pytest.raises(KeyNotOpen):
        keychain(open_keys).use(public_key_hash(key.public_key))
