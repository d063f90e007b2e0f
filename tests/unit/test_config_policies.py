"""The section `tezos`: which keys sign, what, and for whom."""

import re
from pathlib import Path

import pytest

from enclave_signer.protocol.messages import PublicKey
from enclave_signer.tezos import parse_public_key, public_key_hash
from host_backend.operations.table import OPERATION_KINDS
from host_backend.policy import DEFAULT_POLICY, KeyPolicy
from tests.doubles.known_keys import KEYS
from tests.unit.test_config import OTHER, PKH, load, policy, refused

EDPK, BLPK = KEYS["tz1alias"].public_key, KEYS["tz4alias"].public_key


@pytest.mark.parametrize(
    "pkh",
    [
        "tz1",
        PKH[:-1],
        KEYS["tz1alias"].public_key,
        KEYS["tz1alias"].secret,
        "x" * 500,
        "KT1MjjcdffibmPW7mvy6vdmvR6s9WYbAkTEA",
    ],
)
def test_what_is_no_public_key_hash(tmp_path: Path, pkh: str) -> None:
    text = refused(tmp_path, f"tezos:\n  {pkh}:\n")
    assert re.match(rf"2: tezos\.{pkh[:4]}…?: not a public key hash: ", text)
    assert pkh[4:] not in text or len(pkh) <= 4


def test_policies_without_values(tmp_path: Path) -> None:
    assert load(tmp_path, f"tezos: {{{PKH}: }}").policies[PKH] == DEFAULT_POLICY
    nothing = KeyPolicy(frozenset())
    for text in ("{}", "{allow: }", "{allow: {}}"):
        assert load(tmp_path, f"tezos: {{{PKH}: {text}}}").policies[PKH] == nothing
    assert load(tmp_path, policy("{generic: }")).policies[PKH] == KeyPolicy(frozenset({"generic"}))
    assert load(tmp_path, policy("{generic: []}")).policies[PKH] == KeyPolicy(frozenset({"generic"}))


def test_every_name_that_a_policy_may_allow(tmp_path: Path) -> None:
    names = sorted(OPERATION_KINDS)
    config = load(tmp_path, policy(f"{{generic: {names}}}"))
    assert config.policies[PKH].operations == set(names)
    assert config.warnings == ()


def test_old_names_and_lists_that_mean_nothing_give_warnings(tmp_path: Path) -> None:
    config = load(tmp_path, policy("{endorsement: , preendorsement: , block: [anything]}"))
    assert config.policies[PKH] == KeyPolicy(frozenset({"attestation", "preattestation", "block"}))
    assert config.warnings == (
        f"tezos.{PKH}.allow.endorsement: 'endorsement' is the old name of 'attestation'",
        f"tezos.{PKH}.allow.preendorsement: 'preendorsement' is the old name of 'preattestation'",
        f"tezos.{PKH}.allow.block: only `generic` takes a list; this one means nothing",
    )


@pytest.mark.parametrize(
    ("allow", "expected"),
    [
        (
            "{foo: }",
            ".foo: invalid request kind `foo` in `allow` list, known are "
            + ", ".join(("attestation", "attestation_with_dal", "block", "generic", "pack", "preattestation")),
        ),
        ("{generic: [foo]}", ".generic[0]: invalid operation kind `foo` in `allow.generic` list"),
        ("{generic: [reveal, 'foo:x']}", ".generic[1]: invalid operation kind `foo:x` in `allow.generic` list"),
        (
            "{generic: [attestation]}",
            (
                ".generic[0]: invalid operation kind `attestation` in `allow.generic` list, it is a kind of request: remove it "
                "here and list it under `allow`"
            ),
        ),
        ("{generic: [[reveal]]}", ".generic[0]: must be a text"),
        ("{generic: [null]}", ".generic[0]: must be a text"),
        ("{generic: transaction}", ".generic: must be a list"),
        ("{generic: {transaction: }}", ".generic: must be a list"),
        ("[block]", ": must be a map"),
        ("all", ": must be a map"),
        ("{block: , block: }", ".block: stands here a second time"),
    ],
)
def test_policies_that_cannot_be_meant(tmp_path: Path, allow: str, expected: str) -> None:
    assert refused(tmp_path, policy(allow)) == f"3: tezos.{PKH}.allow{expected}"


def test_a_key_named_twice(tmp_path: Path) -> None:
    assert (
        refused(tmp_path, f"tezos:\n  {PKH}:\n  {PKH}: {{allow: {{block: }}}}\n")
        == f"3: tezos.{PKH}: stands here a second time"
    )


def test_policies_may_share_an_anchor(tmp_path: Path) -> None:
    config = load(tmp_path, f"tezos:\n  {PKH}: &baker {{allow: {{block: }}}}\n  {OTHER}: *baker\n")
    assert config.policies[PKH] == config.policies[OTHER] == KeyPolicy(frozenset({"block"}))


