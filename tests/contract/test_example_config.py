"""The example configuration loads as it is, and with every line that it offers as a comment."""

import re
from dataclasses import replace
from pathlib import Path

from enclave_signer.protocol.messages import Credentials
from host_backend.addresses import Address
from host_backend.config import load_config
from host_backend.policy import DEFAULT_POLICY, KeyPolicy

EXAMPLE = Path(__file__).parents[2] / "signatory.example.yaml"
BAKER = "tz4XXtsYav3fZz2FSDa7hcx4F8sh8SaDWNME"
MANAGER = "tz1VSUr8wwNhLAzempoch5d6hLRiTh8Cjcjb"


def test_it_loads_and_warns_of_nothing() -> None:
    config = load_config(EXAMPLE)
    assert config.warnings == ()
    assert config.base_dir == Path("/var/lib/signatory")
    assert (config.server.address, config.server.utility_address) == (
        Address("127.0.0.1", 6732),
        Address("127.0.0.1", 9583),
    )
    (vault,) = config.vaults.values()
    assert (vault.enclave, vault.credentials) == (Address("127.0.0.1", 2000), Credentials())
    assert config.policies == {
        BAKER: replace(DEFAULT_POLICY, chains=frozenset({"NetXdQprcVkpaWU"})),
        MANAGER: KeyPolicy(frozenset({"generic"}), frozenset({"reveal", "transaction", "delegation", "ballot:yay"})),
    }


def test_what_it_offers_as_comments_is_right(tmp_path: Path) -> None:
    offered = re.sub(r"(?m)^( *)# (\w+: \S.*)$", r"\1\2", EXAMPLE.read_text())
    file = tmp_path / "signatory.yaml"
    file.write_text(offered)
    assert len(offered) < len(EXAMPLE.read_text())
    (vault,) = load_config(file).vaults.values()
    assert vault.credentials.wip_provider_path is not None
    assert vault.credentials.encryption_key_path is not None
    assert vault.keys == load_config(EXAMPLE).vaults["enclave"].keys
