"""Policies in files: strict, with the line of the fault; and those that are made of a token."""

import time
from datetime import date
from pathlib import Path

import pytest

from host_backend.attestation.policy import CONFIDENTIAL_HARDWARE, Policy
from host_backend.attestation.policy_file import load_policy, policy_text
from host_backend.attestation.token import Claims
from host_backend.attestation.verifier import AttestationRefused, TrustedKeys, verify
from host_backend.errors import ConfigError
from tests.doubles.google.tokens import ABSENT, ACCOUNT, AUDIENCE, DIGEST, NONCE, PROJECT, SIGNING_KEY, Issuer, claims

LEAST = f"audience: {AUDIENCE}\nimage_digests: ['{DIGEST}']\nprojects: [{PROJECT}]\n"


def load(folder: Path, text: str) -> Policy:
    file = folder / "policy.yaml"
    file.write_text(text)
    return load_policy(file)


def test_the_least_that_is_a_policy(tmp_path: Path) -> None:
    assert load(tmp_path, LEAST) == Policy(
        audience=AUDIENCE, image_digests=frozenset({DIGEST}), projects=frozenset({PROJECT})
    )


def test_every_field(tmp_path: Path) -> None:
    policy = load(
        tmp_path,
        f"""\
evidence: confidential_space
audience: {AUDIENCE}
signing_keys: [{SIGNING_KEY}]
service_accounts: [{ACCOUNT}]
zones: [europe-west4-a, us-central1-f]
hwmodel: [GCP_INTEL_TDX]
secboot: true
dbgstat: disabled-since-boot
swname: CONFIDENTIAL_SPACE
support_attributes: [LATEST]
minimum_swversion: 250301
minimum_tdx_date: 2024-03-13
env_override: {{LOG: debug}}
cmd_override: [--json-log]
""",
    )
    assert policy == Policy(
        audience=AUDIENCE,
        signing_keys=frozenset({SIGNING_KEY}),
        service_accounts=frozenset({ACCOUNT}),
        zones=frozenset({"europe-west4-a", "us-central1-f"}),
        hwmodel=frozenset({"GCP_INTEL_TDX"}),
        support_attributes=frozenset({"LATEST", "STABLE"}),
        minimum_swversion=250301,
        minimum_tdx_date=date(2024, 3, 13),
        env_override={"LOG": "debug"},
        cmd_override=("--json-log",),
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", ":1: the file: must name the audience"),
        (f"audience: {AUDIENCE}\nimage_digests: ['{DIGEST}']\n", "the file: name projects or service_accounts"),
        (f"audience: {AUDIENCE}\nprojects: [{PROJECT}]\n", "the file: name image_digests or signing_keys"),
        (LEAST + "image_digest: x\n", ":4: image_digest: unknown field, did you mean image_digests?"),
        (LEAST + "allow_debug: true\n", ":4: allow_debug: unknown field"),
        (LEAST + "dbgstat: enabled\n", ":4: dbgstat: must be disabled-since-boot"),
        (LEAST + "secboot: false\n", ":4: secboot: must be true"),
        (LEAST + "evidence: sample\n", ":4: evidence: must be confidential_space"),
        (LEAST + "hwmodel: [GCP_SHIELDED_VM]\n", ":4: hwmodel[0]: 'GCP_SHIELDED_VM' must be"),
        (LEAST + "hwmodel: []\n", ":4: hwmodel: must be a list of 1 to 64"),
        (LEAST + "zones:\n", ":4: zones: must be a list of 1 to 64"),
        (LEAST + "zones: [europe-west4-a, europe-west4-a]\n", ":4: zones: names something twice"),
        (LEAST + "zones: europe-west4-a\n", ":4: zones: must be a list"),
        (LEAST + "signing_keys: ['']\n", ":4: signing_keys[0]: must not be empty"),
        (LEAST + "minimum_swversion: 26.8\n", ":4: minimum_swversion: must be a version"),
        (LEAST + "minimum_tdx_date: soon\n", ":4: minimum_tdx_date: must be a date"),
        (LEAST + "audience: x\n", ":4: audience: stands here a second time"),
        (LEAST.replace(AUDIENCE, "https://sts.googleapis.com"), ":1: audience: tokens for Google's token exchange"),
        (LEAST.replace(DIGEST, DIGEST[:-1]), ":2: image_digests[0]: "),
        ("- x\n", "must be a map"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        load(tmp_path, text)
    assert str(wrong.value).startswith(f"{tmp_path}/policy.yaml:")
    assert problem in str(wrong.value)


def test_a_policy_made_of_a_token_accepts_it_and_no_other(tmp_path: Path) -> None:
    now, issuer = time.time(), Issuer()
    override = {"submods__container__env_override": {"LOG": "de\"bug: 'x'"}}
    values = claims(now, **override)
    policy = load(tmp_path, policy_text(Claims(values), None))
    keys = TrustedKeys.from_jwks(issuer.jwks())
    verify(issuer.token(values), trust=keys, policy=policy, nonce=NONCE, now=now)
    for claim, other in {
        "submods__container__image_digest": "sha256:" + "00" * 32,
        "submods__gce__project_id": "somebody-else",
        "submods__gce__zone": "us-central1-f",
        "google_service_accounts": ["x@y.z"],
        "swversion": ["250101"],
        "hwmodel": "GCP_AMD_SEV_ES",
        "submods__container__env_override": {},
    }.items():
        token = issuer.token(claims(now, **{**override, claim: other}))
        with pytest.raises(AttestationRefused, match=claim.rpartition("__")[2]):
            verify(token, trust=keys, policy=policy, nonce=NONCE, now=now)
    assert policy.hwmodel < CONFIDENTIAL_HARDWARE


@pytest.mark.parametrize(
    "claim", ["submods__container__image_digest", "submods__gce__project_id", "submods__gce__zone"]
)
def test_no_policy_is_made_of_a_token_that_says_too_little(claim: str) -> None:
    with pytest.raises(ConfigError, match="no policy can be made"):
        policy_text(Claims(claims(**{claim: ABSENT})), None)


def test_the_launcher_s_own_token_needs_another_audience(tmp_path: Path) -> None:
    token = Claims(claims(aud="https://sts.googleapis.com"))
    with pytest.raises(ConfigError, match="audience"):
        policy_text(token, None)
    assert load(tmp_path, policy_text(token, AUDIENCE)).audience == AUDIENCE
