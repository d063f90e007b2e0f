"""HTTP to Vault or OpenBao: one address, one authority, answers of bounded size within bounded time.

- Nothing is looked up: no proxy, no variables of the environment, no redirects, no compression, no cookies.
- A request that got no answer is made again, within the time of the call; all that are made may be made twice.
- What a server says of an error is shown without what was sent to it in secret.

Importing this module loads the library: 0.1 s.
"""

import json
import logging
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import httpx
import trio

from enclave_signer.errors import ConfigError, SealingUnavailable
from enclave_signer.launcher import shown
from enclave_signer.sealing.vault_answers import VaultAnswer
from enclave_signer.sealing.vault_config import VaultConfig

#: Bytes of one answer: 200 items have some 50 KiB.
MAX_ANSWER_BYTES = 262144
#: Connections to the server: each call waits for its answer, and each key has two under way at the most.
MAX_CONNECTIONS = 16
#: Seconds for which an idle connection is kept: what lies between may forget it.
IDLE_S = 30.0


@dataclass(frozen=True, slots=True)
class VaultRequest:
    """What is asked.

    Attributes:
        path: Behind `/v1/`.
        body: A JSON object, for `POST`; None for `GET`.
        token: Of the server; empty for a login.
        secrets: Texts that no error may show; those of fewer than 4 characters are none.
    """

    path: str
    body: Mapping[str, object] | None = field(default=None, repr=False)
    token: str = field(default="", repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)


class VaultClient:
    """A server.

    Args:
        config: Of the image.
        call_s: Seconds for all attempts of one request.
        retry_after_s: Pauses before a request is made again that got no answer.

    Raises:
        ConfigError: The authority's file cannot be used.
    """

    def __init__(self, config: VaultConfig, call_s: float, retry_after_s: Sequence[float]) -> None:
        self._address = config.address
        self._call_s = call_s
        self._retry_after_s = retry_after_s
        # They write addresses of requests, and headers of answers.
        for library in ("httpx", "httpcore"):
            logging.getLogger(library).setLevel(logging.WARNING)
        self._http = httpx.AsyncClient(
            verify=_authority(config),
            trust_env=False,
            follow_redirects=False,
            timeout=None,  # noqa: S113 -- each request has a deadline
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=IDLE_S),
            headers={"X-Vault-Request": "true", "Accept-Encoding": "identity", "User-Agent": "enclave-signer"},
        )

    async def ask(self, request: VaultRequest) -> VaultAnswer:
        """Return the answer to a request, whatever its status.

        Raises:
            SealingUnavailable: There is none, or none that is the server's.
        """
        with trio.move_on_after(self._call_s):
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
        self._http.cookies.clear()
        try:
            fields = json.loads(body) if body else {}
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            raise SealingUnavailable(f"the server {self._address} answered with HTTP status {status} and no JSON")
        return VaultAnswer(status, fields, _without(request, _errors(fields)))

    async def _once(self, request: VaultRequest) -> tuple[int, bytes]:
        url = f"{self._address}/v1/{request.path}"
        headers = {"X-Vault-Token": request.token} if request.token else {}
        method = "GET" if request.body is None else "POST"
        status, body = 0, bytearray()
        # The library's generators end in order only when what they wait for is cancelled.
        with trio.CancelScope() as enough:
            async with self._http.stream(method, url, headers=headers, json=request.body) as answer:
                status = answer.status_code
                async for part in answer.aiter_raw():
                    body += part
                    if len(body) > MAX_ANSWER_BYTES:
                        enough.cancel()
        if len(body) > MAX_ANSWER_BYTES:
            raise SealingUnavailable(f"the server's answer has more than {MAX_ANSWER_BYTES} bytes")
        return status, bytes(body)


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
    """Return what is at the bottom of an error: the library's own often say nothing."""
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
