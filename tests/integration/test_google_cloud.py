"""The whole way on loopback: launcher, STS, Cloud KMS, the daemon, a host, a signature; and what stops it."""

import base64
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from grpc import StatusCode as Code

from enclave_signer.curves import curve
from enclave_signer.protocol import codec
from enclave_signer.protocol.blob import is_ours
from enclave_signer.protocol.messages import KeyType
from enclave_signer.sealing.gcp_kms import GcpTimes
from enclave_signer.tezos import public_key_hash
from tests.doubles.google.blobs import sealed, write_key_file
from tests.doubles.google.cloud import IMAGE, GoogleCloud, running_google_cloud
from tests.doubles.google.firestore import running_firestore
from tests.doubles.google.http_service import Answered
from tests.doubles.google.kms import ENCRYPT, KEY, Fault, Key
from tests.doubles.google.launcher import OTHER_DIGEST, token
from tests.doubles.google.site import IN_FIRESTORE, Site
from tests.doubles.google.storage import BUCKET, running_storage
from tests.doubles.google.sts import PROVIDER
from tests.doubles.google.tokens import DIGEST
from tests.doubles.host_process import (
    BAKER,
    VAULT,
    Host,
    import_keys,
    key_file,
    refused,
    run_command,
    running_host,
    stored_hashes,
    write_config,
)
from tests.doubles.known_keys import FOUR, attestation, transaction
from tests.doubles.processes import PATIENCE_S, Enclave, running_enclave, running_gcp_enclave
from tests.doubles.secret_search import Secret, search
from tests.doubles.wire import WireClient

TZ1, TZ2, *_ = FOUR
#: What hangs is found out soon; all else has the time that it has in production.
TIMES = GcpTimes(launcher_s=0.5, exchange_s=1.0, refused_s=0.5, call_s=1.5, limit_s=4.0)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[GoogleCloud]:
    with running_google_cloud(tmp_path) as running:
        yield running


class Image:
    """An image's configuration, and daemons that run by it and remember no key."""

    def __init__(self, folder: Path, cloud: GoogleCloud) -> None:
        self.path = folder / "image.toml"
        self.path.write_text(IMAGE)
        self._cloud = cloud

    def running(self, times: GcpTimes = TIMES) -> AbstractContextManager[Enclave]:
        return running_gcp_enclave(self.path, self._cloud.environment(times), "--retain", "0", "--log", "debug")


@pytest.fixture
def image(tmp_path: Path, cloud: GoogleCloud) -> Image:
    return Image(tmp_path, cloud)


def sign(host: Host, pkh: str = TZ1.pkh) -> int:
    return host.sign(pkh, transaction(1)).status


def generate(config: Path) -> None:
    for kind in ("tz1", "tz2", "tz3", "tz4"):
        outcome = run_command("generate", "-c", config, "--vault", VAULT, "--type", kind)
        assert outcome.code == 0, outcome.stderr


def legacy_entry(cloud: GoogleCloud) -> dict[str, str]:
    """Return an entry of the key file as tee-signer and Signatory leave it: the bare ciphertext of a key's CBOR."""
    from google.cloud.kms_v1 import EncryptRequest

    private_key = curve(KeyType.BLS).generate()
    asked = EncryptRequest(name=KEY, plaintext=codec.encode_private_key(private_key))
    ciphertext = cloud.kms._encrypt(asked, cloud.kms.keys[KEY], None).ciphertext
    pkh = public_key_hash(curve(KeyType.BLS).open(private_key).public_key)
    return {"public_key_hash": pkh, "encrypted_private_key": base64.b64encode(ciphertext).decode()}


