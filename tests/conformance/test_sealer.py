"""What every sealer does alike. The one that seals nothing keeps the same promises but for the secrecy.

What seals by Cloud KMS runs over doubles of Google's services, by a key broker over its double; what seals by Vault's API,
with a real OpenBao server.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from enclave_signer.curves import SigningKey, curve
from enclave_signer.errors import BlobCorrupt, ConfigError, SealingError, SealingRefused
from enclave_signer.image import parse_image
from enclave_signer.launcher import LauncherSocket
from enclave_signer.protocol.blob import MAGIC, BlobHeader, is_ours, parse_blob
from enclave_signer.protocol.messages import Credentials, KeyType, PrivateKey, PublicKey
from enclave_signer.sealing.base import Sealer, SealerProvider, UnsealedKey, open_key, seal_key
from enclave_signer.sealing.gcp_kms import GcpKms
from enclave_signer.sealing.kbs import open_kbs
from enclave_signer.sealing.local import KEY_BYTES, LocalSealer, read_key_file
from enclave_signer.sealing.local_config import LocalKey
from enclave_signer.sealing.vault_transit import VaultTransit
from tests.conformance import at_google
from tests.doubles.google.cloud import IMAGE, running_google_cloud
from tests.doubles.kbs import running_kbs
from tests.doubles.kbs_image import KEK, RESOURCE, kbs_image
from tests.doubles.passthrough_enclave import PassthroughSealer
from tests.doubles.vault.openbao import OpenBao, running_openbao, token_login


def local() -> LocalSealer:
    return LocalSealer(bytes(range(KEY_BYTES)))


class Opened:
    """A provider that is in use, and one sealer of it; each call runs to its end.

    `not_ours` is what it raises for what does not begin as our blobs do.
    """

    def __init__(self, provider: SealerProvider, not_ours: type[SealingError] = BlobCorrupt) -> None:
        self.provider = provider
        self.not_ours = not_ours
        self.sealer = trio.run(provider.open_sealer, Credentials())

    def seal(self, key: PrivateKey) -> tuple[bytes, SigningKey]:
        return seal(self.sealer, key)

    def unseal(self, blob: bytes) -> SigningKey:
        return unseal(self.sealer, blob)


SEALERS = ["local", "passthrough", "kbs", "vault_transit"]
SEALERS += ["gcp_kms", "gcp_kms without legacy blobs", "gcp_kms as tee-signer"]


@pytest.fixture(scope="module")
def openbao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    with running_openbao(tmp_path_factory.mktemp("openbao")) as server:
        yield server


@contextmanager
def vault_transit(server: OpenBao, folder: Path) -> Iterator[Opened]:
    file = folder / "token"
    file.write_text(server.token())
    image = parse_image(server.image(token_login(file)), "image.toml")
    assert image.vault_transit is not None
    provider = VaultTransit(image.vault_transit, LauncherSocket(folder / "no.sock", 1.0))
    yield Opened(provider)
    trio.run(provider.aclose)


@contextmanager
def kbs(folder: Path) -> Iterator[SealerProvider]:
    """Give a provider whose key comes from a broker."""
    with running_kbs(folder) as (broker, authority):
        broker.resources[RESOURCE] = KEK
        config = parse_image(kbs_image(broker.url, authority.file), "image.toml").kbs
        assert config is not None
        yield open_kbs(config)


@pytest.fixture(params=[*SEALERS, *([at_google.AT_GOOGLE] if at_google.is_configured() else [])])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    if request.param == "vault_transit":
        with vault_transit(request.getfixturevalue("openbao"), tmp_path) as at_openbao:
            yield at_openbao
        return
    if request.param == "kbs":
        with kbs(tmp_path) as by_broker:
            yield Opened(by_broker)
        return
    if not request.param.startswith("gcp_kms"):
        yield Opened(local() if request.param == "local" else PassthroughSealer())
        return
    if request.param == at_google.AT_GOOGLE:
        with at_google.cloud_kms(tmp_path) as real:
            yield Opened(real)
        return
    legacy = {"gcp_kms": "", "gcp_kms without legacy blobs": "read_legacy = false"}
    image = parse_image(IMAGE + legacy.get(request.param, "write_legacy = true"), "image.toml")
    assert image.gcp_kms is not None
    with running_google_cloud(tmp_path) as cloud:
        provider = GcpKms(image.gcp_kms, cloud.places())
        # Without its beginning, one of ours cannot be distinguished from one of tee-signer's.
        yield Opened(provider, BlobCorrupt if image.gcp_kms.read_legacy else SealingRefused)
        trio.run(provider.aclose)


def seal(sealer: Sealer, key: PrivateKey) -> tuple[bytes, SigningKey]:
    return trio.run(seal_key, sealer, key, trio.lowlevel.checkpoint)


def unseal(sealer: Sealer, blob: bytes) -> SigningKey:
    return trio.run(open_key, sealer, blob, trio.lowlevel.checkpoint)


@pytest.mark.parametrize("key_type", KeyType)
def test_a_sealed_key_opens_again(opened: Opened, key_type: KeyType) -> None:
    blob, key = opened.seal(curve(key_type).generate())
    assert opened.unseal(blob).public_key == key.public_key
    assert len(blob) < 600 + key_type.facts.public_key_bytes


@pytest.mark.parametrize("blob", [b"", b"\0", b"\xff\xff", b"TKSB", bytes(300)])
def test_what_is_no_blob_is_corrupt(opened: Opened, blob: bytes) -> None:
    with pytest.raises(opened.not_ours if not is_ours(blob) else BlobCorrupt):
        opened.unseal(blob)


def test_every_truncation_is_refused(opened: Opened) -> None:
    blob, _ = opened.seal(curve(KeyType.ED25519).generate())
    for size in range(len(blob)):
        with pytest.raises(opened.not_ours if size < len(MAGIC) else BlobCorrupt):
            opened.unseal(blob[:size])


def test_two_blobs_swapped_open_as_what_they_are(opened: Opened) -> None:
    """The host, which keeps them, compares: that is the host's part."""
    (one, first), (two, second) = (opened.seal(curve(KeyType.BLS).generate()) for _ in range(2))
    assert (opened.unseal(two).public_key, opened.unseal(one).public_key) == (second.public_key, first.public_key)


