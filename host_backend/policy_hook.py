"""The policy hook: a service that is asked about every request that the policy allows.

- Nothing is signed unless it says yes, in time, in full, and, where its keys are configured, signed.
- A limited number of questions at a time; further ones wait, addresses in turn, and their time runs.
- One question, one connection, one time limit over all of it. No redirections, no proxies: the answer comes from the
  address of the configuration, or it is none.
- No (4xx) is a refusal, 403; no answer, or none that can be believed, is 503: Signatory says 500 for some of these.

Source: Signatory's `pkg/signatory/policy_hook.go`.
"""

import asyncio
import base64
import binascii
import json
import secrets
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import SplitResult, urlsplit

import h11

from enclave_signer.curves import CurveError, VerifyingKey, curve
from enclave_signer.protocol.messages import SigningVersion
from enclave_signer.tezos import TezosError, check_public_key_hash, parse_signature, public_key_hash
from host_backend.at_once import AtOnce
from host_backend.config import HookConfig
from host_backend.descriptors import HOOK_CONNECTIONS
from host_backend.errors import HookUnavailable, PolicyDenied, reason_of
from host_backend.http_exchange import HttpAnswer, NoAnswer, Server, exchange
from host_backend.leaving import waiting
from host_backend.policy import Caller

#: Bytes of an answer's body: a status, a text, a hash, a nonce and a signature are some 400.
MAX_ANSWER_BYTES = 64 * 1024
#: Bytes of what makes an answer belong to its question.
NONCE_BYTES = 32
#: Characters of the hook's own words that are passed on.
MAX_REASON_CHARS = 200


class PolicyHook:
    """Asks the hook of a configuration; see `host_backend.signer.Hook`."""

    def __init__(self, config: HookConfig) -> None:
        self._url = urlsplit(config.address)
        self._timeout_s = config.timeout_s
        self._questions = AtOnce(HOOK_CONNECTIONS)
        encrypted = self._url.scheme == "https"
        self._server = Server(
            self._url.hostname or "",
            self._url.port or (443 if encrypted else 80),
            ssl.create_default_context() if encrypted else None,
        )
        self._keys: dict[str, VerifyingKey] | None = None
        if config.authorized_keys is not None:
            self._keys = {
                public_key_hash(key): curve(key.key_type).parse_public_key(key.data) for key in config.authorized_keys
            }

    async def check(self, pkh: str, message: bytes | None, caller: Caller) -> None:
        """Return when the hook allows a request.

        Raises:
            PolicyDenied: It does not, or its answer is to another question, or not signed by a known key.
            HookUnavailable: It did not answer in time, or not as it should.
        """
        nonce = base64.b64encode(secrets.token_bytes(NONCE_BYTES)).decode()
        question: dict[str, object] = {
            "request": None if message is None else base64.b64encode(message).decode(),
            "source": caller.source,
            "client_key_hash": caller.client,
            "public_key_hash": pkh,
            "nonce": nonce,
        }
        if caller.client is None:
            del question["client_key_hash"]
        answer = await self._ask(json.dumps(question, separators=(",", ":")).encode(), caller.source)
        words = ""
        if self._keys is not None:
            signed = _SignedAnswer.parse(answer)
            await signed.check(nonce, self._keys)
            words = signed.error
        _check_status(answer, words)

    async def _ask(self, body: bytes, address: str) -> HttpAnswer:
        asked = False
        try:
            with waiting():
                async with asyncio.timeout(self._timeout_s), self._questions.turn(address):
                    asked = True
                    return await exchange(self._server, _question(self._url, body), body, most_bytes=MAX_ANSWER_BYTES)
        except TimeoutError:
            within = f"within {self._timeout_s:g} s"
            busy = f"not asked {within}: it had {HOOK_CONNECTIONS} other questions all the time"
            raise HookUnavailable("policy hook: " + (f"no answer {within}" if asked else busy)) from None
        except OSError as error:
            raise HookUnavailable(f"policy hook: {reason_of(error)}") from error
        except NoAnswer as error:
            raise HookUnavailable(f"policy hook: {error}") from error
        except (UnicodeError, h11.LocalProtocolError) as error:
            # No request has such a target, or what looks names up cannot encode this one.
            raise HookUnavailable(f"policy hook: its address cannot be used: {error}") from error
        except h11.ProtocolError as error:
            raise HookUnavailable(f"policy hook: its answer is not HTTP: {error}") from error


