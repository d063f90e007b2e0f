"""The page about Google Cloud: its configurations are read, its commands name what they name, its texts are ours."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from enclave_signer.errors import SealingRefused, SealingUnavailable
from enclave_signer.http_request import HttpAnswer
from enclave_signer.image import parse_image
from enclave_signer.protocol.blob import LEGACY
from enclave_signer.protocol.messages import Credentials
from enclave_signer.sealing import gcp_answers, gcp_names, gcp_sts
from enclave_signer.sealing.gcp_config import GcpKmsConfig
from enclave_signer.sealing.gcp_kms import LEGACY_NOT_READ
from enclave_signer.sealing.gcp_launcher import Launcher
from host_backend.addresses import Address
from host_backend.config import Config, load_config
from host_backend.config.review import review
from tests.contract.markdown import DOCS, blocks, rows

PAGE = DOCS / "google-cloud.md"
#: What the shell is given by Google in the page.
NUMBER = "691249393555"
DIGEST = "sha256:" + "4b" * 32


def image() -> GcpKmsConfig:
    text = blocks(PAGE, "toml")[0]
    parsed = parse_image(text, "image.toml")
    assert parsed.gcp_kms is not None
    return parsed.gcp_kms


def commands() -> Iterator[list[str]]:
    """Yield the words of each command for Google, with what the page's variables stand for."""
    variables = {"KEYS_NUMBER": NUMBER, "DIGEST": DIGEST}
    for words in split("".join(blocks(PAGE, "bash"))):
        if words[0] == "gcloud":
            yield [expanded(word, variables) for word in words]
        elif assigned := re.fullmatch(r"([A-Z_]+)=(?!\$\()(.+)", words[0]):
            variables[assigned[1]] = expanded(assigned[2], variables)


def split(text: str) -> Iterator[list[str]]:
    """Yield commands; one goes on after a backslash, and within quotes."""
    begun = ""
    for line in text.replace("\\\n", " ").splitlines():
        begun += line + "\n"
        try:
            words = shlex.split(begun, comments=True)
        except ValueError:
            continue
        begun = ""
        if words:
            yield words


def expanded(word: str, variables: dict[str, str]) -> str:
    return re.sub(r"\$([A-Z_]+)", lambda found: variables[found[1]], word)


def option(words: list[str], name: str) -> str:
    (value,) = (word.partition("=")[2] for word in words if word.startswith(f"--{name}="))
    return value


def command(*begin: str) -> list[str]:
    (found,) = (words for words in commands() if words[1 : 1 + len(begin)] == list(begin))
    return found


def configuration(folder: Path, number: int) -> Config:
    file = folder / "signatory.yaml"
    file.write_text(blocks(PAGE, "yaml")[number])
    return load_config(file)


def test_every_variable_is_set_before_it_is_used() -> None:
    known: set[str] = set()
    for line in "".join(blocks(PAGE, "bash")).splitlines():
        assert line.startswith("#") or set(re.findall(r"\$([A-Z_]+)", line)) <= known, line
        known.update(re.findall(r"^([A-Z_]+)=", line))


def test_commands_make_what_the_image_names() -> None:
    key = command("kms", "keys", "create")
    project, location, ring = (option(key, name) for name in ("project", "location", "keyring"))
    assert image().allow_list.seal_keys == (
        f"projects/{project}/locations/{location}/keyRings/{ring}/cryptoKeys/{key[4]}",
    )
    provider = command("iam", "workload-identity-pools", "providers", "create-oidc")
    pool = command("iam", "workload-identity-pools", "create")[4]
    assert option(provider, "workload-identity-pool") == pool
    assert image().allow_list.identity_providers == (
        f"projects/{NUMBER}/locations/global/workloadIdentityPools/{pool}/providers/{provider[5]}",
    )


def test_the_grant_is_to_whom_a_refusal_names() -> None:
    grant = command("kms", "keys", "add-iam-policy-binding")
    (provider,) = image().allow_list.identity_providers
    assert option(grant, "member") == gcp_names.principal(provider, DIGEST)
    assert option(grant, "role") in str(gcp_answers._MEANINGS["PERMISSION_DENIED"])
    key = command("kms", "keys", "create")
    assert [option(grant, name) for name in ("project", "location", "keyring")] == [
        option(key, name) for name in ("project", "location", "keyring")
    ]
    mapping = option(command("iam", "workload-identity-pools", "providers", "create-oidc"), "attribute-mapping")
    assert ",attribute.image_digest=" in mapping


