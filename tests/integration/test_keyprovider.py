"""The keyprovider as clients see it: recorded calls of skopeo, every status, hostile bytes; and its command."""

import base64
import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from enclave_signer.keyprovider.grpc_messages import MAX_BODY_BYTES
from enclave_signer.keyprovider.server import MAX_CONNECTIONS
from enclave_signer.sealing.kbs_kek import commitment
from tests.doubles.certificates import Authority
from tests.doubles.grpc_client import Answer, Place, body_of, call, connected, replay
from tests.doubles.kbs import KbsDouble, server_tls
from tests.doubles.kbs_image import KEK, OLD_KEK, RESOURCE, kbs_image, name_of
from tests.doubles.keyprovider import Keyprovider, wrapping
from tests.doubles.processes import PATIENCE_S, ROOT, Program, running
from tests.doubles.starting import run

VECTORS: dict[str, Any] = json.loads((ROOT / "tests" / "vectors" / "keyprovider-exchanges.json").read_text())
KEY, OLD, MISSING, DAMAGED = VECTORS["key_id"], "kbs:///default/key/old", "kbs:///default/key/none", "damaged"
SECRET = b'{"symkey":"a layer\'s key, in no log"}'
LAYERS_KEK = bytes.fromhex(VECTORS["kek_hex"])
RECORDED = VECTORS["coco"]["recorded"]
SAMPLE = json.loads(RECORDED["packet"])["kid"]
KEKS = {KEY: LAYERS_KEK, OLD: None, MISSING: None, DAMAGED: None, SAMPLE: None}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Keyprovider:
    keyprovider = Keyprovider(tmp_path_factory.mktemp("keyprovider"), KEKS)
    (keyprovider.folder / "raw").write_bytes(LAYERS_KEK)
    for key_id in (KEY, OLD):
        done = keyprovider.store(key_id, "--from", str(keyprovider.folder / "raw"))
        assert (done.returncode, done.stdout) == (0, f"{commitment(LAYERS_KEK)}\n"), done.stderr
    (keyprovider.folder / "sample").write_bytes(bytes.fromhex(RECORDED["kek_hex"]))
    assert keyprovider.store(SAMPLE, "--from", str(keyprovider.folder / "sample")).returncode == 0
    (keyprovider.folder / "3.kek").write_bytes((keyprovider.folder / "0.kek").read_bytes())
    return keyprovider


@pytest.fixture(scope="module")
def served(stored: Keyprovider) -> Iterator[Program]:
    with running(stored.command("serve")) as program:
        stored.port = "127.0.0.1", int(program.wait_for(r"listening on 127\.0\.0\.1:(\d+)")[1])
        program.wait_for("enclave-keyprovider is ready")
        yield program
        assert program.stop(signal.SIGTERM) == 0
        assert "Traceback" not in program.log
        assert SECRET.decode() not in program.log
        assert base64.b64encode(SECRET).decode() not in program.log


@pytest.fixture(params=["socket", "port"])
def place(request: pytest.FixtureRequest, stored: Keyprovider, served: Program) -> Place:
    return stored.socket if request.param == "socket" else stored.port


@pytest.fixture
def unix(stored: Keyprovider, served: Program) -> Path:
    return stored.socket


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def wrap_request(parameters: str | None, data: bytes = SECRET) -> bytes:
    given = {} if parameters is None else {"attestation-agent": [encoded(parameters.encode())]}
    params = {"ec": {"Parameters": given, "DecryptConfig": {"Parameters": {}}}, "optsdata": encoded(data)}
    return json.dumps({"op": "keywrap", "keywrapparams": params, "keyunwrapparams": {"dc": None}}).encode()


def unwrap_request(packet: bytes) -> bytes:
    return json.dumps({"op": "keyunwrap", "keyunwrapparams": {"dc": None, "annotation": encoded(packet)}}).encode()


def packet_of(answer: bytes) -> bytes:
    return base64.b64decode(json.loads(answer)["keywrapresults"]["annotation"])


