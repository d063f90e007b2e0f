"""The client for applications, when something comes between a call and its answer."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from enclave_signer.client import Disconnected, LocalClient
from enclave_signer.curves import curve
from enclave_signer.protocol import codec
from enclave_signer.protocol.framing import FrameDecoder, encode_frame
from enclave_signer.protocol.messages import ImportedKey
from enclave_signer.tezos import parse_secret_key
from tests.doubles.known_keys import KEYS
from tests.doubles.processes import PATIENCE_S

BOB = curve(KEYS["bob"].key_type).open(parse_secret_key(KEYS["bob"].secret))


class OutOfTimeError(Exception):
    """The application's own."""


@pytest.fixture
def interrupting() -> Iterator[None]:
    """A signal that raises an error wherever the application is."""

    def raises(number: int, frame: FrameType | None) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGUSR1, raises)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("interrupting")
def test_an_answer_that_was_not_waited_for_answers_no_later_call(tmp_path: Path) -> None:
    def serve() -> None:
        connected, _ = server.accept()
        with connected:
            frames = FrameDecoder()
            while frames.next_frame() is None:
                frames.feed(connected.recv(65536))
            os.kill(os.getpid(), signal.SIGUSR1)
            assert raised.wait(PATIENCE_S)
            try:
                connected.sendall(encode_frame(codec.encode_ok(ImportedKey(BOB.public_key, 0))))
            except BrokenPipeError:
                return

    raised = threading.Event()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        serving = threading.Thread(target=serve)
        serving.start()
        with LocalClient(tmp_path / "s", timeout_s=PATIENCE_S) as client:
            with pytest.raises(OutOfTimeError):
                client.use_key(KEYS["bob"].pkh)
            raised.set()
            with pytest.raises(Disconnected):
                client.use_key(KEYS["bob"].pkh)
        serving.join()
