"""Where an enclave is, and how it is reached."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from enclave_signer.protocol.messages import Credentials
from host_backend.addresses import Address, UnixAddress
from host_backend.enclave.proving import Proving

if TYPE_CHECKING:
    from host_backend.enclave.tls import TlsClient


#: Reads files again, and may raise `ConfigError`; returns what takes them into use and tells whether they have changed.
Reread = Callable[[], Callable[[], bool]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An enclave, and what its sealer uses; the `local` sealer needs nothing.

    Attributes:
        address: Where it listens; its name is resolved again at every attempt.
        credentials: For its sealer.
        uid: Whose process it may be, besides this user's and root's, where it listens on a port of this machine.
        tls: This host's end; None speaks without TLS.
        proving: Judges whether a connection leads to an enclave that is trusted; None trusts whatever answers.
        rereads: Read the files again that the two above are made of.
    """

    address: Address | UnixAddress
    credentials: Credentials = field(default_factory=Credentials)
    uid: int | None = None
    tls: "TlsClient | None" = None
    proving: Proving | None = None
    rereads: tuple[Reread, ...] = ()

    def reread(self) -> Callable[[], bool]:
        """Read all its files again; return what takes them into use and tells whether any has changed.

        Raises:
            ConfigError: One cannot be used.
        """
        uses = [reread() for reread in self.rereads]
        return lambda: sum(use() for use in uses) > 0