def secret_of(answer: bytes) -> bytes:
    return base64.b64decode(json.loads(answer)["keyunwrapresults"]["optsdata"])


@pytest.mark.parametrize("exchange", VECTORS["exchanges"], ids=lambda exchange: exchange["name"])
def test_recorded_calls_of_skopeo_are_answered(place: Place, exchange: dict[str, str]) -> None:
    answer = replay(place, bytes.fromhex(exchange["sent_hex"]))
    assert (answer.status, answer.ended) == (0, True)
    message = answer.message
    if exchange["operation"] == "keywrap":
        message = call(place, "UnWrapKey", body_of(unwrap_request(packet_of(message)))).message
    assert secret_of(message).hex() == exchange["optsdata_hex"]


@pytest.mark.parametrize("coco", VECTORS["coco"]["packets"], ids=lambda coco: coco["name"])
def test_a_packet_of_confidential_containers_opens(unix: Path, coco: dict[str, str]) -> None:
    answer = call(unix, "UnWrapKey", body_of(unwrap_request(coco["packet"].encode())))
    assert secret_of(answer.message).hex() == VECTORS["coco"]["optsdata_hex"]


def test_a_packet_that_coco_keyprovider_made_opens(unix: Path) -> None:
    answer = call(unix, "UnWrapKey", body_of(unwrap_request(RECORDED["packet"].encode())))
    assert secret_of(answer.message).decode() == RECORDED["optsdata"]


@pytest.mark.parametrize("parameters", [KEY, f"cc_kbc::{KEY}", f"keyid={KEY}::algorithm=A256GCM", "Enabled", None])
def test_gRPC_and_the_command_open_each_other_s_packets(  # noqa: N802 -- its name
    stored: Keyprovider, unix: Path, parameters: str | None
) -> None:
    by_call = packet_of(call(unix, "WrapKey", body_of(wrap_request(parameters))).message)
    named = json.loads(by_call)
    assert (named["algorithm"], named["key_id"], len(base64.b64decode(named["nonce"]))) == ("A256GCM", KEY, 12)
    if parameters == KEY:
        code, answer, error = stored.answer(wrap_request(parameters))
        assert (code, error.count("Traceback")) == (0, 0), error
        by_command = packet_of(answer)
        assert by_command != by_call
        assert secret_of(call(unix, "UnWrapKey", body_of(unwrap_request(by_command))).message) == SECRET
        assert secret_of(stored.answer(unwrap_request(by_call))[1]) == SECRET
    else:
        assert secret_of(call(unix, "UnWrapKey", body_of(unwrap_request(by_call))).message) == SECRET


def altered(**members: object) -> bytes:
    packet = json.loads(VECTORS["coco"]["packets"][0]["packet"])
    return json.dumps({**packet, **members}).encode()


@pytest.mark.parametrize(
    ("method", "request_bytes", "status", "text"),
    [
        ("WrapKey", wrap_request("kbs:///default/key/foreign"), 7, "is not listed under keks"),
        ("WrapKey", wrap_request(OLD), 7, "its wrap is not true"),
        ("WrapKey", wrap_request(f"keyid={KEY}::keypath=/etc/passwd"), 3, "never read from a client's file"),
        ("WrapKey", wrap_request(f"keyid={KEY}::algorithm=A256CTR"), 3, "must be A256GCM"),
        ("WrapKey", wrap_request(KEY, bytes(16385)), 3, "optsdata must have 1 to 16384 bytes"),
        ("WrapKey", unwrap_request(altered()), 3, "op is not the one of this call"),
        ("WrapKey", b"[]", 3, "must be a JSON object"),
        ("WrapKey", b'{"op":"keywrap","op":"keywrap"}', 3, "not valid JSON"),
        ("WrapKey", b"[" * 100_000, 3, "not valid JSON"),
        ("UnWrapKey", unwrap_request(altered(kid="kbs:///default/key/foreign")), 7, "is not listed under keks"),
        ("UnWrapKey", unwrap_request(altered(kid=MISSING)), 5, "is not stored yet"),
        ("UnWrapKey", unwrap_request(altered(kid=DAMAGED)), 13, "holds another key"),
        ("UnWrapKey", unwrap_request(altered(iv=encoded(bytes(12)))), 3, "was altered"),
        ("UnWrapKey", unwrap_request(altered(wrap_type="A256CTR", iv=encoded(bytes(16)))), 3, "must be A256GCM"),
        ("UnWrapKey", unwrap_request(b"not a packet"), 3, "not valid JSON"),
    ],
)
def test_each_refusal_has_its_status(unix: Path, method: str, request_bytes: bytes, status: int, text: str) -> None:
    answer = call(unix, method, body_of(request_bytes))
    assert (answer.status, text in answer.text, answer.body) == (status, True, b""), answer.text


