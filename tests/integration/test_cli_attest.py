"""`enclave-host attest`: a token in a file, a policy, and the judgement of both."""

import json
from pathlib import Path

import pytest

from tests.doubles.google.tokens import ABSENT, AUDIENCE, DIGEST, NONCE, PROJECT, Chain, Issuer, claims
from tests.doubles.host_process import run_command

UNBOUND = "not bound to a connection: "
POLICY = f"audience: {AUDIENCE}\nimage_digests: ['{DIGEST}']\nprojects: [{PROJECT}]\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    issuer, chain = Issuer(), Chain()
    sister = claims(submods__gce__project_id="somebody-else", dbgstat="enabled")
    for name, text in {
        "jwks": json.dumps(issuer.jwks()),
        "root.pem": chain.root_pem.decode(),
        "oidc": issuer.token(claims()) + "\n",
        "pki": chain.token(claims()),
        "sister": issuer.token(sister),
        "foreign": Chain("somebody").token(claims()),
        "expired": issuer.token(claims(0)),
        "garbage": "no token",
        "policy.yaml": POLICY,
    }.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def attest(folder: Path, token: str, *more: str, code: int, policy: bool = True) -> list[str]:
    """Return the lines of a verdict, each of which stands in `--json` as well."""
    trusted: list[str | Path] = ["--root", folder / "root.pem", "--jwks", folder / "jwks"]
    words = [
        "attest",
        "--token",
        folder / token,
        *trusted,
        *more,
    ]
    words += ["--policy", folder / "policy.yaml"] if policy else []
    plain, as_json = run_command(*words), run_command(*words, "--json")
    assert (plain.code, as_json.code) == (code, code), plain.stderr
    found = json.loads(as_json.stdout)
    lines = plain.stdout.splitlines()
    assert lines[0].startswith(UNBOUND)
    assert found["bound"] is False
    assert lines[-1].startswith(
        {"accepted": "accepted", "refused": "refused", "no policy": "nothing is proven"}[found["outcome"]]
    )
    checks = [f"{check['state']:<12}{check['claim']}: {check['text']}" for check in found["checks"]]
    assert lines[-1 - len(checks) : -1] == checks
    return checks


@pytest.mark.parametrize("token", ["oidc", "pki"])
def test_a_token_that_fulfils_the_policy(folder: Path, token: str) -> None:
    checks = attest(folder, token, code=0)
    assert f"matched     submods.container.image_digest: {DIGEST}" in checks
    assert "not pinned  submods.gce.zone: europe-west4-a" in checks
    assert not [line for line in checks if line.startswith("refused")]


def test_without_a_policy_nothing_is_proven(folder: Path) -> None:
    checks = attest(folder, "oidc", code=1, policy=False)
    assert f"not pinned  submods.container.image_digest: {DIGEST}" in checks


def test_a_nonce_is_compared_if_it_is_known(folder: Path) -> None:
    assert any(line.startswith("matched     eat_nonce") for line in attest(folder, "oidc", "--nonce", NONCE, code=0))
    assert any(line.startswith("refused     eat_nonce") for line in attest(folder, "oidc", "--nonce", "0" * 64, code=1))
    assert any(line.startswith("refused     eat_nonce") for line in attest(folder, "oidc", "--nonce", "", code=1))


def test_every_mismatch_is_told_at_once(folder: Path) -> None:
    refused = [line for line in attest(folder, "sister", code=1) if line.startswith("refused")]
    assert refused == [
        "refused     dbgstat: enabled, expected disabled-since-boot",
        f"refused     submods.gce.project_id: somebody-else, expected {PROJECT}",
    ]


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("foreign", "signature: x5c: its root is not the pinned one"),
        ("expired", "exp: 3600, expected a time that is still to come"),
        ("garbage", "token: not three parts"),
    ],
)
def test_what_proves_nothing(folder: Path, token: str, reason: str) -> None:
    assert any(line.startswith(f"refused     {reason}") for line in attest(folder, token, code=1))


def test_a_policy_is_made_of_a_token(folder: Path) -> None:
    made = run_command("attest", "policy", "init", "--token", folder / "oidc", "--jwks", folder / "jwks")
    assert made.code == 0
    (folder / "policy.yaml").write_text(made.stdout)
    attest(folder, "oidc", code=0)
    assert any(line.startswith("refused     submods.gce.project_id") for line in attest(folder, "sister", code=1))
    for token, reason in {
        "sister": "dbgstat: enabled",
        "foreign": "its root is not",
        "garbage": "not three parts",
    }.items():
        refused = run_command(
            *("attest", "policy", "init", "--token", folder / token),
            *("--jwks", folder / "jwks", "--root", folder / "root.pem"),
        )
        assert (refused.code, refused.stdout) == (1, "")
        assert reason in refused.stderr


def test_no_policy_is_made_of_a_token_that_says_too_little(folder: Path) -> None:
    (folder / "short").write_text(Issuer().token(claims(submods__container__image_digest=ABSENT)))
    made = run_command("attest", "policy", "init", "--token", folder / "short", "--jwks", folder / "jwks")
    assert made.code == 2
    assert "no policy can be made of this token: image_digests" in made.stderr


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--token", "{}/oidc", "--policy", "{}/none.yaml"],
        ["--token", "{}/none"],
        ["--token", "{}/oidc", "--jwks", "{}/pki"],
        ["--token", "{}/oidc", "--jwks", "{}/root.pem"],
        ["--token", "{}/pki", "--root", "{}/jwks"],
        ["--token", "{}/oidc", "--jwks", "{}/jwks", "--policy", "{}/weak.yaml"],
    ],
)
def test_what_is_configured_wrongly_exits_with_2(folder: Path, words: list[str]) -> None:
    (folder / "weak.yaml").write_text(f"audience: {AUDIENCE}\nimage_digests: ['{DIGEST}']\n")
    outcome = run_command("attest", *(word.format(folder) for word in words))
    assert (outcome.code, outcome.stdout) == (2, "")
    assert outcome.stderr


def test_a_token_can_come_by_standard_input(folder: Path) -> None:
    words = ("attest", "--token", "-", "--jwks", folder / "jwks", "--policy", folder / "policy.yaml")
    outcome = run_command(*words, given=(folder / "oidc").read_bytes())
    assert outcome.code == 0, outcome.stderr
