"""Signatory's configuration grammar as frozen values; everything else is refused by file, line and dotted path."""

import re
from pathlib import Path

import pytest

from enclave_signer.protocol.messages import Credentials
from host_backend.config import Address, Config, load_config
from host_backend.errors import ConfigError
from host_backend.operations import OPERATION_KINDS
from host_backend.policy import DEFAULT_POLICY, KeyPolicy
from tests.doubles.known_keys import KEYS

PKH = KEYS["tz1alias"].pkh
OTHER = KEYS["tz4alias"].pkh
NOT_YET = "this field of Signatory's configuration is not supported yet: remove it to start without it"
DRIVER_NOT_YET = "is one of Signatory's that is not supported yet"


def load(folder: Path, text: str, base_dir: str | None = None) -> Config:
    file = folder / "s.yaml"
    file.write_text(text)
    return load_config(file, base_dir)


def refused(folder: Path, text: str) -> str:
    """Return what follows the file's name in the refusal: `line: path: text`."""
    with pytest.raises(ConfigError) as refusal:
        load(folder, text)
    return str(refusal.value).removeprefix(f"{folder}/s.yaml:")


def vault(settings: str) -> str:
    return f"vaults:\n  v:\n    driver: confidentialspace\n    config: {settings}\n"


def policy(allow: str) -> str:
    return f"tezos:\n  {PKH}:\n    allow: {allow}\n"


def test_an_empty_configuration_has_signatory_s_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "") == Config(
        base_dir=Path("/var/lib/signatory"),
        address=Address("", 6732),
        utility_address=Address("", 9583),
        vaults={},
        policies={},
    )
    assert load(tmp_path, "server:\nvaults:\nwatermark:\ntezos:\n") == load(tmp_path, "")


def test_a_whole_configuration(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        f"""
base_dir: /keys
server: {{address: "127.0.0.1:1", utility_address: "[::1]:2"}}
vaults:
  one:
    driver: confidentialspace
    config:
      host: enclave.example
      port: 3
      wip_provider_path: projects/1/p
      encryption_key_path: projects/p/k
  two: {{driver: confidentialspace, config: {{host: "::1", storage: {{driver: file, config: /blobs.json}}}}}}
watermark: {{driver: file}}
tezos:
  {PKH}: {{allow: {{block: , generic: [transaction, "ballot:nay"]}}}}
  {OTHER}:
""",
    )
    assert config.address == Address("127.0.0.1", 1)
    assert config.utility_address == Address("::1", 2)
    assert (str(config.address), str(config.utility_address)) == ("127.0.0.1:1", "[::1]:2")
    one, two = config.vaults.values()
    assert one.enclave == Address("enclave.example", 3)
    assert one.credentials == Credentials("projects/1/p", "projects/p/k")
    assert one.key_file == Path("/keys/confidential_space_keys.json")
    assert two.enclave == Address("::1", 2000)
    assert two.credentials == Credentials()
    assert two.key_file == Path("/blobs.json")
    assert config.policies == {
        PKH: KeyPolicy(frozenset({"block", "generic"}), frozenset({"transaction", "ballot:nay"})),
        OTHER: DEFAULT_POLICY,
    }
    assert config.warnings == ()


