"""Keys that are released only to the attested, over a real daemon: once for all, not too often, and not for ever."""

import json
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.doubles.gated_enclave import FRESH_S, IMAGE, MODES, RETRY_S, STATE_VARIABLE
from tests.doubles.host_process import BAKER, Host, import_keys, running_host, write_config
from tests.doubles.known_keys import FOUR, transaction
from tests.doubles.processes import Enclave, kept
from tests.doubles.wire import WireClient

TZ1, TZ2, *_ = FOUR
CALLERS = 100


class Broker:
    """How the broker and the clock of releases are at the moment; counts how often the broker was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._state = {"mode": "released", "seal": "gated"}
        self._now = 1000.0
        (folder / "image.toml").write_text(IMAGE)
        (folder / "rounds").touch()
        self._write()

    def set(self, mode: str) -> None:
        assert mode in MODES
        self._state["mode"] = mode
        self._write()

    def seal(self, key: str) -> None:
        self._state["seal"] = key
        self._write()

    def go_on(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds
        self._write()

    def asked(self) -> int:
        """Return how often it was asked since this was asked last."""
        rounds = self.folder / "rounds"
        count = rounds.stat().st_size
        # Nothing is under way when this is called.
        rounds.write_bytes(b"")
        return count

    def _write(self) -> None:
        new = self.folder / "state.new"
        new.write_text(json.dumps({**self._state, "now": self._now}))
        new.replace(self.folder / "state.json")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Broker:
    return Broker(tmp_path_factory.mktemp("broker"))


@pytest.fixture(scope="module")
def enclave(broker: Broker) -> Iterator[Enclave]:
    command = [sys.executable, "-m", "tests.doubles.gated_enclave", "--listen", "127.0.0.1:0", "--retain", "0"]
    with kept(Enclave(command, {STATE_VARIABLE: str(broker.folder)})) as running:
        yield running


@pytest.fixture(autouse=True)
def _released_long_ago(broker: Broker) -> None:
    """Begin without a release, and with nothing remembered."""
    broker.set("released")
    broker.go_on(FRESH_S + RETRY_S)
    broker.asked()


@pytest.fixture
def blob(enclave: Enclave, broker: Broker) -> bytes:
    """A blob under the gated key, the last one that opened, and open nowhere."""
    with WireClient(enclave.address) as client:
        blob = made(client)
    broker.go_on(FRESH_S)
    broker.asked()
    return blob


def made(client: WireClient) -> bytes:
    answer = client.call({"Generate": "Ed25519"})["Ok"]
    assert isinstance(answer, dict)
    blob = answer["encrypted_private_key"]
    assert isinstance(blob, bytes)
    return blob


def text(reply: dict[str, object]) -> str:
    error = reply["Err"]
    assert isinstance(error, dict)
    return str(error["message"])


def imported_by_many(enclave: Enclave, blob: bytes) -> list[dict[str, object]]:
    """Return what many clients get that import one blob at the same time."""
    with ExitStack() as clients:
        opened = [clients.enter_context(WireClient(enclave.address)) for _ in range(CALLERS)]
        for client in opened:
            client.send({"Import": blob})
        return [client.receive() for client in opened]


def test_many_callers_make_one_round_at_the_broker(enclave: Enclave, broker: Broker, blob: bytes) -> None:
    replies = imported_by_many(enclave, blob)
    assert len(replies) == CALLERS
    assert all("Ok" in reply for reply in replies)
    assert broker.asked() == 1


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        ("held", "not released yet: the broker waits for an approval"),
        ("down", "not released yet: the broker cannot be reached"),
        ("hanging", "not released yet: the local sealer did not answer within 0.5 s"),
        ("denied", "release denied: the broker's policy does not allow this image"),
    ],
)
def test_a_failure_is_shared_and_remembered(
    enclave: Enclave, broker: Broker, blob: bytes, mode: str, told: str
) -> None:
    broker.set(mode)
    for _ in range(2):
        assert {text(reply) for reply in imported_by_many(enclave, blob)} == {told}
    # A storm of other calls, of a client that never gives up.
    with WireClient(enclave.address) as client:
        for _ in range(CALLERS):
            assert text(client.call({"PublicKeyFrom": blob})) == told
            assert text(client.call({"SignWith": {"encrypted_private_key": blob, "message": b"m"}})) == told
        assert broker.asked() == 1
        broker.go_on(RETRY_S)
        assert text(client.call({"Import": blob})) == told
        assert broker.asked() == 1
        broker.set("released")
        broker.go_on(RETRY_S)
        assert "Ok" in client.call({"Import": blob})


def test_of_many_blobs_one_is_asked_about_first(enclave: Enclave, broker: Broker) -> None:
    with WireClient(enclave.address) as client:
        blobs = [made(client) for _ in range(20)]
        broker.go_on(FRESH_S)
        broker.set("held")
        broker.asked()
        for blob in blobs:
            client.send({"Import": blob})
        assert {text(client.receive()) for _ in blobs} == {"not released yet: the broker waits for an approval"}
        assert broker.asked() == 1


def sign(client: WireClient, handle: int) -> dict[str, object]:
    return client.call({"Sign": {"handle": handle, "message": b"message", "version": 2}})


def test_what_is_open_signs_as_long_as_it_is_released(enclave: Enclave, broker: Broker, blob: bytes) -> None:
    with WireClient(enclave.address) as client:
        assert "Ok" in client.call({"Import": blob})
        broker.go_on(FRESH_S - 1)
        broker.set("down")
        # The broker is asked again, and no call waits for it, nor for its failure.
        assert "Ok" in sign(client, 0)
        broker.go_on(1)
        assert text(sign(client, 0)).startswith("not released yet: ")
        # Its public key is no secret.
        assert "Ok" in client.call({"PublicKey": 0})
        broker.set("denied")
        broker.go_on(RETRY_S)
        assert text(client.call({"Import": blob})) == "release denied: the broker's policy does not allow this image"
        assert text(sign(client, 0)) == "release denied: the broker's policy does not allow this image"
        broker.set("released")
        broker.go_on(RETRY_S)
        # An import has it released for all connections that hold it.
        with WireClient(enclave.address) as other:
            assert "Ok" in other.call({"Import": blob})
        assert "Ok" in sign(client, 0)


def test_a_use_after_the_end_has_it_released_again(enclave: Enclave, broker: Broker, blob: bytes) -> None:
    with WireClient(enclave.address) as client:
        assert "Ok" in client.call({"Import": blob})
        broker.go_on(FRESH_S)
        broker.asked()
        refused = text(sign(client, 0))
        assert refused.startswith("not released yet: the last release of local:")
        assert refused.endswith(" has ended, and it is asked for again")
        # Shares the attempt that the use began, or finds it done.
        assert "Ok" in client.call({"Import": blob})
        assert ("Ok" in sign(client, 0), broker.asked()) == (True, 1)


@pytest.fixture(scope="module")
def config(enclave: Enclave, broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a host with a gated key, TZ1, and one that is not gated."""
    config = write_config(tmp_path_factory.mktemp("host"), enclave.port, {key.pkh: BAKER for key in (TZ1, TZ2)})
    broker.set("released")
    broker.go_on(FRESH_S + RETRY_S)
    import_keys(config, TZ1)
    broker.seal("free")
    import_keys(config, TZ2)
    broker.seal("gated")
    return config


