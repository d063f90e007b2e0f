"""HTTP requests to Vault or OpenBao: one address, one certificate authority, answers of limited size and time.

- No proxy, environment variable, redirect, compression or cookie is used.
- A request without an answer is repeated, within the time of the call; all requests made here may be repeated.
- Error texts of the server are shown without the secrets of the request.
- The transport is used, and not httpx' client: that keeps cookies, and parses where it is led.

Importing this module loads the library: 0.1 s.
"""

import json
import logging
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial

import httpx
import trio

from enclave_signer.errors import ConfigError, SealingUnavailable
from enclave_signer.launcher import shown
from enclave_signer.sealing.vault_answers import VaultAnswer
from enclave_signer.sealing.vault_config import VaultConfig

#: Bytes of one answer: 200 items have some 50 KiB.
MAX_ANSWER_BYTES = 262144
#: Connections to the server, and requests under way: each key has two at most, and clients choose among many names where a
#: prefix is allowed. The others wait here: the library's own queue costs each answer time for each of them.
MAX_CONNECTIONS = 16
#: Seconds for which an idle connection is kept, before a firewall drops it.
IDLE_S = 30.0


@dataclass(frozen=True, slots=True)
class VaultRequest:
    """A request.

    Attributes:
        path: The path after `/v1/`.
        body: The JSON object of a `POST`; None for a `GET`.
        token: The token of the server; empty for a login.
        secrets: Texts of 4 characters or more that no error may show.
    """

    path: str
    body: Mapping[str, object] | None = field(default=None, repr=False)
    token: str = field(default="", repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)


class VaultClient:
    """The client of a server.

    Args:
        config: From the image.
        call_s: Seconds for all attempts of one request.
        retry_after_s: Pauses before a request without an answer is repeated.

    Raises:
        ConfigError: The file of the certificate authority cannot be used.
    """

    def __init__(self, config: VaultConfig, call_s: float, retry_after_s: Sequence[float]) -> None:
        self._address = config.address
        self._call_s = call_s
        self._retry_after_s = retry_after_s
        # They log the addresses of requests and the headers of answers.
        for library in ("httpx", "httpcore"):
            logging.getLogger(library).setLevel(logging.WARNING)
        self._places = trio.CapacityLimiter(MAX_CONNECTIONS)
        self._http = httpx.AsyncHTTPTransport(
            verify=_authority(config),
            trust_env=False,
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=IDLE_S),
        )

    async def ask(self, request: VaultRequest) -> VaultAnswer:
        """Return the answer to a request, whatever its status.

        Raises:
            SealingUnavailable: No answer in time, or none in JSON.
        """
        with trio.move_on_after(self._call_s):
            async with self._places:
                return await self._answered(request)
        raise SealingUnavailable(f"the server {self._address} gave no answer within {self._call_s:g} s")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _answered(self, request: VaultRequest) -> VaultAnswer:
        for pause in (*self._retry_after_s, None):
            try:
                status, body = await self._once(request)
                break
            except httpx.HTTPError as error:
                if pause is None:
                    why = _without(request, _cause(error))
                    raise SealingUnavailable(f"the server {self._address} gave no answer: {why}") from None
            await trio.sleep(pause)
        try:
            fields = json.loads(body) if body else {}
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            raise SealingUnavailable(f"the server {self._address} answered with HTTP status {status} and no JSON")
        for_people = partial(_without, request)
        return VaultAnswer(status, fields, for_people(_errors(fields)), for_people)

    async def _once(self, request: VaultRequest) -> tuple[int, bytes]:
        sent = _http_request(f"{self._address}/v1/{request.path}", request)
        status, body = 0, bytearray()
        # The library's generators are closed in order only by an exception from what they await.
        with trio.CancelScope() as enough:
            async with aclosing(await self._http.handle_async_request(sent)) as answer:
                status = answer.status_code
                async for part in answer.aiter_raw():
                    body += part
                    if len(body) > MAX_ANSWER_BYTES:
                        enough.cancel()
        if len(body) > MAX_ANSWER_BYTES:
            raise SealingUnavailable(f"the server's answer has more than {MAX_ANSWER_BYTES} bytes")
        return status, bytes(body)


class _Body(httpx.AsyncByteStream):
    """The body of a request. The library's own is a generator, which stays unfinished when the connection breaks."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._sent = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._sent = False
        return self

    async def __anext__(self) -> bytes:
        if self._sent:
            raise StopAsyncIteration
        self._sent = True
        return self._data


def _http_request(url: str, request: VaultRequest) -> httpx.Request:
    headers = {"Host": httpx.URL(url).netloc.decode(), "X-Vault-Request": "true", "User-Agent": "enclave-signer"}
    if request.token:
        headers["X-Vault-Token"] = request.token
    if request.body is None:
        return httpx.Request("GET", url, headers=headers, stream=_Body(b""))
    body = json.dumps(request.body).encode()
    headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    return httpx.Request("POST", url, headers=headers, stream=_Body(body))


def _authority(config: VaultConfig) -> ssl.SSLContext:
    # Not the default context, which writes its keys where SSLKEYLOGFILE says, and has authorities of its own.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if config.ca_file is not None:
        try:
            context.load_verify_locations(cafile=config.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"vault_transit.ca_file: {config.ca_file}: {error.strerror or error}") from None
    return context


def _cause(error: BaseException | None) -> str:
    """Return the text of the first cause: the errors of the library are often empty."""
    text = type(error).__name__
    while error is not None:
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        text = str(error) or text
        error = error.__cause__ or error.__context__
    return text


def _errors(fields: Mapping[str, object]) -> str:
    errors = fields.get("errors")
    return " ".join(str(each) for each in errors[:5]) if isinstance(errors, list) else ""


def _without(request: VaultRequest, text: str) -> str:
    for secret in (request.token, *request.secrets):
        if len(secret) > 3:
            text = text.replace(secret, "(secret)")
    return shown(text)
