"""Sealing under keys that a key broker (Confidential Containers' KBS) releases to machines that prove themselves.

- The broker keeps a key-encryption key and gives it out; it seals nothing itself. So the key is fetched once, the sealing
  key derived from it stays in memory, and the broker is not asked again: one that is down stops no signing.
- All keys of the image are fetched at once, when the first session begins. Each has its own outcome: an old one that is
  gone keeps no other back. A refusal is repeated for a while before the broker is asked again.
- A gated key is fetched again for each of its releases; one that the broker does not release is kept no longer.
"""

import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import trio
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from enclave_signer import log
from enclave_signer.errors import SealingError, SealingRefused, again, blob_error
from enclave_signer.protocol.blob import BlobHeader, parse_blob
from enclave_signer.protocol.errors import BadBlob
from enclave_signer.protocol.messages import Credentials, PrivateKey, PublicKey
from enclave_signer.sealing import aes_gcm
from enclave_signer.sealing.base import Sealer, UnsealedKey
from enclave_signer.sealing.kbs_client import AGENT_URL, Fetched, KbsClient, Use, agent_evidence, sample_evidence
from enclave_signer.sealing.kbs_config import KBS, SAMPLE, KbsConfig, KbsKey
from enclave_signer.sealing.kbs_http import Http, trusting
from enclave_signer.sealing.kbs_kek import sealing_key

logger = logging.getLogger(__name__)

#: Seconds for one answer of the broker, or of the attestation agent: hardware takes about one for evidence.
ANSWER_S = 8.0
#: Seconds for a fetch: less than a session has for `Initialize`, and than a host waits.
LIMIT_S = 25.0
#: Seconds until the broker is asked again for what it refused: hosts try every few seconds, and only a person can
#: change it.
REFUSED_S = 30.0

Fetch = Callable[[Sequence[KbsKey]], Awaitable[Fetched]]


@dataclass(slots=True)
class _Attempt:
    """A fetch under way, or what came of it."""

    done: trio.Event = field(default_factory=trio.Event)
    error: SealingError | None = None


class Kbs:
    """The provider of sealers whose keys come from a key broker.

    Args:
        config: Of the image.
        fetch: Asks the broker for keys.
    """

    name = KBS
    takes_legacy = False
    limit_s: float | None = LIMIT_S

    def __init__(self, config: KbsConfig, fetch: Fetch) -> None:
        self._config = config
        self._fetch = fetch
        self._ciphers: dict[KbsKey, AESGCM] = {}
        #: With when each was refused last, in seconds.
        self._refused: dict[KbsKey, tuple[SealingRefused, float]] = {}
        self._attempt: _Attempt | None = None

    def __repr__(self) -> str:
        """Return the names of its keys."""
        return f"Kbs({', '.join(key.name for key in self._config.keys)})"

    async def open_sealer(self, credentials: Credentials) -> Sealer:
        """Return a sealer, once a key is here: where the one that seals is refused, old ones open all the same.

        Raises:
            SealingRefused: The session asks for a key of a broker that the image does not list, or the broker refuses
                all keys.
            SealingUnavailable: No answer, retry later.
        """
        asked = credentials.encryption_key_path
        if asked and asked.startswith(f"{KBS}:") and self._config.key_named(asked) is None:
            raise SealingRefused(f"this image does not allow the key {asked[:200]!r}; {self._listed()}")
        refusals: list[SealingRefused] = []
        for key in self._config.keys:
            try:
                await self.cipher(key)
            except SealingRefused as error:
                refusals.append(error)
            else:
                return _KbsSealer(self, self._config, asked)
        raise refusals[0]

    async def release(self, key: str, credentials: Credentials) -> Sealer:
        """Return a sealer for a key that the broker has released just now; see `KeepingProvider`."""
        known = self._config.key_named(key)
        if known is None:
            raise SealingRefused(f"this image does not list the key {key[:200]!r}; {self._listed()}")
        try:
            fetched = await self._fetch([known])
        except SealingRefused as error:
            self._keep({known: error})
            raise
        self._keep(fetched)
        if known in self._refused:
            raise self._refusal(known)
        return _KbsSealer(self, self._config, credentials.encryption_key_path)

    async def aclose(self) -> None:
        """Nothing is held open."""

    async def cipher(self, key: KbsKey) -> AESGCM:
        """Return what seals under a key.

        Raises:
            SealingRefused: The broker does not release it.
            SealingUnavailable: No answer, retry later.
        """
        while key not in self._ciphers:
            if self._refused_lately(key):
                raise self._refusal(key)
            attempt = self._attempt
            if attempt is None:
                attempt = await self._fetch_missing()
            else:
                await attempt.done.wait()
            if attempt.error is not None:
                raise again(attempt.error)
        return self._ciphers[key]

    def _refused_lately(self, key: KbsKey) -> bool:
        return key in self._refused and trio.current_time() < self._refused[key][1] + REFUSED_S

    def _refusal(self, key: KbsKey) -> SealingRefused:
        refused, _ = self._refused[key]
        return again(refused)

    def _listed(self) -> str:
        return f"it lists {', '.join(key.name for key in self._config.keys[:3])}"

    async def _fetch_missing(self) -> _Attempt:
        attempt = self._attempt = _Attempt()
        missing = [key for key in self._config.keys if key not in self._ciphers and not self._refused_lately(key)]
        try:
            fetched = await self._fetch(missing)
            # A gated one may have been refused since.
            self._keep({key: outcome for key, outcome in fetched.items() if not self._refused_lately(key)})
        except SealingRefused as error:
            self._keep(dict.fromkeys(missing, error))
        except SealingError as error:
            attempt.error = error
        finally:
            self._attempt = None
            attempt.done.set()
        return attempt

    def _keep(self, fetched: Fetched) -> None:
        for key, outcome in fetched.items():
            if isinstance(outcome, SealingRefused):
                self._refused[key] = outcome, trio.current_time()
                self._ciphers.pop(key, None)
                logger.warning("no key from the key broker", extra=log.fields(key=key.name, reason=outcome))
            else:
                self._ciphers[key] = AESGCM(outcome)
                self._refused.pop(key, None)
                logger.info("key fetched from the key broker", extra=log.fields(key=key.name))


