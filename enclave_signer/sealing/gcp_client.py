"""Google's client for Cloud KMS, as it is used here: with explicit settings, so that it looks nothing up.

- It blocks, so each call has a thread, and ends by its own deadline. A call costs some 0.4 ms of processor time; a
  thread waits for the service most of the time, so there may be many. One key has a share of them: a key that is slow,
  as one in another region or in hardware may be, leaves room for the others.
- The access token goes with each call. The library is given no credentials, so it looks for none and renews none.
- Both directions are checked by CRC-32C. What may be answered in a moment is asked again, within the deadline.
- Nothing goes through a proxy, and no settings are looked up.

Importing this module loads the library: 0.5 s and 60 MB.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import trio
from google.api_core.exceptions import GoogleAPICallError
from google.cloud.kms_v1 import KeyManagementServiceClient
from google.cloud.kms_v1.services.key_management_service.transports import KeyManagementServiceGrpcTransport

from enclave_signer.http_request import open_tls
from enclave_signer.launcher import LAUNCHER_SOCKET
from enclave_signer.sealing import gcp_sts
from enclave_signer.sealing.crc32c import crc32c
from enclave_signer.sealing.gcp_answers import Call, Method, TryAgain, check_decrypted, check_encrypted, failure
from enclave_signer.sealing.gcp_identity import Access
from enclave_signer.sealing.key_threads import KeyThreads

HOST = "cloudkms.googleapis.com"
#: Calls at once: one connection to Google's servers takes 100.
THREADS = 96
#: Of these, the most for one key: one that is slow leaves as many for others.
KEY_THREADS = 48
#: Pauses before a call is made again that may be answered in a moment.
RETRY_AFTER_S = (0.1, 0.4)
#: No proxy, and no look-up of settings by DNS. After an outage the service is tried again within two seconds, not two
#: minutes. A connection that is idle for a minute is closed: what lies between may have forgotten it.
CHANNEL_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.client_idle_timeout_ms", 60000),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GcpPlaces:
    """Where the services are. Never configured: other services would get the image's tokens and keys.

    Attributes:
        open_kms: Makes the channel to Cloud KMS.
        open_sts: Opens a stream to Google's STS.
        token_file: Of the launcher.
        launcher_socket: Of the launcher.
    """

    open_kms: Callable[[], grpc.Channel]
    open_sts: Callable[[], Awaitable[trio.abc.Stream]]
    token_file: Path = Path("/run/container_launcher/attestation_verifier_claims_token")
    launcher_socket: Path = LAUNCHER_SOCKET


def google() -> GcpPlaces:
    """Return where Google and the launcher are."""
    return GcpPlaces(open_kms=_open_kms, open_sts=_open_sts)


def _open_kms() -> grpc.Channel:
    return grpc.secure_channel(f"{HOST}:443", grpc.ssl_channel_credentials(), options=CHANNEL_OPTIONS)


async def _open_sts() -> trio.abc.Stream:
    return await open_tls(gcp_sts.HOST, 443)


class KmsClient:
    """Calls of Cloud KMS.

    Args:
        channel: To the service; closed with the client.
        limit_s: Seconds for all attempts of one call, from its first; and for each to get a thread.
    """

    def __init__(self, channel: grpc.Channel, limit_s: float) -> None:
        # At DEBUG the library logs requests and answers, keys in clear and all.
        logging.getLogger("google").setLevel(logging.WARNING)
        self._channel = channel
        self._client = KeyManagementServiceClient(transport=KeyManagementServiceGrpcTransport(channel=channel))
        self._limit_s = limit_s
        self._threads = KeyThreads(THREADS, KEY_THREADS, limit_s)

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    async def encrypt(self, access: Access, key: str, plaintext: bytes, header: bytes) -> bytes:
        """Return a ciphertext; `header` is the additional authenticated data, empty for none.

        Raises:
            SealingError: The service refuses, gave no whole answer, or does not open it.
        """
        call = Call(Method.ENCRYPT, key, access.principal)
        request = {"name": key, "plaintext": plaintext, "plaintext_crc32c": crc32c(plaintext), **_additional(header)}

        def ask(timeout_s: float) -> bytes:
            answer = self._client.encrypt(request, retry=None, timeout=timeout_s, metadata=_bearer(access))
            check_encrypted(
                call,
                version=answer.name,
                ciphertext=answer.ciphertext,
                checksum=answer.ciphertext_crc32c,
                plaintext_seen=answer.verified_plaintext_crc32c,
                header_seen=answer.verified_additional_authenticated_data_crc32c or not header,
            )
            return answer.ciphertext

        return await self._in_thread(call, ask)

    async def decrypt(self, access: Access, key: str, ciphertext: bytes, header: bytes) -> bytes:
        """Return the plaintext of a ciphertext that was made beside this `header`.

        Raises:
            SealingError: The service refuses, gave no whole answer, or does not open it.
        """
        call = Call(Method.DECRYPT, key, access.principal)
        request = {
            "name": key,
            "ciphertext": ciphertext,
            "ciphertext_crc32c": crc32c(ciphertext),
            **_additional(header),
        }

        def ask(timeout_s: float) -> bytes:
            answer = self._client.decrypt(request, retry=None, timeout=timeout_s, metadata=_bearer(access))
            check_decrypted(plaintext=answer.plaintext, checksum=answer.plaintext_crc32c)
            return answer.plaintext

        return await self._in_thread(call, ask)

    async def _in_thread(self, call: Call, ask: Callable[[float], bytes]) -> bytes:
        left = _TimeLeft(self._limit_s)
        for pause_s in RETRY_AFTER_S:
            try:
                return await self._once(call, ask, left)
            except TryAgain:
                if left.seconds() <= pause_s:
                    raise
            await trio.sleep(pause_s)
        return await self._once(call, ask, left)

    async def _once(self, call: Call, ask: Callable[[float], bytes], left: "_TimeLeft") -> bytes:
        try:
            # Counted in the thread: the wait for it is not the service's.
            return await self._threads.run(call.key, lambda: ask(max(left.seconds(), 0.01)))
        except GoogleAPICallError as error:
            status = error.grpc_status_code
            # Its chain holds the request, which may hold a key: nothing of it goes on.
            raise failure(call, "UNKNOWN" if status is None else status.name, error.message or "") from None


class _TimeLeft:
    """The rest of a time limit that begins at the first call."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._until: float | None = None

    def seconds(self) -> float:
        now = time.monotonic()
        if self._until is None:
            self._until = now + self._limit_s
        return self._until - now


def _additional(header: bytes) -> dict[str, object]:
    if not header:
        return {}
    return {"additional_authenticated_data": header, "additional_authenticated_data_crc32c": crc32c(header)}


def _bearer(access: Access) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {access.text}")]