def test_policies_may_be_merged(tmp_path: Path) -> None:
    baker = f"tezos:\n  {PKH}: &baker {{allow: {{block: }}, log_payloads: true}}\n"
    for merge in ("*baker", "[*baker]"):
        config = load(tmp_path, f"{baker}  {OTHER}: {{<<: {merge}, allow: {{generic: }}}}\n")
        assert config.policies[OTHER] == KeyPolicy(frozenset({"generic"}), log_payloads=True)


@pytest.mark.parametrize(
    ("chains", "expected"),
    [
        ("", None),
        ("[]", frozenset[str]()),
        ("[NetXdQprcVkpaWU, NetXo5iVw1vBoxM]", frozenset({"NetXdQprcVkpaWU", "NetXo5iVw1vBoxM"})),
    ],
)
def test_chains_may_be_limited(tmp_path: Path, chains: str, expected: frozenset[str] | None) -> None:
    config = load(tmp_path, f"tezos: {{{PKH}: {{allow: {{block: }}, allowed_chains: {chains}}}}}")
    assert config.policies[PKH].chains == expected


@pytest.mark.parametrize("chains", ["[mainnet]", f"[{PKH}]", "[NetXdQprcVkpaWV]", "[null]", "NetXdQprcVkpaWU"])
def test_chains_are_chain_ids(tmp_path: Path, chains: str) -> None:
    assert f"tezos.{PKH}.allowed_chains" in refused(
        tmp_path, f"tezos: {{{PKH}: {{allow: {{block: }}, allowed_chains: {chains}}}}}"
    )


@pytest.mark.parametrize(
    ("truth", "expected"),
    [
        *((text, True) for text in ("true", "True", "yes", "on", "y")),
        *((text, False) for text in ("false", "no", "off", "n", "")),
    ],
)
def test_truth_values(tmp_path: Path, truth: str, expected: bool) -> None:
    config = load(tmp_path, f"tezos: {{{OTHER}: {{log_payloads: {truth}, allow_proof_of_possession: {truth}}}}}")
    assert (config.policies[OTHER].log_payloads, config.policies[OTHER].allow_proof_of_possession) == (
        expected,
        expected,
    )
    assert config.warnings == ()


@pytest.mark.parametrize("truth", ["1", "''", "maybe", "[]", "{}"])
def test_what_is_neither_true_nor_false(tmp_path: Path, truth: str) -> None:
    for field in ("log_payloads", "allow_proof_of_possession"):
        text = refused(tmp_path, f"tezos: {{{OTHER}: {{{field}: {truth}}}}}")
        assert text == f"1: tezos.{OTHER}.{field}: must be true or false"


@pytest.mark.parametrize(
    ("field", "unsigned", "others"),
    [
        ("{unsigned: true}", True, frozenset()),
        ("{unsigned: false, others: }", False, frozenset()),
        ("{others: any}", False, "any"),
        ("{others: [any], unsigned: yes}", True, "any"),
        (f"{{others: [{BLPK}]}}", False, frozenset({parse_public_key(BLPK)})),
        (f"{{others: {BLPK}}}", False, frozenset({parse_public_key(BLPK)})),
        ("{others: []}", False, frozenset()),
    ],
)
def test_proofs_for_others_and_without_a_signature(
    tmp_path: Path, field: str, unsigned: bool, others: frozenset[PublicKey] | str
) -> None:
    policy = load(tmp_path, f"tezos: {{{OTHER}: {{allow_proof_of_possession: {field}}}}}").policies[OTHER]
    assert policy.allow_proof_of_possession
    assert (policy.unsigned_proofs, policy.proofs_for) == (unsigned, others)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("{unsigned: 7}", ".unsigned: must be true or false"),
        ("{other: any}", ".other: "),
        ("{others: all}", ".others: not a public key"),
        (f"{{others: [any, {BLPK}]}}", ".others[0]: not a public key"),
        (f"{{others: [{EDPK}]}}", f".others: {EDPK} is not the public key of a tz4 key (BLpk…)"),
    ],
)
def test_wrong_lists_of_proofs(tmp_path: Path, field: str, text: str) -> None:
    found = refused(tmp_path, f"tezos: {{{OTHER}: {{allow_proof_of_possession: {field}}}}}")
    assert found.startswith(f"1: tezos.{OTHER}.allow_proof_of_possession{text}")


def test_only_tz4_keys_prove_possession(tmp_path: Path) -> None:
    config = load(tmp_path, f"tezos: {{{PKH}: {{allow_proof_of_possession: true}}}}")
    assert not config.policies[PKH].allow_proof_of_possession
    assert config.warnings == (
        f"tezos.{PKH}.allow_proof_of_possession: means nothing, only tz4 keys can prove possession",
    )


