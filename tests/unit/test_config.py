"""Signatory's configuration grammar as frozen values; everything else is refused by file, line and dotted path."""

from pathlib import Path

import pytest

from enclave_signer.protocol.messages import Credentials, KeyType
from host_backend.addresses import Address, UnixAddress
from host_backend.config import Config, ServerConfig, WatermarkConfig, load_config, watermark
from host_backend.config.channel import AttestationConfig, TlsFiles
from host_backend.config.google_places import FirestorePlace
from host_backend.config.key_storage import KeysApart, KeysInFile, KeysInFirestore
from host_backend.config.mark_storage import MarksInFile, MarksInFirestore, MarksInMemory
from host_backend.config.metrics import MAX_PER_KEY
from host_backend.errors import ConfigError
from host_backend.policy import DEFAULT_POLICY, KeyPolicy
from host_backend.reload_note import NAME as NOTE_NAME
from host_backend.watermark.file.place import LOCK_NAME, STORE_NAME
from host_backend.watermark.firestore.place import BEGUN_NAME
from host_backend.watermark.signatory.layouts import FOLDER, IN_USE_NAME
from tests.doubles.known_keys import KEYS
from tests.doubles.many_keys import many_hashes

PKH = KEYS["tz1alias"].pkh
OTHER = KEYS["tz4alias"].pkh
NO_HOST = "must name the enclave's host, here or in the environment (CONFIDENTIAL_SPACE_HOST)"
DRIVER_NOT_YET = "is one of Signatory's that is not supported yet"
NOT_OURS = (
    f"{DRIVER_NOT_YET}: its keys stay there. Here keys are in an enclave, driver confidentialspace: make new ones, or "
    "`import` those whose secret keys you have"
)


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
        server=ServerConfig(Address("", 6732), Address("", 9583)),
        vaults={},
        watermark=WatermarkConfig(MarksInFile(allow_memory_file_system=False), 5_000_000),
        policies={},
        lists_keys=False,
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
    assert config.server.address == Address("127.0.0.1", 1)
    assert config.server.utility_address == Address("::1", 2)
    assert (str(config.server.address), str(config.server.utility_address)) == ("127.0.0.1:1", "[::1]:2")
    one, two = config.vaults.values()
    assert one.enclave == Address("enclave.example", 3)
    assert one.credentials == Credentials("projects/1/p", "projects/p/k")
    assert one.keys == KeysInFile(Path("/keys/confidential_space_keys.json"))
    assert two.enclave == Address("::1", 2000)
    assert two.credentials == Credentials()
    assert two.keys == KeysInFile(Path("/blobs.json"))
    assert config.policies == {
        PKH: KeyPolicy(frozenset({"block", "generic"}), frozenset({"transaction", "ballot:nay"})),
        OTHER: DEFAULT_POLICY,
    }
    assert config.warnings == ()


