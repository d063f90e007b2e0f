"""`docs/attestation.md`: its policy is one, its example runs, and its library stands alone."""

import subprocess
import sys
from pathlib import Path

from host_backend.attestation.policy import FORMS
from host_backend.attestation.policy_file import _FIXED, _OTHERS, load_policy
from tests.contract.markdown import DOCS, blocks, rows
from tests.doubles.google.tokens import AUDIENCE, DIGEST, PROJECT, Chain, claims
from tests.doubles.processes import PATIENCE_S, ROOT

PAGE = DOCS / "attestation.md"


def test_the_policy_is_one(tmp_path: Path) -> None:
    (text,) = blocks(PAGE, "yaml")
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    assert load_policy(file).minimum_swversion == 260800


def test_every_field_is_described() -> None:
    table = rows(PAGE)
    fields = table[table.index(["field", "the token must"]) + 1 :]
    described = {name.strip("` ") for row in fields for name in row[0].split(",")}
    assert described == {*FORMS, *_FIXED, *_OTHERS}


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, words)], check=False, capture_output=True, text=True, timeout=PATIENCE_S, cwd=ROOT
    )


def test_the_example_accepts_and_refuses(tmp_path: Path) -> None:
    (example,) = blocks(PAGE, "python")
    chain = Chain()
    files = {
        "audit.py": example,
        "good": chain.token(claims()) + "\n",
        "debug": chain.token(claims(dbgstat="enabled", submods__gce__project_id="somebody-else")),
        "policy.yaml": f"audience: {AUDIENCE}\nimage_digests: ['{DIGEST}']\nprojects: [{PROJECT}]\n",
        "root.pem": chain.root_pem.decode(),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    more = (tmp_path / "policy.yaml", tmp_path / "root.pem")
    good = run(tmp_path / "audit.py", tmp_path / "good", *more)
    assert good.stdout == f"{DIGEST} {PROJECT} europe-west4-a GCP_AMD_SEV\n", good.stderr
    debug = run(tmp_path / "audit.py", tmp_path / "debug", *more)
    assert debug.returncode == 1
    assert [line.partition(":")[0] for line in debug.stderr.splitlines()] == ["dbgstat", "submods.gce.project_id"]
    # Google's root, where no other is named.
    assert "its root is not the pinned one" in run(tmp_path / "audit.py", tmp_path / "good", more[0]).stderr


def test_the_verifier_needs_nothing_of_the_host() -> None:
    text = (
        "import sys, host_backend.attestation.verifier; print(*sorted(m for m in sys.modules if m.startswith('host_')))"
    )
    loaded = run("-c", text).stdout.split()
    allowed = ("host_backend.attestation", "host_backend.errors", "host_backend.strict_json")
    assert [name for name in loaded if name != "host_backend" and not name.startswith(allowed)] == []
    others = run("-c", text.replace("startswith('host_')", "partition('.')[0] in ('trio', 'uvicorn', 'starlette')"))
    assert not others.stdout.split()
