"""A client of gRPC by hand, as skopeo is one: it opens a connection, makes one unary call, and closes."""

import socket
import struct
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes

SERVICE = "/keyprovider.KeyProviderService/"
PATIENCE_S = 60.0

Place = Path | tuple[str, int]


@dataclass(slots=True)
class Answer:
    """What came back.

    Attributes:
        headers: Of the answer, trailers included.
        body: All of it.
        ended: Whether the server ended the call in order.
    """

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False

    @property
    def status(self) -> int:
        return int(self.headers["grpc-status"])

    @property
    def text(self) -> str:
        return unquote(self.headers.get("grpc-message", ""))

    @property
    def message(self) -> bytes:
        """The bytes field of the one message."""
        assert self.body[0] == 0
        assert struct.unpack(">I", self.body[1:5]) == (len(self.body) - 5,)
        assert self.body[5] == 0x0A
        place, length, shift = 6, 0, 0
        while True:
            byte = self.body[place]
            length |= (byte & 0x7F) << shift
            place, shift = place + 1, shift + 7
            if byte < 0x80:
                break
        assert len(self.body) == place + length
        return self.body[place:]


def connected(place: Place) -> socket.socket:
    stream = socket.socket(socket.AF_UNIX if isinstance(place, Path) else socket.AF_INET)
    stream.settimeout(PATIENCE_S)
    stream.connect(str(place) if isinstance(place, Path) else place)
    return stream


def body_of(data: bytes) -> bytes:
    """Return a body with one message of one bytes field."""
    length, rest = b"", len(data)
    while rest > 0x7F:
        length += bytes([0x80 | rest & 0x7F])
        rest >>= 7
    message = b"\x0a" + length + bytes([rest]) + data
    return b"\0" + struct.pack(">I", len(message)) + message


def _exchange(h2: H2Connection, stream: socket.socket, body: bytes, *, acknowledge: bool = True) -> Answer:
    """Send a body as the server makes room, and return the answer, which may come before the end of it."""
    answer, over = Answer(), False
    while not over:
        while body and (room := min(h2.local_flow_control_window(1), h2.max_outbound_frame_size)):
            h2.send_data(1, body[:room], end_stream=len(body) <= room)
            body = body[room:]
        if acknowledge:
            stream.sendall(h2.data_to_send())
        data = stream.recv(65536)
        for event in h2.receive_data(data):
            over |= _take(answer, event)
            if acknowledge and isinstance(event, DataReceived):
                h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        over |= not data
    return answer


def _take(answer: Answer, event: Event) -> bool:
    """Add to an answer; return whether there is no more of it."""
    match event:
        case ResponseReceived() | TrailersReceived():
            answer.headers |= {bytes(name).decode(): bytes(value).decode() for name, value in event.headers or ()}
        case DataReceived():
            answer.body += event.data
        case StreamEnded():
            answer.ended = True
    return isinstance(event, StreamEnded | StreamReset | ConnectionTerminated)


def call(
    place: Place,
    method: str,
    body: bytes,
    *,
    content_type: str = "application/grpc",
    path: str | None = None,
    window: int | None = None,
) -> Answer:
    """Make one call on a connection of its own; `window` is the room in bytes that the client gives at a time."""
    h2 = H2Connection(H2Configuration(header_encoding=None))
    h2.initiate_connection()
    if window is not None:
        h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
    h2.send_headers(
        1,
        [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path or SERVICE + method),
            (":authority", "localhost"),
            ("content-type", content_type),
            ("te", "trailers"),
        ],
    )
    with connected(place) as stream:
        return _exchange(h2, stream, body)


def replay(place: Place, sent: bytes) -> Answer:
    """Send the recorded bytes of a client's whole connection, with one call, and return its answer."""
    h2 = H2Connection(H2Configuration(header_encoding=None))
    h2.initiate_connection()
    h2.send_headers(1, [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "-")], end_stream=True)
    with connected(place) as stream:
        stream.sendall(sent)
        return _exchange(h2, stream, b"", acknowledge=False)