def test_what_is_no_such_call_is_refused(unix: Path) -> None:
    body = body_of(wrap_request(KEY))
    assert call(unix, "", body, path="/keyprovider.KeyProviderService/Other").status == 12
    assert call(unix, "WrapKey", b"\x01" + body[1:]).status == 12
    assert call(unix, "WrapKey", body[:-1]).status == 3
    assert call(unix, "WrapKey", body + b"\0").status == 3
    assert call(unix, "WrapKey", bytes(MAX_BODY_BYTES + 1)).status == 8
    assert call(unix, "WrapKey", body, content_type="text/plain").headers == {":status": "415"}


def test_an_answer_waits_for_a_client_with_little_room(unix: Path) -> None:
    answer = call(unix, "WrapKey", body_of(wrap_request(KEY, bytes(16384))), window=1000)
    assert answer.status == 0
    assert len(packet_of(answer.message)) > 16384


@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\1\4\0\0\0\0", bytes(100)]
)
def test_anything_but_http_2_ends_its_connection(place: Place, sent: bytes) -> None:
    with connected(place) as stream:
        stream.sendall(sent)
        while stream.recv(65536):
            pass
    assert call(place, "WrapKey", body_of(wrap_request(KEY))).status == 0


def test_silent_connections_keep_no_client_out(stored: Keyprovider, unix: Path) -> None:
    silent: list[socket.socket] = []
    try:
        for _ in range(MAX_CONNECTIONS):
            silent.append(connected(stored.port))
            assert silent[-1].recv(9)
        assert call(stored.port, "WrapKey", body_of(wrap_request(KEY))).status == 0
        while silent[0].recv(65536):
            pass
        assert call(unix, "WrapKey", body_of(wrap_request(KEY))).status == 0
    finally:
        for each in silent:
            each.close()


def test_a_stored_key_is_never_replaced(stored: Keyprovider) -> None:
    before = (stored.folder / "0.kek").read_bytes()
    again = stored.store(KEY)
    assert (again.returncode, "is stored already" in again.stderr) == (2, True)
    assert (stored.folder / "0.kek").read_bytes() == before
    assert stored.store("unlisted").returncode == 2
    (stored.folder / "base64").write_text(encoded(bytes(32)))
    refused = stored.store(MISSING, "--from", str(stored.folder / "base64"))
    assert (refused.returncode, "not base64" in refused.stderr) == (2, True)


def test_a_key_whose_place_cannot_be_looked_at_is_not_made(tmp_path: Path) -> None:
    keyprovider = Keyprovider(tmp_path, KEKS)
    text = keyprovider.config.read_text().replace(wrapping(LAYERS_KEK), "make = true\n")
    keyprovider.config.write_text(text.replace(f"{tmp_path}/0.kek", f"{tmp_path}/{'x' * 300}/0.kek"))
    refused = run(keyprovider.command("serve"), timeout=PATIENCE_S)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].endswith(f"the file of the key '{KEY}': File name too long")
    assert "Traceback" not in refused.stderr


