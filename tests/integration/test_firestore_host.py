"""`enclave-host` with its keys and marks in Firestore: real processes, the double's socket, commands and `serve`."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.google.clients import signatory_marks
from tests.doubles.google.firestore import running_firestore
from tests.doubles.google.site import IN_FIRESTORE, MODULE, Site
from tests.doubles.host_process import FILE_WATERMARKS, VAULT, Host
from tests.doubles.known_keys import FOUR, attestation, block
from tests.doubles.processes import PATIENCE_S, ROOT, Enclave
from tests.doubles.starting import run

ALICE, BOB, *_ = FOUR


@pytest.fixture
def site(local: Enclave, tmp_path: Path) -> Iterator[Site]:
    with running_firestore() as double:
        site = Site(double, tmp_path, local)
        site.configure()
        yield site


def stop(host: Host) -> None:
    host.stop()
    assert "Traceback" not in host.log


def test_keys_and_marks_outlive_the_host_and_are_shared_with_another(site: Site, tmp_path: Path) -> None:
    site.command("import", "--vault", VAULT, ALICE.secret, BOB.secret)
    assert f"encrypted_keys/{ALICE.pkh}" in site.double.names()
    with site.running() as host:
        first = host.sign(ALICE.pkh, attestation(10)).signature
        assert host.health()[0] == 200
        stop(host)
    other = Site(site.double, tmp_path / "other", site.enclave)
    other.configure()
    other.base.mkdir()
    said = other.command("serve", code=1)
    store_id = said.partition("--accept-store ")[2].partition("`")[0]
    with site.running() as host, other.running("--accept-store", store_id) as second:
        assert second.sign(ALICE.pkh, attestation(10)).signature == first
        assert host.sign(ALICE.pkh, attestation(10, payload=bytes(32))).status == 409
        assert second.sign(ALICE.pkh, attestation(11)).status == 200
        assert host.sign(ALICE.pkh, attestation(11, payload=bytes(32))).status == 409
        site.double.delete("watermark/enclave-host")
        assert [each.sign(ALICE.pkh, block(12)).status for each in (host, second)] == [503, 503]
        for each in (host, second):
            assert "no watermark store in Firestore" in str(each.health()[1])
            stop(each)


def test_a_key_that_another_host_made_is_seen(site: Site) -> None:
    site.command("import", "--vault", VAULT, ALICE.secret)
    with site.running() as host:
        site.command("import", "--vault", VAULT, BOB.secret)
        host.wait_for(f"key ready.*{BOB.pkh}")
        assert host.sign(BOB.pkh, attestation(1)).status == 200


def test_a_document_that_is_no_key_costs_no_other_key_and_is_named(site: Site) -> None:
    site.command("import", "--vault", VAULT, ALICE.secret)
    site.double.write("encrypted_keys/note", text="no key")
    site.double.write(f"encrypted_keys/{BOB.pkh}", pkh=BOB.pkh, value="no bytes")
    listed = site.command("list")
    assert f"Public Key Hash:           {ALICE.pkh}" in listed
    assert f"Out of Service:            {BOB.pkh}" in listed
    assert "document note: pkh must be a text: correct it or delete it" in listed
    with site.running() as host:
        assert host.sign(ALICE.pkh, attestation(50)).status == 200
        refusal = host.sign(BOB.pkh, attestation(50))
        assert (refusal.status, b"value must be bytes" in refusal.body) == (502, True)
        assert "document note: pkh must be a text" in str(host.health()[1])
        stop(host)


@pytest.mark.parametrize("corrupt", [True, False])
def test_an_entry_that_was_mended_is_read_though_there_are_no_more_keys(site: Site, corrupt: bool) -> None:
    """Their number is all that is looked at every few seconds: after a corrupt one, and at SIGHUP, it is everything."""
    site.command("import", "--vault", VAULT, ALICE.secret, BOB.secret)
    paths = [f"encrypted_keys/{key.pkh}" for key in (ALICE, BOB)]
    alices, bobs = (site.double.names()[path].fields["value"].bytes_value for path in paths)
    site.double.write(paths[1], pkh=BOB.pkh, value=bobs[:-1] + b"x" if corrupt else alices)
    with site.running() as host:
        host.wait_for(f"key out of service: .*{BOB.pkh}")
        site.double.write(paths[1], pkh=BOB.pkh, value=bobs)
        if not corrupt:
            host.process.send_signal(signal.SIGHUP)
        host.wait_for(f"key ready.*{BOB.pkh}")
        assert host.sign(ALICE.pkh, attestation(102 - corrupt)).status == 200


def test_marks_move_between_the_drivers_and_back(site: Site) -> None:
    site.configure(FILE_WATERMARKS)
    site.command("import", "--vault", VAULT, ALICE.secret)
    site.command("watermark", "raise", "NetXdQprcVkpaWU", ALICE.pkh, "attestation", "10")

    # To Firestore: nothing starts before, and the file's driver never again.
    site.configure()
    assert "`enclave-host watermark migrate`" in site.command("serve", code=2)
    site.command("watermark", "migrate")
    assert site.marks() == [("attestation", 10)]
    assert {key.right.value: mark.level for key, mark in signatory_marks(site.double).items()} == {"attestation": 10}
    site.command("watermark", "raise", "NetXdQprcVkpaWU", ALICE.pkh, "attestation", "20")
    site.configure(FILE_WATERMARKS)
    assert "kept its marks in Firestore" in site.command("serve", code=2)

    # To another collection: the first one is used by no one any more.
    site.configure("{driver: gcp, config: {project: p, collection: other}}")
    site.command("watermark", "migrate")
    assert site.marks() == [("attestation", 20)]
    site.command("watermark", "raise", "NetXdQprcVkpaWU", ALICE.pkh, "attestation", "30")
    site.configure()
    assert "were moved away" in site.command("serve", code=1)

    # Back to the file.
    site.configure(FILE_WATERMARKS)
    site.command("watermark", "migrate")
    assert site.marks() == [("attestation", 30)]
    with site.running() as host:
        stop(host)
    site.configure("{driver: gcp, config: {project: p, collection: other}}")
    assert "has marks, and watermark.driver is gcp" in site.command("serve", code=2)


def test_a_migration_that_is_killed_is_finished_by_the_next(site: Site) -> None:
    """To Firestore and back, ended after each call of the service in turn."""
    site.configure(FILE_WATERMARKS)
    site.command("import", "--vault", VAULT, ALICE.secret)
    level = 10
    for calls in (2, 7, 12):
        for watermark in (IN_FIRESTORE, FILE_WATERMARKS):
            site.command("watermark", "raise", "NetXdQprcVkpaWU", ALICE.pkh, "attestation", str(level))
            site.configure(watermark)
            site.killed(calls, "watermark", "migrate")
            _migrated(site)
            assert site.marks() == [("attestation", level)]
            level += 1


def _migrated(site: Site) -> None:
    """Migrate once more, if there is something left to do."""
    command = [sys.executable, "-m", MODULE, "watermark", "migrate", "-c", str(site.config)]
    done = run(command, env={**os.environ, "FIRESTORE_DOUBLE": site.double.address}, timeout=PATIENCE_S)
    assert "Traceback" not in done.stderr
    nothing = "there are no marks of another driver here" in done.stderr or "where the marks are" in done.stderr
    assert nothing or done.returncode == 0, done.stderr


def test_the_doctor_looks_into_firestore(site: Site) -> None:
    site.command("import", "--vault", VAULT, ALICE.secret)
    told = site.command("doctor")
    assert "Firestore p/(default)/encrypted_keys: 1 key" in told
    assert "0 marks, all whole" in told
    site.double.delete("watermark/enclave-host")
    (site.base / "watermark.firestore.json").unlink()
    assert "no store in Firestore p/(default)/watermark" in site.command("doctor", code=1)


def test_only_a_store_in_firestore_is_accepted_by_its_id(site: Site) -> None:
    site.configure(FILE_WATERMARKS)
    assert "--accept-store is for watermark.driver gcp" in site.command("serve", "--accept-store", "x", code=2)


def test_without_firestore_nothing_of_google_s_is_imported() -> None:
    program = (
        "import sys, host_backend.stores, host_backend.app, host_backend.cli.marks, host_backend.cli.checks\n"
        "print(sorted(name for name in sys.modules if name.partition('.')[0] in ('google', 'grpc', 'proto')\n"
        "    or name.startswith(('host_backend.google', 'host_backend.keystore.firestore', 'host_backend.watermark.firestore'))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"
