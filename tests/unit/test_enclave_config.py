"""The daemon's flags and environment."""

from dataclasses import replace
from pathlib import Path

import pytest

from enclave_signer.addresses import DEFAULT_PORT, Address, UnixAddress, is_loopback
from enclave_signer.config import DEFAULT_LIMITS, parse_config
from enclave_signer.errors import ConfigError
from enclave_signer.protocol.framing import MAX_FRAME_BYTES
from enclave_signer.sealing.local_config import LocalKey

KEY = ["--sealing-key", "key"]


def test_defaults_are_tee_signers_port_on_loopback() -> None:
    config = parse_config(KEY, {})
    assert config.listen == Address("127.0.0.1", DEFAULT_PORT)
    assert config.local_key == LocalKey(Path("key"))


def test_listen_port_is_taken_from_the_environment_and_the_flag_wins() -> None:
    assert parse_config(KEY, {"LISTEN_PORT": "2345"}).listen == Address("127.0.0.1", 2345)
    config = parse_config([*KEY, "--listen", "[::1]:99"], {"LISTEN_PORT": "2345"})
    assert config.listen == Address("::1", 99)


@pytest.mark.parametrize("port", ["", "x", "-1", "65536", "1e3", "٣", "999999999"])
def test_a_port_is_a_port(port: str) -> None:
    with pytest.raises(ConfigError, match="LISTEN_PORT"):
        parse_config(KEY, {"LISTEN_PORT": port})
    with pytest.raises(ConfigError, match="--listen"):
        parse_config([*KEY, "--listen", f"127.0.0.1:{port}"], {})


@pytest.mark.parametrize("listen", ["2000", ":2000"])
def test_listen_is_host_and_port(listen: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        parse_config([*KEY, "--listen", listen], {})


def test_the_local_sealer_needs_its_key_file() -> None:
    with pytest.raises(ConfigError, match="--sealing-key"):
        parse_config([], {})


LEAST = {
    "--max-connections": ("max_connections", 1),
    "--max-in-flight": ("max_in_flight", 1),
    "--max-buffer": ("buffer_bytes", MAX_FRAME_BYTES + 4096),
    "--max-keys": ("max_handles", 1),
    "--max-open-keys": ("max_open_keys", 1),
    "--max-guarded": ("max_guarded", 1),
    "--idle": ("idle_s", 0),
    "--retain": ("retain_s", 0),
}


@pytest.mark.parametrize("flag", LEAST)
def test_limits_can_be_set_and_have_a_least_value(flag: str) -> None:
    name, least = LEAST[flag]
    for value in (least, least + 7):
        limits = parse_config([*KEY, flag, str(value)], {}).limits
        assert limits == replace(DEFAULT_LIMITS, **{name: value})
    with pytest.raises(ConfigError, match=f"^{flag} must be at least {least}$"):
        parse_config([*KEY, flag, str(least - 1)], {})


def test_without_flags_limits_are_the_defaults_and_the_guard_is_on() -> None:
    config = parse_config(KEY, {})
    assert config.limits == DEFAULT_LIMITS
    assert config.guard
    assert not parse_config([*KEY, "--no-guard"], {}).guard


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)]
)
def test_loopback_is_known(host: str, *, expected: bool) -> None:
    assert is_loopback(host) == expected


def test_listen_may_be_a_unix_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_config([*KEY, "--listen", "unix:/run/enclave/s"], {}).listen == UnixAddress(Path("/run/enclave/s"))
    monkeypatch.chdir(tmp_path)
    address = parse_config([*KEY, "--listen", "unix:run/s"], {}).listen
    assert (str(address), address.is_loopback) == (f"unix:{tmp_path}/run/s", True)


@pytest.mark.parametrize("path", ["", "/" + "x" * 107])
def test_the_path_of_a_unix_socket_is_short(path: str) -> None:
    with pytest.raises(ConfigError, match="must have 1 to 107 bytes"):
        parse_config([*KEY, "--listen", f"unix:{path}"], {})


