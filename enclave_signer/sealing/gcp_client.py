"""The two calls of Cloud KMS that are used here: Google's messages over Google's channel, with explicit settings.

- They are begun and then waited for, without a thread for each: one takes some 0.25 ms of processor time, most of its time
  the service has it. Many may be under way. One key has a share of them: a key that is slow, as one in another region or
  in hardware may be, leaves room for the others.
- The access token goes with each call. The library is given no credentials, so it looks for none and renews none; and
  its client, which can log keys in clear, is not used.
- Both directions are checked by CRC-32C. What may be answered in a moment is asked again, within the deadline.
- Nothing goes through a proxy, and no settings are looked up.

Importing this module loads the library: 0.5 s and 60 MB.
"""

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import grpc
import trio
from google.cloud.kms_v1 import DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse

from enclave_signer.http_request import open_tls
from enclave_signer.launcher import LAUNCHER_SOCKET
from enclave_signer.sealing import gcp_sts
from enclave_signer.sealing.crc32c import crc32c
from enclave_signer.sealing.gcp_answers import Call, Method, TryAgain, check_decrypted, check_encrypted, failure
from enclave_signer.sealing.gcp_identity import Access
from enclave_signer.sealing.key_shares import KeyShares

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")

HOST = "cloudkms.googleapis.com"
#: Where the calls are. Source: google/cloud/kms/v1/service.proto.
SERVICE = "/google.cloud.kms.v1.KeyManagementService/"
#: Calls at once: one connection to Google's servers takes 100.
CALLS = 96
#: Of these, the most for one key: as many as a host asks for at once; one that is slow leaves half as many for others.
KEY_CALLS = 64
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
        limit_s: Seconds for all attempts of one call, from its first; and for each to get a place.
    """

    def __init__(self, channel: grpc.Channel, limit_s: float) -> None:
        self._channel = channel
        self._limit_s = limit_s
        self._shares = KeyShares(CALLS, KEY_CALLS, limit_s)
        self._encrypt = _Method[EncryptRequest, EncryptResponse](
            channel, Method.ENCRYPT, EncryptRequest, EncryptResponse
        )
        self._decrypt = _Method[DecryptRequest, DecryptResponse](
            channel, Method.DECRYPT, DecryptRequest, DecryptResponse
        )

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    async def encrypt(self, access: Access, key: str, plaintext: bytes, header: bytes) -> bytes:
        """Return a ciphertext; `header` is the additional authenticated data, empty for none.

        Raises:
            SealingError: The service refuses, gave no whole answer, or does not open it.
        """
        call = Call(Method.ENCRYPT, key, access.principal)
        request = EncryptRequest(
            name=key, plaintext=plaintext, plaintext_crc32c=crc32c(plaintext), **_additional(header)
        )

        async def ask(timeout_s: float) -> bytes:
            answer = await self._encrypt.ask(call, request, access, timeout_s)
            check_encrypted(
                call,
                version=answer.name,
                ciphertext=answer.ciphertext,
                checksum=answer.ciphertext_crc32c,
                plaintext_seen=answer.verified_plaintext_crc32c,
                header_seen=answer.verified_additional_authenticated_data_crc32c or not header,
            )
            return answer.ciphertext

        return await self._repeated(call, ask)

    async def decrypt(self, access: Access, key: str, ciphertext: bytes, header: bytes) -> bytes:
        """Return the plaintext of a ciphertext that was made beside this `header`.

        Raises:
            SealingError: The service refuses, gave no whole answer, or does not open it.
        """
        call = Call(Method.DECRYPT, key, access.principal)
        request = DecryptRequest(
            name=key, ciphertext=ciphertext, ciphertext_crc32c=crc32c(ciphertext), **_additional(header)
        )

        async def ask(timeout_s: float) -> bytes:
            answer = await self._decrypt.ask(call, request, access, timeout_s)
            check_decrypted(plaintext=answer.plaintext, checksum=answer.plaintext_crc32c)
            return answer.plaintext

        return await self._repeated(call, ask)

    async def _repeated(self, call: Call, ask: Callable[[float], Awaitable[bytes]]) -> bytes:
        left = _TimeLeft(self._limit_s)
        for pause_s in RETRY_AFTER_S:
            try:
                return await self._once(call, ask, left)
            except TryAgain:
                if left.seconds() <= pause_s:
                    raise
            await trio.sleep(pause_s)
        return await self._once(call, ask, left)

    async def _once(self, call: Call, ask: Callable[[float], Awaitable[bytes]], left: "_TimeLeft") -> bytes:
        async with self._shares.place(call.key):
            # Counted from here: the wait for a place is not the service's.
            return await ask(max(left.seconds(), 0.01))


class _Method(Generic[Asked, Answered]):
    """One method of the service."""

    def __init__(self, channel: grpc.Channel, method: Method, asked: type[Asked], answered: type[Answered]) -> None:
        # The two types are of proto-plus, which has both on their metaclass.
        self._begin = channel.unary_unary(
            f"{SERVICE}{method}",
            request_serializer=asked.serialize,  # type: ignore[attr-defined]
            response_deserializer=answered.deserialize,  # type: ignore[attr-defined]
        )

    async def ask(self, call: Call, request: Asked, access: Access, timeout_s: float) -> Answered:
        """Return the answer; a caller that leaves takes the call back.

        Raises:
            SealingError: The service refuses, or gave none.
        """
        done, trio_token = trio.Event(), trio.lowlevel.current_trio_token()

        def tell(_: grpc.Future) -> None:
            # In a thread of the library's; the last answers may come when all is over.
            with suppress(trio.RunFinishedError):
                trio_token.run_sync_soon(done.set)

        future = self._begin.future(request, timeout=timeout_s, metadata=_metadata(call.key, access))
        try:
            future.add_done_callback(tell)
            await done.wait()
        finally:
            future.cancel()
        if future.code() is not grpc.StatusCode.OK:
            raise failure(call, future.code().name, future.details() or "")
        answer: Answered = future.result()
        return answer


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


def _additional(header: bytes) -> dict[str, Any]:
    if not header:
        return {}
    return {"additional_authenticated_data": header, "additional_authenticated_data_crc32c": crc32c(header)}


def _metadata(key: str, access: Access) -> tuple[tuple[str, str], ...]:
    """Return what goes beside a request: whose it is, and where it must be answered."""
    return ("authorization", f"Bearer {access.text}"), ("x-goog-request-params", f"name={quote(key)}")
