"""Everything that is wrong, said at once, in the order of the file."""

from pathlib import Path

import pytest

from host_backend.config import Config
from host_backend.errors import ConfigError
from host_backend.problems import MAX_SHOWN, Problems
from tests.doubles.known_keys import FOUR
from tests.unit.test_config import load, refused, vault

PKH, OTHER = FOUR[0].pkh, FOUR[1].pkh

WRONG = f"""
tezos:
  {PKH}:
    allow: {{blok: , generic: [transactoin, reveal, stak]}}
  {OTHER}: {{alow: }}
server: {{address: nowhere}}
vaults:
  a: {{driver: ledger}}
  b: {{driver: confidentialspace, config: {{host: h, prt: 1, wip: x}}}}
watermark: {{driver: foo}}
nonsense: 1
base_dir: ${{
"""


def test_all_errors_of_a_file(tmp_path: Path) -> None:
    lines = refused(tmp_path, WRONG).replace(f"{tmp_path}/s.yaml:", "").splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        ["4", f"tezos.{PKH}.allow.blok"],
        ["4", f"tezos.{PKH}.allow.generic[0]"],
        ["4", f"tezos.{PKH}.allow.generic[2]"],
        ["5", f"tezos.{OTHER}.alow"],
        ["6", "server.address"],
        ["8", "vaults.a.driver"],
        ["9", "vaults.b.config.prt"],
        ["9", "vaults.b.config.wip"],
        ["10", "watermark.driver"],
        ["11", "nonsense"],
        ["12", "base_dir"],
    ]


def test_more_than_a_screen_shows_are_counted(tmp_path: Path) -> None:
    lines = refused(tmp_path, "".join(f"wrong{number}: 1\n" for number in range(MAX_SHOWN + 3))).splitlines()
    assert len(lines) == MAX_SHOWN + 1
    assert lines[-1] == "and 3 more"


def test_one_error_is_itself() -> None:
    with pytest.raises(ConfigError, match=r"^one$"), Problems() as problems:
        assert problems.attempt(lambda: _fail("one"), "default") == "default"


def test_what_ends_the_statement_is_said_too() -> None:
    with pytest.raises(ConfigError, match=r"^one\ntwo$"), Problems() as problems:
        _fail_twice(problems, ConfigError("two"))


def test_other_errors_pass() -> None:
    with pytest.raises(ValueError, match="bug"), Problems() as problems:
        _fail_twice(problems, ValueError("bug"))


def _fail(text: str) -> str:
    raise ConfigError(text)


def _fail_twice(problems: Problems, error: Exception) -> None:
    problems.attempt(lambda: _fail("one"), "")
    raise error


@pytest.mark.parametrize(
    "text",
    [
        "server: {address: , utility_address: , authorized_keys: , jwt: , tls: , trusted_proxies: }",
        "server:",
        "watermark: {driver: , config: }",
        "watermark: {config: {max_level_jump: , allow_memory_file_system: }}",
        "policy_hook: {address: , timeout: }",
        "metrics: {per_key: }",
        "base_dir:",
        "vaults:",
        "tezos:",
    ],
)
def test_null_is_the_default(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, f"{text}\n") == load(tmp_path, "")


def test_null_is_the_default_in_a_vault(tmp_path: Path) -> None:
    fields = (
        "port: , wip_provider_path: , encryption_key_path: , verify_bls: , enclave_uid: , storage: {driver: , config: }"
    )
    assert load(tmp_path, vault(f"{{host: 127.0.0.1, {fields}}}")) == load(tmp_path, vault("{host: 127.0.0.1}"))


def test_a_block_for_anchors(tmp_path: Path) -> None:
    text = f"x-baker: &baker\n  allow: {{block: }}\ntezos:\n  {PKH}: *baker\n"
    config: Config = load(tmp_path, text)
    assert config.policies == load(tmp_path, f"tezos:\n  {PKH}: {{allow: {{block: }}}}\n").policies