IMAGE = """
sealers = ["gcp_kms"]
[gcp_kms]
identity_providers = ["projects/1/locations/global/workloadIdentityPools/pool/providers/cs"]
seal_keys = ["projects/p/locations/l/keyRings/r/cryptoKeys/k"]
"""


class TestImage:
    """The operator of the machine chooses flags and environment, and decides nothing that the image decides."""

    def image(self, folder: Path, more: str = "") -> list[str]:
        path = folder / "image.toml"
        path.write_text(more + IMAGE)
        return ["--image", str(path)]

    def test_the_image_stands_beside_the_flags(self, tmp_path: Path) -> None:
        config = parse_config([*self.image(tmp_path), "--listen", "127.0.0.1:1"], {})
        assert config.image is not None
        assert (config.image.sealers, config.local_key) == (("gcp_kms",), None)
        assert config.listen == Address("127.0.0.1", 1)

    def test_its_listener_counts(self, tmp_path: Path) -> None:
        config = parse_config(self.image(tmp_path, 'listeners = ["0.0.0.0:99"]\ninsecure_plain_tcp = true\n'), {})
        assert config.listen == Address("0.0.0.0", 99)

    @pytest.mark.parametrize(
        ("flags", "environment"),
        [
            (["--sealer", "local"], {}),
            (["--sealing-key", "key"], {}),
            (["--make-sealing-key"], {}),
            (["--group-may-read-sealing-key"], {}),
            (["--listen", "127.0.0.1:1"], {}),
            (["--insecure-plain-tcp"], {}),
            ([], {"LISTEN_PORT": "1"}),
        ],
    )
    def test_nothing_overrides_it(self, tmp_path: Path, flags: list[str], environment: dict[str, str]) -> None:
        image = self.image(tmp_path, 'listeners = ["0.0.0.0:99"]\n')
        with pytest.raises(ConfigError, match=f"^{(*flags, *environment)[0]}: the image's own configuration decides"):
            parse_config([*image, *flags], environment)

    def test_without_an_image_nothing_changes(self) -> None:
        config = parse_config(["--sealing-key", "key"], {})
        assert config.image is None


KEY_DIGEST = "5e" * 32
TLS = f'listeners = ["0.0.0.0:99"]\ntls.clients = ["{KEY_DIGEST}"]\n'


class TestOtherMachines:
    """An attacker between this machine and another one reads along without TLS: that has to be asked for."""

    def test_the_refusal_names_both_ways_out(self) -> None:
        with pytest.raises(
            ConfigError, match=r"0\.0\.0\.0:1 can be reached .* \[tls\] clients .* --insecure-plain-tcp"
        ):
            parse_config([*KEY, "--listen", "0.0.0.0:1"], {})

    def test_it_can_be_asked_for(self) -> None:
        config = parse_config([*KEY, "--listen", "0.0.0.0:1", "--insecure-plain-tcp"], {})
        assert (config.listen, config.tls_clients) == (Address("0.0.0.0", 1), None)

    def test_one_machine_needs_neither(self) -> None:
        assert parse_config([*KEY, "--listen", "127.0.0.1:1"], {}).tls_clients is None

    def test_an_image_names_its_clients(self, tmp_path: Path) -> None:
        config = parse_config(TestImage().image(tmp_path, TLS), {})
        assert config.tls_clients == (KEY_DIGEST,)

    def test_a_unix_socket_knows_no_tls(self, tmp_path: Path) -> None:
        image = TestImage().image(tmp_path, TLS.replace("0.0.0.0:99", "unix:/run/x/s"))
        with pytest.raises(ConfigError, match="a Unix socket does not use TLS"):
            parse_config(image, {})

    @pytest.mark.parametrize("name", ["SSLKEYLOGFILE", "sslkeylogfile"])
    def test_nobody_has_the_keys_of_tls_written_down(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ConfigError, match=f"^{name} is set: it would write down the keys of TLS"):
            parse_config(TestImage().image(tmp_path, TLS), {name: "/tmp/keys"})
