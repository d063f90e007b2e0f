"""HTTP to the key broker and to the attestation agent, by httpx: bounded answers, no redirects, no settings looked up.

The transport is used, and not httpx' client: that keeps cookies, follows where it is led, and reads the environment.
"""

import logging
import ssl
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import trio

from enclave_signer.errors import ConfigError, SealingRefused, SealingUnavailable

#: Bytes of an answer. A token repeats the evidence, with the event log of the machine's start; a key has some hundred.
MAX_ANSWER_BYTES = 262144


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer; what it holds may be secret."""

    status: int
    set_cookies: list[str] = field(repr=False)
    body: bytes = field(repr=False)


def trusting(ca_file: Path) -> ssl.SSLContext:
    """Return how a server is verified that the authorities in a file certify, and no others.

    Raises:
        ConfigError: There is no certificate in it.
    """
    # Not the default context, which trusts the system's authorities, and writes its keys where SSLKEYLOGFILE says.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cafile=ca_file)
    except ssl.SSLError:
        raise ConfigError(f"kbs.ca_file {ca_file}: holds no certificate in PEM") from None
    except OSError as error:
        raise ConfigError(f"kbs.ca_file {ca_file}: {error.strerror}") from error
    return context


class Http:
    """Requests to one server.

    Args:
        who: The server, for texts.
        base: Its scheme, host and port.
        tls: How it is verified; None without TLS.
        limit_s: Seconds for one answer.
    """

    def __init__(self, who: str, base: str, tls: ssl.SSLContext | None, limit_s: float) -> None:
        # They log requests at INFO, and headers at DEBUG.
        for name in ("httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._who = f"{who} at {base}"
        self._base = base
        self._tls = tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._limit_s = limit_s

    def connection(self) -> httpx.AsyncHTTPTransport:
        """Return what requests go over: one connection that is kept within its `async with`."""
        return httpx.AsyncHTTPTransport(
            verify=self._tls, trust_env=False, limits=httpx.Limits(max_connections=1, max_keepalive_connections=1)
        )

    async def ask(
        self, connection: httpx.AsyncHTTPTransport, method: str, path: str, *, body: bytes = b"", cookie: str = ""
    ) -> Reply:
        """Return the answer to a request.

        Args:
            connection: Of `connection`.
            method: Of HTTP.
            path: Path and query.
            body: JSON, may be secret.
            cookie: The value of the header; empty for none.

        Raises:
            SealingRefused: The server is not the one that the authorities certify, or its answer is too long.
            SealingUnavailable: No whole answer in time.
        """
        headers = {"Accept-Encoding": "identity"}
        if body:
            headers["Content-Type"] = "application/json"
        if cookie:
            headers["Cookie"] = cookie
        request = httpx.Request(method, f"{self._base}{path}", headers=headers, content=body or None)
        try:
            with trio.fail_after(self._limit_s):
                return await self._reply(await connection.handle_async_request(request))
        except trio.TooSlowError:
            raise SealingUnavailable(f"{self._who} gave no answer within {self._limit_s:g} s") from None
        except httpx.TransportError as error:
            # Nothing of its chain goes on: a library's text may quote what came.
            raise self._no_answer(error) from None

    async def _reply(self, response: httpx.Response) -> Reply:
        body = bytearray()
        try:
            # Cancelled, and not left by an error: that would leave the library's generators as they are, half way.
            with trio.CancelScope() as reading:
                async for part in response.aiter_raw():
                    body += part
                    if len(body) > MAX_ANSWER_BYTES:
                        reading.cancel()
        finally:
            await response.aclose()
        if len(body) > MAX_ANSWER_BYTES:
            raise SealingRefused(f"{self._who} answered with more than {MAX_ANSWER_BYTES} bytes")
        return Reply(response.status_code, response.headers.get_list("set-cookie"), bytes(body))

    def _no_answer(self, error: httpx.TransportError) -> SealingRefused | SealingUnavailable:
        for cause in _causes(error):
            if isinstance(cause, ssl.SSLCertVerificationError):
                said = f"({cause.verify_message})"
                return SealingRefused(f"{self._who} is not certified by an authority of kbs.ca_file {said}")
            if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
                return SealingRefused(f"{self._who} does not speak TLS as it must ({cause.reason})")
        why = next((each.strerror for each in _causes(error) if isinstance(each, OSError) and each.strerror), None)
        return SealingUnavailable(f"{self._who} gave no answer: {why or 'the connection broke'}")


def _causes(error: BaseException) -> list[BaseException]:
    causes: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in causes:
        causes.append(following)
        if isinstance(following, BaseExceptionGroup):
            causes.extend(following.exceptions)
        following = following.__cause__ or following.__context__
    return causes
