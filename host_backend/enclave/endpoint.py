"""Where an enclave is, and how it is reached."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from enclave_signer.protocol.messages import Credentials
from host_backend.addresses import Address, UnixAddress
from host_backend.enclave.proving import Proving

if TYPE_CHECKING:
    from host_backend.enclave.tls import TlsClient


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An enclave, and what its sealer uses; the `local` sealer needs nothing.

    Attributes:
        address: Where it listens; its name is resolved again at every attempt.
        credentials: For its sealer.
        uid: Whose process it may be, besides this user's and root's, where it listens on a port of this machine.
        tls: This host's end; None speaks without TLS.
        proving: Judges whether a connection leads to an enclave that is trusted; None trusts whatever answers.
    """

    address: Address | UnixAddress
    credentials: Credentials = field(default_factory=Credentials)
    uid: int | None = None
    tls: "TlsClient | None" = None
    proving: Proving | None = None