def test_the_condition_is_of_the_account_and_project_that_the_machine_has() -> None:
    machine = command("compute", "instances", "create", "enclave")
    provider = command("iam", "workload-identity-pools", "providers", "create-oidc")
    condition = option(provider, "attribute-condition")
    assert f"'{option(machine, 'service-account')}' in assertion.google_service_accounts" in condition
    assert f"assertion.submods.gce.project_id == '{option(machine, 'project')}'" in condition
    assert f"@{DIGEST}~" in option(machine, "metadata")


def test_the_host_finds_the_enclave_and_asks_for_what_the_image_allows(tmp_path: Path) -> None:
    config = configuration(tmp_path, 0)
    (vault,) = config.vaults.values()
    machine = command("compute", "instances", "create", "enclave")
    rule = command("compute", "firewall-rules", "create", "enclave-from-host")
    assert vault.enclave == Address(option(machine, "private-network-ip"), 2000)
    assert ":2000" in blocks(PAGE, "toml")[0]
    assert option(rule, "allow") == "tcp:2000"
    assert option(rule, "target-service-accounts") == option(machine, "service-account")
    allowed = image().allow_list
    assert vault.credentials == Credentials(
        wip_provider_path=allowed.identity_providers[0], encryption_key_path=allowed.seal_keys[0]
    )
    found = review(config)
    assert (config.warnings, found.ignored) == ((), ())
    assert not found.dangers


def test_old_keys_and_new_ones_have_a_vault_each(tmp_path: Path) -> None:
    old, new = configuration(tmp_path, 1).vaults.values()
    (seal_key,) = image().allow_list.seal_keys
    assert old.credentials.encryption_key_path is not None
    text = blocks(PAGE, "toml")[0] + f'open_keys = ["{old.credentials.encryption_key_path}"]\n'
    both = parse_image(text, "image.toml").gcp_kms
    assert both is not None
    assert both.read_legacy
    assert both.allow_list.identity_provider(old.credentials.wip_provider_path)
    assert both.allow_list.key(old.credentials.encryption_key_path)
    assert both.allow_list.key(new.credentials.encryption_key_path) == seal_key
    both.allow_list.check_sealing(seal_key)
    with pytest.raises(SealingRefused, match="does not allow the key for sealing"):
        both.allow_list.check_sealing(old.credentials.encryption_key_path)


def test_blobs_of_tee_signer_may_be_sealed_under_the_new_key(tmp_path: Path) -> None:
    old, new = configuration(tmp_path, 1).vaults.values()
    smallest, resealing = blocks(PAGE, "toml")
    (rule,) = parse_image(smallest + resealing, "image.toml").reseal
    assert rule.allows(LEGACY, str(new.credentials.encryption_key_path))
    said = [words for words in split("".join(blocks(PAGE, "bash"))) if "reseal" in words]
    assert [words[words.index("--vault") + 1] for words in said] == [old.name] * 2
    assert f"SEAL={rule.target}\n" in "".join(blocks(PAGE, "bash"))


def texts() -> Iterator[str]:
    """Yield the texts when Google, the launcher or the image refuses."""
    for method in gcp_answers.Method:
        for status in (*gcp_answers._MEANINGS, "INVALID_ARGUMENT"):
            yield str(gcp_answers.failure(gcp_answers.Call(method, "KEY", "PRINCIPAL"), status, ""))
    for code in gcp_sts._ADVICE:
        with pytest.raises(SealingRefused) as refused:
            gcp_sts.read_answer(HttpAnswer(400, {}, json.dumps({"error": code}).encode()), "PROVIDER", DIGEST)
        yield str(refused.value)
    with pytest.raises(SealingRefused) as refused:
        image().allow_list.check_opening("KEY")
    yield str(refused.value)
    yield LEGACY_NOT_READ
    with pytest.raises(SealingUnavailable) as missing:
        Launcher(Path("absent"), Path("absent"), None, 1.0)._kept()
    yield str(missing.value)


def test_texts_of_refusals_are_those_of_the_code() -> None:
    said = list(texts())
    named = [cells[0].strip("`") for cells in rows(PAGE) if "…" in cells[0]]
    assert len(named) == 11
    for text in named:
        pattern = ".*".join(map(re.escape, text.split("…")))
        assert any(re.search(pattern, each) for each in said), text
