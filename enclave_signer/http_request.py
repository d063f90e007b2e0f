"""One HTTP/1.1 request over a stream of its own, and its answer: for services that are asked now and then."""

import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import h11
import trio
from trio.abc import Stream

from enclave_signer.errors import EnclaveSignerError

#: Opens a stream to the service; raises `OSError` when that cannot be done.
OpenStream = Callable[[], Awaitable[Stream]]

#: Tokens have some KiB; the service never sends more.
MAX_BODY_BYTES = 65536
_READ_BYTES = 16384


class NoHttpAnswer(EnclaveSignerError):
    """The service gave no whole answer; ask again later. The text says why, without what was sent."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """An HTTP request; the body may be secret.

    Attributes:
        method: `GET` or `POST`.
        host: For the header; an answer of a Unix socket does not depend on it.
        target: Path and query.
        content_type: Of the body, where there is one.
        body: Bytes.
    """

    method: str
    host: str
    target: str
    content_type: str = ""
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A whole answer.

    Attributes:
        status: Three digits.
        headers: Names in lower case.
        body: Bytes, at most `MAX_BODY_BYTES`; may be secret.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


async def ask(open_stream: OpenStream, request: HttpRequest, limit_s: float) -> HttpAnswer:
    """Return the answer to a request, over a new stream that is closed afterwards.

    Args:
        open_stream: Where to.
        request: What.
        limit_s: Seconds for all of it.

    Raises:
        NoHttpAnswer: There is none in time, or none that is HTTP.
    """
    try:
        with trio.fail_after(limit_s):
            stream = await open_stream()
            async with stream:
                return await _ask(stream, request)
    except trio.TooSlowError:
        raise NoHttpAnswer(f"no answer within {limit_s:g} s") from None
    except OSError as error:
        raise NoHttpAnswer(error.strerror or str(error) or "no connection") from error
    except trio.BrokenResourceError as error:
        raise NoHttpAnswer(f"the connection broke: {error.__cause__ or 'closed'}") from error
    except h11.RemoteProtocolError:
        # Its text may quote what came.
        raise NoHttpAnswer("the answer is cut short, or not HTTP") from None


async def open_tls(host: str, port: int) -> Stream:
    """Return a stream to a service that a public authority certifies; nothing is sent before the first use.

    Raises:
        OSError: It cannot be reached.
    """
    # Not the default context, which writes its keys where SSLKEYLOGFILE says.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    return await trio.open_ssl_over_tcp_stream(host, port, https_compatible=True, ssl_context=context)


async def _ask(stream: Stream, request: HttpRequest) -> HttpAnswer:
    connection = h11.Connection(h11.CLIENT)
    headers = [("Host", request.host), ("Connection", "close"), ("Content-Length", str(len(request.body)))]
    if request.content_type:
        headers.append(("Content-Type", request.content_type))
    head = h11.Request(method=request.method, target=request.target, headers=headers)
    events = [head, h11.Data(data=request.body), h11.EndOfMessage()]
    # In one write: a body that comes alone waits for the acknowledgement of its head.
    await stream.send_all(b"".join(connection.send(event) or b"" for event in events))
    status, answered, body = 0, {}, bytearray()
    while True:
        match connection.next_event():
            case h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some(_READ_BYTES)))
            case h11.Response() as response:
                status = response.status_code
                answered = {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
            case h11.Data(data=data):
                body += data
                if len(body) > MAX_BODY_BYTES:
                    raise NoHttpAnswer(f"the answer has more than {MAX_BODY_BYTES} bytes")
            case h11.EndOfMessage():
                return HttpAnswer(status, answered, bytes(body))
