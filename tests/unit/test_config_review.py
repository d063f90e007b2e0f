"""What a configuration allows, ignores and risks, in words."""

from pathlib import Path

import pytest

from enclave_signer.tezos import parse_public_key, public_key_hash
from host_backend.config.review import Review, review
from host_backend.operations.risks import HANDS_OVER, Risk
from host_backend.operations.table import RISKS
from tests.doubles.known_keys import KEYS
from tests.unit.test_config import OTHER, PKH, load, vault

KEY, BLPK = KEYS["tz1alias"].public_key, KEYS["tz4alias"].public_key
CLIENT = public_key_hash(parse_public_key(KEY))
LOOPBACK = "server: {address: '127.0.0.1:1', utility_address: 'localhost:2'%s}\n"
USERS = 'jwt: {users: {alice: {password: "SecretSecret-1-!", secret: "!sEtcU5RwLQYsA5qQ1c6zpo3FljQxfAKP"}}}'


def reviewed(folder: Path, text: str) -> Review:
    return review(load(folder, text))


def test_a_configuration_without_fault(tmp_path: Path) -> None:
    found = reviewed(
        tmp_path,
        "base_dir: /b\n"
        + LOOPBACK % ""
        + vault("{host: 127.0.0.1}")
        + f"tezos:\n  {PKH}: {{allow: {{generic: [transaction, reveal]}}, allowed_chains: [NetXdQprcVkpaWU]}}\n"
        + f"  {OTHER}: {{allow_proof_of_possession: yes}}\n",
    )
    assert found.settings == {
        "base_dir": "/b",
        "signing": "127.0.0.1:1, for everybody who reaches it",
        "health": "localhost:2",
        "vault v": "enclave 127.0.0.1:2000, sealed keys in /b/confidential_space_keys.json",
        "watermark": "file, at most 5000000 levels at once",
        "policy hook": "none",
    }
    assert found.keys == {
        PKH: "signs operations (reveal, transaction); on NetXdQprcVkpaWU",
        OTHER: "signs proofs of possession",
    }
    assert (found.notes, found.ignored, found.dangers) == ((), (), ())


def test_experimental_keys_are_named_with_their_place(tmp_path: Path) -> None:
    text = "base_dir: /b\n" + vault("{host: 127.0.0.1}")
    assert "experimental" not in reviewed(tmp_path, text).settings
    settings = reviewed(tmp_path, text + "experimental: {tz5: true}").settings
    assert settings["experimental"] == "tz5 keys"
    assert settings["vault v"].endswith(
        "sealed keys in /b/confidential_space_keys.json, those that Signatory does not know: sealed keys in "
        "/b/confidential_space_keys.tz5.json"
    )


def test_a_unix_socket_of_the_enclave_is_no_network(tmp_path: Path) -> None:
    found = reviewed(tmp_path, "base_dir: /b\n" + LOOPBACK % "" + vault("{host: unix:/run/s}"))
    assert found.settings["vault v"] == (
        "enclave unix:/run/s, a socket of this machine, sealed keys in /b/confidential_space_keys.json"
    )
    assert found.dangers == ()


@pytest.mark.parametrize(
    ("policy", "meaning"),
    [
        ("{}", "signs nothing"),
        ("", "signs attestation, block, preattestation"),
        ("{allow: {pack: }, allowed_chains: []}", "signs pack; on no chain"),
        ("{authorized_keys: [], jwt_users: [b, a]}", "signs nothing; for the clients (none); for the users a, b"),
        (
            f"{{authorized_keys: {KEY}, jwt_users: []}}",
            f"signs nothing; for the clients {CLIENT}; for the users (none)",
        ),
    ],
)
def test_what_a_key_may_sign(tmp_path: Path, policy: str, meaning: str) -> None:
    assert reviewed(tmp_path, f"tezos: {{{PKH}: {policy}}}").keys == {PKH: meaning}


@pytest.mark.parametrize(
    ("proofs", "meaning"),
    [
        ("true", "signs proofs of possession"),
        ("{others: []}", "signs proofs of possession"),
        ("{others: any}", "signs proofs of possession (for any key)"),
        ("{unsigned: true}", "signs proofs of possession (for itself, unsigned requests too)"),
        (
            f"{{unsigned: true, others: [{BLPK}]}}",
            "signs proofs of possession (for itself and 1 more, unsigned requests too)",
        ),
    ],
)
def test_which_proofs_a_key_gives(tmp_path: Path, proofs: str, meaning: str) -> None:
    found = reviewed(tmp_path, f"tezos: {{{OTHER}: {{allow_proof_of_possession: {proofs}}}}}")
    assert found.keys == {OTHER: meaning}