def test_an_image_with_gated_keys_is_refused(tmp_path: Path) -> None:
    keyprovider = Keyprovider(tmp_path, KEKS)
    authority = Authority(tmp_path, "kbs-authority")
    gated = f'[[gated]]\nkey = "{name_of()}"\nrelease = "attested"\nfresh_s = 600\n'
    keyprovider.image.write_text(kbs_image("https://127.0.0.1:1", authority.file) + gated)
    refused = keyprovider.store(KEY)
    assert (refused.returncode, "name a configuration without it" in refused.stderr) == (2, True), refused.stderr


def test_the_command_says_why_it_refuses(stored: Keyprovider) -> None:
    code, answer, error = stored.answer(unwrap_request(altered(kid="kbs:///default/key/foreign")))
    assert (code, answer) == (1, b"")
    assert error.splitlines()[-1].startswith(
        "enclave-keyprovider: permission_denied: the key 'kbs:///default/key/foreign'"
    )
    assert "Traceback" not in error


def test_a_key_is_made_at_the_start_where_that_is_configured(tmp_path: Path) -> None:
    keyprovider = Keyprovider(tmp_path, KEKS)
    wraps = keyprovider.config.read_text()
    keyprovider.config.write_text(wraps.replace(wrapping(LAYERS_KEK), "make = true\n"))
    with running(keyprovider.command("serve")) as program:
        made = program.wait_for("key stored.*commitment=([0-9a-f]{64})")[1]
        program.wait_for("enclave-keyprovider is ready")
        assert call(keyprovider.socket, "WrapKey", body_of(wrap_request(KEY))).status == 7
        program.stop()
    keyprovider.config.write_text(wraps.replace(commitment(LAYERS_KEK), made))
    with running(keyprovider.command("serve")) as program:
        program.wait_for("enclave-keyprovider is ready")
        packet = packet_of(call(keyprovider.socket, "WrapKey", body_of(wrap_request(KEY))).message)
        assert secret_of(call(keyprovider.socket, "UnWrapKey", body_of(unwrap_request(packet))).message) == SECRET
        program.stop()


def test_a_key_that_the_image_s_key_broker_releases(tmp_path: Path) -> None:
    keyprovider, authority, double = Keyprovider(tmp_path, KEKS), Authority(tmp_path, "kbs-authority"), KbsDouble()
    double.resources = {"default/key/k1": KEK, RESOURCE: KEK, "default/key/other": OLD_KEK}
    tls = server_tls(authority)
    with double.serving(tls) as port:
        keyprovider.image.write_text(kbs_image(double.url, authority.file))
    commitments = {KEY: KEK, "kbs:///default/key/gone": KEK, "kbs:///default/key/other": KEK}
    keyprovider.config.write_text(
        f'image = "{keyprovider.image}"\nlisteners = ["unix:{keyprovider.socket}"]\n'
        + "".join(f'[[keks]]\nid = "{key}"\ncommitment = "{commitment(kek)}"\n' for key, kek in commitments.items())
    )

    def answer(key_id: str) -> Answer:
        return call(keyprovider.socket, "UnWrapKey", body_of(unwrap_request(altered(kid=key_id))))

    with running(keyprovider.command("serve")) as program:
        program.wait_for("enclave-keyprovider is ready")
        assert answer(KEY).status == 14
        with double.serving(tls, port):
            assert secret_of(answer(KEY).message).hex() == VECTORS["coco"]["optsdata_hex"]
            for key_id, text in (
                ("kbs:///default/key/gone", "default/key/gone"),
                ("kbs:///default/key/other", "commits"),
            ):
                refused = answer(key_id)
                assert (refused.status, text in refused.text) == (7, True), refused.text
                asked = len(double.asked)
                assert answer(key_id).status == 7
                assert len(double.asked) == asked
        # It is remembered: a broker that is away stops nothing.
        assert answer(KEY).status == 0
        program.stop()
    stored = keyprovider.store(KEY)
    assert (stored.returncode, "has no file under keks" in stored.stderr) == (2, True)
