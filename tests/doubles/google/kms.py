"""Cloud KMS for symmetric keys, over gRPC: checks the caller, both checksums and the additional data, as the service does.

Callers are known by the access tokens that STS issued for an image; a key is granted to images, by their digests.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

import grpc
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.cloud.kms_v1 import DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse

from enclave_signer.sealing.crc32c import crc32c
from tests.doubles.google.tokens import DIGEST
from tests.doubles.processes import PATIENCE_S

KEY = "projects/tz-keys/locations/europe-west4/keyRings/signer/cryptoKeys/seal"
ENCRYPT, DECRYPT = "cloudkms.cryptoKeyVersions.useToEncrypt", "cloudkms.cryptoKeyVersions.useToDecrypt"
BOTH = frozenset({ENCRYPT, DECRYPT})
#: As many as the sealer has.
THREADS = 96

Code: TypeAlias = grpc.StatusCode


@dataclass(slots=True)
class Version:
    """A version of a key; a destroyed one is disabled, and has forgotten its secret."""

    cipher: AESGCM = field(default_factory=lambda: AESGCM(os.urandom(32)))
    enabled: bool = True


@dataclass(slots=True)
class Key:
    """A key, and what images may do with it, by their digests."""

    grants: dict[str, frozenset[str]] = field(default_factory=lambda: {DIGEST: BOTH})
    versions: dict[int, Version] = field(default_factory=lambda: {1: Version()})
    primary: int = 1

    def rotate(self) -> None:
        self.primary = max(self.versions) + 1
        self.versions[self.primary] = Version()

    def disable(self, number: int) -> None:
        self.versions[number].enabled = False

    def enable(self, number: int) -> None:
        self.versions[number].enabled = True

    def destroy(self, number: int) -> None:
        self.versions[number] = Version(enabled=False)


@dataclass(frozen=True, slots=True)
class Fault:
    """In place of an answer: a status; or the answer, late or spoilt."""

    status: Code | None = None
    details: str = "said by the double"
    delay_s: float = 0.0
    #: Wait until so many calls do.
    gathered: threading.Barrier | None = None
    spoil: Callable[[Any], None] = lambda _: None
    #: Which calls it befalls: the name of the method, or all.
    method: str | None = None
    #: Which key; None for all.
    key: str | None = None
    #: How often; None for ever.
    times: int | None = None


class KmsDouble(grpc.GenericRpcHandler):  # type: ignore[misc]
    """The service.

    Args:
        identities: What images access tokens stand for; those of `StsDouble.issued`.

    Attributes:
        keys: By name.
        fault: What befalls calls.
        calls: Methods, in the order they were asked.
        asked: Set at the first call.
    """

    def __init__(self, identities: Mapping[str, str]) -> None:
        self.identities = identities
        self.keys: dict[str, Key] = {KEY: Key()}
        self.fault: Fault | None = None
        self.calls: list[str] = []
        self.asked = threading.Event()
        self._befallen = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def break_with(self, fault: Fault | None) -> None:
        with self._lock:
            self.fault, self._befallen = fault, 0

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        method = handler_call_details.method.rpartition("/")[2]
        bearer = dict(handler_call_details.invocation_metadata).get("authorization", "")
        methods: dict[str, tuple[Any, Any, Any]] = {
            "Encrypt": (self._encrypt, EncryptRequest, EncryptResponse),
            "Decrypt": (self._decrypt, DecryptRequest, DecryptResponse),
        }
        call, request, response = methods[method]

        def handle(message: Any, context: grpc.ServicerContext) -> Any:
            with self._lock:
                self.calls.append(method)
            self.asked.set()
            fault = self._fault_of(method, message.name)
            if fault.delay_s:
                self._ended.wait(fault.delay_s)
            if fault.gathered is not None:
                fault.gathered.wait(PATIENCE_S)
            if fault.status is not None:
                _abort(context, fault.status, fault.details)
            answer = call(message, self._permitted(message.name, bearer, method, context), context)
            fault.spoil(answer)
            return answer

        return grpc.unary_unary_rpc_method_handler(handle, request.deserialize, response.serialize)

    def _fault_of(self, method: str, key: str) -> Fault:
        with self._lock:
            fault = self.fault
            if fault is None or self._befallen == fault.times:
                return Fault()
            if (fault.method or method, fault.key or key) != (method, key):
                return Fault()
            self._befallen += 1
            return fault

    def _permitted(self, name: str, bearer: str, method: str, context: grpc.ServicerContext) -> Key:
        digest = self.identities.get(bearer.removeprefix("Bearer "))
        if not bearer.startswith("Bearer ") or digest is None:
            _abort(context, Code.UNAUTHENTICATED, "Request had invalid authentication credentials.")
        key, permission = self.keys.get(name), f"cloudkms.cryptoKeyVersions.useTo{method}"
        # A caller that may not see a key does not learn whether it exists.
        if key is None or permission not in key.grants.get(digest, frozenset()):
            _abort(context, Code.PERMISSION_DENIED, f"Permission '{permission}' denied on resource '{name}'.")
        return key

    @staticmethod
    def _encrypt(asked: EncryptRequest, key: Key, context: grpc.ServicerContext) -> EncryptResponse:
        additional = asked.additional_authenticated_data
        plain_checked = _check(asked.plaintext, asked.plaintext_crc32c, "plaintext", context)
        additional_checked = _check_additional(asked, context)
        cipher, nonce = _usable(asked.name, key, key.primary, context), os.urandom(12)
        sealed = b"\n$" + key.primary.to_bytes(4, "big") + nonce + cipher.encrypt(nonce, asked.plaintext, additional)
        return EncryptResponse(
            name=f"{asked.name}/cryptoKeyVersions/{key.primary}",
            ciphertext=sealed,
            ciphertext_crc32c=crc32c(sealed),
            verified_plaintext_crc32c=plain_checked,
            verified_additional_authenticated_data_crc32c=additional_checked,
            protection_level=1,
        )

    @staticmethod
    def _decrypt(asked: DecryptRequest, key: Key, context: grpc.ServicerContext) -> DecryptResponse:
        _check(asked.ciphertext, asked.ciphertext_crc32c, "ciphertext", context)
        _check_additional(asked, context)
        number = int.from_bytes(asked.ciphertext[2:6], "big")
        invalid = "Decryption failed: the ciphertext is invalid."
        if asked.ciphertext[:2] != b"\n$" or number not in key.versions:
            _abort(context, Code.INVALID_ARGUMENT, invalid)
        cipher, nonce, sealed = (
            _usable(asked.name, key, number, context),
            asked.ciphertext[6:18],
            asked.ciphertext[18:],
        )
        try:
            plain = cipher.decrypt(nonce, sealed, asked.additional_authenticated_data)
        except (InvalidTag, ValueError):
            _abort(context, Code.INVALID_ARGUMENT, invalid)
        return DecryptResponse(
            plaintext=plain, plaintext_crc32c=crc32c(plain), used_primary=number == key.primary, protection_level=1
        )

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serve on loopback; give the address."""
        self._ended.clear()
        server = grpc.server(futures.ThreadPoolExecutor(THREADS), handlers=[self])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            self._ended.set()
            server.stop(None).wait()


def _abort(context: grpc.ServicerContext, status: Code, text: str) -> NoReturn:
    context.abort(status, text)
    raise AssertionError


def _check_additional(asked: EncryptRequest | DecryptRequest, context: grpc.ServicerContext) -> bool:
    data, sent = asked.additional_authenticated_data, asked.additional_authenticated_data_crc32c
    return _check(data, sent, "additional_authenticated_data", context)


def _check(data: bytes, sent: int | None, what: str, context: grpc.ServicerContext) -> bool:
    if sent is not None and sent != crc32c(data):
        text = f"The checksum in field {what}_crc32c did not match the data in field {what}."
        _abort(context, Code.INVALID_ARGUMENT, text)
    return sent is not None


def _usable(name: str, key: Key, number: int, context: grpc.ServicerContext) -> AESGCM:
    version = key.versions[number]
    if not version.enabled:
        text = f"{name}/cryptoKeyVersions/{number} is not enabled, current state is: DISABLED."
        _abort(context, Code.FAILED_PRECONDITION, text)
    return version.cipher
