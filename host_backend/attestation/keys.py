"""Google's keys for tokens of type OIDC: fetched over HTTPS, bounded, kept, and fetched again when there is a new one.

- Kept keys are used for an hour, and up to a day while Google cannot be reached: a verifier can go on meanwhile.
- A token with an unknown key id has them fetched at once, but once a minute at most: strangers' tokens cost nothing. Where
  the last fetch failed, it is tried again soon: nothing is proven without the key.

Source: https://confidentialcomputing.googleapis.com/.well-known/openid-configuration names the place.
"""

import asyncio
import json
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import h11

from host_backend.attestation.token import NoToken, read_token
from host_backend.attestation.trust import TrustedKeys
from host_backend.errors import KeysUnavailable, reason_of
from host_backend.http_exchange import NoAnswer, Server, exchange

HOST = "www.googleapis.com"
PATH = "/service_accounts/v1/metadata/jwk/signer@confidentialspace-sign.iam.gserviceaccount.com"
#: Bytes of the keys; four have some 2 KiB.
MAX_BYTES = 65536
#: Seconds for all of a fetch.
LIMIT_S = 10.0
#: Seconds for which fetched keys are as good as new.
FRESH_S = 3600.0
#: Seconds for which they are used while there are no newer ones to be had. A key that Google takes back counts no longer.
KEPT_S = 86_400.0
#: Seconds between two fetches, however many ask.
PAUSE_S = 60.0
#: The same after one that failed, while the key that is asked for is not known.
RETRY_S = 5.0
#: What they are called in texts.
_WHAT = "Google's keys for tokens"


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """Where keys are published.

    Attributes:
        host: Of HTTPS.
        port: Likewise.
        path: Likewise.
        tls: Which authorities may say that it is this host.
    """

    host: str = HOST
    port: int = 443
    path: str = PATH
    tls: ssl.SSLContext | None = None


async def fetch_keys(place: KeyPlace = KeyPlace()) -> TrustedKeys:
    """Return the keys that are published now; follows no redirection and no proxy.

    Raises:
        KeysUnavailable: They cannot be had.
    """
    server = Server(place.host, place.port, place.tls or ssl.create_default_context())
    headers = [("Host", place.host), ("Accept", "application/json"), ("Connection", "close")]
    try:
        async with asyncio.timeout(LIMIT_S):
            answer = await exchange(
                server, h11.Request(method="GET", target=place.path, headers=headers), most_bytes=MAX_BYTES
            )
        if answer.status != 200:
            raise KeysUnavailable(f"{_WHAT}: HTTP status {answer.status}")
        return TrustedKeys.from_jwks(json.loads(answer.body))
    except TimeoutError:
        raise KeysUnavailable(f"{_WHAT}: {place.host}: no answer within {LIMIT_S:g} s") from None
    except ssl.SSLError as error:
        raise KeysUnavailable(f"{_WHAT}: {place.host}: {error.reason or 'no TLS'}") from error
    except OSError as error:
        raise KeysUnavailable(f"{_WHAT}: {place.host}: {reason_of(error)}") from error
    except NoAnswer as error:
        raise KeysUnavailable(f"{_WHAT}: {error}") from error
    except (h11.ProtocolError, ValueError, RecursionError) as error:
        raise KeysUnavailable(f"{_WHAT} cannot be read: {type(error).__name__}") from error


class KeySource:
    """Keeps Google's keys, and has them fetched when that is due; one fetch at a time.

    Args:
        fetch: Fetches them.
        clock: Seconds, never going back.
    """

    def __init__(
        self, fetch: Callable[[], Awaitable[TrustedKeys]] = fetch_keys, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._keys: TrustedKeys | None = None
        self._fetched = self._tried = -float("inf")
        self._problem = ""

    async def keys_for(self, token: str) -> TrustedKeys:
        """Return keys among which is the one that a token names; whether it signed the token is for the verifier.

        Raises:
            KeysUnavailable: There is none, even among those just fetched, or they cannot be had.
        """
        try:
            header, _ = read_token(token)
        except NoToken:
            # The verifier names the fault, whichever keys it is given.
            return self._keys or TrustedKeys({})
        kid = str(header.get("kid"))
        async with self._one_at_a_time:
            pause_s = RETRY_S if self._problem and not self._knows(kid) else PAUSE_S
            if (self._age() >= FRESH_S or not self._knows(kid)) and self._clock() - self._tried >= pause_s:
                await self._renew()
            if self._knows(kid) and self._keys is not None:
                return self._keys
        raise KeysUnavailable(self._problem or "Google publishes no key with the id that the token names: retry later")

    def _age(self) -> float:
        return self._clock() - self._fetched

    def _knows(self, kid: str) -> bool:
        return self._keys is not None and self._age() < KEPT_S and kid in self._keys.by_id

    async def _renew(self) -> None:
        before, self._tried = self._tried, self._clock()
        try:
            self._keys = await self._fetch()
        except KeysUnavailable as error:
            self._problem = str(error)
        except asyncio.CancelledError:
            # The caller leaves; the next one has them fetched.
            self._tried = before
            raise
        else:
            self._fetched, self._problem = self._clock(), ""
