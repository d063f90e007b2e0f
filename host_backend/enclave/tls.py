"""TLS 1.3 to the enclave, on the event loop's transport.

- The enclave's certificate is accepted as it comes: who is behind it is for a proof to say (`proving`), which is bound to
  both keys and to this connection. Until then the connection is of no use but to ask for the proof.
- An enclave refuses a client after the client's handshake has ended: TLS 1.3 has it so. The error says so in words.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from cryptography import x509
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from OpenSSL import SSL

from enclave_signer.protocol.binding import EXPORTER_BYTES, EXPORTER_LABEL, Channel, key_digest
from host_backend.errors import ConfigError, EnclaveUnavailable, reason_of

#: What one record holds. Source: RFC 8446, section 5.1.
_RECORD_BYTES = 16384
#: Bytes taken at once from those to send: more would be memory that the system has to map each time.
_SENT_BYTES = 65536
#: What the library raises about certificates that cannot be read.
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension)


class TlsClient:
    """This host's end of all connections to one enclave.

    Args:
        certificate: A file with its certificate, in PEM form; anyone may have signed it.
        key: A file with the key, in PEM form, without a password.

    Raises:
        ConfigError: They cannot be used.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        loaded = _certificate_in(certificate)
        self._files = certificate, key
        self._shown = loaded.public_bytes(Encoding.DER)
        #: Its key, as the DER of its SubjectPublicKeyInfo.
        self.public_key = _spki(loaded)
        context.use_certificate(loaded)
        try:
            context.use_privatekey(_key_in(key))
            context.check_privatekey()
        except SSL.Error:
            raise ConfigError(f"{key}: is not the key of {certificate}") from None
        self._context = context

    def reread(self) -> Callable[[], bool]:
        """Read the files again, for connections that are made from then on; see `Endpoint.reread`.

        Raises:
            ConfigError: They cannot be used.
        """
        fresh = TlsClient(*self._files)

        def use() -> bool:
            changed = fresh._shown != self._shown
            self._context, self._shown, self.public_key = fresh._context, fresh._shown, fresh.public_key
            return changed

        return use

    def connection(self) -> SSL.Connection:
        """Return the TLS of a new connection, which reads and writes nothing by itself."""
        connection = SSL.Connection(self._context, None)
        connection.set_connect_state()
        return connection


