"""The HTTP routes of a real host in front of a real enclave: what a client sends, and what it gets."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles import oracles
from tests.doubles.host_process import BAKER, Host, ask, import_keys, running_host, write_config
from tests.doubles.known_keys import (
    FOUR,
    KEYS,
    PAYLOADS,
    SIGNATORY,
    KnownKey,
    attestation,
    attestation_with_dal,
    block,
    preattestation,
    transaction,
)
from tests.doubles.processes import running_local_enclave

TZ1, TZ2, TZ3, TZ4 = FOUR
BAKING = KEYS["baker"]
#: In the vault, and not under `tezos`.
UNLISTED = KEYS["bob"]
#: Under `tezos`, and not in the vault.
MISSING = KEYS["alice"]
#: Listed without a value: consensus without DAL.
DEFAULT = KEYS["bootstrap1"]
#: Listed with `allow:` and nothing in it.
DENIED = KEYS["bootstrap2"]
#: Listed with two ballots and the kind of a batch's first operation.
VOTER = KEYS["bootstrap3"]


PROTOCOLS = json.loads((Path(__file__).parents[1] / "vectors" / "protocols.json").read_text())


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("http")
    policies = {key.pkh: BAKER for key in (*FOUR, BAKING, MISSING)}
    policies[DEFAULT.pkh] = ""
    policies[DENIED.pkh] = "{allow: }"
    policies[VOTER.pkh] = "{allow: {generic: ['ballot:nay', 'ballot:pass', reveal]}}"
    with running_local_enclave(folder / "sealing.key") as enclave:
        config = write_config(folder, enclave.port, policies)
        import_keys(config, *FOUR, BAKING, UNLISTED, DEFAULT, DENIED, VOTER)
        with running_host(config) as running:
            yield running
            assert running.stop() == 0
            assert "Traceback" not in running.log


@pytest.mark.parametrize("key", FOUR, ids=lambda key: str(key.name))
@pytest.mark.parametrize(
    "message",
    [transaction(1), block(5), preattestation(5), attestation(5), attestation_with_dal(6)],
    ids=["transaction", "block", "preattestation", "attestation", "attestation_with_dal"],
)
def test_every_curve_signs_every_kind(host: Host, key: KnownKey, message: bytes) -> None:
    oracles.verify(key, host.sign(key.pkh, message).signature, message)


def test_recorded_signatures(host: Host) -> None:
    recorded = [item for item in SIGNATORY["signatures"] if item["key"] == "baker"]
    assert len(recorded) == 7
    # A and B come in pairs at one level and round: the second one is a double signature.
    once = {
        item["payload"]: item["signature"] for item in recorded if item["payload"][-1] != "2" or "C" in item["payload"]
    }
    for payload, signature in once.items():
        assert host.sign(BAKING.pkh, PAYLOADS[payload]).signature == signature
    assert host.sign(BAKING.pkh, PAYLOADS["watermark_B2"]).status == 409


@pytest.mark.parametrize("key", [*FOUR, UNLISTED], ids=lambda key: str(key.name))
def test_public_key(host: Host, key: KnownKey) -> None:
    answer = host.ask("GET", f"/keys/{key.pkh}")
    assert (answer.status, answer.body) == (200, b'{"public_key":"%s"}\n' % key.public_key.encode())
    assert answer.headers["content-type"] == "application/json; charset=utf-8"


def test_authorized_keys(host: Host) -> None:
    answer = host.ask("GET", "/authorized_keys")
    assert (answer.status, answer.body) == (200, b"{}\n")
    assert answer.headers["content-type"] == "application/json; charset=utf-8"


def test_health(host: Host) -> None:
    answer = ask(host.utility_port, "GET", "/healthz")
    assert (answer.status, answer.body) == (
        200,
        b'{"ready":true,"degraded":["%s: in no vault"]}\n' % MISSING.pkh.encode(),
    )
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    answer = ask(host.utility_port, "GET", "/livez")
    assert (answer.status, answer.body) == (200, b'{"alive":true}\n')


def test_the_path_that_octez_makes_of_a_wrong_address(host: Host) -> None:
    answer = host.ask("GET", f"/keys/keys/{TZ1.pkh}")
    assert answer.status == 404
    assert answer.body.endswith(b"\nthe address of a key for Octez is http://HOST:PORT/HASH, without /keys\n")


@pytest.mark.parametrize(
    "path", ["/", "/keys", "/keys/", f"/keys/{TZ1.pkh}/", f"/keys/{TZ1.pkh}/x", "/healthz", "/nope"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_such_route(host: Host, method: str, path: str) -> None:
    answer = host.ask(method, path)
    assert (answer.status, answer.body) == (404, b"404 page not found\n")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", f"/keys/{TZ1.pkh}"),
        ("DELETE", f"/keys/{TZ1.pkh}"),
        ("OPTIONS", f"/keys/{TZ1.pkh}"),
        ("HEAD", f"/keys/{TZ1.pkh}"),
        ("POST", "/authorized_keys"),
        ("HEAD", "/authorized_keys"),
    ],
)
def test_wrong_method(host: Host, method: str, path: str) -> None:
    answer = host.ask(method, path)
    assert (answer.status, answer.body) == (405, b"")
    assert "allow" not in answer.headers


NOT_JSON = "the body must be a JSON string of hex"
NOT_TEXT = "the body must be a JSON string of hex, not another JSON value"
NOT_HEX = "the message must be hex: an even number of digits 0-9 and a-f, no 0x"
EMPTY = "empty message; send the bytes of an operation or a block, first byte included"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", NOT_JSON),
        (b"\x03", NOT_JSON),
        (b"notjson", NOT_JSON),
        (b"03", NOT_JSON),
        (b'"03', NOT_JSON),
        (b'"03" x', NOT_JSON),
        (b'"03""04"', NOT_JSON),
        (b"\xff\xfe", NOT_JSON),
        ('"03"'.encode("utf-16"), NOT_JSON),
        ('"03"'.encode("utf-8-sig"), NOT_JSON),
        (b"[" * 60_000, NOT_JSON),
        (b"1" * 60_000, NOT_JSON),
        (b"{}", NOT_TEXT),
        (b'{"a":1}', NOT_TEXT),
        (b"123", NOT_TEXT),
        (b'["00"]', NOT_TEXT),
        (b"true", NOT_TEXT),
        (b"NaN", NOT_TEXT),
        (b'"zz"', NOT_HEX),
        (b'"123"', NOT_HEX),
        (b'"0x03"', NOT_HEX),
        (b'" 03"', NOT_HEX),
        (b'"03 "', NOT_HEX),
        (b'"03 04"', NOT_HEX),
        (b'"\\n03"', NOT_HEX),
        (b'"03\\u0000"', NOT_HEX),
        (b'"\xef\xbc\x90\xef\xbc\x93"', NOT_HEX),
        (b'"\\ud800"', NOT_HEX),
        (b"null", EMPTY),
        (b'""', EMPTY),
    ],
)
def test_malformed_bodies(host: Host, body: bytes, text: str) -> None:
    answer = host.ask("POST", f"/keys/{TZ1.pkh}", body)
    assert (answer.status, answer.message) == (400, text)


@pytest.mark.parametrize(
    "message",
    [
        "03",
        "02deadbeef",
        "0500000000",
        "ff",
        attestation(1).hex() + "00",
        attestation(1).hex()[:-2],
        transaction(1).hex() + "07",
    ],
)
def test_malformed_messages(host: Host, message: str) -> None:
    answer = host.ask("POST", f"/keys/{TZ1.pkh}", json.dumps(message))
    assert answer.status == 400
    assert answer.message


@pytest.mark.parametrize("body", ['"%s"', '"%s"\n', '  "%s" \t\r\n'])
@pytest.mark.parametrize("upper", [False, True])
def test_well_formed_bodies(host: Host, body: str, upper: bool) -> None:
    text = transaction(2).hex()
    answer = host.ask("POST", f"/keys/{TZ1.pkh}", body % (text.upper() if upper else text))
    oracles.verify(TZ1, answer.signature, transaction(2))


def test_bodies_of_any_size(host: Host) -> None:
    limit_bytes = 2 * 32 * 1024 + 1024
    largest_message = b'"' + b"0" * (limit_bytes - 2) + b'"'
    assert host.ask("POST", f"/keys/{TZ1.pkh}", largest_message).status == 400
    for surplus in (1, 100, 1_000_000):
        answer = host.ask("POST", f"/keys/{TZ1.pkh}", largest_message + b" " * surplus)
        assert (answer.status, answer.message) == (
            413,
            f"the body is over {limit_bytes} bytes, the largest message needs fewer",
        )
    assert host.sign(TZ1.pkh, transaction(3)).status == 200


@pytest.mark.parametrize(
    "pkh",
    ["nosuch", TZ1.pkh[:-1], TZ1.pkh + "x", TZ1.pkh.replace("tz1", "tz2"), TZ1.public_key, "%00", "%ff", "tz1" * 999],
)
def test_what_is_no_hash(host: Host, pkh: str) -> None:
    get, post = host.ask("GET", f"/keys/{pkh}"), host.ask("POST", f"/keys/{pkh}", b"nothing is read of it")
    assert (get.status, post.status) == (400, 400)
    assert get.message == post.message


def test_keys_that_cannot_sign(host: Host) -> None:
    unknown = KEYS["opstest"].pkh
    answer = host.sign(unknown, transaction(1))
    assert (answer.status, answer.message) == (403, f"{unknown} is not listed in config")
    answer = host.ask("GET", f"/keys/{unknown}")
    assert (answer.status, answer.message) == (404, "this key not found in any vault")

    answer = host.sign(UNLISTED.pkh, transaction(1))
    assert (answer.status, answer.message) == (403, f"{UNLISTED.pkh} is not listed in config")

    for answer in (host.sign(MISSING.pkh, transaction(1)), host.ask("GET", f"/keys/{MISSING.pkh}")):
        assert (answer.status, answer.message) == (404, "this key not found in any vault")


@pytest.mark.parametrize(
    ("key", "message", "text"),
    [
        (DEFAULT, transaction(1), "request kind `generic' is not allowed"),
        (DEFAULT, attestation_with_dal(1), "request kind `attestation_with_dal' is not allowed"),
        (DENIED, attestation(1), "request kind `attestation' is not allowed"),
        (DENIED, preattestation(1), "request kind `preattestation' is not allowed"),
        (DENIED, block(1), "request kind `block' is not allowed"),
        (TZ1, PAYLOADS["policy_delegation"], "operation `delegation' is not allowed"),
        (TZ1, PAYLOADS["policy_stake"], "operation `stake' is not allowed"),
        (TZ1, PAYLOADS["policy_pack_data_is"], "request kind `pack' is not allowed"),
        (VOTER, PAYLOADS["policy_ballot_yay"], "operation `ballot:yay' is not allowed"),
        (VOTER, PAYLOADS["policy_delegate_with_consesus_key"], "operation `delegation' is not allowed"),
        (VOTER, block(1), "request kind `block' is not allowed"),
    ],
)
def test_what_the_policy_denies(host: Host, key: KnownKey, message: bytes, text: str) -> None:
    answer = host.sign(key.pkh, message)
    assert (answer.status, answer.message) == (403, text)


def test_a_denied_message_moves_no_mark(host: Host) -> None:
    assert host.sign(DEFAULT.pkh, attestation_with_dal(7, chain=1)).status == 403
    assert host.sign(DEFAULT.pkh, attestation(7, chain=1)).status == 200


def test_what_the_policy_allows(host: Host) -> None:
    for payload in ("policy_ballot", "ballot_pass"):
        oracles.verify(VOTER, host.sign(VOTER.pkh, PAYLOADS[payload]).signature, PAYLOADS[payload])
    for message in (block(1), preattestation(1), attestation(1)):
        oracles.verify(DEFAULT, host.sign(DEFAULT.pkh, message).signature, message)


def test_watermark(host: Host) -> None:
    first, other = attestation(100, chain=2), attestation(100, chain=2, payload=b"\x23" * 32)
    signature = host.sign(TZ2.pkh, first).signature
    for message in (other, attestation_with_dal(100, chain=2), attestation(99, chain=2), attestation(5, chain=2)):
        answer = host.sign(TZ2.pkh, message)
        assert answer.status == 409
        assert answer.message.startswith(f"watermark validation failed: attestation of {TZ2.pkh} on Net")
    assert host.sign(TZ2.pkh, first).signature == signature
    for message in (block(100, chain=2), preattestation(100, chain=2), attestation(100, chain=2, round_=1)):
        assert host.sign(TZ2.pkh, message).status == 200
    assert host.sign(TZ1.pkh, other).status == 200


def test_signing_versions(host: Host) -> None:
    recorded = {
        item["version"]: item["signature"]
        for item in SIGNATORY["signatures"]
        if (item["key"], item["payload"]) == (TZ4.name, "policy_generic")
    }
    message = PAYLOADS["policy_generic"]
    for query in (
        "",
        "?version=2",
        "?version=3",
        "?version=4",
        "?version=banana",
        "?version=",
        "?version=255",
        "?authentication=x",
        "?&=&&",
    ):
        assert host.sign(TZ4.pkh, message, query).signature == recorded[2]
    assert host.sign(TZ4.pkh, message, "?version=1").signature == recorded[1]
    assert host.sign(TZ4.pkh, message, "?version=1&version=2").signature == recorded[1]
    assert recorded[1] != recorded[2]
    for key in (TZ1, TZ2, TZ3):
        signatures = {
            host.sign(key.pkh, message, query).signature
            for query in ("", "?version=0", "?version=1", "?version=2", "?version=3")
        }
        assert len(signatures) == 1


def test_the_largest_attestations_of_protocol_025_are_signed(host: Host) -> None:
    whole = next(
        item for item in PROTOCOLS["operations"] if "attestation_with_dal 025, all 160 slots at all" in item["name"]
    )
    message = bytes.fromhex(whole["hex"])
    assert len(message) == 80 + 133
    for key in (TZ1, TZ2, TZ3):
        assert host.sign(key.pkh, message, "?version=3").status == 200
        # Another bitset is another message.
        assert host.sign(key.pkh, message[:-1] + b"\x02", "?version=3").status == 409


def test_version_0_is_refused_for_tz4_and_disturbs_nobody(host: Host) -> None:
    message = attestation(200, chain=3)
    for _ in range(3):
        answer = host.sign(TZ4.pkh, message, "?version=0")
        assert (answer.status, answer.message) == (400, "version 0 cannot be signed by a tz4 key: use version 1 or 2")
    # No mark was moved: other bytes at that level are signed.
    for key in (*FOUR, BAKING):
        assert host.sign(key.pkh, attestation(200, chain=3, payload=b"\x24" * 32)).status == 200
    assert host.health() == (200, {"ready": True, "degraded": [f"{MISSING.pkh}: in no vault"]})


def test_a_query_with_many_fields(host: Host) -> None:
    assert host.sign(TZ1.pkh, transaction(1), "?" + "&".join(["a=1"] * 20)).status == 200
    answer = host.sign(TZ1.pkh, transaction(1), "?" + "&".join(["a=1"] * 21))
    assert (answer.status, answer.message) == (
        400,
        "the query has more than 20 fields, only authentication, version and bls_pk mean anything",
    )
