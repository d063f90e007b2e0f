"""What stands in the body of a request to sign: hex between quotes is read without JSON, and means the same."""

import binascii
import json

import pytest

from host_backend.api.bodies import parse_body
from host_backend.errors import MalformedRequest


def by_json(body: bytes) -> bytes | None:
    """What JSON and hex say; None: it is refused."""
    try:
        text = json.loads(body.decode())
        return b"" if text is None else binascii.unhexlify(text)
    except (ValueError, TypeError):
        return None


@pytest.mark.parametrize(
    "body",
    [
        *(b'""', b'"00ff"', b'"00FF"', b' "00" ', b'"00"\n', b"null", b'"\\u0030\\u0030"', b'"11" "22"', b'"11"22"'),
        *(
            b"",
            b'"',
            b'"0"',
            b'"0g"',
            b'"0x00"',
            b'"00 11"',
            b'"00\n"',
            b"'00'",
            b'""00""',
            b'"00',
            b'00"',
            b"00",
            b"[]",
        ),
        *(b'"\xff\xfe"', b'"\xc3\xbc"', b'"\xef\xbc\x90\xef\xbc\x90"', b'\xef\xbb\xbf"00"', '"00"'.encode("utf-16")),
    ],
)
def test_a_body_means_what_json_and_hex_make_of_it(body: bytes) -> None:
    expected = by_json(body)
    if expected is None:
        with pytest.raises(MalformedRequest):
            parse_body(body)
    else:
        assert parse_body(body) == expected