@pytest.mark.parametrize("legacy", [False, True])
def test_keys_of_every_curve_come_back_after_a_restart(
    tmp_path: Path, cloud: GoogleCloud, image: Image, legacy: bool
) -> None:
    if legacy:
        image.path.write_text(IMAGE + "write_legacy = true\n")
    with image.running() as enclave:
        config = write_config(tmp_path, enclave.port)
        generate(config)
    entries = json.loads(key_file(config).read_text())
    assert all((base64.b64decode(each["encrypted_private_key"])[:4] == b"TKSB") != legacy for each in entries)
    if legacy:
        entries.append(legacy_entry(cloud))
        key_file(config).write_text(json.dumps(entries))
    hashes = stored_hashes(config)
    assert {pkh[:3] for pkh in hashes} == {"tz1", "tz2", "tz3", "tz4"}
    exchanged = cloud.sts.exchanges
    # The launcher has renewed its file since.
    cloud.launcher.write(token())
    with image.running() as enclave:
        config = write_config(tmp_path, enclave.port, dict.fromkeys(hashes, BAKER))
        with running_host(config) as host:
            host.wait_for("the link to the enclave is ready")
            assert [sign(host, pkh) for pkh in hashes] == [200] * len(hashes)
            assert host.health() == (200, {"ready": True})
        assert enclave.stop() == 0
        for secret in (*cloud.sts.issued, cloud.launcher.token_file.read_text()):
            assert secret not in enclave.log
    assert cloud.sts.exchanges == exchanged + 1


def test_blobs_of_tee_signer_that_are_not_read_are_refused_with_the_reason(
    tmp_path: Path, cloud: GoogleCloud, image: Image
) -> None:
    image.path.write_text(IMAGE + "read_legacy = false\n")
    with image.running() as enclave:
        entry = legacy_entry(cloud)
        config = write_config(tmp_path, enclave.port, {entry["public_key_hash"]: BAKER})
        run_command("watermark", "init", "-c", config)
        key_file(config).write_text(json.dumps([entry]))
        with running_host(config) as host:
            host.wait_for("key out of service: the enclave refused: blob without a header, as tee-signer seals")
            assert sign(host, entry["public_key_hash"]) == 502
    assert cloud.kms.calls == []


def test_two_swapped_blobs_are_out_of_service(tmp_path: Path, image: Image) -> None:
    with image.running() as enclave:
        config = write_config(tmp_path, enclave.port, {key.pkh: BAKER for key in (TZ1, TZ2)})
        import_keys(config, TZ1, TZ2)
        entries = json.loads(key_file(config).read_text())
        blobs = [each["encrypted_private_key"] for each in entries]
        for each, blob in zip(entries, reversed(blobs), strict=True):
            each["encrypted_private_key"] = blob
        key_file(config).write_text(json.dumps(entries))
        with running_host(config) as host:
            host.wait_for(f"key out of service.* pkh={TZ2.pkh}")
            assert {sign(host), sign(host, TZ2.pkh)} == {502}


@pytest.mark.parametrize(
    ("credentials", "text"),
    [
        ({"wip_provider_path": PROVIDER, "encryption_key_path": f"{KEY}-2"}, f"does not allow the key '{KEY}-2'"),
        ({"wip_provider_path": f"{PROVIDER}2", "encryption_key_path": KEY}, "does not allow the identity provider"),
    ],
)
def test_a_stranger_does_not_choose_the_key(cloud: GoogleCloud, image: Image, credentials: object, text: str) -> None:
    cloud.kms.keys[f"{KEY}-2"] = Key()
    with image.running() as enclave, WireClient(enclave.address, initialize=False) as client:
        assert text in str(client.call({"Initialize": credentials}))
        assert "uninitialized" in str(client.call({"Generate": "Ed25519"}))
    assert (cloud.sts.exchanges, cloud.kms.calls) == (0, [])


def test_an_image_that_may_not_open_makes_no_key(tmp_path: Path, cloud: GoogleCloud, image: Image) -> None:
    cloud.kms.keys[KEY].grants = {DIGEST: frozenset({ENCRYPT})}
    with image.running() as enclave:
        config = write_config(tmp_path, enclave.port)
        outcome = run_command("generate", "-c", config, "--vault", VAULT)
        text = refused(outcome, 1)
        assert f"signer-pool/attribute.image_digest/{DIGEST} has no permission" in text
        assert "useToDecrypt" in text
        assert stored_hashes(config) == []