class _KbsSealer:
    """Seals under the first key of the image, opens under all."""

    #: The keys stay in memory.
    shared_s = math.inf

    def __init__(self, provider: Kbs, config: KbsConfig, asked: str | None) -> None:
        self._provider = provider
        self._config = config
        self._asked = asked

    async def seal(self, private_key: PrivateKey, public_key: PublicKey) -> bytes:
        """Return a blob; see `Sealer`."""
        key = self._config.keys[0]
        if self._asked not in {None, "", key.name}:
            raise SealingRefused(f"this image does not allow the key for sealing {self._asked!r}; it allows {key.name}")
        header = BlobHeader(KBS, key.name, public_key).encode()
        return aes_gcm.seal(await self._provider.cipher(key), header, private_key)

    async def unseal(self, blob: bytes) -> UnsealedKey:
        """Return the key in a blob; see `Sealer`."""
        try:
            header, authenticated, sealed = parse_blob(blob)
        except BadBlob as error:
            raise blob_error(error) from None
        key = self._config.key_named(header.kek)
        if header.sealer != KBS or key is None:
            held = self._config.keys[0].name
            raise SealingRefused(
                f"blob sealed by {header.sealer[:40]!r} under {header.kek[:200]!r}, which this image does not list: its "
                f"{KBS}.keys begin with {held}"
            )
        return UnsealedKey(aes_gcm.unseal(await self._provider.cipher(key), authenticated, sealed), header.public_key)


def open_kbs(config: KbsConfig, agent_url: str = AGENT_URL, answer_s: float = ANSWER_S) -> Kbs:
    """Return the provider that an image describes; see `open_client`."""
    return Kbs(config, open_client(config, agent_url, answer_s).fetch)


def open_client(
    config: KbsConfig, agent_url: str = AGENT_URL, answer_s: float = ANSWER_S, use: Use = sealing_key
) -> KbsClient:
    """Return what asks the broker that an image describes.

    Args:
        config: Of the image.
        agent_url: Where the attestation agent is.
        answer_s: Seconds for one answer.
        use: What to make of a key that was released.

    Raises:
        ConfigError: The authorities of the broker cannot be read.
    """
    if config.tee == SAMPLE:
        logger.warning("the key broker is shown evidence that anyone can make: not for keys of value")
    if config.ca_file is None:
        logger.warning("the key broker is asked without TLS: not for keys of value")
    tls = trusting(config.ca_file) if config.ca_file is not None else None
    evidence = sample_evidence if config.tee == SAMPLE else agent_evidence(agent_url, answer_s)
    return KbsClient(Http("the key broker", config.url, tls, answer_s), config.tee, evidence, use)
