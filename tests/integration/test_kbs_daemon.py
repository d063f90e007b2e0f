"""Daemon and host with a key broker: restarts, a broker that is away, and keys that move to it and on."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest
import trio

from enclave_signer.__main__ import _open_named
from enclave_signer.curves import curve
from enclave_signer.errors import ConfigError
from enclave_signer.image import parse_image
from enclave_signer.protocol.blob import sealed_under
from enclave_signer.sealing.local import KEY_BYTES, LocalSealer
from enclave_signer.tezos import parse_secret_key
from tests.doubles.certificates import Authority
from tests.doubles.google.blobs import read_key_file, write_key_file
from tests.doubles.google.cloud import IMAGE, running_google_cloud
from tests.doubles.google.kms import KEY
from tests.doubles.host_process import (
    BAKER,
    VAULT,
    Outcome,
    key_file,
    refused,
    run_command,
    running_host,
    stored_hashes,
    write_config,
)
from tests.doubles.kbs import KbsDouble, default_policy, server_tls
from tests.doubles.kbs_image import KEK, OLD_KEK, OLD_RESOURCE, RESOURCE, kbs_image, kbs_table, name_of
from tests.doubles.known_keys import FOUR, KnownKey, transaction
from tests.doubles.processes import ROOT, Enclave, running_enclave, running_gcp_enclave
from tests.doubles.wire import WireClient

BOTH = {RESOURCE: KEK, OLD_RESOURCE: OLD_KEK}
HANDSHAKE = ["auth", "attest", "resource"]
OLD, NEW = name_of(OLD_RESOURCE, OLD_KEK), name_of()


class Broker:
    """The double, which may stop and come back, and images that name it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder, "kbs-authority")
        self.double = KbsDouble()
        self.double.resources = dict(BOTH)
        self._tls = server_tls(self.authority)
        self._port = 0

    def serving(self) -> AbstractContextManager[int]:
        return self.double.serving(self._tls, self._port)

    def keep(self, port: int) -> None:
        """Have it come back at the same port."""
        self._port = port

    def enclave(self, keys: Mapping[str, bytes] | None = None, more: str = "") -> AbstractContextManager[Enclave]:
        image = self.folder / "image.toml"
        image.write_text(kbs_image(self.double.url, self.authority.file, keys) + more)
        return running_enclave("--image", str(image), "--retain", "0", module="enclave_signer")

    def config(self, enclave: Enclave, *hashes: str) -> Path:
        return write_config(self.folder, enclave.port, dict.fromkeys(hashes, BAKER))


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    return Broker(tmp_path)


def test_a_key_is_made_opened_after_a_restart_and_signs_without_the_broker(broker: Broker) -> None:
    with ExitStack() as stack:
        with broker.serving() as port:
            broker.keep(port)
            with broker.enclave() as enclave:
                assert run_command("generate", "-c", broker.config(enclave), "-v", VAULT).code == 0
                (pkh,) = stored_hashes(broker.config(enclave))
            assert broker.double.asked == HANDSHAKE
            enclave = stack.enter_context(broker.enclave())
            config = broker.config(enclave, pkh)
            host = stack.enter_context(running_host(config))
            host.wait_for("the link to the enclave is ready")
            assert host.sign(pkh, transaction(1)).status == 200
            assert broker.double.asked == HANDSHAKE * 2
        # The broker is gone: open keys sign, new sessions open keys, and new keys are made.
        assert host.sign(pkh, transaction(2)).status == 200
        assert run_command("generate", "-c", config, "-v", VAULT).code == 0
    with broker.enclave() as enclave, WireClient(enclave.address, initialize=False) as client:
        (error,) = client.call({"Initialize": {}}).values()
        assert isinstance(error, dict)
        assert error["message"].startswith("unavailable: the key broker at https://127.0.0.1:")
        with broker.serving():
            assert client.call({"Initialize": {}}) == {"Ok": None}
        for _, blob in read_key_file(key_file(config)):
            assert [*client.call({"PublicKeyFrom": blob})] == ["Ok"]
    assert f'key fetched from the key broker" key="{NEW}"' in enclave.log
    assert "evidence that anyone can make: not for keys of value" in enclave.log
    assert "HTTP Request" not in enclave.log


def test_what_the_broker_refuses_the_host_is_told(broker: Broker) -> None:
    with broker.serving(), broker.enclave() as enclave:
        broker.double.policy = default_policy
        with WireClient(enclave.address, initialize=False) as client:
            (error,) = client.call({"Initialize": {}}).values()
        assert isinstance(error, dict)
        text = f"the key broker's resource policy keeps {RESOURCE} from this machine: it must allow affirming evidence"
        assert text in error["message"]
        assert "unavailable" not in error["message"]


def test_an_image_whose_keys_anyone_can_get_proves_nothing(broker: Broker, tmp_path: Path) -> None:
    with broker.serving(), broker.enclave() as enclave:
        with WireClient(enclave.address) as client:
            (error,) = client.call({"Attest": {"nonce": bytes(32), "purpose": "report"}}).values()
        assert isinstance(error, dict)
        assert (
            error["message"]
            == "not attested: this enclave is configured without attestation, its image has no [attestation]"
        )
        policy = tmp_path / "policy.yaml"
        policy.write_text(f"audience: a\nimage_digests: ['sha256:{'4b' * 32}']\nprojects: [p]\n")
        outcome = run_command("attest", "-c", broker.config(enclave), "--vault", VAULT, "--policy", policy)
        assert "the evidence was refused" in refused(outcome, 1)