def kms(fault: Fault) -> Callable[[GoogleCloud], None]:
    return lambda cloud: cloud.kms.break_with(fault)


def sts(answer: Answered | None) -> Callable[[GoogleCloud], None]:
    return lambda cloud: setattr(cloud.sts, "fault", lambda: answer)


def launcher(text: str | None) -> Callable[[GoogleCloud], None]:
    def change(cloud: GoogleCloud) -> None:
        cloud.launcher.token_file.unlink()
        if text is not None:
            cloud.launcher.write(text)

    return change


def version_off(cloud: GoogleCloud) -> None:
    cloud.kms.keys[KEY].disable(1)


#: A fault, what the host says of it, and the answer to a client. Everything is right again afterwards.
FAULTS = {
    "kms hangs": (kms(Fault(delay_s=3600)), "unavailable: Cloud KMS gave no answer in time", 503),
    "kms unavailable": (kms(Fault(Code.UNAVAILABLE)), "unavailable: Cloud KMS gave no answer", 503),
    "kms quota": (kms(Fault(Code.RESOURCE_EXHAUSTED)), "unavailable: Cloud KMS: the project's quota", 503),
    "kms checksum": (
        kms(Fault(spoil=lambda answer: setattr(answer, "plaintext_crc32c", 1))),
        "unavailable: Cloud KMS: the answer was damaged",
        503,
    ),
    "kms version": (version_off, "the enclave refused: Cloud KMS cannot use", 502),
    "kms permission": (kms(Fault(Code.PERMISSION_DENIED)), "the enclave refused: principalSet://", 502),
    "sts refuses": (launcher(token(debug=True)), "Google's STS refuses: the attribute condition", 503),
    "sts 429": (sts(Answered(429)), "unavailable: Google's STS answered with HTTP status 429", 503),
    "sts 503": (sts(Answered(503)), "unavailable: Google's STS answered with HTTP status 503", 503),
    "sts garbage": (sts(Answered(200, b"garbage")), "unavailable: Google's STS answered with HTTP status 200", 503),
    "sts hangs": (sts(None), "unavailable: Google's STS: no answer within 1 s", 503),
    "token missing": (launcher(None), "unavailable: the launcher's token file", 503),
    "token empty": (launcher(""), "unavailable: the launcher's token file", 503),
    "token expired": (launcher(token(life_s=-600)), "unavailable: the launcher's token has expired", 503),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_has_its_answer_and_no_key_is_lost(
    tmp_path: Path, cloud: GoogleCloud, image: Image, fault: str
) -> None:
    befall, text, status = FAULTS[fault]
    with image.running() as enclave:
        config = write_config(tmp_path, enclave.port, {TZ1.pkh: BAKER})
        import_keys(config, TZ1)
    befall(cloud)
    began = time.monotonic()
    with image.running() as enclave:
        config = write_config(tmp_path, enclave.port, {TZ1.pkh: BAKER})
        with running_host(config) as host:
            host.wait_for(text)
            print(f"\n{fault}: told after {time.monotonic() - began:.1f} s, two programs started")
            assert sign(host) == status
            cloud.kms.break_with(None)
            cloud.kms.keys[KEY].enable(1)
            cloud.sts.fault = None
            cloud.launcher.write(token())
            # At once for who has mended it; an unavailable service is tried again by itself.
            host.process.send_signal(1)
            while sign(host) != 200:
                host.wait_for("link to the enclave is ready|key opens again")
            assert sign(host) == 200


def test_a_loaded_key_signs_on_whatever_befalls_the_cloud(tmp_path: Path, cloud: GoogleCloud, image: Image) -> None:
    with image.running() as enclave:
        config = write_config(tmp_path, enclave.port, {TZ1.pkh: BAKER})
        import_keys(config, TZ1)
        with running_host(config) as host:
            host.wait_for("the link to the enclave is ready")
            assert sign(host) == 200

            def p99_ms() -> float:
                times = []
                for _ in range(300):
                    began = time.perf_counter()
                    assert sign(host) == 200
                    times.append(time.perf_counter() - began)
                return sorted(times)[-4] * 1e3

            before = p99_ms()
            cloud.kms.break_with(Fault(delay_s=3600))
            cloud.sts.fault = lambda: None
            with WireClient(enclave.address) as other:
                other.send({"Generate": "Ed25519"})
                during = p99_ms()
                assert "unavailable: Cloud KMS gave no answer in time" in str(other.receive())
            print(f"\np99 of a signature: {before:.1f} ms before, {during:.1f} ms while Cloud KMS hangs")


def test_a_key_of_kms_that_hangs_holds_up_no_other(tmp_path: Path, cloud: GoogleCloud, image: Image) -> None:
    """Its blob comes first, and answers come in order; without an end to the hanging no attempt would ever be long enough."""
    old, over = f"{KEY}-old", threading.Event()
    cloud.kms.keys[old] = Key()
    image.path.write_text(IMAGE + f'open_keys = ["{old}"]\n')

    def hang(_: object) -> None:
        over.wait(4 * PATIENCE_S)

    cloud.kms.break_with(Fault(spoil=hang, key=old))
    try:
        with image.running(GcpTimes(call_s=3600, limit_s=3600)) as enclave:
            config = write_config(tmp_path, enclave.port, {TZ1.pkh: BAKER, TZ2.pkh: BAKER})
            blobs = [(TZ1, sealed(cloud.kms, TZ1, old)), (TZ2, sealed(cloud.kms, TZ2, KEY))]
            write_key_file(key_file(config), blobs)
            run_command("watermark", "init", "-c", config)
            with running_host(config) as host:
                host.wait_for("the link to the enclave is degraded")
                assert (sign(host, TZ2.pkh), sign(host)) == (200, 503)
                assert f"{TZ1.pkh}: no answer in time for keys sealed under {old}" in str(host.health())
                over.set()
                host.wait_for("key opens again")
                while sign(host) != 200:
                    host.wait_for("key opens again")
    finally:
        over.set()


def test_nothing_secret_is_logged(tmp_path: Path, cloud: GoogleCloud, image: Image) -> None:
    secrets = [Secret(key.name, key.secret_bytes, (key.secret,)) for key in FOUR]
    said = ""
    for fault in (None, Fault(Code.INVALID_ARGUMENT), Fault(Code.PERMISSION_DENIED), Fault(Code.UNAUTHENTICATED)):
        with image.running() as enclave:
            config = write_config(tmp_path, enclave.port, {key.pkh: BAKER for key in FOUR})
            if fault is None:
                import_keys(config, *FOUR)
            cloud.kms.break_with(fault)
            with running_host(config) as host:
                host.wait_for("the link to the enclave is (ready|degraded)")
                sign(host)
            enclave.stop()
            said += enclave.log + host.log
    assert "has no permission" in said
    assert search({"the logs": said.encode()}, secrets) == []
    assert [text for text in (*cloud.sts.issued, cloud.launcher.token_file.read_text()) if text in said] == []


def test_a_stop_does_not_wait_for_the_cloud(cloud: GoogleCloud, image: Image) -> None:
    with image.running(GcpTimes()) as enclave, WireClient(enclave.address) as client:
        cloud.kms.break_with(Fault(delay_s=3600))
        client.send({"Generate": "Ed25519"})
        cloud.kms.asked.wait(PATIENCE_S)
        assert enclave.stop() == 0


@pytest.mark.parametrize("count", [100])
def test_many_keys_overlap(cloud: GoogleCloud, image: Image, count: int) -> None:
    with image.running() as enclave, WireClient(enclave.address) as client:
        for _ in range(count):
            client.send({"Generate": "Ed25519"})
        replies = [client.receive()["Ok"] for _ in range(count)]
    blobs = [reply["encrypted_private_key"] for reply in replies]  # type: ignore[index]
    exchanged = cloud.sts.exchanges
    cloud.sts.delay_s = 2
    cloud.kms.break_with(Fault(delay_s=0.05))
    with image.running(GcpTimes()) as enclave, WireClient(enclave.address, initialize=False) as client:
        began = time.monotonic()
        assert client.call({"Initialize": {}}) == {"Ok": None}
        exchange_s = time.monotonic() - began
        for blob in blobs:
            client.send({"Import": blob})
        assert [client.receive()["Ok"]["handle"] for _ in blobs] == [*range(count)]  # type: ignore[index]
        print(
            f"\n{count} keys at 50 ms a call: {time.monotonic() - began - exchange_s:.2f} s, exchange {exchange_s:.2f} s"
        )
    assert cloud.sts.exchanges == exchanged + 1


class TestStart:
    """What the daemon says before it listens."""

    def start(self, folder: Path, text: str, more: dict[str, str], *flags: str) -> str:
        """Return what it says in its last line; it must not start."""
        path = folder / "image.toml"
        path.write_text(text)
        clean = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        command = [sys.executable, "-m", "enclave_signer", "--image", str(path), *flags]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, env=clean | more)
        assert ended.returncode == 2, ended.stderr
        assert "Traceback" not in ended.stderr
        return ended.stderr.splitlines()[-1]

    @pytest.mark.parametrize(
        "name", ["GOOGLE_SDK_PYTHON_LOGGING_SCOPE", "https_proxy", "GRPC_TRACE", "SSL_CERT_FILE", "SSLKEYLOGFILE"]
    )
    def test_a_variable_that_nobody_may_set(self, tmp_path: Path, name: str) -> None:
        last = self.start(tmp_path, IMAGE, {name: "x"}, "--listen", "127.0.0.1:0")
        assert last.startswith(f"enclave-signer: {name} is set: ")

    def test_a_field_that_is_wrong(self, tmp_path: Path) -> None:
        last = self.start(tmp_path, IMAGE.replace(KEY, "seal"), {})
        assert "image.toml: gcp_kms.seal_keys: 'seal' must have the form projects/" in last


