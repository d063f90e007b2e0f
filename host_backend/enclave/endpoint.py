"""Where an enclave is."""

from dataclasses import dataclass, field

from enclave_signer.protocol.messages import Credentials
from host_backend.addresses import Address, UnixAddress


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An enclave, and what its sealer shall use; the `local` sealer needs nothing."""

    address: Address | UnixAddress
    credentials: Credentials = field(default_factory=Credentials)
