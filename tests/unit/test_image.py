"""The image's own configuration: read strictly, and overridden by nothing."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from enclave_signer.__main__ import _open_named
from enclave_signer.errors import ConfigError
from enclave_signer.image import SEALERS, AttestationConfig, parse_image, read_image
from enclave_signer.protocol.blob import LEGACY
from enclave_signer.sealing.allow_list import AllowList
from enclave_signer.sealing.gated_rules import GatedRule
from enclave_signer.sealing.gcp_config import GCP_KMS, GcpKmsConfig
from enclave_signer.sealing.local_config import LOCAL as LOCAL_SEALER
from enclave_signer.sealing.local_config import LocalKey
from enclave_signer.sealing.reseal_rules import ResealRule
from enclave_signer.toml_file import MAX_FILE_BYTES
from image.root import CannotMake, authorities

PROVIDER = "projects/691249393555/locations/global/workloadIdentityPools/signer-pool/providers/cs"
RING = "projects/tz-keys/locations/europe-west4/keyRings/signer"
KEY = f"{RING}/cryptoKeys/seal"
GCP = f'[gcp_kms]\nidentity_providers = ["{PROVIDER}"]\nseal_keys = ["{KEY}"]\n'
SMALLEST = f'sealers = ["gcp_kms"]\n{GCP}'
LOCAL = 'development = true\nsealers = ["local"]\n[local]\nsealing_key = "key"\n'

GATED = f"{SMALLEST}read_legacy = false\n[[gated]]\n"
ATTESTED = "release = 'attested'\n"
OTHER = f"{RING}/cryptoKeys/other"
#: A gated key that only opens, beside one that seals and is not gated.
FREE_TARGET = (
    f"{SMALLEST}open_keys = ['{OTHER}']\nread_legacy = false\n[[gated]]\nkey = '{OTHER}'\n{ATTESTED}fresh_s = 60\n"
)


def refused(text: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match) as raised:
        parse_image(text, "image.toml")
    assert str(raised.value).startswith("image.toml: ")


def test_the_smallest_one_reads_legacy_blobs_and_writes_ours() -> None:
    image = parse_image(SMALLEST, "image.toml")
    assert not image.development
    assert (image.sealers, image.listeners, image.local_key, image.reseal) == (("gcp_kms",), (), None, ())
    allow_list = AllowList(identity_providers=(PROVIDER,), seal_keys=(KEY,))
    assert image.gcp_kms == GcpKmsConfig(allow_list=allow_list, read_legacy=True, write_legacy=False)


def test_legacy_blobs_are_written_where_that_is_said() -> None:
    gcp_kms = parse_image(f"{SMALLEST}write_legacy = true", "image.toml").gcp_kms
    assert gcp_kms is not None
    assert gcp_kms.write_legacy


def test_all_that_can_be_said() -> None:
    text = (
        'development = true\nsealers = ["gcp_kms", "local"]\nlisteners = ["0.0.0.0:2000"]\n'
        f'{GCP}open_keys = ["{RING}/", "projects/old/"]\nread_legacy = true\nwrite_legacy = false\n'
        'token_audience = "https://sts.example"\n[local]\nsealing_key = "/keys/sealing.key"\nmake_sealing_key = true\n'
        f'[[reseal]]\nfrom = "legacy"\nto = "{KEY}"\n[[reseal]]\nfrom = "projects/old/"\nto = "{KEY}"\n'
        f'[[reseal]]\nfrom = "local:0123"\nto = "{KEY}"\n'
    )
    image = parse_image(text, "image.toml")
    assert image.development
    assert image.listeners == ("0.0.0.0:2000",)
    assert image.local_key == LocalKey(Path("/keys/sealing.key"), make=True)
    assert image.reseal == tuple(ResealRule(source, KEY, GCP_KMS) for source in (LEGACY, "projects/old/", "local:0123"))
    assert image.gcp_kms is not None
    assert not image.gcp_kms.write_legacy
    assert image.gcp_kms.token_audience == "https://sts.example"
    assert image.gcp_kms.allow_list.open_keys == (f"{RING}/", "projects/old/")


def test_keys_that_are_released_only_to_the_attested() -> None:
    text = f"{GATED}key = '{KEY}'\n{ATTESTED}fresh_s = 90.5\nretry_s = 5\n[[gated]]\nkey = '{RING}/'\n{ATTESTED}fresh_s = 300"
    narrow, wide = parse_image(text, "image.toml").gated
    assert (narrow, wide) == (GatedRule(KEY, GCP_KMS, 90.5, 5.0), GatedRule(f"{RING}/", GCP_KMS, 300.0, 10.0))
    assert (narrow.covers(KEY), narrow.covers(f"{KEY}2"), wide.covers(f"{RING}/cryptoKeys/other")) == (
        True,
        False,
        True,
    )


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "sealers: must name at least one"),
        ("sealers = [", "Invalid value"),
        ('sealers = "gcp_kms"', "sealers: must be a list"),
        ("sealers = [1]", r"sealers\[0\]: must be a text"),
        ('sealers = ["kms"]', "sealers: 'kms' is not known, known are gcp_kms, "),
        ('sealers = ["gcp_kms", "gcp_kms"]', "sealers: names something twice"),
        ('sealers = ["gcp_kms"]', "gcp_kms: is missing"),
        ('gcp_kms = 1\nsealers = ["gcp_kms"]', "gcp_kms: must be a table"),
        (f"typo = 1\n{SMALLEST}", "typo: is not known here"),
        (f"{SMALLEST}typo = 1", r"gcp_kms\.typo: is not known here"),
        (f"development = 1\n{SMALLEST}", "development: must be true or false"),
        (f"{SMALLEST}[local]\nsealing_key = 'key'", "local: is not known here"),
        (f"{SMALLEST}read_legacy = 'no'", r"gcp_kms\.read_legacy: must be true or false"),
        (
            f"{SMALLEST}read_legacy = false\nwrite_legacy = true",
            r"gcp_kms\.write_legacy: a blob that is written must open",
        ),
        (f"{SMALLEST}token_audience = 'https://sts.googleapis.com'", r"gcp_kms\.token_audience: is that of"),
        (f"listeners = ['a:1', 'b:2']\n{SMALLEST}", "listeners: this version listens at one address"),
        ('sealers = ["gcp_kms"]\n[gcp_kms]', r"gcp_kms\.identity_providers: must name at least one"),
        (SMALLEST.replace(PROVIDER, "//iam.googleapis.com/" + PROVIDER), r"gcp_kms\.identity_providers: .* the form"),
        (SMALLEST.replace(KEY, f"{RING}/"), r"gcp_kms\.seal_keys: .* must have the form"),
        (SMALLEST.replace(KEY, f"{KEY}/cryptoKeyVersions/1"), r"gcp_kms\.seal_keys: .* must have the form"),
        (f"{SMALLEST}open_keys = ['{RING}/cryptoKeys/se*']", r"gcp_kms\.open_keys: .* end at a /"),
        (f"{SMALLEST}open_keys = ['projects/']", r"gcp_kms\.open_keys: .* end at a /"),
        (f"{SMALLEST}open_keys = ['{KEY}/']", r"gcp_kms\.open_keys: .* end at a /"),
        (f"{SMALLEST}open_keys = ['{RING}']", r"gcp_kms\.open_keys: .* end at a /"),
        (LOCAL.replace("true", "false"), "sealers: local seals by a file on the machine"),
        (
            f"{SMALLEST}[[reseal]]\nfrom = 'legacy'\nto = 'local:0123'",
            r"reseal\[0\]\.to: 'local:0123' is not in gcp_kms",
        ),
        (
            f"{SMALLEST}[[reseal]]\nfrom = 'legacy'\nto = 'legacy'",
            r"reseal\[0\]\.to: 'legacy' is not in gcp_kms",
        ),
        (f"{SMALLEST}[[reseal]]\nfrom = 'anything'\nto = '{KEY}'", r"reseal\[0\]\.from: 'anything' must be legacy"),
        (
            f"{SMALLEST}write_legacy = true\n[[reseal]]\nfrom = 'legacy'\nto = '{KEY}'",
            r"image\.toml: reseal: makes no legacy blobs: gcp_kms\.write_legacy is true",
        ),
        (f"{SMALLEST}[[reseal]]\nto = '{KEY}'", r"reseal\[0\]\.from: is missing"),
        (f"{GATED}key = 'anything'", r"gated\[0\]\.key: 'anything' must be a key of one of the sealers"),
        (
            f"{GATED}key = '{KEY}2'\n{ATTESTED}fresh_s = 60",
            r"gated\[0\]\.key: '.*/seal2' is none that gcp_kms may open: nothing would be gated",
        ),
        (
            f"{GATED}key = '{RING}2/'\n{ATTESTED}fresh_s = 60",
            r"gated\[0\]\.key: '.*/signer2/' is none that gcp_kms may open",
        ),
        (
            f"{FREE_TARGET}[[reseal]]\nfrom = '{OTHER}'\nto = '{KEY}'",
            r"reseal: lets keys under '.*/other', which is gated, go to '.*/seal': gate that, too",
        ),
        (
            f"{FREE_TARGET}[[reseal]]\nfrom = '{RING}/'\nto = '{KEY}'",
            r"reseal: lets keys under '.*/other', which is gated, go to '.*/seal': gate that, too",
        ),
        (f"{GATED}key = '{KEY}'", r"gated\[0\]\.release: is missing"),
        (f"{GATED}key = '{KEY}'\nrelease = 'to all'", r"gated\[0\]\.release: 'to all' is not known, known is attested"),
        (f"{GATED}key = '{KEY}'\n{ATTESTED}", r"gated\[0\]\.fresh_s: is missing"),
        (f"{GATED}key = '{KEY}'\n{ATTESTED}fresh_s = true", r"gated\[0\]\.fresh_s: must be a number of seconds"),
        (f"{GATED}key = '{KEY}'\n{ATTESTED}fresh_s = nan", r"gated\[0\]\.fresh_s: must be .* from 10 to 86400"),
        (f"{GATED}key = '{KEY}'\n{ATTESTED}fresh_s = 9", r"gated\[0\]\.fresh_s: must be .* from 10 to 86400"),
        (f"{GATED}key = '{KEY}'\n{ATTESTED}fresh_s = 60\nretry_s = 31", r"gated\[0\]\.retry_s: must be .* 5 to 30"),
        (f"{GATED}key = '{KEY}'\n{ATTESTED}fresh_s = 60\nmore = 1", r"gated\[0\]\.more: is not known here"),
        (
            f"{GATED}key = '{RING}/'\n{ATTESTED}fresh_s = 60\n[[gated]]\nkey = '{KEY}'\n{ATTESTED}fresh_s = 60",
            r"gated\[1\]\.key: .* is covered by an entry before it",
        ),
        (
            f"{SMALLEST}[[gated]]\nkey = '{KEY}'\n{ATTESTED}fresh_s = 60",
            r"gated: does not hold for legacy blobs: set gcp_kms\.read_legacy to false",
        ),
        (
            f"{LOCAL}[[reseal]]\nfrom = 'legacy'\nto = '{KEY}'",
            r"reseal\[0\]\.to: .* is not in any list of keys that seal",
        ),
    ],
)
def test_what_is_wrong_is_named_by_its_path(text: str, match: str) -> None:
    refused(text, match)


@pytest.mark.parametrize("cut", ["projects/p/", "projects/p/locations/", "projects/p/locations/l/keyRings/r/"])
def test_prefixes_of_keys_end_at_a_slash(cut: str) -> None:
    image = parse_image(f"{SMALLEST}open_keys = ['{cut}']", "image.toml")
    assert image.gcp_kms is not None
    assert image.gcp_kms.allow_list.open_keys == (cut,)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.write_bytes(b"\xff"), "is not UTF-8"),
        (lambda path: path.write_bytes(b"#" * (MAX_FILE_BYTES + 1)), "has more than 65536 bytes"),
        (lambda path: path.write_text("a = " + "[" * 60000), "has a number that is too long, or is nested too deeply"),
        (lambda path: path.write_text("a = " + "9" * 5000), "has a number that is too long, or is nested too deeply"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, make: Callable[[Path], object], match: str) -> None:
    path = tmp_path / "image.toml"
    make(path)
    with pytest.raises(ConfigError, match=match) as raised:
        read_image(path)
    assert str(raised.value).startswith(str(path))


DIGEST = "5e" * 32
ATTESTATION = '[attestation]\nprovider = "confidential_space"\naudience = "https://signer.example/attest"\n'


@pytest.mark.parametrize("name", SEALERS)
def test_each_sealer_is_opened_as_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Variables of the machine that runs the test, of proxies say, must not matter.
    monkeypatch.setattr(os, "environ", {})
    image = replace(parse_image(SMALLEST, "image.toml"), gcp_kms=None)
    wanted = "the local sealer needs a key file" if name == LOCAL_SEALER else f"{name} is not configured"
    with pytest.raises(ConfigError, match=f"^{wanted}$"):
        _open_named(name, image)


def test_who_may_connect_and_who_vouches() -> None:
    image = parse_image(f'{SMALLEST}[tls]\nclients = ["{DIGEST}"]\n{ATTESTATION}token_type = "PKI"', "image.toml")
    assert image.tls_clients == (DIGEST,)
    assert image.attestation == AttestationConfig("confidential_space", "https://signer.example/attest", "PKI")
    image = parse_image(f"{SMALLEST}{ATTESTATION}", "image.toml")
    assert image.attestation is not None
    assert (image.attestation.kind, image.tls_clients, image.insecure_plain_tcp) == ("OIDC", None, False)
    assert parse_image(SMALLEST, "image.toml").attestation is None


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ("[tls]", r"tls\.clients: must name at least one"),
        ("[tls]\nclients = ['5E']", r"tls\.clients: '5E' is not the SHA-256 of a public key"),
        (f"[tls]\nclients = ['{DIGEST.upper()}']", "is not the SHA-256 of a public key"),
        (f"[tls]\nclients = ['{DIGEST}']\nkey = 'file'", r"tls\.key: is not known here"),
        (ATTESTATION.replace("confidential_space", "sample"), r"attestation\.provider: 'sample' is not known"),
        (ATTESTATION + "token_type = 'LIMITED_AWS'", r"attestation\.token_type: 'LIMITED_AWS' is not known"),
        (ATTESTATION.replace("signer.example/attest", "sts.googleapis.com"), "Google takes for this image's identity"),
        (ATTESTATION.replace("signer.example/attest", "sts.google.com"), "Google takes for this image's identity"),
        (ATTESTATION.replace("https://signer.example", "//iam.googleapis.com/x"), "takes for this image's identity"),
        (ATTESTATION.replace("signer.example", "s" * 600), r"attestation\.audience: must have at most 512 bytes"),
        (ATTESTATION + "nonce = 'x'", r"attestation\.nonce: is not known here"),
    ],
)
def test_what_is_wrong_with_the_channel_is_named_by_its_path(more: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        parse_image(f"{SMALLEST}{more}", "image.toml")


def test_tokens_for_others_are_not_those_of_the_exchange() -> None:
    text = f'{SMALLEST}token_audience = "https://signer.example/attest"\n{ATTESTATION}'
    with pytest.raises(ConfigError, match="Google takes for this image's identity"):
        parse_image(text, "image.toml")


def test_a_port_is_plain_or_it_is_not() -> None:
    with pytest.raises(ConfigError, match="insecure_plain_tcp: there is TLS"):
        parse_image(f"insecure_plain_tcp = true\n{SMALLEST}[tls]\nclients = ['{DIGEST}']", "image.toml")


@pytest.mark.parametrize("name", ["", "/", ".", "/etc/enclave-signer/.."])
def test_a_file_of_authorities_without_a_name_is_in_no_image(tmp_path: Path, name: str) -> None:
    path = tmp_path / "image.toml"
    path.write_text(f"vault_transit = {{ca_file = '{name}'}}\n")
    with pytest.raises(CannotMake, match=r"image\.toml: vault_transit\.ca_file: "):
        authorities(path)
