"""The wire over TLS 1.3, on the non-blocking socket itself.

- The enclave's key is made at its start and never leaves the memory of the process; its certificate names no one, as the
  key is proven by attestation. Its dates are wide open: no clock here is to be trusted.
- A client shows a certificate whose key is listed, and no other. Who signed it, and its dates, say nothing: the list is
  what counts.
- No session is resumed: each connection shows both keys.
- Source for the exporter, which the standard library lacks: pyOpenSSL.
"""

import datetime
import errno
import socket
from collections.abc import Callable, Collection
from contextlib import suppress

import trio
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto

from enclave_signer.protocol.binding import EXPORTER_BYTES, EXPORTER_LABEL, Channel, key_digest
from enclave_signer.protocol.codec import encode_error
from enclave_signer.protocol.errors import WireError
from enclave_signer.protocol.framing import encode_frame
from enclave_signer.rights import Client, Rights, Rules
from enclave_signer.serving.peers import Peer

#: What one record holds, and so one read. Source: RFC 8446, section 5.1.
RECORD_BYTES = 16384
#: A handshake, with calls that come together with its end; some 3 KiB with a key on a curve. OpenSSL parses 100 KiB of
#: certificates, for 3 ms, before it asks whether they are accepted.
HANDSHAKE_BYTES = 8192
#: Of what a client that was refused has sent already, how much is read away, so that it still hears why.
_READ_AWAY_BYTES = 65536

_NO_CERTIFICATE = "it showed no certificate"
_TOO_LONG = f"its handshake has more than {HANDSHAKE_BYTES} bytes: it may show its own certificate only"
#: What OpenSSL says of a client that does not speak TLS, and the wire's answer to it: words, in place of a connection that
#: is lost. OpenSSL itself answers such a client nothing.
_NO_TLS = ("wrong version number", "http request")
_SPEAK_TLS = encode_frame(encode_error(WireError("this enclave speaks TLS only: configure `tls` of the vault")))

#: Called with a refused client and the reason.
OnRefused = Callable[[Peer, str], None]


class TlsServer:
    """The enclave's end of all TLS connections.

    Args:
        clients: Which keys clients may show, as `key_digest` names them.
        on_refused: Called for each refused client.
        rules: What each of them may do; None: everything.
    """

    def __init__(self, clients: Collection[str], on_refused: OnRefused, rules: Rules | None = None) -> None:
        self._clients = frozenset(clients)
        self.rules = rules
        self.on_refused = on_refused
        key = ec.generate_private_key(ec.SECP256R1())
        #: The key in the certificate, as the DER of its SubjectPublicKeyInfo.
        self.public_key = public_key_bytes(key.public_key())
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_options(SSL.OP_NO_TICKET)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        # An idle connection has no buffers.
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.use_certificate(_certificate(key))
        context.use_privatekey(key)
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, self._verified)
        self._context = context

    def connection(self, connected: socket.socket) -> SSL.Connection:
        """Return the TLS of a new socket; nothing is sent before the client has spoken."""
        connection = SSL.Connection(self._context, connected)
        connection.set_accept_state()
        return connection

    def _verified(
        self, connection: SSL.Connection, certificate: crypto.X509, _error: int, depth: int, _ok: int
    ) -> bool:
        """Whether a certificate is accepted: the client's own, if its key is listed, and none beside it.

        Those that others made for it would be verified one after the other, before anyone knows who it is.
        """
        if depth:
            return False
        digest = _digest_of(certificate)
        connection.set_app_data(digest)
        return digest in self._clients