def _question(url: SplitResult, body: bytes) -> h11.Request:
    headers = [
        ("Host", url.netloc.rpartition("@")[2]),
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    return h11.Request(method="POST", target=target, headers=headers)


def _words(answer: HttpAnswer) -> str:
    """Return the status of an answer in words that can be passed on."""
    return f"{answer.status} {_printable(answer.reason or _usual_reason(answer.status))}".rstrip()


def _usual_reason(status: int) -> str:
    with suppress(ValueError):
        return HTTPStatus(status).phrase
    return ""


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:MAX_REASON_CHARS])


def _check_status(answer: HttpAnswer, words: str) -> None:
    if 200 <= answer.status < 300:
        return
    text = f"policy hook: {words or _words(answer)}"
    raise _denied(text) if 400 <= answer.status < 500 else HookUnavailable(text)


def _denied(text: str) -> PolicyDenied:
    return PolicyDenied(text, violation="policy_hook")


@dataclass(frozen=True, slots=True)
class _SignedAnswer:
    """An answer whose payload is signed, not believed yet."""

    payload: bytes
    signature: str
    nonce: str
    pkh: str
    error: str

    @classmethod
    def parse(cls, answer: HttpAnswer) -> "_SignedAnswer":
        """Read an answer.

        Raises:
            HookUnavailable: It has not the form of one.
        """
        try:
            text = answer.body.decode()
            members = _raw_members(text)
            payload, signature = members["payload"], json.loads(members["signature"])
            values = json.loads(payload)
            status, nonce, pkh = values["status"], values["nonce"], values["public_key_hash"]
            error = values.get("error", "")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise HookUnavailable("policy hook: its reply must be a JSON object with payload and signature") from None
        if not all(isinstance(each, str) for each in (signature, nonce, pkh, error)):
            raise HookUnavailable(
                "policy hook: its reply must have texts for nonce, public_key_hash, error and signature"
            )
        if status != answer.status or isinstance(status, bool):
            raise HookUnavailable("the policy hook reply status must match the HTTP header")
        return cls(payload.encode(), signature, nonce, pkh, _printable(error))

    async def check(self, nonce: str, keys: Mapping[str, VerifyingKey]) -> None:
        """Return when the answer belongs to the question, and one of the keys signed it.

        Raises:
            PolicyDenied: It does not, or none did.
            HookUnavailable: Its signature is none.
        """
        if not _same_bytes(self.nonce, nonce):
            raise _denied("nonce mismatch")
        try:
            check_public_key_hash(self.pkh)
        except TezosError as error:
            raise _denied(f"policy hook: {error}") from None
        key = keys.get(self.pkh)
        if key is None:
            # 401 in Signatory; but it is not the client who failed to say who it is.
            raise _denied("public key not found")
        key_type = key.public_key.key_type
        try:
            signature = parse_signature(self.signature, key_type)
        except TezosError as error:
            raise HookUnavailable(f"policy hook: {error}") from None
        try:
            if key_type.facts.slow:
                await asyncio.to_thread(key.verify, signature, self.payload, SigningVersion.LATEST)
            else:
                key.verify(signature, self.payload, SigningVersion.LATEST)
        except CurveError:
            raise _denied("invalid hook reply signature") from None


def _same_bytes(text: str, nonce: str) -> bool:
    with suppress(binascii.Error, ValueError):
        return secrets.compare_digest(base64.b64decode(text, validate=True), base64.b64decode(nonce))
    return False


def _raw_members(text: str) -> dict[str, str]:
    """Return the members of a JSON object as they are written: a signature covers the bytes, not the value.

    Raises:
        ValueError: It is not a JSON object, or has a member twice.
    """
    decoder = json.JSONDecoder()
    members: dict[str, str] = {}
    place = _past(text, 0, "{")
    while True:
        name, place = decoder.raw_decode(text, _skip(text, place))
        place = _skip(text, _past(text, place, ":"))
        _, end = decoder.raw_decode(text, place)
        if not isinstance(name, str) or name in members:
            raise ValueError(name)
        members[name] = text[place:end]
        place = _skip(text, end)
        if text[place : place + 1] == "}":
            break
        place = _past(text, place, ",")
    if text[place + 1 :].strip(_WHITE_SPACE):
        raise ValueError
    return members


_WHITE_SPACE = " \t\r\n"


def _skip(text: str, place: int) -> int:
    while text[place : place + 1] in _WHITE_SPACE and place < len(text):
        place += 1
    return place


def _past(text: str, place: int, mark: str) -> int:
    place = _skip(text, place)
    if text[place : place + 1] != mark:
        raise ValueError(mark)
    return place + 1