class TlsProtocol(asyncio.Protocol):
    """Gives another protocol what was decrypted, and a transport that encrypts.

    Args:
        client: This host's end.
        inner: The other protocol; its connection is made when the handshake has ended.
    """

    def __init__(self, client: TlsClient, inner: asyncio.Protocol) -> None:
        self._inner = inner
        self._tls = client.connection()
        #: The key shown on this connection; the client may show another one on the next.
        self._shown_key = client.public_key
        self._transport: asyncio.Transport | None = None
        self._heard = False
        self._lost = False
        #: Done when the handshake has ended: what a proof of this connection is bound to.
        self.channel: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake; called by asyncio."""
        # uvloop's transport has the interface and not the base class.
        self._transport = cast("asyncio.Transport", transport)
        self._advance(self._greet)

    def data_received(self, data: bytes) -> None:
        """Take what came; called by asyncio."""
        self._tls.bio_write(data)
        if not self.channel.done():
            self._advance(self._greet)
        if self.channel.done() and not self._lost:
            parts: list[bytes] = []
            error = self._tried(lambda: self._read(parts))
            if parts:
                # Before the end that came with them: they may be the last answers of an enclave that stops.
                self._inner.data_received(b"".join(parts))
            if error is not None:
                self._lose(error)

    def connection_lost(self, error: Exception | None) -> None:
        """End; called by asyncio."""
        if not self._lost:
            self._lose(self._unheard() if error is None or not self._heard else error)

    def write(self, data: bytes) -> None:
        """Encrypt and send."""
        if self._lost:
            return
        view = memoryview(data)
        while view:
            view = view[self._tls.send(view[:_RECORD_BYTES]) :]
        self._flush()

    def abort(self) -> None:
        """End the connection at once."""
        assert self._transport is not None  # noqa: S101 -- made before anyone knows of it
        self._transport.abort()

    def get_extra_info(self, name: str) -> Any:
        """Return facts about the connection below."""
        assert self._transport is not None  # noqa: S101 -- as above
        return self._transport.get_extra_info(name)

    def _greet(self) -> None:
        self._tls.do_handshake()
        try:
            enclave = self._tls.get_peer_certificate(as_cryptography=True)
            key = None if enclave is None else _spki(enclave)
        except _UNREADABLE as error:
            raise EnclaveUnavailable(f"the enclave showed a certificate that cannot be read: {error}") from error
        if key is None:
            raise EnclaveUnavailable("the enclave showed no certificate")
        exported = self._tls.export_keying_material(EXPORTER_LABEL, EXPORTER_BYTES, b"")
        self.channel.set_result(Channel(key, self._shown_key, exported))
        self._inner.connection_made(cast("asyncio.Transport", self))

    def _read(self, parts: list[bytes]) -> None:
        while True:
            parts.append(self._tls.recv(_RECORD_BYTES))
            self._heard = True

    def _advance(self, step: Callable[[], None]) -> None:
        """Do a step as far as it can go by now, and end the connection if it fails."""
        error = self._tried(step)
        if error is not None:
            self._lose(error)

    def _tried(self, step: Callable[[], None]) -> Exception | None:
        """Do a step as far as it can go by now, send what it has to say, and return why the connection ends, if so."""
        error: Exception | None = None
        try:
            step()
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            error = self._unheard()
        except SSL.Error as failure:
            error = self._failure(failure)
        except EnclaveUnavailable as failure:
            error = failure
        self._flush()
        return error

    def _flush(self) -> None:
        transport = cast("asyncio.Transport", self._transport)
        size = _SENT_BYTES
        try:
            while size == _SENT_BYTES:
                data = self._tls.bio_read(_SENT_BYTES)
                size = len(data)
                transport.write(data)
        except SSL.WantReadError:
            return

    def _lose(self, error: Exception) -> None:
        self._lost = True
        if self.channel.done():
            self._inner.connection_lost(error)
        else:
            self.channel.set_exception(
                error if isinstance(error, EnclaveUnavailable) else EnclaveUnavailable(str(error))
            )
            # The caller that asked for the connection may have left.
            self.channel.exception()
        self.abort()

    def _failure(self, error: SSL.Error) -> Exception:
        said = str(error.args[0][-1][-1]) if error.args and isinstance(error.args[0], list) and error.args[0] else ""
        if self.channel.done() and not self._heard:
            return self._refused(f" ({said})" if said else "")
        return ConnectionError(f"TLS with the enclave failed: {said or 'it ended'}")

    def _unheard(self) -> Exception:
        if not self.channel.done():
            return ConnectionError(
                "the enclave ended the connection during the TLS handshake: see whether it speaks TLS"
            )
        return ConnectionError("it was ended") if self._heard else self._refused("")

    def _refused(self, said: str) -> Exception:
        return ConnectionError(
            f"the enclave ended it right after the TLS handshake{said}: see whether its image lists this host's key, "
            f"{key_digest(self._shown_key)}, under `clients` of [tls]"
        )


def _certificate_in(file: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file}: {reason_of(error)}") from error
    except _UNREADABLE:
        raise ConfigError(f"{file}: holds no certificate in PEM form") from None


def _key_in(file: Path) -> ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey:
    try:
        key = load_pem_private_key(file.read_bytes(), None)
    except OSError as error:
        raise ConfigError(f"{file}: {reason_of(error)}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError):
        # The last one where the length is wrong.
        raise ConfigError(f"{file}: holds no key in PEM form without a password") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise ConfigError(f"{file}: must be a key on a curve, such as P-256: others make the enclave work longer")
    return key


def _spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