def test_base_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTS", "/h")
    monkeypatch.delenv("NOWHERE", raising=False)
    assert load(tmp_path, "base_dir: $HOSTS/a/${HOSTS}").base_dir == Path("/h/a//h")
    assert load(tmp_path, "base_dir: /a", "/b").base_dir == Path("/b")
    assert load(tmp_path, vault("{host: h}"), "/b").vaults["v"].keys == KeysInFile(
        Path("/b/confidential_space_keys.json")
    )
    assert refused(tmp_path, "base_dir: ${NOWHERE}/x") == "1: base_dir: the environment variable NOWHERE is not set"
    assert refused(tmp_path, "base_dir: $NOWHERE/x") == "1: base_dir: the environment variable NOWHERE is not set"
    assert load(tmp_path, "base_dir:").base_dir == Path("/var/lib/signatory")
    for text in ("/a/$/b", "${HOSTS", "${HOSTS:-/b}", "$1", "${}", "a$$", "$HOSTS/$-"):
        assert refused(tmp_path, f"base_dir: '{text}'").startswith(
            "1: base_dir: $ must begin a variable, $NAME or ${NAME}"
        )
    assert refused(tmp_path, "base_dir: ''") == "1: base_dir: must not be empty"
    with pytest.raises(ConfigError, match="--base-dir must not be empty"):
        load(tmp_path, "", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "a: 1",
            "1: a: unknown field, known are base_dir, server, vaults, watermark, tezos, policy_hook, metrics, experimental",
        ),
        ("\nbasedir: /x", "2: basedir: unknown field, did you mean base_dir?"),
        ("server: {adress: ':1'}", "1: server.adress: unknown field, did you mean address?"),
        (
            "server:\n  xyz: {}\n",
            (
                "2: server.xyz: unknown field, known are address, utility_address, authorized_keys, jwt, tls, trusted_proxies, "
                "attestation, octez"
            ),
        ),
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
        ("watermark: {driver: aws}", f"1: watermark.driver: {DRIVER_NOT_YET}"),
        ("watermark: {driver: gcp}", "1: watermark: must name the Google Cloud `project`"),
        ("watermark: {driver: foo}", "1: watermark.driver: unknown value 'foo', known are file, mem, gcp"),
        ("watermark: []", "1: watermark: must be a map"),
        *(
            (
                vault(f"{{host: h, storage: {{driver: {name}}}}}"),
                "4: vaults.v.config.storage: must name the Google Cloud `project`",
            )
            for name in ("gcp", "firestore")
        ),
        (
            vault("{host: h, storage: {driver: x}}"),
            "4: vaults.v.config.storage.driver: unknown value 'x', known are file, gcp, firestore, gcs",
        ),
        (
            "vaults: {v: {driver: nitro}}",
            f"1: vaults.v.driver: {NOT_OURS}",
        ),
        ("vaults: {v: {driver: x}}", "1: vaults.v.driver: unknown value 'x', known are confidentialspace"),
        (
            "vaults:\n  tezos: {tz1: }",
            "2: vaults.tezos: must name a driver; if it is the section `tezos`, move it to the left margin",
        ),
        ("vaults: {v: }", "1: vaults.v: must name a driver"),
        ("vaults: {v: {}}", "1: vaults.v: must name a driver"),
        ("vaults: {v: {config: {host: h}}}", "1: vaults.v: must name a driver"),
        ("vaults: {v: {driver: confidentialspace}}", f"1: vaults.v: {NO_HOST}"),
        (vault(""), f"4: vaults.v.config: {NO_HOST}"),
        (vault("{port: 1}"), f"4: vaults.v.config: {NO_HOST}"),
        ("vaults: [v]", "1: vaults: must be a map"),
    ],
)
def test_drivers_and_vaults(tmp_path: Path, text: str, expected: str) -> None:
    assert refused(tmp_path, text) == expected


@pytest.mark.parametrize(
    "name",
    [
        STORE_NAME,
        LOCK_NAME,
        BEGUN_NAME,
        NOTE_NAME,
        f"{FOLDER}/{IN_USE_NAME}",
        FOLDER,
        "watermark_v1/NetXdQprcVkpaWU.json",
        ".last-reload.json",
        "keys.json.lock",
        "keys.json.replaced",
        f"other/../{NOTE_NAME}",
    ],
)
def test_no_key_file_is_where_the_host_writes_something_else(tmp_path: Path, name: str) -> None:
    text = "base_dir: {0}\nvaults: {{v: {{driver: confidentialspace, config: {{host: h, storage: {{config: {0}/{1}}}}}}}}}\n"
    expected = (
        f"2: vaults.v: the key file {tmp_path}/{name} is a file that the host writes for itself: name another one"
    )
    assert refused(tmp_path, text.format(tmp_path, name)) == expected
    for harmless in (f"elsewhere/{name}.json", "watermarks.json"):
        load(tmp_path, text.format(tmp_path, harmless))


def test_vaults_never_share_a_key_file(tmp_path: Path) -> None:
    shared = "{driver: confidentialspace, config: {host: h}}"
    assert refused(tmp_path, f"base_dir: /b\nvaults:\n  one: {shared}\n  two: {shared}\n") == (
        "4: vaults.two: shares the key file /b/confidential_space_keys.json with vault one: give each its own `storage`"
    )
    (tmp_path / "link").symlink_to(tmp_path)
    storages = [f"{{host: h, storage: {{config: {tmp_path}/{place}k}}}}" for place in ("", "link/")]
    one, two = (f"{{driver: confidentialspace, config: {storage}}}" for storage in storages)
    assert "shares the key file" in refused(tmp_path, f"vaults: {{one: {one}, two: {two}}}")