@pytest.fixture
def host(config: Path) -> Iterator[Host]:
    """A host whose keys are open, unless the broker was set otherwise."""
    with running_host(config) as running:
        yield running


@pytest.fixture
def _held(broker: Broker) -> None:
    broker.set("held")


@pytest.mark.usefixtures("_held")
def test_a_host_serves_the_others_until_a_key_is_released_and_while_it_is_taken_back(
    broker: Broker, host: Host
) -> None:
    held = "the enclave's sealer: not released yet: the broker waits for an approval"
    assert host.health() == (200, {"ready": True, "not_released": [f"{TZ1.pkh}: {held}"]})
    assert host.sign(TZ2.pkh, transaction(1)).status == 200
    answer = host.sign(TZ1.pkh, transaction(1))
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert answer.message == f"{TZ1.pkh} is not open: {held}"

    broker.set("released")
    broker.go_on(RETRY_S)
    host.wait_for(f"key opens again.* pkh={TZ1.pkh}")
    assert host.sign(TZ1.pkh, transaction(1)).status == 200
    assert host.health() == (200, {"ready": True})

    # Not used for long: released again within the requests, once for all of them.
    broker.go_on(FRESH_S)
    broker.asked()
    with ThreadPoolExecutor(CALLERS) as callers:
        answers = callers.map(lambda _: host.sign(TZ1.pkh, transaction(1)).status, range(CALLERS))
    assert ({*answers}, broker.asked()) == ({200}, 1)

    # Taken back.
    broker.set("denied")
    broker.go_on(FRESH_S)
    answer = host.sign(TZ1.pkh, transaction(1))
    denied = "the enclave refused: release denied: the broker's policy does not allow this image"
    assert (answer.status, answer.message) == (502, f"{TZ1.pkh} is out of service: {denied}")
    assert "retry-after" not in answer.headers
    assert host.health() == (200, {"ready": True, "degraded": [f"{TZ1.pkh}: {denied}"]})
    assert host.sign(TZ2.pkh, transaction(1)).status == 200

    broker.set("released")
    broker.go_on(RETRY_S)
    told = host.log.count("key opens again")
    host.process.send_signal(signal.SIGHUP)
    host.wait_for("(?s)" + "key opens again.*" * (told + 1))
    assert host.sign(TZ1.pkh, transaction(1)).status == 200
    assert host.health() == (200, {"ready": True})


@pytest.mark.parametrize("mode", ["down", "hanging"])
def test_a_broker_that_is_away_costs_a_host_its_gated_keys_alone(host: Host, broker: Broker, mode: str) -> None:
    assert host.sign(TZ1.pkh, transaction(1)).status == 200
    broker.set(mode)
    broker.go_on(FRESH_S)
    broker.asked()
    with ThreadPoolExecutor(CALLERS) as callers:
        answers = callers.map(lambda _: host.sign(TZ1.pkh, transaction(1)).status, range(CALLERS))
        assert {host.sign(TZ2.pkh, transaction(1)).status for _ in range(10)} == {200}
    assert ({*answers}, broker.asked()) == ({503}, 1)
    ready, health = host.health()
    assert (ready, [*health]) == (200, ["ready", "not_released"])


def test_a_host_starts_while_the_broker_hangs(config: Path, broker: Broker) -> None:
    broker.set("hanging")
    with running_host(config) as again:
        told = "not released yet: the local sealer did not answer within 0.5 s"
        again.wait_for(f"key out of service: the enclave's sealer: {told}.* pkh={TZ1.pkh}")
        assert again.health() == (200, {"ready": True, "not_released": [f"{TZ1.pkh}: the enclave's sealer: {told}"]})
        assert again.sign(TZ2.pkh, transaction(1)).status == 200
