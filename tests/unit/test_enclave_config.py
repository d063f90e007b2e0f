"""The daemon's flags and environment."""

from pathlib import Path

import pytest

from enclave_signer.config import DEFAULT_PORT, is_loopback, parse_config
from enclave_signer.errors import ConfigError

KEY = ["--sealing-key", "key"]


def test_defaults_are_tee_signers_port_on_loopback() -> None:
    config = parse_config(KEY, {})
    assert (config.host, config.port) == ("127.0.0.1", DEFAULT_PORT)
    assert config.sealing_key == Path("key")


def test_listen_port_is_taken_from_the_environment_and_the_flag_wins() -> None:
    assert parse_config(KEY, {"LISTEN_PORT": "2345"}).port == 2345
    config = parse_config([*KEY, "--listen", "[::1]:99"], {"LISTEN_PORT": "2345"})
    assert (config.host, config.port) == ("::1", 99)


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


def test_limits_are_positive() -> None:
    assert parse_config([*KEY, "--max-connections", "7"], {}).limits.max_connections == 7
    with pytest.raises(ConfigError, match="--max-connections"):
        parse_config([*KEY, "--max-connections", "0"], {})


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)]
)
def test_loopback_is_known(host: str, *, expected: bool) -> None:
    assert is_loopback(host) == expected