def test_a_key_file_that_leads_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    text = "cannot be found: {}: correct `storage`, or base_dir"
    circle = text.format("Too many levels of symbolic links")
    for path in (loop, loop / "k.json"):
        assert refused(tmp_path, vault(f"{{host: h, storage: {{config: {path}}}}}")) == (
            f"2: vaults.v: the key file {path} {circle}"
        )
    in_base_dir = loop / "confidential_space_keys.json"
    assert refused(tmp_path, f"base_dir: {loop}\n" + vault("{host: h}")) == (
        f"3: vaults.v: the key file {in_base_dir} {circle}"
    )
    # As the folder that a program runs in may be removed.
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert refused(tmp_path, vault("{host: h, storage: {config: k.json}}")) == (
        f"2: vaults.v: the key file k.json {text.format('No such file or directory')}"
    )


def test_a_key_file_may_be_out_of_reach_for_whoever_looks(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "nowhere" / "k.json", tmp_path / "file" / "k.json"):
        found = load(tmp_path, vault(f"{{host: h, storage: {{config: {path}}}}}"))
        assert found.vaults["v"].keys == KeysInFile(path)


@pytest.mark.parametrize("host", ["a..b", ".a", "a b", "a/b", "x" * 64, ".".join(["x" * 63] * 5), "[::1", "ä", "a@b"])
def test_hosts(tmp_path: Path, host: str) -> None:
    expected = f"{host[:40]!r} is not a host: it must be a name or an address"
    assert refused(tmp_path, vault(f'{{host: "{host}"}}')) == f"4: vaults.v.config.host: {expected}"
    assert refused(tmp_path, f'server: {{address: "{host}:1"}}').startswith("1: server.address: ")


@pytest.mark.parametrize(
    "host", ["h", "localhost", "a.b.example.", "10.0.0.1", "::1", "fe80::1%eth0", "::ffff:10.0.0.1", "a_b-c"]
)
def test_usable_hosts(tmp_path: Path, host: str) -> None:
    assert load(tmp_path, vault(f'{{host: "{host}"}}')).vaults["v"].enclave == Address(host, 2000)


@pytest.mark.parametrize("port", ["-1", "65536", "100000", "x", "1.0", "\N{FULLWIDTH DIGIT ZERO}", "+1", "0x10"])
def test_ports(tmp_path: Path, port: str) -> None:
    expected = "the port must be a number from 0 to 65535"
    assert refused(tmp_path, vault(f"{{host: h, port: {port}}}")) == f"4: vaults.v.config.port: {expected}"
    assert refused(tmp_path, f'server: {{address: "127.0.0.1:{port}"}}') == f"1: server.address: {expected}"


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
    assert load(tmp_path, f"server: {{address: '{address}'}}").server.address == expected


ENVIRONMENT = {
    "CONFIDENTIAL_SPACE_HOST": "enclave.example  and more",
    "CONFIDENTIAL_SPACE_PORT": "2001",
    "GCP_WIP_PROVIDER_PATH": "projects/1/p",
    "GCP_KMS_ENCRYPTION_KEY_PATH": "projects/p/k",
}


def test_the_environment_stands_in_for_what_is_absent_or_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in ENVIRONMENT.items():
        monkeypatch.setenv(name, text)
    for settings in ("", "{}", "{host: '', port: '', wip_provider_path: , encryption_key_path: ''}"):
        found = load(tmp_path, vault(settings)).vaults["v"]
        assert found.enclave == Address("enclave.example", 2001)
        assert found.credentials == Credentials("projects/1/p", "projects/p/k")
    assert load(tmp_path, "vaults: {v: {driver: confidentialspace}}").vaults["v"].enclave == Address(
        "enclave.example", 2001
    )
    file = load(tmp_path, vault("{host: h, port: 1, wip_provider_path: w, encryption_key_path: k}")).vaults["v"]
    assert (file.enclave, file.credentials) == (Address("h", 1), Credentials("w", "k"))


def test_an_environment_that_cannot_be_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text, expected in (
        ("CONFIDENTIAL_SPACE_HOST", "a..b", "'a..b' is not a host: it must be a name or an address"),
        (
            "CONFIDENTIAL_SPACE_HOST",
            "a\x01",
            "the environment variable CONFIDENTIAL_SPACE_HOST must not have control characters",
        ),
        ("CONFIDENTIAL_SPACE_PORT", "x", "the port must be a number from 0 to 65535"),
    ):
        with monkeypatch.context() as environment:
            environment.setenv("CONFIDENTIAL_SPACE_HOST", "h")
            environment.setenv(name, text)
            assert refused(tmp_path, vault("{}")) == f"4: vaults.v.config: {expected}"


