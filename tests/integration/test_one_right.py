"""One right, one message: whatever else is asked there, at once and by whom, through however many vaults."""

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.doubles import oracles
from tests.doubles.consensus_oracle import reading
from tests.doubles.host_process import BAKER, Answer, Host, import_keys, run_command, running_host, write_config
from tests.doubles.known_keys import FOUR, KnownKey, attestation, block
from tests.doubles.processes import running_local_enclave

TZ1, _, _, TZ4 = FOUR
CLIENTS = 24
#: One level each, so that no test meets another's marks.
PAIRS, CROWD, AGAIN, TWO_VAULTS, SPELT = 10, 1000, 2000, 3000, 4000


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("one-right")
    with running_local_enclave(folder / "sealing.key") as enclave:
        config = write_config(folder, enclave.port, {key.pkh: BAKER for key in FOUR})
        import_keys(config, *FOUR)
        with running_host(config) as running:
            yield running
            assert running.stop() == 0
            assert "Traceback" not in running.log


def at_once(host: Host, pkh: str, messages: Sequence[bytes], *queries: str) -> list[tuple[bytes, Answer]]:
    """Ask for all messages at once, with each query, and return the answers."""
    asked = [(message, query) for query in queries or ("",) for message in messages]
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = pool.map(lambda request: host.sign(pkh, *request), asked)
        return list(zip((message for message, _ in asked), answers, strict=True))


def signed(answers: Sequence[tuple[bytes, Answer]]) -> set[bytes]:
    """Return the messages that were signed; all others were refused by the law."""
    assert {answer.status for _, answer in answers} <= {200, 409}
    return {message for message, answer in answers if answer.status == 200}


def _with_bytes(message: bytes, at: int, new: bytes) -> bytes:
    return message[:at] + new + message[at + len(new) :]


def votes(level: int, *, pre: bool = False) -> Iterator[bytes]:
    """Yield votes of one right that differ somewhere: form, slot, branch, payload, bits of DAL."""
    magic = 0x12 if pre else 0x13
    plain = attestation(level, magic=magic)
    chain, place = plain[1:5], plain[38:46]
    yield from (plain, attestation(level, magic=magic, payload=b"\x23" * 32), _with_bytes(plain, 5, b"\x12"))
    tags = b"\x14" if pre else b"\x15\x17"
    for tag in tags:
        for slot in (0, 1, 65535):
            head = bytes([magic]) + chain + b"\x11" * 32 + bytes([tag]) + slot.to_bytes(2, "big") + place
            for payload in (b"\x22" * 32, b"\x23" * 32):
                bits = (b"\x00", b"\x01", b"\x02", b"\x81\x01") if tag == 0x17 else (b"",)
                yield from (head + payload + bits_ for bits_ in bits)


def blocks(level: int) -> Iterator[bytes]:
    """Yield blocks of one right that differ somewhere: in any field but chain, level and round."""
    plain = block(level)
    yield plain
    # Protocol, predecessor, time, passes, operations, predecessor's round, context, payload, its round, nonce, votes.
    for at in (9, 10, 49, 50, 51, 111, 120, 152, 187, 188, len(plain) - 1):
        yield _with_bytes(plain, at, bytes([plain[at] ^ 1]))
    locked = (4).to_bytes(4, "big") + (0).to_bytes(4, "big")
    fitness_bytes = int.from_bytes(plain[83:87], "big") + 4
    yield plain[:83] + fitness_bytes.to_bytes(4, "big") + plain[87:100] + locked + plain[104:]
    with_nonce = plain[:196] + b"\xff" + bytes(32) + plain[197:]
    yield from (with_nonce, _with_bytes(with_nonce, 200, b"\x01"))


MESSAGES: dict[str, Callable[[int], Iterator[bytes]]] = {
    "attestation": votes,
    "preattestation": partial(votes, pre=True),
    "block": blocks,
}


@pytest.mark.parametrize("key", FOUR, ids=lambda key: str(key.name))
@pytest.mark.parametrize("right", MESSAGES)
def test_of_all_messages_of_one_right_one_is_signed(host: Host, key: KnownKey, right: str) -> None:
    messages = list(MESSAGES[right](PAIRS))
    assert len(set(messages)) == len(messages) >= 9
    places = {(read.level, read.round) for read in map(reading, messages) if read is not None}
    assert places == {(PAIRS, 0)}
    assert None not in map(reading, messages)
    first = signed(at_once(host, key.pkh, messages, "?version=1", "?version=2"))
    assert len(first) == 1
    # Nor is another one later.
    assert signed(at_once(host, key.pkh, messages, "", "?version=1&version=2")) == first


@pytest.mark.parametrize("key", [TZ1, TZ4], ids=lambda key: str(key.name))
def test_of_a_crowd_one_is_signed(host: Host, key: KnownKey) -> None:
    for level in range(CROWD, CROWD + 5):
        messages = [attestation(level, payload=bytes([number]) * 32) for number in range(CLIENTS)]
        assert len(signed(at_once(host, key.pkh, messages))) == 1


@pytest.mark.parametrize("key", [TZ1, TZ4], ids=lambda key: str(key.name))
def test_one_message_asked_for_by_a_crowd_has_one_signature(host: Host, key: KnownKey) -> None:
    message = attestation(AGAIN)
    answers = at_once(host, key.pkh, [message] * 2 * CLIENTS)
    (signature,) = {answer.signature for _, answer in answers}
    oracles.verify(key, signature, message)


