"""Clients that sign their requests: `server.authorized_keys`.

- What a client signs is the key that is asked for and the whole message: a request that somebody heard can be sent
  again, and can only ask again for a signature that was given before. It names no time, and no signing version.
- The keys are tried in the order of the configuration; those of another curve than the signature's are not tried.
- Curves whose verification is slow have one thread at a time between them all, and addresses take turns: whoever
  sends wrong signatures waits behind its own.

Source: Signatory's `pkg/auth`; Octez's `lib_signer_services` for the second form of a proof's request.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from weakref import WeakValueDictionary

from enclave_signer.curves import CurveError, VerifyingKey, curve
from enclave_signer.protocol.messages import PublicKey, Signature, SigningVersion
from enclave_signer.tezos import Family, TezosError, decode, parse_signature, public_key_hash
from host_backend.errors import MalformedRequest, NotAuthenticated, PolicyDenied
from host_backend.ip_addresses import network_of

#: What a client may have signed, any one of these.
Signed = tuple[bytes, ...]


class RequestKeys:
    """The keys that sign requests.

    Attributes:
        hashes: Their hashes, in the order of the configuration.
    """

    def __init__(self, keys: Sequence[PublicKey]) -> None:
        self.hashes = tuple(map(public_key_hash, keys))
        parsed = [curve(key.key_type).parse_public_key(key.data) for key in keys]
        self._keys: tuple[tuple[str, VerifyingKey], ...] = tuple(zip(self.hashes, parsed, strict=True))
        self._slow = asyncio.Lock()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

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
        """
        if not text:
            raise NotAuthenticated("missing authentication signature field")
        candidates = self._candidates(text)
        found = _signer_of((each for each in candidates if not each.slow), signed)
        if found is None and any(each.slow for each in candidates):
            async with self._turn_of(address), self._slow:
                found = await asyncio.to_thread(_signer_of, [each for each in candidates if each.slow], signed)
        if found is None:
            raise PolicyDenied("invalid authentication signature", violation="authentication")
        return found

    def _turn_of(self, address: str) -> asyncio.Lock:
        """Return what lets one request of an address at a time wait for the thread."""
        return self._turns.setdefault(network_of(address), asyncio.Lock())

    def _candidates(self, text: str) -> "list[_Candidate]":
        try:
            decode(text, Family.SIGNATURE)
        except TezosError as error:
            raise MalformedRequest(f"authentication: {error}") from None
        candidates = []
        for pkh, key in self._keys:
            # Of another curve; a generic one may be of any that fits.
            with suppress(TezosError):
                candidates.append(_Candidate(pkh, key, parse_signature(text, key.public_key.key_type)))
        return candidates


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A key, and a signature as one of that key's curve."""

    pkh: str
    key: VerifyingKey
    signature: Signature

    @property
    def slow(self) -> bool:
        return curve(self.signature.key_type).slow


def _signer_of(candidates: Iterable[_Candidate], signed: Signed) -> str | None:
    for candidate in candidates:
        for data in signed:
            with suppress(CurveError):
                candidate.key.verify(candidate.signature, data, SigningVersion.LATEST)
                return candidate.pkh
    return None
