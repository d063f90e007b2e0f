"""`server.octez`: Octez' own sockets. Ours: Signatory has none."""

from dataclasses import dataclass

from host_backend.addresses import UNIX, Address, UnixAddress
from host_backend.config.addresses import expanded, parse_listener, parse_unix
from host_backend.yaml_document import Value, given

#: Where octez-signer listens by default.
DEFAULT_PORT = 7732
#: Seconds that a client may be silent after an answer; octez-client opens a connection for each operation.
DEFAULT_IDLE_S = 60.0
#: The most that may be configured for it.
MAX_IDLE_S = 3600.0


@dataclass(frozen=True, slots=True)
class OctezConfig:
    """Where clients come in that speak Octez' own protocol: at one of these at least."""

    unix: UnixAddress | None = None
    tcp: Address | None = None
    #: Seconds that a client may be silent after an answer.
    idle_s: float = DEFAULT_IDLE_S
    #: Whether anybody may have the list of keys.
    known_keys: bool = False

    @property
    def addresses(self) -> tuple[Address | UnixAddress, ...]:
        """Where to listen."""
        return tuple(address for address in (self.unix, self.tcp) if address is not None)


def parse_octez(value: Value | None) -> OctezConfig | None:
    """Return the section `server.octez`; None when there is none.

    Raises:
        ConfigError: With file, line and dotted path of each fault.
    """
    if value is None:
        return None
    fields = value.record(("unix", "tcp", "idle_s", "known_keys"))
    unix, tcp, idle_s = (given(fields, name) for name in ("unix", "tcp", "idle_s"))
    config = OctezConfig(
        unix=None if unix is None else _unix(unix),
        tcp=None if tcp is None else _tcp(tcp),
        idle_s=DEFAULT_IDLE_S if idle_s is None else idle_s.number(1.0, MAX_IDLE_S),
        known_keys="known_keys" in fields and fields["known_keys"].boolean(),
    )
    if not config.addresses:
        value.fail("must say where to listen: `unix: /path`, `tcp: host:port`, or both")
    return config


def _unix(value: Value) -> UnixAddress:
    text = expanded(value)
    address = parse_unix(value, text if text.startswith(UNIX) else UNIX + text)
    assert address is not None  # noqa: S101 -- it begins as it must
    return address


def _tcp(value: Value) -> Address:
    address = parse_listener(value, Address("", DEFAULT_PORT))
    if isinstance(address, UnixAddress):
        value.fail("must be host:port, for example 127.0.0.1:7732; a Unix socket is named by `unix`")
    return address