def test_an_image_for_development_may_seal_by_a_file(tmp_path: Path) -> None:
    image, key = tmp_path / "image.toml", tmp_path / "sealing.key"
    image.write_text(
        f'development = true\nsealers = ["local"]\n[local]\nsealing_key = "{key}"\nmake_sealing_key = true\n'
    )
    with (
        running_enclave("--image", str(image), module="enclave_signer") as enclave,
        WireClient(enclave.address) as client,
    ):
        assert "Ok" in client.call({"Generate": "Ed25519"})
        assert "this image is for development: not for keys of value" in enclave.log
    assert key.stat().st_size == 32


def imported(arguments: str) -> set[str]:
    """Return which libraries a new process has after it opened the sealers of a configuration."""
    code = (
        "import os, sys\nfrom enclave_signer.__main__ import open_providers\n"
        "from enclave_signer.config import parse_config\nimport enclave_signer.session\n"
        f"open_providers(parse_config({arguments}, {{}}))\n"
        "print(*{name.partition('.')[0] for name in sys.modules})\n"
    )
    clean = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean)
    return set(ended.stdout.split())


def test_googles_libraries_are_loaded_only_when_they_are_configured(tmp_path: Path) -> None:
    libraries = {"google", "grpc", "requests", "h11", "asyncio"}
    assert not imported(f"['--sealing-key', {str(tmp_path / 'key')!r}, '--make-sealing-key']") & libraries
    (tmp_path / "image.toml").write_text(IMAGE)
    assert {"google", "grpc"} <= imported(f"['--image', {str(tmp_path / 'image.toml')!r}]")


