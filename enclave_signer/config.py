"""What the daemon is started with: flags and environment, checked, as one frozen value."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from enclave_signer import __version__
from enclave_signer.addresses import DEFAULT_PORT, Address, UnixAddress, parse_listen, parse_port
from enclave_signer.errors import ConfigError
from enclave_signer.protocol.framing import MAX_FRAME_BYTES
from enclave_signer.sealing.local_config import LocalKey
from enclave_signer.tezos.masking import masked

if TYPE_CHECKING:
    from enclave_signer.image import Image

SEALERS = ("local",)
LOG_LEVELS = ("error", "warning", "info", "debug")
#: A host has two or three connections, `doctor` and every command some, and what just broke may still count.
MIN_CONNECTIONS = 8
#: The variable that has TLS libraries write down their keys.
KEY_LOG = "SSLKEYLOGFILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one client, or all of them, may take of the daemon."""

    #: Connections at once: a host holds two, a command one or two. Each costs a file descriptor and its buffer.
    max_connections: int = 256
    #: Bytes of calls that a connection may have waiting: one whole frame, and some hundred calls of the usual size.
    buffer_bytes: int = MAX_FRAME_BYTES + 65536
    #: Seconds until `Initialize` succeeded, which may have to ask a cloud; strangers are gone after it.
    initialize_s: float = 30.0
    #: Seconds for the rest of a frame after its first bytes: 128 KiB is nothing, even over a slow line.
    frame_s: float = 10.0
    #: Seconds for a client to take its answers.
    write_s: float = 10.0
    #: Seconds of silence after which an initialized connection is closed; 0 never: a host may have nothing to sign for
    #: days, and keep-alive finds those that are gone.
    idle_s: float = 0.0
    #: Calls of one connection under way at once, so that its openings overlap; its part of the time ends a turn earlier.
    max_in_flight: int = 64
    #: Keys that one connection may keep open, 8 bytes each where they are open already; the largest custodians have
    #: some thousands.
    max_handles: int = 16384
    #: Keys that all connections together may keep open, remembered ones included: some 150 MiB.
    max_open_keys: int = 65536
    #: Seconds for which an opened key is remembered after its last connection: a host is back within seconds, a
    #: machine that restarts within minutes.
    retain_s: float = 300.0
    #: Pairs of a key and a chain that the guard can tell apart, some 70 MiB: as many keys as may be open.
    max_guarded: int = 65536

    @property
    def connections_per_address(self) -> int:
        """Connections of one address: half of all, and what a host and its commands need in any case."""
        return min(self.max_connections, max(self.max_connections // 2, MIN_CONNECTIONS))

    def connections_of_share(self, shares: int | None) -> int:
        """Return how many connections one of so many shares has; None: one of the addresses."""
        return self.connections_per_address if shares is None else max(1, self.max_connections // shares)

    @property
    def open_keys_per_address(self) -> int:
        """Keys that all connections of one address may keep open: half of all, and those of one in any case."""
        return min(self.max_open_keys, max(self.max_open_keys // 2, self.max_handles))

    def open_keys_of_share(self, shares: int | None) -> int:
        """Return how many keys one of so many shares may keep open; None: one of the addresses."""
        return self.open_keys_per_address if shares is None else max(1, self.max_open_keys // shares)


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything the daemon needs to know to start."""

    listen: Address | UnixAddress
    local_key: LocalKey | None
    log_level: str
    json_log: bool = False
    #: Sign BLS with py_ecc where libblst cannot be had: 400 times slower, not in constant time.
    slow_bls: bool = False
    #: Refuse to sign two consensus messages for one right, see `enclave_signer.guard`.
    guard: bool = True
    limits: Limits = DEFAULT_LIMITS
    #: Keys that clients of a port may show, where it speaks TLS.
    tls_clients: tuple[str, ...] | None = None
    #: What the image says of itself; its sealers are used then, and `local_key` is not.
    image: "Image | None" = None


def parse_config(arguments: Sequence[str], environment: Mapping[str, str]) -> Config:
    """Return the configuration that the command line and the environment ask for.

    Raises:
        ConfigError: A value cannot be used; the text names the flag or variable.
        SystemExit: For `--help`, `--version` and unknown flags, as argparse does.
    """
    flags = _parser().parse_args(arguments)
    image = None if flags.image is None else _image(flags.image)
    if image is not None:
        _nothing_overrides(image, flags, environment)
    elif flags.sealing_key is None:
        raise ConfigError("--sealer local needs --sealing-key FILE")
    listen = _listen(image.listeners[0] if image is not None and image.listeners else flags.listen, environment)
    tls_clients = image.tls_clients if image is not None else None
    _check_tls(listen, environment, tls=tls_clients is not None, insecure=_insecure(image, flags))
    if image is not None:
        from enclave_signer.rights_config import check_rights  # noqa: PLC0415 -- as `read_image`

        check_rights(image.rights, image.unix_socket, listen, tls=tls_clients is not None)
    return Config(
        listen=listen,
        tls_clients=tls_clients,
        local_key=_local_key(flags),
        log_level=flags.log,
        json_log=flags.json_log,
        slow_bls=flags.slow_bls,
        guard=not flags.no_guard,
        limits=Limits(**{limit.field: _checked(limit, getattr(flags, limit.field)) for limit in _LIMITS}),
        image=image,
    )


def _image(path: Path) -> "Image":
    from enclave_signer.image import read_image  # noqa: PLC0415 -- a daemon that has none starts earlier

    return read_image(path)


def _local_key(flags: argparse.Namespace) -> LocalKey | None:
    if flags.sealing_key is None:
        return None
    return LocalKey(flags.sealing_key, make=flags.make_sealing_key, group_may_read=flags.group_may_read)


def _insecure(image: "Image | None", flags: argparse.Namespace) -> bool:
    return bool(flags.insecure_plain_tcp) if image is None else image.insecure_plain_tcp


def _check_tls(listen: Address | UnixAddress, environment: Mapping[str, str], *, tls: bool, insecure: bool) -> None:
    """Pass when no other machine can read along, or that is what was asked for.

    Raises:
        ConfigError: Otherwise.
    """
    if tls and isinstance(listen, UnixAddress):
        raise ConfigError(
            f"{listen}: a Unix socket does not use TLS: leave `tls` out of the image, or listen on a port"
        )
    if tls and (name := next((name for name in environment if name.upper() == KEY_LOG), None)) is not None:
        raise ConfigError(f"{name} is set: it would write down the keys of TLS; remove it from the environment")
    if not (tls or insecure or listen.is_loopback):
        raise ConfigError(
            f"{listen} can be reached by other machines, and without TLS they can read along, and get signed what they like: "
            "name [tls] clients in --image FILE, or listen on 127.0.0.1; --insecure-plain-tcp (in an image: "
            "insecure_plain_tcp = true) allows it for a private network"
        )


def _nothing_overrides(image: "Image", flags: argparse.Namespace, environment: Mapping[str, str]) -> None:
    given = {
        "--sealer": flags.sealer,
        "--sealing-key": flags.sealing_key,
        "--make-sealing-key": flags.make_sealing_key or None,
        "--group-may-read-sealing-key": flags.group_may_read or None,
        "--insecure-plain-tcp": flags.insecure_plain_tcp or None,
    }
    if image.listeners:
        given |= {"--listen": flags.listen, "LISTEN_PORT": environment.get("LISTEN_PORT")}
    for name, value in given.items():
        if value is not None:
            raise ConfigError(f"{name}: the image's own configuration decides about that, leave it out")


@dataclass(frozen=True, slots=True)
class _Limit:
    """A limit that can be set: its flag, its field in `Limits`, its minimum, and its help."""

    flag: str
    field: str
    minimum: int
    unit: str
    help: str


_LIMITS = (
    _Limit(
        "--max-connections",
        "max_connections",
        1,
        "N",
        "clients at once, half of them from one address; new ones replace silent ones",
    ),
    _Limit("--max-in-flight", "max_in_flight", 1, "N", "calls of one client in progress at once"),
    # Less than 4 KiB per read would make a host's pipeline a series of small turns.
    _Limit("--max-buffer", "buffer_bytes", MAX_FRAME_BYTES + 4096, "BYTES", "calls of one client waiting in memory"),
    _Limit("--max-keys", "max_handles", 1, "N", "keys that one client may keep open"),
    _Limit("--max-open-keys", "max_open_keys", 1, "N", "keys open in total, half of them for one address"),
    _Limit("--max-guarded", "max_guarded", 1, "N", "pairs of key and chain that the guard holds; more are refused"),
    _Limit("--idle", "idle_s", 0, "SECONDS", "close a client after so long a silence; 0 for never"),
    _Limit("--retain", "retain_s", 0, "SECONDS", "keep opened keys for so long after their last client left"),
)


def _checked(limit: _Limit, value: int) -> int:
    if value < limit.minimum:
        raise ConfigError(f"{limit.flag} must be at least {limit.minimum}")
    return value


_IMAGE_HELP = "configuration of the image: its sealers, their keys, its address; no flag overrides it"
_EXAMPLES = """examples:
  enclave-signer --sealing-key sealing.key --make-sealing-key
  enclave-signer --image image.toml"""


class Parser(argparse.ArgumentParser):
    """A parser whose errors repeat no secret key that was given by mistake."""

    def error(self, message: str) -> NoReturn:
        """Say the fault, and exit."""
        super().error(masked(message))


def _parser() -> Parser:
    parser = Parser(
        prog="enclave-signer",
        usage="%(prog)s [OPTIONS]",
        description="Hold Tezos keys and sign with them, for a host that speaks length-prefixed CBOR.",
        epilog=_EXAMPLES,
        formatter_class=_Help,
        add_help=False,
    )
    _add_listening(parser.add_argument_group("listening"))
    _add_sealing(parser.add_argument_group("sealing"))
    signing = parser.add_argument_group("signing")
    signing.add_argument(
        "--no-guard", action="store_true", help="sign two consensus messages for one right when asked to"
    )
    signing.add_argument(
        "--slow-bls", action="store_true", help="sign BLS with py_ecc: not constant time, not for keys of value"
    )
    _add_limits(parser.add_argument_group("limits"))
    log = parser.add_argument_group("logging")
    log.add_argument("--log", choices=LOG_LEVELS, default="info", help="minimum log level (default: %(default)s)")
    log.add_argument("--json-log", action="store_true", help="log as JSON, one object per line")
    other = parser.add_argument_group("this program")
    other.add_argument("-h", "--help", action="help", help="show this help and exit")
    other.add_argument(
        "--version", action="version", version=f"enclave-signer {__version__}", help="show the version and exit"
    )
    return parser


class _Help(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the examples, and puts a long option on a line of its own."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26)


def _add_listening(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--listen",
        metavar="ADDRESS",
        help=f"address to listen on: HOST:PORT, port 0 for a free one; or unix:PATH, a socket in a folder of mode 0700 that "
        f"is made if missing (default: 127.0.0.1, port $LISTEN_PORT or {DEFAULT_PORT})",
    )
    group.add_argument(
        "--insecure-plain-tcp",
        action="store_true",
        help="listen beyond this machine without TLS: others on the network can read along, and get signed what the guard "
        "allows; imports of private keys in clear are refused",
    )


def _add_sealing(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--image", metavar="FILE", type=Path, help=_IMAGE_HELP)
    group.add_argument(
        "--sealer", choices=SEALERS, help=f"sealer of private keys, without --image (default: {SEALERS[0]})"
    )
    group.add_argument("--sealing-key", metavar="FILE", type=Path, help="key file of the local sealer")
    group.add_argument(
        "--make-sealing-key", action="store_true", help="make that file, 0600, with a new key, if it is missing"
    )
    group.add_argument(
        "--group-may-read-sealing-key",
        dest="group_may_read",
        action="store_true",
        help="accept a key file that its group can read, as orchestrators mount secrets",
    )


def _add_limits(group: argparse._ArgumentGroup) -> None:
    for limit in _LIMITS:
        group.add_argument(
            limit.flag,
            dest=limit.field,
            metavar=limit.unit,
            type=int,
            default=int(getattr(DEFAULT_LIMITS, limit.field)),
            help=f"{limit.help} (default: %(default)s)",
        )


def _listen(listen: str | None, environment: Mapping[str, str]) -> Address | UnixAddress:
    if listen is None:
        # The local sealer protects nothing from a process that has its key file: only this machine may come near it.
        return Address("127.0.0.1", parse_port(environment.get("LISTEN_PORT", str(DEFAULT_PORT)), "LISTEN_PORT"))
    return parse_listen(listen)