def test_verification_of_tz4_signatures(tmp_path: Path) -> None:
    assert load(tmp_path, vault("{host: h}")).vaults["v"].verify_bls == "inline"
    assert load(tmp_path, vault("{host: h, verify_bls: background}")).vaults["v"].verify_bls == "background"
    expected = "4: vaults.v.config.verify_bls: unknown value 'never', known are inline, background"
    assert refused(tmp_path, vault("{host: h, verify_bls: never}")) == expected


def test_watermark_settings(tmp_path: Path) -> None:
    config = load(tmp_path, "watermark: {driver: mem, config: {max_level_jump: 7}}")
    assert config.watermark == WatermarkConfig(MarksInMemory(), 7)
    assert config.warnings == ()
    config = load(tmp_path, "watermark: {config: {table: x}}")
    assert config.watermark == WatermarkConfig()
    assert config.warnings == ("watermark.config.table: belongs to another driver, means nothing",)
    assert load(tmp_path, "watermark: {driver: file, config: }").warnings == ()
    for jump in ("0", "-1", "2147483648", "1.5", "x", "''", "[]"):
        text = refused(tmp_path, f"watermark: {{config: {{max_level_jump: {jump}}}}}")
        assert text.startswith("1: watermark.config.max_level_jump: must "), text
    for value, allowed in (("true", True), ("yes", True), ("false", False)):
        config = load(tmp_path, f"watermark: {{config: {{allow_memory_file_system: {value}}}}}")
        assert config.watermark == WatermarkConfig(MarksInFile(allow_memory_file_system=allowed))
    for value in ("1", "tmpfs", "''", "[]"):
        text = refused(tmp_path, f"watermark: {{config: {{allow_memory_file_system: {value}}}}}")
        assert text.startswith("1: watermark.config.allow_memory_file_system: must "), text
    # Other drivers have secrets here.
    expected = "1: watermark.config.…: unknown field, did you mean max_level_jump?"
    assert refused(tmp_path, "watermark: {config: {max_level_jmp: 5}}") == expected


SECRET = '{"type": "service_account", "private_key": "edsk"}'


@pytest.mark.parametrize("driver", watermark._FIELDS)
def test_marks_are_kept_by_the_driver_that_is_named(tmp_path: Path, driver: str) -> None:
    fields = {"gcp": "project: p"}.get(driver, "max_level_jump: 1")
    config = load(tmp_path, f"watermark: {{driver: {driver}, config: {{{fields}}}}}")
    assert config.watermark.storage.driver == driver


@pytest.mark.parametrize("driver", ["gcp", "firestore"])
def test_keys_in_firestore(tmp_path: Path, driver: str) -> None:
    def storage(fields: str) -> str:
        return vault(f"{{host: h, storage: {{driver: {driver}, config: {{{fields}}}}}}}")

    found = load(tmp_path, storage("project: p-1")).vaults["v"].keys
    assert found == KeysInFirestore(FirestorePlace("p-1", "(default)", "encrypted_keys"))
    found = (
        load(tmp_path, storage("project: p, database: d, collection: c, application_credentials: /f")).vaults["v"].keys
    )
    assert found == KeysInFirestore(FirestorePlace("p", "d", "c", Path("/f")))
    assert found.describe() == "sealed keys in Firestore p/d/c"
    config = load(tmp_path, storage("project: p, table: c"))
    assert config.vaults["v"].keys == KeysInFirestore(FirestorePlace("p", "(default)", "c"))
    assert config.warnings == (
        "vaults.v.config.storage.config.table: Signatory does not read it and uses encrypted_keys: write `collection`",
    )
    for fields, problem in {
        "project: p, table: c, collection: c": "…table: is another word for `collection`, which is there: remove one of them",
        "project: p/q": "…project: must be the id of a project",
        "project: p, database: a/b": "…database: must be the id of a database",
        "project: p, collection: a/b/c": "…collection: must be the name of a collection at the top",
        "project: p, collection: __c__": "…collection: must be the name of a collection at the top",
        "project: p, datbase: d": "…: unknown field, did you mean database?",
    }.items():
        text = refused(tmp_path, storage(fields)).replace("vaults.v.config.storage.config.", "")
        assert text == f"4: {problem.removeprefix('…') if '…:' not in problem else problem}"