@pytest.mark.parametrize(
    ("lists", "expected", "warned"),
    [
        (
            "{allowed_operations: [block, endorsement]}",
            KeyPolicy(frozenset({"block", "attestation"})),
            "{attestation: , block: }",
        ),
        (
            "{allowed_operations: [generic, block], allowed_kinds: [transaction, reveal]}",
            KeyPolicy(frozenset({"block", "generic"}), frozenset({"transaction", "reveal"})),
            "{block: , generic: [reveal, transaction]}",
        ),
        ("{allowed_kinds: [transaction]}", KeyPolicy(frozenset()), "{}"),
        ("{allow: , allowed_operations: [block]}", KeyPolicy(frozenset({"block"})), "{block: }"),
    ],
)
def test_the_older_lists(tmp_path: Path, lists: str, expected: KeyPolicy, warned: str) -> None:
    config = load(tmp_path, f"tezos: {{{PKH}: {lists}}}")
    assert config.policies[PKH] == expected
    text = f"tezos.{PKH}: allowed_operations and allowed_kinds are deprecated, write allow: {warned}"
    assert config.warnings[-1] == text
    again = load(tmp_path, policy(text.partition("write allow: ")[2]))
    assert again.policies[PKH] == expected


def test_allow_wins_over_the_older_lists(tmp_path: Path) -> None:
    config = load(tmp_path, f"tezos: {{{PKH}: {{allow: {{block: }}, allowed_operations: [generic], allowed_kinds: }}}}")
    assert config.policies[PKH] == KeyPolicy(frozenset({"block"}))
    assert config.warnings == (f"tezos.{PKH}.allowed_operations: means nothing beside `allow`",)


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ("{allowed_operations: [foo]}", ".allowed_operations[0]: invalid request kind `foo`"),
        ("{allowed_operations: block}", ".allowed_operations: must be a list"),
        ("{allowed_kinds: [foo]}", ".allowed_kinds[0]: invalid operation kind `foo`"),
    ],
)
def test_older_lists_that_cannot_be_meant(tmp_path: Path, lists: str, expected: str) -> None:
    assert refused(tmp_path, f"tezos: {{{PKH}: {lists}}}").startswith(f"1: tezos.{PKH}{expected}")


@pytest.mark.parametrize("name", ["double_endorsement_evidence", "double_preendorsement_evidence", "endorsement"])
def test_old_names_of_operations_are_renamed_and_exist_no_more(tmp_path: Path, name: str) -> None:
    new = name.replace("endorsement", "attestation")
    text = refused(tmp_path, policy(f"{{generic: [{name}]}}"))
    assert text.startswith(
        f"3: tezos.{PKH}.allow.generic[0]: invalid operation kind `{new}` in `allow.generic` list, in the file by its old "
        f"name `{name}`, "
    )
    assert text.endswith(
        "it is a kind of request: remove it here and list it under `allow`" if new == "attestation" else ""
    )


def test_clients_and_users(tmp_path: Path) -> None:
    keys = [KEYS["tz1alias"].public_key, KEYS["tz4alias"].public_key]
    config = load(tmp_path, f"tezos: {{{PKH}: {{authorized_keys: {keys}, jwt_users: [alice, bob]}}}}")
    assert config.policies[PKH].clients == frozenset(public_key_hash(parse_public_key(key)) for key in keys)
    assert config.policies[PKH].users == frozenset({"alice", "bob"})
    none = load(tmp_path, f"tezos: {{{PKH}: {{authorized_keys: [], jwt_users: []}}}}").policies[PKH]
    assert (none.clients, none.users) == (frozenset(), frozenset())
    every = load(tmp_path, f"tezos: {{{PKH}: {{authorized_keys: , jwt_users: }}}}").policies[PKH]
    assert (every.clients, every.users) == (None, None)


def test_what_signatory_s_manual_shows_and_nothing_reads(tmp_path: Path) -> None:
    assert load(tmp_path, f"tezos: {{{PKH}: {{vault: nitro}}}}").warnings == (f"tezos.{PKH}.vault: means nothing",)


@pytest.mark.parametrize(
    ("allow", "hint"),
    [
        ("{atestation: }", "invalid request kind `atestation` in `allow` list, did you mean attestation?"),
        (
            "{generic: [transactoin]}",
            "invalid operation kind `transactoin` in `allow.generic` list, did you mean transaction?",
        ),
        (
            "{generic: [ballot:yes]}",
            "invalid operation kind `ballot:yes` in `allow.generic` list, did you mean ballot:yay?",
        ),
    ],
)
def test_a_kind_that_is_close_is_suggested(tmp_path: Path, allow: str, hint: str) -> None:
    assert refused(tmp_path, f"tezos: {{{PKH}: {{allow: {allow}}}}}").endswith(hint)
