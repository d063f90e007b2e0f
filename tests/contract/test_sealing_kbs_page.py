"""The page of the key broker: its configuration is one that a daemon takes, its commands give what the daemon compares."""

import subprocess
from pathlib import Path

from enclave_signer.image import parse_image
from enclave_signer.sealing.kbs_config import KbsKey
from enclave_signer.sealing.kbs_kek import commitment, sealing_key
from tests.contract.markdown import DOCS, blocks
from tests.doubles.kbs_image import KEK

PAGE = DOCS / "sealing-kbs.md"


def test_the_image_of_the_page_starts() -> None:
    table, rule = blocks(PAGE, "toml")
    image = parse_image(table, "page").kbs
    assert image is not None
    (key,) = image.keys
    assert sealing_key(key, KEK)
    assert f"encryption_key_path: {key.name}`" in PAGE.read_text()
    newer = key.name.replace("2026", "2027").rpartition("#")[0]
    assert f'to = "{newer}#' in rule
    later = KbsKey("signer/kek/2027", "0a1b2c3d4e5f6071" + "0" * 48)
    both = table.replace(
        "[[kbs.keys]]",
        f'[[kbs.keys]]\nresource = "{later.resource}"\ncommitment = "{later.commitment}"\n[[kbs.keys]]',
    )
    assert parse_image(both + rule, "page").reseal[0].allows(key.name, later.name)


def test_the_commands_give_the_commitment(tmp_path: Path) -> None:
    make, commit = blocks(PAGE, "bash")[0].splitlines()
    subprocess.run(["bash", "-ec", make], cwd=tmp_path, check=True)
    kek = (tmp_path / "kek.bin").read_bytes()
    ended = subprocess.run(["bash", "-ec", commit], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert ended.stdout.split() == [commitment(kek), "-"]
    assert len(kek) == 32
