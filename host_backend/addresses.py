"""Where a program listens, and where another one is reached."""

from dataclasses import dataclass
from pathlib import Path

from host_backend.ip_addresses import is_loopback

#: How the configuration begins the address of a Unix socket.
UNIX = "unix:"


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or connect; an empty host listens on all interfaces."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return it as `host:port`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return is_loopback(self.host)


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A Unix socket."""

    path: Path

    def __str__(self) -> str:
        """Return it as the configuration writes it."""
        return f"{UNIX}{self.path}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it; it does."""
        return True