@pytest.mark.parametrize(
    ("server", "policy", "expected"),
    [
        (
            "",
            f"{{authorized_keys: {KEY}}}",
            ".authorized_keys: no client is known without `server.authorized_keys`: it signs nothing",
        ),
        (
            f", authorized_keys: {KEYS['tz4alias'].public_key}",
            f"{{authorized_keys: {KEY}}}",
            f".authorized_keys: {CLIENT} is not in `server.authorized_keys`, and so never known",
        ),
        (f", authorized_keys: {KEY}", f"{{authorized_keys: {KEY}}}", None),
        ("", "{jwt_users: [alice]}", ".jwt_users: no client is known without `server.jwt`: it signs nothing"),
        (f", {USERS}", "{jwt_users: [bob, alice]}", ".jwt_users: bob is not in `server.jwt`, and so never known"),
        ("", "{allow: {generic: }}", ".allow.generic: names no operation, so it allows none"),
        ("", "{vault: nitro}", ".vault: means nothing"),
    ],
)
def test_what_means_nothing(tmp_path: Path, server: str, policy: str, expected: str | None) -> None:
    found = reviewed(tmp_path, LOOPBACK % server + f"tezos: {{{PKH}: {policy}}}\n")
    assert found.ignored == (() if expected is None else (f"tezos.{PKH}{expected}",))
    assert found.dangers == ()


TLS = "tls: {certificate: /c, key: /k%s}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("server: {utility_address: '[::1]:1'}", "server.address: anyone who reaches :6732 "),
        (f"server: {{utility_address: '[::1]:1', {TLS % ''}}}", "server.address: anyone who reaches :6732 "),
        (f"server: {{utility_address: '[::1]:1', {TLS % ', client_ca: /a'}}}", None),
        ("server: {utility_address: '[::1]:1', authorized_keys: []}", None),
        (f"server: {{utility_address: '[::1]:1', {USERS}}}", "server.jwt: passwords and tokens cross the network"),
        (f"server: {{utility_address: '[::1]:1', {USERS}, {TLS % ''}}}", None),
        ("server: {address: 'unix:/s'}", "server.utility_address: anyone who reaches :9583 "),
        (LOOPBACK % "" + vault("{host: enclave.example}"), "vaults.v: the link to enclave.example:2000 is in clear"),
        (LOOPBACK % "" + vault("{host: localhost, verify_bls: background}"), "vaults.v.config.verify_bls: a wrong tz4"),
        (LOOPBACK % "" + "policy_hook: {address: 'http://h'}", "policy_hook: others on the network"),
        (LOOPBACK % "" + "policy_hook: {address: 'https://h'}", None),
        (LOOPBACK % "" + f"policy_hook: {{address: 'http://h', authorized_keys: {KEY}}}", None),
        (LOOPBACK % "" + "watermark: {driver: mem}", "watermark.driver: marks in memory are forgotten"),
        (
            LOOPBACK % "" + "watermark: {config: {allow_memory_file_system: true}}",
            "watermark.config.allow_memory_file_system: marks on a file system in memory are forgotten",
        ),
        (LOOPBACK % "" + "watermark: {config: {allow_memory_file_system: false}}", None),
        (
            LOOPBACK % "" + "watermark: {config: {max_level_jump: 5000001}}",
            "watermark.config.max_level_jump: one wrong",
        ),
        (
            LOOPBACK % "" + f"tezos: {{{PKH}: {{allow: {{block: , generic: [transaction]}}}}}}",
            f"tezos.{PKH}: bakes, and may transaction",
        ),
        (LOOPBACK % "" + f"tezos: {{{PKH}: {{allow: {{block: , generic: [reveal]}}}}}}", None),
        (LOOPBACK % "" + f"tezos: {{{PKH}: {{allow: {{pack: }}}}}}", f"tezos.{PKH}.allow.pack: packed data"),
        (
            LOOPBACK % "" + f"tezos: {{{OTHER}: {{allow_proof_of_possession: {{others: any}}}}}}",
            f"tezos.{OTHER}.allow_proof_of_possession.others: any key",
        ),
        (LOOPBACK % "" + f"tezos: {{{OTHER}: {{allow_proof_of_possession: {{others: [{BLPK}]}}}}}}", None),
    ],
)
def test_what_is_dangerous(tmp_path: Path, text: str, expected: str | None) -> None:
    dangers = reviewed(tmp_path, text).dangers
    if expected is None:
        assert dangers == ()
    else:
        (danger,) = dangers
        assert danger.startswith(expected)


