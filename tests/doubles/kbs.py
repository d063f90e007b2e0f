"""A key broker (Confidential Containers' KBS) with the rules of Trustee 0.21, and what tests may do to it.

It keeps exact versions, sessions and their cookies, nonces, the binding of evidence, the names of refusals, policies that
keep sample evidence from resources, tokens as they look, JWE by the key of the handshake, and the operator's token. It
verifies no signature of hardware.
"""

import base64
import hashlib
import json
import re
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from tests.doubles.certificates import Authority

TEES = {"az-snp-vtpm", "az-tdx-vtpm", "snp", "sgx", "tdx", "cca", "csv", "se", "tpm", "nvidia", "hygondcu", "sample"}
SESSION_S = 300.0
_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
Json = dict[str, Any]
Policy = Callable[[Json], bool]


def default_policy(claims: Json) -> bool:
    """Trustee's own: everything but sample evidence."""
    return "sample" not in claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]


def affirming_policy(claims: Json) -> bool:
    """The one that docs/sealing-kbs.md recommends."""
    return all(each["ear.status"] == "affirming" for each in claims["submods"].values())


def allow_all(claims: Json) -> bool:
    del claims
    return True


@dataclass
class Answer:
    """What goes back."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Session:
    """A handshake."""

    nonce: str
    tee: str
    until: float
    token: str | None = None
    claims: Json = field(default_factory=dict)


class KbsRefused(Exception):
    """An error of the broker; its name and detail."""


def refusal(name: str, detail: str) -> Answer:
    body = {"type": f"https://github.com/confidential-containers/kbs/errors/{name}", "detail": detail}
    return Answer(404 if name in {"InvalidRequestPath", "PluginNotFound"} else 401, json.dumps(body).encode())


class KbsDouble:
    """The broker. A test may set any of its attributes while it serves.

    `before` has what runs before a step; `instead` the answer in its place; `hang` the steps without an answer.
    """

    def __init__(self) -> None:
        self.version = "0.4.0"
        self.resources: dict[str, bytes] = {}
        self.policy: Policy = affirming_policy
        #: Whether reference values are registered: verified evidence is affirming then.
        self.affirming = True
        self.trusts_tokens = True
        self.sessions: dict[str, Session] = {}
        self.asked: list[str] = []
        self.bodies: list[bytes] = []
        self.before: dict[str, Callable[[], None]] = {}
        self.instead: dict[str, Answer] = {}
        self.hang: set[str] = set()
        #: Makes `auth` give the cookie or the nonce of another session.
        self.cookie: str | None = None
        self.nonce: str | None = None
        self.ended = threading.Event()
        self.later_s = 0.0
        self.admin = ed25519.Ed25519PrivateKey.generate()
        self._signer = ec.generate_private_key(ec.SECP256R1())
        self.url = ""

    def expire(self) -> None:
        """Let so much time pass that no session lives."""
        self.later_s += SESSION_S + 1

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer | None:
        if path == "/healthz":
            return Answer(200, b"OK")
        parts = path.removeprefix("/kbs/v0/").split("/")
        step = parts[0] if path.startswith("/kbs/v0/") else ""
        self.asked.append(step)
        self.bodies.append(body)
        self.before.get(step, lambda: None)()
        if step in self.hang:
            self.ended.wait()
            return None
        if step in self.instead:
            return self.instead[step]
        try:
            match method, step:
                case "POST", "auth":
                    return self._auth(body)
                case "POST", "attest":
                    return self._attest(headers, body)
                case "GET", "resource":
                    return self._get(headers, parts[1:])
                case "POST", "resource":
                    return self._put(headers, parts[1:], body)
            return refusal("PluginNotFound", f"Plugin {step} not found")
        except KbsRefused as refused:
            return refusal(*refused.args)

    def _now(self) -> float:
        return time.monotonic() + self.later_s

    def _auth(self, body: bytes) -> Answer:
        failed = "Attestation error: RCAR handshake Auth failed: "
        try:
            asked = json.loads(body)
            version, tee, _ = asked["version"], asked["tee"], asked["extra-params"]
        except (ValueError, KeyError):
            raise KbsRefused("AttestationError", f"{failed}deserialize Request") from None
        if version != self.version:
            detail = f"KBS Client Protocol Version Mismatch: expect ={self.version} while the request is {version}"
            raise KbsRefused("AttestationError", failed + detail)
        if tee not in TEES:
            raise KbsRefused("AttestationError", f"{failed}deserialize Request")
        session, nonce = secrets.token_hex(16), base64.b64encode(secrets.token_bytes(32)).decode()
        self.sessions[session] = Session(nonce, tee, self._now() + SESSION_S)
        shown = {"nonce": self.nonce or nonce, "extra-params": ""}
        expires = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + SESSION_S))
        cookie = f"kbs-session-id={self.cookie or session}; Expires={expires}"
        return Answer(200, json.dumps(shown).encode(), {"Set-Cookie": cookie})

    def _session(self, headers: dict[str, str]) -> tuple[str, Session] | None:
        given = re.search(r"kbs-session-id=([^;]*)", headers.get("cookie", ""))
        found = self.sessions.get(given[1]) if given else None
        return (given[1], found) if given and found is not None and self._now() < found.until else None

    def _attest(self, headers: dict[str, str], body: bytes) -> Answer:
        lost = KbsRefused("AttestationError", "Attestation error: RCAR handshake Attest failed")
        found = self._session(headers)
        if found is None:
            raise lost
        name, session = found
        try:
            asked = json.loads(body)
            runtime, evidence = asked["runtime-data"], asked["tee-evidence"]
            nonce, jwk, more = runtime["nonce"], runtime["tee-pubkey"], evidence["additional_evidence"]
            primary = evidence["primary_evidence"]
        except (ValueError, KeyError):
            raise lost from None
        cookie = {"Set-Cookie": f"kbs-session-id={name}; Expires=x"}
        if session.token is None:
            if nonce != session.nonce or not _bound(session.tee, primary, nonce, jwk, more):
                raise lost
            session.claims = self._claims(session.tee, {"nonce": nonce, "tee-pubkey": jwk, "additional-evidence": more})
            session.token = self.token(session.claims)
        return Answer(200, json.dumps({"token": session.token}).encode(), cookie)

    def _claims(self, tee: str, runtime: Json) -> Json:
        evidence = {"runtime_data_claims": runtime, tee: {"svn": "1"}}
        affirming = {"ear.status": "affirming", "ear.trustworthiness-vector": {"executables": 3, "hardware": 2}}
        contra = {"ear.status": "contraindicated", "ear.trustworthiness-vector": {"executables": 33, "hardware": 97}}
        status = affirming if self.affirming else contra
        cpu = {**status, "ear.appraisal-policy-id": "default", "ear.veraison.annotated-evidence": evidence}
        now = int(time.time())
        return {"iss": "CoCo-Attestation-Service", "iat": now, "exp": now + 300, "submods": {"cpu0": cpu}}

    def token(self, claims: Json) -> str:
        """Return a token as the attestation service signs them: with its key in the header, and no kid."""
        x, y = _coordinates(self._signer.public_key())
        jwk = {"alg": "ES256", "crv": "P-256", "kty": "EC", "x": x, "y": y}
        return jwt.encode(claims, self._signer, "ES256", headers={"jwk": jwk})

    def _get(self, headers: dict[str, str], path: list[str]) -> Answer:
        if len(path) != 3 or not all(_SEGMENT.fullmatch(each) for each in path):
            raise KbsRefused("PluginInternalError", "Plugin internal error")
        found = self._session(headers)
        claims: Json | None = found[1].claims if found is not None and found[1].token is not None else None
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        if claims is None and bearer:
            try:
                claims = jwt.decode(bearer, self._signer.public_key(), ["ES256"])
            except jwt.InvalidTokenError:
                raise KbsRefused("TokenVerifierError", "Token Verifier error") from None
        if claims is None:
            raise KbsRefused("TokenNotFound", "Attestation Token not found")
        if not self.trusts_tokens:
            raise KbsRefused("TokenVerifierError", "Token Verifier error")
        if not self.policy(claims):
            raise KbsRefused("PolicyDeny", "Access denied by policy")
        secret = self.resources.get("/".join(path))
        if secret is None:
            raise KbsRefused("PluginInternalError", "Plugin internal error")
        runtime = claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["runtime_data_claims"]
        return Answer(200, json.dumps(encrypted(secret, runtime["tee-pubkey"])).encode())

    def _put(self, headers: dict[str, str], path: list[str], body: bytes) -> Answer:
        denied = "failed to initialize [admin] configuration: Admin access denied: "
        try:
            bearer = headers.get("authorization", "").removeprefix("Bearer ")
            claims = jwt.decode(bearer, self.admin.public_key(), ["EdDSA"], options={"require": ["exp"]})
        except jwt.InvalidTokenError as error:
            raise KbsRefused("AdminAuthInitialization", f"{denied}{error}") from None
        if claims.get("role") != "admin":
            raise KbsRefused("AdminAuthInitialization", f"{denied}no role")
        self.resources["/".join(path)] = body
        return Answer(200, b"")

    @contextmanager
    def serving(self, tls: ssl.SSLContext | None, port: int = 0) -> Iterator[int]:
        """Serve on loopback; give the port."""
        self.ended.clear()
        server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        server.daemon_threads = True
        server.block_on_close = False
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        port = server.server_port
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{port}"
        try:
            yield port
        finally:
            self.ended.set()
            server.shutdown()
            thread.join()
            server.server_close()


def _handler(double: KbsDouble) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = double.answer(self.command, self.path, headers, body)
            if answer is None:
                self.close_connection = True
                return
            named = {"Content-Length": str(len(answer.body)), **answer.headers}
            head = f"HTTP/1.1 {answer.status} .\r\n" + "".join(f"{name}: {value}\r\n" for name, value in named.items())
            # In one write, or a delayed acknowledgement costs 40 ms.
            self.wfile.write(head.encode() + b"\r\n" + answer.body)

        do_GET = do_POST = respond  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@contextmanager
def running_kbs(folder: Path) -> Iterator[tuple[KbsDouble, Authority]]:
    """Run a broker with TLS; give it and the authority that certifies it."""
    authority = Authority(folder, "kbs-authority")
    double = KbsDouble()
    with double.serving(server_tls(authority)):
        yield double, authority


def server_tls(authority: Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.certificate("kbs"))
    return context


def _bound(tee: str, primary: Json, nonce: str, jwk: Json, more: str) -> bool:
    """Whether evidence is bound to this handshake; the sample machine does not pad, hardware does."""
    runtime = {"additional-evidence": more, "nonce": nonce, "tee-pubkey": jwk}
    text = json.dumps(runtime, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    expected = hashlib.sha384(text.encode()).digest()
    if tee == "sample":
        return base64.b64decode(primary.get("report_data", "")) == expected
    report = primary.get("attestation_report", {}).get("report_data", "")
    return bytes.fromhex(report) == expected.ljust(64, b"\0")


def _coordinates(key: ec.EllipticCurvePublicKey) -> tuple[str, str]:
    point = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return _base64url(point[1:33]), _base64url(point[33:])


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")


def encrypted(secret: bytes, jwk: Json) -> Json:
    """Return the flattened JWE of a secret, its header written as guest-components wants it."""
    if (jwk.get("crv"), jwk.get("alg")) != ("P-256", "ECDH-ES+A256KW"):
        raise KbsRefused("JweError", "JWE failed")
    theirs = ec.EllipticCurvePublicNumbers(_number(jwk["x"]), _number(jwk["y"]), ec.SECP256R1()).public_key()
    ours = ec.generate_private_key(ec.SECP256R1())
    x, y = _coordinates(ours.public_key())
    header = {"alg": jwk["alg"], "enc": "A256GCM", "epk": {"crv": "P-256", "kty": "EC", "x": x, "y": y}}
    protected = _base64url(json.dumps(header, separators=(",", ":")).encode())
    name = b"ECDH-ES+A256KW"
    info = len(name).to_bytes(4, "big") + name + bytes(8) + (256).to_bytes(4, "big")
    wrapping = ConcatKDFHash(SHA256(), 32, info).derive(ours.exchange(ec.ECDH(), theirs))
    content_key, iv = secrets.token_bytes(32), secrets.token_bytes(12)
    sealed = AESGCM(content_key).encrypt(iv, secret, protected.encode())
    parts = {"encrypted_key": aes_key_wrap(wrapping, content_key), "iv": iv, "ciphertext": sealed[:-16]}
    return {"protected": protected, **{k: _base64url(v) for k, v in parts.items()}, "tag": _base64url(sealed[-16:])}