def test_another_image_is_told_what_to_grant(tmp_path: Path, cloud: GoogleCloud, image: Image) -> None:
    cloud.launcher.write(token(digest=OTHER_DIGEST))
    with image.running() as enclave:
        config = write_config(tmp_path, enclave.port)
        text = refused(run_command("generate", "-c", config, "--vault", VAULT), 1)
        assert f"attribute.image_digest/{OTHER_DIGEST} has no permission" in text
    assert cloud.kms.calls == ["Encrypt"]


def test_the_suites_of_ports_run_at_an_address(cloud: GoogleCloud) -> None:
    command = [sys.executable, "-m", "tests.conformance.at_google"]
    others = ("CLOUD_KMS_", "FIRESTORE_", "STORAGE_", "PYTEST_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    without = subprocess.run(command, capture_output=True, text=True, check=False, env=clean)
    assert without.returncode == 1
    assert without.stdout.startswith("not run: sealers at Cloud KMS, as CLOUD_KMS_KEY or ")
    cloud.sts.issued["given"] = DIGEST
    given = {"CLOUD_KMS_KEY": KEY, "CLOUD_KMS_ACCESS_TOKEN": "given", "CLOUD_KMS_ADDRESS": cloud.kms_address}
    part = subprocess.run(command, capture_output=True, text=True, check=False, env=clean | given)
    assert part.returncode == 1
    assert "not run: keys and marks in Firestore" in part.stdout
    cloud.kms.calls.clear()
    with running_firestore() as firestore, running_storage() as storage:
        given |= {"FIRESTORE_PROJECT": "p", "FIRESTORE_ADDRESS": firestore.address}
        given |= {"STORAGE_BUCKET": BUCKET, "STORAGE_ADDRESS": storage.address}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean | given)
    assert done.returncode == 0, done.stdout
    assert firestore.calls["Commit"] > 100
    assert storage.calls["write"] > 60
    assert cloud.kms.calls.count("Encrypt") == 8