def test_base_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTS", "/h")
    monkeypatch.delenv("NOWHERE", raising=False)
    assert load(tmp_path, "base_dir: $HOSTS/a/${HOSTS}").base_dir == Path("/h/a//h")
    assert load(tmp_path, "base_dir: /a/$/b").base_dir == Path("/a/$/b")
    assert load(tmp_path, "base_dir: /a", "/b").base_dir == Path("/b")
    assert load(tmp_path, vault("{host: h}"), "/b").vaults["v"].key_file == Path("/b/confidential_space_keys.json")
    assert refused(tmp_path, "base_dir: ${NOWHERE}/x") == "1: base_dir: the environment variable NOWHERE is not set"
    assert refused(tmp_path, "base_dir: $NOWHERE/x") == "1: base_dir: the environment variable NOWHERE is not set"
    assert refused(tmp_path, "base_dir:") == "1: base_dir: must be a text"
    assert refused(tmp_path, "base_dir: ''") == "1: base_dir: must not be empty"
    with pytest.raises(ConfigError, match="--base-dir must not be empty"):
        load(tmp_path, "", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1", "1: a: unknown field, known are base_dir, server, vaults, watermark, tezos"),
        ("\nbasedir: /x", "2: basedir: unknown field, did you mean base_dir?"),
        ("server: {adress: ':1'}", "1: server.adress: unknown field, did you mean address?"),
        ("server:\n  tls: {}\n", "2: server.tls: unknown field, known are address, utility_address"),
        (vault("{host: h, prot: 2}"), "4: vaults.v.config.prot: unknown field, did you mean port?"),
        (
            vault("{host: h, storage: {divers: x}}"),
            "4: vaults.v.config.storage.divers: unknown field, did you mean driver?",
        ),
        (
            "vaults: {v: {driver: confidentialspace, confg: {}}}",
            "1: vaults.v.confg: unknown field, did you mean config?",
        ),
        (f"tezos: {{{PKH}: {{alow: }}}}", f"1: tezos.{PKH}.alow: unknown field, did you mean allow?"),
        (
            f"tezos: {{{PKH}: {{allow_proof_of_posession: true}}}}",
            f"1: tezos.{PKH}.allow_proof_of_posession: unknown field, did you mean allow_proof_of_possession?",
        ),
        ("watermark: {drive: file}", "1: watermark.drive: unknown field, did you mean driver?"),
    ],
)
def test_unknown_fields_are_named_with_the_nearest_known(tmp_path: Path, text: str, expected: str) -> None:
    assert refused(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("policy_hook: {address: x}", "1: policy_hook"),
        ("server:\n  authorized_keys: x", "2: server.authorized_keys"),
        ("server:\n  jwt: {users: {}}", "2: server.jwt"),
        *(
            (f"tezos:\n  {PKH}:\n    {field}: x", f"3: tezos.{PKH}.{field}")
            for field in (
                "log_payloads",
                "allow_proof_of_possession",
                "authorized_keys",
                "jwt_users",
                "allowed_operations",
                "allowed_kinds",
            )
        ),
    ],
)
def test_fields_of_signatory_that_are_not_built_yet(tmp_path: Path, text: str, expected: str) -> None:
    assert refused(tmp_path, text) == f"{expected}: {NOT_YET}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(
            (f"watermark: {{driver: {name}}}", f"1: watermark.driver: {DRIVER_NOT_YET}")
            for name in ("mem", "gcp", "aws")
        ),
        ("watermark: {driver: foo}", "1: watermark.driver: unknown value 'foo', known are file"),
        ("watermark: {driver: }", "1: watermark.driver: must be a text"),
        ("watermark: []", "1: watermark: must be a map"),
        *(
            (vault(f"{{host: h, storage: {{driver: {name}}}}}"), f"4: vaults.v.config.storage.driver: {DRIVER_NOT_YET}")
            for name in ("gcp", "firestore")
        ),
        (
            vault("{host: h, storage: {driver: x}}"),
            "4: vaults.v.config.storage.driver: unknown value 'x', known are file",
        ),
        ("vaults: {v: {driver: nitro}}", "1: vaults.v.driver: unknown value 'nitro', known are confidentialspace"),
        ("vaults: {v: }", "1: vaults.v: must name a driver"),
        ("vaults: {v: {}}", "1: vaults.v: must name a driver"),
        ("vaults: {v: {config: {host: h}}}", "1: vaults.v: must name a driver"),
        ("vaults: {v: {driver: confidentialspace}}", "1: vaults.v: must name the enclave's host"),
        (vault(""), "4: vaults.v.config: must name the enclave's host"),
        (vault("{port: 1}"), "4: vaults.v.config: must name the enclave's host"),
        (vault("{host: h, wip_provider_path: }"), "4: vaults.v.config.wip_provider_path: must be a text"),
        ("vaults: [v]", "1: vaults: must be a map"),
    ],
)
def test_drivers_and_vaults(tmp_path: Path, text: str, expected: str) -> None:
    assert refused(tmp_path, text) == expected


