"""A client that behaves on the enclave's wire as Signatory's `confidentialspace` vault does, with its defects.

- One connection for good, one call at a time under one lock; `Initialize`, then one `Import` after the other.
- A call that is cancelled after it was sent (a deadline in the past) leaves its answer in the stream, and the connection
  is kept: the next call takes that answer for its own.
- After the connection ended every call fails, and nothing connects again.
- `SignWith` has no `version`. Of an `Err` only the outermost text is seen. No time limit, no check of any answer.

Not modelled: answers without `Ok` and `Err`, at which its handler crashes, and writes that a cancellation cuts short.
"""

import socket
import struct
import threading
from types import TracebackType

import cbor2

CREDENTIALS = {"wip_provider_path": "projects/1/p", "encryption_key_path": "projects/p/k"}


class VaultError(Exception):
    """What Signatory's caller gets."""


class Cancelled(Exception):
    """The caller left before the answer came."""


class SignatoryClient:
    """One vault; `handles` of the blobs in their order."""

    def __init__(self, address: tuple[str, int], blobs: list[bytes] | None = None) -> None:
        self._stream = socket.create_connection(address)
        self._reader = self._stream.makefile("rb")
        self._lock = threading.Lock()
        #: Bodies of all calls sent, for comparison with recorded ones.
        self.sent: list[bytes] = []
        self.call({"Initialize": CREDENTIALS})
        self.keys = [self.call({"Import": blob}) for blob in blobs or []]

    def __enter__(self) -> "SignatoryClient":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._reader.close()
        self._stream.close()

    def import_unencrypted(self, curve: str, secret: bytes) -> object:
        return self.call({"ImportUnencrypted": {curve: secret}})

    def generate_and_import(self, curve: str) -> object:
        return self.call({"GenerateAndImport": curve})

    def sign(self, handle: int, message: bytes, version: int = 2, *, cancel: bool = False) -> object:
        return self.call({"Sign": {"handle": handle, "message": message, "version": version}}, cancel=cancel)

    def sign_with(self, blob: bytes, message: bytes) -> object:
        return self.call({"SignWith": {"encrypted_private_key": blob, "message": message}})

    def prove_possession(self, handle: int) -> object:
        return self.call({"ProvePossession": handle})

    def call(self, call: object, *, cancel: bool = False) -> object:
        """Return what stands in `Ok`.

        Args:
            call: A map of one entry.
            cancel: Leave once the call is sent.

        Raises:
            VaultError: Anything went wrong.
            Cancelled: As asked.
        """
        body = cbor2.dumps(call)
        with self._lock:
            self.sent.append(body)
            try:
                self._stream.sendall(struct.pack(">I", len(body)) + body)
                if cancel:
                    raise Cancelled
                reply = self._receive()
            except OSError as error:
                raise VaultError(f"(ConfidentialSpace): {error.strerror}") from error
        if "Ok" in reply:
            return reply["Ok"]
        raise VaultError(f"(ConfidentialSpace): RPC Error: {reply['Err']['message']}")

    def _receive(self) -> dict[str, dict[str, object]]:
        head = self._reader.read(4)
        if len(head) < 4:
            raise VaultError("(ConfidentialSpace): EOF")
        reply = cbor2.loads(self._reader.read(struct.unpack(">I", head)[0]))
        assert isinstance(reply, dict)
        return reply