@pytest.mark.parametrize("way", ["ours", "tee-signer's", "slow"])
def test_the_whole_way_with_keys_and_marks_in_firestore(
    tmp_path: Path, cloud: GoogleCloud, image: Image, way: str
) -> None:
    """Launcher, STS, Cloud KMS, four keys, Firestore; both programs restarted; the keys are back, and what they have signed."""
    if way == "tee-signer's":
        image.path.write_text(IMAGE + "write_legacy = true\n")
    if way == "slow":
        cloud.sts.delay_s = 2
        cloud.kms.break_with(Fault(delay_s=0.05))
    with running_firestore() as double:

        def configured(enclave: Enclave, *pkhs: str) -> Site:
            site = Site(double, tmp_path / "site", enclave)
            site.configure(IN_FIRESTORE, *pkhs)
            return site

        with image.running(GcpTimes()) as enclave:
            site = configured(enclave, TZ1.pkh)
            for kind in ("tz1", "tz2", "tz3", "tz4"):
                site.command("generate", "--vault", VAULT, "--type", kind)
            listed = json.loads(site.command("list", "--json"))
            pkhs = [key["public_key_hash"] for key in listed["keys"]]
            assert {pkh[:3] for pkh in pkhs} == {"tz1", "tz2", "tz3", "tz4"}
            blobs = [double.names()[f"encrypted_keys/{pkh}"].fields["value"].bytes_value for pkh in pkhs]
            assert all(is_ours(blob) != (way == "tee-signer's") for blob in blobs)
            site = configured(enclave, *pkhs)
            with site.running() as host:
                host.wait_for("the link to the enclave is ready")
                assert [host.sign(pkh, attestation(7)).status for pkh in pkhs] == [200] * 4
                host.process.kill()
        with image.running(GcpTimes()) as enclave, configured(enclave, *pkhs).running() as host:
            host.wait_for("the link to the enclave is ready")
            for pkh in pkhs:
                assert host.sign(pkh, attestation(7)).status == 200
                assert host.sign(pkh, attestation(7, payload=b"\xbb" * 32)).status == 409
                assert host.sign(pkh, attestation(8)).status == 200
