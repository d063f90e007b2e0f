"""Who the image is to Google: the launcher's token, the exchange at STS, and everything that can go wrong with either."""

import base64
import json
import logging
import math
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from enclave_signer.errors import SealingError, SealingRefused, SealingUnavailable
from enclave_signer.sealing.gcp_identity import RETRY_S, Access, Identity
from enclave_signer.sealing.gcp_launcher import Launcher
from tests.doubles.google.http_service import Answered
from tests.doubles.google.launcher import OTHER_DIGEST, LauncherDouble, token
from tests.doubles.google.sts import PROVIDER, StsDouble
from tests.doubles.google.tokens import DIGEST

LIMIT_S = 10.0
REFUSED_S = 30.0
POOL = "principalSet://iam.googleapis.com/projects/691249393555/locations/global/workloadIdentityPools/signer-pool"


class Place:
    """A launcher and an STS, and identities that use them."""

    def __init__(self, folder: Path) -> None:
        self.launcher = LauncherDouble(folder)
        self.launcher.write(token())
        self.sts = StsDouble()
        self.address = ("127.0.0.1", 1)

    def identity(self, provider: str = PROVIDER, audience: str | None = None) -> Identity:
        async def to_sts() -> trio.abc.Stream:
            return await trio.open_tcp_stream(*self.address)

        launcher = Launcher(self.launcher.token_file, self.launcher.socket, audience, LIMIT_S)
        return Identity(provider, launcher, to_sts, limit_s=LIMIT_S, refused_s=REFUSED_S)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    with made.sts.serving() as made.address:
        yield made


@pytest.fixture
def clock() -> MockClock:
    """Goes forward only when a test says so."""
    return MockClock()


def play(scenario: Callable[[], Awaitable[None]], clock: MockClock) -> None:
    trio.run(scenario, clock=clock)


def access(identity: Identity, *, impatient: bool = False) -> Access:
    """Return what an identity gives; `impatient` jumps to the end of a wait for what never comes."""
    return trio.run(identity.access, clock=MockClock(autojump_threshold=0.2 if impatient else math.inf))


def failure(identity: Identity, *, impatient: bool = False) -> SealingError:
    with pytest.raises(SealingError) as raised:
        access(identity, impatient=impatient)
    return raised.value


def test_the_token_of_the_file_is_exchanged(place: Place) -> None:
    given = access(place.identity())
    assert place.sts.issued == {given.text: DIGEST}
    assert given.principal == f"{POOL}/attribute.image_digest/{DIGEST}"
    assert given.text not in repr(given)
    assert not place.launcher.asked


def test_one_exchange_serves_all_until_it_is_renewed(place: Place, clock: MockClock) -> None:
    identity = place.identity()

    async def scenario() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(identity.access)
        first = await identity.access()
        clock.jump(3599 - 301)
        assert await identity.access() is first
        assert place.sts.exchanges == 1
        # The launcher has renewed its file meanwhile.
        place.launcher.write(token(digest=OTHER_DIGEST))
        clock.jump(2)
        second = await identity.access()
        assert second.text != first.text
        assert place.sts.issued[second.text] == OTHER_DIGEST
        assert place.sts.exchanges == 2

    play(scenario, clock)


def test_the_old_token_serves_while_sts_is_away(place: Place, clock: MockClock) -> None:
    identity = place.identity()

    async def scenario() -> None:
        first = await identity.access()
        place.sts.fault = lambda: Answered(503)
        clock.jump(3400)
        for _ in range(3):
            assert await identity.access() is first
        # Not asked again for every call.
        assert place.sts.exchanges == 2
        clock.jump(RETRY_S)
        assert await identity.access() is first
        assert place.sts.exchanges == 3
        clock.jump(140)
        with pytest.raises(SealingUnavailable):
            await identity.access()
        place.sts.fault = None
        assert (await identity.access()).text != first.text

    play(scenario, clock)


def test_whoever_leaves_takes_nothing_away_from_the_others(place: Place, clock: MockClock) -> None:
    identity = place.identity()

    async def leave(scope: trio.CancelScope) -> None:
        with scope:
            await identity.access()

    async def scenario() -> None:
        first = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave, first)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(identity.access)
            await trio.testing.wait_all_tasks_blocked()
            first.cancel()
        assert place.sts.issued

    play(scenario, clock)