def test_marks_in_firestore(tmp_path: Path) -> None:
    config = load(tmp_path, "watermark: {driver: gcp, config: {project: p, max_level_jump: 7, region: x}}")
    assert config.watermark == WatermarkConfig(MarksInFirestore(FirestorePlace("p", "(default)", "watermark")), 7)
    assert config.warnings == ("watermark.config.region: belongs to another driver, means nothing",)


def test_credentials_in_the_configuration_are_never_printed(tmp_path: Path) -> None:
    data = f"{{project: p, application_credentials_data: '{SECRET}', application_credentials: /f}}"
    config = load(
        tmp_path,
        f"watermark: {{driver: gcp, config: {data}}}\n"
        + vault(f"{{host: h, storage: {{driver: gcp, config: {data}}}}}"),
    )
    for storage in (config.watermark.storage, config.vaults["v"].keys):
        assert isinstance(storage, KeysInFirestore | MarksInFirestore)
        assert storage.place.credentials_data == SECRET
    assert "edsk" not in f"{config!r} {config.watermark.storage.describe()} {config.warnings}"
    # A slip of the pen does not print it, either.
    assert "edsk" not in refused(tmp_path, f"watermark: {{driver: gcp, config: {{project: p, '{SECRET}': x}}}}")


def test_two_vaults_do_not_share_a_collection(tmp_path: Path) -> None:
    one = "{driver: confidentialspace, config: {host: h, storage: {driver: gcp, config: {project: p}}}}"
    assert refused(tmp_path, f"vaults:\n  a: {one}\n  b: {one}\n") == (
        "3: vaults.b: shares Firestore p/(default)/encrypted_keys with vault a: give each its own `storage`"
    )


@pytest.mark.parametrize("path", ["signer.sock", "", "/" + "x" * 107])
def test_unix_sockets(tmp_path: Path, path: str) -> None:
    assert load(tmp_path, "server: {address: 'unix:/run/signer.sock'}").server.address == UnixAddress(
        Path("/run/signer.sock")
    )
    assert refused(tmp_path, f"server: {{address: 'unix:{path}'}}") == (
        "1: server.address: must be unix: and an absolute path of at most 107 bytes"
    )


@pytest.mark.parametrize("text", ["watermark:", "watermark: {}", "watermark: {config: {}}"])
def test_a_watermark_that_is_null_is_the_default(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text).watermark == WatermarkConfig()


def test_metrics_for_each_key(tmp_path: Path) -> None:
    assert not load(tmp_path, "").metrics.per_key
    assert not load(tmp_path, "metrics:").metrics.per_key
    assert load(tmp_path, "metrics: {per_key: yes}").metrics.per_key
    assert refused(tmp_path, "metrics: {per_kye: yes}") == "1: metrics.per_kye: unknown field, did you mean per_key?"
    assert refused(tmp_path, "metrics: {per_key: 2}") == "1: metrics.per_key: must be true or false"


@pytest.mark.parametrize("per_key", ["yes", "no"])
def test_metrics_for_each_key_have_a_limit(tmp_path: Path, per_key: str) -> None:
    pkhs = many_hashes(MAX_PER_KEY + 1)

    def text(keys: int) -> str:
        return f"metrics:\n  per_key: {per_key}\ntezos: {{{', '.join(f'{pkh}: ' for pkh in pkhs[:keys])}}}\n"

    assert len(load(tmp_path, text(MAX_PER_KEY)).policies) == 200
    if per_key == "no":
        assert len(load(tmp_path, text(MAX_PER_KEY + 1)).policies) == 201
        return
    assert refused(tmp_path, text(MAX_PER_KEY + 1)) == (
        "2: metrics.per_key: histograms for each key are for at most 200 keys, and 201 are under `tezos`: remove "
        "`per_key`, counters are kept for each key without it"
    )


def test_an_enclave_may_be_on_a_unix_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enclave = UnixAddress(Path("/run/enclave/s"))
    for settings in ("{host: 'unix:/run/enclave/s'}", "{host: unix:/run/enclave/s, port: ''}"):
        assert load(tmp_path, vault(settings)).vaults["v"].enclave == enclave
    assert refused(tmp_path, vault("{host: unix:/run/enclave/s, port: 2000}")) == (
        "4: vaults.v.config.port: is not allowed where `host` is a Unix socket: leave it out"
    )
    for path in ("s", "", "/" + "x" * 107):
        assert refused(tmp_path, vault(f"{{host: 'unix:{path}'}}")) == (
            "4: vaults.v.config.host: must be unix: and an absolute path of at most 107 bytes"
        )
    monkeypatch.setenv("CONFIDENTIAL_SPACE_HOST", "unix:/run/enclave/s")
    # It stands in where a port is missing, and there it is not.
    monkeypatch.setenv("CONFIDENTIAL_SPACE_PORT", "2001")
    assert load(tmp_path, vault("{}")).vaults["v"].enclave == enclave


