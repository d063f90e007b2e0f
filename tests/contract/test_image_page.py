"""The page about the image's configuration says what the daemon reads, and what no one may set beside it."""

import re

import pytest

from enclave_signer.errors import ConfigError
from enclave_signer.image import parse_image
from enclave_signer.protocol.blob import LEGACY
from enclave_signer.sealing import gcp_environment
from tests.contract.markdown import DOCS, blocks, rows

PAGE = DOCS / "image.md"


def test_the_example_is_read() -> None:
    (example,) = blocks(PAGE, "toml")
    image = parse_image(example, "image.toml")
    assert image.reseal[0].source == LEGACY
    assert image.gcp_kms is not None


def test_every_field_has_its_row() -> None:
    named = {name for cells in rows(PAGE) for name in re.findall(r"^`([a-z_.]+)`$", cells[0])}
    assert {"sealers", "listeners", "development", "gcp_kms.seal_keys", "local.sealing_key", "reseal"} <= named
    (example,) = blocks(PAGE, "toml")
    for line in re.findall(r"^(\w+) =", example, re.MULTILINE):
        assert (
            line in {"from", "to"}
            or {line, *(f"{table}.{line}" for table in ("gcp_kms", "tls", "attestation"))} & named
        )


def test_the_example_of_gated_keys_is_read() -> None:
    (example,) = blocks(PAGE, "toml")
    (gated,) = blocks(DOCS / "released-keys.md", "toml")
    (rule,) = parse_image(example.replace("read_legacy = true", "read_legacy = false") + gated, "image.toml").gated
    assert (rule.sealer, rule.fresh_s) == ("gcp_kms", 300)


def test_a_name_that_has_no_row_is_not_read() -> None:
    with pytest.raises(ConfigError, match="is not known here"):
        parse_image(blocks(PAGE, "toml")[0].replace("read_legacy", "legacy"), "image.toml")


def test_variables_that_nobody_may_set_are_listed() -> None:
    text = PAGE.read_text()
    for name in (*gcp_environment._PREFIXES, *gcp_environment._NAMES - {"ALL_PROXY", "HTTP_PROXY", "NO_PROXY"}):
        assert f"`{name}`" in text, name