def test_a_token_that_google_does_not_take_is_exchanged_anew(place: Place, clock: MockClock) -> None:
    identity = place.identity()

    async def scenario() -> None:
        first = await identity.access()
        identity.forget(first)
        second = await identity.access()
        assert second is not first
        # A task that comes late with the first one takes nothing away.
        identity.forget(first)
        assert await identity.access() is second
        # Nor is the second one exchanged again at once: it may be the service that takes none.
        identity.forget(second)
        assert await identity.access() is second
        clock.jump(REFUSED_S)
        identity.forget(second)
        assert await identity.access() is not second

    play(scenario, clock)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (Answered(429, b'{"error": "quota"}'), "HTTP status 429"),
        (Answered(500, b"<html>"), "HTTP status 500 and no JSON"),
        (Answered(503, b'{"error": "unavailable"}'), "HTTP status 503"),
        (Answered(400, b"<html>"), "HTTP status 400 and no JSON"),
        (Answered(404, b"{}"), "HTTP status 404"),
        (Answered(200, b"garbage"), "HTTP status 200 and no JSON"),
        (Answered(200, b"[" * 60000), "HTTP status 200 and no JSON"),
        (Answered(200, b'{"access_token": "a", "token_type": "Bearer"}'), "without a usable access token"),
        (Answered(200, b'{"access_token": "a\\n", "token_type": "Bearer", "expires_in": 9}'), "without a usable"),
        (Answered(200, b'{"access_token": "a", "token_type": "MAC", "expires_in": 9}'), "without a usable"),
        (Answered(200, b'{"access_token": "a", "token_type": "Bearer", "expires_in": -1}'), "without a usable"),
        (Answered(200, b"x" * 70000), "the answer has more than 65536 bytes"),
        (Answered(raw=b"SSH-2.0-OpenSSH_9.2\r\n"), "the answer is cut short, or not HTTP"),
        (Answered(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"), "the answer is cut short, or not HTTP"),
        (Answered(raw=b""), "the answer is cut short, or not HTTP"),
    ],
)
def test_what_is_no_answer_of_sts_is_unavailable(place: Place, answer: Answered, text: str) -> None:
    place.sts.fault = lambda: answer
    error = failure(place.identity())
    assert type(error) is SealingUnavailable
    assert str(error).startswith("Google's STS")
    assert text in str(error)
    assert place.sts.exchanges == 1


def test_an_sts_that_hangs_is_unavailable_in_its_time(place: Place) -> None:
    place.sts.fault = lambda: None
    error = failure(place.identity(), impatient=True)
    assert type(error) is SealingUnavailable
    assert str(error) == "Google's STS: no answer within 10 s"


def test_an_sts_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    error = failure(Place(tmp_path).identity())
    assert type(error) is SealingUnavailable
    assert str(error).startswith("Google's STS: ")


@pytest.mark.parametrize("expires_in", ["3599", 3599])
def test_a_life_may_be_a_text(place: Place, expires_in: object) -> None:
    place.sts.expires_in = expires_in
    assert access(place.identity()).renew_at > 3000


@pytest.mark.parametrize(
    ("made", "texts"),
    [
        ({"debug": True}, ["the attribute condition of", DIGEST, "does not hold", "unauthorized_client"]),
        ({"audience": "https://elsewhere"}, ["does not take the launcher's token", "invalid_grant"]),
    ],
)
def test_what_sts_refuses_is_refused(place: Place, made: dict[str, object], texts: list[str]) -> None:
    place.launcher.write(token(**made))  # type: ignore[arg-type]
    error = failure(place.identity())
    assert isinstance(error, SealingRefused)
    for text in ("Google's STS refuses", PROVIDER, *texts):
        assert text in str(error)
    assert place.sts.exchanges == 1


def test_a_refusal_is_told_again_for_a_while(place: Place, clock: MockClock) -> None:
    identity = place.identity()
    place.launcher.write(token(debug=True))

    async def refused() -> None:
        with pytest.raises(SealingRefused, match="the attribute condition"):
            await identity.access()

    async def scenario() -> None:
        for _ in range(3):
            await refused()
        assert place.sts.exchanges == 1
        clock.jump(REFUSED_S)
        await refused()
        assert place.sts.exchanges == 2
        place.launcher.write(token())
        clock.jump(REFUSED_S)
        assert await identity.access()

    play(scenario, clock)


def test_another_provider_is_refused(place: Place) -> None:
    other = PROVIDER.replace("signer-pool", "other")
    error = failure(place.identity(other))
    assert isinstance(error, SealingRefused)
    assert f"the identity provider {other} does not exist or is disabled" in str(error)


def test_what_sts_echoes_is_not_told(place: Place) -> None:
    secret = token()
    place.launcher.write(secret)
    told = {"error": "invalid_request", "error_description": f"bad token\n{secret} ya29.d.abc"}
    place.sts.fault = lambda: Answered(400, json.dumps(told).encode())
    error = failure(place.identity())
    assert "bad token (token) (token)" in str(error)
    assert secret[:20] not in str(error)


def test_a_date_that_is_none_does_no_harm(place: Place) -> None:
    given = {"access_token": "a", "token_type": "Bearer", "expires_in": 3599}
    date = {"Date": f"1 Jan 2026 1:1:1 +{'9' * 20}"}
    place.sts.fault = lambda: Answered(200, json.dumps(given).encode(), headers=date)
    assert access(place.identity()).text == "a"


def test_a_token_that_is_over_at_once_is_asked_for_once(place: Place) -> None:
    place.sts.expires_in = 59
    error = failure(place.identity())
    assert type(error) is SealingUnavailable
    assert "gave an access token for 59 s only" in str(error)
    assert place.sts.exchanges == 1
    place.sts.expires_in = 60
    assert access(place.identity())