def test_experimental_keys_have_a_place_of_their_own(tmp_path: Path) -> None:
    on = "experimental: {tz5: true}\n"
    file = KeysInFile(Path("/b/confidential_space_keys.json"))
    found = load(tmp_path, on + vault("{host: h}"), "/b")
    assert found.vaults["v"].keys == KeysApart(file, KeysInFile(Path("/b/confidential_space_keys.tz5.json")))
    assert found.experimental == {KeyType.ML_DSA_44}
    for section in ("", "experimental:\n", "experimental: {}\n", "experimental: {tz5: false}\n"):
        found = load(tmp_path, section + vault("{host: h}"), "/b")
        assert (found.vaults["v"].keys, found.experimental) == (file, frozenset())
    two = "vaults:\n" + "".join(
        f"  {name}: {{driver: confidentialspace, config: {{host: h, storage: {{driver: file, config: {path}}}}}}}\n"
        for name, path in (("a", "/k.json"), ("b", "/k.tz5.json"))
    )
    assert len(load(tmp_path, two).vaults) == 2
    assert refused(tmp_path, two + on).endswith(
        "shares the key file /k.tz5.json with vault a: give each its own `storage`"
    )
    assert refused(tmp_path, "experimental: {tz9: true}").startswith("1: experimental.tz9: unknown field")
    assert refused(tmp_path, "experimental: {tz5: 1}").startswith("1: experimental.tz5: must be")


TLS = "tls: {certificate: /c.pem, key: $KEYS/k.pem}"


def test_an_enclave_is_reached_by_tls_and_asked_for_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYS", "/keys")
    read = load(tmp_path, vault(f"{{host: h, {TLS}, attestation: {{policy: /p.yaml}}}}")).vaults["v"]
    assert read.tls == TlsFiles(Path("/c.pem"), Path("/keys/k.pem"))
    assert read.attestation == AttestationConfig(Path("/p.yaml"), by_root=False, root=None, max_age_s=86400.0)
    more = "attestation: {policy: /p.yaml, token_type: PKI, root: /r.pem, max_age_hours: 0.5}"
    read = load(tmp_path, vault(f"{{host: h, {TLS}, {more}}}")).vaults["v"]
    assert read.attestation == AttestationConfig(Path("/p.yaml"), by_root=True, root=Path("/r.pem"), max_age_s=1800.0)
    read = load(tmp_path, vault("{host: h, tls: , attestation: }")).vaults["v"]
    assert (read.tls, read.attestation) == (None, None)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("tls: {certificate: /c}", "tls: must name the file of the key, in PEM form"),
        ("tls: {key: /c}", "tls: must name the file of the certificate, in PEM form"),
        ("attestation: {policy: /p}", "attestation: needs `tls` beside it"),
        (
            "tls: {certificate: c, key: k}, attestation: {max_age_hours: 1}",
            "attestation: must name the file of the `policy`",
        ),
        ("tls: {certificate: c, key: k}, attestation: {policy: p, root: r}", "attestation.root: is for tokens of"),
        ("tls: {certificate: c, key: k}, attestation: {policy: p, max_age_hours: 169}", "attestation.max_age_hours: "),
        (
            "tls: {certificate: c, key: k}, attestation: {policy: p, token_type: oidc}",
            "attestation.token_type: unknown",
        ),
        ("tls: {certificate: c, key: k}, attestation: {policy: p, verify: false}", "attestation.verify: "),
    ],
)
def test_what_is_wrong_with_the_channel_is_named(tmp_path: Path, more: str, expected: str) -> None:
    assert f"vaults.v.config.{expected}" in refused(tmp_path, vault(f"{{host: h, {more}}}"))


def test_a_unix_socket_knows_no_tls(tmp_path: Path) -> None:
    assert "tls: is not for a Unix socket" in refused(
        tmp_path, vault("{host: 'unix:/run/x/s', tls: {certificate: c, key: k}}")
    )
