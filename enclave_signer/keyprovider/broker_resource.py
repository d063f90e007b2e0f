"""A key-encryption key (KEK) that the image's key broker releases to this machine: the bytes of a resource, as they are.

A commitment in the configuration says which bytes they must be: who answers a request can choose what it is answered.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence

import trio

from enclave_signer.errors import SealingError, SealingRefused
from enclave_signer.keyprovider.errors import NotAllowed
from enclave_signer.keyprovider.kek_source import answer_of
from enclave_signer.sealing.kbs_config import KbsKey

#: Seconds until the broker is asked again for a key that it refused: a client may try for each layer, several times.
REFUSED_S = 30.0

Fetch = Callable[[Sequence[KbsKey]], Awaitable[Mapping[KbsKey, bytes | SealingRefused]]]


class BrokerResource:
    """A KEK that a broker keeps.

    Args:
        key_id: Its id.
        key: The resource.
        fetch: Asks the broker.
    """

    def __init__(self, key_id: str, key: KbsKey, fetch: Fetch) -> None:
        self._key_id = key_id
        self._key = key
        self._fetch = fetch
        self._refused = ""
        self._ask_again_at = 0.0

    async def fetch(self) -> bytes:
        """Return the KEK; see `KekSource`."""
        if self._refused and trio.current_time() < self._ask_again_at:
            raise NotAllowed(self._refused)
        try:
            outcome = (await self._fetch([self._key]))[self._key]
        except SealingRefused as error:
            outcome = error
        except SealingError as error:
            raise answer_of(error, self._key_id) from error
        if isinstance(outcome, bytes):
            return outcome
        refused = answer_of(outcome, self._key_id)
        self._refused, self._ask_again_at = str(refused), trio.current_time() + REFUSED_S
        raise refused