def test_who_may_ask(tmp_path: Path) -> None:
    for server, who in (
        (f"authorized_keys: {KEY}", "for 1 keys that sign their requests"),
        (USERS, "for 1 users with a password"),
        (TLS % ", client_ca: /a", "for everybody with a certificate, over TLS"),
        (TLS % "", "for everybody who reaches it, over TLS"),
    ):
        assert (
            reviewed(tmp_path, f"server: {{address: '127.0.0.1:1', {server}}}").settings["signing"]
            == f"127.0.0.1:1, {who}"
        )


@pytest.mark.parametrize(
    ("allow", "noted", "in_danger"),
    [
        ("{generic: [reveal, stake, transaction]}", [], False),
        (
            "{generic: [reveal, update_consensus_key]}",
            ["update_consensus_key: the key that a request registers"],
            False,
        ),
        (
            "{block: , generic: [update_consensus_key]}",
            ["update_consensus_key: the key that a request registers"],
            True,
        ),
        (
            "{generic: [update_consensus_key, drain_delegate]}",
            ["drain_delegate: it empties the account", "update_consensus_key: "],
            False,
        ),
        ("{block: }", [], False),
    ],
)
def test_what_hands_the_account_over_is_noted(tmp_path: Path, allow: str, noted: list[str], in_danger: bool) -> None:
    found = reviewed(tmp_path, LOOPBACK % "" + f"tezos: {{{PKH}: {{allow: {allow}}}}}")
    assert len(found.notes) == len(noted)
    assert all(note.startswith(f"tezos.{PKH}: may {text}") for note, text in zip(found.notes, noted, strict=True))
    # A policy may be meant so: it is no danger of its own.
    assert bool(found.dangers) == in_danger


def test_operations_that_move_funds_exist() -> None:
    assert {name for name, risk in RISKS.items() if risk is Risk.HANDS_OVER} == HANDS_OVER.keys()
    assert {name for name, risk in RISKS.items() if risk is Risk.MOVES_FUNDS} == {
        *("delegation", "increase_paid_storage", "origination", "register_global_constant", "set_delegate_parameters"),
        *("smart_rollup_execute_outbox_message", "stake", "transaction", "transfer_ticket", "unstake"),
        "update_companion_key",
    }


@pytest.mark.parametrize(("policy", "noted"), [("", True), ("PKH: {}", True), ("PKH: {allow: {block: }}", False)])
def test_a_configuration_by_which_nothing_is_signed_is_noted(tmp_path: Path, policy: str, *, noted: bool) -> None:
    notes = reviewed(tmp_path, f"tezos: {{{policy.replace('PKH', PKH)}}}\n").notes
    assert any(note.startswith("tezos: no key may sign anything") for note in notes) is noted


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        ("base_dir: marks\n", ["base_dir: marks is relative to"]),
        ("base_dir: ~/marks\n", ["base_dir: ~/marks is relative to", "base_dir: ~ is not the home folder here"]),
        ("base_dir: /marks\n", []),
        (
            f"tezos: {{{PKH}: }}\n",
            [f"tezos.{PKH}: null means signs attestation, block, preattestation"],
        ),
        (
            f"tezos: {{{PKH}: {{allowed_chains: }}}}\n",
            [f"tezos.{PKH}.allowed_chains: null means any chain"],
        ),
        (f"tezos: {{{PKH}: {{}}}}\n", []),
    ],
)
def test_notes_of_paths_and_nulls(tmp_path: Path, text: str, notes: list[str]) -> None:
    found = [note for note in reviewed(tmp_path, text).notes if not note.startswith("tezos: no key may sign anything")]
    assert len(found) == len(notes)
    assert all(map(str.startswith, found, notes))