class TestLocal:
    """What the header and the authenticated encryption promise beyond that."""

    def sealed(self) -> bytes:
        blob, _ = seal(local(), curve(KeyType.ED25519).generate())
        return blob

    def test_every_flipped_bit_is_refused(self) -> None:
        blob = self.sealed()
        for position in range(len(blob) * 8):
            flipped = bytearray(blob)
            flipped[position // 8] ^= 1 << position % 8
            with pytest.raises((BlobCorrupt, SealingRefused)):
                unseal(local(), bytes(flipped))

    def test_every_appended_byte_is_refused(self) -> None:
        blob = self.sealed()
        for byte in range(256):
            with pytest.raises(BlobCorrupt):
                unseal(local(), blob + bytes([byte]))

    def test_a_relabelled_blob_does_not_open(self) -> None:
        header, _, ciphertext = parse_blob(self.sealed())
        other = curve(KeyType.ED25519).open(curve(KeyType.ED25519).generate()).public_key
        relabelled = BlobHeader(header.sealer, header.kek, other).encode() + ciphertext
        with pytest.raises(BlobCorrupt, match="does not open under the key it names"):
            unseal(local(), relabelled)

    def test_another_key_file_is_refused_by_name(self) -> None:
        blob = self.sealed()
        with pytest.raises(SealingRefused, match=r"sealed by local under local:\w+, this enclave has local:\w+"):
            unseal(LocalSealer(bytes(KEY_BYTES)), blob)

    def test_another_format_is_named(self) -> None:
        blob = bytearray(self.sealed())
        blob[4] = 2
        with pytest.raises(SealingRefused, match="format 2"):
            unseal(local(), bytes(blob))

    def test_two_blobs_of_one_key_differ(self) -> None:
        key = curve(KeyType.ED25519).generate()
        assert seal(local(), key)[0] != seal(local(), key)[0]

    def test_repr_names_the_key_and_does_not_show_it(self) -> None:
        key = bytes(range(KEY_BYTES))
        shown = repr(LocalSealer(key))
        assert shown.startswith("LocalSealer(local:")
        assert key.hex()[:8] not in shown


class ForgetfulSealer:
    """Seals, and opens every blob as another key: an encrypt-only grant, or worse."""

    shared_s = 0.0

    async def seal(self, private_key: PrivateKey, public_key: PublicKey) -> bytes:
        del private_key, public_key
        return b"sealed"

    async def unseal(self, blob: bytes) -> UnsealedKey:
        del blob
        return UnsealedKey(PrivateKey(KeyType.ED25519, b"\7" * 32), None)


class EncryptOnlySealer(ForgetfulSealer):
    """Seals, and may not open."""

    async def unseal(self, blob: bytes) -> UnsealedKey:
        raise SealingRefused("no right to open")


@pytest.mark.parametrize("sealer", [ForgetfulSealer(), EncryptOnlySealer()])
def test_a_blob_that_does_not_open_as_its_key_is_not_announced(sealer: Sealer) -> None:
    with pytest.raises(SealingRefused):
        seal(sealer, PrivateKey(KeyType.ED25519, b"\1" * 32))


def test_a_blob_that_names_another_key_is_corrupt() -> None:
    class Mislabelled(ForgetfulSealer):
        async def unseal(self, blob: bytes) -> UnsealedKey:
            unsealed = await super().unseal(blob)
            return UnsealedKey(unsealed.private_key, PublicKey(KeyType.ED25519, bytes(32)))

    with pytest.raises(BlobCorrupt, match="another key than its header names"):
        unseal(Mislabelled(), b"sealed")


class TestKeyFile:
    """The file that the local sealer's key stands in."""

    def test_it_is_made_for_its_owner_alone_and_kept(self, tmp_path: Path) -> None:
        path = tmp_path / "sealing.key"
        key, made = read_key_file(LocalKey(path, make=True))
        assert made
        assert path.stat().st_mode & 0o777 == 0o600
        assert read_key_file(LocalKey(path)) == (key, False)
        assert read_key_file(LocalKey(path, make=True)) == (key, False)
        assert [*tmp_path.iterdir()] == [path]

    def test_a_name_that_is_mistyped_makes_no_key(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"is not there: name the right file, or .* --make-sealing-key"):
            read_key_file(LocalKey(tmp_path / "sealing.kye"))
        assert not [*tmp_path.iterdir()]

    def test_what_a_crash_left_behind_is_not_in_the_way(self, tmp_path: Path) -> None:
        path = tmp_path / "sealing.key"
        # As a daemon of version 0.1 left it that had the number of this process.
        path.with_name(f".{path.name}.{os.getpid()}").write_bytes(b"")
        assert read_key_file(LocalKey(path, make=True))[1]

    def test_a_lost_block_is_no_key(self, tmp_path: Path) -> None:
        path = tmp_path / "sealing.key"
        path.write_bytes(bytes(32))
        path.chmod(0o600)
        with pytest.raises(ConfigError, match="is damaged, all of its bytes are alike: restore it"):
            read_key_file(LocalKey(path))

    @pytest.mark.parametrize("mode", [0o640, 0o440, 0o604, 0o620])
    def test_others_must_not_use_it(self, tmp_path: Path, mode: int) -> None:
        path = tmp_path / "sealing.key"
        read_key_file(LocalKey(path, make=True))
        path.chmod(mode)
        with pytest.raises(ConfigError, match="chmod 600") as refused:
            read_key_file(LocalKey(path))
        assert ("--group-may-read-sealing-key" in str(refused.value)) == (mode in {0o640, 0o440})

    @pytest.mark.parametrize(
        ("mode", "taken"), [(0o640, True), (0o440, True), (0o600, True), (0o660, False), (0o644, False)]
    )
    def test_its_group_may_read_it_where_that_is_said(self, tmp_path: Path, mode: int, taken: bool) -> None:
        path = tmp_path / "sealing.key"
        key, _ = read_key_file(LocalKey(path, make=True))
        path.chmod(mode)
        file = LocalKey(path, group_may_read=True)
        if taken:
            assert read_key_file(file) == (key, False)
        else:
            with pytest.raises(ConfigError, match="chmod 440"):
                read_key_file(file)

    @pytest.mark.parametrize("size", [0, 31, 33])
    def test_it_has_32_bytes(self, tmp_path: Path, size: int) -> None:
        path = tmp_path / "sealing.key"
        path.write_bytes(bytes(size))
        path.chmod(0o600)
        with pytest.raises(ConfigError, match="32 bytes"):
            read_key_file(LocalKey(path, make=True))

    def test_a_folder_or_a_missing_one_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError):
            read_key_file(LocalKey(tmp_path, make=True))
        with pytest.raises(ConfigError, match="No such file"):
            read_key_file(LocalKey(tmp_path / "missing" / "sealing.key", make=True))

    def test_the_command_says_it_in_one_line(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "enclave_signer", "--sealing-key", str(tmp_path)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 2
        start, *_, refusal = ended.stderr.splitlines()
        assert 'msg="enclave-signer is starting"' in start
        assert refusal.startswith("enclave-signer: sealing key file")