ONE, OTHER = (attestation(SPELT, payload=bytes([number]) * 32) for number in (1, 2))
PATHS = [
    *(f"/keys/{TZ1.pkh}", f"/keys/%74{TZ1.pkh[1:]}", f"/%6beys/{TZ1.pkh}", f"//keys/{TZ1.pkh}", f"/keys//{TZ1.pkh}"),
    *(
        f"/./keys/{TZ1.pkh}",
        f"/keys/../keys/{TZ1.pkh}",
        f"/keys/{TZ1.pkh}/",
        f"/keys/{TZ1.pkh}/.",
        f"/keys/{TZ1.pkh};x",
    ),
    *(
        f"/keys/{TZ1.pkh}%20",
        f"/keys/%20{TZ1.pkh}",
        f"/keys/{TZ1.pkh}%00",
        f"/keys/{TZ1.pkh}%0a",
        f"/keys/{TZ1.pkh}%2f",
    ),
    *(f"/keys/{TZ1.pkh.upper()}", f"/keys/{TZ1.pkh.swapcase()}", f"/keys/1{TZ1.pkh}", f"/keys/{TZ1.pkh}%E2%80%8B"),
    *(f"http://other/keys/{TZ1.pkh}", f"/keys/{TZ1.pkh}?", f"/keys/{TZ1.pkh}?pkh={TZ4.pkh}", f"/keys/{TZ1.public_key}"),
]
#: Bodies that stand for a message, if they stand for any.
BODIES: dict[str, Callable[[str], bytes]] = {
    "as it should be": lambda text: f'"{text}"'.encode(),
    "upper case": lambda text: f'"{text.upper()}"'.encode(),
    "escapes": lambda text: ('"' + "".join(f"\\u{ord(digit):04x}" for digit in text) + '"').encode(),
    "UTF-16": lambda text: f'"{text}"'.encode("utf-16"),
    "UTF-16 without a mark": lambda text: f'"{text}"'.encode("utf-16-be"),
    "UTF-32": lambda text: f'"{text}"'.encode("utf-32"),
    "byte order mark": lambda text: f'"{text}"'.encode("utf-8-sig"),
    "twice": lambda text: f'"{text}{text}"'.encode(),
    "with 0x": lambda text: f'"0x{text}"'.encode(),
    "a list": lambda text: f'["{text}"]'.encode(),
}


def test_no_other_spelling_has_a_mark_of_its_own(host: Host) -> None:
    assert host.sign(TZ1.pkh, ONE).status == 200
    for path in PATHS:
        for name, body in BODIES.items():
            assert host.ask("POST", path, body(OTHER.hex())).status != 200, (path, name)
    for body in BODIES.values():
        answer = host.ask("POST", f"/keys/{TZ1.pkh}", body(ONE.hex()))
        if answer.status == 200:
            oracles.verify(TZ1, answer.signature, ONE)


def test_no_first_byte_makes_another_message_of_one(host: Host) -> None:
    assert host.sign(TZ1.pkh, ONE).status == 200
    operation = OTHER[5:]
    for first in range(256):
        for rest in (OTHER[1:], block(SPELT)[1:], operation, operation + operation[32:]):
            message = bytes([first]) + rest
            read = reading(message)
            answer = host.sign(TZ1.pkh, message)
            # A block is another right.
            assert answer.status in ({200} if read is not None and read.kind == "block" else {400, 403, 409}), message


def test_one_key_in_two_vaults_whose_enclaves_die_in_turn_signs_one_message(tmp_path: Path) -> None:
    sealing_key = tmp_path / "sealing.key"
    with ExitStack() as stack:
        enclaves = [stack.enter_context(running_local_enclave(sealing_key)) for _ in range(2)]
        ports = [enclave.port for enclave in enclaves]
        config = write_config(tmp_path, ports[0], {TZ1.pkh: BAKER})
        storage = f"storage: {{driver: file, config: {tmp_path / 'second.json'}}}"
        settings = f"{{host: 127.0.0.1, port: {ports[1]}, {storage}}}"
        second = f"  second: {{driver: confidentialspace, config: {settings}}}\ntezos:\n"
        config.write_text(config.read_text().replace("tezos:\n", second))
        import_keys(config, TZ1)
        outcome = run_command("import", "-c", config, "--vault", "second", TZ1.secret)
        assert outcome.code == 0, outcome.stderr
        host = stack.enter_context(running_host(config))
        signatures = 0
        for turn in range(4):
            dies = turn % 2
            enclaves[dies].stop(signal.SIGKILL)
            for level in range(TWO_VAULTS + 3 * turn, TWO_VAULTS + 3 * turn + 3):
                messages = [attestation(level, payload=bytes([number]) * 32) for number in range(CLIENTS)]
                answers = at_once(host, TZ1.pkh, messages)
                assert {answer.status for _, answer in answers} <= {200, 409, 503}
                done = {message for message, answer in answers if answer.status == 200}
                assert len(done) <= 1
                signatures += len(done)
            enclaves[dies] = stack.enter_context(
                running_local_enclave(sealing_key, "--listen", f"127.0.0.1:{ports[dies]}")
            )
        assert signatures
        assert host.stop() == 0
        assert "Traceback" not in host.log