class TlsStream:
    """TLS on a connected socket; see `Stream`.

    Args:
        connected: The socket, non-blocking; the stream closes it.
        server: The enclave's end.
        peer: Who is on the other side.
    """

    __slots__ = (
        "_handshake_bytes",
        "_server",
        "_socket",
        "_tls",
        "_waits_for_room",
        "channel",
        "greeting",
        "peer",
        "rights",
    )

    #: Only the two ends can read the stream.
    private = True

    def __init__(self, connected: socket.socket, server: TlsServer, peer: Peer) -> None:
        self._socket = connected
        self._server = server
        self._tls = server.connection(connected)
        self._waits_for_room = False
        self._handshake_bytes = 0
        #: What a proof of this connection is bound to; None before the end of the handshake.
        self.channel: Channel | None = None
        self.rights: Rights | None = None
        #: Whether the handshake is still to be ended.
        self.greeting = True
        self.peer = peer

    def receive(self, most: int) -> bytes | None:
        """Return what has come; see `Stream`."""
        try:
            if self.greeting:
                self._greet()
            # A record at most; what has come beyond it is still to be waited for, and there at once.
            return self._tls.recv(min(most, RECORD_BYTES))
        except SSL.WantReadError:
            self._waits_for_room = False
        except SSL.WantWriteError:
            self._waits_for_room = True
        except SSL.ZeroReturnError:
            return b""
        except SSL.Error as error:
            raise self._lost(error) from error
        return None

    def _greet(self) -> None:
        self._count()
        self._tls.do_handshake()
        client = self._tls.get_peer_certificate(as_cryptography=True)
        if client is None:
            # OpenSSL has refused it already; that no one gets in without a key does not hang on that alone.
            self._server.on_refused(self.peer, _NO_CERTIFICATE)
            raise OSError(errno.EPROTO, f"TLS: {_NO_CERTIFICATE}")
        exported = self._tls.export_keying_material(EXPORTER_LABEL, EXPORTER_BYTES, b"")
        self.channel = Channel(self._server.public_key, public_key_bytes(client.public_key()), exported)
        self.greeting = False
        if self._server.rules is not None:
            digest = key_digest(self.channel.client_key)
            self.rights = self._server.rules.rights_of(Client(key=digest))
            if self.rights is None:
                self._server.on_refused(self.peer, f"no rule in `rights` of the image names its key {digest}")
                raise OSError(errno.EACCES, "no rule names this client")

    def _count(self) -> None:
        # All that is there now: OpenSSL reads until there is no more, or the handshake has ended.
        with suppress(BlockingIOError):
            self._handshake_bytes += len(self._socket.recv(HANDSHAKE_BYTES + 1, socket.MSG_PEEK))
        if self._handshake_bytes > HANDSHAKE_BYTES:
            self._server.on_refused(self.peer, _TOO_LONG)
            raise OSError(errno.EPROTO, f"TLS: {_TOO_LONG}")

    def send(self, data: bytes | memoryview) -> int:
        """Send what there is room for; see `Stream`."""
        try:
            return self._tls.send(data[:RECORD_BYTES])
        except (SSL.WantReadError, SSL.WantWriteError):
            return 0
        except SSL.Error as error:
            raise self._lost(error) from error

    async def wait_readable(self) -> None:
        """Wait for bytes, or the end."""
        if self._tls.pending():
            await trio.lowlevel.checkpoint()
        elif self._waits_for_room:
            await trio.lowlevel.wait_writable(self._socket)
        else:
            await trio.lowlevel.wait_readable(self._socket)

    async def wait_writable(self) -> None:
        """Wait for room."""
        await trio.lowlevel.wait_writable(self._socket)

    def shutdown(self) -> None:
        """Send no more."""
        with suppress(SSL.Error):
            self._tls.shutdown()
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket."""
        if self.greeting:
            # To close upon what was not read would take back the word that says why.
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
                self._socket.recv(_READ_AWAY_BYTES)
        self._socket.close()

    def _lost(self, error: SSL.Error) -> OSError:
        if isinstance(error, SSL.SysCallError):
            return ConnectionError(errno.ECONNRESET, "the connection ended without TLS saying so")
        if not self.greeting:
            return OSError(errno.EPROTO, f"TLS: {_words(error)}")
        words = _words(error)
        digest = self._tls.get_app_data()
        if digest == "":
            words = "its certificate cannot be read"
        elif isinstance(digest, str):
            words = f"its key {digest} is not listed in `tls.clients` of the image"
        elif words in _NO_TLS:
            words = "it does not speak TLS"
            with suppress(OSError):
                self._socket.send(_SPEAK_TLS)
        self._server.on_refused(self.peer, words)
        return OSError(errno.EPROTO, f"TLS: {words}")


def _words(error: SSL.Error) -> str:
    """Return what OpenSSL says, without the names of its functions."""
    reasons = [str(entry[-1]) for entry in error.args[0]] if error.args and isinstance(error.args[0], list) else []
    return ", ".join(reasons) or "the handshake failed"


def _digest_of(certificate: crypto.X509) -> str:
    """Return how configurations name a certificate's key; nothing for one that cannot be read."""
    try:
        return key_digest(public_key_bytes(certificate.to_cryptography().public_key()))
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension, crypto.Error):
        return ""


def public_key_bytes(public_key: CertificatePublicKeyTypes) -> bytes:
    """Return the DER of a key's SubjectPublicKeyInfo."""
    return public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "enclave-signer")])
    always = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC), datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC)
    return x509.CertificateBuilder(name, name, key.public_key(), 1, *always).sign(key, hashes.SHA256())
