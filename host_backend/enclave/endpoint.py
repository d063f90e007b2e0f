"""Where an enclave is."""

from dataclasses import dataclass, field

from enclave_signer.protocol.messages import Credentials
from host_backend.addresses import Address, UnixAddress


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An enclave, and what its sealer uses; the `local` sealer needs nothing.

    Attributes:
        address: Where it listens.
        credentials: For its sealer.
        uid: Whose process it may be, besides this user's and root's, where it listens on a port of this machine.
    """

    address: Address | UnixAddress
    credentials: Credentials = field(default_factory=Credentials)
    uid: int | None = None