def test_without_its_library_it_says_what_to_install(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    # As an import fails: the library was imported long ago by other tests.
    monkeypatch.setitem(sys.modules, "enclave_signer.sealing.kbs", None)
    image = parse_image(kbs_image("https://kbs.example", broker.authority.file), "image.toml")
    with pytest.raises(ConfigError, match=r"kbs: .*: pip install 'enclave-signer\[enclave-kbs\]'"):
        _open_named("kbs", image)


def test_without_the_sealer_its_library_is_not_imported() -> None:
    code = "import sys, enclave_signer.__main__, enclave_signer.image; assert not {'httpx', 'anyio'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


class TestReseal:
    """From a file to the broker, from one of its keys to another, and on to Cloud KMS: where the image says so."""

    @pytest.fixture
    def local(self, tmp_path: Path) -> LocalSealer:
        key = tmp_path / "sealing.key"
        key.write_bytes(bytes(range(KEY_BYTES)))
        key.chmod(0o600)
        return LocalSealer(bytes(range(KEY_BYTES)))

    @pytest.fixture
    def enclave(self, broker: Broker, local: LocalSealer, tmp_path: Path) -> Iterator[Enclave]:
        blobs = [trio.run(_sealed, local, key) for key in FOUR]
        self.by_file = sealed_under(blobs[0])
        write_key_file(key_file(tmp_path / "x"), list(zip(FOUR, blobs, strict=True)))
        rules = ((self.by_file, NEW), (OLD, NEW), (NEW, KEY))
        image = tmp_path / "image.toml"
        with running_google_cloud(tmp_path) as cloud, broker.serving():
            sealers = f'[local]\nsealing_key = "{tmp_path / "sealing.key"}"\n'
            sealers += IMAGE.partition("\n")[2] + kbs_table(broker.double.url, broker.authority.file, BOTH)
            listed = "".join(f'[[reseal]]\nfrom = "{source}"\nto = "{target}"\n' for source, target in rules)
            image.write_text(f'development = true\nsealers = ["local", "kbs", "gcp_kms"]\n{sealers}{listed}')
            with running_gcp_enclave(image, cloud.environment(), "--retain", "0") as enclave:
                yield enclave

    def keks(self, tmp_path: Path) -> set[str]:
        return {sealed_under(blob) for _, blob in read_key_file(key_file(tmp_path / "x"))}

    def test_it_goes_where_the_image_allows_it(self, broker: Broker, enclave: Enclave, tmp_path: Path) -> None:
        config = broker.config(enclave, *(key.pkh for key in FOUR))

        def reseal(target: str) -> Outcome:
            return run_command("reseal", "-c", config, "--to", target)

        for source, allowed, others in (
            (self.by_file, NEW, (KEY, OLD)),
            (NEW, KEY, (self.by_file, OLD)),
            (KEY, None, (NEW, self.by_file)),
        ):
            assert self.keks(tmp_path) == {source}
            for target in others:
                outcome = reseal(target)
                assert outcome.code == 1
                assert f"does not allow resealing from '{source}' to '{target}'" in outcome.stderr
            if allowed is not None:
                outcome = reseal(allowed)
                assert outcome.code == 0, outcome.stderr
                # Two copies of one second would have the same name.
                (copy,) = key_file(config).parent.glob("*.before-reseal-*")
                copy.unlink()
                assert f"{VAULT}: 4 keys resealed, from {source} to {allowed}" in outcome.stdout
        assert run_command("watermark", "init", "-c", config).code == 0
        with running_host(config) as host:
            host.wait_for("the link to the enclave is ready")
            assert [host.sign(key.pkh, transaction(1)).status for key in FOUR] == [200] * 4
        assert broker.double.asked == ["auth", "attest", "resource", "resource"]

    def test_from_an_old_key_of_the_broker_to_the_new_one(self, broker: Broker, tmp_path: Path) -> None:
        rule = f'[[reseal]]\nfrom = "{OLD}"\nto = "{NEW}"\n'
        with broker.serving():
            with broker.enclave({OLD_RESOURCE: OLD_KEK}) as enclave:
                assert run_command("generate", "-c", broker.config(enclave), "-v", VAULT).code == 0
            with broker.enclave(BOTH, rule) as enclave:
                outcome = run_command("reseal", "-c", broker.config(enclave), "--to", NEW)
                assert f"{VAULT}: 1 key resealed, from {OLD} to {NEW}" in outcome.stdout
            # The operator deletes the old one.
            del broker.double.resources[OLD_RESOURCE]
            with broker.enclave() as enclave:
                listed = run_command("list", "-c", broker.config(enclave), "--json")
        assert '"out_of_service":null' in listed.stdout.replace(" ", "")


async def _sealed(sealer: LocalSealer, key: KnownKey) -> bytes:
    private_key = parse_secret_key(key.secret)
    return await sealer.seal(private_key, curve(private_key.key_type).open(private_key).public_key)
