"""Policies change while the host runs, at SIGHUP: all of them, or none."""

import os
import re
import signal
from functools import partial
from pathlib import Path

from tests.doubles.host_process import BAKER, Host, import_keys, run_command, running_host, write_config
from tests.doubles.known_keys import FOUR, attestation, transaction
from tests.doubles.many_keys import many_hashes
from tests.doubles.processes import running_local_enclave

TZ1, TZ2, *_ = FOUR
VAULTS = "vaults: {v: {driver: confidentialspace, config: {host: h}}}"
ONLY_CONSENSUS = "{allow: {attestation: }}"


def hang_up(host: Host, expected: str) -> None:
    host.process.send_signal(signal.SIGHUP)
    host.wait_for(expected)


def test_policies_change_while_the_host_runs(tmp_path: Path) -> None:
    with running_local_enclave(tmp_path / "sealing.key") as enclave:
        config = write_config(tmp_path, enclave.port, {TZ1.pkh: BAKER})
        import_keys(config, TZ1, TZ2)
        with running_host(config) as host:
            assert host.sign(TZ1.pkh, transaction(1)).status == 200
            assert host.sign(TZ2.pkh, attestation(1)).status == 403

            write_config(tmp_path, enclave.port, {TZ1.pkh: ONLY_CONSENSUS, TZ2.pkh: ONLY_CONSENSUS})
            hang_up(host, "policies reloaded")
            assert host.sign(TZ1.pkh, transaction(2)).status == 403
            assert host.sign(TZ2.pkh, attestation(1)).status == 200
            assert f'msg="key listed" now="signs attestation" pkh={TZ2.pkh}' in host.log
            assert f'msg="policy changed" now="signs attestation" pkh={TZ1.pkh} was="signs attestation, ' in host.log

            write_config(tmp_path, enclave.port, {TZ1.pkh: BAKER, TZ2.pkh: "{allow: {nonsense: }}"})
            hang_up(host, "the configuration was not reloaded, the old policies stay: ")
            assert f"tezos.{TZ2.pkh}.allow.nonsense: invalid request kind" in host.log
            assert host.sign(TZ1.pkh, transaction(3)).status == 403
            assert host.sign(TZ2.pkh, attestation(2)).status == 200

            loop = tmp_path / "loop"
            loop.symlink_to(loop)
            for more, expected in (
                ([f"  {TZ1.pkh}: &a", "    <<: *a"], "3: .*an alias stands inside what it repeats"),
                (["server: {authorized_keys: &a [*a]}"], "2: .*an alias stands inside what it repeats"),
                (
                    [*(f"  {pkh}:" for pkh in many_hashes(201)), "metrics: {per_key: yes}"],
                    "203: metrics.per_key: histograms for each key are for at most 200 keys, and 201 are under `tezos`",
                ),
                (
                    [f"base_dir: {loop}", VAULTS],
                    "3: vaults.v: the key file .* cannot be found: Too many levels of symbolic links",
                ),
            ):
                config.write_text("\n".join(["tezos:", *more]))
                hang_up(host, f"not reloaded, the old policies stay: {re.escape(str(config))}:{expected}")
            assert host.sign(TZ1.pkh, transaction(3)).status == 403
            assert host.sign(TZ2.pkh, attestation(2)).status == 200

            write_config(tmp_path, enclave.port + 1, {TZ1.pkh: BAKER})
            hang_up(host, "key not listed any more")
            host.wait_for("changes outside `tezos` need a restart. section=vaults")
            assert host.sign(TZ1.pkh, transaction(3)).status == 200
            assert host.sign(TZ2.pkh, attestation(3)).status == 403
            assert host.stop() == 0
            assert "Traceback" not in host.log


def test_config_check_explains_a_file(tmp_path: Path) -> None:
    on_disk = partial(write_config, tmp_path, 2000, watermark="{driver: file}")
    config = on_disk({TZ1.pkh: BAKER})
    checked = run_command("config", "check", "-c", config)
    assert checked.code == 0
    assert (
        f"key {TZ1.pkh}: signs attestation, attestation_with_dal, block, preattestation, operations (transaction)\n"
        in (checked.stdout)
    )
    assert f"dangerous      1\n  - tezos.{TZ1.pkh}: bakes, and may transaction" in checked.stdout
    assert checked.stdout.count("ignored        nothing\n") == 1
    assert run_command("config", "check", "-c", config, "--strict").code == 1
    as_json = run_command("config", "check", "-c", config, "--json")
    assert '"settings": {"base_dir": ' in as_json.stdout
    on_disk({TZ1.pkh: ONLY_CONSENSUS})
    assert run_command("config", "check", "-c", config, "--strict").code == 0
    on_disk({TZ1.pkh: "{allow: {generic: [update_consensus_key]}}"})
    noted = run_command("config", "check", "-c", config, "--strict")
    assert noted.code == 0
    assert f"noted          1\n  - tezos.{TZ1.pkh}: may update_consensus_key: " in noted.stdout
    # As those of tests are.
    write_config(tmp_path, 2000, {TZ1.pkh: ONLY_CONSENSUS})
    temporary = run_command("config", "check", "-c", config, "--strict")
    assert temporary.code == 1
    assert "dangerous      1\n  - watermark.config.allow_memory_file_system: marks " in temporary.stdout
    on_disk({TZ1.pkh: "{alow: }"})
    wrong = run_command("config", "check", "-c", config)
    assert (wrong.code, wrong.stdout) == (2, "")
    assert wrong.error == f"{config}:6: tezos.{TZ1.pkh}.alow: unknown field, did you mean allow?"
    assert not (tmp_path / "host").exists()


def test_a_hangup_while_the_host_starts_does_not_end_it(tmp_path: Path) -> None:
    with running_local_enclave(tmp_path / "sealing.key") as enclave:
        config = write_config(tmp_path, enclave.port, {TZ1.pkh: BAKER})
        import_keys(config, TZ1)
        text = config.read_text()
        config.unlink()
        os.mkfifo(config)
        host = Host(config)
        try:
            # Opened as soon as the host reads its configuration.
            with config.open("w") as stream:
                host.process.send_signal(signal.SIGHUP)
                stream.write(text)
            host.ready()
            assert host.sign(TZ1.pkh, transaction(1)).status == 200
            assert host.stop() == 0
        finally:
            host.discard()
