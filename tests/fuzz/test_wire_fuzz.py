"""Any bytes are a message or a protocol error, and nothing else."""

from contextlib import suppress

import cbor2
from hypothesis import given
from hypothesis import strategies as st

from enclave_signer.protocol import codec
from enclave_signer.protocol.blob import MAGIC, parse_blob
from enclave_signer.protocol.errors import BadBlob, ProtocolError
from enclave_signer.protocol.framing import FrameDecoder
from enclave_signer.protocol.messages import Credentials, GetPublicKey, Import, Initialize, Sign

ITEMS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=80),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12) | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)
CALLS = st.sampled_from(
    ["Initialize", "Import", "ImportUnencrypted", "Generate", "Sign", "SignWith", "PublicKey", "Ok", "Err"]
)
FRAMES = st.one_of(
    st.binary(max_size=300),
    ITEMS.map(cbor2.dumps),
    st.dictionaries(CALLS, ITEMS, min_size=1, max_size=2).map(cbor2.dumps),
)


@given(FRAMES)
def test_requests(frame: bytes) -> None:
    with suppress(ProtocolError):
        codec.decode_request(frame)


@given(FRAMES)
def test_replies(frame: bytes) -> None:
    for request in (Sign(0, b""), Import(b""), GetPublicKey(0), Initialize(Credentials())):
        with suppress(ProtocolError):
            codec.decode_reply(request, frame)


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_streams(pieces: list[bytes]) -> None:
    decoder = FrameDecoder()
    with suppress(ProtocolError):
        for piece in pieces:
            decoder.feed(piece)
            while decoder.next_frame() is not None:
                pass


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_blobs(header: bytes, rest: bytes) -> None:
    for blob in (header, MAGIC + b"\x01" + len(header).to_bytes(2, "big") + header + rest):
        with suppress(BadBlob):
            parse_blob(blob)