class TestTokenFile:
    """The launcher's file, and its socket where the file has nothing."""

    @pytest.mark.parametrize(
        ("content", "text"),
        [(None, "No such file"), ("", "is empty"), ("a.b.c", "holds no token"), ("x" * 40000, "no")],
    )
    def test_a_file_without_a_token_is_unavailable(self, place: Place, content: str | None, text: str) -> None:
        place.launcher.token_file.unlink()
        if content is not None:
            place.launcher.write(content)
        error = failure(place.identity())
        assert type(error) is SealingUnavailable
        assert str(place.launcher.token_file) in str(error)
        assert text in str(error)
        assert "the launcher gave no token at" in str(error)
        assert place.sts.exchanges == 0

    def test_a_time_beyond_every_number_is_no_token(self, place: Place) -> None:
        claims = base64.urlsafe_b64encode(b'{"exp": 1%s}' % (b"0" * 400)).rstrip(b"=").decode()
        place.launcher.write(f"a.{claims}.c")
        assert "holds no token" in str(failure(place.identity()))

    @pytest.mark.parametrize("content", [None, "", token(life_s=-600)])
    def test_the_socket_helps(self, place: Place, content: str | None) -> None:
        place.launcher.token_file.unlink()
        if content is not None:
            place.launcher.write(content)
        with place.launcher.serving():
            access(place.identity())
        assert [(asked.method, asked.path) for asked in place.launcher.asked] == [("GET", "/v1/token")]

    def test_a_token_that_has_expired_is_unavailable(self, place: Place) -> None:
        place.launcher.write(token(life_s=-600))
        error = failure(place.identity())
        assert type(error) is SealingUnavailable
        assert "the launcher's token has expired, and there is no newer one" in str(error)

    def test_a_new_line_at_the_end_does_no_harm(self, place: Place) -> None:
        place.launcher.write(token() + "\n")
        assert access(place.identity())

    def test_it_is_opened_by_its_path_each_time(self, place: Place, clock: MockClock) -> None:
        identity = place.identity()

        async def scenario() -> None:
            for digest in (DIGEST, OTHER_DIGEST):
                place.launcher.write(token(digest=digest))
                given = await identity.access()
                assert given.principal.endswith(digest)
                identity.forget(given)

        play(scenario, clock)

    def test_a_custom_audience_comes_from_the_socket_alone(self, place: Place) -> None:
        place.sts.audiences = ["https://ours.example"]
        with place.launcher.serving():
            access(place.identity(audience="https://ours.example"))
            assert place.launcher.asked[0].method == "POST"
            place.sts.audiences = []
            assert isinstance(failure(place.identity(audience="https://ours.example")), SealingRefused)
        error = failure(place.identity(audience="https://ours.example"))
        assert type(error) is SealingUnavailable
        assert str(place.launcher.socket) in str(error)

    @pytest.mark.parametrize(
        ("answer", "family", "text"),
        [
            (Answered(400, b"PermissionDenied", "text/html"), SealingRefused, "gives this image no token: Permission"),
            (Answered(500, b"quota", "text/html"), SealingUnavailable, "gave no token, HTTP status 500: quota"),
            (Answered(200, b"{}", "text/html"), SealingUnavailable, "the launcher's answer holds no token"),
            (None, SealingUnavailable, "no answer within 10 s"),
        ],
    )
    def test_what_the_socket_refuses(
        self, place: Place, answer: Answered | None, family: type[SealingError], text: str
    ) -> None:
        place.launcher.socket_answer = answer
        with place.launcher.serving():
            error = failure(place.identity(audience="https://ours.example"), impatient=answer is None)
        assert type(error) is family
        assert text in str(error)


class TestClock:
    """This machine's clock is off by ten minutes; nothing of ours goes by it."""

    def test_ahead_of_google(self, place: Place, caplog: pytest.LogCaptureFixture) -> None:
        place.sts.clock_ahead_s = -600
        # By this clock it has expired.
        place.launcher.write(token(life_s=-300, nbf=0))
        with caplog.at_level(logging.WARNING):
            assert access(place.identity())
        assert "the clock of this machine is off" in caplog.text
        assert caplog.records[-1].fields["ahead_of_google_s"] in range(598, 603)  # type: ignore[attr-defined]

    def test_behind_google(self, place: Place) -> None:
        place.sts.clock_ahead_s = 600
        # By Google's clock it has expired.
        place.launcher.write(token(life_s=300))
        error = failure(place.identity())
        assert type(error) is SealingUnavailable
        assert "the launcher's token has expired" in str(error)
        with place.launcher.serving():
            assert access(place.identity())

    def test_a_little_is_not_told(self, place: Place, caplog: pytest.LogCaptureFixture) -> None:
        place.sts.clock_ahead_s = 30
        with caplog.at_level(logging.WARNING):
            access(place.identity())
        assert not caplog.records