def test_vaults_never_share_a_key_file(tmp_path: Path) -> None:
    shared = "{driver: confidentialspace, config: {host: h}}"
    assert refused(tmp_path, f"base_dir: /b\nvaults:\n  one: {shared}\n  two: {shared}\n") == (
        "2: vaults: vaults one and two share the key file /b/confidential_space_keys.json: give each its own `storage`"
    )
    (tmp_path / "link").symlink_to(tmp_path)
    storages = [f"{{host: h, storage: {{config: {tmp_path}/{place}k}}}}" for place in ("", "link/")]
    one, two = (f"{{driver: confidentialspace, config: {storage}}}" for storage in storages)
    assert "share the key file" in refused(tmp_path, f"vaults: {{one: {one}, two: {two}}}")


@pytest.mark.parametrize("host", ["a..b", ".a", "a b", "a/b", "x" * 64, ".".join(["x" * 63] * 5), "[::1", "ä", "a@b"])
def test_hosts(tmp_path: Path, host: str) -> None:
    expected = f"{host[:40]!r} is no host: it must be a name or an address"
    assert refused(tmp_path, vault(f'{{host: "{host}"}}')) == f"4: vaults.v.config.host: {expected}"
    assert refused(tmp_path, f'server: {{address: "{host}:1"}}').startswith("1: server.address: ")


@pytest.mark.parametrize(
    "host", ["h", "localhost", "a.b.example.", "10.0.0.1", "::1", "fe80::1%eth0", "::ffff:10.0.0.1", "a_b-c"]
)
def test_usable_hosts(tmp_path: Path, host: str) -> None:
    assert load(tmp_path, vault(f'{{host: "{host}"}}')).vaults["v"].enclave.host == host


@pytest.mark.parametrize("port", ["-1", "65536", "100000", "x", "''", "1.0", "\N{FULLWIDTH DIGIT ZERO}", "+1", "0x10"])
def test_ports(tmp_path: Path, port: str) -> None:
    for text, path in (
        (vault(f"{{host: h, port: {port}}}"), "4: vaults.v.config.port"),
        (f'server: {{address: "127.0.0.1:{port.strip(chr(39))}"}}', "1: server.address"),
    ):
        expected = "the port must be a number from 0 to 65535"
        assert refused(tmp_path, text) in (f"{path}: {expected}", f"{path}: must not be empty")


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1", "::1:80", "::1", "[::1]", "6732"])
def test_addresses(tmp_path: Path, address: str) -> None:
    for field in ("address", "utility_address"):
        assert refused(tmp_path, f"server: {{{field}: '{address}'}}") == (
            f"1: server.{field}: must be host:port, or [IPv6]:port, for example 127.0.0.1:6732"
        )


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (":6732", Address("", 6732)),
        ("localhost:0", Address("localhost", 0)),
        ("[::]:65535", Address("::", 65535)),
        ("[::1]:080", Address("::1", 80)),
    ],
)
def test_usable_addresses(tmp_path: Path, address: str, expected: Address) -> None:
    assert load(tmp_path, f"server: {{address: '{address}'}}").address == expected


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
    config = load(tmp_path, "watermark: {config: {table: x}}")
    assert config.warnings == ("watermark.config: the driver file has nothing to configure; this means nothing",)
    assert load(tmp_path, "watermark: {driver: file, config: }").warnings == ()


@pytest.mark.parametrize(
    ("allow", "expected"),
    [
        (
            "{foo: }",
            ".foo: invalid request kind `foo` in `allow` list, known are "
            + ", ".join(("attestation", "attestation_with_dal", "block", "generic", "pack", "preattestation")),
        ),
        ("{generic: [foo]}", ".generic[0]: invalid operation kind `foo` in `allow.generic` list"),
        ("{generic: [reveal, 'ballot:x']}", ".generic[1]: invalid operation kind `ballot:x` in `allow.generic` list"),
        ("{generic: [attestation]}", ".generic[0]: invalid operation kind `attestation` in `allow.generic` list"),
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


def test_merge_keys_are_refused(tmp_path: Path) -> None:
    text = f"tezos:\n  {PKH}: &baker {{allow: {{block: }}}}\n  {OTHER}: {{<<: *baker}}\n"
    assert refused(tmp_path, text) == f"3: tezos.{OTHER}: has a key that is not text"


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
