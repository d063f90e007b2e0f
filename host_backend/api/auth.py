"""Clients that sign their requests: `server.authorized_keys`.

- What a client signs is the key that is asked for and the whole message: a request that somebody heard can be sent
  again, and can only ask again for a signature that was given before. It names no time, and no signing version.
- Keys that have signed for an address of late are tried at once, where that takes no longer than any other request.
- All others are tried in a thread, for one request at a time, and addresses take turns: a client with wrong signatures
  waits behind its own. They come in the order of the configuration; keys of another curve than the signature's are not
  tried.

Source: Signatory's `pkg/auth`; Octez's `lib_signer_services` for the second form of a proof's request.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from enclave_signer.curves import CurveError, VerifyingKey, curve
from enclave_signer.protocol.messages import KeyType, PublicKey, Signature, SigningVersion
from enclave_signer.tezos import Family, TezosError, decode, parse_signature, public_key_hash
from host_backend.errors import MalformedRequest, NotAuthenticated, PolicyDenied
from host_backend.ip_addresses import network_of
from host_backend.turns import Turns

#: Requests that may wait until keys are tried. With 100 keys each takes 10 ms, and the last one of an address waits some
#: 3 s; with 100 of BLS, 130 ms and half a minute.
MAX_WAITING = 1024
#: Of one address.
MAX_WAITING_OF_ADDRESS = 256
#: Keys of an address that are tried at once, 0.1 ms each: of the bakers and wallets of one machine.
RECENT_KEYS = 3
#: Addresses of which such keys are known; those that signed last.
RECENT_ADDRESSES = 1024

_MISSING = "missing authentication signature field"

#: What a client may have signed, any one of these.
Signed = tuple[bytes, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Key:
    """A key that may sign requests."""

    pkh: str
    key: VerifyingKey

    @property
    def key_type(self) -> KeyType:
        return self.key.public_key.key_type

    @property
    def slow(self) -> bool:
        return self.key_type.facts.slow


class RequestKeys:
    """The keys that sign requests.

    Attributes:
        hashes: Their hashes, in the order of the configuration.
    """

    def __init__(self, keys: Sequence[PublicKey]) -> None:
        self._keys = [_Key(public_key_hash(key), curve(key.key_type).parse_public_key(key.data)) for key in keys]
        self.hashes = tuple(key.pkh for key in self._keys)
        self._turns = Turns("requests with signatures", share=MAX_WAITING_OF_ADDRESS, limit=MAX_WAITING)
        #: By address; those that signed last come last.
        self._recent: dict[str, tuple[_Key, ...]] = {}

    async def authenticate(self, text: str | None, address: str, signed: Signed) -> str:
        """Return the hash of the key that signed a request.

        Args:
            text: The parameter `authentication`; None when there is none.
            address: The network address that the request came from.
            signed: What may have been signed.

        Raises:
            NotAuthenticated: There is no signature.
            MalformedRequest: It is none.
            PolicyDenied: No key made it.
            TooManyWait: Many others wait for their signatures to be tried.
        """
        if not text:
            raise NotAuthenticated(_MISSING)
        return await self._authenticate(self._signatures(text), address, signed)

    async def authenticate_bytes(self, data: bytes, address: str, signed: Signed) -> str:
        """Return the hash of the key that signed a request; see `authenticate`.

        Args:
            data: The signature, of any curve that has such sizes; empty when there is none.
            address: The network address that the request came from.
            signed: What may have been signed.
        """
        if not data:
            raise NotAuthenticated(_MISSING)
        key_types = {key.key_type for key in self._keys if key.key_type.facts.signature_bytes == len(data)}
        return await self._authenticate({each: Signature(each, data) for each in key_types}, address, signed)

    async def _authenticate(self, signatures: Mapping[KeyType, Signature], address: str, signed: Signed) -> str:
        network = network_of(address)
        recent = self._recent.get(network, ())
        at_once = [key for key in recent if not key.slow]
        found = _signer_of(at_once, signatures, signed)
        if found is None:
            others = [key for key in dict.fromkeys((*recent, *self._keys)) if key not in at_once]
            if any(key.key_type in signatures for key in others):
                found = await self._turns.compute(address, 0, _signer_of, others, signatures, signed)
        if found is None:
            raise PolicyDenied("invalid authentication signature", violation="authentication")
        self._remember(network, found)
        return found.pkh

    def _signatures(self, text: str) -> Mapping[KeyType, Signature]:
        """Return what a text is as a signature of each curve of ours: a generic one may be of any that fits."""
        try:
            decode(text, Family.SIGNATURE)
        except TezosError as error:
            raise MalformedRequest(f"authentication: {error}") from None
        signatures = {}
        for key_type in {key.key_type for key in self._keys}:
            with suppress(TezosError):
                signatures[key_type] = parse_signature(text, key_type)
        return signatures

    def _remember(self, network: str, key: _Key) -> None:
        keys = self._recent.pop(network, ())
        if keys[:1] != (key,):
            keys = (key, *(each for each in keys if each is not key))[:RECENT_KEYS]
        self._recent[network] = keys
        if len(self._recent) > RECENT_ADDRESSES:
            del self._recent[next(iter(self._recent))]


def _signer_of(keys: Iterable[_Key], signatures: Mapping[KeyType, Signature], signed: Signed) -> _Key | None:
    for each in keys:
        for data in signed if each.key_type in signatures else ():
            with suppress(CurveError):
                each.key.verify(signatures[each.key_type], data, SigningVersion.LATEST)
                return each
    return None
